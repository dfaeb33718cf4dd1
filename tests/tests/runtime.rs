//! Functions run in workers; workers die; callers are told.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use acceptance::{ends, is_alive};
use arrow_array::cast::AsArray as _;
use arrow_array::types::Float64Type;
use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use envelope_format::{Content, Draft, Encoding, Envelope, Manifest};
use runtime::{EnvelopeFile, Environments, Error, Runtime};
use rustix::process::{Pid, Signal, kill_process};

const LONG: Duration = Duration::from_secs(60);

fn columns(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).expect("equally long columns")
}

fn ab(a: &[f64], b: &[f64]) -> RecordBatch {
    columns(vec![
        ("a", Arc::new(Float64Array::from(a.to_vec()))),
        ("b", Arc::new(Float64Array::from(b.to_vec()))),
    ])
}

fn act(action: &str, x: f64) -> RecordBatch {
    columns(vec![
        ("action", Arc::new(StringArray::from(vec![action]))),
        ("x", Arc::new(Float64Array::from(vec![x]))),
    ])
}

fn floats(rows: &RecordBatch) -> Vec<f64> {
    rows.column(0)
        .as_primitive::<Float64Type>()
        .values()
        .to_vec()
}

async fn worker_pid(runtime: &Runtime) -> i32 {
    some_worker_pid(runtime).await.expect("the worker answers")
}

async fn some_worker_pid(runtime: &Runtime) -> Result<i32, Error> {
    let rows = runtime.call(None, act("pid", 0.0), LONG).await?;
    #[expect(clippy::cast_possible_truncation, reason = "process ids are small")]
    let pid = floats(&rows)[0] as i32;
    Ok(pid)
}

#[tokio::test]
async fn a_call_gives_what_the_function_gives() {
    let runtime = acceptance::start("cheap", 1..=1).await;
    let rows = ab(&[1.5, f64::MAX, -0.0, f64::NAN], &[0.25, 0.0, -0.0, 1.0]);
    let answer = runtime.call(Some("cheap"), rows, LONG).await.expect("rows");
    let bits: Vec<u64> = floats(&answer)
        .iter()
        .map(|value| value.to_bits())
        .collect();
    let expected = [3.25, f64::INFINITY, -0.0].map(f64::to_bits);
    assert_eq!(bits[..3], expected);
    assert!(floats(&answer)[3].is_nan());
}

#[tokio::test]
async fn loading_the_interpreter_and_executing_it_give_the_same() {
    let envelope = acceptance::envelope("sklearn_pipeline");
    let environment = acceptance::environments()
        .realise(&envelope, &|_| ())
        .await
        .expect("realised");
    let executing = environment.clone().without_library();
    let rows = columns(vec![
        ("a", Arc::new(Float64Array::from(vec![0.1, 7.0]))),
        ("b", Arc::new(Float64Array::from(vec![1.0, 4.0]))),
        ("colour", Arc::new(StringArray::from(vec!["red", "blue"]))),
    ]);
    let mut answers = vec![];
    for environment in [environment, executing] {
        let runtime = Runtime::builder(Arc::clone(&envelope), environment)
            .workers(1..=1)
            .start()
            .await
            .expect("starts");
        answers.push(runtime.call(None, rows.clone(), LONG).await.expect("rows"));
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn columns_are_found_by_name_and_the_others_are_left_out() {
    let runtime = acceptance::start("cheap", 1..=1).await;
    let rows = columns(vec![
        ("b", Arc::new(Float64Array::from(vec![1.0]))),
        ("id", Arc::new(StringArray::from(vec!["x"]))),
        ("a", Arc::new(Float64Array::from(vec![2.0]))),
    ]);
    assert_eq!(
        floats(&runtime.call(None, rows, LONG).await.expect("rows")),
        [5.0]
    );
}

#[tokio::test]
async fn rows_that_do_not_fit_are_refused_with_the_column() {
    let runtime = acceptance::start("cheap", 1..=1).await;
    let missing = columns(vec![("a", Arc::new(Float64Array::from(vec![1.0])))]);
    let text = columns(vec![
        ("a", Arc::new(StringArray::from(vec!["1"]))),
        ("b", Arc::new(Float64Array::from(vec![1.0]))),
    ]);
    let null = columns(vec![
        ("a", Arc::new(Float64Array::from(vec![Some(1.0), None]))),
        ("b", Arc::new(Float64Array::from(vec![1.0, 1.0]))),
    ]);
    for (rows, told) in [
        (missing, "`b` is missing"),
        (text, "`a` is Utf8"),
        (null, "no value in row 1"),
    ] {
        let error = runtime.call(None, rows, LONG).await.expect_err("refused");
        assert!(
            matches!(error, Error::RowsDoNotFit { .. }) && error.to_string().contains(told),
            "{error}"
        );
    }
    assert_eq!(runtime.usage().replaced, 0);
}

#[tokio::test]
async fn an_exception_is_told_and_costs_no_worker() {
    let runtime = acceptance::start("naughty", 1..=1).await;
    let before = worker_pid(&runtime).await;
    match runtime.call(None, act("raise", 7.0), LONG).await {
        Err(Error::Function { exception, .. }) => {
            assert_eq!(
                (exception.kind.as_str(), exception.message.as_str()),
                ("ValueError", "bad row 7.0")
            );
            assert!(
                exception.traceback.contains("raise ValueError")
                    || exception.traceback.contains("in naughty")
            );
            assert!(
                !exception.traceback.contains("_envelope_rows"),
                "{}",
                exception.traceback
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(worker_pid(&runtime).await, before);
}

#[tokio::test]
async fn a_worker_that_dies_is_named_and_replaced() {
    let runtime = acceptance::start("naughty", 1..=1).await;
    for (action, told) in [
        ("segfault", "signal 11"),
        ("exit", "status 3"),
        ("kill", "signal 9"),
    ] {
        let before = worker_pid(&runtime).await;
        let error = runtime
            .call(None, act(action, 0.0), LONG)
            .await
            .expect_err("the worker died");
        assert!(
            matches!(error, Error::Crashed { .. }) && error.to_string().contains(told),
            "{action}: {error}"
        );
        assert_ne!(worker_pid(&runtime).await, before);
    }
    assert_eq!(runtime.usage().replaced, 3);
}

#[tokio::test]
async fn a_call_past_its_deadline_costs_its_worker_only() {
    let runtime = acceptance::start("naughty", 2..=2).await;
    let hanging = runtime.call(None, act("hang", 0.0), Duration::from_millis(300));
    let (hung, other) = tokio::join!(hanging, runtime.call(None, act("none", 4.0), LONG));
    assert!(matches!(hung, Err(Error::Deadline { .. })), "{hung:?}");
    assert_eq!(floats(&other.expect("the other call")), [4.0]);
    assert_eq!(
        floats(
            &runtime
                .call(None, act("none", 5.0), LONG)
                .await
                .expect("replaced")
        ),
        [5.0]
    );
}

#[tokio::test]
async fn a_dropped_call_frees_its_place() {
    let runtime = acceptance::start("naughty", 1..=1).await;
    let before = worker_pid(&runtime).await;
    drop(
        tokio::time::timeout(
            Duration::from_millis(100),
            runtime.call(None, act("hang", 0.0), LONG),
        )
        .await,
    );
    assert_ne!(worker_pid(&runtime).await, before);
    assert!(
        ends(before).await,
        "the worker of the dropped call still runs"
    );
}

#[tokio::test]
async fn what_a_function_started_ends_with_its_worker() {
    let runtime = acceptance::start("naughty", 1..=1).await;
    let worker = worker_pid(&runtime).await;
    runtime
        .call(None, act("child", 0.0), LONG)
        .await
        .expect("the child is started");
    let child: i32 = fs::read_to_string(format!("/proc/{worker}/task/{worker}/children"))
        .expect("the kernel lists children")
        .trim()
        .parse()
        .expect("one child");
    runtime
        .call(None, act("kill", 0.0), LONG)
        .await
        .expect_err("the worker died");
    assert!(ends(child).await, "the child outlived its worker");
}

#[tokio::test]
async fn what_a_function_prints_is_not_taken_for_an_answer() {
    let runtime = acceptance::start("naughty", 1..=1).await;
    assert_eq!(
        floats(
            &runtime
                .call(None, act("print", 3.0), LONG)
                .await
                .expect("rows")
        ),
        [3.0]
    );
}

#[tokio::test]
async fn a_function_of_one_row_is_mapped_row_by_row() {
    let runtime = acceptance::start("reducer", 1..=1).await;
    let rows = columns(vec![(
        "a",
        Arc::new(Float64Array::from(vec![1.0, 2.0, 4.0])),
    )]);
    assert_eq!(
        floats(
            &runtime
                .call(None, rows.clone(), LONG)
                .await
                .expect("one row")
        ),
        [7.0]
    );
    assert_eq!(
        floats(
            &runtime
                .map(None, rows.clone(), LONG)
                .await
                .expect("three rows")
        ),
        [1.0, 2.0, 4.0]
    );
    assert_eq!(
        runtime
            .map(None, rows.slice(0, 0), LONG)
            .await
            .expect("no rows")
            .num_rows(),
        0
    );
}

#[tokio::test]
async fn workers_grow_under_load() {
    let runtime = acceptance::start("naughty", 1..=2).await;
    assert_eq!(runtime.usage().workers, 1);
    let sleeps = (0..6).map(|_| runtime.call(None, act("sleep", 1.0), LONG));
    for answer in futures::future::join_all(sleeps).await {
        answer.expect("each call is answered");
    }
    assert_eq!(runtime.usage().workers, 2);
}

/// Answers are f(call), workers are killed at random: no answer may be another call's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_under_load_cost_no_answer_its_truth() {
    let kills: u64 = std::env::var_os("KILLS")
        .map_or(8, |text| text.to_string_lossy().parse().expect("a number"));
    let runtime = acceptance::start("naughty", 2..=2).await;
    let done = Arc::new(AtomicBool::new(false));
    let counted = Arc::new([AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)]);
    let callers: Vec<_> = (0..4u32)
        .map(|caller| {
            let (runtime, done, counted) =
                (runtime.clone(), Arc::clone(&done), Arc::clone(&counted));
            tokio::spawn(async move {
                let mut call = f64::from(caller) * 1e6;
                while !done.load(Ordering::Relaxed) {
                    call += 1.0;
                    let which = match runtime.call(None, act("none", call), LONG).await {
                        Ok(rows) if floats(&rows) == [call] => 0,
                        Ok(_) => 1,
                        Err(Error::Crashed { .. }) => 2,
                        Err(other) => panic!("{other}"),
                    };
                    counted[which].fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for _ in 0..kills {
        let victim = loop {
            // The worker that is asked may be the one that was just killed.
            match some_worker_pid(&runtime).await {
                Ok(pid) => break pid,
                Err(Error::Crashed { .. }) => counted[2].fetch_add(1, Ordering::Relaxed),
                Err(other) => panic!("{other}"),
            };
        };
        let pid = Pid::from_raw(victim).expect("a process id");
        kill_process(pid, Signal::KILL).expect("the worker is there to be killed");
        assert!(ends(victim).await);
    }
    done.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("a caller ends");
    }
    let [right, wrong, crashed] = [0, 1, 2].map(|which| counted[which].load(Ordering::Relaxed));
    println!("{right} right, {wrong} wrong, {crashed} failed, {kills} kills");
    assert!(wrong == 0 && crashed <= kills && right > 0);
    assert_eq!(runtime.usage().replaced, kills);
}

#[tokio::test]
async fn nothing_outlives_a_killed_host() {
    let envelope = acceptance::envelope_path("naughty");
    let mut host = Command::new(env!("CARGO_BIN_EXE_hanging_host"))
        .arg(envelope)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the host starts");
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(host.stdout.take().expect("piped")),
        &mut line,
    )
    .expect("the host tells its worker");
    let worker: i32 = line.trim().parse().expect("a process id");
    assert!(is_alive(worker));
    host.kill().expect("the host is killed");
    host.wait().expect("the host is reaped");
    assert!(ends(worker).await, "the worker hangs on without its host");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_builders_make_one_environment() {
    let cache = tempfile::tempdir().expect("a folder");
    let environments = Environments {
        cache: cache.path().into(),
        ..acceptance::environments()
    };
    let envelope = acceptance::envelope("plain");
    let builds = AtomicU64::new(0);
    let tell = |_: &str| {
        builds.fetch_add(1, Ordering::Relaxed);
    };
    let (one, other) = tokio::join!(
        environments.realise(&envelope, &tell),
        environments.realise(&envelope, &tell)
    );
    assert_eq!(
        one.expect("realised").python(),
        other.expect("realised").python()
    );
    assert_eq!(builds.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_a_killed_builder_left_is_built_again() {
    let cache = tempfile::tempdir().expect("a folder");
    let environments = Environments {
        cache: cache.path().into(),
        ..acceptance::environments()
    };
    let envelope = acceptance::envelope("plain");
    let environment = environments
        .realise(&envelope, &|_| ())
        .await
        .expect("realised");
    let folder = environment
        .python()
        .ancestors()
        .nth(2)
        .expect("the environment's folder");
    fs::remove_file(folder.join("environment.json")).expect("the marker is there");
    fs::remove_dir_all(folder.join("lib")).expect("packages are there");
    let again = environments
        .realise(&envelope, &|_| ())
        .await
        .expect("realised again");
    assert!(again.python().exists() && folder.join("lib").exists());
}

#[tokio::test]
async fn an_environment_of_another_build_of_its_interpreter_is_made_anew() {
    let cache = tempfile::tempdir().expect("a folder");
    let environments = Environments {
        cache: cache.path().into(),
        ..acceptance::environments()
    };
    let envelope = acceptance::envelope("plain");
    let builds = AtomicU64::new(0);
    let tell = |_: &str| {
        builds.fetch_add(1, Ordering::Relaxed);
    };
    let environment = environments.realise(&envelope, &tell).await;
    let environment = environment.expect("realised");
    environments
        .realise(&envelope, &tell)
        .await
        .expect("found again");
    assert_eq!(builds.load(Ordering::Relaxed), 1);
    let marker = environment
        .python()
        .ancestors()
        .nth(2)
        .expect("the environment's folder")
        .join("environment.json");
    let mut described: serde_json::Value =
        serde_json::from_slice(&fs::read(&marker).expect("readable")).expect("JSON");
    described["files"][0]["size"] = 1.into();
    fs::write(&marker, described.to_string()).expect("writable");
    environments
        .realise(&envelope, &tell)
        .await
        .expect("made anew");
    assert_eq!(builds.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn another_interpreter_is_refused_before_anything_is_unpickled() {
    let good = acceptance::envelope("plain");
    let environment = acceptance::environments()
        .realise(&good, &|_| ())
        .await
        .expect("realised");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("other.envelope");
    rewrite(&good, &path, |manifest| {
        manifest.environment.python.cache_tag = "cpython-399".into()
    });
    let other = Arc::new(EnvelopeFile::open(&path).expect("a good envelope"));

    let realised = acceptance::environments().realise(&other, &|_| ()).await;
    assert!(
        matches!(realised, Err(Error::WrongInterpreter { .. })),
        "{realised:?}"
    );
    let started = Runtime::builder(other, environment)
        .workers(1..=1)
        .start()
        .await;
    assert!(
        matches!(started, Err(Error::WrongInterpreter { .. })),
        "{started:?}"
    );
}

/// The same envelope with another manifest.
fn rewrite(envelope: &EnvelopeFile, path: &std::path::Path, change: impl Fn(&mut Manifest)) {
    let mut manifest = envelope.manifest().clone();
    change(&mut manifest);
    let members = manifest.members.clone();
    let contents: Vec<_> = members
        .iter()
        .map(|member| envelope.read(&member.name).expect("a member"))
        .collect();
    let mut draft = Draft::new(manifest);
    for (member, content) in members.iter().zip(&contents) {
        let content = match member.encoding {
            Encoding::Deflated => Content::Text(content.clone()),
            Encoding::Mapped => Content::Buffer(content),
        };
        draft.add(member.name.clone(), content);
    }
    draft
        .write(&mut fs::File::create(path).expect("a file"))
        .expect("written");
    Envelope::open(fs::File::open(path).expect("a file")).expect("it can be opened");
}

#[test]
fn the_example_program_runs() {
    let output = Command::new(example("embed_runtime"))
        .arg(acceptance::envelope_path("cheap"))
        .arg(acceptance::scratch().join("cache"))
        .arg(acceptance::root().join(".venv/bin/uv"))
        .output()
        .expect("the example is built with the tests");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        printed,
        "2.5\n4.25\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let links = Command::new("ldd")
        .arg(example("embed_runtime"))
        .output()
        .expect("ldd runs");
    assert!(!String::from_utf8_lossy(&links.stdout).contains("python"));
}

fn example(name: &str) -> std::path::PathBuf {
    let test = std::env::current_exe().expect("a path");
    test.ancestors()
        .nth(2)
        .expect("the profile's folder")
        .join("examples")
        .join(name)
}

#[test]
fn environments_of_one_lock_are_shared() {
    let of = |name| {
        let envelope = acceptance::envelope(name);
        envelope
            .read(&envelope.manifest().environment.lock)
            .expect("a lock")
    };
    let locks: BTreeSet<_> = ["cheap", "reducer", "ranking"].map(of).into();
    assert_eq!(
        locks.len(),
        1,
        "functions that need the same packages have the same lock"
    );
}
