//! The tables of a query: by a short name, by their name in the warehouse, or by path.

use std::sync::Arc;

use datafusion::catalog::{MemorySchemaProvider, SchemaProvider};
use datafusion::common::TableReference;
use datafusion::prelude::SessionContext;

use super::Query;
use super::calls::Parsed;
use super::placeholder::{Prediction, Predictions};
use crate::error::nearest_name;
use crate::location::Location;
use crate::scan::SnapshotTable;
use crate::schema::{first_types, nearest};
use crate::source::{Reading, Source};
use crate::{Error, Stores, warehouse};

/// Finds each table that the statement names, as it is now; gives its place and version.
pub(super) async fn register(
    (query, stores): (&Query, &Stores),
    session: &SessionContext,
    parsed: &Parsed,
    predictions: &Predictions,
) -> Result<Vec<(String, Option<i64>)>, Error> {
    let mut found = vec![];
    let reading = Reading {
        as_of: None,
        types: first_types(predictions.all().map(Prediction::taken)),
    };
    for table in parsed.tables(&session.state())? {
        let source = Source::read(&place((query, stores), &table).await?, &reading).await?;
        found.push((source.name.clone(), source.version));
        let snapshot = Arc::new(SnapshotTable::new(Arc::new(source)));
        let name = table.table().to_owned();
        schema(session, &table)?
            .register_table(name, snapshot)
            .map_err(Error::from_engine)?;
    }
    Ok(found)
}

/// Where a table is.
async fn place(
    (query, stores): (&Query, &Stores),
    table: &TableReference,
) -> Result<Location, Error> {
    let name = table.to_string();
    let warehouse = query.warehouse.as_deref();
    let mut short = query.tables.iter();
    if let Some((_, place)) = short.find(|(short, _)| short.eq_ignore_ascii_case(&name)) {
        return warehouse::find(stores, warehouse, place).await;
    }
    let location = warehouse::find(stores, warehouse, &name).await?;
    if location.exists().await? {
        return Ok(location);
    }
    let names: Vec<String> = query.tables.keys().cloned().collect();
    let near = nearest_name(nearest(&name, &names).as_ref());
    Err(Error::Sql {
        reason: format!("there is no table `{name}`{near}"),
        at: None,
        hint: Some(format!(
            "say where it is (`--table {}=PATH`), or write its path in quotes (`FROM 'clients.parquet'`)",
            table.table()
        )),
    })
}

/// Where the session keeps tables with such names.
fn schema(
    session: &SessionContext,
    table: &TableReference,
) -> Result<Arc<dyn SchemaProvider>, Error> {
    let resolved = table.clone().resolve("datafusion", "public");
    let unknown = || super::wrong(format!("`{table}` is not `database.table`"));
    let catalog = session.catalog(&resolved.catalog).ok_or_else(unknown)?;
    if let Some(schema) = catalog.schema(&resolved.schema) {
        return Ok(schema);
    }
    let schema: Arc<dyn SchemaProvider> = Arc::new(MemorySchemaProvider::new());
    catalog
        .register_schema(&resolved.schema, Arc::clone(&schema))
        .map_err(Error::from_engine)?;
    Ok(schema)
}
