//! Reads the log of a Delta table: which Parquet files are the table at one version.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow_schema::{Field, FieldRef, Schema};
use datafusion::scalar::ScalarValue;
use deltalake_core::kernel::LogicalFileView;
use deltalake_core::kernel::transaction::{PROTOCOL, TransactionError};
use deltalake_core::logstore::{StorageConfig, default_logstore};
use deltalake_core::table::state::DeltaTableState;
use deltalake_core::{DeltaTable, DeltaTableError};
use futures::TryStreamExt as _;
use object_store::prefix::PrefixStore;
use serde::Deserialize;

use crate::formats::Kind;
use crate::location::{Location, store_path};
use crate::schema::plain_field;
use crate::source::{DataFile, Source};
use crate::{AsOf, Error};

/// The Delta table at `location`, not yet read. What is written to its log is safe on disk when
/// the write is done.
pub(crate) fn table(location: &Location) -> Result<DeltaTable, Error> {
    let url = location.url()?;
    let store = location.store();
    let table = Arc::new(PrefixStore::new(
        Arc::clone(&store),
        store_path(location.path())?,
    ));
    // The library would look for a store by the URL's scheme, and has none of its own for buckets.
    let log = default_logstore(table, store, &url, &StorageConfig::default());
    Ok(DeltaTable::new(log))
}

/// The Delta table at `location` at its latest version.
pub(crate) async fn loaded(location: &Location) -> Result<DeltaTable, Error> {
    let not_found = |looked_for: &str| Error::TableNotFound {
        table: location.to_string(),
        looked_for: looked_for.to_owned(),
    };
    if !location.join("_delta_log").is_folder().await? {
        return Err(not_found("no folder `_delta_log`"));
    }
    let mut table = table(location)?;
    match table.load().await {
        Ok(()) => Ok(table),
        Err(DeltaTableError::NotATable(_)) => {
            Err(not_found("its folder `_delta_log` holds no version"))
        }
        Err(source) => Err(unreadable(location, source)),
    }
}

/// The Delta table at `location` as it was.
async fn loaded_as_of(location: &Location, as_of: AsOf) -> Result<DeltaTable, Error> {
    let mut table = loaded(location).await?;
    let latest = table.version().unwrap_or_default();
    let absent = |source| Error::NoSnapshot {
        table: location.to_string(),
        as_of,
        latest,
        source,
    };
    let found = match as_of {
        AsOf::Version(version) if version > latest => return Err(absent(None)),
        AsOf::Version(version) => table.load_version(version).await,
        AsOf::Time(time) => table.load_with_datetime(time).await,
    };
    found.map_err(|source| absent(Some(source)))?;
    match as_of {
        // The library gives the first version there is for any time before it.
        AsOf::Time(time) if committed(&table) > Some(time.timestamp_millis()) => Err(absent(None)),
        AsOf::Time(_) | AsOf::Version(_) => Ok(table),
    }
}

/// When the version that is loaded was committed, in milliseconds.
fn committed(table: &DeltaTable) -> Option<i64> {
    let state = table.snapshot().ok()?;
    state.version_timestamp(state.version())
}

/// The files of the Delta table at `location`, at its latest version unless another is asked for.
pub(crate) async fn source(location: &Location, as_of: Option<AsOf>) -> Result<Source, Error> {
    let table = match as_of {
        None => loaded(location).await?,
        Some(as_of) => loaded_as_of(location, as_of).await?,
    };
    let state = table
        .snapshot()
        .map_err(|source| unreadable(location, source))?;
    PROTOCOL
        .can_read_from(state)
        .map_err(|source| unsupported(location, source))?;
    let (partitions, columns) = columns(state);
    let files = files(location, &table).await?;
    let mut files: Vec<DataFile> = files.into_iter().map(|(_, file)| file).collect();
    files.sort_by(|one, other| one.path.cmp(&other.path));
    let schema = Arc::new(Schema::new([columns, partitions.clone()].concat()));
    Ok(Source {
        name: location.to_string(),
        store: location.store_name(),
        partition_columns: partitions.len(),
        scanned: Arc::clone(&schema),
        schema,
        files,
        kind: Kind::PARQUET,
        version: Some(version_number(state.version())),
    })
}

/// The files of the version that is loaded, as its log has them and as they are read.
pub(crate) async fn files(
    location: &Location,
    table: &DeltaTable,
) -> Result<Vec<(LogicalFileView, DataFile)>, Error> {
    let wrong = |source| unreadable(location, source);
    let state = table.snapshot().map_err(wrong)?;
    let (partitions, columns) = columns(state);
    let log = table.log_store();
    let views = state.snapshot().file_views(log.as_ref(), None);
    let views: Vec<LogicalFileView> = views.try_collect().await.map_err(wrong)?;
    let file = |view: LogicalFileView| {
        let file = data_file(location, &view, (&columns, &partitions))?;
        Ok((view, file))
    };
    views.into_iter().map(file).collect()
}

/// The columns that are the same for all rows of a file, and those that are in files.
fn columns(state: &DeltaTableState) -> (Vec<FieldRef>, Vec<FieldRef>) {
    let schema = state.snapshot().arrow_schema();
    split(&schema, state.metadata().partition_columns())
}

/// Versions count from 0 and never come near the limit of either type.
pub(crate) fn version_number(version: deltalake_core::kernel::Version) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

/// Says that a table needs more than is known here.
pub(crate) fn unsupported(location: &Location, source: TransactionError) -> Error {
    let table = location.to_string();
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other cases are not about features"
    )]
    match source {
        TransactionError::UnsupportedTableFeatures(features) => {
            let names = features
                .iter()
                .map(|feature| format!("`{}`", feature.as_ref()))
                .collect::<Vec<_>>();
            Error::Unsupported {
                table,
                feature: format!("uses {}", names.join(", ")),
            }
        }
        TransactionError::TableFeaturesRequired(feature) => Error::Unsupported {
            table,
            feature: format!("lacks the feature `{}`", feature.as_ref()),
        },
        other => Error::Read {
            table,
            file: None,
            source: Box::new(other),
        },
    }
}

pub(crate) fn unreadable(location: &Location, source: DeltaTableError) -> Error {
    Error::Read {
        table: location.to_string(),
        file: None,
        source: Box::new(source),
    }
}

fn split(schema: &Schema, partition_columns: &[String]) -> (Vec<FieldRef>, Vec<FieldRef>) {
    let plain = |field: &FieldRef| -> FieldRef { Arc::new(plain_field(field)) };
    let named = |name: &String| schema.fields().find(name).map(|(_, field)| plain(field));
    let partitions = partition_columns.iter().filter_map(named).collect();
    let columns = schema
        .fields()
        .iter()
        .filter(|field| !partition_columns.contains(field.name()));
    (partitions, columns.map(plain).collect())
}

fn data_file(
    location: &Location,
    view: &LogicalFileView,
    (columns, partitions): (&[FieldRef], &[FieldRef]),
) -> Result<DataFile, Error> {
    let unsupported = |feature: &str| Error::Unsupported {
        table: location.to_string(),
        feature: feature.to_owned(),
    };
    if view.deletion_vector_descriptor().is_some() {
        return Err(unsupported("has deletion vectors"));
    }
    let path = view.path();
    if path.contains("://") {
        return Err(unsupported(&format!(
            "has a file outside of its folder (`{path}`)"
        )));
    }
    let statistics = Statistics::parse(view.stats().as_deref());
    let values = view.partition_values_map();
    let partition_values = partitions
        .iter()
        .map(|field| partition_value(location, field, &values))
        .collect::<Result<Vec<_>, _>>()?;
    let lacking = partitions
        .iter()
        .zip(&partition_values)
        .filter(|(_, value)| value.is_null());
    let mut columns_with_nulls: HashSet<String> =
        lacking.map(|(field, _)| field.name().clone()).collect();
    columns_with_nulls.extend(statistics.columns_with_nulls());
    Ok(DataFile {
        path: location.path().join(path.as_ref()),
        bytes: u64::try_from(view.size()).unwrap_or_default(),
        rows: statistics.rows,
        partition_values,
        columns_with_nulls,
        ranges: statistics.ranges(columns),
    })
}

/// The log keeps values of partition columns as text; no text and an empty one mean "missing".
fn partition_value(
    location: &Location,
    field: &Field,
    values: &HashMap<String, Option<String>>,
) -> Result<ScalarValue, Error> {
    let unusable = |source| Error::Read {
        table: location.to_string(),
        file: None,
        source: Box::new(datafusion::error::DataFusionError::context(
            source,
            format!("value of the partition column `{}`", field.name()),
        )),
    };
    match values.get(field.name()) {
        Some(Some(text)) if !text.is_empty() => {
            ScalarValue::try_from_string(text.clone(), field.data_type()).map_err(unusable)
        }
        _ => ScalarValue::try_new_null(field.data_type()).map_err(unusable),
    }
}

/// What the log says about a file. It need not say anything.
#[derive(Debug, Default, Deserialize)]
struct Statistics {
    #[serde(default, rename = "numRecords")]
    rows: Option<u64>,
    #[serde(default, rename = "nullCount")]
    nulls: HashMap<String, serde_json::Value>,
    #[serde(default, rename = "minValues")]
    minima: HashMap<String, serde_json::Value>,
    #[serde(default, rename = "maxValues")]
    maxima: HashMap<String, serde_json::Value>,
}

impl Statistics {
    fn parse(text: Option<&str>) -> Self {
        // Statistics only save work: a table with odd ones can still be read.
        text.and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    fn ranges(&self, columns: &[FieldRef]) -> HashMap<String, (ScalarValue, ScalarValue)> {
        let range = |column: &FieldRef| {
            let of = |bounds: &HashMap<String, _>| bound(bounds.get(column.name())?, column);
            Some((
                column.name().clone(),
                (of(&self.minima)?, of(&self.maxima)?),
            ))
        };
        columns.iter().filter_map(range).collect()
    }

    fn columns_with_nulls(&self) -> impl Iterator<Item = String> {
        let lacking = self
            .nulls
            .iter()
            .filter(|(_, nulls)| nulls.as_u64().is_some_and(|nulls| nulls > 0));
        lacking.map(|(name, _)| name.clone())
    }
}

/// A bound as the log writes it. Only types are used whose bounds hold for every value: those of
/// floats say nothing about NaN, those of times are cut to milliseconds.
fn bound(value: &serde_json::Value, column: &Field) -> Option<ScalarValue> {
    use arrow_schema::DataType::{Date32, Int8, Int16, Int32, Int64, Utf8};
    let text = match (column.data_type(), value) {
        (Int8 | Int16 | Int32 | Int64, serde_json::Value::Number(number)) => number.to_string(),
        (Utf8 | Date32, serde_json::Value::String(text)) => text.clone(),
        _ => return None,
    };
    ScalarValue::try_from_string(text, column.data_type()).ok()
}

#[cfg(test)]
mod tests {
    use arrow_schema::{DataType, TimeUnit};

    use super::*;

    #[test]
    fn values_of_partition_columns_are_read_from_text() {
        let location = Location::parse("/t").unwrap();
        let microseconds =
            |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
        let cases = [
            (DataType::Int32, "-7", ScalarValue::Int32(Some(-7))),
            (DataType::Boolean, "true", ScalarValue::Boolean(Some(true))),
            (DataType::Utf8, "a b", ScalarValue::from("a b")),
            (DataType::Utf8, "", ScalarValue::Utf8(None)),
            (DataType::Date32, "1970-01-03", ScalarValue::Date32(Some(2))),
            (DataType::Float64, "0.5", ScalarValue::Float64(Some(0.5))),
            (
                microseconds(None),
                "1970-01-01 00:00:01.5",
                ScalarValue::TimestampMicrosecond(Some(1_500_000), None),
            ),
            (
                microseconds(Some("UTC")),
                "1970-01-01T00:00:01.000000Z",
                ScalarValue::TimestampMicrosecond(Some(1_000_000), Some("UTC".into())),
            ),
        ];
        for (data_type, text, expected) in cases {
            let field = Field::new("p", data_type, true);
            let values = HashMap::from([("p".to_owned(), Some(text.to_owned()))]);
            assert_eq!(
                partition_value(&location, &field, &values).unwrap(),
                expected
            );
        }
        let field = Field::new("p", DataType::Int32, true);
        let values = HashMap::from([("p".to_owned(), Some("seven".to_owned()))]);
        assert!(partition_value(&location, &field, &values).is_err());
    }
}
