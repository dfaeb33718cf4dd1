//! Decides which columns of a table are read, how they become the function's columns, and what the
//! output looks like. Nothing here does any work on rows.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use datafusion::common::utils::datafusion_strsim::levenshtein;
use envelope_format::Signature;
use runtime::lossless;

use crate::model::Splittable;
use crate::source::Source;
use crate::{Error, Format};

/// The columns of a job.
#[derive(Debug, Clone)]
pub(crate) struct Columns {
    /// Columns of the table that are read, by position: those the function takes, then those that
    /// are only kept.
    pub(crate) scanned: Vec<usize>,
    /// What the maps pass on and give, in the order in which rows go through them.
    pub(crate) maps: Vec<Mapped>,
    /// What the last map gives: kept columns, then those of the functions.
    pub(crate) mapped: SchemaRef,
}

/// The columns of one map.
#[derive(Debug, Clone)]
pub(crate) struct Mapped {
    /// Names of those that are passed on.
    pub(crate) keep: Vec<String>,
    /// Those, then the function's.
    pub(crate) columns: SchemaRef,
}

impl Columns {
    /// Checks the functions' signatures and the columns to keep against the table.
    pub(crate) fn decide(
        source: &Source,
        models: &[Splittable<'_>],
        keep: &[String],
    ) -> Result<Self, Error> {
        let mut scanned = vec![];
        let mut taken = vec![];
        for model in models {
            taken.push(taken_by(source, &model.function.signature)?);
        }
        let mut kept = vec![];
        for name in keep {
            let (index, _) = find(source, name)?;
            kept.push(index);
        }
        add(&mut scanned, taken.iter().flatten().chain(&kept));
        let mut maps = vec![];
        let mut given: Vec<FieldRef> = vec![];
        for (position, model) in models.iter().enumerate() {
            let mut passed = kept.clone();
            add(&mut passed, taken.iter().skip(position + 1).flatten());
            let passed = passed.iter().map(|&index| &source.schema.fields()[index]);
            let passed: Vec<FieldRef> = passed.chain(&given).cloned().collect();
            given.extend(model.given());
            maps.push(Mapped::new(passed, model, keep)?);
        }
        let mapped = maps.last().map(|map| Arc::clone(&map.columns));
        Ok(Self {
            scanned,
            mapped: mapped.ok_or(Error::NoModel)?,
            maps,
        })
    }
}

impl Mapped {
    fn new(passed: Vec<FieldRef>, model: &Splittable<'_>, keep: &[String]) -> Result<Self, Error> {
        let names = passed.iter().map(|field| field.name().clone()).collect();
        let mut columns = passed;
        columns.extend(model.given());
        check_distinct(&columns, keep)?;
        Ok(Self {
            keep: names,
            columns: Arc::new(Schema::new(columns)),
        })
    }
}

/// Adds those that are not there yet.
fn add<'i>(columns: &mut Vec<usize>, more: impl Iterator<Item = &'i usize>) {
    for &column in more {
        if !columns.contains(&column) {
            columns.push(column);
        }
    }
}

/// The columns of the table that a function takes, in its order.
fn taken_by(source: &Source, signature: &Signature) -> Result<Vec<usize>, Error> {
    let mut taken = vec![];
    for expected in runtime::arrow_schema(&signature.input).fields() {
        let (index, found) = find(source, expected.name())?;
        if !lossless(found.data_type(), expected.data_type()) {
            return Err(Error::ColumnType {
                table: source.name.clone(),
                column: expected.name().clone(),
                found: type_name(found.data_type()),
                expected: type_name(expected.data_type()),
            });
        }
        if !expected.is_nullable() {
            check_filled(source, expected.name())?;
        }
        taken.push(index);
    }
    Ok(taken)
}

pub(crate) fn find<'s>(source: &'s Source, name: &str) -> Result<(usize, &'s FieldRef), Error> {
    source
        .schema
        .fields()
        .find(name)
        .ok_or_else(|| no_column(source, name))
}

fn no_column(source: &Source, name: &str) -> Error {
    let table = source.name.clone();
    let columns: Vec<String> = source
        .schema
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    Error::NoColumn {
        table,
        column: name.to_owned(),
        nearest: nearest(name, &columns),
        columns,
    }
}

/// The name that `wanted` may be a slip of.
pub(crate) fn nearest(wanted: &str, names: &[String]) -> Option<String> {
    // One slip for every three letters; more is another word.
    let most = wanted.chars().count().div_ceil(3);
    let distance = |name: &String| levenshtein(&wanted.to_lowercase(), &name.to_lowercase());
    let nearest = names.iter().min_by_key(|name| distance(name))?;
    (distance(nearest) <= most).then(|| nearest.clone())
}

/// A name like `wanted` that no column has.
pub(crate) fn other_than(wanted: &str, columns: &Fields) -> String {
    let mut name = wanted.to_owned();
    while columns.find(&name).is_some() {
        name.push('_');
    }
    name
}

/// Refuses a table that is known to lack values which the function needs, before any work.
fn check_filled(source: &Source, column: &str) -> Result<(), Error> {
    match source
        .files
        .iter()
        .find(|file| file.columns_with_nulls.contains(column))
    {
        None => Ok(()),
        Some(file) => Err(Error::MissingValue {
            table: source.name.clone(),
            column: column.to_owned(),
            file: Some(file.path.clone()),
        }),
    }
}

fn check_distinct(mapped: &[FieldRef], keep: &[String]) -> Result<(), Error> {
    let mut seen = HashSet::new();
    for (position, field) in mapped.iter().enumerate() {
        let name = field.name();
        if !seen.insert(name) {
            let reason = match keep.contains(name) {
                true if position < keep.len() => "it is kept twice",
                true => "one is kept, a function gives the other",
                false => "a function gives it, and another one takes or gives such a column",
            };
            return Err(Error::ColumnTwice {
                column: name.clone(),
                reason: reason.into(),
            });
        }
    }
    Ok(())
}

/// The same columns in the types that this crate works with: one text type, one binary type, no
/// dictionaries. Files are decoded straight into these.
pub(crate) fn plain_field(field: &Field) -> Field {
    Field::new(field.name(), plain(field.data_type()), field.is_nullable())
}

fn plain(data_type: &DataType) -> DataType {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the other types are plain")]
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::Dictionary(_, value) => plain(value),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => DataType::List(Arc::new(plain_field(item))),
        DataType::FixedSizeList(item, length) => {
            DataType::FixedSizeList(Arc::new(plain_field(item)), *length)
        }
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(|field| plain_field(field)).collect())
        }
        other => other.clone(),
    }
}

/// Refuses results that do not have exactly the columns of the table that they are to join.
pub(crate) fn check_same(
    table: &str,
    existing: &Schema,
    results: &Schema,
    format: Format,
) -> Result<(), Error> {
    let mismatch = |column: &str, found: String, expected: String| Error::SchemaMismatch {
        table: table.to_owned(),
        column: column.to_owned(),
        found,
        expected,
    };
    let absent = || "no such column".to_owned();
    for result in results.fields() {
        let Some((_, column)) = existing.fields().find(result.name()) else {
            return Err(mismatch(
                result.name(),
                type_name(result.data_type()),
                absent(),
            ));
        };
        let expected = plain_field(column);
        if !same_type(expected.data_type(), result.data_type()) {
            return Err(mismatch(
                result.name(),
                type_name(result.data_type()),
                type_name(expected.data_type()),
            ));
        }
        // A Parquet file says for itself whether values may be missing; a Delta table promises it.
        if format == Format::Delta && result.is_nullable() && !column.is_nullable() {
            let name = type_name(result.data_type());
            return Err(mismatch(
                result.name(),
                format!("{name} with missing values"),
                format!("{name} without"),
            ));
        }
    }
    match existing
        .fields()
        .iter()
        .find(|column| results.fields().find(column.name()).is_none())
    {
        None => Ok(()),
        Some(column) => Err(mismatch(
            column.name(),
            absent(),
            type_name(column.data_type()),
        )),
    }
}

/// Names and nullability of items are not part of what a list holds.
fn same_type(one: &DataType, other: &DataType) -> bool {
    match (one, other) {
        (DataType::List(one), DataType::List(other)) => {
            same_type(one.data_type(), other.data_type())
        }
        (DataType::FixedSizeList(one, length), DataType::FixedSizeList(other, wanted)) => {
            length == wanted && same_type(one.data_type(), other.data_type())
        }
        (DataType::Struct(one), DataType::Struct(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| {
                    one.name() == other.name() && same_type(one.data_type(), other.data_type())
                })
        }
        (one, other) => one == other,
    }
}

/// The columns that functions take, each as the first one that takes it does.
pub(crate) fn first_types(taken: impl IntoIterator<Item = SchemaRef>) -> SchemaRef {
    let mut fields: Vec<FieldRef> = vec![];
    for taken in taken {
        for field in taken.fields() {
            if fields.iter().all(|known| known.name() != field.name()) {
                fields.push(Arc::clone(field));
            }
        }
    }
    Arc::new(Schema::new(fields))
}

/// A type as signatures write it.
pub(crate) fn type_name(data_type: &DataType) -> String {
    let unit = |unit: &TimeUnit| match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    };
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "signatures know no other types"
    )]
    match data_type {
        DataType::Boolean => "bool".into(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "utf8".into(),
        DataType::Date32 => "date".into(),
        DataType::Timestamp(of, None) => format!("timestamp[{}]", unit(of)),
        DataType::Timestamp(of, Some(zone)) => format!("timestamp[{}, {zone}]", unit(of)),
        DataType::Duration(of) => format!("duration[{}]", unit(of)),
        DataType::List(item) => format!("list<{}>", type_name(item.data_type())),
        DataType::FixedSizeList(..)
        | DataType::Struct(_)
        | DataType::Time32(_)
        | DataType::Time64(_)
        | DataType::Decimal128(..) => runtime::signature_type(data_type)
            .map_or_else(|| data_type.to_string(), |known| known.to_string()),
        other => other.to_string().to_lowercase(),
    }
}

#[cfg(test)]
mod tests;
