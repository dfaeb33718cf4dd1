//! `envelope predict`: one call.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow_array::RecordBatch;
use envelope_format::{DataType, Function, Rows};
use serde_json::{Map, Value};
use server::json::{self, JsonError};

use crate::args::Predict;
use crate::error::Error;
use crate::progress::Waiting;
use crate::rows;
use crate::wiring::Wiring;

/// Where the rows come from.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    /// One row, column by column.
    Values(Vec<(String, String)>),
    StandardInput,
    Json(PathBuf),
    Parquet(PathBuf),
}

pub(crate) async fn predict(wiring: &Wiring, args: &Predict) -> Result<(), Error> {
    let source = source(&args.input)?;
    let deadline = Duration::from_secs(args.timeout.get());
    let found = wiring.find_trusted(&args.envelope.reference).await?;
    let function = found.envelope.function(args.function.as_deref())?;
    let takes = function.signature.input.clone();
    let rows = blocking(move || read(source, &takes)).await?;
    let waiting = Waiting::new(&wiring.terminal);
    let sandbox = args.sandbox.sandbox();
    let runtime = wiring
        .start(&found.envelope, 1..=1, sandbox, &waiting)
        .await?;
    waiting.step(&format!("running `{}`", function.name));
    // The way of the service: a function that takes one row is called for each.
    let predictions = server::Calls::call(&runtime, &function.name, rows, deadline).await?;
    waiting.end();
    runtime.shutdown(Duration::ZERO).await;
    write(wiring, args.output.as_deref(), function, &predictions)
}

fn source(inputs: &[String]) -> Result<Source, Error> {
    let wrong = |reason: String| Error::Usage {
        reason,
        hint: "see `envelope predict --help`",
    };
    if let [input] = inputs
        && let Some(file) = input.strip_prefix('@')
    {
        return Ok(match file {
            "-" => Source::StandardInput,
            file if file.ends_with(".parquet") => Source::Parquet(file.into()),
            file => Source::Json(file.into()),
        });
    }
    let value = |input: &String| match input.split_once('=') {
        Some((column, value)) => Ok((column.to_owned(), value.to_owned())),
        None if input.starts_with('@') => Err(wrong(format!(
            "`{input}` is a file, which cannot be one input of several"
        ))),
        None => Err(wrong(format!(
            "`{input}` is neither `COLUMN=VALUE` nor `@FILE`"
        ))),
    };
    let values: Vec<_> = inputs.iter().map(value).collect::<Result<_, _>>()?;
    for (position, (column, _)) in values.iter().enumerate() {
        if values[..position].iter().any(|(other, _)| other == column) {
            return Err(wrong(format!("`{column}` is given twice")));
        }
    }
    Ok(Source::Values(values))
}

fn read(source: Source, takes: &Rows) -> Result<RecordBatch, Error> {
    let (text, place) = match source {
        Source::Parquet(path) => return rows::from_parquet(&path, takes),
        Source::Values(values) => {
            return fit(takes, one_row(takes, values).as_bytes(), "the input");
        }
        Source::StandardInput => {
            let mut text = String::new();
            let failed = Error::io("read", Path::new("standard input"));
            std::io::stdin().read_to_string(&mut text).map_err(failed)?;
            (text, "standard input".to_owned())
        }
        Source::Json(path) => {
            let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
            (text, format!("`{}`", path.display()))
        }
    };
    fit(takes, text.as_bytes(), &place)
}

/// One row of what was given column by column.
fn one_row(takes: &Rows, values: Vec<(String, String)>) -> String {
    let value = |(column, text): (String, String)| {
        let field = takes.fields.iter().find(|field| field.name == column);
        let value = field.map_or_else(
            || Value::String(text.clone()),
            |field| value_of_text(&field.data_type, &text),
        );
        (column, value)
    };
    let row = values.into_iter().map(value).collect::<Map<_, _>>();
    Value::Array(vec![Value::Object(row)]).to_string()
}

/// The value that a text of a command line means in a column.
fn value_of_text(data_type: &DataType, text: &str) -> Value {
    let is_text = matches!(
        data_type,
        DataType::Utf8
            | DataType::Binary
            | DataType::Date
            | DataType::Time(_)
            | DataType::Timestamp(..)
            | DataType::Decimal { .. }
    );
    match serde_json::from_str(text) {
        Ok(value) if !is_text => value,
        _ if text.is_empty() && !is_text => Value::Null,
        _ => Value::String(text.to_owned()),
    }
}

fn fit(takes: &Rows, text: &[u8], place: &str) -> Result<RecordBatch, Error> {
    json::read(takes, text).map_err(|error| Error::Input {
        reason: format!("{place} does not fit the function: {error}"),
        hint: Some(hint(&error)),
    })
}

/// The service speaks of its routes; here there are commands.
fn hint(error: &JsonError) -> String {
    match error.hint() {
        Some(hint) if !hint.contains("GET ") => hint.to_owned(),
        _ => "`envelope show` lists the columns that it takes".to_owned(),
    }
}

fn write(
    wiring: &Wiring,
    path: Option<&Path>,
    function: &Function,
    predictions: &RecordBatch,
) -> Result<(), Error> {
    if let Some(path) = path.filter(|path| path.extension().is_some_and(|kind| kind == "parquet")) {
        return rows::to_parquet(path, predictions);
    }
    let written = json::write(&function.signature.output, predictions);
    let mut document = written.map_err(|error| Error::Input {
        reason: format!("the predictions cannot be written as JSON: {error}"),
        hint: Some("write them as Parquet: `-o predictions.parquet`".to_owned()),
    })?;
    document.push(b'\n');
    match path {
        Some(path) => rows::to_file(path, |file| Ok(std::io::Write::write_all(file, &document)?)),
        None => wiring.terminal.print(&String::from_utf8_lossy(&document)),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(inputs: &[&str]) -> Result<Source, Error> {
        source(
            &inputs
                .iter()
                .map(|input| (*input).to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn inputs_are_values_or_one_file() {
        let values =
            [("a", "1"), ("b", "x=y")].map(|(column, value)| (column.to_owned(), value.to_owned()));
        assert_eq!(
            parsed(&["a=1", "b=x=y"]).unwrap(),
            Source::Values(values.to_vec())
        );
        assert_eq!(parsed(&["@-"]).unwrap(), Source::StandardInput);
        assert_eq!(
            parsed(&["@a.parquet"]).unwrap(),
            Source::Parquet("a.parquet".into())
        );
        assert_eq!(parsed(&["@a.txt"]).unwrap(), Source::Json("a.txt".into()));
        assert!(parsed(&["a"]).is_err());
        assert!(parsed(&["@a.json", "b=1"]).is_err());
    }

    #[test]
    fn texts_of_a_command_line_become_what_the_column_holds() {
        let value = |kind: &str, text: &str| value_of_text(&kind.parse().unwrap(), text);
        assert_eq!(value("int64", "41"), 41);
        assert_eq!(value("utf8", "41"), "41");
        assert_eq!(value("utf8", ""), "");
        assert_eq!(value("float64", ""), Value::Null);
        assert_eq!(value("bool", "true"), true);
        assert_eq!(value("int64", "x"), "x");
    }
}
