//! What the parts of a cluster know each other by: certificates of one authority, and a secret.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use envelope_format::Digest;
use tokio_rustls::rustls;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::Error;

/// The files that let a program into a cluster whose parts are on several machines. Each part shows
/// its certificate to each other one, and whoever connects tells the token.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The certificate of this part, and those that lead from it to the authority. PEM.
    pub certificate: PathBuf,
    /// The private key that belongs to it. PEM, not encrypted.
    pub key: PathBuf,
    /// The authority of the cluster; certificates of no other are let in. PEM.
    pub authority: PathBuf,
    /// A file with the token that all parts share.
    pub token: PathBuf,
    /// The name that the certificates of all parts are for; the host that is connected to when
    /// absent.
    pub name: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Credentials")
            .field("certificate", &self.certificate)
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

/// [`Credentials`] that have been read.
pub(super) struct Keys {
    pub(super) acceptor: TlsAcceptor,
    pub(super) connector: TlsConnector,
    /// What is told instead of the token: as long for each token.
    pub(super) token: [u8; TOLD_BYTES],
    name: Option<ServerName<'static>>,
}

/// Length of a digest in hex.
pub(super) const TOLD_BYTES: usize = 64;

/// A token that can be guessed protects nothing.
const SHORTEST_TOKEN: usize = 16;

impl Keys {
    pub(super) fn read(files: &Credentials) -> Result<Arc<Self>, Error> {
        let provider = Arc::new(ring::default_provider());
        let wrong = |path: &Path| {
            let path = path.to_owned();
            move |error: rustls::Error| unusable(&path, error)
        };
        let roots = Arc::new(authority(&files.authority)?);
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let clients = clients
            .build()
            .map_err(|error| unusable(&files.authority, error))?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(wrong(&files.certificate))?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain(&files.certificate)?, key(&files.key)?)
            .map_err(wrong(&files.certificate))?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(wrong(&files.certificate))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain(&files.certificate)?, key(&files.key)?)
            .map_err(wrong(&files.certificate))?;
        let name = files.name.as_deref().map(server_name).transpose()?;
        Ok(Arc::new(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
            token: token(&files.token)?,
            name,
        }))
    }

    /// The name that the certificate of the part at `host` must be for.
    pub(super) fn expected(&self, host: &str) -> Result<ServerName<'static>, Error> {
        match &self.name {
            Some(name) => Ok(name.clone()),
            None => server_name(host.trim_matches(['[', ']'])),
        }
    }

    /// Whether this is what those tell who know the token. Takes as long whatever it is.
    pub(super) fn is_token(&self, told: &[u8; TOLD_BYTES]) -> bool {
        let differing = told.iter().zip(&self.token);
        differing.fold(0, |all, (one, other)| all | (one ^ other)) == 0
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Keys").finish_non_exhaustive()
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, Error> {
    let read = ServerName::try_from(name.to_owned());
    read.map_err(|error| unusable(Path::new(name), error))
}

fn authority(path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(path)? {
        roots
            .add(certificate)
            .map_err(|error| unusable(path, error))?;
    }
    Ok(roots)
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes(path)?).collect();
    match found {
        Ok(found) if found.is_empty() => Err(unusable(path, "there is no certificate in it")),
        found => found.map_err(|error| unusable(path, error)),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(&bytes(path)?).map_err(|error| unusable(path, error))
}

fn token(path: &Path) -> Result<[u8; TOLD_BYTES], Error> {
    let bytes = bytes(path)?;
    let token = bytes.trim_ascii();
    if token.len() < SHORTEST_TOKEN {
        let reason = format!("a token has {SHORTEST_TOKEN} bytes at least");
        return Err(unusable(path, reason));
    }
    let told = Digest::of(token).hex().into_bytes();
    told.try_into()
        .map_err(|_| unusable(path, "its digest has another length"))
}

fn bytes(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| unusable(path, error))
}

fn unusable(path: &Path, reason: impl fmt::Display) -> Error {
    Error::Credentials {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}
