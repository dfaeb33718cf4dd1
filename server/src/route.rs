//! Method and path → what is asked for.

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use percent_encoding::percent_decode_str;

use crate::error::Refusal;
use crate::function::Function;
use crate::protocol::{Protocol, tensors};

/// What a request asks for.
#[derive(Debug)]
pub(crate) enum Target<'r> {
    Page(Page),
    /// What is told of a model, in a protocol that has models.
    Model(Protocol, &'r Arc<Function>),
    Function(&'r Arc<Function>, Protocol),
}

/// What is told without a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page {
    Front,
    Health,
    Ready,
    Metrics,
    OpenApi,
    Envelope,
    /// That the service is alive, in a protocol of others.
    Live(Protocol),
    /// That calls may be sent.
    ReadyFor(Protocol),
    /// The models that there are.
    Models(Protocol),
    /// The models that there are, as Triton tells of them.
    Index,
    /// What the server is.
    Server,
    Version,
    ExecutionParameters,
}

const PAGES: [(&str, Page); 17] = [
    ("/", Page::Front),
    ("/healthz", Page::Health),
    ("/livez", Page::Health),
    ("/readyz", Page::Ready),
    ("/metrics", Page::Metrics),
    ("/openapi.json", Page::OpenApi),
    ("/envelope", Page::Envelope),
    ("/ping", Page::ReadyFor(Protocol::Invocations)),
    ("/health", Page::ReadyFor(Protocol::Invocations)),
    ("/version", Page::Version),
    ("/execution-parameters", Page::ExecutionParameters),
    ("/v1/models", Page::Models(Protocol::Kserve)),
    ("/v2", Page::Server),
    ("/v2/health/live", Page::Live(Protocol::Tensors)),
    ("/v2/health/ready", Page::ReadyFor(Protocol::Tensors)),
    ("/v2/models", Page::Models(Protocol::Tensors)),
    ("/v2/repository/index", Page::Index),
];

impl Page {
    /// Whether it is answered where monitors have a port of their own.
    pub(crate) fn is_for_monitors(self) -> bool {
        match self {
            Self::Health | Self::Ready | Self::Metrics | Self::Live(_) | Self::ReadyFor(_) => true,
            Self::Front
            | Self::OpenApi
            | Self::Envelope
            | Self::Models(_)
            | Self::Index
            | Self::Server
            | Self::Version
            | Self::ExecutionParameters => false,
        }
    }
}

/// The functions, by their paths. The first answers where no function is named.
#[derive(Debug)]
pub(crate) struct Routes {
    /// The name of the envelope, which the first function has too where clients name models.
    model: String,
    pub(crate) functions: Vec<Arc<Function>>,
}

/// The path of something that others call a model.
enum Named<'p> {
    Told(&'p str),
    Called(&'p str),
}

impl Routes {
    pub(crate) fn new(model: &str, functions: Vec<Arc<Function>>) -> Self {
        Self {
            model: model.to_owned(),
            functions,
        }
    }

    pub(crate) fn find(&self, method: &Method, path: &str) -> Result<Target<'_>, Refusal> {
        if let Some(page) = page(method, path)? {
            return Ok(Target::Page(page));
        }
        let protocol = Protocol::at(path);
        let function = match protocol {
            Protocol::Native => self.function(native(path)?),
            Protocol::Invocations => self.endpoint(path),
            Protocol::Kserve | Protocol::Tensors | Protocol::Grpc => match model(path, protocol)? {
                Named::Called(name) => self.function(Some(name)),
                Named::Told(name) => {
                    let function = self.function(Some(name))?;
                    get_only(method)?;
                    return Ok(Target::Model(protocol, function));
                }
            },
        }?;
        if method != Method::POST {
            return Err(Refusal::Method { allow: "POST" });
        }
        Ok(Target::Function(function, protocol))
    }

    /// `/invocations`, or `/endpoints/{name}/invocations`, where an endpoint may have any name.
    fn endpoint(&self, path: &str) -> Result<&Arc<Function>, Refusal> {
        let rest = path.strip_prefix("/endpoints/");
        let is_call = match rest {
            None => path == "/invocations",
            Some(rest) => rest
                .strip_suffix("/invocations")
                .is_some_and(|name| !name.contains('/')),
        };
        if is_call {
            self.function(None)
        } else {
            Err(Refusal::NoSuchPath)
        }
    }

    fn function(&self, encoded: Option<&str>) -> Result<&Arc<Function>, Refusal> {
        let found = match encoded {
            None => self.functions.first(),
            Some(encoded) => {
                let name = percent_decode_str(encoded)
                    .decode_utf8()
                    .map_err(|_| Refusal::NoSuchPath)?;
                self.named(&name)
            }
        };
        found.ok_or_else(|| self.unknown())
    }

    /// The model of a name that is written as it is.
    pub(crate) fn model(&self, name: &str) -> Result<&Arc<Function>, Refusal> {
        self.named(name).ok_or_else(|| self.unknown())
    }

    /// Whether any function answers within `patience`.
    pub(crate) fn have_time(&self, patience: Duration) -> Result<(), Refusal> {
        let mut had = Ok(());
        for function in &self.functions {
            had = function.batcher.has_time(patience);
            if had.is_ok() {
                break;
            }
        }
        had
    }

    fn named(&self, name: &str) -> Option<&Arc<Function>> {
        let named = self.functions.iter().find(|function| function.name == name);
        named.or_else(|| self.functions.first().filter(|_| name == self.model))
    }

    fn unknown(&self) -> Refusal {
        let known = self.functions.iter();
        let known: Vec<_> = known
            .map(|function| format!("`{}`", function.name))
            .collect();
        Refusal::NoSuchFunction {
            known: known.join(", "),
        }
    }
}

/// `/predict` or `/predict/{function}`.
fn native(path: &str) -> Result<Option<&str>, Refusal> {
    match path.strip_prefix("/predict") {
        Some("") => Ok(None),
        Some(rest) => rest.strip_prefix('/').map(Some).ok_or(Refusal::NoSuchPath),
        None => Err(Refusal::NoSuchPath),
    }
}

/// `/v1/models/{name}[:predict]`, `/v2/models/{name}[/versions/1][/ready|/infer]`.
fn model(path: &str, protocol: Protocol) -> Result<Named<'_>, Refusal> {
    if protocol == Protocol::Kserve {
        let rest = path
            .strip_prefix("/v1/models/")
            .ok_or(Refusal::NoSuchPath)?;
        let name = rest.strip_suffix(":predict");
        return Ok(name.map_or(Named::Told(rest), Named::Called));
    }
    let rest = path
        .strip_prefix("/v2/models/")
        .ok_or(Refusal::NoSuchPath)?;
    let mut parts: Vec<&str> = rest.trim_end_matches('/').split('/').collect();
    let name = parts.remove(0);
    if let ["versions", version, ..] = *parts {
        tensors::model::check_version(version)?;
        parts.drain(..2);
    }
    match *parts {
        [] | ["ready"] => Ok(Named::Told(name)),
        ["infer"] => Ok(Named::Called(name)),
        _ => Err(Refusal::NoSuchPath),
    }
}

fn page(method: &Method, path: &str) -> Result<Option<Page>, Refusal> {
    let Some(page) = page_at(path) else {
        return Ok(None);
    };
    // Triton asks for its index with a body.
    if page == Page::Index && method == Method::POST {
        return Ok(Some(page));
    }
    get_only(method).map(|()| Some(page))
}

/// The page at a path, however it is asked for.
pub(crate) fn page_at(path: &str) -> Option<Page> {
    let trimmed = path
        .strip_prefix("/v2")
        .map_or(path, |_| path.trim_end_matches('/'));
    let mut pages = PAGES.iter();
    pages
        .find(|(known, _)| *known == trimmed)
        .map(|(_, page)| *page)
}

fn get_only(method: &Method) -> Result<(), Refusal> {
    if method == Method::GET || method == Method::HEAD {
        Ok(())
    } else {
        Err(Refusal::Method { allow: "GET, HEAD" })
    }
}
