//! The query functions that a job applies to each row, and what their results are called.

use std::fmt;
use std::sync::Arc;

use arrow_schema::{Field, FieldRef, SchemaRef};
use envelope_format::{Digest, Function};

use crate::function::{MapRows, check_row_wise, function_of, reduces, rows_of_a_call};
use crate::plan::MapSpec;
use crate::schema::{Mapped, first_types};
use crate::{Error, Job, Settings};

/// A query function, and what runs it.
#[derive(Clone)]
pub struct Model {
    /// Runs the functions of the envelope.
    pub rows: Arc<dyn MapRows>,
    /// Name of the function; the envelope's default one when absent.
    pub function: Option<String>,
    /// What its columns of the output are called after: the column `prediction` becomes `NAME_prediction`. Without
    /// a name it stays what it is. Where there are several models, names tell their results apart.
    pub name: Option<String>,
}

impl Model {
    /// The default function of an envelope.
    #[must_use]
    pub fn new(rows: Arc<dyn MapRows>) -> Self {
        Self {
            rows,
            function: None,
            name: None,
        }
    }

    /// The function, if a table may be split for it: anywhere, unless calls get whole groups of rows.
    fn splittable(&self, grouped: bool) -> Result<Splittable<'_>, Error> {
        let function = function_of(self.rows.as_ref(), self.function.as_deref())?;
        if !grouped {
            check_row_wise(function)?;
        }
        Ok(Splittable {
            model: self,
            function,
        })
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Model")
            .field("envelope", &self.rows.digest())
            .field("function", &self.function)
            .field("name", &self.name)
            .finish()
    }
}

/// A function that a table may be split for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Splittable<'m> {
    pub(crate) model: &'m Model,
    pub(crate) function: &'m Function,
}

impl Splittable<'_> {
    /// The function's columns in the output.
    pub(crate) fn given(&self) -> Vec<FieldRef> {
        let output = runtime::arrow_schema(&self.function.signature.output);
        let Some(name) = &self.model.name else {
            return output.fields().iter().cloned().collect();
        };
        let named = |field: &FieldRef| {
            let name = format!("{name}_{}", field.name());
            Arc::new(Field::clone(field).with_name(name))
        };
        output.fields().iter().map(named).collect()
    }

    /// The map that applies it to rows of a table.
    pub(crate) fn spec(&self, settings: &Settings, table: &str, columns: &Mapped) -> MapSpec {
        let given = self.given();
        let given = given.iter().map(|field| field.name().clone()).collect();
        MapSpec::new(
            (self.model.rows.digest(), self.function),
            (settings, table),
            (columns.keep.clone(), given),
        )
    }

    /// Whether it gives one row for all the rows of a call.
    pub(crate) fn reduces(&self) -> bool {
        reduces(&self.function.signature)
    }

    pub(crate) fn rows_of_a_call(&self, settings: &Settings) -> usize {
        rows_of_a_call(settings.batch_rows, self.function.certificate.tile)
    }
}

/// Types of columns of a table whose files do not say them.
pub(crate) fn types(models: &[Splittable<'_>]) -> SchemaRef {
    let taken = models.iter().map(|model| &model.function.signature.input);
    first_types(taken.map(runtime::arrow_schema))
}

/// The functions of a job, each of which a table may be split for. Only one may get groups of rows.
pub(crate) fn splittable<'m>(job: &Job, models: &'m [Model]) -> Result<Vec<Splittable<'m>>, Error> {
    let grouped = !job.group_by.is_empty();
    match models.len() {
        0 => Err(Error::NoModel),
        count if grouped && count > 1 => Err(Error::GroupsOfSeveral { count }),
        _ => {
            let models = models.iter();
            models.map(|model| model.splittable(grouped)).collect()
        }
    }
}

/// The envelopes of a job.
pub(crate) fn digests(models: &[Model]) -> Vec<Digest> {
    models.iter().map(|model| model.rows.digest()).collect()
}

/// What decides on the results of a job, beside the envelopes: what the log calls it, what messages call
/// it, and what it is.
pub(crate) fn asked(
    job: &Job,
    models: &[Splittable<'_>],
    input: String,
) -> [(&'static str, &'static str, Option<String>); 7] {
    let functions = models.iter().map(|model| model.function.name.as_str());
    let functions: Vec<_> = functions.collect();
    let names = models
        .iter()
        .filter_map(|model| model.model.name.as_deref());
    let names: Vec<_> = names.collect();
    let as_of = job.as_of.map(|as_of| as_of.to_string());
    [
        ("queryFunction", "function", Some(functions.join(", "))),
        (
            "modelNames",
            "list of models",
            (!names.is_empty()).then(|| names.join(", ")),
        ),
        ("inputTable", "input", Some(input)),
        ("inputAsOf", "snapshot of the input", as_of),
        ("inputFilter", "filter", job.filter.clone()),
        ("keptColumns", "kept columns", Some(job.keep.join(", "))),
        (
            "groupColumns",
            "columns of groups",
            (!job.group_by.is_empty()).then(|| job.group_by.join(", ")),
        ),
    ]
}
