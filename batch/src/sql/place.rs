//! Puts an `EnvelopeMap` below each node of a plan that has calls, and its columns in their place.
//!
//! ```text
//!   Filter: predict_0(t.age) > 3          Projection: t.id, t.age
//!     Scan: t.id, t.age            ─►       Filter: "predict_0(t.age)" > 3
//!                                             Projection: t.id, t.age, double AS "predict_0(t.age)"
//!                                               EnvelopeMap: keep=[t.id, t.age]
//!                                                 Projection: t.id AS "t.id", …, t.age AS age
//!                                                   Scan: t.id, t.age
//! ```
//!
//! A call and its column have the same name, so nothing above notices, and a call that a node below has
//! made already is not made again.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_schema::{Field, FieldRef, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::error::{DataFusionError, Result as EngineResult};
use datafusion::functions::core::expr_fn::named_struct;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, ExprSchemable as _, LogicalPlan, LogicalPlanBuilder, lit};
use runtime::lossless;

use super::placeholder::{Prediction, Predictions};
use crate::plan::{MapSpec, map};
use crate::schema::{plain_field, type_name};
use crate::{Error, Settings};

/// The plan without calls.
pub(super) fn place(
    plan: LogicalPlan,
    predictions: &Predictions,
    (settings, tables): (&Settings, &str),
) -> Result<LogicalPlan, Error> {
    let placing = Placing {
        predictions,
        settings,
        tables,
    };
    let placed = plan.transform_up_with_subqueries(|node| placing.node(node));
    Ok(placed.map_err(Error::from_engine)?.data)
}

struct Placing<'p> {
    predictions: &'p Predictions,
    settings: &'p Settings,
    tables: &'p str,
}

impl Placing<'_> {
    fn node(&self, node: LogicalPlan) -> EngineResult<Transformed<LogicalPlan>> {
        let calls = self.calls(&node)?;
        let Some(first) = calls.first() else {
            return Ok(Transformed::no(node));
        };
        let inputs = node.inputs();
        let [input] = inputs.as_slice() else {
            return Err(self.not_here(first).into_engine());
        };
        let mut input = with_made((*input).clone(), &calls);
        let columns = node.schema().columns();
        // Those that others are given come first.
        let mut todo = calls;
        while !todo.is_empty() {
            let (now, later): (Vec<Expr>, Vec<Expr>) = todo
                .into_iter()
                .partition(|call| self.inner(call).is_ok_and(|inner| inner.is_empty()));
            input = self.made(input, now.clone())?;
            let replaced = later.into_iter().map(|call| replaced(call, &now));
            todo = replaced.collect::<EngineResult<_>>()?;
        }
        let changed = node.map_children(|_| Ok(Transformed::yes(input.clone())))?;
        let changed = changed
            .data
            .map_expressions(|expr| self.without_calls(expr))?;
        let changed = changed.data.recompute_schema()?;
        // What passes its input on would pass new columns on, too.
        if changed.schema().fields().len() == columns.len() {
            return Ok(Transformed::yes(changed));
        }
        let wanted = columns.into_iter().map(Expr::Column);
        let plan = LogicalPlanBuilder::from(changed).project(wanted)?.build()?;
        Ok(Transformed::yes(plan))
    }

    /// The calls in the expressions of a node, each once; those within others, too.
    fn calls(&self, node: &LogicalPlan) -> EngineResult<Vec<Expr>> {
        let mut calls = vec![];
        for expr in node.expressions() {
            self.gather(&expr, &mut calls)?;
        }
        Ok(calls)
    }

    fn gather(&self, expr: &Expr, calls: &mut Vec<Expr>) -> EngineResult<()> {
        expr.apply(|part| {
            if self.called(part).is_some() && !calls.contains(part) {
                calls.push(part.clone());
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(())
    }

    /// The calls that a call is given.
    fn inner(&self, call: &Expr) -> EngineResult<Vec<Expr>> {
        let mut calls = vec![];
        if let Expr::ScalarFunction(function) = call {
            for argument in &function.args {
                self.gather(argument, &mut calls)?;
            }
        }
        Ok(calls)
    }

    fn called<'e>(
        &self,
        expr: &'e Expr,
    ) -> Option<(&Prediction, Option<usize>, &'e ScalarFunction)> {
        let Expr::ScalarFunction(function) = expr else {
            return None;
        };
        let (one, column) = self.predictions.named(function.func.name())?;
        Some((one, column, function))
    }

    fn without_calls(&self, expr: Expr) -> EngineResult<Transformed<Expr>> {
        expr.transform_up(|part| {
            Ok(match self.called(&part) {
                None => Transformed::no(part),
                Some(_) => Transformed::yes(column_of(&part)),
            })
        })
    }

    /// `input` with a column for each call.
    fn made(&self, mut input: LogicalPlan, calls: Vec<Expr>) -> EngineResult<LogicalPlan> {
        let mut todo: Vec<Expr> = calls;
        todo.retain(|call| !has(input.schema(), call));
        while let Some(first) = todo.first().cloned() {
            // Columns of one result are made by one call.
            let same: Vec<Expr>;
            (same, todo) = todo
                .into_iter()
                .partition(|call| self.is_same(&first, call));
            input = self.mapped(input, &same)?;
        }
        Ok(input)
    }

    fn is_same(&self, one: &Expr, other: &Expr) -> bool {
        match (self.called(one), self.called(other)) {
            (Some((one, _, call)), Some((other, _, with))) => {
                std::ptr::eq(one, other) && call.args == with.args
            }
            _ => false,
        }
    }

    /// `input` with columns for calls that differ in the column of the result only.
    fn mapped(&self, input: LogicalPlan, calls: &[Expr]) -> EngineResult<LogicalPlan> {
        let Some((one, _, function)) = calls.first().and_then(|call| self.called(call)) else {
            return Ok(input);
        };
        let (taken, given) = (one.taken(), one.given());
        let keep = kept_names(input.schema(), one);
        let before = input.schema().columns();
        let mut wanted: Vec<Expr> = before
            .iter()
            .zip(&keep)
            .map(|(column, name)| Expr::Column(column.clone()).alias(name))
            .collect();
        for (field, argument) in taken.fields().iter().zip(&function.args) {
            let argument = self.fitting(one, field, argument, input.schema())?;
            wanted.push(argument.alias(field.name()));
        }
        let kept = input.schema().fields().iter().zip(&keep);
        let kept = kept.map(|(field, name)| Arc::new(field.as_ref().clone().with_name(name)));
        let given_fields = given.fields().iter().cloned();
        let mapped = Schema::new(kept.chain(given_fields).collect::<Vec<FieldRef>>());
        let input = LogicalPlanBuilder::from(input).project(wanted)?.build()?;
        let plan = map(self.spec(one, keep.clone()), &mapped, input)?;
        let kept = before.into_iter().zip(keep).map(|(column, name)| {
            Expr::Column(Column::new_unqualified(name))
                .alias_qualified(column.relation, column.name)
        });
        let results = calls.iter().map(|call| {
            let column = self.called(call).and_then(|(_, column, _)| column);
            result(column, given.fields()).alias(name_of(call))
        });
        let wanted: Vec<Expr> = kept.chain(results).collect();
        LogicalPlanBuilder::from(plan).project(wanted)?.build()
    }

    fn spec(&self, one: &Prediction, keep: Vec<String>) -> MapSpec {
        let output = one.function.signature.output.fields.iter();
        let given = output.map(|field| field.name.clone()).collect();
        MapSpec::new(
            (one.rows.digest(), &one.function),
            (self.settings, self.tables),
            (keep, given),
        )
    }

    /// An argument as the function may be given it: nothing but lossless changes.
    fn fitting(
        &self,
        one: &Prediction,
        expected: &Field,
        argument: &Expr,
        schema: &DFSchema,
    ) -> EngineResult<Expr> {
        let wanted = expected.data_type();
        // `x => 41` means the number, not its type.
        if let Expr::Literal(value, _) = argument
            && let Ok(cast) = value.cast_to(wanted)
            && cast
                .cast_to(&value.data_type())
                .is_ok_and(|back| back == *value)
        {
            return Ok(lit(cast));
        }
        let found = argument.get_type(schema)?;
        let plain = plain_field(&Field::new(expected.name(), found, true));
        let found = plain.data_type();
        // The map refuses each number that is not whole.
        let whole = found.is_decimal() && wanted.is_integer();
        if lossless(found, wanted) || whole {
            return Ok(argument.clone());
        }
        let (column, name) = (expected.name(), &one.function.name);
        let (found, wanted) = (type_name(found), type_name(wanted));
        Err(Error::Sql {
            reason: format!("`{name}` takes `{column}` as {wanted}, but `{argument}` is {found}"),
            at: Some(one.at),
            hint: Some(format!(
                "only lossless changes are made; convert it: `\"{column}\" => CAST({argument} AS …)`"
            )),
        }
        .into_engine())
    }

    fn not_here(&self, call: &Expr) -> Error {
        Error::Sql {
            reason: "a join cannot depend on `predict`".into(),
            at: self.called(call).map(|(one, ..)| one.at),
            hint: Some(
                "call it in a subquery, give the result a name (`AS`), and join on that".into(),
            ),
        }
    }
}

/// Names that the kept columns have in the map, where there are no tables: theirs with the table, unless the function has such a column.
fn kept_names(schema: &DFSchema, one: &Prediction) -> Vec<String> {
    let (taken, given) = (one.taken(), one.given());
    let mut used: HashSet<String> = taken
        .fields()
        .iter()
        .chain(given.fields())
        .map(|field| field.name().clone())
        .collect();
    let name = |column: Column| {
        let mut name = column.flat_name();
        while !used.insert(name.clone()) {
            name.push('\'');
        }
        name
    };
    schema.columns().into_iter().map(name).collect()
}

/// The whole result, or one column of it.
fn result(column: Option<usize>, given: &[FieldRef]) -> Expr {
    let of = |field: &FieldRef| Expr::Column(Column::new_unqualified(field.name()));
    match (column.and_then(|column| given.get(column)), given) {
        (Some(field), _) | (None, [field]) => of(field),
        (None, fields) => {
            let parts = fields
                .iter()
                .flat_map(|field| [lit(field.name().as_str()), of(field)]);
            named_struct(parts.collect())
        }
    }
}

fn name_of(call: &Expr) -> String {
    call.schema_name().to_string()
}

fn column_of(call: &Expr) -> Expr {
    Expr::Column(Column::new_unqualified(name_of(call)))
}

fn has(schema: &DFSchema, call: &Expr) -> bool {
    schema.has_column_with_unqualified_name(&name_of(call))
}

/// An expression with columns in the place of calls.
fn replaced(expr: Expr, calls: &[Expr]) -> Result<Expr, DataFusionError> {
    let replaced = expr.transform_up(|part| {
        Ok(match calls.contains(&part) {
            true => Transformed::yes(column_of(&part)),
            false => Transformed::no(part),
        })
    });
    Ok(replaced?.data)
}

/// What is below a projection that only drops results which are wanted again.
fn with_made(input: LogicalPlan, calls: &[Expr]) -> LogicalPlan {
    let LogicalPlan::Projection(dropping) = &input else {
        return input;
    };
    let plain = dropping
        .expr
        .iter()
        .all(|expr| matches!(expr, Expr::Column(_)));
    match plain && calls.iter().any(|call| has(dropping.input.schema(), call)) {
        true => dropping.input.as_ref().clone(),
        false => input,
    }
}
