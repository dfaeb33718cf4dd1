//! Queries, with a Rust function in place of the workers.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::arrow::util::pretty::pretty_format_batches;
use object_store::ObjectStore as _;
use object_store::memory::InMemory;

use super::*;
use crate::fake::{Fake, Trouble};

/// Has one envelope, and counts how often it is looked for.
struct Store {
    fake: Arc<Fake>,
    asked: AtomicUsize,
}

impl Store {
    fn of(fake: Fake) -> Self {
        Self {
            fake: Arc::new(fake),
            asked: AtomicUsize::new(0),
        }
    }
}

#[async_trait]
impl FindEnvelope for Store {
    async fn find(
        &self,
        reference: &str,
    ) -> Result<Arc<dyn MapRows>, Box<dyn std::error::Error + Send + Sync>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match reference {
            "region=UK" => Ok(Arc::clone(&self.fake) as _),
            other => Err(format!("nothing matches `{other}`").into()),
        }
    }
}

async fn tables() -> SessionContext {
    let settings = Settings {
        partitions: NonZeroUsize::new(2),
        ..Settings::default()
    };
    let session = session(&settings, &Stores::default()).unwrap();
    for text in [
        "CREATE TABLE t AS SELECT column1 AS id, column2 AS x, column3 AS country
         FROM (VALUES (1, 0.5, 'UK'), (2, 1.5, 'US'), (3, 2.5, 'UK'), (4, 3.5, 'US'))",
        "CREATE TABLE s AS SELECT column1 AS id, column2 AS \"X y\" FROM (VALUES (1, 10.0), (3, 30.0))",
        "CREATE TABLE words AS SELECT column1 AS x FROM (VALUES ('a'))",
    ] {
        session.sql(text).await.unwrap().collect().await.unwrap();
    }
    session
}

async fn run(store: &Store, text: &str) -> Result<String, Error> {
    let settings = Settings::default();
    let frame = tables().await.predict_sql(text, store, &settings).await?;
    let rows = frame.collect().await.map_err(Error::from_engine)?;
    let rows = pretty_format_batches(&rows).unwrap().to_string();
    let lines = rows.lines().filter(|line| line.starts_with('|')).skip(1);
    let cells = lines.map(|line| line.replace(' ', "").trim_matches('|').to_owned());
    Ok(cells.collect::<Vec<_>>().join(" "))
}

async fn check(text: &str, expected: &str) {
    let store = Store::of(Fake::new());
    assert_eq!(run(&store, text).await.unwrap(), expected, "{text}");
}

async fn refused(text: &str) -> (String, Option<String>) {
    let error = run(&Store::of(Fake::new()), text).await.unwrap_err();
    (error.to_string(), error.hint())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_given_as_a_table_by_name_or_column_by_column() {
    for rows in [
        "f",
        "f.*",
        "*",
        "x => f.x",
        "f, x => x",
        "X => 0.5 * 2 * f.x",
    ] {
        let text = format!("SELECT id, predict('region=UK', {rows}) p FROM t f ORDER BY id");
        check(&text, "1|1.0 2|3.0 3|5.0 4|7.0").await;
    }
    check("SELECT predict('region=UK') FROM t WHERE id = 2", "3.0").await;
    check(
        "SELECT predict('region=UK', 'double', t) FROM t WHERE id = 2",
        "3.0",
    )
    .await;
    check(
        "SELECT predict('region=UK', x => \"X y\") FROM s WHERE id = 3",
        "60.0",
    )
    .await;
    check("SELECT predict('region=UK', x => 21)", "42.0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_an_expression_like_any_other() {
    for (text, expected) in [
        (
            "SELECT id FROM t WHERE predict('region=UK', t) > 4 ORDER BY predict('region=UK', t) DESC",
            "4 3",
        ),
        (
            "SELECT country, sum(predict('region=UK', t)) FROM t GROUP BY country ORDER BY country",
            "UK|6.0 US|10.0",
        ),
        (
            "SELECT predict('region=UK', t) > 4 big, count(*) FROM t GROUP BY predict('region=UK', t) > 4 ORDER BY big",
            "false|2 true|2",
        ),
        (
            "SELECT country FROM t GROUP BY country HAVING max(predict('region=UK', t)) > 6",
            "US",
        ),
        (
            "SELECT t.id, predict('region=UK', t) + \"X y\" v FROM t JOIN s ON t.id = s.id ORDER BY v",
            "1|11.0 3|35.0",
        ),
        (
            "SELECT p.id, s.\"X y\" - p.v d FROM (SELECT id, predict('region=UK', t) v FROM t) p JOIN s ON p.id = s.id ORDER BY d",
            "1|9.0 3|25.0",
        ),
        (
            "WITH p AS (SELECT id, predict('region=UK', t) v FROM t) SELECT a.id, a.v + b.v FROM p a JOIN p b ON a.id = b.id ORDER BY 1",
            "1|2.0 2|6.0 3|10.0 4|14.0",
        ),
        (
            "SELECT predict('region=UK', x => predict('region=UK', t)) v FROM t ORDER BY v LIMIT 1",
            "2.0",
        ),
        (
            "SELECT CASE WHEN id = 1 THEN predict('region=UK', t) ELSE 0.0 END v FROM t ORDER BY v DESC LIMIT 2",
            "1.0 0.0",
        ),
        (
            "SELECT id FROM t WHERE x IN (SELECT predict('region=UK', x => x / 2) FROM t) AND id < 2",
            "1",
        ),
        (
            "SELECT id, rank() OVER (ORDER BY predict('region=UK', t) DESC) r FROM t ORDER BY id LIMIT 1",
            "1|4",
        ),
        (
            "SELECT predict('region=UK', t) v FROM t UNION ALL SELECT \"X y\" FROM s ORDER BY v DESC LIMIT 1",
            "30.0",
        ),
        ("SELECT DISTINCT predict('region=UK', t) > 0 FROM t", "true"),
    ] {
        check(text, expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_of_several_columns_stand_wherever_others_do() {
    let store = Store::of(Fake::new().with_input("id"));
    for (text, expected) in [
        (
            "SELECT id, rank() OVER (ORDER BY predict('region=UK', t) DESC) r FROM t ORDER BY id",
            "1|4 2|3 3|2 4|1",
        ),
        (
            "SELECT id, sum(x) OVER w FROM t WINDOW w AS (PARTITION BY country ORDER BY predict('region=UK', t) DESC) ORDER BY id",
            "1|3.0 2|5.0 3|2.5 4|3.5",
        ),
        (
            "SELECT id FROM t QUALIFY row_number() OVER (ORDER BY predict('region=UK', t) DESC) = 1",
            "4",
        ),
        (
            "SELECT sum(x) FILTER (WHERE predict('region=UK', t) > 4) FROM t",
            "6.0",
        ),
        (
            "SELECT first_value(id ORDER BY predict('region=UK', t) DESC) FROM t",
            "4",
        ),
        (
            "SELECT DISTINCT ON (country) id FROM t ORDER BY country, predict('region=UK', t) DESC",
            "3 4",
        ),
    ] {
        assert_eq!(run(&store, text).await.unwrap(), expected, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_differ_in_a_cast_are_two() {
    check(
        "SELECT id, predict('region=UK', x => CAST(CAST(x AS BIGINT) AS DOUBLE)) v FROM t WHERE predict('region=UK', t) = 3.0",
        "2|2.0",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envelope_is_looked_for_once_and_called_once_for_each_row() {
    let store = Store::of(Fake::new());
    let text = "SELECT predict('region=UK', t) a, predict('region=UK', t) + 1 b FROM t
        WHERE predict('region=UK', t) > 2 AND country = 'US'";
    run(&store, text).await.unwrap();
    assert_eq!(store.asked.load(Ordering::Relaxed), 1);
    let rows: usize = store.fake.sizes.lock().unwrap().iter().sum();
    assert_eq!(rows, 2, "only rows that the filter leaves, each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_function_is_called_for_rows_beyond_the_limit() {
    let store = Store::of(Fake::new());
    run(&store, "SELECT predict('region=UK', t) FROM t LIMIT 1")
        .await
        .unwrap();
    let rows: usize = store.fake.sizes.lock().unwrap().iter().sum();
    assert_eq!(rows, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_columns_of_output_are_a_struct_made_by_one_call() {
    let store = Store::of(Fake::new().with_outputs(&["low", "high"]));
    let text = "SELECT predict('region=UK', t)['low'] + predict('region=UK', t)['high'] FROM t WHERE id = 1";
    assert_eq!(run(&store, text).await.unwrap(), "2.0");
    assert_eq!(store.fake.calls(), 1);
    let text = "SELECT predict('region=UK', t) FROM t WHERE id = 1";
    assert_eq!(run(&store, text).await.unwrap(), "{low:1.0,high:1.0}");
    let error = run(&store, "SELECT predict('region=UK', t)['middle'] FROM t")
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("`double` gives no column `middle`"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plan_reads_what_the_function_takes_and_filters_below_it() {
    let settings = Settings::default();
    let store = Store::of(Fake::new());
    let text = "SELECT id, predict('region=UK', t) p FROM t WHERE country = 'UK'";
    let frame = tables()
        .await
        .predict_sql(text, &store, &settings)
        .await
        .unwrap();
    let plan = frame
        .into_optimized_plan()
        .unwrap()
        .display_indent()
        .to_string();
    let place = |text: &str| {
        plan.find(text)
            .unwrap_or_else(|| panic!("no {text}: {plan}"))
    };
    assert!(
        place("EnvelopeMap: function=double") < place("Filter: t.country"),
        "{plan}"
    );
    assert!(plan.contains("keep=[t.id]"), "{plan}");
    let plan = frame_plan("SELECT predict('region=UK', t) p FROM t").await;
    assert!(plan.contains("TableScan: t projection=[x]"), "{plan}");
}

async fn frame_plan(text: &str) -> String {
    let settings = Settings::default();
    let store = Store::of(Fake::new());
    let frame = tables()
        .await
        .predict_sql(text, &store, &settings)
        .await
        .unwrap();
    frame
        .into_optimized_plan()
        .unwrap()
        .display_indent()
        .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_with_its_place() {
    for (text, message, hint) in [
        ("SELECT FROM WHERE", "line 1", ""),
        ("SELECT idd FROM t", "line 1, column 8", ""),
        (
            "SELECT predict('region=US', t) FROM t",
            "`region=US` at line 1, column 8 is no envelope",
            "",
        ),
        (
            "SELECT predict('region=UK', s) FROM s",
            "`double` takes the column `x`, but `s` has none",
            "\"x\" =>",
        ),
        (
            "SELECT predict('region=UK', tt) FROM t",
            "`tt` is no table of this query, did you mean `t`?",
            "column => expression",
        ),
        (
            "SELECT predict('region=UK', t, y => 1) FROM t",
            "at line 1, column 32 cannot be carried out: `double` takes no column `y`",
            "it takes `x`",
        ),
        (
            "SELECT predict('region=UK', words) FROM words",
            "takes `x` as float64, but `words.x` is utf8",
            "CAST(words.x AS",
        ),
        (
            "SELECT predict(t) FROM t",
            "the first argument of `predict` is the envelope",
            "predict('QUERY', t)",
        ),
        (
            "SELECT * FROM t JOIN s ON predict('region=UK', t) > s.\"X y\"",
            "a join cannot depend on `predict`",
            "subquery",
        ),
        ("DROP TABLE t", "DDL not supported", ""),
    ] {
        let (error, told) = refused(text).await;
        assert!(error.contains(message), "{text}: {error}");
        assert!(told.unwrap_or_default().contains(hint), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_function_fails_on_is_told() {
    let store = Store::of(Fake::new().with_trouble(0, Trouble::Raises));
    for text in [
        "SELECT id, predict('region=UK', t) FROM t",
        "SELECT p.id, s.id FROM (SELECT id, predict('region=UK', t) v FROM t) p JOIN s ON p.v = s.\"X y\" ORDER BY 1",
    ] {
        let error = run(&store, text).await.unwrap_err();
        let Error::Function { row: Some(row), .. } = error.root() else {
            panic!("{error}");
        };
        assert!(row.contains("t.id=1"), "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_with_an_offset_is_an_instant_beside_a_zone() {
    let at = "(SELECT '2026-06-01T12:00:00Z' AT TIME ZONE 'America/New_York' AS at) z";
    for (condition, expected) in [
        ("at = TIMESTAMP '2026-06-01T12:00:00Z'", "true"),
        ("TIMESTAMP '2026-06-01 14:00:00+02:00' = at", "true"),
        ("at = CAST('2026-06-01T12:00:00Z' AS TIMESTAMP)", "true"),
        (
            "at > TIMESTAMP '2026-06-02T11:00:00Z' - INTERVAL '1 day'",
            "true",
        ),
        (
            "at - TIMESTAMP '2026-06-01T11:00:00Z' = INTERVAL '1 hour'",
            "true",
        ),
        ("at = TIMESTAMP '2026-06-01 08:00:00'", "true"),
        ("at = TIMESTAMP '2026-06-01 12:00:00'", "false"),
    ] {
        check(&format!("SELECT {condition} FROM {at}"), expected).await;
    }
    let within = format!("SELECT count(*) FROM {at} WHERE at = TIMESTAMP '2026-06-01T12:00:00Z'");
    check(&format!("SELECT id FROM t WHERE id = ({within})"), "1").await;
}

#[test]
fn rows_are_lines_of_json_or_csv() {
    let ids: arrow_array::ArrayRef = Arc::new(arrow_array::Int64Array::from(vec![Some(1), None]));
    let rows = RecordBatch::try_from_iter([("id", ids)]).unwrap();
    let text = |encoding| String::from_utf8(encode(&rows, encoding).unwrap()).unwrap();
    assert_eq!(text(Encoding::JsonLines), "{\"id\":1}\n{}\n");
    assert_eq!(text(Encoding::Csv { first: true }), "id\n1\n\"\"\n");
    assert_eq!(text(Encoding::Csv { first: false }), "1\n\"\"\n");
}

/// A folder with a table `in.csv` of four rows.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::TempDir::new().unwrap();
    let text = "id,x,country\n1,0.5,UK\n2,1.5,US\n3,2.5,UK\n4,3.5,US\n";
    std::fs::write(folder.path().join("in.csv"), text).unwrap();
    folder
}

fn query(folder: &tempfile::TempDir, text: &str) -> Query {
    let place = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let mut query = Query::new(text);
    query.tables = ["in.csv", "out"]
        .map(|name| (name.trim_end_matches(".csv").to_owned(), place(name)))
        .into();
    // `in` is a word of SQL.
    query.tables.insert("features".into(), place("in.csv"));
    query
}

async fn written(
    folder: &tempfile::TempDir,
    text: &str,
    mode: crate::Mode,
) -> Result<crate::Summary, Error> {
    let store = Store::of(Fake::new());
    let answer = query(folder, text).plan(&store, &Stores::default()).await?;
    let mut output = Output::new(folder.path().join("out").to_string_lossy());
    output.mode = mode;
    answer.write(&output, uuid::Uuid::new_v4(), &|_| ()).await
}

async fn read(folder: &tempfile::TempDir, text: &str) -> String {
    let answer = query(folder, text)
        .plan(&Store::of(Fake::new()), &Stores::default())
        .await
        .unwrap();
    let mut rows = answer.rows().await.unwrap();
    let mut lines = String::new();
    while let Some(batch) = rows.next().await.unwrap() {
        let text = encode(&batch, Encoding::Csv { first: false }).unwrap();
        lines.push_str(&String::from_utf8(text).unwrap());
    }
    lines.trim().replace('\n', " ")
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_committed_to_a_table_that_names_where_they_are_from() {
    let folder = folder();
    let text = "SELECT CAST(id AS BIGINT) id, predict('region=UK', t), predict('region=UK', x => 1) one FROM features t";
    let summary = written(&folder, text, crate::Mode::Error).await.unwrap();
    assert_eq!((summary.rows, summary.version), (4, Some(0)));
    let first = "SELECT id, prediction, one FROM out ORDER BY id";
    assert_eq!(
        read(&folder, first).await,
        "1,1.0,2.0 2,3.0,2.0 3,5.0,2.0 4,7.0,2.0"
    );
    let summary = written(&folder, text, crate::Mode::Append).await.unwrap();
    assert_eq!(summary.version, Some(1));
    assert_eq!(read(&folder, "SELECT count(*) FROM out").await, "8");
    let log = folder
        .path()
        .join("out/_delta_log/00000000000000000001.json");
    let log = std::fs::read_to_string(log).unwrap();
    let digest = Fake::new().digest().to_string();
    for part in [digest.as_str(), "in.csv", "SELECT CAST(id AS BIGINT)"] {
        assert!(log.contains(part), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_explain_says_is_whole_and_goes_to_no_table() {
    let folder = folder();
    for (explain, part) in [
        ("EXPLAIN", "EnvelopeMap: function=double"),
        ("EXPLAIN VERBOSE", "initial_logical_plan"),
        ("EXPLAIN ANALYZE", "output_rows=2"),
    ] {
        let text = format!("{explain} SELECT predict('region=UK', t) FROM features t LIMIT 2");
        let answer = query(&folder, &text)
            .plan(&Store::of(Fake::new()), &Stores::default())
            .await
            .unwrap();
        let mut rows = answer.limited(1).unwrap().rows().await.unwrap();
        let mut told = String::new();
        while let Some(batch) = rows.next().await.unwrap() {
            told += &pretty_format_batches(&[batch]).unwrap().to_string();
        }
        assert!(told.contains(part), "{told}");
        let error = written(&folder, &text, crate::Mode::Error).await;
        let error = error.unwrap_err();
        assert!(matches!(error, Error::Sql { .. }), "{error}");
        assert!(!folder.path().join("out").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_cannot_be_written_is_refused_before_any_work() {
    let folder = folder();
    let store = Store::of(Fake::new());
    let text = "SELECT predict('region=UK', t) + 1 FROM features t";
    let answer = query(&folder, text)
        .plan(&store, &Stores::default())
        .await
        .unwrap();
    let output = Output::new(folder.path().join("out").to_string_lossy());
    let error = answer
        .write(&output, uuid::Uuid::new_v4(), &|_| ())
        .await
        .unwrap_err();
    assert!(error.hint().unwrap().contains("AS name"), "{error}");
    written(&folder, "SELECT id FROM features", crate::Mode::Error)
        .await
        .unwrap();
    let error = written(&folder, "SELECT id FROM features", crate::Mode::Error)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::TableExists { .. }), "{error}");
    assert_eq!(store.fake.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_leaves_nothing_behind() {
    let folder = folder();
    let store = Store::of(Fake::new().with_trouble(0, Trouble::Raises));
    let answer = query(&folder, "SELECT predict('region=UK', t) FROM features t");
    let answer = answer.plan(&store, &Stores::default()).await.unwrap();
    let output = Output::new(folder.path().join("out").to_string_lossy());
    let error = answer
        .write(&output, uuid::Uuid::new_v4(), &|_| ())
        .await
        .unwrap_err();
    assert!(matches!(error.root(), Error::Function { .. }), "{error}");
    assert!(!folder.path().join("out").exists());
}

/// A query from a local table to the table `out` of a bucket, and the bucket.
async fn written_there(
    fake: Fake,
    mode: crate::Mode,
) -> (Result<crate::Summary, Error>, Vec<String>) {
    let folder = folder();
    let bucket = Arc::new(InMemory::new());
    let stores = Stores::with("b", Arc::clone(&bucket) as _);
    let text = "SELECT CAST(id AS BIGINT) id, predict('region=UK', t) FROM features t";
    let store = Store::of(fake);
    let answer = query(&folder, text).plan(&store, &stores).await.unwrap();
    let mut output = Output::new("s3://b/out");
    output.mode = mode;
    let summary = answer.write(&output, uuid::Uuid::new_v4(), &|_| ()).await;
    let objects = bucket
        .list(None)
        .map_ok(|object| object.location.to_string());
    (summary, objects.try_collect().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_to_a_bucket_and_those_of_a_query_that_fails_do_not_stay_there() {
    let (summary, objects) = written_there(Fake::new(), crate::Mode::Error).await;
    let summary = summary.unwrap();
    assert_eq!((summary.rows, summary.version), (4, Some(0)));
    assert_eq!(objects.len() as u64, summary.files + 1, "{objects:?}");
    let fails = Fake::new().with_trouble(0, Trouble::Raises);
    let (error, objects) = written_there(fails, crate::Mode::Error).await;
    assert!(matches!(error.unwrap_err().root(), Error::Function { .. }));
    assert_eq!(objects, Vec::<String>::new());
}
