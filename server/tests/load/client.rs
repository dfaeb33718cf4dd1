//! Clients over HTTP/1.1 and HTTP/2, of which some go away whenever it suits them.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use futures::future::join_all;
use futures::{StreamExt as _, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::Request;
use hyper::body::Frame;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::load::Load;
use crate::tally::Tally;

/// A call, and what it is to be answered.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) id: String,
    pub(crate) body: String,
    pub(crate) expected: Expected,
    /// In seconds.
    pub(crate) patience: u32,
}

#[derive(Debug)]
pub(crate) enum Expected {
    /// What the function gives.
    Body(String),
    /// What each of several envelopes gives, by its digest.
    BodyOf(Vec<(String, String)>),
    /// Status and code of a failure that is its own fault.
    Case(&'static str),
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) id: String,
    /// That of the envelope that answered.
    pub(crate) digest: String,
    pub(crate) body: String,
}

impl Expected {
    /// Whether `answer`, a good one, is the right one.
    pub(crate) fn is(&self, answer: &Answer) -> bool {
        match self {
            Self::Body(body) => *body == answer.body,
            Self::BodyOf(bodies) => bodies
                .iter()
                .any(|(digest, body)| (digest, body) == (&answer.digest, &answer.body)),
            Self::Case(_) => false,
        }
    }
}

impl Answer {
    /// Status and code of a failure.
    pub(crate) fn case(&self) -> String {
        let problem: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        let code = problem["code"].as_str().unwrap_or("without a code");
        format!("{} {code}", self.status)
    }
}

/// Asks over connections of HTTP/1.1, up to eight questions at once on each.
pub(crate) async fn over_http1(
    address: SocketAddr,
    load: &Load<impl Fn(u64) -> Question + Sync>,
    mut random: Rng,
) {
    while let Some(first) = load.next() {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        visit(BufReader::new(stream), first, load, &mut random).await;
    }
}

/// Asks one question over a connection of its own.
pub(crate) async fn ask_alone(address: SocketAddr, question: &Question, tally: &Tally) {
    let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
    stream.write_all(&question.written()).await.unwrap();
    match read(&mut stream).await {
        Ok(answer) => tally.judge(question, &answer),
        Err(_) => tally.broken(1),
    }
}

/// One connection, until either side has enough of it.
async fn visit(
    mut stream: BufReader<TcpStream>,
    first: Question,
    load: &Load<impl Fn(u64) -> Question + Sync>,
    random: &mut Rng,
) {
    let mut next = Some(first);
    while let Some(first) = next {
        let more = std::iter::from_fn(|| load.next()).take(random.usize(0..8));
        let questions: Vec<_> = std::iter::once(first).chain(more).collect();
        let fate = Fate::draw(questions.len(), load.fickle, random);
        let answers = converse(&mut stream, &questions, &fate).await;
        for (question, answer) in questions.iter().zip(&answers) {
            load.tally.judge(question, answer);
        }
        let rest = questions.len() - answers.len();
        match fate {
            Fate::Stays if rest > 0 => return load.tally.broken(rest),
            Fate::Stays => {}
            Fate::CutsOff { .. } | Fate::Leaves { .. } => return load.tally.cancelled(rest),
        }
        next = load.next();
    }
}

/// What a client does on a connection of HTTP/1.1.
enum Fate {
    Stays,
    /// It sends all but a part of the last question.
    CutsOff {
        keeps: usize,
    },
    /// It waits for so many answers only.
    Leaves {
        after: usize,
    },
}

impl Fate {
    fn draw(questions: usize, fickle: u16, random: &mut Rng) -> Self {
        let is_fickle = (0..questions).any(|_| random.u16(0..1000) < fickle);
        match is_fickle {
            false => Self::Stays,
            true if random.bool() => Self::CutsOff {
                keeps: random.usize(1..200),
            },
            true => Self::Leaves {
                after: random.usize(0..questions),
            },
        }
    }
}

/// Sends the questions and reads the answers, as many as there are before either side leaves.
async fn converse(
    stream: &mut BufReader<TcpStream>,
    questions: &[Question],
    fate: &Fate,
) -> Vec<Answer> {
    let mut bytes: Vec<u8> = questions
        .iter()
        .flat_map(|question| question.written())
        .collect();
    let awaited = match *fate {
        Fate::Stays => questions.len(),
        Fate::Leaves { after } => after,
        Fate::CutsOff { keeps } => {
            bytes.truncate(bytes.len() - keeps);
            0
        }
    };
    let mut answers = vec![];
    if stream.write_all(&bytes).await.is_ok() {
        while answers.len() < awaited
            && let Ok(answer) = read(stream).await
        {
            answers.push(answer);
        }
    }
    answers
}

/// One answer; those of this service always state their length.
async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Answer> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let header = |name: &str| {
        let mut pairs = head.lines().filter_map(|line| line.split_once(": "));
        pairs
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.to_owned())
    };
    let mut body = vec![0; header("content-length").unwrap().parse().unwrap()];
    stream.read_exact(&mut body).await?;
    Ok(Answer {
        status: head[9..12].parse().unwrap(),
        id: header("x-request-id").unwrap_or_default(),
        digest: header("x-envelope-digest").unwrap_or_default(),
        body: String::from_utf8(body).unwrap(),
    })
}

impl Question {
    fn written(&self) -> Vec<u8> {
        let Self {
            id, body, patience, ..
        } = self;
        let head =
            "POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
        let length = body.len();
        format!("{head}x-request-id: {id}\r\nx-request-timeout: {patience}\r\ncontent-length: {length}\r\n\r\n{body}")
            .into_bytes()
    }

    /// With the whole body, or the begin of one that never ends.
    fn request(&self, is_whole: bool) -> Request<Body> {
        let body = Bytes::from(self.body.clone());
        let body = if is_whole {
            Full::new(body).boxed_unsync()
        } else {
            let begin = stream::iter([Ok(Frame::data(body.slice(..body.len() / 2)))]);
            StreamBody::new(begin.chain(stream::once(pending()))).boxed_unsync()
        };
        Request::post("http://localhost/predict")
            .header("content-type", "application/json")
            .header("x-request-id", &self.id)
            .header("x-request-timeout", self.patience)
            .body(body)
            .unwrap()
    }
}

type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// Streams that ask at once on one connection of HTTP/2, and how many questions it is good for.
const STREAMS: usize = 16;
const QUESTIONS: usize = 500;

/// Asks over connections of HTTP/2.
pub(crate) async fn over_http2(
    address: SocketAddr,
    load: &Load<impl Fn(u64) -> Question + Sync>,
    mut random: Rng,
) {
    let mut is_over = false;
    while !is_over {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        let streams = (0..STREAMS).map(|_| ask_in_turn(sender.clone(), load, random.fork()));
        is_over = join_all(streams).await.contains(&true);
        connection.abort();
    }
}

/// Tells whether there are no more questions.
async fn ask_in_turn(
    mut sender: SendRequest<Body>,
    load: &Load<impl Fn(u64) -> Question + Sync>,
    mut random: Rng,
) -> bool {
    for _ in 0..QUESTIONS / STREAMS {
        let Some(question) = load.next() else {
            return true;
        };
        if random.u16(0..1000) < load.fickle {
            let request = question.request(random.bool());
            let patience = Duration::from_micros(random.u64(0..3000));
            match timeout(patience, exchange(&mut sender, request)).await {
                Ok(Ok(answer)) => load.tally.judge(&question, &answer),
                Ok(Err(_)) | Err(_) => load.tally.cancelled(1),
            }
            continue;
        }
        match exchange(&mut sender, question.request(true)).await {
            Ok(answer) => load.tally.judge(&question, &answer),
            Err(_) => {
                load.tally.broken(1);
                return false;
            }
        }
    }
    false
}

async fn exchange(sender: &mut SendRequest<Body>, request: Request<Body>) -> hyper::Result<Answer> {
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    let (head, body) = response.into_parts();
    let header = |name: &str| {
        let value = head.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    Ok(Answer {
        status: head.status.as_u16(),
        id: header("x-request-id"),
        digest: header("x-envelope-digest"),
        body: String::from_utf8(body.collect().await?.to_bytes().into()).unwrap(),
    })
}
