//! A service executable with real workers, as an operator runs it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use acceptance::{Relative, descendants};
use rustix::process::{Pid, Signal, kill_process};
use server::{Hints, Surroundings, build};
use tempfile::TempDir;

/// A running service. It is killed when it is dropped.
pub(crate) struct Served {
    process: Child,
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    program: PathBuf,
    _folder: TempDir,
}

impl Served {
    /// Builds the executable of an envelope of the acceptance tests, and waits until it is ready.
    pub(crate) fn start(envelope: &str, arguments: &[&str]) -> Self {
        Self::of(&acceptance::envelope_path(envelope), arguments)
    }

    /// Builds the executable of an envelope, and waits until it is ready.
    pub(crate) fn of(envelope: &Path, arguments: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let program = folder.path().join("service");
        let hints = Hints::from(acceptance::environments());
        let stub = Path::new(env!("CARGO_BIN_EXE_envelope-service"));
        build(stub, envelope, Surroundings::Machine(&hints), &program).unwrap();
        let mut process = Command::new(&program)
            .args(["--port", "0"])
            .args(arguments)
            .env_clear()
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let address =
            lines.find_map(|line| Some(line.split_once(" answers at http://")?.1.parse()));
        let log = Arc::<Mutex<Vec<String>>>::default();
        // Somebody must read its log, or it stops at a full pipe.
        std::thread::spawn({
            let log = Arc::clone(&log);
            move || lines.for_each(|line| log.lock().unwrap().push(line))
        });
        Self {
            process,
            address: address.unwrap().unwrap(),
            log,
            program,
            _folder: folder,
        }
    }

    /// What it says about its flags.
    pub(crate) fn help(&self) -> String {
        let output = Command::new(&self.program).arg("--help").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Lines of its log since it was ready that contain `text`.
    pub(crate) fn logged(&self, text: &str) -> usize {
        let log = self.log.lock().unwrap();
        log.iter().filter(|line| line.contains(text)).count()
    }

    /// Has it look again for what should be served.
    pub(crate) fn hang_up(&self) {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, Signal::HUP).unwrap();
    }

    pub(crate) fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let limit = Some(Duration::from_secs(10));
        stream.set_read_timeout(limit).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// The sum of the series of a metric.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics");
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let value = rest.starts_with(['{', ' ']).then(|| rest.rsplit_once(' '));
            value??.1.parse::<f64>().ok()
        });
        values.sum()
    }

    /// Bytes that the service itself has, by a line of its `status`.
    pub(crate) fn memory(&self, line: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).unwrap();
        let found = status.lines().find_map(|text| text.strip_prefix(line));
        let kilobytes = found.and_then(|text| text.split_whitespace().next());
        kilobytes.unwrap().parse::<u64>().unwrap() << 10
    }

    /// Its workers: the processes below it that have none below themselves.
    pub(crate) fn workers(&self) -> Vec<Relative> {
        let all = descendants(self.process.id());
        let is_parent = |one: &Relative| all.iter().any(|other| other.parent == one.pid);
        all.iter().copied().filter(|one| !is_parent(one)).collect()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}
