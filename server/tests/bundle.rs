//! An executable that carries its environment, on machines that have less than this one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File, Permissions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::Instant;

use runtime::Environment;
use serde_json::{Value, json};
use server::{Built, Hints, Needs, Surroundings, build, payload};
use tempfile::TempDir;

const STUB: &str = env!("CARGO_BIN_EXE_envelope-service");

/// Builds an executable that carries its environment.
fn bundle(envelope: &str, out: &Path) -> Built {
    bundle_as(envelope, out, |environment| environment)
}

/// The same for an environment that is entered in another way.
fn bundle_as(envelope: &str, out: &Path, change: fn(Environment) -> Environment) -> Built {
    let path = acceptance::envelope_path(envelope);
    let environments = acceptance::environments();
    let envelope = acceptance::envelope(envelope);
    let executor = tokio::runtime::Runtime::new().unwrap();
    let environment = executor.block_on(environments.realise(&envelope, &|_| ()));
    let surroundings = Surroundings::Carried(&change(environment.unwrap()));
    build(Path::new(STUB), &path, surroundings, out).unwrap()
}

/// A small one, built once for all tests, which run in several processes.
fn small() -> &'static [u8] {
    static SMALL: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let path = acceptance::scratch().join("plain.service");
        fs::create_dir_all(acceptance::scratch()).unwrap();
        let guard = File::create(path.with_extension("service-lock")).unwrap();
        guard.lock().unwrap();
        let modified = |path: &Path| path.metadata().and_then(|found| found.modified()).ok();
        let envelope = acceptance::envelope_path("plain");
        let makers = [Path::new(STUB), &envelope];
        if makers.iter().any(|maker| modified(&path) < modified(maker)) {
            bundle("plain", &path);
        }
        fs::read(path).unwrap()
    });
    &SMALL
}

/// An executable in a folder of its own, which is its home.
struct Machine {
    folder: TempDir,
}

impl Machine {
    fn empty() -> Self {
        let machine = Self {
            folder: TempDir::new().unwrap(),
        };
        for folder in ["home", "tmp"] {
            fs::create_dir(machine.path(folder)).unwrap();
        }
        machine
    }

    fn new(executable: &[u8]) -> Self {
        let machine = Self::empty();
        fs::write(machine.path("bytes"), executable).unwrap();
        // Another process writes it: what a test beside this one starts at the same moment would
        // inherit our descriptor, and a program that is open for writing is not executed.
        let copied = Command::new("cp")
            .args([machine.path("bytes"), machine.program()])
            .status();
        assert!(copied.unwrap().success());
        fs::set_permissions(machine.program(), Permissions::from_mode(0o755)).unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self) -> PathBuf {
        self.path("service")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program());
        command.args(["--port", "0", "--workers", "1"]);
        command.env_clear().env("HOME", self.path("home"));
        command.env("TMPDIR", self.path("tmp"));
        command
    }

    /// The unpacked environments below a cache.
    fn unpacked(cache: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(cache.join("carried")).unwrap();
        let folders = entries.map(|entry| entry.unwrap().path());
        folders.filter(|path| path.is_dir()).collect()
    }

    fn cache(&self) -> PathBuf {
        self.path("home/.cache/model-envelope")
    }

    fn refuses(&self, changed: impl FnOnce(&mut Command)) -> (Option<i32>, String) {
        let mut command = self.command();
        changed(&mut command);
        let Output { status, stderr, .. } = command.output().unwrap();
        (status.code(), String::from_utf8(stderr).unwrap())
    }
}

/// A service that is ready; ends with the test.
struct Ready {
    process: Child,
    address: String,
}

impl Ready {
    fn new(command: &mut Command) -> Self {
        Self::wait(command.stderr(Stdio::piped()).spawn().unwrap())
    }

    fn wait(mut process: Child) -> Self {
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut told = vec![];
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let address = line.split_once(" answers at http://");
            let address = address.map(|(_, address)| address.to_owned());
            told.push(line);
            address
        });
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let address = address.unwrap_or_else(|| {
            panic!("{:?}: {told:#?}", process.wait());
        });
        Self { process, address }
    }

    fn post(&self, body: &str) -> Value {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        write!(
            stream,
            "POST /predict HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The executable with something else written in what it says it needs, of the same length.
fn saying(before: &str, after: &str) -> Vec<u8> {
    assert_eq!(before.len(), after.len());
    let mut bytes = small().to_vec();
    let at = bytes
        .windows(before.len())
        .rposition(|window| window == before.as_bytes())
        .expect("it says so");
    bytes[at..at + after.len()].copy_from_slice(after.as_bytes());
    bytes
}

/// What an executable answers to `body` in a root that holds glibc alone, and what it says meanwhile.
fn answer_in_bare_root(program: &Path, body: &Value) -> (Value, String) {
    let output = Command::new(acceptance::root().join(".venv/bin/python"))
        .arg(acceptance::root().join("tests/bare_root.py"))
        .arg(program)
        .arg(body.to_string())
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    assert!(
        told.contains("workers are confined: default: landlock"),
        "{told}"
    );
    (serde_json::from_slice(&output.stdout).unwrap(), told)
}

#[test]
fn without_python_and_network_it_answers() {
    let machine = Machine::new(small());
    let body = json!({"data": [{"a": 1, "s": "x"}, {"a": -2, "s": "four"}]});
    let (answer, _) = answer_in_bare_root(&machine.program(), &body);
    assert_eq!(answer, json!({"predictions": [2, 2]}));
}

#[test]
fn an_interpreter_that_is_executed_is_carried_as_well() {
    let machine = Machine::empty();
    bundle_as("plain", &machine.program(), Environment::without_library);
    let body = json!({"data": [{"a": 40, "s": "xy"}]});
    let (answer, _) = answer_in_bare_root(&machine.program(), &body);
    assert_eq!(answer, json!({"predictions": [42]}));
}

#[test]
#[ignore = "packs pandas and scikit-learn: `make bundle-test`"]
fn a_pipeline_gives_the_same_bits_as_where_it_was_built() {
    let machine = Machine::empty();
    let began = Instant::now();
    let built = bundle("sklearn_pipeline", &machine.program());
    println!(
        "{built:#?}\nbuilt in {:.1} s",
        began.elapsed().as_secs_f64()
    );
    let data: Vec<_> = (0..50)
        .map(|row| json!({"a": f64::from(row) / 3.0, "b": f64::from(row % 5), "colour": "red"}))
        .collect();
    let body = json!({"data": data});
    let (answer, told) = answer_in_bare_root(&machine.program(), &body);
    println!("{told}");
    assert_eq!(answer, answer_here("sklearn_pipeline", &body));
}

/// What the envelope's function answers in the environment that was packed.
fn answer_here(envelope: &str, body: &Value) -> Value {
    let machine = Machine::empty();
    let hints = Hints::from(acceptance::environments());
    let path = acceptance::envelope_path(envelope);
    let surroundings = Surroundings::Machine(&hints);
    build(Path::new(STUB), &path, surroundings, &machine.program()).unwrap();
    Ready::new(&mut machine.command()).post(&body.to_string())
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let machine = Machine::new(small());
    let again = machine.path("again");
    let built = bundle("plain", &again);
    assert!(fs::read(again).unwrap() == small());
    let carried = built.carried.unwrap();
    assert!(
        carried
            .libraries
            .iter()
            .any(|name| name.starts_with("libffi.so"))
    );
    assert!(carried.of_glibc.contains(&"libc.so.6".to_owned()));
    let payload = payload(&machine.program()).unwrap().unwrap();
    assert_eq!(payload.needs, Needs::Carried(Box::new(carried)));
}

#[test]
fn a_later_start_uses_what_was_unpacked_and_repairs_it() {
    let machine = Machine::new(small());
    drop(Ready::new(&mut machine.command()));
    let [folder] = Machine::unpacked(&machine.cache()).try_into().unwrap();
    let made = folder.metadata().unwrap().created().unwrap();
    drop(Ready::new(&mut machine.command()));
    assert_eq!(folder.metadata().unwrap().created().unwrap(), made);
    fs::remove_dir_all(folder.join("python/lib")).unwrap();
    drop(Ready::new(&mut machine.command()));
    assert_ne!(folder.metadata().unwrap().created().unwrap(), made);
}

#[test]
fn two_that_start_at_once_unpack_once() {
    let machine = Machine::new(small());
    let start = || machine.command().stderr(Stdio::piped()).spawn().unwrap();
    let (one, other) = (start(), start());
    let _both = (Ready::wait(one), Ready::wait(other));
    assert_eq!(Machine::unpacked(&machine.cache()).len(), 1);
}

#[test]
fn without_any_environment_variable_it_starts() {
    let machine = Machine::new(small());
    let mut command = machine.command();
    // The user's own home must stay as it is.
    let output = command
        .env_clear()
        .arg("--cache-dir")
        .arg(machine.path("home"));
    drop(Ready::new(output));
}

#[test]
fn where_the_home_cannot_be_written_a_private_folder_is_used() {
    let machine = Machine::new(small());
    let mut command = machine.command();
    // A file, where a folder would have to be made: nobody can, not even the administrator.
    fs::write(machine.path("home/.cache"), "").unwrap();
    drop(Ready::new(&mut command));
    let [place] = fs::read_dir(machine.path("tmp"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains("model-envelope-"))
        .filter(|path| path.join("carried").is_dir())
        .collect::<Vec<_>>()
        .try_into()
        .unwrap();
    assert_eq!(
        place.metadata().unwrap().permissions().mode() & 0o777,
        0o700
    );
}

#[test]
fn without_a_place_it_says_what_to_set() {
    let machine = Machine::new(small());
    fs::write(machine.path("file"), "").unwrap();
    let nowhere = machine.path("file");
    let (status, told) = machine.refuses(|command| {
        command.env("ENVELOPE_CACHE_DIR", &nowhere);
    });
    assert_eq!(status, Some(1), "{told}");
    assert!(told.contains("error[no_place_to_unpack]"), "{told}");
    assert!(
        told.contains("set ENVELOPE_CACHE_DIR to a folder with"),
        "{told}"
    );
    let (status, told) = machine.refuses(|command| {
        command.env("ENVELOPE_CACHE_DIR", "/proc/nowhere");
    });
    assert_eq!(status, Some(1), "{told}");
}

#[test]
fn a_folder_that_everybody_can_write_to_is_not_used() {
    let machine = Machine::new(small());
    fs::set_permissions(machine.path("home"), Permissions::from_mode(0o777)).unwrap();
    let (status, told) = machine.refuses(|command| {
        command.env("ENVELOPE_CACHE_DIR", machine.path("home"));
    });
    assert_eq!(status, Some(4), "{told}");
    assert!(told.contains("error[folder_of_another_user]"), "{told}");
}

#[test]
fn a_damaged_environment_is_not_unpacked() {
    let machine = Machine::new(small());
    let payload = payload(&machine.program()).unwrap().unwrap();
    let Needs::Carried(carried) = &payload.needs else {
        panic!("it carries its environment");
    };
    let at = payload.offset + payload.length + carried.packed_bytes / 2;
    let mut bytes = small().to_vec();
    bytes[usize::try_from(at).unwrap()] ^= 1;
    let machine = Machine::new(&bytes);
    let (status, told) = machine.refuses(|_| ());
    assert_eq!(status, Some(1), "{told}");
    assert!(told.contains("error[damaged_executable]"), "{told}");
    assert!(told.contains("build the executable again"), "{told}");
    assert!(Machine::unpacked(&machine.cache()).is_empty());
}

#[test]
fn what_the_machine_lacks_is_told_before_anything_is_unpacked() {
    let glibc = small_glibc();
    let newer = format!("\"glibc\":\"9{}\"", &glibc[1..]);
    let cases = [
        (format!("\"glibc\":\"{glibc}\""), newer, "older_glibc"),
        (
            "\"x86_64\"".into(),
            "\"sparc9\"".into(),
            "another_architecture",
        ),
        (
            "\"libm.so.6\"".into(),
            "\"libm.so.7\"".into(),
            "missing_library",
        ),
    ];
    for (before, after, code) in cases {
        let machine = Machine::new(&saying(&before, &after));
        let (status, told) = machine.refuses(|_| ());
        assert_eq!(status, Some(1), "{told}");
        assert!(told.contains(&format!("error[{code}]")), "{told}");
        assert!(told.contains("hint: "), "{told}");
        assert!(!machine.cache().exists());
    }
}

fn small_glibc() -> String {
    let machine = Machine::new(small());
    let payload = payload(&machine.program()).unwrap().unwrap();
    let Needs::Carried(carried) = payload.needs else {
        panic!("it carries its environment");
    };
    carried.glibc.to_string()
}
