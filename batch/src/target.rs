//! Where results go: what is there before the job, and what its commit will do to it.

use std::path::{Path, PathBuf};

use arrow_schema::{DataType, Fields, Schema, SchemaRef};
use deltalake_core::DeltaTable;
use deltalake_core::kernel::StructField;
use deltalake_core::kernel::transaction::PROTOCOL;
use deltalake_core::table::config::TablePropertiesExt as _;
use deltalake_core::table::state::DeltaTableState;
use object_store::ObjectMeta;

use crate::attempt::{is_left_over, job_of};
use crate::claim::CLAIMS;
use crate::commit::is_mark;
use crate::delta_schema::written;
use crate::error::NOT_WRITTEN;
use crate::formats::Kind;
use crate::layout::Layout;
use crate::ledger::{self, FILES, LEDGER};
use crate::location::{Location, absolute};
use crate::partitions::told;
use crate::schema::{check_same, type_name};
use crate::snapshot::{loaded, unreadable, unsupported};
use crate::source::{Source, data_files};
use crate::table_lock::TableLock;
use crate::{Error, Format, Job, Mode, Stores};

/// The table that a job writes, as it was before any work.
#[derive(Debug)]
pub(crate) struct Target {
    /// Where it is.
    pub(crate) location: Location,
    /// Columns that are written.
    pub(crate) written: SchemaRef,
    /// Which of them are in names of folders.
    pub(crate) layout: Layout,
    /// Columns that tell which row takes the place of which, if rows are merged.
    pub(crate) merge_on: Vec<String>,
    /// What the commit will do.
    pub(crate) change: Change,
}

/// Where results are to go, and how.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) location: Location,
    pub(crate) mode: &'a Mode,
    pub(crate) format: Format,
    pub(crate) partition_by: &'a [String],
}

/// What a commit does to the table.
#[derive(Debug)]
pub(crate) enum Change {
    Delta(DeltaChange),
    Parquet(ParquetChange),
}

#[derive(Debug)]
pub(crate) enum DeltaChange {
    /// It makes the table; if that `appends`, and somebody else makes the same table meanwhile, it adds files to it.
    Create { appends: bool },
    /// It adds files to the table, which was at this version when it was checked.
    Append(Box<DeltaTable>),
    /// It puts files in the place of some there are; the columns stay the same.
    Rewrite(Old),
    /// It puts files in the place of those there are, and new columns in the place of the old.
    Replace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParquetChange {
    /// It makes the folder; as for [`DeltaChange::Create`].
    Create { appends: bool },
    /// It adds files to the folder.
    Append,
    /// It puts a new folder in the place of the old.
    Replace(Old),
}

/// The rows of the table that the results take the place of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Old {
    /// All.
    All,
    /// Those in the partitions of the results.
    OfPartitions,
    /// Those with the keys of the results.
    WithKeys,
}

impl Target {
    /// Refuses an output that the results cannot go to, before any work.
    pub(crate) async fn check(
        job: &Job,
        stores: &Stores,
        mapped: &SchemaRef,
    ) -> Result<Self, Error> {
        let wanted = Wanted {
            location: job.output(stores).await?.resolved(),
            mode: &job.mode,
            format: job.format,
            partition_by: &job.partition_by,
        };
        check_apart(&job.input(stores).await?.resolved(), &wanted.location)?;
        Self::find(wanted, mapped).await
    }

    /// As [`check`](Self::check), where the inputs have been looked at.
    pub(crate) async fn find(wanted: Wanted<'_>, mapped: &SchemaRef) -> Result<Self, Error> {
        let Wanted {
            location,
            mode,
            format,
            partition_by,
        } = wanted;
        let written = written(mapped, format)?;
        // In a bucket, one name may be that of a file and of a folder.
        if location.bucket().is_none() && location.is_file().await? {
            return Err(not_that(&location, "is a file, not a folder"));
        }
        let merge_on = merge_on(mode, &written)?;
        let asked = Layout::new(&written, partition_by)?;
        let (layout, change) = match format {
            Format::Delta => {
                let (layout, change) = delta(&location, mode, asked).await?;
                (layout, Change::Delta(change))
            }
            Format::Parquet => {
                let (layout, change) = parquet(&location, mode, asked).await?;
                (layout, Change::Parquet(change))
            }
        };
        if *mode == Mode::OverwritePartitions && !layout.is_partitioned() {
            return Err(Error::NotPartitioned {
                table: location.to_string(),
            });
        }
        Ok(Self {
            location,
            written,
            layout,
            merge_on,
            change,
        })
    }

    /// How it is kept.
    pub(crate) fn format(&self) -> Format {
        match self.change {
            Change::Delta(_) => Format::Delta,
            Change::Parquet(_) => Format::Parquet,
        }
    }
}

/// A result that is part of its own input would be read as input the next time.
pub(crate) fn check_apart(input: &Location, output: &Location) -> Result<(), Error> {
    let (from, to) = (input.path(), output.path());
    let is_within = from != to && (from.starts_with(to) || to.starts_with(from));
    if is_within && input.is_beside(output) {
        return Err(not_that(output, "and the input are part of one another"));
    }
    Ok(())
}

/// The columns that rows are merged on. Refuses those that do not tell one row from another.
fn merge_on(mode: &Mode, written: &SchemaRef) -> Result<Vec<String>, Error> {
    let Mode::MergeOn(columns) = mode else {
        return Ok(vec![]);
    };
    let refuse = |column: &str, reason: String| Error::MergeOn {
        column: column.to_owned(),
        reason,
    };
    if columns.is_empty() {
        return Err(refuse("", "no column is named".into()));
    }
    for column in columns {
        let Ok(field) = written.field_with_name(column) else {
            return Err(refuse(column, NOT_WRITTEN.into()));
        };
        let found = field.data_type();
        if found.is_floating() || found.is_nested() {
            let reason = format!("values of {} are not keys", type_name(found));
            return Err(refuse(column, reason));
        }
    }
    Ok(columns.clone())
}

/// The layout of the table that is there, if it is the one that was asked for, or none was.
fn settled(location: &Location, asked: Layout, there: &[String]) -> Result<Layout, Error> {
    if asked.columns() == there {
        return Ok(asked);
    }
    if asked.is_partitioned() {
        return Err(Error::OtherPartitions {
            table: location.to_string(),
            found: told(there),
            wanted: told(&asked.columns()),
        });
    }
    Layout::new(asked.written(), there)
}

/// The layout of a table that takes the place of another one: the same unless another is asked for, or
/// columns are missing.
fn inherited(asked: Layout, there: &[String]) -> Layout {
    if asked.is_partitioned() {
        return asked;
    }
    Layout::new(asked.written(), there).unwrap_or(asked)
}

async fn delta(
    location: &Location,
    mode: &Mode,
    asked: Layout,
) -> Result<(Layout, DeltaChange), Error> {
    location.url()?;
    let table = match loaded(location).await {
        Ok(table) => table,
        Err(Error::TableNotFound { .. }) if is_free(location).await? => {
            let appends = *mode == Mode::Append;
            return Ok((asked, DeltaChange::Create { appends }));
        }
        Err(Error::TableNotFound { .. }) => {
            return Err(not_that(
                location,
                "is a folder with files, but not a Delta table",
            ));
        }
        Err(error) => return Err(error),
    };
    let state = table
        .snapshot()
        .map_err(|source| unreadable(location, source))?;
    let there = state.metadata().partition_columns();
    let same = check_columns(location, state, asked.written())
        .and_then(|()| settled(location, asked.clone(), there));
    if *mode == Mode::Error {
        return Err(exists(location, same));
    }
    check_writable(location, state, mode)?;
    Ok(match (mode, same) {
        (Mode::Overwrite, Ok(layout)) => (layout, DeltaChange::Rewrite(Old::All)),
        (Mode::Overwrite, Err(_)) => (inherited(asked, there), DeltaChange::Replace),
        (_, Err(mismatch)) => return Err(mismatch),
        (Mode::OverwritePartitions, Ok(layout)) => {
            (layout, DeltaChange::Rewrite(Old::OfPartitions))
        }
        (Mode::MergeOn(_), Ok(layout)) => (layout, DeltaChange::Rewrite(Old::WithKeys)),
        (Mode::Append | Mode::Error, Ok(layout)) => (layout, DeltaChange::Append(Box::new(table))),
    })
}

/// Refuses results that have other columns than the table.
pub(crate) fn check_columns(
    location: &Location,
    state: &DeltaTableState,
    written: &Schema,
) -> Result<(), Error> {
    let existing = state.snapshot().arrow_schema();
    check_same(&location.to_string(), &existing, written, Format::Delta)
}

/// Refuses a table that asks more of its writers than what is done here.
fn check_writable(location: &Location, state: &DeltaTableState, mode: &Mode) -> Result<(), Error> {
    PROTOCOL
        .can_write_to(state)
        .map_err(|source| unsupported(location, source))?;
    let refuse = |feature: String| {
        Err(Error::Unsupported {
            table: location.to_string(),
            feature,
        })
    };
    let properties = state.table_config();
    if properties.append_only() && *mode != Mode::Append {
        return refuse("takes new rows only (`delta.appendOnly`)".into());
    }
    if properties.enable_change_data_feed() && matches!(mode, Mode::MergeOn(_)) {
        return refuse("keeps a change data feed".into());
    }
    if let Some(column) = state.schema().fields().find(|field| has_rules(field)) {
        return refuse(format!("has rules for the values of `{}`", column.name()));
    }
    Ok(())
}

/// Rules that a writer must enforce, and that nothing here does.
fn has_rules(field: &StructField) -> bool {
    const RULES: [&str; 3] = [
        "delta.invariants",
        "delta.generationExpression",
        "delta.identity.start",
    ];
    RULES
        .iter()
        .any(|rule| field.metadata().contains_key(*rule))
}

async fn parquet(
    location: &Location,
    mode: &Mode,
    asked: Layout,
) -> Result<(Layout, ParquetChange), Error> {
    let _lock = match location.bucket() {
        None if location.path().is_dir() => Some(TableLock::take(location.path()).await?),
        None => None,
        Some(_) => {
            ledger::settle(location).await?;
            None
        }
    };
    if is_free(location).await? {
        let appends = *mode == Mode::Append;
        return Ok((asked, ParquetChange::Create { appends }));
    }
    if location.join("_delta_log").exists().await? {
        return Err(not_that(location, "is a Delta table"));
    }
    check_contents(location).await?;
    let existing = Source::open(location).await;
    if *mode == Mode::Overwrite {
        // It need not be readable: it goes.
        let there = existing.map(|existing| names(&existing.partition_fields()));
        let layout = inherited(asked, &there.unwrap_or_default());
        return Ok((layout, ParquetChange::Replace(Old::All)));
    }
    let same = existing.and_then(|existing| fitting(location, asked, &existing));
    Ok(match (mode, same) {
        (Mode::Error | Mode::Overwrite, same) => return Err(exists(location, same)),
        (_, Err(mismatch)) => return Err(mismatch),
        (Mode::Append, Ok(layout)) => (layout, ParquetChange::Append),
        (Mode::OverwritePartitions, Ok(layout)) => {
            (layout, ParquetChange::Replace(Old::OfPartitions))
        }
        (Mode::MergeOn(_), Ok(layout)) => (layout, ParquetChange::Replace(Old::WithKeys)),
    })
}

fn names(fields: &Fields) -> Vec<String> {
    fields.iter().map(|field| field.name().clone()).collect()
}

/// The layout of results that fit a table of Parquet files.
pub(crate) fn fitting(
    location: &Location,
    asked: Layout,
    existing: &Source,
) -> Result<Layout, Error> {
    let partitions = existing.partition_fields();
    let layout = settled(location, asked, &names(&partitions))?;
    check_same(
        &existing.name,
        &existing.file_schema(),
        &layout.of_files(),
        Format::Parquet,
    )?;
    for (found, wanted) in partitions.iter().zip(layout.types()) {
        if !reads_as(found.data_type(), wanted) {
            return Err(Error::SchemaMismatch {
                table: existing.name.clone(),
                column: found.name().clone(),
                found: type_name(wanted),
                expected: type_name(found.data_type()),
            });
        }
    }
    Ok(layout)
}

/// Whether a column of folders that is read as `found` may be `wanted` for its writer: folders do not say
/// it, and one more value must not make another type of it.
fn reads_as(found: &DataType, wanted: &DataType) -> bool {
    if *wanted == DataType::Boolean {
        return *found == DataType::Utf8;
    }
    let alike = found == wanted || (found.is_integer() && wanted.is_integer());
    // A text may look like anything.
    alike || *wanted == DataType::Utf8
}

/// Refuses a folder that holds something else than a table: overwriting removes it all.
async fn check_contents(location: &Location) -> Result<(), Error> {
    let files = match location.bucket() {
        None => files_below(location.path()).map_err(|source| Error::Read {
            table: location.to_string(),
            file: None,
            source: Box::new(source),
        })?,
        Some(_) => objects_below(location).await?,
    };
    if let Some(foreign) = files.iter().find(|file| is_foreign(file)) {
        let foreign = foreign.display();
        let reason = format!("holds `{foreign}`, which is not a part of a table");
        return Err(not_that(location, &reason));
    }
    let data = data_files(location).await?;
    match data
        .iter()
        .any(|file| Kind::of(file) == Some(Kind::PARQUET))
    {
        true => Ok(()),
        false => Err(not_that(location, "is a folder without Parquet files")),
    }
}

/// Whether writers of Parquet tables do not make such a file.
fn is_foreign(file: &Path) -> bool {
    const MARKS: [&str; 3] = ["_SUCCESS", "_metadata", "_common_metadata"];
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    !name.ends_with(".parquet")
        && !name.ends_with(".crc")
        && !MARKS.contains(&name.as_ref())
        && !is_mark(&name)
}

/// All files at and below `folder`, but not those in folders that are hidden.
fn files_below(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = vec![];
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
            if entry.file_type()?.is_dir() && !is_hidden {
                folders.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

/// The same in a bucket, without what jobs keep there for themselves.
pub(crate) async fn objects_below(location: &Location) -> Result<Vec<PathBuf>, Error> {
    let objects = location.objects().await?;
    let objects = objects
        .iter()
        .filter(|object| !is_ours(&below(location, object)));
    Ok(objects.map(|object| absolute(&object.location)).collect())
}

/// Whether nothing is there but what jobs have left.
async fn is_free(location: &Location) -> Result<bool, Error> {
    if location.bucket().is_none() {
        return is_empty(location.path());
    }
    let objects = location.objects().await?;
    let objects: Vec<String> = objects
        .iter()
        .map(|object| below(location, object))
        .collect();
    let noted = |job: &str| {
        let notes = format!("{CLAIMS}/{job}/");
        objects.iter().any(|name| name.starts_with(&notes))
    };
    let is_left_over = |name: &String| {
        let file = name.rsplit('/').next().unwrap_or_default();
        name.starts_with("_delta_log/") || is_ours(name) || job_of(file).is_some_and(noted)
    };
    Ok(objects.iter().all(is_left_over))
}

fn below(location: &Location, object: &ObjectMeta) -> String {
    let path = absolute(&object.location);
    let below = path.strip_prefix(location.path()).unwrap_or(&path);
    below.to_string_lossy().into_owned()
}

/// Whether jobs keep an object for themselves, which has this path below the table.
fn is_ours(below: &str) -> bool {
    let folder = below.split('/').next().unwrap_or_default();
    [CLAIMS, LEDGER, FILES].contains(&folder)
}

fn is_empty(folder: &Path) -> Result<bool, Error> {
    let unreadable = |source| Error::Write {
        path: folder.to_path_buf(),
        source: Box::new(source),
    };
    if !folder.exists() {
        return Ok(true);
    }
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        // A log without a version is what a commit leaves that failed at the last step.
        if entry.file_name() != "_delta_log"
            && !is_left_over(folder, &entry.path()).map_err(unreadable)?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

fn exists<T>(location: &Location, same: Result<T, Error>) -> Error {
    Error::TableExists {
        table: location.to_string(),
        differs: same.err().map(|error| error.to_string()),
    }
}

fn not_that(location: &Location, reason: &str) -> Error {
    Error::NotThatTable {
        path: location.to_string(),
        reason: reason.to_owned(),
    }
}
