//! Envelopes of others: what is refused, with which code, and on whose word they are run.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use envelope_format::{Content, Draft, Manifest};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with a store and some files.
struct User(TempDir);

impl User {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Exit code, standard output, and standard error of a command, both as JSON documents.
    fn run(&self, variables: &[(&str, &str)], args: &[&str]) -> (i32, Value, Value) {
        let output = Command::new(env!("CARGO_BIN_EXE_envelope"))
            .args(args)
            .arg("--json")
            .current_dir(&self.0)
            .env_clear()
            .env("HOME", self.0.path())
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let document = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap_or_default();
        (
            output.status.code().unwrap(),
            document(&output.stdout),
            document(&output.stderr),
        )
    }

    #[track_caller]
    fn done(&self, args: &[&str]) -> Value {
        let (code, out, err) = self.run(&[], args);
        assert_eq!(code, 0, "{args:?}: {err}");
        out
    }

    #[track_caller]
    fn refused(&self, args: &[&str], expected: (&str, i32)) -> Value {
        let (code, _, err) = self.run(&[], args);
        let found = (err["error"]["code"].as_str().unwrap_or_default(), code);
        assert_eq!(found, expected, "{args:?}: {err}");
        err["error"].clone()
    }

    fn draft(&self, file: &str, change: impl Fn(&mut Manifest), modules: &[(&str, &str)]) {
        let mut manifest = Manifest::example();
        change(&mut manifest);
        let mut draft = Draft::new(Manifest {
            source: envelope_format::SourceCode {
                modules: modules
                    .iter()
                    .map(|(name, _)| name.parse().unwrap())
                    .collect(),
                ..manifest.source
            },
            ..manifest
        });
        let lock = format!(
            "lock-version = \"1.0\"\n[[packages]]\nname = \"numpy\"\nversion = \"{}\"\n\
             wheels = [{{ url = \"https://example.com/n.whl\", hashes = {{ sha256 = \"{}\" }} }}]\n",
            draft_version(file),
            "0".repeat(64)
        );
        let members = [
            ("environment/pylock.toml", lock.as_str()),
            ("state/functions.pkl", "no pickle"),
        ];
        for (name, content) in members.iter().chain(modules) {
            draft.add(
                name.parse().unwrap(),
                Content::Text(content.as_bytes().to_vec()),
            );
        }
        draft
            .write(&mut fs::File::create(self.path(file)).unwrap())
            .unwrap();
    }
}

/// Two files, two versions of the package.
fn draft_version(file: &str) -> &str {
    if file.starts_with('b') { "2.1" } else { "1.26" }
}

fn vectors() -> impl Iterator<Item = (PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../envelope-format/vectors/invalid");
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    files
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "envelope")
        })
        .map(|path| {
            let text = fs::read_to_string(path.with_extension("txt")).unwrap();
            (path, text.split(": ").next().unwrap().to_owned())
        })
}

#[test]
fn every_command_refuses_an_envelope_with_the_same_code() {
    let user = User::new();
    let mut opened = 0;
    for (path, code) in vectors() {
        let file = path.to_str().unwrap();
        let rule = path
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .split('-')
            .next()
            .unwrap()
            .to_owned();
        for command in ["import", "verify"] {
            let told = user.refused(&[command, file], (&code, 1));
            assert_eq!(told["broken"]["rule"], json!(rule), "{file}");
            assert!(told["broken"]["offset"].is_u64(), "{file}: {told}");
        }
        // What only reading a member shows is seen by whoever reads it.
        let (shown, _, _) = user.run(&[], &["show", file]);
        if shown == 0 {
            opened += 1;
            continue;
        }
        user.refused(&["serve", file, "--port", "0"], (&code, 1));
        user.refused(&["predict", file, "-i", "x=1"], (&code, 1));
        user.refused(
            &["batch", file, "--input", "in", "--output", "out"],
            (&code, 1),
        );
    }
    assert!(opened > 30);
    assert_eq!(user.done(&["ls"]), json!([]));
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let user = User::new();
    let pipe = user.path("pipe.envelope");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    for command in ["import", "verify", "show"] {
        user.refused(&[command, pipe.to_str().unwrap()], ("not_regular_file", 1));
        user.refused(&[command, "/dev/zero"], ("not_regular_file", 1));
    }
    user.refused(
        &["import", user.0.path().to_str().unwrap()],
        ("not_regular_file", 1),
    );
}

/// A user with an envelope and three pairs of keys, two of which are trusted.
fn with_keys() -> User {
    let user = User::new();
    user.draft("a.envelope", |_| {}, &[]);
    for key in ["one", "two", "other"] {
        user.done(&["keygen", key]);
    }
    let keys = ["one.pub", "two.pub"].map(|file| fs::read_to_string(user.path(file)).unwrap());
    fs::write(user.path("trusted"), keys.concat()).unwrap();
    user
}

const UNTRUSTED: (&str, i32) = ("bad_attestation", 4);

#[test]
fn a_secret_key_is_its_owners_and_never_replaced() {
    let user = with_keys();
    let mode = fs::metadata(user.path("one")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = fs::read(user.path("one")).unwrap();
    user.refused(&["keygen", "one"], ("exists", 5));
    assert_eq!(fs::read(user.path("one")).unwrap(), before);
    assert_ne!(before, fs::read(user.path("two")).unwrap());
    user.refused(
        &["sign", "a.envelope", "--key", "one.pub"],
        ("invalid_key", 2),
    );
    user.refused(
        &["verify", "a.envelope", "--trust", "one"],
        ("invalid_key", 2),
    );
}

#[test]
fn nothing_runs_without_the_word_of_a_trusted_key() {
    let user = with_keys();
    let runs: [&[&str]; 4] = [
        &["verify", "a.envelope"],
        &["predict", "a.envelope", "-i", "x=1"],
        &["serve", "a.envelope", "--port", "0"],
        &["batch", "a.envelope", "--input", "in", "--output", "out"],
    ];
    let each = |expected: Option<(&str, i32)>| {
        for args in runs {
            let asked = [args, &["--trust", "trusted"]].concat();
            let (code, _, told) = user.run(&[], &asked);
            let by_variable = user.run(&[("ENVELOPE_TRUST", "trusted")], args);
            assert_eq!(
                (by_variable.0, &by_variable.2["error"]["code"]),
                (code, &told["error"]["code"])
            );
            let found = (told["error"]["code"].as_str().unwrap(), code);
            match expected {
                Some(expected) => assert_eq!(found, expected, "{args:?}: {told}"),
                // There is no interpreter here: it came as far as needing one.
                None => assert_ne!(found.0, UNTRUSTED.0, "{args:?}: {told}"),
            }
        }
    };
    each(Some(UNTRUSTED));
    user.done(&["sign", "a.envelope", "--key", "other"]);
    each(Some(UNTRUSTED));
    user.done(&["sign", "a.envelope", "--key", "one"]);
    each(None);
    // Two signatures, one of them bad.
    let attestation = user.path("a.envelope.attestation");
    let text = fs::read_to_string(&attestation).unwrap();
    let at = text.rfind("\"signature\": \"").unwrap() + 20;
    let digit = if &text[at..=at] == "0" { "1" } else { "0" };
    fs::write(
        &attestation,
        format!("{}{digit}{}", &text[..at], &text[at + 1..]),
    )
    .unwrap();
    each(Some(UNTRUSTED));
    fs::write(&attestation, &text[..text.len() / 2]).unwrap();
    each(Some(UNTRUSTED));
}

#[test]
fn a_changed_envelope_needs_a_new_word() {
    let user = with_keys();
    user.done(&["sign", "a.envelope", "--key", "one", "-o", "word"]);
    user.draft(
        "a.envelope",
        |manifest| manifest.description = "changed".into(),
        &[],
    );
    let asked = [
        "verify",
        "a.envelope",
        "--trust",
        "trusted",
        "--attestation",
        "word",
    ];
    let told = user.refused(&asked, UNTRUSTED);
    assert_eq!(told["broken"]["rule"], "9.2");
    user.refused(
        &["sign", "a.envelope", "--key", "one", "-o", "word"],
        ("exists", 5),
    );
    // The manifest is the signed one, a member is not: that is seen before anything runs.
    user.done(&["sign", "a.envelope", "--key", "one"]);
    let mut bytes = fs::read(user.path("a.envelope")).unwrap();
    let find = |wanted: &[u8], from: usize| {
        let mut windows = bytes[from..].windows(wanted.len());
        from + windows.position(|window| window == wanted).unwrap()
    };
    let next = find(b"PK\x03\x04", find(b"functions.pkl", 0));
    bytes[next - 2] ^= 1;
    fs::write(user.path("a.envelope"), bytes).unwrap();
    user.refused(
        &["predict", "a.envelope", "-i", "x=1", "--trust", "trusted"],
        ("damaged_member", 1),
    );
}

#[test]
fn an_attestation_expires_and_travels() {
    let user = with_keys();
    user.done(&["sign", "a.envelope", "--key", "one", "--days", "0"]);
    let told = user.refused(&["verify", "a.envelope", "--trust", "trusted"], UNTRUSTED);
    assert_eq!(told["broken"]["rule"], "9.5");
    // What has expired is renewed, what has not is not replaced.
    user.done(&["sign", "a.envelope", "--key", "one", "--days", "1"]);
    user.refused(&["sign", "a.envelope", "--key", "one"], ("exists", 5));
    fs::remove_file(user.path("a.envelope.attestation")).unwrap();
    user.done(&["sign", "a.envelope", "--key", "two", "--days", "1"]);
    user.done(&["import", "a.envelope"]);
    user.done(&["export", "doubler", "copy.envelope"]);
    let copied = fs::read(user.path("copy.envelope.attestation")).unwrap();
    assert_eq!(
        copied,
        fs::read(user.path("a.envelope.attestation")).unwrap()
    );
    let (_, _, told) = user.run(
        &[],
        &["predict", "doubler", "-i", "x=1", "--trust", "trusted"],
    );
    assert_ne!(told["error"]["code"], UNTRUSTED.0, "{told}");
}

#[test]
fn a_difference_is_told_section_by_section() {
    let user = User::new();
    let old = ("modules/features.py", "A = 1\nB = 2\n");
    user.draft("a.envelope", |_| {}, &[old, ("modules/gone.bin", "x")]);
    user.draft("c.envelope", |_| {}, &[old, ("modules/gone.bin", "x")]);
    let change = |manifest: &mut Manifest| {
        manifest.description = "triples".into();
        manifest.tags.insert("region".into(), "UK".into());
        manifest.environment.python.version = "3.11.9".into();
        manifest.functions[0].signature.input.fields[0].nullable = true;
        manifest.functions[0].certificate.row_wise = false;
    };
    user.draft(
        "b.envelope",
        change,
        &[("modules/features.py", "A = 1\nB = 3\n")],
    );
    let told = user.done(&["diff", "a.envelope", "b.envelope"]);
    assert_eq!(told["equal"], json!(false));
    assert_eq!(
        told["description"],
        json!([{"path": "", "a": "doubles", "b": "triples"}])
    );
    assert_eq!(
        told["tags"],
        json!([{"path": "region", "a": "US", "b": "UK"}])
    );
    assert_eq!(
        told["packages"],
        json!([{"path": "numpy", "a": "1.26", "b": "2.1"}])
    );
    assert_eq!(
        told["environment"],
        json!([{"path": "python.version", "a": "3.11.7", "b": "3.11.9"}])
    );
    let modules = told["modules"].as_array().unwrap();
    assert_eq!(modules.len(), 2);
    assert!(
        modules[0]["diff"]
            .as_str()
            .unwrap()
            .contains("-B = 2\n+B = 3\n"),
        "{told}"
    );
    assert_eq!(
        (&modules[1]["path"], &modules[1]["b"]),
        (&json!("gone.bin"), &Value::Null)
    );
    let function = &told["functions"][0];
    assert_eq!(
        function["signature"],
        json!([{"path": "input.fields.x.nullable", "a": false, "b": true}])
    );
    assert_eq!(
        function["certificate"],
        json!([{"path": "row_wise", "a": true, "b": false}])
    );
    assert_eq!(told["code"], json!([]));

    assert_eq!(
        user.done(&["diff", "a.envelope", "c.envelope"])["equal"],
        json!(true)
    );
    user.done(&["diff", "a.envelope", "c.envelope", "--exit-code"]);
    user.refused(
        &["diff", "a.envelope", "b.envelope", "--exit-code"],
        ("different", 1),
    );
    user.refused(&["diff", "a.envelope", "none.envelope"], ("not_found", 3));
}

#[test]
fn a_difference_is_readable() {
    let user = User::new();
    user.draft("a.envelope", |_| {}, &[]);
    user.draft(
        "b.envelope",
        |manifest| manifest.functions[0].doc = "Doubles.\u{1b}[2J".into(),
        &[],
    );
    let output = Command::new(env!("CARGO_BIN_EXE_envelope"))
        .args(["diff", "a.envelope", "b.envelope"])
        .current_dir(&user.0)
        .env("HOME", user.0.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().skip(2).collect();
    let expected = [
        "packages",
        "  - numpy: 1.26",
        "  + numpy: 2.1",
        "doc of `double`",
        "  - ",
        "  + Doubles.\\u{1b}[2J",
    ];
    assert_eq!(lines, expected, "{text}");
}
