//! Others' protocols over real sockets: what their clients send is read exactly, and what they read is
//! sent.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::builder::StringViewBuilder;
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{
    Array as _, ArrayRef, BooleanArray, Decimal128Array, DictionaryArray, Float64Array, Int8Array,
    Int32Array, Int64Array, RecordBatch, RunArray, StringArray, StructArray,
};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use async_trait::async_trait;
use envelope_format::{DataType, Digest, Field, Manifest, Rows, Shape};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use runtime::{Error, Usage};
use serde_json::{Value, json};
use server::{Calls, Coercion, Components, Settings};
use support::Service;

/// Gives back what it gets.
#[derive(Debug)]
struct Identity;

#[async_trait]
impl Calls for Identity {
    async fn call(
        &self,
        _function: &str,
        rows: RecordBatch,
        _deadline: Duration,
    ) -> Result<RecordBatch, Error> {
        Ok(rows)
    }

    fn most_workers(&self) -> usize {
        1
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }

    async fn shutdown(&self, _grace: Duration) {}
}

fn fields() -> Vec<Field> {
    vec![
        Field::new("n", DataType::Int64, false),
        Field::new("x", DataType::Float64, false),
        Field::new("flag", DataType::Bool, false),
        Field::new("text", DataType::Utf8, true),
    ]
}

fn service(shape: Shape, fields: Vec<Field>) -> Service {
    service_with(Settings::default(), shape, fields)
}

fn service_with(settings: Settings, shape: Shape, fields: Vec<Field>) -> Service {
    let mut manifest = Manifest::example();
    let rows = Rows { shape, fields };
    manifest.name = "same".into();
    manifest.functions[0].name = "identity".into();
    manifest.functions[0].signature.input = rows.clone();
    manifest.functions[0].signature.output = rows;
    let components = Components {
        manifest,
        digest: Digest::of(b"identity"),
        samples: vec![None],
        calls: Arc::new(Identity),
    };
    Service::of(settings, components)
}

fn frames() -> Service {
    service(Shape::PandasDataFrame, fields())
}

/// An answer, whose body may be anything.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let pairs = self.head.lines().filter_map(|line| line.split_once(": "));
        { pairs }
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }
}

/// Sends a request that says that it is the last, and reads to the end.
fn exchange(service: &Service, request: &[u8]) -> Answer {
    let mut stream = service.connect();
    stream.write_all(request).unwrap();
    let mut read = vec![];
    stream.read_to_end(&mut read).unwrap();
    let end = read
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    let head = String::from_utf8(read[..end].to_vec()).unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head,
        body: read[end + 4..].to_vec(),
    }
}

fn get(service: &Service, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    exchange(service, request.as_bytes())
}

fn post(service: &Service, path: &str, media: &str, body: &[u8]) -> Answer {
    post_with(service, path, &[("content-type", media)], body)
}

fn post_with(service: &Service, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    exchange(service, &[head.as_bytes(), body].concat())
}

fn document(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

const ROW: &str = r#"{"n": 9223372036854775807, "x": 0.5, "flag": true, "text": "é"}"#;

fn row() -> Value {
    serde_json::from_str(ROW).unwrap()
}

// === MLflow, SageMaker

#[test]
fn all_layouts_of_invocations_are_the_same_rows() {
    let service = frames();
    let records = format!(r#"[{ROW}]"#);
    let split = r#"{"index": [0], "columns": ["x", "more", "n", "text", "flag"],
        "data": [[0.5, {"a": 1}, 9223372036854775807, "é", true]]}"#;
    let late = r#"{"data": [[0.5, 9223372036854775807, "é", true]], "columns": ["x", "n", "text", "flag"]}"#;
    let columns = r#"{"x": [0.5], "n": [9223372036854775807], "flag": [true], "text": ["é"]}"#;
    let single = r#"{"x": 0.5, "n": 9223372036854775807, "flag": true, "text": "é"}"#;
    let bodies = [
        format!(r#"{{"dataframe_records": {records}, "params": {{"k": 1}}}}"#),
        format!(r#"{{"dataframe_split": {split}}}"#),
        format!(r#"{{"dataframe_split": {late}}}"#),
        format!(r#"{{"instances": {records}}}"#),
        r#"{"instances": [[9223372036854775807, 0.5, true, "é"]]}"#.to_owned(),
        format!(r#"{{"inputs": {columns}}}"#),
        format!(r#"{{"inputs": {single}}}"#),
        format!(r#"{{"inputs": {records}}}"#),
    ];
    for body in bodies {
        let answer = post(
            &service,
            "/invocations",
            "application/json",
            body.as_bytes(),
        );
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
        assert_eq!(document(&answer), json!({"predictions": [row()]}), "{body}");
    }
}

#[test]
fn literals_that_json_lacks_are_read_where_clients_write_them_and_never_written() {
    let service = frames();
    let body = br#"{"dataframe_records": [
        {"n": 1, "x": NaN, "flag": true, "text": "NaN"}, {"n": 2, "x": -Infinity, "flag": false}]}"#;
    let answer = post(&service, "/invocations", "application/json", body);
    let rows = json!([
        {"n": 1, "x": null, "flag": true, "text": "NaN"},
        {"n": 2, "x": null, "flag": false, "text": null},
    ]);
    assert_eq!(
        document(&answer),
        json!({"predictions": rows}),
        "{answer:?}"
    );
    let strict = format!(r#"{{"data": [{}]}}"#, ROW.replace("0.5", "NaN"));
    let answer = post(&service, "/predict", "application/json", strict.as_bytes());
    assert_eq!(answer.status, 400);
}

#[test]
fn what_is_wrong_is_said_as_each_protocol_says_it() {
    let service = frames();
    let bad = r#"[{"n": 1.5, "x": 1, "flag": true}]"#;
    let ask = |path: &str, key: &str| {
        let body = format!(r#"{{"{key}": {bad}}}"#);
        let answer = post(&service, path, "application/json", body.as_bytes());
        (answer.status, document(&answer))
    };
    let (status, body) = ask("/invocations", "dataframe_records");
    assert_eq!((status, &body["error_code"]), (400, &json!("BAD_REQUEST")));
    let told = "row 0, column `n`: wrong type, expected int64, got 1.5";
    assert!(body["message"].as_str().unwrap().contains(told), "{body}");
    let (status, body) = ask("/v1/models/same:predict", "instances");
    assert_eq!(status, 400);
    assert!(body["error"].as_str().unwrap().contains(told), "{body}");
    let (status, body) = ask("/v2/models/same/infer", "inputs");
    assert_eq!(status, 400);
    assert!(body["error"].is_string(), "{body}");
    let missing = post(
        &service,
        "/invocations",
        "application/json",
        br#"{"dataframe_records": [{"n": 1}]}"#,
    );
    assert!(
        document(&missing)["message"]
            .as_str()
            .unwrap()
            .contains("column `x`: missing column")
    );
    let none = post(
        &service,
        "/v2/models/other/infer",
        "application/json",
        b"{}",
    );
    assert_eq!(none.status, 404);
    assert!(document(&none)["error"].is_string());
    let pickled = post(&service, "/invocations", "application/x-pickle", b"");
    assert_eq!(pickled.status, 415);
    let media = pickled.header("content-type");
    assert_eq!(media, Some("text/plain; charset=utf-8"));
}

#[test]
fn values_are_changed_in_the_protocol_of_the_server_whose_place_is_taken_and_in_no_other() {
    let settings = Settings {
        coercion: Some(Coercion::Mlflow),
        ..Settings::default()
    };
    let coercing = service_with(settings, Shape::PandasDataFrame, fields());
    let row = r#"{"n": 1.5, "x": "1e3", "flag": "false", "text": "a"}"#;
    let invoked = format!(r#"{{"dataframe_records": [{row}]}}"#);
    for path in ["/invocations", "/endpoints/any/invocations"] {
        let answer = post(&coercing, path, "application/json", invoked.as_bytes());
        let expected = json!({"n": 1, "x": 1000.0, "flag": true, "text": "a"});
        assert_eq!(
            document(&answer)["predictions"],
            json!([expected]),
            "{path}"
        );
    }
    let lines = post(
        &coercing,
        "/invocations",
        "application/jsonlines",
        row.as_bytes(),
    );
    assert_eq!(lines.status, 200);
    for (path, key) in [
        ("/predict", "data"),
        ("/v1/models/same:predict", "instances"),
    ] {
        let body = format!(r#"{{"{key}": [{row}]}}"#);
        let answer = post(&coercing, path, "application/json", body.as_bytes());
        assert!([400, 422].contains(&answer.status), "{path}");
    }
    let strict = post(
        &frames(),
        "/invocations",
        "application/json",
        invoked.as_bytes(),
    );
    assert_eq!(strict.status, 400);
}

#[test]
fn a_series_is_a_table_of_one_column_without_a_name() {
    let field = vec![Field::new("prediction", DataType::Float64, true)];
    let service = service(Shape::PandasSeries, field);
    let body = br#"{"inputs": [1.5, null]}"#;
    let answer = post(&service, "/invocations", "application/json", body);
    let rows = json!([{"0": 1.5}, {"0": null}]);
    assert_eq!(document(&answer), json!({"predictions": rows}));
}

#[test]
fn lines_are_answered_line_by_line() {
    let service = frames();
    let body = format!("{ROW}\n\n{}\n", ROW.replace("0.5", "1"));
    for path in ["/invocations", "/endpoints/any/invocations", "/predict"] {
        let answer = post(&service, path, "application/jsonlines", body.as_bytes());
        let text = String::from_utf8(answer.body).unwrap();
        assert_eq!(text.lines().count(), 2, "{path}: {text}");
        assert_eq!(
            serde_json::from_str::<Value>(text.lines().next().unwrap()).unwrap(),
            row()
        );
    }
}

#[test]
fn csv_is_read_with_and_without_names_and_written_on_request() {
    let service = frames();
    let named = "text,flag,n,x\n\"a, \"\"b\"\"\",true,-9223372036854775808,1e3\n";
    let bare = "-9223372036854775808,1000,True,\"a, \"\"b\"\"\"\n";
    for body in [named, bare] {
        let headers = [("content-type", "text/csv"), ("accept", "text/csv")];
        let answer = post_with(&service, "/invocations", &headers, body.as_bytes());
        let text = String::from_utf8(answer.body).unwrap();
        assert_eq!(text, "-9223372036854775808,1000.0,true,\"a, \"\"b\"\"\"\n");
    }
    let native = post(&service, "/predict", "text/csv", named.as_bytes());
    assert_eq!(document(&native)["predictions"][0]["n"], json!(i64::MIN));
    let bad = post(&service, "/predict", "text/csv", b"n,x,flag\n1,nope,true\n");
    assert_eq!(bad.status, 422);
    assert!(
        document(&bad)["detail"]
            .as_str()
            .unwrap()
            .contains("row 0, column `x`")
    );
}

#[test]
fn sagemaker_is_told_what_it_asks() {
    let service = frames();
    assert_eq!(get(&service, "/ping").status, 200);
    let parameters = document(&get(&service, "/execution-parameters"));
    assert_eq!(parameters["BatchStrategy"], "MULTI_RECORD");
    assert_eq!(parameters["MaxConcurrentTransforms"], 1);
}

// === Arrow

fn arrow_rows() -> RecordBatch {
    let columns: [(&str, ArrayRef); 5] = [
        ("text", Arc::new(StringArray::from(vec![None, Some("b")]))),
        ("more", Arc::new(Int64Array::from(vec![1, 2]))),
        ("n", Arc::new(Int32Array::from(vec![1, -2]))),
        ("x", Arc::new(Float64Array::from(vec![f64::NAN, 2.5]))),
        ("flag", Arc::new(BooleanArray::from(vec![true, false]))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn stream(rows: &RecordBatch) -> Vec<u8> {
    let mut body = vec![];
    let mut writer = StreamWriter::try_new(&mut body, &rows.schema()).unwrap();
    writer.write(rows).unwrap();
    writer.finish().unwrap();
    body
}

const ARROW: &str = "application/vnd.apache.arrow.stream";

#[test]
fn arrow_streams_keep_nan_and_null_apart() {
    let service = frames();
    let answer = post(&service, "/predict", ARROW, &stream(&arrow_rows()));
    let mut reader = StreamReader::try_new(answer.body.as_slice(), None).unwrap();
    let rows = reader.next().unwrap().unwrap();
    assert_eq!(rows.num_columns(), 4, "what is not known is passed over");
    let x = rows
        .column_by_name("x")
        .unwrap()
        .as_primitive::<Float64Type>();
    assert!(x.value(0).is_nan() && !x.is_null(0));
    let n = rows
        .column_by_name("n")
        .unwrap()
        .as_primitive::<Int64Type>();
    assert_eq!(n.values(), &[1, -2]);
    assert!(rows.column_by_name("text").unwrap().is_null(0));
}

#[test]
fn arrow_that_is_cut_changed_or_of_other_types_is_refused() {
    let service = frames();
    let good = stream(&arrow_rows());
    for length in [0, 1, 8, 100, good.len() / 2] {
        let answer = post(&service, "/predict", ARROW, &good[..length]);
        assert_eq!(answer.status, 400, "{length} bytes");
    }
    for place in (0..good.len()).step_by(7) {
        let mut changed = good.clone();
        changed[place] ^= 0x41;
        let answer = post(&service, "/predict", ARROW, &changed);
        assert!(
            [200, 400, 422].contains(&answer.status),
            "byte {place}: {answer:?}"
        );
    }
    let n: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
    let floats = RecordBatch::try_from_iter([("n", n)]).unwrap();
    let answer = post(&service, "/predict", ARROW, &stream(&floats));
    assert_eq!(answer.status, 422);
    let told = document(&answer)["detail"].to_string();
    assert!(
        told.contains("column `n`: wrong type, expected int64, got Float64"),
        "{told}"
    );
}

// === tensors

fn infer(service: &Service, body: &Value) -> (u16, Value) {
    let body = serde_json::to_vec(body).unwrap();
    let answer = post_with(service, "/v2/models/same/infer", &[], &body);
    (answer.status, document(&answer))
}

#[test]
fn tensors_become_columns_and_columns_tensors() {
    let service = frames();
    let (status, answer) = infer(
        &service,
        &json!({"id": "a\u{e9}", "inputs": [
            {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["é", null]},
            {"name": "n", "datatype": "INT64", "shape": [2, 1], "data": [[i64::MAX], [1.0]]},
            {"name": "x", "datatype": "FP32", "shape": [2], "data": [null, 2]},
            {"name": "flag", "datatype": "BOOL", "shape": [2], "data": [true, false]},
        ]}),
    );
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["id"], "a\u{e9}");
    assert_eq!(
        answer["outputs"],
        json!([
            {"name": "n", "datatype": "INT64", "shape": [2], "data": [i64::MAX, 1]},
            {"name": "x", "datatype": "FP64", "shape": [2], "data": [null, 2.0]},
            {"name": "flag", "datatype": "BOOL", "shape": [2], "data": [true, false]},
            {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["é", null]},
        ])
    );
}

#[test]
fn lists_of_text_are_tensors_and_a_document_may_say_that_it_is_bytes() {
    let words = DataType::FixedList(Box::new(DataType::Utf8), 2);
    let service = service(Shape::PyarrowTable, vec![Field::new("words", words, false)]);
    let data = json!([["a", "é"], ["", "b"]]);
    let tensor = json!({"name": "words", "datatype": "BYTES", "shape": [2, 2], "data": data});
    let body = serde_json::to_vec(&json!({ "inputs": [tensor] })).unwrap();
    let path = "/v2/models/same/infer";
    let answer = post(&service, path, "application/octet-stream", &body);
    assert_eq!(answer.status, 200);
    let given = &document(&answer)["outputs"][0];
    assert_eq!(given["shape"], json!([2, 2]));
    assert_eq!(given["data"], json!(["a", "é", "", "b"]));
}

#[test]
fn outputs_are_those_that_were_asked_for_in_their_order() {
    let field = |name| Field::new(name, DataType::Float64, false);
    let service = service(Shape::PandasDataFrame, vec![field("a"), field("b")]);
    let tensor = |name| json!({"name": name, "datatype": "FP64", "shape": [1], "data": [1.5]});
    let inputs = json!([tensor("a"), tensor("b")]);
    let (_, answer) = infer(
        &service,
        &json!({"inputs": inputs, "outputs": [{"name": "b"}]}),
    );
    assert_eq!(answer["outputs"], json!([tensor("b")]));
    let (status, answer) = infer(
        &service,
        &json!({"inputs": inputs, "outputs": [{"name": "c"}]}),
    );
    assert_eq!(status, 400);
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .contains("there is no output `c`")
    );
}

#[test]
fn a_matrix_is_one_tensor() {
    let fields = (0..3).map(|index| Field::new(format!("x{index}"), DataType::Float32, false));
    let service = service(Shape::NumpyMatrix, fields.collect());
    let input = json!({"name": "input", "datatype": "FP32", "shape": [2, 3], "data": [[1, 2, 3], [4, 5, 6]]});
    let (status, answer) = infer(&service, &json!({"inputs": [input]}));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        answer["outputs"],
        json!([{"name": "output", "datatype": "FP32", "shape": [2, 3], "data": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}])
    );
    let told = document(&get(&service, "/v2/models/same"));
    assert_eq!(
        told["inputs"],
        json!([{"name": "input", "datatype": "FP32", "shape": [-1, 3]}])
    );
}

#[test]
fn tensors_as_bytes_come_back_as_bytes() {
    let service = frames();
    let texts = [&3_u32.to_le_bytes()[..], b"a\xc3\xa9", &0_u32.to_le_bytes()].concat();
    let bytes = [
        [1_i64.to_le_bytes(), i64::MIN.to_le_bytes()].concat(),
        [f64::NAN.to_le_bytes(), 2_f64.to_le_bytes()].concat(),
        vec![1, 0],
        texts,
    ];
    let described = [
        ("n", "INT64"),
        ("x", "FP64"),
        ("flag", "BOOL"),
        ("text", "BYTES"),
    ];
    let inputs: Vec<_> = described
        .iter()
        .zip(&bytes)
        .map(|((name, datatype), bytes)| {
            json!({"name": name, "datatype": datatype, "shape": [2],
                   "parameters": {"binary_data_size": bytes.len()}})
        })
        .collect();
    let document = json!({"inputs": inputs, "parameters": {"binary_data_output": true}});
    let document = serde_json::to_vec(&document).unwrap();
    let length = document.len().to_string();
    let headers = [("inference-header-content-length", &*length)];
    let body = [document, bytes.concat()].concat();
    let answer = post_with(&service, "/v2/models/same/infer", &headers, &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    let length = answer.header("inference-header-content-length").unwrap();
    let (_, tensors) = answer.body.split_at(length.parse().unwrap());
    assert_eq!(tensors, bytes.concat());
    for cut in [body.len() - 1, body.len() - 20, 10] {
        let answer = post_with(&service, "/v2/models/same/infer", &headers, &body[..cut]);
        assert_eq!(answer.status, 400, "{cut} bytes");
    }
}

#[test]
fn tensors_that_do_not_fit_are_refused_with_the_reason() {
    let service = frames();
    let tensor = |datatype: &str, shape: Value, data: Value| json!({"inputs": [{"name": "n", "datatype": datatype, "shape": shape, "data": data}]});
    for (body, told) in [
        (tensor("INT64", json!([2]), json!([1])), "it has 1 values"),
        (
            tensor("INT64", json!([1]), json!([1.5])),
            "1.5 is not one of INT64",
        ),
        (
            tensor("INT8", json!([1]), json!([128])),
            "128 is not one of INT8",
        ),
        (
            tensor("INT64", json!([1]), json!(["a"])),
            "is not one of INT64",
        ),
        (
            tensor("FP64", json!([1]), json!([1.0])),
            "column `n`: wrong type",
        ),
        (
            tensor(
                "INT64",
                json!([4_294_967_296_u64, 4_294_967_296_u64]),
                json!([]),
            ),
            "too large",
        ),
        (
            tensor("INT64", json!([1, 2]), json!([1, 2])),
            "has the shape",
        ),
        (tensor("INT65", json!([1]), json!([1])), "INT65"),
        (
            json!({"inputs": [{"name": "z", "datatype": "INT64", "shape": [1], "data": [1]}]}),
            "there is no input `z`",
        ),
        (json!({"inputs": []}), "missing column"),
        (json!({}), "inputs"),
    ] {
        let (status, answer) = infer(&service, &body);
        assert_eq!(status, 400, "{body}");
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(told), "{body}: {error}");
    }
}

#[test]
fn a_server_of_tensors_tells_of_itself() {
    let service = frames();
    let get = |path: &str| {
        let answer = get(&service, path);
        (answer.status, document(&answer))
    };
    assert_eq!(get("/v2/health/live"), (200, json!({"live": true})));
    assert_eq!(
        get("/v2/health/ready"),
        (200, json!({"ready": true, "live": true}))
    );
    assert_eq!(get("/v2").1["extensions"], json!(["binary_tensor_data"]));
    assert_eq!(get("/v2/models").1, json!({"models": ["identity"]}));
    assert_eq!(get("/v2/models/identity/versions/1/ready").0, 200);
    assert_eq!(get("/v2/models/identity/versions/2/ready").0, 404);
    assert_eq!(
        get("/v1/models/same"),
        (200, json!({"name": "identity", "ready": true}))
    );
    let index = post_with(&service, "/v2/repository/index", &[], b"{}");
    assert_eq!(document(&index)[0]["state"], "READY");
}

#[test]
fn a_text_that_is_missing_comes_in_json_where_bytes_were_asked_for() {
    let text = Field::new("text", DataType::Utf8, true);
    let number = Field::new("n", DataType::Int64, false);
    let service = service(Shape::PandasDataFrame, vec![text, number]);
    let body = json!({
        "parameters": {"binary_data_output": true},
        "inputs": [
            {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a", null], "parameters": null},
            {"name": "n", "datatype": "INT64", "shape": [2], "data": [1, 2]},
        ],
    });
    let body = body.to_string();
    let answer = post_with(&service, "/v2/models/same/infer", &[], body.as_bytes());
    let length = answer.header("inference-header-content-length").unwrap();
    let (head, bytes) = answer.body.split_at(length.parse().unwrap());
    let head: Value = serde_json::from_slice(head).unwrap();
    assert_eq!(head["outputs"][0]["data"], json!(["a", null]));
    assert_eq!(head["outputs"][1]["parameters"]["binary_data_size"], 16);
    assert_eq!(bytes, [1_i64.to_le_bytes(), 2_i64.to_le_bytes()].concat());
}

#[test]
fn an_input_that_is_there_twice_is_refused() {
    let service = service(Shape::PandasDataFrame, vec![fields().remove(0)]);
    let input = json!({"name": "n", "datatype": "INT64", "shape": [1], "data": [1]});
    let (status, answer) = infer(&service, &json!({"inputs": [input, input]}));
    assert_eq!(status, 400);
    assert_eq!(
        answer["error"]
            .as_str()
            .map(|error| error.contains("`n` is there twice")),
        Some(true)
    );
}

#[test]
fn lists_are_tensors_with_a_dimension_more() {
    let lists = DataType::List(Box::new(DataType::Float32));
    let service = service(Shape::PandasDataFrame, vec![Field::new("v", lists, false)]);
    let values = [1.5_f32, -0.0, 3.25, 4.0, 5.0, 6.0]
        .map(f32::to_le_bytes)
        .concat();
    let document = json!({"inputs": [{
        "name": "v", "datatype": "FP32", "shape": [2, 3], "parameters": {"binary_data_size": 24},
    }], "outputs": [{"name": "v", "parameters": {"binary_data": true}}]});
    let document = document.to_string();
    let length = document.len().to_string();
    let headers = [("inference-header-content-length", length.as_str())];
    let body = [document.as_bytes(), &values].concat();
    let answer = post_with(&service, "/v2/models/same/infer", &headers, &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.ends_with(&values));
    let head = &answer.body[..answer.body.len() - values.len()];
    let head: Value = serde_json::from_slice(head).unwrap();
    assert_eq!(head["outputs"][0]["shape"], json!([2, 3]));
    assert_eq!(head["outputs"][0]["datatype"], "FP32");
}

// === Parquet

fn parquet(rows: &RecordBatch) -> Vec<u8> {
    let mut body = vec![];
    // Without a note that says which types of Arrow the columns had.
    let options = ArrowWriterOptions::new().with_skip_arrow_metadata(true);
    let writer = ArrowWriter::try_new_with_options(&mut body, rows.schema(), options);
    let mut writer = writer.unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
    body
}

const PARQUET: &str = "application/vnd.apache.parquet";

#[test]
fn parquet_is_read_and_written() {
    let service = frames();
    let headers = [
        ("content-type", PARQUET),
        ("accept", "application/jsonlines"),
    ];
    let body = parquet(&arrow_rows());
    let answer = post_with(&service, "/invocations", &headers, &body);
    let text = String::from_utf8(answer.body).unwrap();
    let second = r#"{"n":-2,"x":2.5,"flag":false,"text":"b"}"#;
    assert_eq!(text.lines().nth(1), Some(second));
    let headers = [("content-type", PARQUET), ("accept", PARQUET)];
    let answer = post_with(&service, "/predict", &headers, &body);
    let again = post(&service, "/predict", PARQUET, &answer.body);
    assert_eq!(document(&again)["predictions"][1]["n"], -2);
}

#[test]
fn parquet_that_is_cut_or_changed_is_refused() {
    let service = frames();
    let good = parquet(&arrow_rows());
    for length in [0, 4, 12, good.len() / 2, good.len() - 1] {
        let answer = post(&service, "/predict", PARQUET, &good[..length]);
        assert_eq!(answer.status, 400, "{length} bytes");
    }
    for place in (0..good.len()).step_by(5) {
        let mut changed = good.clone();
        changed[place] ^= 0x41;
        let answer = post(&service, "/predict", PARQUET, &changed);
        let is_told = [200, 400, 413, 422].contains(&answer.status);
        assert!(is_told, "byte {place}: {answer:?}");
    }
}

#[test]
fn a_small_file_that_says_a_long_text_often_is_refused() {
    let taking = |field| service(Shape::PandasDataFrame, vec![field]);
    let text = Field::new("text", DataType::Utf8, false);
    let long = "x".repeat(100 << 10);
    let keys = Int32Array::from(vec![0; 6000]);
    let texts = Arc::new(StringArray::from(vec![long.as_str()]));
    let texts: ArrayRef = Arc::new(DictionaryArray::new(keys, texts));
    let body = parquet(&RecordBatch::try_from_iter([("text", texts)]).unwrap());
    assert!(body.len() < 1 << 20, "{} bytes", body.len());
    let answer = post(&taking(text), "/predict", PARQUET, &body);
    assert_eq!(answer.status, 413);
    assert_eq!(document(&answer)["code"], "unpacks_too_large");
    // Where the function does not take the column, it is not unpacked.
    let answer = post(&taking(fields().remove(0)), "/predict", PARQUET, &body);
    assert_eq!(answer.status, 422);
}

/// The header of the first page of a file, which claims to unpack to 2 GiB, and gives what it needs for
/// that from the end of the page.
fn with_a_false_size(mut file: Vec<u8>) -> Vec<u8> {
    let varint_end = |file: &[u8], start: usize| {
        let length = file[start..].iter().position(|byte| byte & 0x80 == 0);
        start + length.unwrap() + 1
    };
    // After the magic: the kind of page, its size unpacked, and its size.
    assert_eq!((file[4], file[6]), (0x15, 0x15));
    let (unpacked, sized) = (7, varint_end(&file, 7) + 1);
    let end = varint_end(&file, sized);
    let bits = file[sized..end].iter().rev();
    let size = bits.fold(0_u32, |size, byte| size << 7 | u32::from(byte & 0x7f)) >> 1;
    let claim = [0xfe, 0xff, 0xff, 0xff, 0x0f];
    let more = claim.len() - (sized - 1 - unpacked);
    let page = end + usize::try_from(size).unwrap();
    let shorter = (size - u32::try_from(more).unwrap()) << 1;
    for (place, byte) in (sized..end).enumerate() {
        let high = if byte + 1 < end { 0x80 } else { 0 };
        file[byte] = u8::try_from(shorter >> (7 * place) & 0x7f).unwrap() | high;
    }
    file.drain(page - more..page);
    file.splice(unpacked..sized - 1, claim);
    file
}

#[test]
fn a_page_that_claims_to_be_long_is_refused_before_it_is_unpacked() {
    let service = service(Shape::PandasDataFrame, vec![fields().remove(0)]);
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
    let rows = RecordBatch::try_from_iter([("n", n)]).unwrap();
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_dictionary_enabled(false)
        .build();
    let mut file = vec![];
    let mut writer = ArrowWriter::try_new(&mut file, rows.schema(), Some(properties)).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    assert_eq!(post(&service, "/predict", PARQUET, &file).status, 200);
    let answer = post(&service, "/predict", PARQUET, &with_a_false_size(file));
    assert_eq!(document(&answer)["code"], "unpacks_too_large");
}

#[test]
fn an_arrow_stream_that_says_a_long_text_often_is_refused() {
    let service = service(
        Shape::PandasDataFrame,
        vec![Field::new("text", DataType::Utf8, false)],
    );
    let long = "x".repeat(1 << 20);
    let words = || Arc::new(StringArray::from(vec![long.as_str()]));
    let dictionary = DictionaryArray::new(Int8Array::from(vec![0; 1_000_000]), words());
    let ends = Int32Array::from(vec![1_000_000]);
    let run = RunArray::try_new(&ends, &*words()).unwrap();
    let mut views = StringViewBuilder::new();
    let block = views.append_block(long.clone().into_bytes().into());
    for _ in 0..1000 {
        views.try_append_view(block, 0, 1 << 20).unwrap();
    }
    let columns: [ArrayRef; 3] = [
        Arc::new(dictionary),
        Arc::new(run),
        Arc::new(views.finish()),
    ];
    for column in columns {
        let kind = column.data_type().clone();
        let body = stream(&RecordBatch::try_from_iter([("text", column)]).unwrap());
        assert!(body.len() < 3 << 20, "{kind}: {} bytes", body.len());
        let answer = post(&service, "/predict", ARROW, &body);
        assert_eq!(document(&answer)["code"], "unpacks_too_large", "{kind}");
    }
}

#[test]
fn columns_of_arrow_that_lose_nothing_are_read_and_others_are_told() {
    let object: DataType = r#"struct<"a": int64, "b": int64>"#.parse().unwrap();
    let taken = vec![
        Field::new("text", DataType::Utf8, false),
        Field::new("price", "decimal[20, 4]".parse().unwrap(), false),
        Field::new("object", object, false),
    ];
    let service = service(Shape::PandasDataFrame, taken);
    let ends = Int32Array::from(vec![1, 2]);
    let texts = RunArray::try_new(&ends, &StringArray::from(vec!["x", "y"])).unwrap();
    let prices = Decimal128Array::from(vec![1230, -5]);
    let prices = prices.with_precision_and_scale(5, 2).unwrap();
    let objects = |names: [&str; 2]| -> ArrayRef {
        let keys = names.map(|name| {
            let values: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
            (name, values)
        });
        Arc::new(StructArray::try_from(keys.to_vec()).unwrap())
    };
    let rows = |objects| {
        let columns: [(&str, ArrayRef); 3] = [
            ("text", Arc::new(texts.clone())),
            ("price", Arc::new(prices.clone())),
            ("object", objects),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    };
    let headers = [("content-type", ARROW), ("accept", "application/json")];
    let body = stream(&rows(objects(["a", "b"])));
    let answer = post_with(&service, "/predict", &headers, &body);
    let first = &document(&answer)["predictions"][0];
    let expected = json!({"text": "x", "price": "12.3000", "object": {"a": 1, "b": 1}});
    assert_eq!(*first, expected);
    // Keys of another order are not taken by their position.
    let body = stream(&rows(objects(["b", "a"])));
    let answer = post_with(&service, "/predict", &headers, &body);
    assert_eq!(document(&answer)["errors"][0]["column"], "object");
}

// === compression

#[test]
fn long_answers_are_compressed_for_who_reads_that() {
    let service = frames();
    let rows = vec![ROW; 1000].join(",");
    let body = format!(r#"{{"data": [{rows}]}}"#);
    let headers = [
        ("content-type", "application/json"),
        ("accept-encoding", "gzip, br"),
    ];
    let answer = post_with(&service, "/predict", &headers, body.as_bytes());
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert!(answer.body.len() < body.len() / 10);
}
