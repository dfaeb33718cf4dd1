//! `envelope sql`: functions of envelopes in queries.

use std::collections::BTreeMap;
use std::iter;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use batch::sql::{Answer, Encoding, FindEnvelope, Output, Query, encode};
use batch::{MapRows, Progress};
use runtime::Sandbox;
use serde_json::{Value, json};
use uuid::Uuid;

use super::batch::{Took, told};
use crate::args::{Sql, SqlFormat};
use crate::error::Error;
use crate::on_demand::OnDemand;
use crate::progress::Waiting;
use crate::table::Table;
use crate::terminal::{Terminal, harmless};
use crate::wiring::Wiring;

/// More is not read by people.
const MOST_FOR_PEOPLE: usize = 100;

/// Prints what a query gives, or writes it to a table.
pub(crate) async fn sql(wiring: &Wiring, args: Sql) -> Result<(), Error> {
    let sandbox = args.sandbox.sandbox();
    let limit = args.limit;
    let goal = goal(&args, wiring.terminal.json())?;
    let query = query(args)?;
    let store = Store {
        wiring,
        workers: query.settings.workers().get(),
        sandbox,
        waiting: Arc::new(Waiting::new(&wiring.terminal)),
        found: Mutex::default(),
    };
    let done = answer(&store, &query, goal, limit).await;
    store.waiting.end();
    store.shutdown().await;
    done
}

/// What becomes of the rows.
enum Goal {
    /// Text for people.
    Table,
    /// One JSON document.
    Document,
    /// Text for other programs.
    Lines(fn(bool) -> Encoding),
    /// A table.
    Output(Output),
}

fn goal(args: &Sql, json: bool) -> Result<Goal, Error> {
    let usage = |reason: &str| Error::Usage {
        reason: reason.into(),
        hint: "see `envelope sql --help`",
    };
    let Some(table) = &args.output else {
        return match args.format {
            None if json => Ok(Goal::Document),
            None | Some(SqlFormat::Table) => Ok(Goal::Table),
            Some(SqlFormat::Jsonl) => Ok(Goal::Lines(|_| Encoding::JsonLines)),
            Some(SqlFormat::Csv) => Ok(Goal::Lines(|first| Encoding::Csv { first })),
            Some(SqlFormat::Delta | SqlFormat::Parquet) => {
                Err(usage("tables are written to an `--output`"))
            }
        };
    };
    let format = match args.format {
        None | Some(SqlFormat::Delta) => batch::Format::Delta,
        Some(SqlFormat::Parquet) => batch::Format::Parquet,
        Some(SqlFormat::Table | SqlFormat::Jsonl | SqlFormat::Csv) => {
            return Err(usage("an output is kept as `delta` or `parquet`"));
        }
    };
    Ok(Goal::Output(Output {
        warehouse: args.warehouse.clone(),
        mode: args.mode.into(),
        format,
        partition_by: args.partition_by.clone(),
        ..Output::new(table)
    }))
}

fn query(args: Sql) -> Result<Query, Error> {
    let mut query = Query::new(args.text);
    let named = |table: String| match table.split_once('=') {
        Some((name, place)) if !name.is_empty() => Ok((name.to_owned(), place.to_owned())),
        _ => Err(Error::Usage {
            reason: format!("`{table}` is not `NAME=TABLE`"),
            hint: "write `--table features=clients/`, and `FROM features` in the query",
        }),
    };
    query.tables = args
        .table
        .into_iter()
        .map(named)
        .collect::<Result<BTreeMap<_, _>, _>>()?;
    query.warehouse = args.warehouse;
    query.settings.partitions = args.workers;
    query.settings.call_deadline = Duration::from_secs(args.timeout.get());
    Ok(query)
}

async fn answer(
    store: &Store<'_>,
    query: &Query,
    goal: Goal,
    limit: Option<usize>,
) -> Result<(), Error> {
    let answer = query.plan(store, &store.wiring.stores()).await?;
    match goal {
        Goal::Document => document(&store.wiring.terminal, answer, limit).await,
        Goal::Table => table(store, answer, limit.unwrap_or(MOST_FOR_PEOPLE)).await,
        Goal::Lines(encoding) => lines(store, limited(answer, limit)?, encoding).await,
        Goal::Output(output) => write(store, limited(answer, limit)?, &output).await,
    }
}

fn limited(answer: Answer, limit: Option<usize>) -> Result<Answer, Error> {
    match limit {
        Some(limit) => Ok(answer.limited(limit)?),
        None => Ok(answer),
    }
}

/// Writes the rows to a table.
async fn write(store: &Store<'_>, answer: Answer, output: &Output) -> Result<(), Error> {
    let began = Instant::now();
    let shown = |done: Progress| store.waiting.rows(done.rows_done, done.rows_total);
    let summary = answer.write(output, Uuid::new_v4(), &shown).await?;
    store.waiting.end();
    told(
        &store.wiring.terminal,
        &output.table,
        summary,
        Took {
            all: began.elapsed(),
            start: None,
        },
    )
}

/// Text for other programs, as it is ready.
async fn lines(
    store: &Store<'_>,
    answer: Answer,
    encoding: fn(bool) -> Encoding,
) -> Result<(), Error> {
    let empty = RecordBatch::new_empty(answer.schema());
    let mut rows = answer.rows().await?;
    let mut first = true;
    loop {
        let batch = rows.next().await?;
        // An answer without rows has columns all the same.
        let Some(batch) = batch.or_else(|| first.then(|| empty.clone())) else {
            return Ok(());
        };
        let text = encode(&batch, encoding(first))?;
        first = false;
        store.waiting.end();
        store
            .wiring
            .terminal
            .print(&String::from_utf8_lossy(&text))?;
    }
}

/// One JSON document.
async fn document(terminal: &Terminal, answer: Answer, limit: Option<usize>) -> Result<(), Error> {
    let (rows, complete) = some(answer, limit).await?;
    let mut values: Vec<Value> = vec![];
    for batch in rows {
        let text = encode(&batch, Encoding::JsonLines)?;
        let lines = serde_json::Deserializer::from_slice(&text).into_iter();
        values.extend(lines.filter_map(Result::ok));
    }
    terminal.document(&json!({ "rows": values, "complete": complete }))
}

/// Aligned columns.
async fn table(store: &Store<'_>, answer: Answer, limit: usize) -> Result<(), Error> {
    let terminal = &store.wiring.terminal;
    let schema = answer.schema();
    let add = if answer.explains() { add_plans } else { add };
    let (rows, complete) = some(answer, Some(limit)).await?;
    let mut table = Table::default();
    table.row(schema.fields().iter().map(|field| harmless(field.name())));
    for batch in rows {
        add(&mut table, &batch)?;
    }
    store.waiting.end();
    let mut text = table.lines().join("\n");
    text.push('\n');
    terminal.print(&text)?;
    if !complete {
        terminal.say(&format!(
            "there are more than {limit} rows: `--limit N`, or `--format jsonl` for all"
        ));
    }
    Ok(())
}

/// The first rows, and whether they are all.
async fn some(answer: Answer, limit: Option<usize>) -> Result<(Vec<RecordBatch>, bool), Error> {
    // One more tells whether there are more.
    let more = limit.map(|limit| limit.saturating_add(1));
    let mut rows = limited(answer, more)?.rows().await?;
    let limit = limit.unwrap_or(usize::MAX);
    let mut first = vec![];
    let mut left = limit;
    let mut complete = true;
    while let Some(batch) = rows.next().await? {
        complete &= batch.num_rows() <= left;
        first.push(batch.slice(0, batch.num_rows().min(left)));
        left -= batch.num_rows().min(left);
    }
    Ok((first, complete))
}

fn add(table: &mut Table, batch: &RecordBatch) -> Result<(), Error> {
    for row in texts(batch)? {
        table.row(row.iter().map(|text| harmless(text)));
    }
    Ok(())
}

/// Adds what `EXPLAIN` says: names of plans, and plans, which have many lines.
fn add_plans(table: &mut Table, batch: &RecordBatch) -> Result<(), Error> {
    for row in texts(batch)? {
        let [name, plan] = row.as_slice() else {
            continue;
        };
        let names = iter::once(name.as_str()).chain(iter::repeat(""));
        for (name, line) in names.zip(plan.lines()) {
            table.row([name, line].into_iter().map(harmless));
        }
    }
    Ok(())
}

/// The values of each row as text.
fn texts(batch: &RecordBatch) -> Result<Vec<Vec<String>>, Error> {
    let options = FormatOptions::default();
    let columns = batch.columns().iter();
    let columns = columns.map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
    let columns = columns.collect::<Result<Vec<_>, _>>();
    let columns = columns.map_err(|error| Error::Input {
        reason: format!("a column cannot be shown: {error}"),
        hint: Some("print it for another program: `--format jsonl`".to_owned()),
    })?;
    let text = |row| columns.iter().map(move |column| column.value(row));
    let texts = (0..batch.num_rows()).map(|row| text(row).map(|text| text.to_string()).collect());
    Ok(texts.collect())
}

/// The envelopes of this user, whose workers start when the first rows come.
struct Store<'w> {
    wiring: &'w Wiring,
    workers: usize,
    sandbox: Sandbox,
    waiting: Arc<Waiting>,
    found: Mutex<Vec<Arc<OnDemand>>>,
}

impl Store<'_> {
    async fn shutdown(&self) {
        let found = std::mem::take(&mut *self.found.lock().unwrap_or_else(PoisonError::into_inner));
        for rows in found {
            rows.shutdown().await;
        }
    }
}

#[async_trait]
impl FindEnvelope for Store<'_> {
    async fn find(
        &self,
        reference: &str,
    ) -> Result<Arc<dyn MapRows>, Box<dyn std::error::Error + Send + Sync>> {
        let found = self.wiring.find_trusted(reference).await?;
        let steps = Arc::clone(&self.waiting);
        let rows = Arc::new(OnDemand::new(
            Arc::clone(&found.envelope),
            self.wiring.environments(found.envelope.manifest()),
            self.workers,
            self.sandbox.clone(),
            Arc::new(move |step: &str| steps.step(step)),
        ));
        let mut all = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Arc::clone(&rows));
        Ok(rows)
    }
}
