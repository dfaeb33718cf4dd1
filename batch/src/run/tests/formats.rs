//! CSV, JSON lines and Arrow files as input.

use super::*;

fn python_rows(script: &str) -> String {
    format!(
        "
import pyarrow as pa, pyarrow.csv, pyarrow.feather, polars as pl, pandas as pd
ids = list(range(2000))
rows = pa.table({{
    'unused': ['a,\"b\"\\nc'] * 2000,
    'id': pa.array(ids, pa.int64()),
    'x': [i + 0.5 for i in ids],
}})
{script}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_write_is_read_exactly() {
    let writers = [
        ("csv", "pa.csv.write_csv(rows, 'in/0.csv')"),
        ("csv", "pl.from_arrow(rows).write_csv('in/0.csv')"),
        ("csv", "rows.to_pandas().to_csv('in/0.csv', index=False)"),
        ("json", "pl.from_arrow(rows).write_ndjson('in/0.jsonl')"),
        (
            "json",
            "rows.to_pandas().to_json('in/0.ndjson', orient='records', lines=True)",
        ),
        ("arrow", "pa.feather.write_feather(rows, 'in/0.arrow')"),
        (
            "arrow",
            "pa.feather.write_feather(rows, 'in/0.feather', compression='zstd', chunksize=100)",
        ),
        ("arrow", "pl.from_arrow(rows).write_ipc('in/0.arrow')"),
        (
            "arrow",
            "import os; os.mkdir('in/part=1'); os.mkdir('in/part=2')
pa.feather.write_feather(rows.slice(0, 1000), 'in/part=1/0.arrow')
pa.feather.write_feather(rows.slice(1000), 'in/part=2/0.arrow')",
        ),
    ];
    for (format, writer) in writers {
        let mut bench = Bench::on(TempDir::new().unwrap(), Fake::new());
        written_by_python(bench.folder.path(), &python_rows(writer));
        bench.job.keep = vec!["id".into(), "unused".into()];
        bench
            .run()
            .await
            .unwrap_or_else(|error| panic!("{writer}: {error:?}"));
        let rows = read(&bench.path("out")).await;
        let texts = rows[0].column(1).as_string::<i32>();
        assert_eq!(texts.value(0), "a,\"b\"\nc", "{writer}");
        if format == "csv" {
            // The file does not say what `id` is, and the function does not take it.
            assert_eq!(rows[0].column(0).data_type(), &DataType::Utf8);
            let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
            assert_eq!(count, 2000, "{writer}");
        } else {
            assert_eq!(bench.predictions().await, doubled(2000), "{writer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_names_file_row_and_column() {
    let cases = [
        ("1.csv", "id,x\n0,0.5\n1,abc\n", "column `x`", "row 2"),
        (
            "1.csv",
            "id,x\n0,0.5\n1\n",
            "incorrect number of fields",
            "row 2",
        ),
        (
            "1.jsonl",
            "{\"id\":0,\"x\":0.5}\n{\"id\":1,\"x\":\"abc\"}\n",
            "column `x`",
            "row 2",
        ),
        (
            "1.jsonl",
            "{\"id\":0,\"x\":0.5}\n{\"id\":1,\"x\"\n",
            "Not valid JSON",
            "row 2",
        ),
    ];
    for (name, text, part, place) in cases {
        let bench = Bench::on(TempDir::new().unwrap(), Fake::new());
        let good = if name.ends_with("csv") {
            "id,x\n0,0.5\n"
        } else {
            "{\"id\":0,\"x\":0.5}\n"
        };
        std::fs::write(bench.path("in").join(name.replace('1', "0")), good).unwrap();
        std::fs::write(bench.path("in").join(name), text).unwrap();
        let error = bench.run().await.unwrap_err();
        let Error::Read {
            file: Some(file),
            source,
            ..
        } = &error
        else {
            panic!("{text}: {error:?}");
        };
        assert!(file.ends_with(name), "{error}");
        let source = source.to_string();
        assert!(
            source.contains(part) && source.contains(place),
            "{text}: {source}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fraction_is_not_dropped_for_a_whole_number() {
    let bench = Bench::on(TempDir::new().unwrap(), Fake::new());
    let file = bench.path("in/0.jsonl");
    std::fs::write(
        &file,
        "{\"id\":9007199254740993,\"x\":1}\n{\"id\":2,\"x\":2}\n",
    )
    .unwrap();
    bench.run().await.unwrap();
    let ids: Vec<i64> = bench.predictions().await.into_keys().collect();
    assert_eq!(ids, [2, 9_007_199_254_740_993]);
    std::fs::remove_dir_all(bench.path("out")).unwrap();
    // After the lines that say what the column is.
    let whole = "{\"id\":1,\"x\":1}\n".repeat(10_000);
    std::fs::write(&file, format!("{whole}{{\"id\":1.5,\"x\":2}}\n")).unwrap();
    let error = bench.run().await.unwrap_err();
    let Error::Read { file, source, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(file.as_ref(), Some(&bench.path("in/0.jsonl")));
    let reason = "column `id`: row 10001: a number that is not whole";
    assert_eq!(source.to_string(), reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_value_in_text_is_refused_where_the_function_takes_none() {
    for (name, text) in [
        ("0.csv", "id,x\n0,0.5\n1,\n"),
        ("0.jsonl", "{\"id\":0,\"x\":0.5}\n{\"id\":1}\n"),
    ] {
        let bench = Bench::on(TempDir::new().unwrap(), Fake::new());
        std::fs::write(bench.path("in").join(name), text).unwrap();
        let error = bench.run().await.unwrap_err();
        assert!(
            matches!(error, Error::MissingValue { .. }),
            "{name}: {error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_do_not_belong_together_are_refused_by_name() {
    let bench = Bench::on(TempDir::new().unwrap(), Fake::new());
    std::fs::write(bench.path("in/0.csv"), "id,x\n").unwrap();
    std::fs::write(bench.path("in/1.csv"), "x,id\n").unwrap();
    let error = bench.refused().await;
    assert!(matches!(error, Error::FilesDiffer { .. }), "{error}");
    std::fs::rename(bench.path("in/1.csv"), bench.path("in/1.jsonl")).unwrap();
    let error = bench.refused().await;
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_selects_rows_of_text() {
    let mut bench = Bench::on(TempDir::new().unwrap(), Fake::new());
    bench.job.filter = Some("x > 1 AND id = '1'".to_owned());
    std::fs::write(bench.path("in/0.csv"), "id,x\n0,0.5\n1,1.5\n2,2.5\n").unwrap();
    assert_eq!(bench.run().await.unwrap().rows, 1);
    std::fs::remove_dir_all(bench.path("out")).unwrap();
    std::fs::remove_file(bench.path("in/0.csv")).unwrap();
    bench.job.filter = Some("x > 1 AND id < 2".to_owned());
    let lines = "{\"id\":0,\"x\":0.5}\n{\"id\":1,\"x\":1.5}\n{\"id\":2,\"x\":2.5}\n";
    std::fs::write(bench.path("in/0.jsonl"), lines).unwrap();
    bench.run().await.unwrap();
    assert_eq!(bench.predictions().await, BTreeMap::from([(1, 3.0)]));
}

/// Where the build has no decompression, the table is refused before any work.
#[tokio::test(flavor = "multi_thread")]
async fn compressed_text_is_read_or_refused() {
    let mut bench = Bench::on(TempDir::new().unwrap(), Fake::new());
    bench.job.mode = Mode::Overwrite;
    bench.job.keep = vec![];
    for writer in [
        "rows.to_pandas().to_csv('in/0.csv.gz', index=False)",
        "
import os; os.remove('in/0.csv.gz')
with pa.output_stream('in/0.csv.zst', compression='zstd') as file: pa.csv.write_csv(rows, file)",
    ] {
        written_by_python(bench.folder.path(), &python_rows(writer));
        if cfg!(feature = "compression") {
            assert_eq!(bench.run().await.unwrap().rows, 2000);
        } else {
            assert!(matches!(bench.refused().await, Error::Read { .. }));
        }
    }
}
