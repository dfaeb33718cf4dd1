//! Groups: one call for all rows that have the same values in some columns.
//!
//! ```text
//!  scan ──► EnvelopeNumber ──► by hash of the key ──► sort ──► EnvelopeGroups ──► EnvelopeSink
//!           where a row is      a group is in one      key,     one call for
//!           in the table        partition only         place    each group
//! ```
//!
//! Each row gets two numbers that say where it is in the table, however the table is cut. So the rows of a group
//! come to the function as they are in the table, wherever the work is done, and a sum of floats has the same bits.
//!
//! A [`GroupsSpec`] is what the node does, as data; [`node`] is the node of the logical plan, [`exec`] the one that works. In
//! between the engine moves and sorts rows, because that node asks for it.

mod cut;
mod exec;
mod node;
mod number;

use std::fmt;

use serde::{Deserialize, Serialize};

pub(crate) use self::exec::GroupsExec;
pub(crate) use self::node::GroupsNode;
pub(crate) use self::number::NumberExec;

use crate::model::Splittable;
use crate::plan::MapSpec;
use crate::schema::{find, other_than, type_name};
use crate::source::Source;
use crate::{Error, Job};

/// Rows that the engine sorts, and that nodes give, at a time. Fewer than those of a call: what is spilled is
/// merged from many files, and one batch of each is in memory.
pub(crate) const BATCH_ROWS: usize = 8192;

/// What `EnvelopeGroups` does: calls a function once for each group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupsSpec {
    /// The call. The columns that are passed on begin with those that rows are grouped by.
    pub(crate) map: MapSpec,
    /// How many columns rows are grouped by.
    pub(crate) by: usize,
    /// The columns that say where a row is in the table.
    pub(crate) place: [String; 2],
    /// Bytes of the largest group.
    pub(crate) max_group_bytes: usize,
}

impl GroupsSpec {
    pub(crate) fn new(job: &Job, map: MapSpec, source: &Source) -> Self {
        let columns = source.schema.fields();
        Self {
            map,
            by: job.group_by.len(),
            place: ["part", "row"].map(|name| other_than(name, columns)),
            max_group_bytes: job.settings.max_group_bytes.get(),
        }
    }

    /// The columns that rows are grouped by.
    pub(crate) fn key(&self) -> &[String] {
        &self.map.keep[..self.by]
    }
}

impl fmt::Display for GroupsSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MapSpec {
            digest,
            function,
            keep,
            ..
        } = &self.map;
        write!(
            formatter,
            "EnvelopeGroups: function={function}, envelope={digest}, by=[{}], keep=[{}]",
            self.key().join(", "),
            keep[self.by..].join(", ")
        )
    }
}

/// The columns of the input that the results of `job` have too: those that rows are grouped by, then
/// those that are kept. Refuses columns that make no groups, and those of which a group has many values where
/// it gives one row.
pub(crate) fn passed(
    job: &Job,
    models: &[Splittable<'_>],
    source: &Source,
) -> Result<Vec<String>, Error> {
    let by = &job.group_by;
    for (position, column) in by.iter().enumerate() {
        let (_, field) = find(source, column)?;
        let found = field.data_type();
        let reason = if by[..position].contains(column) {
            "it is named twice".to_owned()
        } else if found.is_floating() || found.is_nested() {
            format!(
                "values of {} are not equal or unequal, but close",
                type_name(found)
            )
        } else {
            continue;
        };
        let column = column.clone();
        return Err(Error::GroupBy { column, reason });
    }
    let kept = job.keep.iter().filter(|column| !by.contains(column));
    let reduces = models.iter().find(|model| model.reduces());
    if !by.is_empty()
        && let (Some(model), Some(column)) = (reduces, kept.clone().next())
    {
        find(source, column)?;
        return Err(Error::KeptOfGroup {
            column: column.clone(),
            function: model.function.name.clone(),
        });
    }
    Ok(by.iter().chain(kept).cloned().collect())
}
