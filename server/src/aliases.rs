//! Paths that a platform chose: what it asks for there has a path of ours too.

use hyper::http::uri::PathAndQuery;
use hyper::{Request, Uri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::settings::Settings;

/// A path of the platform's, and ours.
#[derive(Debug)]
pub(crate) struct Aliases(Vec<(String, PathAndQuery)>);

impl Aliases {
    /// A prediction is one of the function `first`, as Vertex AI asks for it.
    pub(crate) fn new(settings: &Settings, first: &str) -> Self {
        let first = utf8_percent_encode(first, NON_ALPHANUMERIC);
        let both = [
            (&settings.health_path, "/readyz".to_owned()),
            (
                &settings.predict_path,
                format!("/v1/models/{first}:predict"),
            ),
        ];
        let both = both
            .into_iter()
            .filter_map(|(path, own)| Some((path.clone()?, PathAndQuery::try_from(own).ok()?)));
        Self(both.collect())
    }

    /// From here on the request is one for our path.
    pub(crate) fn resolve<B>(&self, request: &mut Request<B>) {
        let path = request.uri().path();
        let Some((_, own)) = self.0.iter().find(|(known, _)| known == path) else {
            return;
        };
        let mut parts = request.uri().clone().into_parts();
        parts.path_and_query = Some(own.clone());
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(uri: &str) -> String {
        let settings = Settings {
            health_path: Some("/v1/endpoints/1".to_owned()),
            predict_path: Some("/predict".to_owned()),
            ..Settings::default()
        };
        let mut request = Request::get(uri).body(()).unwrap();
        Aliases::new(&settings, "predict_ü").resolve(&mut request);
        request.uri().to_string()
    }

    #[test]
    fn a_path_of_the_platform_stands_for_one_of_ours() {
        let own = "/v1/models/predict%5F%C3%BC:predict";
        assert_eq!(resolved("/predict"), own);
        assert_eq!(
            resolved("http://a:1/predict?x=1"),
            format!("http://a:1{own}")
        );
        assert_eq!(resolved("/v1/endpoints/1"), "/readyz");
    }

    #[test]
    fn all_other_paths_stay() {
        for uri in [
            "/predict/total",
            "/healthz?x",
            "http://a/v1/endpoints/1/",
            "*",
        ] {
            assert_eq!(resolved(uri), uri);
        }
    }
}
