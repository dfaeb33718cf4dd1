//! What clients are told of a model: its version, and the tensors that it takes and gives.

use envelope_format::{DataType, Rows, Signature};
use serde::Serialize;

use super::{Datatype, MATRIX, is_matrix, refuse};
use crate::error::Refusal;

/// A service has one envelope, and it is the only version there is.
pub(crate) const VERSION: &str = "1";

/// What serves the models, as other servers name a framework.
pub(crate) const PLATFORM: &str = "model-envelope";

/// What a server of tensors can do besides.
pub(crate) const EXTENSIONS: [&str; 1] = ["binary_tensor_data"];

/// A tensor that a model takes or gives.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Described {
    pub(crate) name: String,
    pub(crate) datatype: Datatype,
    /// -1 where a dimension has any length.
    pub(crate) shape: Vec<i64>,
}

/// That a version is the one that there is.
pub(crate) fn check_version(version: &str) -> Result<(), Refusal> {
    if version == VERSION {
        return Ok(());
    }
    Err(Refusal::NoSuchFunction {
        known: format!("version `{VERSION}`"),
    })
}

/// That a model gives all outputs of these names.
pub(crate) fn check_outputs<'n>(
    signature: &Signature,
    mut names: impl Iterator<Item = &'n str>,
) -> Result<(), Refusal> {
    let known: Vec<_> = outputs(signature)
        .into_iter()
        .map(|known| known.name)
        .collect();
    match names.find(|name| !known.iter().any(|known| known == name)) {
        Some(unknown) => Err(refuse(format!(
            "there is no output `{unknown}`, there are `{}`",
            known.join("`, `")
        ))),
        None => Ok(()),
    }
}

pub(crate) fn inputs(signature: &Signature) -> Vec<Described> {
    described(&signature.input, MATRIX[0])
}

pub(crate) fn outputs(signature: &Signature) -> Vec<Described> {
    described(&signature.output, MATRIX[1])
}

fn described(rows: &Rows, matrix: &str) -> Vec<Described> {
    let described = |name: &str, data_type: &DataType, more: &[i64]| Described {
        name: name.to_owned(),
        datatype: Datatype::of(data_type),
        shape: [&[-1], more, &dimensions(data_type)].concat(),
    };
    match rows.fields.first() {
        Some(first) if is_matrix(rows) => {
            let width = i64::try_from(rows.fields.len()).unwrap_or(-1);
            vec![described(matrix, &first.data_type, &[width])]
        }
        _ => {
            let fields = rows.fields.iter();
            fields
                .map(|field| described(&field.name, &field.data_type, &[]))
                .collect()
        }
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the others are single values"
)]
fn dimensions(data_type: &DataType) -> Vec<i64> {
    match data_type {
        DataType::List(item) => [vec![-1], dimensions(item)].concat(),
        DataType::FixedList(item, length) => [vec![i64::from(*length)], dimensions(item)].concat(),
        _ => vec![],
    }
}
