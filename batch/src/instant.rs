//! Texts that are instants, beside columns that have a zone: `at < TIMESTAMP '2026-06-01T12:00:00Z'`.
//!
//! A `TIMESTAMP` of the engine has no zone. It reads the offset, moves the time to UTC and forgets that it did; beside
//! a column with a zone it then takes that time for what a clock shows there. So a text that says its offset is read as a time
//! of the zone that it stands beside. One that says none stays what a clock shows there.

use std::sync::Arc;

use arrow_schema::{DataType, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable as _, LogicalPlan, cast};
use datafusion::scalar::ScalarValue;

/// The plan, with instants in all of its expressions.
pub(crate) fn in_plan(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|node| {
        let columns = merge_schema(&node.inputs());
        node.map_expressions(|expr| instants(expr, &columns))
    });
    Ok(plan?.data)
}

/// An expression over these columns, with instants.
pub(crate) fn in_expr(expr: Expr, columns: &DFSchema) -> Result<Expr> {
    Ok(instants(expr, columns)?.data)
}

fn instants(expr: Expr, columns: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|part| match zone_beside(&part, columns) {
        Some(zone) => part.map_children(|operand| instant(operand, &zone)),
        None => Ok(Transformed::no(part)),
    })
}

/// The zone that an operand of a comparison or a difference has.
fn zone_beside(part: &Expr, columns: &DFSchema) -> Option<Arc<str>> {
    let logic = matches!(part, Expr::BinaryExpr(both) if both.op.is_logic_operator());
    let compares = matches!(
        part,
        Expr::BinaryExpr(_) | Expr::Between(_) | Expr::InList(_)
    );
    if logic || !compares {
        return None;
    }
    let mut zone = None;
    let looked = part.apply_children(|operand| {
        Ok(match operand.get_type(columns) {
            Ok(DataType::Timestamp(_, Some(found))) => {
                zone = Some(found);
                TreeNodeRecursion::Stop
            }
            _ => TreeNodeRecursion::Continue,
        })
    });
    looked.ok().and(zone)
}

/// A text that is an instant as a time of the zone, alone or in a sum (`TIMESTAMP '…Z' - INTERVAL '1 day'`).
fn instant(operand: Expr, zone: &Arc<str>) -> Result<Transformed<Expr>> {
    if matches!(operand, Expr::BinaryExpr(_)) {
        return operand.map_children(|part| instant(part, zone));
    }
    if let Expr::Cast(Cast { expr, field }) = &operand
        && let Expr::Literal(text, _) = expr.as_ref()
        && let DataType::Timestamp(unit, None) = field.data_type()
        && is_instant(text)
    {
        let wanted = DataType::Timestamp(*unit, Some(Arc::clone(zone)));
        return Ok(Transformed::yes(cast((**expr).clone(), wanted)));
    }
    Ok(Transformed::no(operand))
}

/// Whether a text is the same time in whatever zone it is read.
fn is_instant(text: &ScalarValue) -> bool {
    let seconds = |zone: &str| {
        let wanted = DataType::Timestamp(TimeUnit::Second, Some(zone.into()));
        match text.try_as_str().flatten().map(|_| text.cast_to(&wanted)) {
            Some(Ok(ScalarValue::TimestampSecond(seconds, _))) => seconds,
            _ => None,
        }
    };
    seconds("+00:00").is_some_and(|here| seconds("+01:00") == Some(here))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_with_an_offset_is_an_instant() {
        for (text, expected) in [
            ("2026-06-01T12:00:00Z", true),
            ("2026-06-01 12:00:00.5+02:00", true),
            ("2026-06-01 12:00:00 -0330", true),
            ("2026-06-01 12:00:00 Europe/Berlin", true),
            ("2026-06-01T12:00:00", false),
            ("2026-06-01", false),
            ("Z", false),
        ] {
            assert_eq!(is_instant(&ScalarValue::from(text)), expected, "{text}");
        }
    }
}
