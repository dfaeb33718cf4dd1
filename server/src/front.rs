//! `GET /`: what is served here, for people. They can try it, and copy what a program would send.
//!
//! The page loads nothing from anywhere: its one script is in it, and the answer names that script's
//! digest, so that no other could run even if a text of the manifest were not escaped.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use envelope_format::{Digest, Function, Manifest};
use http_body_util::Full;
use hyper::Response;
use hyper::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

const SCRIPT: &str = include_str!("front.js");

/// The page, made once.
#[derive(Debug)]
pub(crate) struct Front {
    body: Bytes,
    policy: HeaderValue,
}

impl Front {
    /// `examples` has one body for each function.
    pub(crate) fn new(manifest: &Manifest, digest: Digest, examples: &[String]) -> Self {
        Self {
            body: page(manifest, digest, examples).into(),
            policy: policy(),
        }
    }

    pub(crate) fn show(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body.clone()));
        let headers = response.headers_mut();
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        headers.insert(CONTENT_TYPE, html);
        headers.insert(CONTENT_SECURITY_POLICY, self.policy.clone());
        response
    }
}

fn policy() -> HeaderValue {
    let script = BASE64_STANDARD.encode(Digest::of(SCRIPT.as_bytes()).as_bytes());
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{script}'; \
         connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    );
    HeaderValue::from_str(&policy).unwrap_or_else(|_| unreachable!("visible characters"))
}

fn page(manifest: &Manifest, digest: Digest, examples: &[String]) -> String {
    let tags: String = manifest
        .tags
        .iter()
        .map(|(key, value)| format!("<span>{}={}</span> ", escape(key), escape(value)))
        .collect();
    let functions: String = manifest
        .functions
        .iter()
        .zip(examples)
        .map(|(function, example)| section(function, example))
        .collect();
    // What comes last may hold anything, braces too.
    include_str!("front.html")
        .replace("{{digest}}", &digest.to_string())
        .replace("{{script}}", SCRIPT)
        .replace("{{name}}", &escape(&manifest.name))
        .replace("{{python}}", &escape(&manifest.environment.python.version))
        .replace("{{functions}}", &functions)
        .replace("{{tags}}", &tags)
        .replace("{{description}}", &escape(&manifest.description))
}

fn section(function: &Function, example: &str) -> String {
    let name = escape(&function.name);
    let path = utf8_percent_encode(&function.name, NON_ALPHANUMERIC).to_string();
    let path = path.replace("%5F", "_");
    format!(
        "<section><h2>{name}</h2><p class=doc>{doc}</p>\
         <table><tr><th>column<th>type<th>{columns}</table>\
         <form action=\"predict/{path}\"><textarea name=body rows=6 spellcheck=false \
         aria-label=\"The body of a call\">{body}</textarea>\
         <button>Call {name}</button><output></output></form>\
         <details><summary>With curl</summary><pre>{curl}</pre></details>\
         <details><summary>With Python</summary><pre>{python}</pre></details></section>",
        doc = escape(&function.doc),
        columns = columns(function),
        body = escape(example),
        curl = curl(&path, example),
        python = python(&path, example),
    )
}

fn columns(function: &Function) -> String {
    let fields = function.signature.input.fields.iter();
    let row = |field: &envelope_format::Field| {
        let optional = if field.nullable { "may be null" } else { "" };
        let (name, data_type) = (escape(&field.name), escape(&field.data_type.to_string()));
        format!("<tr><td>{name}<td>{data_type}<td>{optional}")
    };
    fields.map(row).collect()
}

/// Where the service is, as far as whoever reads the page is concerned: the script knows.
const HERE: &str = "<span class=here>http://127.0.0.1:8080</span>";

fn curl(path: &str, example: &str) -> String {
    // In single quotes a shell takes everything but a single quote as it is.
    let body = escape(&example.replace('\'', r"'\''"));
    format!("curl -s {HERE}/predict/{path} -H 'content-type: application/json' \\\n  -d '{body}'")
}

fn python(path: &str, example: &str) -> String {
    let mut body = String::new();
    literal(
        &serde_json::from_str(example).unwrap_or_default(),
        &mut body,
    );
    format!(
        "import requests\n\n\
         answer = requests.post(\n    \"{HERE}/predict/{path}\",\n    json={},\n)\n\
         answer.raise_for_status()\nprint(answer.json()[\"predictions\"])",
        escape(&body)
    )
}

/// A value as Python writes it. Texts and numbers of JSON are Python already.
fn literal(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Number(_) | Value::String(_) => out.push_str(&value.to_string()),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                separate(index, out);
                literal(item, out);
            }
            out.push(']');
        }
        Value::Object(entries) => {
            out.push('{');
            for (index, (key, value)) in entries.iter().enumerate() {
                separate(index, out);
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push_str(": ");
                literal(value, out);
            }
            out.push('}');
        }
    }
}

fn separate(index: usize, out: &mut String) {
    if index > 0 {
        out.push_str(", ");
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('{', "&#123;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_is_shown_as_python_writes_it() {
        let mut out = String::new();
        let example =
            serde_json::json!({"data": [{"a\"": null, "b": [true, false, -1.5e300, "é\n"]}]});
        literal(&example, &mut out);
        let expected = r#"{"data": [{"a\"": None, "b": [True, False, -1.5e+300, "é\n"]}]}"#;
        assert_eq!(out, expected);
    }

    #[test]
    fn texts_of_the_manifest_are_no_part_of_the_page() {
        let mut manifest = Manifest::example();
        manifest.description = "<script>alert(1)</script>{{functions}}".into();
        manifest.functions[0].doc = "\"><img src=x>".into();
        let example = r#"{"data":["</textarea><b>'"]}"#.to_owned();
        let page = page(&manifest, Digest::of(b""), &[example]);
        assert_eq!(page.matches("<script>").count(), 1, "{page}");
        assert!(!page.contains("<img") && !page.contains("<b>"), "{page}");
        assert_eq!(
            page.matches("<textarea").count(),
            page.matches("</textarea>").count()
        );
    }

    #[test]
    fn a_body_in_quotes_ends_where_the_shell_thinks() {
        assert!(curl("f", r#"{"data":["it's"]}"#).ends_with(r"it'\''s&quot;]}'"));
    }

    #[test]
    fn the_only_script_that_runs_is_the_one_of_the_page() {
        let policy = policy();
        let policy = policy.to_str().unwrap();
        assert!(
            policy.contains("script-src 'sha256-") && !policy.contains("http"),
            "{policy}"
        );
        assert!(!SCRIPT.contains("</script"), "it would end there");
    }
}
