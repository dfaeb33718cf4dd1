//! The logical `EnvelopeGroups`.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow_schema::Schema;
use datafusion::common::DFSchemaRef;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion::physical_plan::ExecutionPlan;

use super::{GroupsExec, GroupsSpec, NumberExec};
use crate::plan::{only, unqualified};

/// The logical `EnvelopeGroups`: rows of a table in, as they come; rows of the results out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupsNode {
    pub(crate) spec: GroupsSpec,
    pub(crate) schema: DFSchemaRef,
    input: LogicalPlan,
}

impl GroupsNode {
    pub(crate) fn new(spec: GroupsSpec, mapped: &Schema, input: LogicalPlan) -> Result<Self> {
        Ok(Self {
            spec,
            schema: unqualified(mapped)?,
            input,
        })
    }

    /// The two nodes that work: what the engine puts between them brings the rows of a group together.
    pub(crate) fn physical(&self, input: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let numbered = Arc::new(NumberExec::new(self.spec.place.clone(), input));
        let schema = Arc::new(self.schema.as_arrow().clone());
        let groups = GroupsExec::try_new(self.spec.clone(), schema, numbered)?;
        Ok(Arc::new(groups))
    }
}

impl UserDefinedLogicalNodeCore for GroupsNode {
    fn name(&self) -> &'static str {
        "EnvelopeGroups"
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

// The optimizer hashes plans to see whether they changed, and never orders them.

impl Hash for GroupsNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.spec.map.digest, self.spec.key(), &self.input).hash(state);
    }
}

impl PartialOrd for GroupsNode {
    fn partial_cmp(&self, _other: &Self) -> Option<Ordering> {
        None
    }
}
