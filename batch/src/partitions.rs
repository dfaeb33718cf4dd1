//! Columns that are in the names of folders: `date=2026-01-01/region=UK/part.parquet`.

use std::borrow::Cow;
use std::path::{Component, Path, PathBuf};

use arrow_schema::{DataType, Field, Fields};
use datafusion::scalar::ScalarValue;
use percent_encoding::percent_decode;

use crate::Error;

/// What writers put in the place of a missing value.
pub(crate) const MISSING: &str = "__HIVE_DEFAULT_PARTITION__";

/// The partition columns of a table, and their values for each of its files.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Partitions {
    /// The columns, outermost folder first.
    pub(crate) fields: Vec<Field>,
    /// Values of the columns for each file.
    pub(crate) values: Vec<Vec<ScalarValue>>,
}

/// One file's folders: name and value, none where it is missing.
type Folders = Vec<(String, Option<String>)>;

impl Partitions {
    /// Reads the folders between `table` and each of its `files`.
    ///
    /// All files must have the same columns in the same order. Columns that are `in_files` too are
    /// left to the files.
    pub(crate) fn read(table: &Path, files: &[PathBuf], in_files: &Fields) -> Result<Self, Error> {
        let of_files = files
            .iter()
            .map(|file| folders(table, file))
            .collect::<Result<Vec<_>, _>>()?;
        check_alike(table, files, &of_files)?;
        let Some(first) = of_files.first() else {
            return Ok(Self::default());
        };
        let mut partitions = Self {
            fields: vec![],
            values: vec![vec![]; files.len()],
        };
        for (position, (name, _)) in first.iter().enumerate() {
            if !in_files.iter().any(|field| field.name() == name) {
                let texts = of_files
                    .iter()
                    .map(|folders| folders[position].1.as_deref());
                partitions.add(name, &texts.collect::<Vec<_>>());
            }
        }
        Ok(partitions)
    }

    fn add(&mut self, name: &str, texts: &[Option<&str>]) {
        let present: Vec<&str> = texts.iter().copied().flatten().collect();
        let kind = Kind::of(&present);
        let nullable = texts.iter().any(Option::is_none);
        self.fields
            .push(Field::new(name, kind.data_type(), nullable));
        for (values, text) in self.values.iter_mut().zip(texts) {
            values.push(kind.value(*text));
        }
    }
}

/// Whether a folder's name is one of a partition column and its value.
pub(crate) fn is_partition(folder: &str) -> bool {
    matches!(folder.split_once('='), Some((name, _)) if !name.is_empty())
}

/// The partition columns in the path of a file. Other folders are only folders.
fn folders(table: &Path, file: &Path) -> Result<Folders, Error> {
    let below = file.strip_prefix(table).unwrap_or(file);
    let parent = below.parent().unwrap_or(Path::new(""));
    let mut found: Folders = vec![];
    for component in parent.components() {
        let Component::Normal(folder) = component else {
            continue;
        };
        let folder = folder.to_string_lossy();
        let Some((name, value)) = folder.split_once('=').filter(|(name, _)| !name.is_empty())
        else {
            continue;
        };
        let decoded = |text| decoded(text).ok_or_else(|| not_text(table, &folder));
        let name = decoded(name)?.into_owned();
        if found.iter().any(|(other, _)| *other == name) {
            return Err(Error::Unsupported {
                table: table.display().to_string(),
                feature: format!(
                    "has the partition column `{name}` twice in `{}`",
                    file.display()
                ),
            });
        }
        let value = (value != MISSING).then(|| decoded(value)).transpose()?;
        found.push((name, value.map(Cow::into_owned)));
    }
    Ok(found)
}

/// Writers escape what a folder's name cannot hold.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    percent_decode(text.as_bytes()).decode_utf8().ok()
}

fn not_text(table: &Path, folder: &str) -> Error {
    Error::Unsupported {
        table: table.display().to_string(),
        feature: format!("has a folder `{folder}`, whose name is not UTF-8 when it is decoded"),
    }
}

fn check_alike(table: &Path, files: &[PathBuf], of_files: &[Folders]) -> Result<(), Error> {
    let names = |folders: &Folders| -> Vec<String> {
        folders.iter().map(|(name, _)| name.clone()).collect()
    };
    let expected = of_files.first().map(names).unwrap_or_default();
    for (file, folders) in files.iter().zip(of_files) {
        let found = names(folders);
        if found != expected {
            return Err(Error::LayoutsDiffer {
                table: table.display().to_string(),
                file: file.clone(),
                found,
                expected,
            });
        }
    }
    Ok(())
}

/// The type of a partition column. Folders do not say it: it is the first of these that holds all
/// values as they are written, so that no text is lost (`007` is text).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Date,
    Small,
    Large,
    Text,
}

impl Kind {
    fn of(texts: &[&str]) -> Self {
        let holds = |kind: &Self| !texts.is_empty() && texts.iter().all(|text| kind.holds(text));
        [Self::Date, Self::Small, Self::Large]
            .into_iter()
            .find(holds)
            .unwrap_or(Self::Text)
    }

    fn data_type(self) -> DataType {
        match self {
            Self::Date => DataType::Date32,
            Self::Small => DataType::Int32,
            Self::Large => DataType::Int64,
            Self::Text => DataType::Utf8,
        }
    }

    fn holds(self, text: &str) -> bool {
        self.parse(text)
            .is_some_and(|value| value.to_string() == text)
    }

    fn parse(self, text: &str) -> Option<ScalarValue> {
        match self {
            Self::Text => Some(ScalarValue::from(text)),
            Self::Date | Self::Small | Self::Large => {
                ScalarValue::try_from_string(text.to_owned(), &self.data_type()).ok()
            }
        }
    }

    fn value(self, text: Option<&str>) -> ScalarValue {
        text.and_then(|text| self.parse(text))
            .unwrap_or(match self {
                Self::Date => ScalarValue::Date32(None),
                Self::Small => ScalarValue::Int32(None),
                Self::Large => ScalarValue::Int64(None),
                Self::Text => ScalarValue::Utf8(None),
            })
    }
}

/// How messages tell the columns of a layout.
pub(crate) fn told(columns: &[String]) -> String {
    match columns {
        [] => "no partition columns".to_owned(),
        _ => format!("the partition columns `{}`", columns.join("`, `")),
    }
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

    use super::*;
    use crate::schema::type_name;

    fn read(files: &[&str]) -> Result<Partitions, Error> {
        let table = Path::new("/t");
        let files: Vec<PathBuf> = files.iter().map(|file| table.join(file)).collect();
        Partitions::read(table, &files, &Fields::empty())
    }

    fn only_type(files: &[&str]) -> String {
        type_name(read(files).unwrap().fields[0].data_type())
    }

    #[test]
    fn folders_are_columns_outermost_first() {
        let found = read(&[
            "date=2026-01-01/region=UK/0.parquet",
            "date=2026-01-02/region=US/0.parquet",
        ]);
        let found = found.unwrap();
        let names: Vec<&String> = found.fields.iter().map(Field::name).collect();
        assert_eq!(names, ["date", "region"]);
        assert_eq!(
            found.values,
            [
                [ScalarValue::Date32(Some(20_454)), ScalarValue::from("UK")],
                [ScalarValue::Date32(Some(20_455)), ScalarValue::from("US")]
            ]
        );
    }

    #[test]
    fn one_type_holds_all_values_as_they_are_written() {
        assert_eq!(only_type(&["p=1/f", "p=-2/f"]), "int32");
        assert_eq!(only_type(&["p=1/f", "p=3000000000/f"]), "int64");
        assert_eq!(only_type(&["p=1/f", "p=007/f"]), "utf8");
        assert_eq!(only_type(&["p=1/f", "p=+7/f"]), "utf8");
        assert_eq!(only_type(&["p=2026-01-01/f", "p=1/f"]), "utf8");
        assert_eq!(only_type(&["p=2026-01-01/f", "p=2026-02-30/f"]), "utf8");
        assert_eq!(only_type(&["p=2026-1-1/f"]), "utf8");
        assert_eq!(only_type(&["p=1/f", "p=/f"]), "utf8");
        assert_eq!(only_type(&["p=1.5/f"]), "utf8");
    }

    #[test]
    fn the_default_partition_is_a_missing_value_of_any_type() {
        let found = read(&["p=__HIVE_DEFAULT_PARTITION__/f", "p=7/f"]).unwrap();
        assert!(found.fields[0].is_nullable());
        assert_eq!(
            found.values,
            [[ScalarValue::Int32(None)], [ScalarValue::Int32(Some(7))]]
        );
        assert_eq!(only_type(&["p=__HIVE_DEFAULT_PARTITION__/f"]), "utf8");
    }

    #[test]
    fn other_folders_are_only_folders() {
        let found = read(&["2026/p=1/more/f", "2027/p=2/f"]).unwrap();
        assert_eq!(found.fields.len(), 1);
        assert_eq!(read(&["a/=b/f"]).unwrap().fields, []);
    }

    #[test]
    fn differing_layouts_are_refused_by_name() {
        for files in [
            ["a=1/b=2/f", "b=2/a=1/f"],
            ["a=1/f", "f"],
            ["a=1/f", "a=1/b=1/f"],
        ] {
            let error = read(&files).unwrap_err();
            assert!(matches!(error, Error::LayoutsDiffer { .. }), "{error}");
        }
        let message = read(&["a=1/f", "f"]).unwrap_err().to_string();
        assert_eq!(
            message,
            "`/t/f` has no partition columns, other files of the table `/t` have the partition columns `a`"
        );
    }

    #[test]
    fn a_column_twice_in_one_path_is_refused() {
        assert!(matches!(
            read(&["a=1/a=2/f"]),
            Err(Error::Unsupported { .. })
        ));
    }

    #[test]
    fn a_column_of_the_files_is_left_to_them() {
        let files = [PathBuf::from("/t/a=1/b=2/f")];
        let own = Fields::from(vec![Field::new("a", DataType::Int8, true)]);
        let found = Partitions::read(Path::new("/t"), &files, &own).unwrap();
        assert_eq!(found.fields.len(), 1);
        assert_eq!(found.values[0].len(), 1);
    }

    /// Any text, often with what paths and escapes are made of.
    fn text(random: &mut fastrand::Rng) -> String {
        let any = [
            '=',
            '%',
            '/',
            '.',
            '_',
            ' ',
            '2',
            'F',
            'ü',
            '\u{0}',
            random.char(..),
        ];
        (0..random.usize(..9))
            .filter_map(|_| random.choice(any))
            .collect()
    }

    #[test]
    fn escaped_names_and_values_come_back() {
        let escape = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let random = &mut fastrand::Rng::with_seed(7);
        for _ in 0..1_000 {
            let name = format!("n{}", text(random));
            let rows: Vec<(String, i64)> = (0..random.usize(1..5))
                .map(|_| (text(random), random.i64(..)))
                .collect();
            let path = |(text, number): &(String, i64)| {
                format!(
                    "/t/{}={}/{number}/m={number}/f",
                    escape(&name),
                    escape(text)
                )
                .into()
            };
            let files: Vec<PathBuf> = rows.iter().map(path).collect();
            let found = Partitions::read(Path::new("/t"), &files, &Fields::empty()).unwrap();
            assert_eq!(found.fields[0].name(), &name);
            for ((text, number), values) in rows.iter().zip(&found.values) {
                assert_eq!(&values[0].to_string(), text);
                assert_eq!(values[1].to_string(), number.to_string());
            }
        }
    }

    #[test]
    fn any_path_is_read_or_refused() {
        let random = &mut fastrand::Rng::with_seed(8);
        for _ in 0..10_000 {
            let file = PathBuf::from(format!("/t/{}/{}", text(random), text(random)));
            if let Ok(found) = Partitions::read(Path::new("/t"), &[file], &Fields::empty()) {
                assert_eq!(found.fields.len(), found.values[0].len());
            }
        }
    }
}
