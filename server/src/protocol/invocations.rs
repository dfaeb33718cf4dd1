//! `POST /invocations`, as `MLflow` serves models and `SageMaker` calls containers.

use serde_json::{Value, json};

use super::told;
use crate::Coercion;
use crate::decode::{Casts, Dialect, Layout};
use crate::error::Refusal;
use crate::media::{Media, Said};

/// `params` and whatever else is beside the rows is passed over.
const STRICT: Dialect = Dialect {
    keys: &[
        ("dataframe_split", Layout::Split),
        ("dataframe_records", Layout::Rows),
        ("instances", Layout::Rows),
        ("inputs", Layout::Columns),
    ],
    lenient: true,
    casts: None,
};

const MLFLOW: Dialect = Dialect {
    casts: Some(casts),
    ..STRICT
};

pub(super) fn dialect(coercion: Option<Coercion>) -> &'static Dialect {
    match coercion {
        None => &STRICT,
        Some(Coercion::Mlflow) => &MLFLOW,
    }
}

fn casts(key: &str) -> Casts {
    match key {
        "instances" | "inputs" => Casts::Array,
        _ => Casts::Frame,
    }
}

const KNOWN: &str = "application/json, application/jsonlines, text/csv, \
     application/vnd.apache.parquet, application/vnd.apache.arrow.stream";

/// Some clients do not say that they send JSON.
pub(super) fn media(said: &Said) -> Result<Media, Refusal> {
    match said {
        Said::Nothing => Ok(Media::Json),
        Said::Known(Media::Tensors) | Said::Unknown => Err(Refusal::MediaType { known: KNOWN }),
        Said::Known(media) => Ok(*media),
    }
}

/// `{"error_code", "message"}`.
pub(super) fn problem(refusal: &Refusal) -> Value {
    let code = match refusal.status().as_u16() {
        404 => "RESOURCE_DOES_NOT_EXIST",
        429 | 503 => "TEMPORARILY_UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        400..=499 => "BAD_REQUEST",
        _ => "INTERNAL_ERROR",
    };
    json!({"error_code": code, "message": told(refusal)})
}
