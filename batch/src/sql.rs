//! SQL in which `predict` calls functions of envelopes.
//!
//! ```text
//!   SELECT id, predict('region=UK', t) FROM features t WHERE age > 30
//!     calls: the query is resolved, once; `t` becomes the columns that the function takes
//!     place: `predict(…)` becomes a column that an `EnvelopeMap` below gives
//!   Projection ─► EnvelopeMap ─► Filter ─► scan
//! ```
//!
//! The map is the node of jobs: batches, workers, the row in an error. The engine knows that it gives one row for
//! each row, so that filters, limits and the choice of columns go through it to the scan.

mod calls;
mod encode;
mod place;
mod placeholder;
mod tables;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use datafusion::error::{DataFusionError, Result as EngineResult};
use datafusion::execution::{SendableRecordBatchStream, SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{DataFrame, SQLOptions, SessionConfig, SessionContext};
use futures::TryStreamExt as _;
use futures::future::BoxFuture;

use self::calls::Parsed;
pub use self::encode::{Encoding, encode};
use self::placeholder::Predictions;
pub use self::write::Output;
use crate::durable::DurableStore;
use crate::function::Callable;
use crate::plan::{Callables, Cut, EnvelopeQueryPlanner, cut_up};
use crate::{Error, MapRows, Settings, Stores, instant};

/// A place in a text of SQL; both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The line.
    pub line: u64,
    /// The character in it.
    pub column: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}, column {}", self.line, self.column)
    }
}

/// Finds the envelopes that statements name.
#[async_trait]
pub trait FindEnvelope: Send + Sync {
    /// The envelope that `reference` means: a tag query, or whatever else the caller understands.
    ///
    /// # Errors
    /// There is none, or it may not be used.
    async fn find(
        &self,
        reference: &str,
    ) -> Result<Arc<dyn MapRows>, Box<dyn std::error::Error + Send + Sync>>;
}

/// A query over tables that are given by name or path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// One `SELECT`.
    pub text: String,
    /// Tables that the text calls by a short name: name, then place.
    pub tables: BTreeMap<String, String>,
    /// Folder of the tables that are given as `database.table`.
    pub warehouse: Option<String>,
    /// How the work is done.
    pub settings: Settings,
}

impl Query {
    /// Over tables that the text itself names.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            tables: BTreeMap::new(),
            warehouse: None,
            settings: Settings::default(),
        }
    }

    /// Plans the query: finds its envelopes and tables, each once. Nothing is read and no function is called.
    ///
    /// # Errors
    /// [`Error::Sql`] where the text is wrong, with the position; [`Error::NoEnvelope`]; those of tables and of functions that
    /// a table cannot be split for.
    pub async fn plan(
        &self,
        envelopes: &dyn FindEnvelope,
        stores: &Stores,
    ) -> Result<Answer, Error> {
        self.begin_plan(envelopes, stores).await
    }

    fn begin_plan<'q>(
        &'q self,
        envelopes: &'q dyn FindEnvelope,
        stores: &'q Stores,
    ) -> BoxFuture<'q, Result<Answer, Error>> {
        Box::pin(self.planned(envelopes, stores))
    }

    async fn planned(
        &self,
        envelopes: &dyn FindEnvelope,
        stores: &Stores,
    ) -> Result<Answer, Error> {
        if self.settings.cluster.is_some() {
            return Err(wrong(
                "SQL is carried out on this machine, not on a cluster",
            ));
        }
        let session = session(&self.settings, stores)?;
        let parsed = Parsed::parse(&session.state(), &self.text)?;
        let predictions = parsed.resolve(envelopes).await?;
        let inputs = tables::register((self, stores), &session, &parsed, &predictions).await?;
        let digests = predictions
            .envelopes()
            .map(|rows| rows.digest().to_string());
        let envelopes = digests.collect();
        let frame = planned(session.state(), parsed, predictions, &self.settings).await?;
        Ok(Answer {
            frame,
            text: self.text.clone(),
            envelopes,
            inputs,
            stores: stores.clone(),
        })
    }
}

/// What a query gives, not yet read.
#[derive(Debug)]
pub struct Answer {
    frame: DataFrame,
    text: String,
    /// Digests of the envelopes.
    envelopes: Vec<String>,
    /// Tables that are read, and which version of them.
    inputs: Vec<(String, Option<i64>)>,
    /// Opens the store of the table that is written.
    stores: Stores,
}

impl Answer {
    /// The same, but so many rows at most. No function is called for others, where the query allows. What `EXPLAIN` says
    /// stays whole.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn limited(self, rows: usize) -> Result<Self, Error> {
        if self.explains() {
            return Ok(self);
        }
        let frame = self.frame.limit(0, Some(rows));
        let frame = frame.map_err(Error::from_engine)?;
        Ok(Self { frame, ..self })
    }

    /// Its columns.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(self.frame.schema().inner())
    }

    /// Whether it says how a query is carried out (`EXPLAIN`). The engine takes nothing above such a plan.
    #[must_use]
    pub fn explains(&self) -> bool {
        let plan = self.frame.logical_plan();
        matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_))
    }

    /// Begins with the work; gives rows as they are ready.
    ///
    /// # Errors
    /// See [`Error`]; [`Rows::next`] has them, too.
    pub async fn rows(self) -> Result<Rows, Error> {
        let rows = self.begin_rows().await;
        Ok(Rows {
            rows: rows.map_err(Error::from_engine)?,
        })
    }

    fn begin_rows(self) -> BoxFuture<'static, EngineResult<SendableRecordBatchStream>> {
        Box::pin(self.frame.execute_stream())
    }
}

/// Rows of an answer, in batches. The work ends when they are dropped.
pub struct Rows {
    rows: SendableRecordBatchStream,
}

impl Rows {
    /// The next ones.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, Error> {
        self.rows.try_next().await.map_err(Error::from_engine)
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schema = self.rows.schema();
        formatter
            .debug_struct("Rows")
            .field("schema", &schema)
            .finish_non_exhaustive()
    }
}

/// `predict` in the SQL of any session.
#[async_trait]
pub trait PredictSql {
    /// Plans `text`, a query over the tables of this session in which `predict` calls functions of `envelopes`.
    ///
    /// `predict('QUERY', t)` gives what the default function of the envelope gives for rows of the table `t`;
    /// `predict('QUERY', 'FUNCTION', t)` that of another function, `column => EXPRESSION` gives it a column that `t` does not have.
    /// A function with several columns of output gives a struct, and `predict(…)['column']` one of them.
    ///
    /// ```
    /// # use std::sync::Arc; use async_trait::async_trait;
    /// use batch::sql::{FindEnvelope, PredictSql as _};
    /// use datafusion::prelude::SessionContext;
    ///
    /// struct Store;
    ///
    /// #[async_trait]
    /// impl FindEnvelope for Store {
    ///     async fn find(
    ///         &self,
    ///         reference: &str,
    ///     ) -> Result<Arc<dyn batch::MapRows>, Box<dyn std::error::Error + Send + Sync>> {
    ///         Err(format!("nobody has saved `{reference}` yet").into())
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let session = SessionContext::new();
    /// session.sql("CREATE TABLE features AS VALUES (1, 0.5), (2, 1.5)").await.unwrap();
    /// let text = "SELECT column1, predict('canonical_name=ltv', x => column2) FROM features";
    /// let error = session.predict_sql(text, &Store, &batch::Settings::default()).await.unwrap_err();
    /// assert_eq!(error.to_string(), "`canonical_name=ltv` at line 1, column 17 is no envelope that can be used");
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Query::plan`].
    async fn predict_sql(
        &self,
        text: &str,
        envelopes: &dyn FindEnvelope,
        settings: &Settings,
    ) -> Result<DataFrame, Error>;
}

#[async_trait]
impl PredictSql for SessionContext {
    async fn predict_sql(
        &self,
        text: &str,
        envelopes: &dyn FindEnvelope,
        settings: &Settings,
    ) -> Result<DataFrame, Error> {
        let state = self.state();
        let parsed = Parsed::parse(&state, text)?;
        let predictions = parsed.resolve(envelopes).await?;
        planned(state, parsed, predictions, settings).await
    }
}

/// A session that reads files as jobs do.
fn session(settings: &Settings, stores: &Stores) -> Result<SessionContext, Error> {
    let cut = Cut {
        count: settings.workers(),
        fixed: false,
    };
    // The engine's own batch: what joins and groups hold in memory is counted in these.
    let usual = SessionConfig::new();
    let rows = usual.batch_size();
    let mut config = cut_up(usual, cut, rows);
    config.options_mut().sql_parser.collect_spans = true;
    let environment = stores.environment(Arc::new(DurableStore::local()));
    let environment = environment.map_err(Error::from_engine)?;
    Ok(SessionContext::new_with_config_rt(config, environment))
}

/// The plan of a statement, in a session that can carry it out.
async fn planned(
    state: SessionState,
    parsed: Parsed,
    predictions: Predictions,
    settings: &Settings,
) -> Result<DataFrame, Error> {
    let mut state = able(state, &predictions, settings);
    let tables = parsed.tables_text(&state)?;
    let statement = parsed.rewritten(&predictions)?;
    predictions.register(&mut state)?;
    let told = |error| told(error, &predictions);
    let plan = state.statement_to_plan(statement).await.map_err(told)?;
    let queries_only = SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false);
    queries_only.verify_plan(&plan).map_err(told)?;
    let plan = instant::in_plan(plan).map_err(told)?;
    let plan = place::place(plan, &predictions, (settings, &tables))?;
    Ok(DataFrame::new(state, plan))
}

/// The same session, which can carry out our nodes for these functions, too.
fn able(state: SessionState, predictions: &Predictions, settings: &Settings) -> SessionState {
    let workers = settings.workers();
    let callables = predictions
        .envelopes()
        .map(|rows| (rows.digest(), Callable::apart(Arc::clone(rows), workers)));
    let callables = Callables::of(callables);
    let config = state.config().clone();
    // The session has its tables already; an empty catalog would take their place.
    let config = config.with_create_default_catalog_and_schema(false);
    let config = config.with_extension(Arc::new(callables));
    SessionStateBuilder::new_from_existing(state)
        .with_config(config)
        .with_query_planner(Arc::new(EnvelopeQueryPlanner))
        .build()
}

fn wrong(reason: impl Into<String>) -> Error {
    Error::Sql {
        reason: reason.into(),
        at: None,
        hint: None,
    }
}

/// What the engine says about a statement, with the place in the text where it is known.
fn told(error: DataFusionError, predictions: &Predictions) -> Error {
    if let DataFusionError::External(_) = error.find_root() {
        return Error::from_engine(error);
    }
    let mut at = None;
    let mut hint = None;
    if let Some(diagnostic) = error.diagnostic() {
        at = diagnostic.span.map(|span| Position {
            line: span.start.line,
            column: span.start.column,
        });
        let helps = diagnostic.helps.iter().map(|help| help.message.clone());
        let notes = diagnostic.notes.iter().map(|note| note.message.clone());
        hint = helps.chain(notes).next();
    }
    let reason = error.find_root().strip_backtrace();
    let reason = reason
        .trim_start_matches("Error during planning: ")
        .trim_start_matches("Schema error: ")
        .trim_start_matches("SQL error: ")
        .to_owned();
    if let Some(lacking) = predictions.lacking(error.find_root(), at) {
        return lacking;
    }
    Error::Sql { reason, at, hint }
}

#[cfg(test)]
mod tests;
