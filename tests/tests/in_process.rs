//! An interpreter in this process. There can be one only, so this is one test.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray as _;
use arrow_array::types::Float64Type;
use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use runtime::{Error, Runtime, Trials};

const LONG: Duration = Duration::from_secs(60);

fn rows(action: &str, x: &[f64]) -> RecordBatch {
    let columns: [(&str, ArrayRef); 2] = [
        ("action", Arc::new(StringArray::from(vec![action; x.len()]))),
        ("x", Arc::new(Float64Array::from(x.to_vec()))),
    ];
    RecordBatch::try_from_iter(columns).expect("equally long columns")
}

fn floats(rows: &RecordBatch) -> &[f64] {
    rows.column(0).as_primitive::<Float64Type>().values()
}

#[tokio::test]
async fn an_interpreter_in_this_process_answers_as_workers_do() {
    let envelope = acceptance::envelope("naughty");
    let environment = acceptance::environments().realise(&envelope, &|_| ()).await;
    let environment = environment.expect("realised");
    let began = Runtime::in_process(Arc::clone(&envelope), environment.clone());
    let here = began.await.expect("the interpreter has a shared library");

    let many: Vec<f64> = (0..200_000).map(f64::from).collect();
    for x in [&[1.5, f64::MIN][..], &many] {
        let answer = here.call(None, rows("none", x), LONG).await.expect("rows");
        assert_eq!(floats(&answer), x);
    }
    let pid = here
        .call(None, rows("pid", &[0.0]), LONG)
        .await
        .expect("rows");
    assert!((floats(&pid)[0] - f64::from(std::process::id())).abs() < f64::EPSILON);

    let raised = here.call(None, rows("raise", &[7.0]), LONG).await;
    assert!(
        matches!(raised, Err(Error::Function { exception, .. }) if exception.kind == "ValueError")
    );
    let missing = RecordBatch::new_empty(Arc::new(arrow_schema::Schema::empty()));
    let refused = here.call(None, missing, LONG).await;
    assert!(matches!(refused, Err(Error::RowsDoNotFit { .. })));

    // A late answer is nobody's.
    let began = Instant::now();
    let late = here
        .call(None, rows("sleep", &[1.0]), Duration::from_millis(50))
        .await;
    assert!(matches!(late, Err(Error::Deadline { .. })));
    let next = here
        .call(None, rows("none", &[3.0]), LONG)
        .await
        .expect("rows");
    assert!((floats(&next)[0] - 3.0).abs() < f64::EPSILON);
    assert!(
        began.elapsed() > Duration::from_millis(900),
        "it has waited for the one before"
    );

    let sample = rows("none", &[1.0, 2.0]);
    let certified = here
        .certify(None, &sample, Trials::default(), &|_, _| ())
        .await;
    assert!(matches!(certified, Err(Error::NeedsProcesses)));
    let second = Runtime::in_process(envelope, environment).await;
    assert!(
        matches!(second, Err(Error::Start { .. })),
        "two interpreters in one process"
    );
}
