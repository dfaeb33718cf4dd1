//! What a worker can do at each level, and what it must be able to do.
//!
//! The launcher is the real one and the paths are those of real workers; in place of the worker
//! core it loads a script. What it finds is compared with the tables in `runtime/tests/sandbox`;
//! with `SANDBOX_RECORD` set they are written anew.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::Environments;

const LAUNCHER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/envelope-launcher"));

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sandbox")
}

/// A machine with a launcher and an interpreter, and a user's files outside of any sandbox.
struct Machine {
    environment: Environment,
    /// The launcher, its scripts, and where workers write.
    ours: TempDir,
    /// What workers have no business with.
    outside: TempDir,
}

impl Machine {
    async fn new() -> Self {
        let ours = tempfile::tempdir().expect("a folder");
        let launcher = ours.path().join("launcher");
        fs::write(&launcher, LAUNCHER).expect("room for it");
        fs::set_permissions(&launcher, fs::Permissions::from_mode(0o755)).expect("it is ours");
        for script in ["probe.py", "must_work.py"] {
            fs::copy(scripts().join(script), ours.path().join(script)).expect("it is there");
        }
        let environments = Environments {
            cache: ours.path().to_owned(),
            ..Environments::default()
        };
        let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/bin/python");
        let python = if venv.exists() {
            venv
        } else {
            "python3".into()
        };
        let environment = environments.current(&python).await.expect("a Python");
        let outside = tempfile::tempdir().expect("a folder");
        Self {
            environment,
            ours,
            outside,
        }
    }

    /// Runs `script` in a worker's place; gives what it left in `result`.
    fn run(&self, script: &str, sandbox: &Sandbox, facts: &serde_json::Value) -> (String, Output) {
        let scratch = tempfile::tempdir().expect("a folder");
        fs::write(scratch.path().join("facts"), facts.to_string()).expect("room for it");
        let core = self.ours.path().join(script);
        let launcher = self.ours.path().join("launcher");
        let arguments = sandbox
            .arguments(&self.environment, &[&core], scratch.path(), None)
            .expect("the grants exist");
        let python = &self.environment.python;
        let library = self.environment.library.as_deref();
        let bin = python.parent().expect("it is in a folder");
        let output = Command::new(launcher)
            .arg(python)
            .arg(library.unwrap_or(Path::new("-")))
            .arg(&self.environment.version)
            .arg(&core)
            .args(arguments)
            .env_clear()
            .env("HOME", scratch.path())
            .env("TMPDIR", scratch.path())
            .env("LANG", "C.UTF-8")
            .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
            .current_dir(scratch.path())
            .stdin(Stdio::null())
            .output()
            .expect("it starts");
        let result = fs::read_to_string(scratch.path().join("result")).unwrap_or_default();
        (result, output)
    }

    fn confinement(&self, level: SandboxLevel, output: &Output) -> Confinement {
        let line = String::from_utf8_lossy(&output.stdout);
        let found = Confinement::from_report(&line, level);
        found
            .unwrap_or_else(|error| panic!("{} has no such sandbox: {error}", self.described()))
            .expect("the launcher says what it did")
    }

    fn described(&self) -> String {
        self.environment.python.display().to_string()
    }
}

/// What is there to be attacked.
struct Targets {
    facts: serde_json::Value,
    grants: [PathBuf; 2],
    _listeners: (TcpListener, UdpSocket, UnixListener, UnixListener),
}

impl Targets {
    fn new(outside: &Path) -> Self {
        use std::os::linux::net::SocketAddrExt as _;
        use std::os::unix::net::SocketAddr;

        let key = outside.join("home/.ssh/id_ed25519");
        fs::create_dir_all(key.parent().expect("a folder")).expect("room for it");
        fs::write(&key, "secret").expect("room for it");
        let grants = ["read", "write"].map(|name| outside.join("granted").join(name));
        for grant in &grants {
            fs::create_dir_all(grant).expect("room for it");
            fs::write(grant.join("file"), "granted").expect("room for it");
        }
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let path = outside.join("socket");
        let unix = UnixListener::bind(&path).expect("a socket");
        let name = format!("sandbox-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let unnamed = UnixListener::bind_addr(&address).expect("a socket");
        let port = |address: std::io::Result<std::net::SocketAddr>| address.expect("bound").port();
        let facts = json!({
            "host": std::process::id(),
            "outside": outside,
            "key": key,
            "read": grants[0],
            "write": grants[1],
            "tcp": port(tcp.local_addr()),
            "udp": port(udp.local_addr()),
            "unix": path,
            "abstract": name,
        });
        Self {
            facts,
            grants,
            _listeners: (tcp, udp, unix, unnamed),
        }
    }
}

/// Lines that say the same on every machine. `root:` is what root can do where only rights stop it;
/// `kernel:` is what depends on how the kernel was built and set up. What the sandbox stops, it
/// stops everywhere. `landlock N:` needs that version, `landlock <N:` an older one.
fn comparable(table: &str, level: SandboxLevel, landlock: u32) -> Vec<&str> {
    let is_root = rustix::process::getuid().is_root();
    let stops = level >= SandboxLevel::Default;
    let of_version = |text: &str| match text.strip_prefix('<') {
        Some(below) => below.parse().is_ok_and(|below: u32| landlock < below),
        None => text.parse().is_ok_and(|needed: u32| landlock >= needed),
    };
    let compared = |line: &&str| match line.split_once(": ") {
        Some(("root", _)) => is_root || stops,
        Some(("kernel", _)) => stops,
        Some((tag, _)) if stops => tag.strip_prefix("landlock ").is_none_or(of_version),
        Some(_) | None => true,
    };
    table.lines().filter(compared).collect()
}

/// Whether the machine gives the level. Many forbid namespaces: there `strong` starts nothing, which is
/// its promise.
fn is_given(level: SandboxLevel, output: &Output) -> bool {
    let is_refused = level == SandboxLevel::Strong && output.stdout.starts_with(b"!");
    if is_refused {
        println!(
            "not on this machine: {}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
    !is_refused
}

#[tokio::test]
async fn each_level_allows_and_denies_what_its_table_says() {
    let machine = Machine::new().await;
    for level in SandboxLevel::ALL {
        let targets = Targets::new(machine.outside.path());
        let [read, write] = targets.grants.clone();
        let sandbox = Sandbox {
            level,
            read: vec![read],
            write: vec![write],
            ..Sandbox::default()
        };
        let (found, output) = machine.run("probe.py", &sandbox, &targets.facts);
        if !is_given(level, &output) {
            continue;
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!found.is_empty(), "{level}: {stderr}");
        let confinement = machine.confinement(level, &output);
        assert_eq!(confinement.level, level, "{confinement}");
        let path = scripts().join(format!("{level}.txt"));
        if std::env::var_os("SANDBOX_RECORD").is_some() {
            fs::write(&path, &found).expect("room for it");
        }
        let expected = fs::read_to_string(&path).expect("the table is there");
        let landlock = confinement.layers.split([' ', ',']).nth(1);
        let landlock = landlock.and_then(|text| text.parse().ok()).unwrap_or(0);
        let [expected, found] = [&expected, &found].map(|table| comparable(table, level, landlock));
        assert_same_lines(level, &expected, &found);
        fs::remove_dir_all(machine.outside.path()).expect("ours");
        fs::create_dir(machine.outside.path()).expect("ours");
    }
}

fn assert_same_lines(level: SandboxLevel, expected: &[&str], found: &[&str]) {
    let differ = |one: &[&str], other: &[&str]| {
        let lines = one.iter().filter(|line| !other.contains(*line));
        lines.map(ToString::to_string).collect::<Vec<_>>()
    };
    let (lost, new) = (differ(expected, found), differ(found, expected));
    assert!(
        lost.is_empty() && new.is_empty(),
        "level {level}\nexpected {lost:#?}\nfound {new:#?}"
    );
}

#[tokio::test]
async fn with_a_grant_the_network_can_be_reached() {
    let machine = Machine::new().await;
    let targets = Targets::new(machine.outside.path());
    for level in [SandboxLevel::Default, SandboxLevel::Strong] {
        let sandbox = Sandbox {
            level,
            network: true,
            ..Sandbox::default()
        };
        let (found, output) = machine.run("probe.py", &sandbox, &targets.facts);
        if !is_given(level, &output) {
            continue;
        }
        for action in ["connect by TCP", "listen on TCP", "send by UDP"] {
            let line = format!("{action}\tallowed");
            assert!(found.lines().any(|found| found == line), "{level}: {found}");
        }
    }
}

#[tokio::test]
async fn what_models_are_made_with_works_at_the_default_level() {
    let machine = Machine::new().await;
    for level in [SandboxLevel::Default, SandboxLevel::Strong] {
        let sandbox = Sandbox {
            level,
            ..Sandbox::default()
        };
        let (found, output) = machine.run("must_work.py", &sandbox, &json!({}));
        if !is_given(level, &output) {
            continue;
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(found.lines().count() > 10, "{found}{stderr}");
        let bad = |line: &&str| !line.ends_with("\tworks") && !line.ends_with("\tabsent");
        let failed: Vec<_> = found.lines().filter(bad).collect();
        assert!(failed.is_empty(), "{level}: {failed:#?}\n{stderr}");
    }
}

#[tokio::test]
async fn memory_beyond_the_limit_is_a_memory_error() {
    let machine = Machine::new().await;
    let sandbox = Sandbox {
        memory: Some(256 << 20),
        ..Sandbox::default()
    };
    let (found, _) = machine.run("probe.py", &sandbox, &json!({ "allocate": 512 << 20 }));
    assert_eq!(found, "MemoryError\n");
    let (found, _) = machine.run("probe.py", &sandbox, &json!({ "allocate": 64 << 20 }));
    assert_eq!(found, "allowed\n");
}

#[test]
fn a_refusal_says_what_is_missing_and_how_to_allow_it() {
    let refused = Confinement::from_report("!Landlock (Linux 5.13)\n", SandboxLevel::Default);
    let text = refused.expect_err("it was refused").to_string();
    assert_eq!(
        text,
        "this machine does not give the sandbox level `default`: no Landlock (Linux 5.13); choose a \
         lower level, or allow to start with less (`allow_degraded`)"
    );
}

#[test]
fn levels_have_names() {
    for level in SandboxLevel::ALL {
        assert_eq!(level.to_string().parse(), Ok(level));
    }
    assert!("max".parse::<SandboxLevel>().is_err());
}

#[test]
fn grants_are_of_three_kinds() {
    assert_eq!("network".parse(), Ok(Grant::Network));
    assert_eq!("read=/a=b".parse(), Ok(Grant::Read("/a=b".into())));
    assert_eq!("write=/a".parse(), Ok(Grant::Write("/a".into())));
    for text in ["", "net", "read", "read=", "network=1", "exec=/a"] {
        assert!(text.parse::<Grant>().is_err(), "{text}");
    }
    let sandbox =
        Sandbox::default().granting(["network", "read=/a"].map(|text| text.parse().expect("good")));
    assert!(sandbox.network);
    assert_eq!(sandbox.read, [Path::new("/a")]);
}
