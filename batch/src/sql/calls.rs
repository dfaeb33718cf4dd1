//! Calls of `predict` in a text: found, resolved, and written as placeholders.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::execution::SessionState;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    self, AccessExpr, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName,
    ObjectNamePart, SelectItem, SetExpr, Subscript, TableFactor, Value, Visit as _, Visitor,
    visit_expressions, visit_expressions_mut,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::placeholder::{Prediction, Predictions};
use super::{FindEnvelope, Position, told, wrong};
use crate::error::nearest_name;
use crate::schema::nearest;
use crate::{Error, MapRows};

const PREDICT: &str = "predict";

/// A statement that is understood as far as its own text goes.
pub(super) struct Parsed {
    statement: Statement,
}

/// A call as it is written.
struct Written {
    /// The envelope, and the function where it is named.
    asked: (String, Option<String>),
    at: Position,
    /// The table whose rows it is given, or all tables.
    rows: Rows,
    /// Columns that are said one by one.
    named: Vec<(Ident, Expr)>,
}

/// Where columns come from that are not said one by one.
enum Rows {
    /// From whatever table has a column of this name.
    Any(Span),
    /// From this one.
    Of(Vec<Ident>),
}

impl Parsed {
    pub(super) fn parse(state: &SessionState, text: &str) -> Result<Self, Error> {
        let dialect = state.config_options().sql_parser.dialect;
        let statement = state.sql_to_statement(text, &dialect);
        let statement = statement.map_err(|error| unreadable(&error.strip_backtrace()))?;
        Ok(Self { statement })
    }

    /// The tables that it names.
    pub(super) fn tables(&self, state: &SessionState) -> Result<Vec<TableReference>, Error> {
        let tables = state.resolve_table_references(&self.statement);
        tables.map_err(|error| told(error, &Predictions::default()))
    }

    /// The tables that it names, for messages.
    pub(super) fn tables_text(&self, state: &SessionState) -> Result<String, Error> {
        let tables = self.tables(state)?;
        let names: Vec<String> = tables.iter().map(ToString::to_string).collect();
        Ok(names.join("`, `"))
    }

    /// Finds the envelope of each call, once for each way of naming it.
    pub(super) async fn resolve(&self, envelopes: &dyn FindEnvelope) -> Result<Predictions, Error> {
        let mut found = Predictions::default();
        let Some(query) = sql(&self.statement) else {
            return Ok(found);
        };
        for call in written(query)? {
            let number = match found.find(&call.asked) {
                Some((number, _)) => number,
                None => {
                    let rows = call.envelope(&found, envelopes).await?;
                    found.push(Prediction::new(call.asked.clone(), rows, call.at)?)
                }
            };
            if let Some(one) = found.at_mut(number) {
                one.spans.push(call.rows_at());
            }
        }
        Ok(found)
    }

    /// The statement with placeholders for calls.
    pub(super) fn rewritten(self, predictions: &Predictions) -> Result<Statement, Error> {
        let mut statement = self.statement;
        let Some(query) = sql_mut(&mut statement) else {
            return Ok(statement);
        };
        let tables = table_names(query);
        name_results(query, predictions);
        let done = visit_expressions_mut(query, |expr| match rewrite(expr, predictions, &tables) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        });
        match done {
            ControlFlow::Continue(()) => Ok(statement),
            ControlFlow::Break(error) => Err(error),
        }
    }
}

/// The query itself, of which `EXPLAIN` may say how it is carried out.
fn sql(statement: &Statement) -> Option<&ast::Statement> {
    match statement {
        Statement::Statement(query) => Some(query),
        Statement::Explain(explain) => sql(&explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => None,
    }
}

fn sql_mut(statement: &mut Statement) -> Option<&mut ast::Statement> {
    match statement {
        Statement::Statement(query) => Some(query),
        Statement::Explain(explain) => sql_mut(&mut explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => None,
    }
}

/// A message of the parser, which ends with the place.
fn unreadable(message: &str) -> Error {
    let message = message.trim_start_matches("SQL error: ");
    let message = message
        .strip_prefix("ParserError(\"")
        .and_then(|message| message.strip_suffix("\")"))
        .unwrap_or(message);
    let place = message
        .rsplit_once(" at Line: ")
        .and_then(|(reason, place)| {
            let (line, column) = place.split_once(", Column: ")?;
            let at = Position {
                line: line.parse().ok()?,
                column: column.parse().ok()?,
            };
            Some((reason, at))
        });
    match place {
        None => wrong(message),
        Some((reason, at)) => Error::Sql {
            reason: reason.to_owned(),
            at: Some(at),
            hint: None,
        },
    }
}

fn written(query: &ast::Statement) -> Result<Vec<Written>, Error> {
    let tables = table_names(query);
    let mut calls = vec![];
    let done = visit_expressions(query, |expr| {
        if let Expr::Function(function) = expr
            && is_predict(&function.name)
        {
            match Written::of(function, &tables) {
                Ok(call) => calls.push(call),
                Err(error) => return ControlFlow::Break(error),
            }
        }
        ControlFlow::Continue(())
    });
    match done {
        ControlFlow::Continue(()) => Ok(calls),
        ControlFlow::Break(error) => Err(error),
    }
}

fn is_predict(name: &ObjectName) -> bool {
    matches!(name.0.as_slice(), [ObjectNamePart::Identifier(name)] if name.value.eq_ignore_ascii_case(PREDICT))
}

impl Written {
    fn of(function: &ast::Function, tables: &[String]) -> Result<Self, Error> {
        let span = name_span(&function.name);
        let at = position(span);
        let refuse = |reason: &str| {
            Error::Sql {
            reason: reason.to_owned(),
            at: Some(at),
            hint: Some("write `predict('QUERY', t)` for a table `t`, or `predict('QUERY', column => expression, …)`".into()),
        }
        };
        let plain = function.over.is_none() && function.filter.is_none();
        let FunctionArguments::List(list) = &function.args else {
            return Err(refuse("`predict` takes an envelope and rows"));
        };
        if !plain || list.duplicate_treatment.is_some() || !list.clauses.is_empty() {
            return Err(refuse(
                "`predict` is no aggregate: it gives a value for each row",
            ));
        }
        let mut arguments = list.args.iter().peekable();
        let Some(reference) = arguments.next().and_then(text) else {
            return Err(refuse(
                "the first argument of `predict` is the envelope, as a text",
            ));
        };
        let function = arguments.next_if(|argument| text(argument).is_some());
        let mut call = Self {
            asked: (reference, function.and_then(text)),
            at,
            rows: Rows::Any(span),
            named: vec![],
        };
        for argument in arguments {
            call.take(argument, tables)?;
        }
        Ok(call)
    }

    fn take(&mut self, argument: &FunctionArg, tables: &[String]) -> Result<(), Error> {
        let refuse = |at, reason: String, hint: &str| {
            Err(Error::Sql {
                reason,
                at: Some(at),
                hint: Some(hint.to_owned()),
            })
        };
        let (name, value) = match argument {
            FunctionArg::Named { name, arg, .. } => (Some(name.clone()), arg),
            FunctionArg::ExprNamed {
                name: Expr::Identifier(name),
                arg,
                ..
            } => (Some(name.clone()), arg),
            FunctionArg::ExprNamed { name, .. } => {
                return refuse(
                    self.at,
                    format!("`{name}` is no name of a column"),
                    "write `column => expression`",
                );
            }
            FunctionArg::Unnamed(arg) => (None, arg),
        };
        match (name, value) {
            (Some(name), FunctionArgExpr::Expr(expr)) => self.named.push((name, expr.clone())),
            (None, FunctionArgExpr::Wildcard) => {}
            (None, FunctionArgExpr::QualifiedWildcard(name)) => {
                self.rows = Rows::Of(
                    name.0
                        .iter()
                        .filter_map(ObjectNamePart::as_ident)
                        .cloned()
                        .collect(),
                );
            }
            (None, FunctionArgExpr::Expr(Expr::Identifier(name))) if is_table(name, tables) => {
                self.rows = Rows::Of(vec![name.clone()]);
            }
            (None, FunctionArgExpr::Expr(Expr::CompoundIdentifier(names)))
                if names.last().is_some_and(|name| is_table(name, tables)) =>
            {
                self.rows = Rows::Of(names.clone());
            }
            (_, other) => {
                let mut at = self.at;
                if let FunctionArgExpr::Expr(Expr::Identifier(name)) = other {
                    at = position(name.span);
                }
                let near = nearest_name(nearest(&other.to_string(), tables).as_ref());
                return refuse(
                    at,
                    format!("`{other}` is no table of this query{near}"),
                    "to give the function one value, say for which of its columns: `column => expression`",
                );
            }
        }
        Ok(())
    }

    /// Its envelope: another function of it may have been called before.
    async fn envelope(
        &self,
        found: &Predictions,
        envelopes: &dyn FindEnvelope,
    ) -> Result<Arc<dyn MapRows>, Error> {
        let reference = &self.asked.0;
        if let Some(one) = found.all().find(|one| one.asked.0 == *reference) {
            return Ok(Arc::clone(&one.rows));
        }
        let rows = envelopes.find(reference).await;
        rows.map_err(|source| Error::NoEnvelope {
            reference: reference.clone(),
            at: self.at,
            source,
        })
    }

    /// Where whole rows are given.
    fn rows_at(&self) -> Position {
        match &self.rows {
            Rows::Any(span) => position(*span),
            Rows::Of(names) => names.first().map_or(self.at, |name| position(name.span)),
        }
    }

    /// What the function is given, in the order of its columns.
    fn arguments(&self, one: &Prediction) -> Result<Vec<Expr>, Error> {
        let taken = one.taken();
        let is = |name: &Ident, column: &str| match name.quote_style {
            Some(_) => name.value == column,
            None => name.value == column || name.value.eq_ignore_ascii_case(column),
        };
        let unknown = self
            .named
            .iter()
            .find(|(name, _)| !taken.fields().iter().any(|field| is(name, field.name())));
        if let Some((name, _)) = unknown {
            let columns: Vec<String> = taken
                .fields()
                .iter()
                .map(|field| field.name().clone())
                .collect();
            let near = nearest_name(nearest(&name.value, &columns).as_ref());
            return Err(Error::Sql {
                reason: format!(
                    "`{}` takes no column `{}`{near}",
                    one.function.name, name.value
                ),
                at: Some(position(name.span)),
                hint: Some(format!("it takes `{}`", columns.join("`, `"))),
            });
        }
        let argument = |field: &arrow_schema::FieldRef| {
            let said = self.named.iter().find(|(name, _)| is(name, field.name()));
            match (said, &self.rows) {
                (Some((_, expr)), _) => expr.clone(),
                (None, Rows::Any(span)) => {
                    Expr::Identifier(Ident::with_quote_and_span('"', *span, field.name()))
                }
                (None, Rows::Of(table)) => {
                    let span = table.first().map_or_else(Span::empty, |name| name.span);
                    let column = Ident::with_quote_and_span('"', span, field.name());
                    Expr::CompoundIdentifier(table.iter().cloned().chain([column]).collect())
                }
            }
        };
        Ok(taken.fields().iter().map(argument).collect())
    }
}

/// Puts a placeholder in the place of a call, or of a column of its result.
fn rewrite(expr: &mut Expr, predictions: &Predictions, tables: &[String]) -> Result<(), Error> {
    if let Expr::Function(function) = expr
        && is_predict(&function.name)
    {
        let call = Written::of(function, tables)?;
        let Some((number, one)) = predictions.find(&call.asked) else {
            return Ok(());
        };
        let arguments = call.arguments(one)?.into_iter();
        let arguments = arguments.map(|expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)));
        if let FunctionArguments::List(list) = &mut function.args {
            list.args = arguments.collect();
        }
        function.name = placeholder(number, None, name_span(&function.name));
    }
    if let Expr::CompoundFieldAccess { root, access_chain } = expr
        && let [access] = access_chain.as_slice()
        && let Some(column) = accessed(access)
        && let Some(function) = placed(root)
        && let Some((one, None)) = predictions.named(&function.name.to_string())
    {
        let number = predictions.find(&one.asked).map(|(number, _)| number);
        let given = one.given();
        let Some((index, _)) = given.column_with_name(&column) else {
            let names: Vec<String> = given
                .fields()
                .iter()
                .map(|field| field.name().clone())
                .collect();
            return Err(Error::Sql {
                reason: format!("`{}` gives no column `{column}`", one.function.name),
                at: Some(position(name_span(&function.name))),
                hint: Some(format!("it gives `{}`", names.join("`, `"))),
            });
        };
        if let Some(number) = number {
            let mut function = function.clone();
            function.name = placeholder(number, Some(index), name_span(&function.name));
            *expr = Expr::Function(function);
        }
    }
    Ok(())
}

fn placeholder(number: usize, column: Option<usize>, span: Span) -> ObjectName {
    let name = Ident::with_span(span, Predictions::name(number, column));
    ObjectName(vec![ObjectNamePart::Identifier(name)])
}

/// The call below brackets.
fn placed(expr: &Expr) -> Option<&ast::Function> {
    if let Expr::Nested(inner) = expr {
        return placed(inner);
    }
    let Expr::Function(function) = expr else {
        return None;
    };
    Some(function)
}

/// The name in `['name']` or `.name`.
fn accessed(access: &AccessExpr) -> Option<String> {
    match access {
        AccessExpr::Dot(Expr::Identifier(name)) => Some(name.value.clone()),
        AccessExpr::Subscript(Subscript::Index {
            index: Expr::Value(value),
        }) => string(&value.value),
        AccessExpr::Dot(_) | AccessExpr::Subscript(_) => None,
    }
}

/// Results that have no name get that of the function's output, as in a job, where it is theirs alone.
fn name_results(query: &mut ast::Statement, predictions: &Predictions) {
    let ast::Statement::Query(query) = query else {
        return;
    };
    let SetExpr::Select(select) = query.body.as_mut() else {
        return;
    };
    let name = |item: &SelectItem| {
        let SelectItem::UnnamedExpr(expr) = item else {
            return None;
        };
        if let Expr::CompoundFieldAccess { root, access_chain } = expr
            && let [access] = access_chain.as_slice()
            && placed(root).is_some_and(|function| is_predict(&function.name))
        {
            return accessed(access);
        }
        let (_, one) = predictions.find(&asked(placed(expr)?)?)?;
        match one.given().fields().as_ref() {
            [only] => Some(only.name().clone()),
            _ => Some(one.function.name.clone()),
        }
    };
    let names: Vec<Option<String>> = select.projection.iter().map(name).collect();
    let mut seen = HashSet::new();
    let twice: HashSet<String> = names
        .iter()
        .flatten()
        .filter(|name| !seen.insert(*name))
        .cloned()
        .collect();
    for (item, name) in select.projection.iter_mut().zip(names) {
        if let Some(name) = name.filter(|name| !twice.contains(name))
            && let SelectItem::UnnamedExpr(expr) = item
        {
            *item = SelectItem::ExprWithAlias {
                expr: expr.clone(),
                alias: Ident::with_quote('"', name),
            };
        }
    }
}

/// The envelope of a call, and the function where it is named.
fn asked(function: &ast::Function) -> Option<(String, Option<String>)> {
    if !is_predict(&function.name) {
        return None;
    }
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    Some((
        list.args.first().and_then(text)?,
        list.args.get(1).and_then(text),
    ))
}

/// The names that tables have in a query.
fn table_names(query: &ast::Statement) -> Vec<String> {
    let mut names = TableNames::default();
    _ = query.visit(&mut names);
    names.0
}

#[derive(Default)]
struct TableNames(Vec<String>);

impl Visitor for TableNames {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the others have an alias at most that nobody gives to a function"
        )]
        let (name, alias) = match factor {
            TableFactor::Table { name, alias, .. } => {
                (name.0.last().and_then(ObjectNamePart::as_ident), alias)
            }
            TableFactor::Derived { alias, .. } | TableFactor::NestedJoin { alias, .. } => {
                (None, alias)
            }
            _ => (None, &None),
        };
        let name = alias.as_ref().map(|alias| &alias.name).or(name);
        self.0.extend(name.map(|name| name.value.clone()));
        ControlFlow::Continue(())
    }
}

fn is_table(name: &Ident, tables: &[String]) -> bool {
    tables
        .iter()
        .any(|table| table.eq_ignore_ascii_case(&name.value))
}

fn text(argument: &FunctionArg) -> Option<String> {
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) = argument else {
        return None;
    };
    string(&value.value)
}

fn string(value: &Value) -> Option<String> {
    let Value::SingleQuotedString(text) = value else {
        return None;
    };
    Some(text.clone())
}

fn name_span(name: &ObjectName) -> Span {
    let name = name.0.first().and_then(ObjectNamePart::as_ident);
    name.map_or_else(Span::empty, |name| name.span)
}

fn position(span: Span) -> Position {
    Position {
        line: span.start.line,
        column: span.start.column,
    }
}
