//! What stands for a call of `predict` between the text and the plan.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_schema::{DataType, Fields, SchemaRef};
use datafusion::common::SchemaError;
use datafusion::error::{DataFusionError, Result as EngineResult};
use datafusion::execution::{FunctionRegistry as _, SessionState};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use envelope_format::Function;

use super::Position;
use crate::function::{check_row_wise, function_of};
use crate::{Error, MapRows};

/// The functions that a statement calls.
#[derive(Default)]
pub(super) struct Predictions {
    called: Vec<Prediction>,
}

/// One function of one envelope.
pub(super) struct Prediction {
    /// What the text calls the envelope, and its function where it names one.
    pub(super) asked: (String, Option<String>),
    /// What runs it.
    pub(super) rows: Arc<dyn MapRows>,
    pub(super) function: Function,
    /// Where it is called first.
    pub(super) at: Position,
    /// Where whole rows are given to it.
    pub(super) spans: Vec<Position>,
}

impl Prediction {
    /// Refuses what a table cannot be split for.
    pub(super) fn new(
        asked: (String, Option<String>),
        rows: Arc<dyn MapRows>,
        at: Position,
    ) -> Result<Self, Error> {
        let function = function_of(rows.as_ref(), asked.1.as_deref())?.clone();
        check_row_wise(&function)?;
        Ok(Self {
            asked,
            rows,
            function,
            at,
            spans: vec![],
        })
    }

    pub(super) fn taken(&self) -> SchemaRef {
        runtime::arrow_schema(&self.function.signature.input)
    }

    pub(super) fn given(&self) -> SchemaRef {
        runtime::arrow_schema(&self.function.signature.output)
    }

    fn data_type(&self, column: Option<usize>) -> DataType {
        let given = self.given();
        match (column, given.fields().as_ref()) {
            (Some(column), fields) => fields[column].data_type().clone(),
            (None, [only]) => only.data_type().clone(),
            (None, fields) => DataType::Struct(Fields::from(fields.to_vec())),
        }
    }
}

impl Predictions {
    /// Gives its number.
    pub(super) fn push(&mut self, prediction: Prediction) -> usize {
        self.called.push(prediction);
        self.called.len() - 1
    }

    pub(super) fn find(&self, asked: &(String, Option<String>)) -> Option<(usize, &Prediction)> {
        let mut all = self.called.iter().enumerate();
        all.find(|(_, one)| one.asked == *asked)
    }

    pub(super) fn at_mut(&mut self, number: usize) -> Option<&mut Prediction> {
        self.called.get_mut(number)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Prediction> {
        self.called.iter()
    }

    /// What runs them, each once.
    pub(super) fn envelopes(&self) -> impl Iterator<Item = &Arc<dyn MapRows>> {
        let by_digest = self
            .called
            .iter()
            .map(|one| (one.rows.digest().to_string(), &one.rows));
        by_digest.collect::<BTreeMap<_, _>>().into_values()
    }

    /// The name of the placeholder of a whole result, or of one column of it.
    pub(super) fn name(number: usize, column: Option<usize>) -> String {
        match column {
            None => format!("predict_{number}"),
            Some(column) => format!("predict_{number}_{column}"),
        }
    }

    /// The function that a placeholder stands for.
    pub(super) fn named(&self, name: &str) -> Option<(&Prediction, Option<usize>)> {
        let mut numbers = name.strip_prefix("predict_")?.split('_');
        let prediction = self.called.get(numbers.next()?.parse::<usize>().ok()?)?;
        let column = numbers.next().map(str::parse::<usize>).transpose().ok()?;
        Some((prediction, column))
    }

    /// Lets the session plan calls.
    pub(super) fn register(&self, state: &mut SessionState) -> Result<(), Error> {
        for (number, prediction) in self.called.iter().enumerate() {
            let columns = (0..prediction.given().fields().len()).map(Some);
            for column in columns.chain([None]) {
                let placeholder = Placeholder {
                    name: Self::name(number, column),
                    signature: Signature::user_defined(Volatility::Volatile),
                    gives: prediction.data_type(column),
                };
                state
                    .register_udf(Arc::new(ScalarUDF::new_from_impl(placeholder)))
                    .map_err(Error::from_engine)?;
            }
        }
        Ok(())
    }

    /// Says which function takes a column that is not there, if one was given whole rows at this place.
    pub(super) fn lacking(&self, error: &DataFusionError, at: Option<Position>) -> Option<Error> {
        let DataFusionError::SchemaError(error, _) = error else {
            return None;
        };
        let SchemaError::FieldNotFound { field, .. } = error.as_ref() else {
            return None;
        };
        let takes = |one: &&Prediction| {
            one.taken().fields().find(&field.name).is_some()
                && at.is_none_or(|at| one.spans.contains(&at))
        };
        let one = self.called.iter().find(takes)?;
        let name = &one.function.name;
        let of = field.relation.as_ref();
        let of = of.map_or_else(|| "there is none".into(), |of| format!("`{of}` has none"));
        Some(Error::Sql {
            reason: format!("`{name}` takes the column `{}`, but {of}", field.name),
            at: at.or(Some(one.at)),
            hint: Some(format!(
                "say what it is: `predict('{}', …, \"{}\" => …)`",
                one.asked.0, field.name
            )),
        })
    }
}

/// A function of the engine that is never called: `place` puts a column in its place.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Placeholder {
    name: String,
    /// Volatile, so that nobody computes it, moves it or doubles it before it is placed.
    signature: Signature,
    gives: DataType,
}

impl ScalarUDFImpl for Placeholder {
    fn name(&self) -> &str {
        &self.name
    }

    /// As the engine displays a call. It builds names of windows and aggregates from both ways of writing one, so
    /// they must not differ; and a name without the casts in it would be that of another call, too.
    fn schema_name(&self, given: &[Expr]) -> EngineResult<String> {
        let given: Vec<String> = given.iter().map(ToString::to_string).collect();
        Ok(format!("{}({})", self.name, given.join(", ")))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> EngineResult<DataType> {
        Ok(self.gives.clone())
    }

    /// Nothing is coerced; what fits is decided where the call is placed.
    fn coerce_types(&self, given: &[DataType]) -> EngineResult<Vec<DataType>> {
        Ok(given.to_vec())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> EngineResult<ColumnarValue> {
        Err(DataFusionError::Internal(format!(
            "`{}` was not placed in the plan",
            self.name
        )))
    }
}
