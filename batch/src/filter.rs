//! Which rows of a table are read: `country = 'UK' AND signed_up >= DATE '2026-01-01'`.
//!
//! The grammar is closed: columns, literals, comparisons, arithmetic and logic. What is not in it
//! is refused by name, so there are no subqueries, and no functions whose answer may change from
//! one run of a job to the next.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result as EngineResult;
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::{BinaryExpr, Expr, Like, Operator, cast, lit, not};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::scalar::ScalarValue;
use sqlparser::ast;
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use crate::schema::find;
use crate::source::Source;
use crate::{Error, instant};

/// A longer one is data, not a condition.
const LONGEST_BYTES: usize = 16 * 1024;

/// The engine follows conditions as deep as they nest, on a stack of 2 MiB.
const DEEPEST: usize = 100;

/// A condition on the rows of one table.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    /// For the plan.
    pub(crate) expr: Expr,
    /// Columns of the table that it looks at, by position.
    pub(crate) columns: Vec<usize>,
    /// For what is decided before the plan.
    pub(crate) physical: Arc<dyn PhysicalExpr>,
}

impl Filter {
    /// Understands `text` as a condition on rows of `source`.
    pub(crate) fn parse(text: &str, source: &Source) -> Result<Self, Error> {
        let refuse = |reason: String| Error::Filter {
            filter: text.to_owned(),
            reason,
        };
        if text.len() > LONGEST_BYTES {
            return Err(Error::Filter {
                filter: text.chars().take(60).chain(['…']).collect(),
                reason: format!("is longer than {LONGEST_BYTES} bytes"),
            });
        }
        let mut reader = Reader {
            text,
            source,
            columns: vec![],
            depth: 0,
        };
        let expr = reader.expr(&parsed(text).map_err(refuse)?)?;
        let schema = DFSchema::try_from(source.scanned.as_ref().clone());
        let understood = schema.and_then(|schema| {
            let expr = read(instant::in_expr(expr, &schema)?)?;
            let session = SessionStateBuilder::new().build();
            let physical = session.create_physical_expr(expr.clone(), &schema)?;
            Ok((physical.data_type(schema.as_arrow())?, expr, physical))
        });
        match understood {
            Ok((arrow_schema::DataType::Boolean, expr, physical)) => Ok(Self {
                expr,
                columns: reader.columns,
                physical,
            }),
            Ok(_) => Err(refuse("is not a condition".to_owned())),
            Err(error) => Err(refuse(format!("cannot be evaluated: {}", error.message()))),
        }
    }
}

/// The syntax tree of a whole text.
fn parsed(text: &str) -> Result<ast::Expr, String> {
    let wrong = |error| format!("is not SQL: {error}");
    let dialect = GenericDialect {};
    let mut parser = Parser::new(&dialect).try_with_sql(text).map_err(wrong)?;
    let tree = parser.parse_expr().map_err(wrong)?;
    let rest = parser.next_token().token;
    if rest == Token::EOF {
        return Ok(tree);
    }
    Err(format!("is not one condition: it goes on with `{rest}`"))
}

/// Makes an expression of the engine from a syntax tree.
struct Reader<'f> {
    text: &'f str,
    source: &'f Source,
    columns: Vec<usize>,
    depth: usize,
}

impl Reader<'_> {
    fn expr(&mut self, tree: &ast::Expr) -> Result<Expr, Error> {
        if self.depth == DEEPEST {
            return Err(self.refused(format!(
                "nests more than {DEEPEST} deep; `IN (…)` takes many values"
            )));
        }
        self.depth += 1;
        let expr = self.part(tree);
        self.depth -= 1;
        expr
    }

    fn part(&mut self, tree: &ast::Expr) -> Result<Expr, Error> {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "everything else is refused, what parsers will know one day too"
        )]
        match tree {
            ast::Expr::Identifier(name) => self.column(&name.value),
            ast::Expr::Value(value) => self.literal(&value.value),
            ast::Expr::TypedString(typed) => self.typed(typed),
            ast::Expr::Nested(inner) => self.expr(inner),
            ast::Expr::UnaryOp { op, expr } => self.unary(*op, expr),
            ast::Expr::BinaryOp { left, op, right } => {
                let (left, right) = (self.expr(left)?, self.expr(right)?);
                self.binary(left, op, right)
            }
            ast::Expr::IsNull(of) => Ok(self.expr(of)?.is_null()),
            ast::Expr::IsNotNull(of) => Ok(self.expr(of)?.is_not_null()),
            ast::Expr::IsTrue(of) => Ok(self.expr(of)?.is_true()),
            ast::Expr::IsFalse(of) => Ok(self.expr(of)?.is_false()),
            ast::Expr::InList {
                expr,
                list,
                negated,
            } => {
                let expr = self.expr(expr)?;
                let list = list.iter().map(|item| self.expr(item));
                Ok(expr.in_list(list.collect::<Result<_, _>>()?, *negated))
            }
            ast::Expr::Between {
                expr,
                negated,
                low,
                high,
            } => {
                let (expr, low, high) = (self.expr(expr)?, self.expr(low)?, self.expr(high)?);
                Ok(match negated {
                    false => expr.between(low, high),
                    true => expr.not_between(low, high),
                })
            }
            ast::Expr::Like {
                negated,
                any: false,
                expr,
                pattern,
                escape_char: None,
            } => self.like(*negated, false, (expr, pattern)),
            ast::Expr::ILike {
                negated,
                any: false,
                expr,
                pattern,
                escape_char: None,
            } => self.like(*negated, true, (expr, pattern)),
            other => Err(self.unknown(other)),
        }
    }

    fn column(&mut self, name: &str) -> Result<Expr, Error> {
        let (position, _) = find(self.source, name)?;
        if !self.columns.contains(&position) {
            self.columns.push(position);
        }
        Ok(Expr::Column(Column::new_unqualified(name)))
    }

    fn literal(&self, value: &ast::Value) -> Result<Expr, Error> {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the others are of other dialects"
        )]
        match value {
            ast::Value::Number(digits, _) => number(digits).ok_or_else(|| self.unknown(value)),
            ast::Value::SingleQuotedString(text) => Ok(lit(text.as_str())),
            ast::Value::Boolean(value) => Ok(lit(*value)),
            ast::Value::Null => Ok(lit(ScalarValue::Null)),
            other => Err(self.unknown(other)),
        }
    }

    /// `DATE '2026-01-31'`, `TIMESTAMP '2026-01-31 12:00:00'`.
    fn typed(&self, typed: &ast::TypedString) -> Result<Expr, Error> {
        use arrow_schema::{DataType, TimeUnit};
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "literals of other types are refused"
        )]
        let data_type = match &typed.data_type {
            ast::DataType::Date => DataType::Date32,
            ast::DataType::Timestamp(None, _) => DataType::Timestamp(TimeUnit::Nanosecond, None),
            _ => return Err(self.unknown(typed)),
        };
        let ast::Value::SingleQuotedString(text) = &typed.value.value else {
            return Err(self.unknown(typed));
        };
        match ScalarValue::try_from_string(text.clone(), &data_type) {
            // What it means depends on what it stands beside.
            Ok(_) => Ok(cast(lit(text.as_str()), data_type)),
            Err(_) => Err(self.refused(format!("has no good value in `{typed}`"))),
        }
    }

    fn unary(&mut self, op: ast::UnaryOperator, of: &ast::Expr) -> Result<Expr, Error> {
        match (op, of) {
            (ast::UnaryOperator::Not, of) => Ok(not(self.expr(of)?)),
            // Together, as the smallest whole number has no positive counterpart.
            (ast::UnaryOperator::Minus, ast::Expr::Value(value)) => {
                number(&format!("-{value}")).ok_or_else(|| self.unknown(value))
            }
            (ast::UnaryOperator::Minus, of) => Ok(Expr::Negative(Box::new(self.expr(of)?))),
            (ast::UnaryOperator::Plus, of) => self.expr(of),
            (other, _) => Err(self.unknown(other)),
        }
    }

    fn binary(&self, left: Expr, op: &ast::BinaryOperator, right: Expr) -> Result<Expr, Error> {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the others are of other dialects"
        )]
        let op = match op {
            ast::BinaryOperator::And => Operator::And,
            ast::BinaryOperator::Or => Operator::Or,
            ast::BinaryOperator::Eq => Operator::Eq,
            ast::BinaryOperator::NotEq => Operator::NotEq,
            ast::BinaryOperator::Lt => Operator::Lt,
            ast::BinaryOperator::LtEq => Operator::LtEq,
            ast::BinaryOperator::Gt => Operator::Gt,
            ast::BinaryOperator::GtEq => Operator::GtEq,
            ast::BinaryOperator::Plus => Operator::Plus,
            ast::BinaryOperator::Minus => Operator::Minus,
            ast::BinaryOperator::Multiply => Operator::Multiply,
            ast::BinaryOperator::Divide => Operator::Divide,
            ast::BinaryOperator::Modulo => Operator::Modulo,
            other => return Err(self.unknown(other)),
        };
        let (left, right) = (Box::new(left), Box::new(right));
        Ok(Expr::BinaryExpr(BinaryExpr { left, op, right }))
    }

    fn like(
        &mut self,
        negated: bool,
        any_case: bool,
        (expr, pattern): (&ast::Expr, &ast::Expr),
    ) -> Result<Expr, Error> {
        let (expr, pattern) = (Box::new(self.expr(expr)?), Box::new(self.expr(pattern)?));
        Ok(Expr::Like(Like::new(
            negated, expr, pattern, None, any_case,
        )))
    }

    fn unknown(&self, part: impl std::fmt::Display) -> Error {
        self.refused(format!("has `{part}`, which filters do not know"))
    }

    fn refused(&self, reason: String) -> Error {
        Error::Filter {
            filter: self.text.to_owned(),
            reason,
        }
    }
}

/// The condition with values in the place of texts that are read as something else.
fn read(expr: Expr) -> EngineResult<Expr> {
    let read = expr.transform_up(|part| {
        if let Expr::Cast(cast) = &part
            && let Expr::Literal(text, _) = cast.expr.as_ref()
        {
            let value = text.cast_to(cast.field.data_type());
            return value.map(|value| Transformed::yes(lit(value)));
        }
        Ok(Transformed::no(part))
    });
    Ok(read?.data)
}

/// A whole number where it is one, else a float.
fn number(digits: &str) -> Option<Expr> {
    let whole = digits.parse::<i64>().map(lit).ok();
    let whole = whole.or_else(|| digits.parse::<u64>().map(lit).ok());
    let float = || digits.parse::<f64>().ok().filter(|float| float.is_finite());
    whole.or_else(|| float().map(lit))
}

#[cfg(test)]
mod tests {
    use arrow_schema::DataType;

    use super::*;
    use crate::fake::schema_of;

    fn source() -> Source {
        let schema = schema_of(&[
            ("id", DataType::Int64, true),
            ("country", DataType::Utf8, true),
            ("day", DataType::Date32, true),
            ("Order Value", DataType::Float64, true),
        ]);
        Source::without_files("/t", schema)
    }

    fn parse(text: &str) -> Result<Filter, Error> {
        Filter::parse(text, &source())
    }

    #[test]
    fn conditions_on_columns_are_understood() {
        for text in [
            "id = 7",
            "id <> -9223372036854775808 AND NOT (country IS NULL)",
            "country IN ('UK', 'US') OR country NOT LIKE 'D%'",
            "day BETWEEN DATE '2026-01-01' AND '2026-02-01'",
            "day >= DATE '2026-01-01' AND id % 10 = 3",
            "\"Order Value\" * 1.2 > 1e3",
            "country ILIKE 'u_'",
            "day < TIMESTAMP '2026-01-01 12:00:00'",
            "TRUE",
        ] {
            assert!(parse(text).is_ok(), "{text}: {:?}", parse(text).err());
        }
        assert_eq!(
            parse("day = '2026-01-01' AND id = 1 OR id = 2")
                .unwrap()
                .columns,
            [2, 0]
        );
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        for (text, part) in [
            ("id = (SELECT 1)", "SELECT 1"),
            ("id IN (SELECT id FROM t)", "SELECT"),
            ("EXISTS (SELECT 1)", "EXISTS"),
            ("id = now()", "now()"),
            ("random() < 0.5", "random()"),
            ("CASE WHEN id = 1 THEN TRUE END", "CASE"),
            ("id = $1", "$1"),
            ("id = 1; DROP TABLE t", ";"),
            ("id", "is not a condition"),
            ("id + 1", "is not a condition"),
            ("id = DATE 'yesterday'", "DATE 'yesterday'"),
            ("", "is not SQL"),
            ("id = ", "is not SQL"),
            ("country AND TRUE", "cannot be evaluated"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(matches!(error, Error::Filter { .. }), "{text}: {error}");
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_time_with_an_offset_is_an_instant_beside_a_zone() {
        use arrow_array::{ArrayRef, RecordBatch, TimestampMicrosecondArray, cast::AsArray as _};
        // 2026-06-01, 12:00 in UTC.
        let noon = || TimestampMicrosecondArray::from(vec![1_780_315_200_000_000]);
        let row = RecordBatch::try_from_iter([
            (
                "york",
                Arc::new(noon().with_timezone("America/New_York")) as ArrayRef,
            ),
            ("utc", Arc::new(noon().with_timezone("UTC"))),
            ("plain", Arc::new(noon())),
        ])
        .unwrap();
        let source = Source::without_files("/t", row.schema());
        for (text, expected) in [
            ("york = TIMESTAMP '2026-06-01T12:00:00Z'", true),
            ("TIMESTAMP '2026-06-01 14:00:00+02:00' = york", true),
            ("york IN (NULL, TIMESTAMP '2026-06-01T12:00:00Z')", true),
            (
                "york BETWEEN TIMESTAMP '2026-06-01T11:59:59Z' AND TIMESTAMP '2026-06-01T12:00:01Z'",
                true,
            ),
            ("york > TIMESTAMP '2026-06-01T12:00:00Z'", false),
            ("york = TIMESTAMP '2026-06-01 08:00:00'", true),
            ("york = '2026-06-01T12:00:00Z'", true),
            ("utc = TIMESTAMP '2026-06-01T14:00:00+02:00'", true),
            ("utc = TIMESTAMP '2026-06-01 12:00:00'", true),
            ("plain = TIMESTAMP '2026-06-01T14:00:00+02:00'", true),
            ("plain = TIMESTAMP '2026-06-01 12:00:00'", true),
        ] {
            let filter = Filter::parse(text, &source).unwrap();
            let selected = filter.physical.evaluate(&row).unwrap();
            let selected = selected.into_array(1).unwrap();
            assert_eq!(selected.as_boolean().value(0), expected, "{text}");
        }
    }

    #[test]
    fn a_slip_in_a_name_is_pointed_out() {
        let error = parse("contry = 'UK'").unwrap_err();
        assert!(
            error.to_string().ends_with("did you mean `country`?"),
            "{error}"
        );
    }

    #[test]
    fn the_longest_filter_does_not_end_the_program() {
        let deep = |clause: &str| clause.repeat(LONGEST_BYTES / clause.len() - 1);
        let chain = |clauses| format!("{}TRUE", "id = 1 OR ".repeat(clauses));
        assert!(parse(&chain(DEEPEST - 2)).is_ok());
        let many = format!("id IN ({}1)", "1,".repeat(8_000));
        assert!(parse(&many).is_ok());
        let chain = format!("{}TRUE", deep("id = 1 OR "));
        assert!(parse(&chain).is_err());
        for text in [deep("("), deep("NOT "), deep("-")] {
            assert!(parse(&text).is_err());
        }
        let error = parse(&"x".repeat(LONGEST_BYTES + 1)).unwrap_err();
        assert!(error.to_string().len() < 200, "{error}");
    }
}
