//! TLS as clients see it: handshakes with rustls over real sockets, and what becomes of those that are
//! not meant well.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::future::pending;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use server::{Error, Settings, TlsError, TlsFiles, serve};
use support::{Answer, Service, call, components, eventually, is_closed};
use tempfile::TempDir;
use tokio_rustls::rustls;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const BRIEF: Duration = Duration::from_millis(300);

type Private = StreamOwned<ClientConnection, TcpStream>;

/// Somebody who signs certificates.
struct Authority {
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
struct Identity {
    certificate: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for `localhost`, be it of a service or of a client.
    fn sign(&self) -> Identity {
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        Identity {
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

/// Where the files of a service are.
struct Folder(TempDir);

impl Folder {
    fn of(authority: &Authority) -> Self {
        let folder = Self(TempDir::new().unwrap());
        folder.renew(&authority.sign());
        folder
    }

    fn renew(&self, identity: &Identity) {
        self.write("cert.pem", &identity.certificate);
        self.write("key.pem", &identity.key);
    }

    /// In one step, as those do who renew certificates.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        let part = path.with_extension("part");
        fs::write(&part, text).unwrap();
        fs::rename(part, &path).unwrap();
        path
    }

    fn files(&self) -> TlsFiles {
        TlsFiles {
            certificate: self.0.path().join("cert.pem"),
            key: self.0.path().join("key.pem"),
            client_ca: None,
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            tls: Some(self.files()),
            ..Settings::default()
        }
    }
}

/// Somebody who calls a service.
#[derive(Clone)]
struct Client(Arc<ClientConfig>);

impl Client {
    fn knowing(authority: &Authority) -> Self {
        Self::with(authority, None, &[])
    }

    fn speaking(authority: &Authority, protocols: &[&[u8]]) -> Self {
        Self::with(authority, None, protocols)
    }

    fn with(authority: &Authority, identity: Option<&Identity>, protocols: &[&[u8]]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(Identity { certificate, key }) => {
                let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder
                    .with_client_auth_cert(vec![certificate], key)
                    .unwrap()
            }
        };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Self(Arc::new(config))
    }

    /// Shakes hands with the service.
    fn connect(&self, service: &Service) -> std::io::Result<Private> {
        self.connect_over(service.connect())
    }

    fn connect_over(&self, mut stream: TcpStream) -> std::io::Result<Private> {
        let name = ServerName::try_from("localhost").unwrap();
        let mut connection = ClientConnection::new(self.0.clone(), name).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(connection, stream))
    }

    fn ask(&self, service: &Service) -> std::io::Result<Answer> {
        ask(&mut self.connect(service)?, 3.0)
    }
}

fn ask(stream: &mut Private, x: f64) -> std::io::Result<Answer> {
    stream.write_all(call(x, "").as_bytes())?;
    Answer::read(stream)
}

/// Somebody who uses the service as it is meant to be; each call must be answered right.
fn with_somebody_honest(service: &Service, client: &Client, attack: impl FnOnce()) {
    let is_over = Arc::new(AtomicBool::new(false));
    let (over, client, address) = (is_over.clone(), client.clone(), service.address);
    let honest = spawn(move || {
        let mut count = 0;
        while !over.load(Ordering::SeqCst) || count < 20 {
            let stream = TcpStream::connect(address).unwrap();
            let answer = ask(&mut client.connect_over(stream).unwrap(), 3.0).unwrap();
            assert_eq!(answer.body, "{\"predictions\":[6.0]}");
            count += 1;
        }
    });
    attack();
    is_over.store(true, Ordering::SeqCst);
    honest.join().expect("an honest client was not served");
}

#[test]
fn answers_over_tls_are_those_without() {
    let authority = Authority::new("known");
    let service = Service::start(Folder::of(&authority).settings());
    for protocols in [&[][..], &[b"http/1.1".as_slice()]] {
        let client = Client::speaking(&authority, protocols);
        let mut stream = client.connect(&service).unwrap();
        for x in [1.0, 2.0] {
            let answer = ask(&mut stream, x).unwrap();
            let expected = format!("{{\"predictions\":[{:?}]}}", 2.0 * x);
            assert_eq!((answer.status, answer.body), (200, expected));
        }
    }
}

/// The beginning of a connection of HTTP/2, and `GET /healthz` for host `x`.
const HTTP_2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\
    \0\0\x0f\x01\x05\0\0\0\x01\x82\x86\x04\x08/healthz\x01\x01x";

/// The first byte of the headers that come, in HPACK.
fn first_of_headers(stream: &mut Private) -> std::io::Result<u8> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload)?;
        if head[3] == 1 {
            return Ok(payload[0]);
        }
    }
}

#[test]
fn http_2_is_agreed_upon_where_both_can() {
    let authority = Authority::new("known");
    let service = Service::start(Folder::of(&authority).settings());
    for protocols in [&[b"http/1.1".as_slice(), b"h2"][..], &[b"h2"]] {
        let client = Client::speaking(&authority, protocols);
        let mut stream = client.connect(&service).unwrap();
        assert_eq!(stream.conn.alpn_protocol(), Some(b"h2".as_slice()));
        stream.write_all(HTTP_2).unwrap();
        let ok = 0x88;
        assert_eq!(first_of_headers(&mut stream).unwrap(), ok);
    }
}

#[test]
fn nothing_is_spoken_that_was_not_agreed_upon() {
    let authority = Authority::new("known");
    let service = Service::start(Folder::of(&authority).settings());
    let client = Client::speaking(&authority, &[b"http/1.1"]);
    let mut stream = client.connect(&service).unwrap();
    stream.write_all(HTTP_2).unwrap();
    assert!(first_of_headers(&mut stream).is_err());

    let client = Client::speaking(&authority, &[b"h2"]);
    let mut stream = client.connect(&service).unwrap();
    assert!(ask(&mut stream, 1.0).is_err());

    let other = Client::speaking(&authority, &[b"h3"]);
    let refused = other.connect(&service).err().unwrap().to_string();
    assert!(refused.contains("NoApplicationProtocol"), "{refused}");
}

#[test]
fn a_certificate_of_somebody_unknown_is_for_clients_to_refuse() {
    let authority = Authority::new("known");
    let service = Service::start(Folder::of(&authority).settings());
    let stranger = Client::knowing(&Authority::new("another"));
    let refused = stranger.connect(&service).err().unwrap().to_string();
    assert!(refused.contains("UnknownIssuer"), "{refused}");
    assert_eq!(
        Client::knowing(&authority).ask(&service).unwrap().status,
        200
    );
}

#[test]
fn clients_show_certificates_where_they_are_asked_for_them() {
    let (authority, of_clients) = (Authority::new("services"), Authority::new("clients"));
    let folder = Folder::of(&authority);
    let settings = Settings {
        tls: Some(TlsFiles {
            client_ca: Some(folder.write("clients.pem", &of_clients.pem)),
            ..folder.files()
        }),
        ..Settings::default()
    };
    let service = Service::start(settings);
    let asks = |identity: Option<&Identity>| Client::with(&authority, identity, &[]).ask(&service);
    assert_eq!(asks(Some(&of_clients.sign())).unwrap().status, 200);
    let nobody = asks(None).unwrap_err().to_string();
    assert!(nobody.contains("CertificateRequired"), "{nobody}");
    let stranger = Authority::new("clients");
    assert!(asks(Some(&stranger.sign())).is_err());
}

#[test]
fn who_speaks_plainly_to_a_port_of_tls_is_told() {
    let authority = Authority::new("known");
    let service = Service::start(Folder::of(&authority).settings());
    let mut stream = service.connect();
    stream.write_all(call(1.0, "").as_bytes()).unwrap();
    let answer = Answer::read(&mut stream).unwrap();
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("https://"), "{}", answer.body);
    assert!(is_closed(&mut stream));
}

#[test]
fn handshakes_that_do_not_end_are_given_up() {
    let authority = Authority::new("known");
    let folder = Folder::of(&authority);
    let settings = Settings {
        header_timeout: BRIEF,
        ..folder.settings()
    };
    let service = Service::start(settings);
    let client = Client::knowing(&authority);
    // The head of a record, of which not all comes; then as much as would fill the largest one.
    let beginnings: [&[u8]; 3] = [
        b"",
        b"\x16\x03\x01\x40\0",
        b"\x16\x03\x01\x40\0\x01\0\xff\xff",
    ];
    with_somebody_honest(&service, &client, || {
        let begun = Instant::now();
        let mut streams: Vec<_> = (0..60).map(|_| service.connect()).collect();
        for (number, stream) in streams.iter_mut().enumerate() {
            stream.write_all(beginnings[number % 3]).unwrap();
        }
        for _ in 0..20 {
            // Each byte is on time; all of them are not.
            streams
                .iter_mut()
                .skip(1)
                .step_by(3)
                .for_each(|stream| _ = stream.write_all(&[3]));
            sleep(Duration::from_millis(20));
        }
        assert!(streams.iter_mut().all(is_closed));
        assert!(begun.elapsed() < Duration::from_secs(20));
    });
}

#[test]
fn what_is_no_handshake_ends_the_connection() {
    let authority = Authority::new("known");
    let service = Service::start(Folder::of(&authority).settings());
    let client = Client::knowing(&authority);
    let random: Vec<u8> = (0..=255).rev().cycle().take(40_000).collect();
    let cases: [&[u8]; 4] = [
        &random,
        b"\x17\x03\x03\x00\x01\x00",
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",
        b"\x80\x2e\x01\x03\x01",
    ];
    with_somebody_honest(&service, &client, || {
        for bytes in cases {
            let mut stream = service.connect();
            _ = stream.write_all(bytes);
            assert!(is_closed(&mut stream), "{:?}", &bytes[..4]);
        }
    });
}

#[test]
fn the_first_headers_share_their_time_with_the_handshake() {
    let authority = Authority::new("known");
    let folder = Folder::of(&authority);
    let settings = Settings {
        header_timeout: BRIEF,
        ..folder.settings()
    };
    let service = Service::start(settings);
    let client = Client::knowing(&authority);
    with_somebody_honest(&service, &client, || {
        let mut silent = client.connect(&service).unwrap();
        let begun = Instant::now();
        assert!(is_closed(&mut silent.sock));
        assert!(begun.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn who_does_not_take_the_answer_over_tls_is_given_up() {
    let authority = Authority::new("known");
    let folder = Folder::of(&authority);
    let settings = Settings {
        write_timeout: BRIEF,
        ..folder.settings()
    };
    let service = Service::start(settings);
    let client = Client::knowing(&authority);
    with_somebody_honest(&service, &client, || {
        let mut stream = client.connect(&service).unwrap();
        stream.write_all(call(-7.0, "").as_bytes()).unwrap();
        sleep(10 * BRIEF);
        assert!(Answer::read(&mut stream).is_err(), "all of it was kept");
    });
}

#[test]
fn a_renewed_certificate_is_shown_to_new_connections_and_breaks_none() {
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let folder = Folder::of(&before);
    let service = Service::start(folder.settings());
    let mut old = Client::knowing(&before).connect(&service).unwrap();
    assert_eq!(ask(&mut old, 1.0).unwrap().status, 200);

    folder.renew(&after.sign());
    service.swap.renew_certificates().unwrap();
    assert_eq!(ask(&mut old, 1.0).unwrap().status, 200);
    assert_eq!(Client::knowing(&after).ask(&service).unwrap().status, 200);
    assert!(Client::knowing(&before).ask(&service).is_err());
}

#[test]
fn a_renewal_that_cannot_be_used_leaves_the_certificate_before() {
    let authority = Authority::new("known");
    let folder = Folder::of(&authority);
    let service = Service::start(folder.settings());
    // Of a renewal, half has been written so far.
    folder.write("cert.pem", &Authority::new("another").sign().certificate);
    let renewed = service.swap.renew_certificates();
    assert!(matches!(
        renewed,
        Err(Error::Tls(TlsError::OtherKey { .. }))
    ));
    assert_eq!(
        Client::knowing(&authority).ask(&service).unwrap().status,
        200
    );
}

#[test]
fn handshakes_do_not_hold_up_the_end_of_a_service() {
    let authority = Authority::new("known");
    let mut service = Service::start(Folder::of(&authority).settings());
    let silent = service.connect();
    let begun = Instant::now();
    service.stop();
    assert!(begun.elapsed() < Duration::from_secs(5));
    drop(silent);
}

/// A running program, killed when the test ends before it does.
struct Program {
    process: Child,
    address: String,
    lines: Box<dyn Iterator<Item = String>>,
}

impl Program {
    fn start(folder: &Folder, arguments: &[&str]) -> Self {
        let envelope = acceptance::envelope_path("cheap");
        let files = folder.files();
        let mut process = Command::new(env!("CARGO_BIN_EXE_envelope-service"))
            .args(["serve", "--port", "0", "--workers", "1"])
            .args(arguments)
            .env("ENVELOPE_FILE", envelope)
            .env("ENVELOPE_CACHE_DIR", acceptance::environments().cache)
            .env("ENVELOPE_TLS_CERT", files.certificate)
            .env("ENVELOPE_TLS_KEY", files.key)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut lines = Box::new(lines.map_while(Result::ok));
        let address = lines.find_map(|line| {
            let (_, address) = line.split_once(" answers at https://")?;
            Some(address.to_owned())
        });
        Self {
            process,
            address: address.expect("the service becomes ready"),
            lines,
        }
    }

    fn connect(&self, client: &Client) -> std::io::Result<Private> {
        client.connect_over(TcpStream::connect(&self.address).unwrap())
    }

    fn hang_up(&self) {
        let id = self.process.id().to_string();
        let told = Command::new("kill").args(["-HUP", &id]).status().unwrap();
        assert!(told.success());
    }

    /// Waits for a line with `text` in its log.
    fn logs(&mut self, text: &str) {
        assert!(self.lines.any(|line| line.contains(text)), "{text}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

fn is_healthy(stream: &mut Private) -> bool {
    let request = b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request).unwrap();
    Answer::read(stream).unwrap().status == 200
}

#[test]
fn a_hangup_makes_a_program_read_its_certificate_again() {
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let folder = Folder::of(&before);
    let mut program = Program::start(&folder, &[]);
    let mut old = program.connect(&Client::knowing(&before)).unwrap();
    assert!(is_healthy(&mut old));

    let next = after.sign();
    folder.write("cert.pem", &next.certificate);
    program.hang_up();
    program.logs("tls_other_key");
    assert!(program.connect(&Client::knowing(&before)).is_ok());

    folder.write("key.pem", &next.key);
    program.hang_up();
    program.logs("the certificate was read again");
    let mut new = program.connect(&Client::knowing(&after)).unwrap();
    assert!(is_healthy(&mut new) && is_healthy(&mut old));
    assert!(program.connect(&Client::knowing(&before)).is_err());
}

#[test]
fn a_program_that_watches_notices_a_renewal() {
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let folder = Folder::of(&before);
    let mut program = Program::start(&folder, &["--watch=0.05"]);
    let next = after.sign();
    folder.write("cert.pem", &next.certificate);
    program.logs("tls_other_key");
    // What was wrong is told once, as long as it is the same.
    folder.write("key.pem", &next.key);
    let next = program.lines.next().unwrap();
    assert!(next.contains("the certificate was read again"), "{next}");
    let mut new = program.connect(&Client::knowing(&after)).unwrap();
    assert!(is_healthy(&mut new));
}

/// How a service with these files starts, which it does not.
fn refused(tls: TlsFiles) -> Error {
    let settings = Settings {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: Some(tls),
        ..Settings::default()
    };
    let executor = tokio::runtime::Runtime::new().unwrap();
    let service = async { serve(settings, components(2.0).0, pending(), |_| ()).await };
    executor.block_on(service).unwrap_err()
}

#[test]
fn files_that_cannot_be_used_are_named_before_anything_starts() {
    let authority = Authority::new("known");
    let folder = Folder::of(&authority);
    let (good, other) = (folder.files(), authority.sign());
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let cut = &other.certificate[..other.certificate.len() - 40];
    let with_certificate = |text: &str| TlsFiles {
        certificate: folder.write("other.pem", text),
        ..good.clone()
    };
    let with_key = |text: &str| TlsFiles {
        key: folder.write("other.pem", text),
        ..good.clone()
    };
    let with_clients = |text: &str| TlsFiles {
        client_ca: Some(folder.write("other.pem", text)),
        ..good.clone()
    };
    let key_of_nothing = nonsense.replace("CERTIFICATE", "PRIVATE KEY");
    let is_refused = |files: TlsFiles, code: &str| {
        let error = refused(files);
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains("other.pem"), "{error}");
        assert!(error.hint().is_some());
    };
    is_refused(with_certificate(&other.key), "tls_no_certificate");
    is_refused(with_certificate(cut), "tls_file_not_pem");
    is_refused(with_certificate(nonsense), "tls_bad_certificate");
    is_refused(with_certificate(&other.certificate), "tls_other_key");
    is_refused(with_key(&other.certificate), "tls_no_key");
    is_refused(with_key(&key_of_nothing), "tls_bad_key");
    is_refused(with_key(&other.key), "tls_other_key");
    is_refused(with_clients(""), "tls_no_certificate");
    is_refused(with_clients(nonsense), "tls_bad_certificate");
    let missing = TlsFiles {
        key: folder.0.path().join("other.pem.not"),
        ..good.clone()
    };
    is_refused(missing, "tls_file_unreadable");
}

/// A port that was free a moment ago.
fn free_port() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[test]
fn monitors_have_a_port_without_tls() {
    let authority = Authority::new("known");
    let folder = Folder::of(&authority);
    let settings = Settings {
        listen_for_monitors: Some(free_port()),
        ..folder.settings()
    };
    let monitors = settings.listen_for_monitors.unwrap();
    let service = Service::start(settings);
    let answer = eventually(|| {
        let mut stream = TcpStream::connect(monitors).ok()?;
        let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.write_all(request).ok()?;
        Answer::read(&mut stream).ok()
    });
    assert_eq!(answer.status, 200);
    assert_eq!(
        Client::knowing(&authority).ask(&service).unwrap().status,
        200
    );
}
