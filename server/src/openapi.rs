//! The description of the service in `OpenAPI` 3.1, from the signatures and samples of the envelope.

use envelope_format::{DataType, Digest, Field, Function, Manifest, Rows};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

mod others;

/// The document that `GET /openapi.json` gives. `examples` has one body for each function, if there
/// is a sample.
pub(crate) fn document(manifest: &Manifest, digest: Digest, examples: &[Option<Value>]) -> Value {
    let mut paths = Map::new();
    for (index, (function, example)) in manifest.functions.iter().zip(examples).enumerate() {
        if index == 0 {
            paths.insert(
                "/predict".into(),
                path(function, "predict", example.as_ref()),
            );
        }
        let operation = format!("predict_{}", function.name);
        let name = in_path(&function.name);
        paths.insert(
            format!("/predict/{name}"),
            path(function, &operation, example.as_ref()),
        );
    }
    paths.extend(others::paths(manifest, examples));
    for (page, summary, media_type) in PAGES.into_iter().chain(others::PAGES) {
        paths.insert(page.into(), page_path(page, summary, media_type));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": manifest.name,
            "version": digest.short(),
            "description": manifest.description,
            "x-envelope-digest": digest,
            "x-envelope-tags": manifest.tags,
        },
        "paths": paths,
        "components": { "schemas": { "Problem": problem() } },
    })
}

/// A name within a path.
fn in_path(name: &str) -> String {
    let encoded = utf8_percent_encode(name, NON_ALPHANUMERIC).to_string();
    encoded.replace("%5F", "_")
}

const PAGES: [(&str, &str, &str); 4] = [
    ("/healthz", "The process lives", "application/json"),
    (
        "/readyz",
        "Calls may be sent; 503 while starting and draining",
        "application/json",
    ),
    (
        "/metrics",
        "Metrics in the OpenMetrics format, or in the one of Prometheus",
        "application/openmetrics-text",
    ),
    (
        "/envelope",
        "The envelope that is served: digest, name, tags, signatures",
        "application/json",
    ),
];

fn page_path(page: &str, summary: &str, media_type: &str) -> Value {
    let answer = json!({ "description": summary, "content": { media_type: {} } });
    let mut responses = json!({ "200": answer });
    if page == "/metrics" {
        responses["200"]["content"]["text/plain"] = json!({});
    }
    if page == "/readyz" || others::TELLS_READINESS.contains(&page) {
        responses["503"] = json!({ "description": "Not now", "content": { media_type: {} } });
    }
    let operation = page.trim_start_matches('/').replace(['/', '-'], "_");
    json!({ "get": { "operationId": operation, "summary": summary, "responses": responses } })
}

fn path(function: &Function, operation: &str, example: Option<&Value>) -> Value {
    let mut body = json!({ "schema": request(&function.signature.input) });
    if let Some(example) = example {
        body["example"] = example.clone();
    }
    let summary = function
        .doc
        .lines()
        .next()
        .filter(|line| !line.is_empty())
        .unwrap_or(&function.name);
    let mut responses = json!({
        "200": {
            "description": "One prediction for each row, or one for all rows where the function gives one",
            "content": with_tables(&json!({ "schema": response(&function.signature.output) })),
        },
    });
    for (status, description) in REFUSALS {
        responses[status] = json!({
            "description": description,
            "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
        });
    }
    let parameters: Vec<_> = function
        .parameters
        .iter()
        .map(ToString::to_string)
        .collect();
    let mut operation = json!({
        "post": {
            "operationId": operation,
            "summary": summary,
            "description": function.doc,
            "parameters": [{
                "name": "x-request-timeout",
                "in": "header",
                "description": "Seconds after which the caller no longer waits, like `2.5`",
                "schema": { "type": "string", "pattern": SECONDS },
            }],
            "requestBody": { "required": true, "content": with_tables(&body) },
            "responses": responses,
        }
    });
    if !parameters.is_empty() {
        operation["post"]["x-envelope-parameters"] = json!(function.parameters);
        operation["post"]["x-envelope-definition"] =
            json!(format!("{}({})", function.name, parameters.join(", ")));
    }
    operation
}

/// Above 0, and not as short as what `0.0001` says.
const SECONDS: &str = r"^([1-9]\d{0,4}(\.\d{1,3})?|0\.\d{0,2}[1-9])$";

/// What rows are as JSON, and that they may be in other forms, which a schema of JSON cannot describe.
fn with_tables(json: &Value) -> Value {
    let mut content = json!({ "application/json": json });
    for media_type in TABLES {
        content[media_type] = json!({});
    }
    content
}

const TABLES: [&str; 4] = [
    "application/jsonlines",
    "application/vnd.apache.arrow.stream",
    "application/vnd.apache.parquet",
    "text/csv",
];

const REFUSALS: [(&str, &str); 10] = [
    (
        "400",
        "The body is not what its media type says, or a header is wrong",
    ),
    ("404", "There is no such function"),
    ("405", "Only POST is answered here"),
    ("408", "The body did not arrive in time"),
    ("413", "The body is too long, or has too many rows"),
    ("415", "The body is in a form that is not read"),
    (
        "422",
        "The rows are not what the function takes; `errors` says which and why",
    ),
    ("500", "The function failed"),
    (
        "503",
        "Too many calls are in flight, or the worker died; try again",
    ),
    ("504", "The call did not end in time"),
];

fn request(input: &Rows) -> Value {
    let object = object(input, false);
    let row = match input.fields.as_slice() {
        // An object is the value itself where values are objects.
        [only] if input.shape.is_one_column() && matches!(only.data_type, DataType::Struct(_)) => {
            column(only, false)
        }
        [only] if input.shape.is_one_column() => json!({ "anyOf": [column(only, false), object] }),
        _ => object,
    };
    json!({
        "type": "object",
        "properties": { "data": { "type": "array", "items": row } },
        "required": ["data"],
        "additionalProperties": false,
    })
}

fn response(output: &Rows) -> Value {
    let row = match output.fields.as_slice() {
        [only] if output.shape.is_one_column() => column(only, true),
        _ => object(output, true),
    };
    json!({
        "type": "object",
        "properties": { "predictions": { "type": "array", "items": row } },
        "required": ["predictions"],
    })
}

fn object(rows: &Rows, output: bool) -> Value {
    let properties: Map<_, _> = rows
        .fields
        .iter()
        .map(|field| (field.name.clone(), column(field, output)))
        .collect();
    let required: Vec<_> = rows.fields.iter().map(|field| &field.name).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn column(field: &Field, output: bool) -> Value {
    let mut schema = value(&field.data_type);
    if let Some(categories) = &field.categories {
        schema["enum"] = json!(categories);
    }
    // NaN is written as null.
    let float = matches!(
        field.data_type,
        DataType::Float16 | DataType::Float32 | DataType::Float64
    );
    if field.nullable || (output && float) {
        nullable(schema)
    } else {
        schema
    }
}

fn nullable(mut schema: Value) -> Value {
    if schema["type"] != "null" && !schema["type"].is_array() {
        schema["type"] = json!([schema["type"], "null"]);
    }
    if let Some(values) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        values.push(Value::Null);
    }
    schema
}

fn value(data_type: &DataType) -> Value {
    let integer = |least: i128, greatest: i128| {
        // Each bound is an `i64` or a `u64`.
        let bound = |value: i128| {
            i64::try_from(value).map_or_else(|_| json!(value.unsigned_abs() as u64), |v| json!(v))
        };
        json!({ "type": "integer", "minimum": bound(least), "maximum": bound(greatest) })
    };
    match data_type {
        DataType::Null => json!({ "type": "null" }),
        DataType::Bool => json!({ "type": "boolean" }),
        DataType::Int8 => integer(i8::MIN.into(), i8::MAX.into()),
        DataType::Int16 => integer(i16::MIN.into(), i16::MAX.into()),
        DataType::Int32 => integer(i32::MIN.into(), i32::MAX.into()),
        DataType::Int64 => integer(i64::MIN.into(), i64::MAX.into()),
        DataType::UInt8 => integer(0, u8::MAX.into()),
        DataType::UInt16 => integer(0, u16::MAX.into()),
        DataType::UInt32 => integer(0, u32::MAX.into()),
        DataType::UInt64 => integer(0, u64::MAX.into()),
        DataType::Float16 => json!({ "type": "number", "minimum": -65504, "maximum": 65504 }),
        DataType::Float32 => json!({ "type": "number", "format": "float" }),
        DataType::Float64 => json!({ "type": "number", "format": "double" }),
        DataType::Utf8 => json!({ "type": "string" }),
        DataType::Binary => json!({ "type": "string", "contentEncoding": "base64" }),
        DataType::Date => json!({ "type": "string", "format": "date" }),
        DataType::Timestamp(_, Some(_)) => json!({ "type": "string", "format": "date-time" }),
        DataType::Timestamp(_, None) => json!({
            "type": "string",
            "description": "RFC 3339 without a time zone",
            "pattern": r"^(?!0000)\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?$",
        }),
        DataType::Duration(unit) => {
            json!({ "type": "integer", "description": format!("a time in {unit}") })
        }
        DataType::Time(_) => json!({
            "type": "string",
            "description": "a time of day without a time zone",
            "pattern": r"^([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?$",
        }),
        DataType::Decimal { precision, scale } => json!({
            "type": "string",
            "format": "decimal",
            "description": format!("exactly {precision} digits at most, {scale} of them after the point"),
            "pattern": r"^-?\d+(\.\d+)?$",
        }),
        DataType::List(item) => json!({ "type": "array", "items": nullable(value(item)) }),
        DataType::FixedList(item, length) => json!({
            "type": "array",
            "items": nullable(value(item)),
            "minItems": length,
            "maxItems": length,
        }),
        DataType::Struct(fields) => {
            let properties = fields
                .iter()
                .map(|(name, field)| (name.clone(), nullable(value(field))));
            let required: Vec<_> = fields.iter().map(|(name, _)| name).collect();
            json!({
                "type": "object",
                "properties": properties.collect::<Map<_, _>>(),
                "required": required,
                "additionalProperties": false,
            })
        }
    }
}

/// RFC 9457, with our extensions.
fn problem() -> Value {
    let text = json!({ "type": "string" });
    json!({
        "type": "object",
        "properties": {
            "type": text, "title": text, "status": { "type": "integer" }, "detail": text,
            "code": text, "hint": text, "request_id": text,
            "errors": { "type": "array", "items": {
                "type": "object",
                "properties": {
                    "code": text, "row": { "type": "integer", "minimum": 0 }, "column": text,
                    "expected": text, "got": text, "reason": text,
                },
                "required": ["code"],
            } },
        },
        "required": ["type", "title", "status", "detail", "code", "request_id"],
    })
}

#[cfg(test)]
mod tests {
    use envelope_format::{Parameter, Shape};

    use super::*;

    fn schema(data_type: &str) -> Value {
        value(&data_type.parse().unwrap())
    }

    #[test]
    fn nested_values_are_described_as_they_are_read() {
        let image = schema("list<list<uint8, 3>, 2>");
        assert_eq!(
            (&image["minItems"], &image["maxItems"]),
            (&json!(2), &json!(2))
        );
        assert_eq!(image["items"]["type"], json!(["array", "null"]));
        assert_eq!(image["items"]["maxItems"], json!(3));
        let user = schema(r#"struct<"age": int64, "born": date>"#);
        assert_eq!(user["required"], json!(["age", "born"]));
        assert_eq!(
            user["properties"]["born"]["type"],
            json!(["string", "null"])
        );
        assert_eq!(user["additionalProperties"], json!(false));
        assert_eq!(schema("decimal[10, 2]")["type"], json!("string"));
        assert_eq!(schema("time[us]")["type"], json!("string"));
    }

    #[test]
    fn a_row_of_objects_has_one_meaning() {
        let field = Field::new("v", r#"struct<"v": int64>"#.parse().unwrap(), false);
        let rows = Rows {
            shape: Shape::List,
            fields: vec![field],
        };
        let row = &request(&rows)["properties"]["data"]["items"];
        assert_eq!(row["properties"]["v"]["type"], json!(["integer", "null"]));
    }

    #[test]
    fn the_definition_is_shown() {
        let mut manifest = Manifest::example();
        let parameter = |name: &str, annotation: Option<&str>, default: Option<&str>| Parameter {
            name: name.into(),
            annotation: annotation.map(Into::into),
            default: default.map(Into::into),
        };
        manifest.functions[0].parameters = vec![
            parameter("x", Some("pd.Series"), None),
            parameter("limit", None, Some("10")),
        ];
        let operation = path(&manifest.functions[0], "predict", None);
        assert_eq!(
            operation["post"]["x-envelope-definition"],
            json!("double(x: pd.Series, limit=10)")
        );
        assert_eq!(
            operation["post"]["x-envelope-parameters"][0],
            json!({ "name": "x", "annotation": "pd.Series" })
        );
    }
}
