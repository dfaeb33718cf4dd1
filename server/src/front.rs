//! `GET /`: what is served here, for people. They can try it, and copy what a program would send.
//!
//! The page loads nothing from anywhere: its one script is in it, and the answer names that script's
//! digest, so that no other could run even if a text of the manifest were not escaped.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use envelope_format::{Digest, Field, Function, Manifest, Signature};
use http_body_util::Full;
use hyper::Response;
use hyper::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

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
         img-src data:; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
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
    let Signature { input, output } = &function.signature;
    format!(
        "<section><h2>{name}</h2><p class=doc>{doc}</p>\
         <div class=sides>{takes}{gives}</div>\
         <form action=\"predict/{path}\"><label>The body of a call\
         <textarea name=body rows=6 spellcheck=false autocomplete=off>{body}</textarea></label>\
         <button>Call {name}</button><div role=status></div></form>\
         <details><summary>With curl</summary><pre tabindex=0>{curl}</pre></details>\
         <details><summary>With Python</summary><pre tabindex=0>{python}</pre></details></section>",
        doc = escape(&function.doc),
        takes = table("takes", &input.fields),
        gives = table("gives", &output.fields),
        body = escape(example),
        curl = curl(&path, example),
        python = python(&path, example),
    )
}

fn table(caption: &str, fields: &[Field]) -> String {
    let row = |field: &Field| {
        let optional = if field.nullable { "may be null" } else { "" };
        let (name, data_type) = (escape(&field.name), escape(&field.data_type.to_string()));
        format!("<tr><td>{name}<td>{data_type}<td>{optional}")
    };
    let rows: String = fields.iter().map(row).collect();
    format!("<table><caption>{caption}</caption><tr><th>column<th>type<th>{rows}</table>")
}

/// Where the service is, as far as whoever reads the page is concerned: the script knows.
const HERE: &str = "<span class=here>http://127.0.0.1:8080</span>";

fn curl(path: &str, example: &str) -> String {
    // In single quotes a shell takes everything but a single quote as it is.
    let body = escape(&example.replace('\'', r"'\''"));
    format!("curl -s {HERE}/predict/{path} -H 'content-type: application/json' \\\n  -d '{body}'")
}

fn python(path: &str, example: &str) -> String {
    let body = literal(example).replace('\n', "\n    ");
    format!(
        "import requests\n\n\
         answer = requests.post(\n    \"{HERE}/predict/{path}\",\n    json={},\n)\n\
         answer.raise_for_status()\nprint(answer.json()[\"predictions\"])",
        escape(&body)
    )
}

/// JSON as Python writes it. Texts and numbers are Python already.
fn literal(mut json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    while let Some(begin) = json.find('"') {
        let (before, text) = json.split_at(begin);
        let (text, after) = text.split_at(text_length(text));
        out.push_str(&words(before));
        out.push_str(text);
        json = after;
    }
    out + &words(json)
}

/// The length of the text, quotes and all, that some JSON begins with.
fn text_length(json: &str) -> usize {
    // As if the first quote were escaped: it does not end the text.
    let mut is_escaped = true;
    for (at, byte) in json.bytes().enumerate() {
        if byte == b'"' && !is_escaped {
            return at + 1;
        }
        is_escaped = byte == b'\\' && !is_escaped;
    }
    json.len()
}

fn words(json: &str) -> String {
    json.replace("null", "None")
        .replace("true", "True")
        .replace("false", "False")
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
        let example = r#"{"data":[{"a\"null":null,"b\\":[true,false,-1.5e300,"é\n\\\"true"]}]}"#;
        let expected = r#"{"data":[{"a\"null":None,"b\\":[True,False,-1.5e300,"é\n\\\"true"]}]}"#;
        assert_eq!(literal(example), expected);
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
