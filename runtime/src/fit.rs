//! Whether rows are what a function takes.

use std::sync::Arc;

use arrow_array::{Array as _, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::Schema;
use envelope_format::{Field, Function, Rows};

use crate::Error;
use crate::schema::{arrow_schema, arrow_type};

/// The function's columns, picked from `rows` by name; nothing is cast.
pub(crate) fn fit(function: &Function, rows: &RecordBatch) -> Result<RecordBatch, Error> {
    let takes = &function.signature.input;
    let fitted = takes
        .fields
        .iter()
        .map(|field| column(field, rows))
        .collect::<Result<Vec<_>, _>>();
    fitted
        .and_then(|columns| assemble(takes, columns, rows.num_rows()))
        .map_err(|reason| Error::RowsDoNotFit {
            function: function.name.clone(),
            reason,
        })
}

fn column(field: &Field, rows: &RecordBatch) -> Result<ArrayRef, String> {
    let name = &field.name;
    let Some(column) = rows.column_by_name(name) else {
        let schema = rows.schema();
        let found = schema
            .fields()
            .iter()
            .take(20)
            .map(|field| format!("`{}`", field.name()))
            .collect::<Vec<_>>();
        return Err(format!(
            "column `{name}` is missing; there is {}",
            found.join(", ")
        ));
    };
    let wanted = arrow_type(&field.data_type);
    if *column.data_type() != wanted {
        return Err(format!(
            "column `{name}` is {}, the function takes {}",
            column.data_type(),
            field.data_type
        ));
    }
    if !field.nullable && column.null_count() > 0 {
        let row = (0..column.len())
            .find(|row| column.is_null(*row))
            .unwrap_or_default();
        return Err(format!(
            "column `{name}` has no value in row {row}; in the sample all rows had one"
        ));
    }
    Ok(Arc::clone(column))
}

fn assemble(takes: &Rows, columns: Vec<ArrayRef>, num_rows: usize) -> Result<RecordBatch, String> {
    let schema: Arc<Schema> = arrow_schema(takes);
    let options = RecordBatchOptions::new().with_row_count(Some(num_rows));
    RecordBatch::try_new_with_options(schema, columns, &options).map_err(|error| error.to_string())
}
