//! The plan nodes as data, and how the engine turns them into work.
//!
//! A node holds the digest of the envelope and the name of the function, never code: whoever
//! carries the plan out looks the digest up in its own session (see [`Callables`]).

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use arrow_schema::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::{Column, DFSchema, DFSchemaRef};
use datafusion::datasource::provider_as_source;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Expr, Extension, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNode,
    UserDefinedLogicalNodeCore,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use datafusion::prelude::SessionConfig;
use envelope_format::{Digest, Function, Signature};
use serde::{Deserialize, Serialize};

use crate::Settings;
use crate::filter::Filter;
use crate::function::{Callable, is_paced, rows_of_a_call};
use crate::groups::{GroupsNode, GroupsSpec};
use crate::map_exec::MapExec;
use crate::scan::SnapshotTable;
use crate::sink_exec::SinkExec;

/// What `EnvelopeMap` does: gives the kept columns and the function's output for each row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MapSpec {
    /// The envelope.
    pub(crate) digest: Digest,
    /// The function.
    pub(crate) function: String,
    /// Its input and output.
    pub(crate) signature: Signature,
    /// Calls have a multiple of so many rows.
    pub(crate) tile: Option<u32>,
    /// Columns that are passed on.
    pub(crate) keep: Vec<String>,
    /// How the columns that the function gives are called, in the order of its signature.
    pub(crate) given: Vec<String>,
    /// Most rows of one call.
    pub(crate) batch_rows: usize,
    /// Whether calls may have fewer rows, which ones depending on how long they take.
    pub(crate) paced: bool,
    /// Time that one call may take.
    pub(crate) call_deadline: Duration,
    /// How messages call the table that is read.
    pub(crate) table: String,
}

impl MapSpec {
    /// A call of a function for rows of `table`, which passes on the columns `keep`.
    pub(crate) fn new(
        (digest, function): (Digest, &Function),
        (settings, table): (&Settings, &str),
        (keep, given): (Vec<String>, Vec<String>),
    ) -> Self {
        let tile = function.certificate.tile;
        Self {
            digest,
            function: function.name.clone(),
            signature: function.signature.clone(),
            tile,
            keep,
            given,
            batch_rows: rows_of_a_call(settings.batch_rows, tile),
            paced: is_paced(function),
            call_deadline: settings.call_deadline,
            table: table.to_owned(),
        }
    }
}

/// What `EnvelopeSink` does: writes rows to part files and gives one row for each file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct SinkSpec {
    /// The store of the part files.
    pub(crate) store: String,
    /// Folder of the part files, as the store knows it.
    pub(crate) folder: String,
    /// Is in the name of every part file of this job and of no other.
    pub(crate) job: String,
    /// Folder of the notes about finished partitions, if another attempt may use them.
    pub(crate) splits: Option<String>,
    /// Which rows of the input come here: a part that is finished is one of these rows only.
    pub(crate) filter: Option<String>,
    /// Columns that are in the names of folders.
    pub(crate) partition_by: Vec<String>,
    /// Rows after which a file is closed.
    pub(crate) file_rows: usize,
    /// Whether minima, maxima and null counts are gathered.
    pub(crate) statistics: bool,
}

/// The functions that a session can call, by digest. An extension of its configuration.
pub(crate) struct Callables {
    find: Box<Find>,
}

type Find = dyn Fn(&Digest) -> Option<Arc<Callable>> + Send + Sync;

impl Callables {
    pub(crate) fn new(
        find: impl Fn(&Digest) -> Option<Arc<Callable>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            find: Box::new(find),
        }
    }

    /// Those of some envelopes.
    pub(crate) fn of(envelopes: impl IntoIterator<Item = (Digest, Callable)>) -> Self {
        let envelopes = envelopes.into_iter();
        let callables = envelopes.map(|(digest, callable)| (digest, Arc::new(callable)));
        let callables: HashMap<_, _> = callables.collect();
        Self::new(move |digest| callables.get(digest).cloned())
    }

    pub(crate) fn find(&self, digest: &Digest) -> Result<Arc<Callable>> {
        (self.find)(digest).ok_or_else(|| {
            DataFusionError::Configuration(format!(
                "nothing in this session runs the envelope `{digest}`"
            ))
        })
    }
}

/// Into how many parts a table is cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    /// How many there are.
    pub(crate) count: NonZeroUsize,
    /// Whether each reads exactly what is planned for it, and not what another has no time for.
    pub(crate) fixed: bool,
}

/// A session that can carry out plans with our nodes; `environment` has the stores that it reads and
/// writes in.
pub(crate) fn session(
    callables: Callables,
    environment: Arc<RuntimeEnv>,
    cut: Cut,
    batch_rows: usize,
) -> SessionState {
    let config = cut_up(SessionConfig::new(), cut, batch_rows).with_extension(Arc::new(callables));
    SessionStateBuilder::new_with_default_features()
        .with_config(config)
        .with_runtime_env(environment)
        .with_query_planner(Arc::new(EnvelopeQueryPlanner))
        .build()
}

/// Sessions in which a table is cut in this way, and read in batches of `batch_rows`.
pub(crate) fn cut_up(config: SessionConfig, cut: Cut, batch_rows: usize) -> SessionConfig {
    let mut config = config
        .with_target_partitions(cut.count.get())
        .with_batch_size(batch_rows);
    let options = config.options_mut();
    options.optimizer.repartition_file_scans = true;
    // The function is the expensive part, not the reading: share out even small files.
    options.optimizer.repartition_file_min_size = 0;
    options.execution.enable_file_stream_work_stealing = !cut.fixed;
    // A filter is cheap: dealing its rows round would copy for nothing.
    options.optimizer.enable_round_robin_repartition = false;
    config
}

/// Reads the columns `scanned` of `table`, and only the rows that `filter` selects.
pub(crate) fn scan(
    table: SnapshotTable,
    scanned: Vec<usize>,
    filter: Option<&Filter>,
) -> Result<LogicalPlan> {
    let columns = Arc::clone(&table.source.scanned);
    let table = provider_as_source(Arc::new(table));
    let Some(Filter {
        expr,
        columns: looked_at,
        ..
    }) = filter
    else {
        return LogicalPlanBuilder::scan("source", table, Some(scanned))?.build();
    };
    let wanted = scanned.iter().map(|&column| {
        let name = columns.field(column).name();
        Expr::Column(Column::new(Some("source"), name))
    });
    let wanted: Vec<Expr> = wanted.collect();
    let more = looked_at.iter().filter(|column| !scanned.contains(column));
    let read = scanned.iter().chain(more).copied().collect();
    LogicalPlanBuilder::scan("source", table, Some(read))?
        .filter(expr.clone())?
        .project(wanted)?
        .build()
}

/// Maps a function over `input`, which gives rows with the columns `mapped`.
pub(crate) fn map(spec: MapSpec, mapped: &Schema, input: LogicalPlan) -> Result<LogicalPlan> {
    Ok(extension(MapNode::new(spec, mapped, input)?))
}

/// Calls a function for each group of the rows of `input`; gives rows with the columns `mapped`.
pub(crate) fn groups(spec: GroupsSpec, mapped: &Schema, input: LogicalPlan) -> Result<LogicalPlan> {
    Ok(extension(GroupsNode::new(spec, mapped, input)?))
}

/// Writes the rows of `input` to files with the columns `written`.
pub(crate) fn sink(spec: SinkSpec, written: &SchemaRef, input: LogicalPlan) -> Result<LogicalPlan> {
    Ok(extension(SinkNode::new(spec, Arc::clone(written), input)?))
}

fn extension(node: impl UserDefinedLogicalNode + 'static) -> LogicalPlan {
    LogicalPlan::Extension(Extension {
        node: Arc::new(node),
    })
}

pub(crate) fn unqualified(schema: &Schema) -> Result<DFSchemaRef> {
    Ok(Arc::new(DFSchema::try_from(schema.clone())?))
}

/// The logical `EnvelopeMap`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MapNode {
    pub(crate) spec: MapSpec,
    pub(crate) schema: DFSchemaRef,
    input: LogicalPlan,
}

impl MapNode {
    pub(crate) fn new(spec: MapSpec, mapped: &Schema, input: LogicalPlan) -> Result<Self> {
        Ok(Self {
            spec,
            schema: unqualified(mapped)?,
            input,
        })
    }
}

/// The logical `EnvelopeSink`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SinkNode {
    pub(crate) spec: SinkSpec,
    /// Columns of the files. Rows are converted to these.
    pub(crate) written: SchemaRef,
    schema: DFSchemaRef,
    input: LogicalPlan,
}

impl SinkNode {
    pub(crate) fn new(spec: SinkSpec, written: SchemaRef, input: LogicalPlan) -> Result<Self> {
        Ok(Self {
            spec,
            written,
            schema: unqualified(&SinkExec::rows_schema())?,
            input,
        })
    }
}

impl UserDefinedLogicalNodeCore for MapNode {
    fn name(&self) -> &'static str {
        "EnvelopeMap"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }

    fn fmt_for_explain(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.spec, formatter)
    }

    /// With the columns that its input still has.
    fn with_exprs_and_inputs(
        &self,
        _expressions: Vec<Expr>,
        inputs: Vec<LogicalPlan>,
    ) -> Result<Self> {
        let input = only(inputs)?;
        let kept = self.spec.keep.len();
        let there = |column: &usize| {
            let name = self.spec.keep.get(*column);
            name.is_none_or(|name| position(&input, name).is_some())
        };
        let columns = self.schema.fields().len();
        let stay: Vec<usize> = (0..columns).filter(there).collect();
        if stay.len() == columns {
            return Ok(Self {
                input,
                ..self.clone()
            });
        }
        let keep = stay.iter().filter(|column| **column < kept);
        let keep = keep.map(|column| self.spec.keep[*column].clone());
        let spec = MapSpec {
            keep: keep.collect(),
            ..self.spec.clone()
        };
        Self::new(spec, &self.schema.as_arrow().project(&stay)?, input)
    }

    /// Rows may be left out before the function is called, unless what it gives decides.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let given = self.schema.fields().iter().skip(self.spec.keep.len());
        given.map(|field| field.name().clone()).collect()
    }

    /// What the function takes, and what is kept of those columns that are wanted.
    fn necessary_children_exprs(&self, wanted: &[usize]) -> Option<Vec<Vec<usize>>> {
        let kept = wanted
            .iter()
            .filter_map(|column| self.spec.keep.get(*column));
        let taken = self.spec.signature.input.fields.iter();
        let names = taken.map(|field| &field.name).chain(kept);
        let columns = names.map(|name| position(&self.input, name));
        let mut columns = columns.collect::<Option<Vec<usize>>>()?;
        columns.sort_unstable();
        columns.dedup();
        Some(vec![columns])
    }

    /// One row comes out for each that goes in.
    fn supports_limit_pushdown(&self) -> bool {
        true
    }
}

/// Where the input of a map has a column.
fn position(input: &LogicalPlan, name: &str) -> Option<usize> {
    let mut fields = input.schema().fields().iter();
    fields.position(|field| field.name() == name)
}

impl UserDefinedLogicalNodeCore for SinkNode {
    fn name(&self) -> &'static str {
        "EnvelopeSink"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }

    fn fmt_for_explain(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.spec, formatter)
    }

    fn with_exprs_and_inputs(
        &self,
        _expressions: Vec<Expr>,
        inputs: Vec<LogicalPlan>,
    ) -> Result<Self> {
        Ok(Self {
            input: only(inputs)?,
            ..self.clone()
        })
    }
}

/// The one input of our nodes.
pub(crate) fn only<T>(inputs: Vec<T>) -> Result<T> {
    let mut inputs = inputs.into_iter();
    match (inputs.next(), inputs.next()) {
        (Some(input), None) => Ok(input),
        _ => Err(DataFusionError::Internal(
            "a node of ours has exactly one input".into(),
        )),
    }
}

impl fmt::Display for MapSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            digest,
            function,
            batch_rows,
            ..
        } = self;
        write!(
            formatter,
            "EnvelopeMap: function={function}, envelope={digest}, batch_rows={batch_rows}"
        )?;
        if let Some(tile) = self.tile {
            write!(formatter, ", tile={tile}")?;
        }
        write!(formatter, ", keep=[{}]", self.keep.join(", "))?;
        let fields = &self.signature.output.fields;
        if fields.iter().map(|field| &field.name).ne(&self.given) {
            write!(formatter, ", given=[{}]", self.given.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for SinkSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            store,
            folder,
            job,
            file_rows,
            ..
        } = self;
        let store = store.strip_prefix("file://").unwrap_or(store);
        let store = store.trim_end_matches('/');
        write!(
            formatter,
            "EnvelopeSink: folder={store}/{folder}, job={job}, file_rows={file_rows}"
        )?;
        match self.partition_by.as_slice() {
            [] => Ok(()),
            columns => write!(formatter, ", partition_by=[{}]", columns.join(", ")),
        }
    }
}

// The optimizer hashes plans to see whether they changed, and never orders them.

impl Hash for MapNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.spec.digest, &self.spec.function, &self.input).hash(state);
    }
}

impl Hash for SinkNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.spec, &self.input).hash(state);
    }
}

impl PartialOrd for MapNode {
    fn partial_cmp(&self, _other: &Self) -> Option<Ordering> {
        None
    }
}

impl PartialOrd for SinkNode {
    fn partial_cmp(&self, _other: &Self) -> Option<Ordering> {
        None
    }
}

/// Plans our nodes and leaves the rest to the engine.
#[derive(Debug)]
pub(crate) struct EnvelopeQueryPlanner;

#[async_trait]
impl QueryPlanner for EnvelopeQueryPlanner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(EnvelopeExtensionPlanner)])
            .create_physical_plan(plan, session)
            .await
    }
}

struct EnvelopeExtensionPlanner;

#[async_trait]
impl ExtensionPlanner for EnvelopeExtensionPlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let input = || only(physical_inputs.to_vec());
        if let Some(map) = node.as_any().downcast_ref::<MapNode>() {
            let schema = Arc::new(map.schema.as_arrow().clone());
            return Ok(Some(Arc::new(MapExec::new(
                map.spec.clone(),
                schema,
                input()?,
            ))));
        }
        if let Some(groups) = node.as_any().downcast_ref::<GroupsNode>() {
            return groups.physical(input()?).map(Some);
        }
        if let Some(sink) = node.as_any().downcast_ref::<SinkNode>() {
            return Ok(Some(Arc::new(SinkExec::new(
                sink.spec.clone(),
                Arc::clone(&sink.written),
                input()?,
            ))));
        }
        Ok(None)
    }
}
