//! The files that TLS is made of: read, checked, put together.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use envelope_format::Digest;
use tokio_rustls::rustls;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, InconsistentKeys, RootCertStore, ServerConfig};

/// The files that TLS is made of, all of them PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate of the service, followed by those that lead from it to one that clients know.
    pub certificate: PathBuf,
    /// The private key that belongs to it, not encrypted.
    pub key: PathBuf,
    /// Whose certificates clients have to show; `None`: they are not asked for any.
    pub client_ca: Option<PathBuf>,
}

/// Why a file cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The operating system does not give it to us.
    #[error("cannot read `{path}`")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It breaks off, or what should be base64 is not.
    #[error("`{path}` is not PEM")]
    NotPem {
        /// The file.
        path: PathBuf,
        /// Where it is wrong.
        source: pem::Error,
    },
    /// There is nothing in it that begins like a certificate.
    #[error("there is no certificate in `{path}`")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing in it that begins like a private key.
    #[error("there is no private key in `{path}`")]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// What is in it begins like a certificate and is none.
    #[error("a certificate in `{path}` cannot be read")]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// What is in it begins like a private key and is none, or of a kind that is not used.
    #[error("the private key in `{path}` cannot be used")]
    BadKey {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// Certificate and key are good, each for itself.
    #[error(
        "the private key in `{key}` does not belong to the first certificate in `{certificate}`"
    )]
    OtherKey {
        /// The file with the certificate.
        certificate: PathBuf,
        /// The file with the key.
        key: PathBuf,
    },
}

impl TlsError {
    /// A stable name for the case.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "tls_file_unreadable",
            Self::NotPem { .. } => "tls_file_not_pem",
            Self::NoCertificate { .. } => "tls_no_certificate",
            Self::NoKey { .. } => "tls_no_key",
            Self::BadCertificate { .. } => "tls_bad_certificate",
            Self::BadKey { .. } => "tls_bad_key",
            Self::OtherKey { .. } => "tls_other_key",
        }
    }

    /// What the user may do about it.
    #[must_use]
    pub fn hint(&self) -> Cow<'static, str> {
        match self {
            Self::Unreadable { .. } => "the service's user has to be able to read it",
            Self::NotPem { .. } => "PEM is text between lines like `-----BEGIN CERTIFICATE-----` and `-----END CERTIFICATE-----`",
            Self::NoCertificate { .. } | Self::BadCertificate { .. } => {
                "it begins with `-----BEGIN CERTIFICATE-----`; `openssl x509 -in FILE -text` shows it"
            }
            Self::NoKey { .. } | Self::BadKey { .. } => {
                "an RSA, ECDSA or Ed25519 key that is not encrypted begins with `-----BEGIN PRIVATE KEY-----`"
            }
            Self::OtherKey { .. } => {
                "the certificate of the service itself comes first, and those that have signed it after it"
            }
        }
        .into()
    }

    /// Whether it is a matter of what this user may do.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Whether the files can be used as they are now.
pub(crate) fn check(files: &TlsFiles) -> Result<(), TlsError> {
    let provider = Arc::new(ring::default_provider());
    certified(files, &provider)?;
    clients(files, &provider).map(drop)
}

/// What is in the files.
pub(super) fn digest(files: &TlsFiles) -> Result<Digest, TlsError> {
    let all = [&files.certificate, &files.key]
        .into_iter()
        .chain(&files.client_ca);
    let all: Result<Vec<_>, _> = all.map(|path| bytes(path)).collect();
    Ok(Digest::of(&all?.concat()))
}

/// What handshakes are made with. A certificate that is not valid `now` is only warned of: it is for
/// clients to judge, and their clocks may be better.
pub(super) fn read(files: &TlsFiles, now: UnixTime) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let certified = certified(files, &provider)?;
    let clients = clients(files, &provider)?;
    if let Some(error) = dates(&certified.cert, provider.clone(), now) {
        tracing::warn!(path = %files.certificate.display(), %error, "clients will not accept the certificate");
    }
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap_or_else(|_| unreachable!("the provider has suites of both versions"))
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = super::PROTOCOLS.map(Vec::from).to_vec();
    Ok(config)
}

/// The certificate with its chain and its key.
fn certified(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(&files.certificate)?;
    let path = &files.key;
    let key = provider.key_provider.load_private_key(key(path)?);
    let key = key.map_err(|source| TlsError::BadKey {
        path: path.clone(),
        source,
    })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(TlsError::OtherKey {
                certificate: files.certificate.clone(),
                key: files.key.clone(),
            })
        }
        // That a kind of key does not tell is no fault of the files.
        Ok(()) | Err(rustls::Error::InconsistentKeys(_)) => Ok(certified),
        Err(source) => Err(bad_certificate(&files.certificate, source)),
    }
}

/// Who is asked for a certificate, and whose will do.
fn clients(
    files: &TlsFiles,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let Some(path) = &files.client_ca else {
        return Ok(Arc::new(NoClientAuth));
    };
    let roots =
        Arc::new(roots(certificates(path)?).map_err(|source| bad_certificate(path, source))?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build();
    Ok(verifier.unwrap_or_else(|_| unreachable!("there are roots, and no lists of revocations")))
}

fn roots(certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// What clients will say about the dates of the first certificate, if they say something.
///
/// A verifier that trusts this certificate alone says it before all else; what it says about
/// everything else is of no interest.
fn dates(
    chain: &[CertificateDer<'static>],
    provider: Arc<CryptoProvider>,
    now: UnixTime,
) -> Option<CertificateError> {
    let own = chain.first()?;
    let roots = Arc::new(roots(vec![own.clone()]).ok()?);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider);
    let name = ServerName::try_from("localhost").ok()?;
    match verifier
        .build()
        .ok()?
        .verify_server_cert(own, &[], &name, &[], now)
    {
        Err(rustls::Error::InvalidCertificate(error)) => Some(error).filter(is_of_dates),
        _ => None,
    }
}

fn is_of_dates(error: &CertificateError) -> bool {
    matches!(
        error,
        CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }
    )
}

/// All certificates of a file, one at least.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = bytes(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|source| not_pem(path, source))?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate { path: path.into() });
    }
    Ok(found)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = bytes(path)?;
    let mut keys = PrivateKeyDer::pem_slice_iter(&bytes);
    let first = keys
        .next()
        .ok_or_else(|| TlsError::NoKey { path: path.into() })?;
    first.map_err(|source| not_pem(path, source))
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Unreadable {
        path: path.into(),
        source,
    })
}

fn not_pem(path: &Path, source: pem::Error) -> TlsError {
    TlsError::NotPem {
        path: path.into(),
        source,
    }
}

fn bad_certificate(path: &Path, source: rustls::Error) -> TlsError {
    TlsError::BadCertificate {
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests;
