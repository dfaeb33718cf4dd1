//! Doors and tunnels, with real certificates.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::super::credentials::Credentials;
use super::super::listen::HERE;
use super::super::tunnel::Tunnels;
use super::*;

const TOKEN: &str = "a token that is long enough";

/// A folder with the files of a part of a cluster.
struct Part(TempDir);

impl Part {
    fn new(authority: &Issuer<'_, KeyPair>, ca: &str, name: &str) -> Self {
        let part = Self(TempDir::new().unwrap());
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, authority).unwrap();
        part.write("node.pem", &certificate.pem());
        part.write("node.key", &key.serialize_pem());
        part.write("ca.pem", ca);
        part.write("token", TOKEN);
        part
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    fn files(&self, name: Option<&str>) -> Credentials {
        let file = |name: &str| -> PathBuf { self.0.path().join(name) };
        Credentials {
            certificate: file("node.pem"),
            key: file("node.key"),
            authority: file("ca.pem"),
            token: file("token"),
            name: name.map(str::to_owned),
        }
    }

    fn keys(&self) -> Arc<Keys> {
        Keys::read(&self.files(None)).unwrap()
    }
}

/// Somebody who signs certificates, and their own certificate.
fn authority() -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "cluster");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

fn part_for(name: &str) -> Part {
    let (issuer, ca) = authority();
    Part::new(&issuer, &ca, name)
}

/// Says everything back, once in capitals; counts who came.
async fn inside() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let came = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&came);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut said = String::new();
                stream.read_to_string(&mut said).await.unwrap();
                stream
                    .write_all(said.to_uppercase().as_bytes())
                    .await
                    .unwrap();
            });
        }
    });
    (address, came)
}

/// The address of a door that leads inside, and how many came through.
async fn house(keys: Arc<Keys>) -> (String, Arc<AtomicUsize>) {
    let (inside, came) = inside().await;
    let door = Door::bind(SocketAddr::new(HERE, 0), keys).await.unwrap();
    let address = door.address().unwrap().to_string();
    tokio::spawn(door.lead_to(Inside {
        speaker: inside,
        lender: None,
    }));
    (address, came)
}

async fn refused(address: &str, files: &Credentials) -> io::Error {
    let tunnels = Tunnels::new(Keys::read(files).unwrap()).unwrap();
    tunnels.knock(address).await.unwrap_err()
}

#[tokio::test]
async fn who_has_certificate_and_token_gets_through() {
    let part = part_for("127.0.0.1");
    let (address, came) = house(part.keys()).await;
    let tunnels = Tunnels::new(part.keys()).unwrap();
    tunnels.knock(&address).await.unwrap();
    let socket = tunnels.socket(&address).unwrap();
    let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
    let long = "a word ".repeat(100_000);
    stream.write_all(long.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, long.to_uppercase());
    assert_eq!(came.load(Ordering::SeqCst), 2, "who knocked, who spoke");
    assert_eq!(tunnels.socket(&address).unwrap(), socket, "one for each");
}

#[tokio::test]
async fn another_token_is_not_let_in() {
    let part = part_for("127.0.0.1");
    let (address, came) = house(part.keys()).await;
    part.write("token", "another token of this length");
    let error = refused(&address, &part.files(None)).await;
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
    assert_eq!(came.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_certificate_of_somebody_else_is_not_let_in() {
    let (issuer, ca) = authority();
    let (address, came) = house(Part::new(&issuer, &ca, "127.0.0.1").keys()).await;
    // It trusts the door; the door does not trust it.
    let (stranger, _) = authority();
    let stranger = Part::new(&stranger, &ca, "127.0.0.1");
    let error = refused(&address, &stranger.files(None)).await;
    assert!(error.to_string().contains("alert"), "{error}");
    // It does not trust the door.
    let error = refused(&address, &part_for("127.0.0.1").files(None)).await;
    assert!(
        error.to_string().contains("invalid peer certificate"),
        "{error}"
    );
    // Without encryption nobody hears anything.
    let mut plain = TcpStream::connect(&address).await.unwrap();
    plain.write_all(&[b'x'; 200]).await.unwrap();
    let mut answer = vec![];
    _ = plain.read_to_end(&mut answer).await;
    assert_ne!(answer.first(), Some(&WELCOME));
    assert_eq!(came.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_certificate_is_for_the_host_or_for_the_name_of_the_cluster() {
    let part = part_for("cluster.example");
    let (address, _) = house(part.keys()).await;
    let error = refused(&address, &part.files(None)).await;
    assert!(error.to_string().contains("not valid for name"), "{error}");
    let named = Keys::read(&part.files(Some("cluster.example"))).unwrap();
    Tunnels::new(named).unwrap().knock(&address).await.unwrap();
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let part = part_for("127.0.0.1");
    let refused = |name: &str, text: &str| {
        let before = std::fs::read_to_string(part.0.path().join(name)).unwrap();
        part.write(name, text);
        let error = Keys::read(&part.files(None)).unwrap_err();
        part.write(name, &before);
        error.to_string()
    };
    for (name, text) in [
        ("node.pem", "nothing"),
        ("node.key", ""),
        ("ca.pem", ""),
        ("token", "short"),
    ] {
        assert!(refused(name, text).contains(name), "{name}");
    }
    let other = KeyPair::generate().unwrap().serialize_pem();
    assert!(refused("node.key", &other).contains("node.pem"));
}
