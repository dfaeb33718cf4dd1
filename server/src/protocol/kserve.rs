//! `POST /v1/models/{model}:predict`, as `KServe`, Vertex AI and TensorFlow Serving have it.

use crate::decode::{Dialect, Layout};
use crate::error::Refusal;
use crate::media::{Media, Said};

/// `parameters` are passed over.
pub(super) const DIALECT: Dialect = Dialect {
    keys: &[("instances", Layout::Rows)],
    lenient: true,
    casts: None,
};

pub(super) fn media(said: &Said) -> Result<Media, Refusal> {
    match said {
        Said::Nothing | Said::Known(Media::Json) => Ok(Media::Json),
        Said::Known(_) | Said::Unknown => Err(Refusal::MediaType {
            known: "application/json",
        }),
    }
}
