//! Method and path → what is asked for.

use std::sync::Arc;

use hyper::Method;
use percent_encoding::percent_decode_str;

use crate::error::Refusal;
use crate::function::Function;

/// What a request asks for.
#[derive(Debug)]
pub(crate) enum Target<'r> {
    Page(Page),
    Function(&'r Arc<Function>),
}

/// What is read with `GET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page {
    Front,
    Health,
    Ready,
    Metrics,
    OpenApi,
    Envelope,
}

const PAGES: [(&str, Page); 6] = [
    ("/", Page::Front),
    ("/healthz", Page::Health),
    ("/readyz", Page::Ready),
    ("/metrics", Page::Metrics),
    ("/openapi.json", Page::OpenApi),
    ("/envelope", Page::Envelope),
];

/// The functions, by their paths. The first answers `/predict` too.
#[derive(Debug)]
pub(crate) struct Routes(pub(crate) Vec<Arc<Function>>);

impl Routes {
    pub(crate) fn find(&self, method: &Method, path: &str) -> Result<Target<'_>, Refusal> {
        if let Some(page) = page(method, path)? {
            return Ok(Target::Page(page));
        }
        let name = match path.strip_prefix("/predict") {
            Some("") => None,
            Some(rest) => Some(rest.strip_prefix('/').ok_or(Refusal::NoSuchPath)?),
            None => return Err(Refusal::NoSuchPath),
        };
        let function = self.function(name)?;
        if method != Method::POST {
            return Err(Refusal::Method { allow: "POST" });
        }
        Ok(Target::Function(function))
    }

    fn function(&self, encoded: Option<&str>) -> Result<&Arc<Function>, Refusal> {
        let found = match encoded {
            None => self.0.first(),
            Some(encoded) => {
                let name = percent_decode_str(encoded)
                    .decode_utf8()
                    .map_err(|_| Refusal::NoSuchPath)?;
                self.0.iter().find(|function| function.name == name)
            }
        };
        found.ok_or_else(|| {
            let known = self
                .0
                .iter()
                .map(|function| format!("`{}`", function.name))
                .collect::<Vec<_>>();
            Refusal::NoSuchFunction {
                known: known.join(", "),
            }
        })
    }
}

fn page(method: &Method, path: &str) -> Result<Option<Page>, Refusal> {
    let Some((_, page)) = PAGES.iter().find(|(known, _)| *known == path) else {
        return Ok(None);
    };
    if method == Method::GET || method == Method::HEAD {
        Ok(Some(*page))
    } else {
        Err(Refusal::Method { allow: "GET, HEAD" })
    }
}
