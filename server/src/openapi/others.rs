//! The paths of other protocols, as far as a schema can say what their clients send.

use envelope_format::{Function, Manifest, Rows};
use serde_json::{Map, Value, json};

use super::{column, in_path, object};

/// What clients of other protocols read.
pub(super) const PAGES: [(&str, &str, &str); 9] = [
    (
        "/ping",
        "Whether calls may be sent, for MLflow and SageMaker",
        JSON,
    ),
    ("/health", "As `/ping`", JSON),
    ("/version", "The version of this service, for MLflow", JSON),
    (
        "/execution-parameters",
        "How SageMaker may call in batches",
        JSON,
    ),
    ("/v1/models", "The functions, for KServe", JSON),
    ("/v2", "The server, in the Open Inference Protocol", JSON),
    ("/v2/health/live", "As `/healthz`", JSON),
    ("/v2/health/ready", "As `/readyz`", JSON),
    (
        "/v2/models",
        "The functions, in the Open Inference Protocol",
        JSON,
    ),
];

/// The pages that answer 503 while calls should not be sent.
pub(super) const TELLS_READINESS: [&str; 3] = ["/ping", "/health", "/v2/health/ready"];

const JSON: &str = "application/json";

/// The calls of other protocols. `examples` has a body of the native one for each function, if there is a sample.
pub(super) fn paths(manifest: &Manifest, examples: &[Option<Value>]) -> Map<String, Value> {
    let mut paths = Map::new();
    for (function, example) in manifest.functions.iter().zip(examples) {
        let rows = example.as_ref().map(|example| example["data"].clone());
        let name = in_path(&function.name);
        if paths.is_empty() {
            paths.insert("/invocations".into(), invocations(function, rows.as_ref()));
        }
        let path = format!("/v1/models/{name}:predict");
        paths.insert(path, instances(function, rows.as_ref()));
        paths.insert(format!("/v2/models/{name}/infer"), infer(function));
        paths.insert(format!("/v2/models/{name}"), described(function));
    }
    paths
}

fn invocations(function: &Function, rows: Option<&Value>) -> Value {
    let takes = &function.signature.input;
    let under = |key: &str| {
        json!({
            "type": "object",
            "properties": { key: list(takes) },
            "required": [key],
            "additionalProperties": false,
        })
    };
    let mut body = json!({ "schema": { "anyOf": [
        under("dataframe_records"),
        under("instances"),
        under("inputs"),
        split(takes),
    ] } });
    if let Some(rows) = rows {
        body["example"] = json!({ "dataframe_records": rows });
    }
    call(&Call {
        operation: "invocations".into(),
        summary: "A call as MLflow's and SageMaker's clients make it",
        body,
        answer: json!({
            "type": "object",
            "properties": { "predictions": { "type": "array" } },
            "required": ["predictions"],
        }),
        problem: ["error_code", "message"].as_slice(),
    })
}

fn instances(function: &Function, rows: Option<&Value>) -> Value {
    let mut body = json!({ "schema": {
        "type": "object",
        "properties": { "instances": list(&function.signature.input) },
        "required": ["instances"],
    } });
    if let Some(rows) = rows {
        body["example"] = json!({ "instances": rows });
    }
    call(&Call {
        operation: format!("v1_predict_{}", function.name),
        summary: "A call as KServe's first protocol and Vertex AI have it",
        body,
        answer: super::response(&function.signature.output),
        problem: &["error"],
    })
}

fn infer(function: &Function) -> Value {
    let named = json!({ "type": "array", "items": {
        "type": "object",
        "properties": { "name": { "type": "string" } },
        "required": ["name"],
    } });
    let tensors = json!({ "type": "array", "items": {
        "type": "object",
        "properties": {
            "name": { "type": "string" },
            "datatype": { "type": "string" },
            "shape": { "type": "array", "items": { "type": "integer", "minimum": 0 } },
            "data": { "type": "array" },
            "parameters": { "type": "object" },
        },
        "required": ["name", "datatype", "shape"],
    } });
    let body = json!({
        "schema": {
            "type": "object",
            "properties": {
                "id": { "type": "string" },
                "inputs": tensors,
                "outputs": named,
                "parameters": { "type": "object" },
            },
            "required": ["inputs"],
        },
    });
    let answer = json!({
        "type": "object",
        "properties": {
            "model_name": { "type": "string" },
            "id": { "type": "string" },
            "outputs": tensors,
        },
        "required": ["model_name", "outputs"],
    });
    call(&Call {
        operation: format!("v2_infer_{}", function.name),
        summary: "A call in the Open Inference Protocol; which tensors, its description says",
        body,
        answer,
        problem: &["error"],
    })
}

fn described(function: &Function) -> Value {
    let summary = "The tensors that the function takes and gives";
    let answer = json!({ "description": summary, "content": { JSON: {} } });
    json!({ "get": {
        "operationId": format!("v2_model_{}", function.name),
        "summary": summary,
        "responses": { "200": answer, "503": { "description": "Not now", "content": { JSON: {} } } },
    } })
}

/// A path that is called.
struct Call {
    operation: String,
    summary: &'static str,
    body: Value,
    answer: Value,
    /// The keys of what is told when a call fails.
    problem: &'static [&'static str],
}

fn call(call: &Call) -> Value {
    let keys: Map<_, _> = call
        .problem
        .iter()
        .map(|key| ((*key).to_owned(), json!({ "type": "string" })))
        .collect();
    let problem = json!({
        "description": "What is wrong",
        "content": { JSON: { "schema": {
            "type": "object",
            "properties": keys,
            "required": call.problem,
        } }, "text/plain": {} },
    });
    json!({ "post": {
        "operationId": call.operation,
        "summary": call.summary,
        "requestBody": { "required": true, "content": { JSON: call.body } },
        "responses": {
            "200": {
                "description": "The answer",
                "content": { JSON: { "schema": call.answer } },
            },
            "4XX": problem,
            "5XX": problem,
        },
    } })
}

/// Rows as these protocols have them: objects in which there may be more than the function takes, or,
/// where it takes one column, its values.
fn list(takes: &Rows) -> Value {
    let mut row = object(takes, false);
    row["additionalProperties"] = json!(true);
    if let ([only], true) = (takes.fields.as_slice(), takes.shape.is_one_column()) {
        row = column(only, false);
    }
    json!({ "type": "array", "items": row })
}

/// The columns by name, and rows in the same order.
fn split(takes: &Rows) -> Value {
    let names: Vec<_> = takes.fields.iter().map(|field| &field.name).collect();
    let values: Vec<_> = takes
        .fields
        .iter()
        .map(|field| column(field, false))
        .collect();
    let count = values.len();
    json!({
        "type": "object",
        "properties": { "dataframe_split": {
            "type": "object",
            "properties": {
                "columns": { "const": names },
                "index": { "type": "array" },
                "data": { "type": "array", "items": {
                    "type": "array",
                    "prefixItems": values,
                    "minItems": count,
                    "maxItems": count,
                } },
            },
            "required": ["columns", "data"],
            "additionalProperties": false,
        } },
        "required": ["dataframe_split"],
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_protocol_has_its_paths_and_its_problems() {
        let manifest = Manifest::example();
        let examples = [Some(json!({ "data": [1.5] }))];
        let paths = paths(&manifest, &examples);
        let known: Vec<_> = paths.keys().map(String::as_str).collect();
        let expected = [
            "/invocations",
            "/v1/models/double:predict",
            "/v2/models/double",
            "/v2/models/double/infer",
        ];
        assert_eq!(known, expected);
        let body = |path: &str| paths[path]["post"]["requestBody"]["content"][JSON].clone();
        assert_eq!(
            body("/v1/models/double:predict")["example"],
            json!({ "instances": [1.5] })
        );
        let problem = &paths["/invocations"]["post"]["responses"]["4XX"]["content"][JSON]["schema"];
        assert_eq!(problem["required"], json!(["error_code", "message"]));
    }
}
