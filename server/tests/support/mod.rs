//! A service with something simple to call in place of Python, and clients that write their bytes
//! by hand.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::{Read, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray as _;
use arrow_array::types::Float64Type;
use arrow_array::{Float64Array, RecordBatch};
use async_trait::async_trait;
use envelope_format::{DataType, Digest, Field, Manifest, Rows, Shape};
use runtime::{Error, PythonError, Usage};
use server::{Calls, Components, Settings, Swap, serve_with};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Multiplies its column by a factor. Below zero it misbehaves: -1 raises, -3 is slow, -7 gives more
/// rows than the buffers of a connection hold, -8 gives something else when it is not alone.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) factor: f64,
    pub(crate) delay: Duration,
    pub(crate) called: AtomicUsize,
    /// Its workers have ended.
    pub(crate) has_ended: AtomicBool,
}

pub(crate) const SLOW: Duration = Duration::from_millis(300);

#[async_trait]
impl Calls for Model {
    async fn call(
        &self,
        function: &str,
        rows: RecordBatch,
        _deadline: Duration,
    ) -> Result<RecordBatch, Error> {
        self.called.fetch_add(1, Ordering::SeqCst);
        let column = rows.column(0).as_primitive::<Float64Type>();
        let values = column.values().to_vec();
        tokio::time::sleep(self.delay).await;
        if values.contains(&-3.0) {
            tokio::time::sleep(SLOW).await;
        }
        if self.has_ended.load(Ordering::SeqCst) {
            return Err(Error::Stopped);
        }
        if values.contains(&-1.0) {
            let exception = PythonError {
                kind: "ValueError".into(),
                message: "no".into(),
                traceback: String::new(),
            };
            return Err(Error::Function {
                function: function.into(),
                exception,
            });
        }
        if values[0] == -7.0 {
            return Ok(batch(vec![self.factor; 4_000_000]));
        }
        let crowded = if values.len() > 1 { 1.0 } else { 0.0 };
        Ok(batch(values.into_iter().map(|value| {
            let wrong = if value == -8.0 { crowded } else { 0.0 };
            value * self.factor + wrong
        })))
    }

    fn most_workers(&self) -> usize {
        2
    }

    fn usage(&self) -> Usage {
        Usage {
            workers: 2,
            ..Usage::default()
        }
    }

    async fn shutdown(&self, _grace: Duration) {
        self.has_ended.store(true, Ordering::SeqCst);
    }
}

pub(crate) fn batch(values: impl IntoIterator<Item = f64>) -> RecordBatch {
    let column = Float64Array::from_iter_values(values);
    RecordBatch::try_from_iter([("x", Arc::new(column) as _)]).unwrap()
}

/// The digest of the envelope that multiplies by `factor`.
pub(crate) fn digest(factor: f64) -> Digest {
    Digest::of(factor.to_string().as_bytes())
}

/// An envelope that multiplies by `factor`.
pub(crate) fn components(factor: f64) -> (Components, Arc<Model>) {
    slow_components(factor, Duration::ZERO)
}

pub(crate) fn slow_components(factor: f64, delay: Duration) -> (Components, Arc<Model>) {
    let mut manifest = Manifest::example();
    manifest.functions[0].signature.input = Rows {
        shape: Shape::PandasDataFrame,
        fields: vec![Field::new("x", DataType::Float64, false)],
    };
    let model = Arc::new(Model {
        factor,
        delay,
        called: AtomicUsize::new(0),
        has_ended: AtomicBool::new(false),
    });
    let components = Components {
        manifest,
        digest: digest(factor),
        samples: vec![Some(batch([1.0]))],
        calls: model.clone(),
    };
    (components, model)
}

/// A running service. It is told to stop when it is dropped.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    pub(crate) swap: Swap,
    pub(crate) executor: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), server::Error>>>,
}

impl Service {
    pub(crate) fn start(settings: Settings) -> Self {
        Self::of(settings, components(2.0).0)
    }

    pub(crate) fn of(settings: Settings, components: Components) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let settings = Settings {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            allow_hosts: vec!["x".into()],
            ..settings
        };
        let thread = spawn(move || {
            let mut builder = Builder::new_multi_thread();
            let executor = builder.worker_threads(2).enable_all().build().unwrap();
            let handle = executor.handle().clone();
            executor.block_on(async {
                let swap = Swap::new(settings, components);
                let on_ready = |address| ready.send((address, swap.clone(), handle)).unwrap();
                serve_with(swap.clone(), async { drop(stopped.await) }, on_ready).await
            })
        });
        let (address, swap, executor) = is_ready.recv().unwrap();
        Self {
            address,
            swap,
            executor,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        patient(TcpStream::connect(self.address).unwrap())
    }

    /// A connection from another address of this machine: 127.0.0.`last`.
    pub(crate) fn connect_from(&self, last: u8) -> std::io::Result<TcpStream> {
        let executor = Builder::new_current_thread().enable_all().build()?;
        let stream = executor.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind((IpAddr::from([127, 0, 0, last]), 0).into())?;
            socket.connect(self.address).await?.into_std()
        })?;
        stream.set_nonblocking(false)?;
        Ok(patient(stream))
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        let mut stream = self.connect();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        Answer::read(&mut stream).unwrap()
    }

    pub(crate) fn ask(&self, x: f64) -> Answer {
        self.ask_with(x, "")
    }

    pub(crate) fn ask_with(&self, x: f64, headers: &str) -> Answer {
        let mut stream = self.connect();
        stream.write_all(call(x, headers).as_bytes()).unwrap();
        Answer::read(&mut stream).unwrap()
    }

    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

fn patient(stream: TcpStream) -> TcpStream {
    let limit = Some(Duration::from_secs(30));
    stream.set_read_timeout(limit).unwrap();
    stream.set_write_timeout(limit).unwrap();
    stream
}

/// A call with one row.
pub(crate) fn call(x: f64, headers: &str) -> String {
    post(headers, &format!("{{\"data\":[{{\"x\":{x}}}]}}"))
}

pub(crate) fn post(headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
}

/// An answer as it came over the wire.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// Reads one answer; those of this service always state their length.
    pub(crate) fn read(stream: &mut impl Read) -> std::io::Result<Self> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let mut answer = Self {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            body: String::new(),
        };
        let length = answer
            .header("content-length")
            .map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        answer.body = String::from_utf8(body).unwrap();
        Ok(answer)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut pairs = self.head.lines().filter_map(|line| line.split_once(": "));
        pairs
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    pub(crate) fn code(&self) -> String {
        let problem: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        problem["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// What `attempt` finds in the end.
#[track_caller]
pub(crate) fn eventually<T>(attempt: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(Instant::now() < deadline, "it did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until it is so.
#[track_caller]
pub(crate) fn becomes(what: impl Fn() -> bool) {
    eventually(|| what().then_some(()));
}

/// Whether the other side has ended the connection, whatever it said before.
pub(crate) fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read_to_end(&mut vec![]) {
        Ok(_) => true,
        // Not that it is time to give up waiting.
        Err(error) => !matches!(
            error.kind(),
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
        ),
    }
}

/// Somebody who uses the service as it is meant to be, while it is attacked. Each of its calls must
/// be answered right.
pub(crate) struct Honest {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Honest {
    /// Over one connection that stays, and over a new one for every tenth call.
    pub(crate) fn begin(service: &Service) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, address) = (is_over.clone(), service.address);
        let connect = move || patient(TcpStream::connect(address).unwrap());
        let thread = spawn(move || {
            let mut stream = connect();
            let mut count = 0;
            while !over.load(Ordering::SeqCst) || count < 20 {
                if count % 10 == 9 {
                    stream = connect();
                }
                let x = f64::from(u32::try_from(count).unwrap());
                stream.write_all(call(x, "").as_bytes()).unwrap();
                let answer = Answer::read(&mut stream).unwrap();
                let expected = format!("{{\"predictions\":[{:?}]}}", x * 2.0);
                assert_eq!((answer.status, answer.body), (200, expected));
                count += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
            count
        });
        Self { is_over, thread }
    }

    /// It has been served all the time; tells how many calls.
    pub(crate) fn end(self) -> usize {
        self.is_over.store(true, Ordering::SeqCst);
        self.thread.join().expect("an honest client was not served")
    }
}
