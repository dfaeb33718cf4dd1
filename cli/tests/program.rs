//! The program as people and scripts use it, where no Python is needed.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use envelope_format::statistics::{Chunk, ColumnSummary, Statistics, TableStatistics};
use envelope_format::{Content, DataType, Draft, Manifest};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A user with an empty store.
struct User {
    home: TempDir,
}

/// What a run of the program gave.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

/// Statistics of the example's 64 rows.
fn statistics() -> String {
    let column = |name: &str| {
        let values: Vec<_> = (0..64).map(|row| f64::from(row) + 0.5).collect();
        let mut summary = ColumnSummary::new(name, DataType::Float64);
        summary.add(0, &Chunk::Floats(&values)).unwrap();
        TableStatistics {
            rows: 64,
            columns: vec![summary.finish()],
        }
    };
    let statistics = Statistics::new(column("x"), column("prediction"));
    statistics.to_json().unwrap()
}

impl User {
    fn new() -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_envelope"));
        command
            .args(args)
            .current_dir(&self.home)
            .env_clear()
            .env("HOME", self.home.path());
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&self.command(args).output().unwrap())
    }

    /// Runs a command that succeeds, and gives its JSON document.
    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let ran = self.run(&[args, &["--json"]].concat());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{args:?}");
        serde_json::from_str(&ran.out).unwrap()
    }

    /// Runs a command that fails, with and without `--json`; gives what it says without.
    #[track_caller]
    fn fails(&self, args: &[&str], code: &str, exit: i32) -> String {
        let told = self.run(&[args, &["--json"]].concat());
        assert_eq!(
            (told.code, told.out.as_str()),
            (exit, ""),
            "{args:?}: {}",
            told.err
        );
        let document: Value = serde_json::from_str(&told.err).unwrap();
        assert_eq!(document["error"]["code"], code, "{args:?}");
        let told = self.run(args);
        assert_eq!(
            (told.code, told.out.as_str()),
            (exit, ""),
            "{args:?}: {}",
            told.err
        );
        assert!(
            told.err.starts_with(&format!("error[{code}]: ")),
            "{args:?}: {}",
            told.err
        );
        told.err
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// A file with an envelope that was never run.
    fn draft(&self, file: &str, manifest: Manifest) {
        self.draft_with(file, manifest, &statistics());
    }

    /// A file with an envelope that has these statistics.
    fn draft_with(&self, file: &str, manifest: Manifest, statistics: &str) {
        let mut manifest = manifest;
        for function in &mut manifest.functions {
            function.statistics = Some("statistics.json".parse().unwrap());
        }
        let mut draft = Draft::new(manifest);
        let text = |text: &str| Content::Text(text.as_bytes().to_vec());
        draft.add(
            "environment/pylock.toml".parse().unwrap(),
            text("lock-version = \"1.0\"\n"),
        );
        draft.add("state/functions.pkl".parse().unwrap(), text("pickle"));
        draft.add("statistics.json".parse().unwrap(), text(statistics));
        draft
            .write(&mut fs::File::create(self.file(file)).unwrap())
            .unwrap();
    }

    /// Two versions of `doubler` and one of `ltv`.
    fn with_models() -> Self {
        let user = Self::new();
        for (name, description) in [
            ("doubler", "doubles"),
            ("doubler", "doubles again"),
            ("ltv", ""),
        ] {
            user.draft(
                "a.envelope",
                Manifest {
                    name: name.into(),
                    description: description.into(),
                    ..Manifest::example()
                },
            );
            assert_eq!(user.run(&["import", "a.envelope"]).code, 0);
        }
        user
    }
}

impl Ran {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }
}

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[test]
fn ls_prints_one_array_newest_first() {
    let user = User::with_models();
    let listed = user.json(&["ls"]);
    let names: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|it| format!("{}:{}", it["name"], it["version"]))
        .collect();
    assert_eq!(names, ["\"ltv\":1", "\"doubler\":2", "\"doubler\":1"]);
    assert_eq!(
        keys(&listed[0]),
        ["created_at", "digest", "name", "tags", "version"]
    );
    assert_eq!(listed[0]["tags"], json!({"region": "US"}));
    assert_eq!(
        user.json(&["ls", "name=doubler", "--limit", "1"])
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(user.json(&["ls", "region!=US"]), json!([]));
}

#[test]
fn ls_prints_a_table_for_people() {
    let user = User::with_models();
    let ran = user.run(&["ls", "name=doubler"]);
    let lines: Vec<_> = ran.out.lines().collect();
    assert!(
        lines[0].starts_with("NAME       DIGEST        CREATED"),
        "{}",
        ran.out
    );
    assert!(
        lines[1].starts_with("doubler:2  ") && lines[1].ends_with("  region=US"),
        "{}",
        ran.out
    );
    assert_eq!((lines.len(), ran.err.as_str()), (3, ""));
}

#[test]
fn nothing_to_list_is_no_failure() {
    let user = User::new();
    let ran = user.run(&["ls"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""));
    assert!(ran.err.contains("there is nothing in"), "{}", ran.err);
    assert_eq!(user.run(&["ls", "-q"]).err, "");
    assert_eq!(user.json(&["ls"]), json!([]));
}

#[test]
fn show_prints_one_object_with_functions() {
    let user = User::with_models();
    let shown = user.json(&["show", "doubler:1", "--stats"]);
    assert_eq!(
        (&shown["name"], &shown["version"]),
        (&json!("doubler"), &json!(1))
    );
    assert_eq!(
        (&shown["description"], &shown["python"]),
        (&json!("doubles"), &json!("3.11.7"))
    );
    assert_eq!(shown["tags"], json!({"region": "US"}));
    assert!(shown["size_bytes"].as_u64().unwrap() > 0 && shown["created_at"].is_string());
    let function = &shown["functions"][0];
    assert_eq!(function["name"], "double");
    let input = json!({"shape": "pandas.Series", "fields": [{"name": "x", "type": "float64", "nullable": false}]});
    assert_eq!(function["input"], input);
    assert_eq!(function["certificate"]["row_wise"], true);
    assert_eq!(function["statistics"]["version"], 1);
    let column = &function["statistics"]["input"]["columns"][0];
    assert_eq!(
        (&column["count"], &column["numbers"]["max"]),
        (&json!(64), &json!(63.5))
    );
    assert_eq!(
        user.json(&["show", "doubler:1"])["functions"][0].get("statistics"),
        None
    );
}

#[test]
fn show_refuses_statistics_that_contradict_the_signature() {
    let user = User::new();
    let good = statistics();
    for (bad, message) in [
        (
            good.replacen("\"min\": 0.5", "\"min\": 99.5", 1),
            "column `x` of the input: its min 99.5 is above its max 63.5",
        ),
        (
            good.replacen("\"x\"", "\"y\"", 1),
            "the input has the columns `y`: float64 in the statistics and `x`: float64",
        ),
        (
            good.replacen("\"version\": 1", "\"version\": 9", 1),
            "they have version 9, this program knows version 1",
        ),
        (
            good.replacen("\"nans\": 0", "\"nans\": -1", 1),
            "they are not what version 1 of statistics looks like",
        ),
    ] {
        assert_ne!(bad, good, "{message}");
        user.draft_with("bad.envelope", Manifest::example(), &bad);
        let told = user.fails(&["show", "./bad.envelope", "--stats"], "bad_envelope", 1);
        assert!(told.contains(message), "{told}");
        assert_eq!(user.run(&["show", "./bad.envelope"]).code, 0);
    }
}

#[test]
fn show_of_a_file_needs_no_store() {
    let user = User::with_models();
    let shown = user.json(&["show", "./a.envelope", "--url", "/dev/null/store"]);
    assert_eq!(
        (&shown["name"], &shown["version"]),
        (&json!("ltv"), &Value::Null)
    );
}

#[test]
fn show_tells_people_what_they_need() {
    let user = User::with_models();
    let ran = user.run(&["show", "doubler", "--stats"]);
    for expected in [
        "doubler:2\n  doubles again\n",
        "  tags     region=US\n",
        "  python   3.11.7 on linux_x86_64 (glibc 2.36)\n",
        "double\n  input   pandas.Series\n    x  float64\n  output  pandas.Series\n    prediction  float64\n",
        "  tested  row-wise, 8 trials: the same bits at any number of rows\n",
        "  statistics of the input, 64 rows\n    x  float64  64 distinct\n                0.5 ",
        " 63.5\n                mean 32 ± 18.473  5% ",
        "  statistics of the output, 64 rows\n",
    ] {
        assert!(
            ran.out.contains(expected),
            "{expected:?} is not in\n{}",
            ran.out
        );
    }
}

#[test]
fn tags_are_set_and_removed() {
    let user = User::with_models();
    let changed = user.json(&["tag", "doubler", "stage=prod", "region-"]);
    assert_eq!(
        (&changed["version"], &changed["tags"]),
        (&json!(2), &json!({"stage": "prod"}))
    );
    assert_eq!(
        user.run(&["tag", "stage=prod", "note=a b"]).out,
        "doubler:2  note=a b, stage=prod\n"
    );
    user.fails(&["tag", "doubler", "stage"], "invalid_tag", 2);
    user.fails(&["tag", "doubler", "name=x"], "invalid_tag", 2);
}

#[test]
fn an_exported_envelope_can_be_imported_elsewhere() {
    let (user, other) = (User::with_models(), User::new());
    let file = other.file("out.envelope");
    let file = file.to_str().unwrap();
    let exported = user.json(&["export", "doubler:1", file]);
    assert_eq!(
        user.run(&["export", "doubler:1", file]).code,
        0,
        "the same envelope is there already"
    );
    user.fails(&["export", "ltv", file], "exists", 5);
    let imported = other.json(&["import", file]);
    assert_eq!(
        (&imported["version"], &imported["digest"]),
        (&json!(1), &exported["digest"])
    );
    assert_eq!(other.json(&["import", file]), imported);
}

#[test]
fn what_is_not_there_exits_with_3_and_names_what_is() {
    let user = User::with_models();
    assert!(
        user.fails(&["show", "doubbler"], "not_found", 3)
            .contains("hint: did you mean `doubler`?")
    );
    assert!(
        user.fails(&["show", "doubler:9"], "not_found", 3)
            .contains("has versions 1 to 2")
    );
    assert!(
        user.fails(&["show", "region=UK"], "not_found", 3)
            .contains("no version matches `region=UK`")
    );
    let told = user.fails(&["show", "missing.envelope"], "not_found", 3);
    assert!(
        told.contains("`missing.envelope`") && told.contains("cause: No such file"),
        "{told}"
    );
    user.fails(&["import", "missing.envelope"], "not_found", 3);
}

#[test]
fn a_damaged_envelope_exits_with_1_and_names_the_member() {
    let user = User::with_models();
    let good = fs::read(user.file("a.envelope")).unwrap();
    let mut flipped = good.clone();
    let at = good
        .windows(13)
        .rposition(|name| name == b"function.pkl\x01")
        .unwrap_or(good.len() / 2);
    flipped[at + 60] ^= 1;
    for (bytes, named, code) in [
        (&good[..good.len() - 7], "truncated", "not_an_envelope"),
        (&flipped[..], "", "damaged_member"),
    ] {
        fs::write(user.file("bad.envelope"), bytes).unwrap();
        for command in ["import", "verify"] {
            let told = user.fails(&[command, "bad.envelope"], code, 1);
            assert!(told.contains("cause: ") && told.contains(named), "{told}");
        }
    }
    assert_eq!(user.json(&["ls"]).as_array().unwrap().len(), 3);
}

#[test]
fn wrong_usage_exits_with_2() {
    let user = User::new();
    let told = user.fails(&["ls", "a=b c"], "invalid_query", 2);
    assert!(
        told.contains("character 5") && told.contains("hint: "),
        "{told}"
    );
    user.fails(&["show", "ltv:latest"], "invalid_reference", 2);
    user.fails(
        &["ls", "--url", "https://models.example"],
        "remote_store",
        2,
    );
    user.fails(&["predict", "x.envelope", "-i", "a"], "usage", 2);
    let ran = user.run(&["lss"]);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    let ran = user.run(&["lss", "--json"]);
    let document: Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!((ran.code, &document["error"]["code"]), (2, &json!("usage")));
}

#[test]
fn what_a_user_may_not_read_exits_with_4() {
    let user = User::with_models();
    let file = user.file("a.envelope");
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    // The administrator may read everything.
    if fs::read(&file).is_err() {
        user.fails(&["show", "a.envelope"], "not_allowed", 4);
    }
}

#[test]
fn a_function_that_is_not_there_exits_with_3() {
    let user = User::with_models();
    let told = user.fails(
        &["predict", "ltv", "--function", "triple", "-i", "x=1"],
        "no_such_function",
        3,
    );
    assert!(told.contains("there is double"), "{told}");
}

#[test]
fn rows_that_do_not_fit_are_refused_before_any_python_starts() {
    let user = User::with_models();
    let refused = |input: &str| user.fails(&["predict", "ltv", "-i", input], "bad_input", 1);
    assert!(
        refused("x=abc").contains("row 0, column `x`: wrong type, expected float64, got \"abc\"")
    );
    let told = refused("y=1");
    assert!(told.contains("column `x`: missing column"), "{told}");
    fs::write(user.file("rows.json"), "[{\"x\": NaN}]").unwrap();
    assert!(refused("@rows.json").contains("hint: "));
    fs::write(user.file("rows.parquet"), "not Parquet").unwrap();
    assert!(refused("@rows.parquet").contains("is not a good Parquet file"));
}

#[test]
fn an_envelope_of_another_interpreter_exits_with_5() {
    let user = User::with_models();
    let commands: [&[&str]; 2] = [
        &["predict", "ltv", "-i", "x=1"],
        &["build", "ltv", "-o", "svc"],
    ];
    for command in commands {
        let told = user.fails(command, "wrong_interpreter", 5);
        assert!(
            told.contains("the envelope needs cpython 3.11") && told.contains("hint: "),
            "{told}"
        );
    }
    assert!(!user.file("svc").exists());
}

#[test]
fn a_job_on_a_table_that_is_not_there_exits_with_3() {
    let user = User::with_models();
    user.fails(
        &["batch", "ltv", "--input", "no/table", "--output", "out"],
        "table_not_found",
        3,
    );
    assert!(!user.file("out").exists());
}

#[test]
fn a_job_that_cannot_be_called_so_exits_with_2() {
    let user = User::with_models();
    let tables = ["batch", "ltv", "--input", "in", "--output", "out"];
    for identity in [
        &["--job", "a b"][..],
        &["--job", "a", "--logical-date", "yesterday"],
    ] {
        let told = user.fails(&[&tables, identity].concat(), "invalid_job", 2);
        assert!(told.contains("of a job"), "{told}");
    }
    assert!(!user.file("out").exists());
}

#[test]
fn a_query_that_is_wrong_exits_with_2_and_tells_where() {
    let user = User::new();
    let told = user.fails(&["sql", "SELECT 1 FROM )"], "bad_sql", 2);
    assert!(told.contains("line 1"), "{told}");
    let told = user.fails(&["sql", "SELECT 1 FROM nothing"], "bad_sql", 2);
    assert!(told.contains("no table `nothing`"), "{told}");
    let told = user.fails(
        &["sql", "SELECT predict('no_such', x => 1)"],
        "not_found",
        3,
    );
    assert!(told.contains("line 1, column 8"), "{told}");
}

#[test]
fn a_query_without_envelopes_is_a_query() {
    let user = User::new();
    fs::write(user.file("t.csv"), "id,word\n1,a\n2,b\n3,c\n").unwrap();
    let text = format!(
        "SELECT id, word FROM '{}' ORDER BY id DESC",
        user.file("t.csv").display()
    );
    let ran = user.run(&["sql", &text, "--limit", "2"]);
    assert_eq!(ran.out, "id  word\n3   c\n2   b\n");
    assert!(ran.err.contains("--limit"), "{}", ran.err);
    let ran = user.run(&["sql", &text, "--format", "csv"]);
    assert_eq!(ran.out, "id,word\n3,c\n2,b\n1,a\n");
    let ran = user.run(&["sql", &text, "--format", "jsonl", "--limit", "1"]);
    assert_eq!(ran.out, "{\"id\":\"3\",\"word\":\"c\"}\n");
    let named = format!("t={}", user.file("t.csv").display());
    let ran = user.run(&[
        "sql",
        "SELECT count(*) n FROM t",
        "--table",
        &named,
        "--json",
    ]);
    let document: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(document, json!({"rows": [{"n": 3}], "complete": true}));
}

#[test]
fn a_plan_is_shown_line_by_line() {
    let user = User::new();
    fs::write(user.file("t.csv"), "id,word\n1,a\n2,b\n").unwrap();
    let text = format!(
        "EXPLAIN SELECT word FROM '{}' WHERE id = '2'",
        user.file("t.csv").display()
    );
    let ran = user.run(&["sql", &text]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for start in [
        "plan_type      plan",
        "logical_plan   ",
        "physical_plan  ",
        "               ",
    ] {
        let mut lines = ran.out.lines();
        assert!(lines.any(|line| line.starts_with(start)), "{}", ran.out);
    }
    assert!(!ran.out.contains("\\n"), "{}", ran.out);
}

#[test]
fn a_table_that_is_not_there_cannot_be_vacuumed() {
    let user = User::new();
    user.fails(&["vacuum", "no/table"], "table_not_found", 3);
}

#[test]
fn the_store_is_where_the_settings_say() {
    let user = User::with_models();
    let url = user.file("elsewhere");
    let ran = Ran::of(
        &user
            .command(&["ls"])
            .env("ENVELOPE_URL", &url)
            .output()
            .unwrap(),
    );
    assert!(
        ran.err.contains("elsewhere") && url.join("registry.sqlite").is_file(),
        "{}",
        ran.err
    );
    assert!(
        user.file(".local/share/model-envelope/registry.sqlite")
            .is_file()
    );
}

#[test]
fn colors_are_only_where_they_are_wanted() {
    let user = User::with_models();
    assert!(!user.run(&["ls"]).out.contains('\u{1b}'));
    assert!(
        user.run(&["ls", "--color", "always"])
            .out
            .contains("\u{1b}[1m")
    );
}

#[test]
fn text_of_authors_cannot_command_the_terminal() {
    let user = User::new();
    user.draft(
        "a.envelope",
        Manifest {
            description: "\u{1b}[2Jboo".into(),
            ..Manifest::example()
        },
    );
    let ran = user.run(&["show", "./a.envelope"]);
    assert!(
        ran.out.contains("\\u{1b}[2Jboo") && !ran.out.contains('\u{1b}'),
        "{}",
        ran.out
    );
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let user = User::with_models();
    let script = format!(
        "'{}' ls --json | true; exit ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_envelope")
    );
    let mut shell = Command::new("bash");
    let ran = shell
        .args(["-c", &script])
        .env("HOME", user.home.path())
        .output()
        .unwrap();
    assert_eq!(
        (
            ran.status.code(),
            String::from_utf8_lossy(&ran.stderr).as_ref()
        ),
        (Some(0), "")
    );
}

#[test]
fn every_command_shows_examples() {
    let user = User::new();
    let commands = [
        "ls",
        "show",
        "verify",
        "predict",
        "serve",
        "build",
        "batch",
        "sql",
        "vacuum",
        "export",
        "import",
        "tag",
        "completion",
    ];
    for command in commands {
        let ran = user.run(&[command, "--help"]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        let example = format!("\n  envelope {command}");
        assert!(
            ran.out.contains("Examples:\n") && ran.out.contains(&example),
            "{command}: {}",
            ran.out
        );
    }
}

#[test]
fn completions_know_the_commands() {
    let user = User::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = user.run(&["completion", shell]).out;
        assert!(
            script.contains("predict") && script.contains("cache-dir"),
            "{shell}"
        );
    }
    assert_eq!(user.run(&["completion", "csh"]).code, 2);
}

#[test]
fn a_service_program_that_is_missing_is_named() {
    let user = User::with_models();
    let alone = user.file("envelope");
    fs::copy(env!("CARGO_BIN_EXE_envelope"), &alone).unwrap();
    let ran = Command::new(&alone)
        .args(["build", "ltv", "-o", "svc"])
        .env("HOME", user.home.path())
        .output()
        .unwrap();
    let ran = Ran::of(&ran);
    assert_eq!(ran.code, 1);
    assert!(
        ran.err.starts_with("error[no_service_program]: "),
        "{}",
        ran.err
    );
    assert!(
        ran.err
            .contains("hint: build it: `cargo build --release --bin envelope-service`"),
        "{}",
        ran.err
    );
    assert!(!Path::new("svc").exists());
}
