//! Writes what a query gives to a table: the sink and the commit of jobs.

use std::future::pending;
use std::sync::Arc;

use arrow_schema::{Schema, SchemaRef};
use datafusion::execution::SessionStateBuilder;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties as _};
use futures::TryStreamExt as _;
use futures::future::BoxFuture;
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::Answer;
use crate::attempt::Attempt;
use crate::commit::{Facts, commit};
use crate::coverage::{self, Written};
use crate::location::store_path;
use crate::part_file::Part;
use crate::plan::{SinkSpec, sink};
use crate::run::finish;
use crate::schema::plain_field;
use crate::target::{Change, Target, Wanted, check_apart};
use crate::warehouse::locate;
use crate::{Error, Format, Mode, Progress, Settings, Summary};

/// The table that a query's rows go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Name, path or `file://` URL of a folder.
    pub table: String,
    /// Folder of the tables that are given as `database.table`.
    pub warehouse: Option<String>,
    /// What happens when the table exists.
    pub mode: Mode,
    /// How it is kept.
    pub format: Format,
    /// Columns that are in the names of its folders.
    pub partition_by: Vec<String>,
}

impl Output {
    /// A new Delta table.
    #[must_use]
    pub fn new(table: impl Into<String>) -> Self {
        Self {
            table: table.into(),
            warehouse: None,
            mode: Mode::default(),
            format: Format::default(),
            partition_by: vec![],
        }
    }
}

impl Answer {
    /// Does the work and writes the rows to a table, where they become visible all at once. `id` is in the names of
    /// the files and in the log; no two writes have the same. A write that fails or is dropped leaves nothing behind.
    ///
    /// # Errors
    /// See [`Error`]. What can be refused is refused before any work.
    pub async fn write(
        self,
        output: &Output,
        id: Uuid,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Summary, Error> {
        self.begin_write((output, id), progress).await
    }

    fn begin_write<'w>(
        self,
        to: (&'w Output, Uuid),
        progress: &'w (dyn Fn(Progress) + Send + Sync),
    ) -> BoxFuture<'w, Result<Summary, Error>> {
        Box::pin(self.written_to(to, progress))
    }

    async fn written_to(
        self,
        (output, id): (&Output, Uuid),
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Summary, Error> {
        let target = self.target(output).await?;
        let mut attempt = Attempt::begin(&target, id).await?;
        let facts = self.facts(id);
        let parts = match self.parts((&target, &attempt), progress).await {
            Ok(parts) => parts,
            Err(error) => {
                attempt.give_up().await;
                return Err(error);
            }
        };
        let outcome = commit(&target, attempt, &parts, facts).await?;
        Ok(Summary::of(&parts, 0, outcome))
    }

    /// The files with the rows, none of which is visible yet.
    async fn parts(
        self,
        (target, attempt): (&Target, &Attempt),
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Vec<Part>, Error> {
        let planned = self.sunk(target, attempt).await?;
        let written = carry_out(&planned, progress).await?;
        coverage::parts(written, planned.0.output_partitioning().partition_count())
    }

    /// The table as it is, which must not be one that is read.
    async fn target(&self, output: &Output) -> Result<Target, Error> {
        let columns = self.written(output.format)?;
        let location = locate(&self.stores, output.warehouse.as_deref(), &output.table)
            .await?
            .resolved();
        for (table, _) in &self.inputs {
            check_apart(&self.stores.locate(table)?.resolved(), &location)?;
        }
        let wanted = Wanted {
            location,
            mode: &output.mode,
            format: output.format,
            partition_by: &output.partition_by,
        };
        Target::find(wanted, &columns).await
    }

    /// Columns of the table. Refuses names that tables cannot have, and what is not for tables.
    fn written(&self, format: Format) -> Result<SchemaRef, Error> {
        const SPECIAL: &[char] = &[' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '='];
        if self.explains() {
            return Err(Error::Sql {
                reason: "`EXPLAIN` gives no rows for a table".into(),
                at: None,
                hint: Some("print what it says: leave the output out".into()),
            });
        }
        let schema = self.schema();
        let special = schema
            .fields()
            .iter()
            .find(|field| field.name().contains(SPECIAL));
        match special {
            Some(field) if format == Format::Delta => Err(Error::Sql {
                reason: format!("`{}` cannot be a column of a Delta table", field.name()),
                at: None,
                hint: Some("give it a name: `… AS name`".into()),
            }),
            _ => {
                let plain = schema
                    .fields()
                    .iter()
                    .map(|field| plain_field(field).with_nullable(true));
                Ok(Arc::new(Schema::new(plain.collect::<Vec<_>>())))
            }
        }
    }

    /// What the log of a Delta table keeps about the query.
    fn facts(&self, id: Uuid) -> Facts {
        let input = |(table, version): &(String, Option<i64>)| json!({ "table": table, "version": version });
        let inputs: Vec<_> = self.inputs.iter().map(input).collect();
        Facts::from([
            ("jobId".into(), id.simple().to_string().into()),
            ("query".into(), self.text.clone().into()),
            ("envelopeDigests".into(), self.envelopes.clone().into()),
            ("inputTables".into(), inputs.into()),
        ])
    }

    /// The plan with a sink above it.
    async fn sunk(self, target: &Target, attempt: &Attempt) -> Result<Planned, Error> {
        let spec = SinkSpec {
            store: target.location.store_name(),
            folder: store_path(attempt.folder())?.to_string(),
            job: attempt.job().to_owned(),
            splits: None,
            filter: None,
            partition_by: target.layout.columns(),
            file_rows: Settings::default().file_rows.get(),
            statistics: matches!(target.change, Change::Delta(_)),
        };
        let (state, plan) = self.frame.into_parts();
        let environment = self.stores.environment(Arc::new(attempt.files()));
        let state = SessionStateBuilder::new_from_existing(state)
            .with_runtime_env(environment.map_err(Error::from_engine)?)
            .build();
        let sunk = sink(spec, &target.written, plan).map_err(Error::from_engine)?;
        let plan = state.create_physical_plan(&sunk).await;
        Ok((plan.map_err(Error::from_engine)?, state.task_ctx()))
    }
}

type Planned = (
    Arc<dyn ExecutionPlan>,
    Arc<datafusion::execution::TaskContext>,
);

/// Carries out all partitions at once: one may wait for what another gives.
async fn carry_out(
    (plan, context): &Planned,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Vec<Written>, Error> {
    let mut partitions = JoinSet::new();
    for partition in 0..plan.output_partitioning().partition_count() {
        let rows = plan.execute(partition, Arc::clone(context));
        let rows = rows.map_err(Error::from_engine)?;
        partitions.spawn(rows.try_collect());
    }
    finish(partitions, plan, None, progress, pending()).await
}
