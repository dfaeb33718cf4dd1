//! The flags that let a program into a cluster on several machines: all of them, or none.

use std::path::PathBuf;

use clap::Args;

use crate::error::Error;

/// What the parts of a cluster know each other by.
#[derive(Debug, Args)]
#[command(next_help_heading = "Clusters on several machines")]
pub(crate) struct Credentials {
    /// The certificate of this part of the cluster, PEM; shown to scheduler, executors and drivers
    #[arg(
        long = "cluster-certificate",
        value_name = "FILE",
        env = "ENVELOPE_CLUSTER_CERTIFICATE"
    )]
    certificate: Option<PathBuf>,

    /// Its private key, PEM
    #[arg(
        long = "cluster-key",
        value_name = "FILE",
        env = "ENVELOPE_CLUSTER_KEY"
    )]
    key: Option<PathBuf>,

    /// The authority whose certificates the cluster lets in, PEM
    #[arg(long = "cluster-ca", value_name = "FILE", env = "ENVELOPE_CLUSTER_CA")]
    authority: Option<PathBuf>,

    /// A file with the token that all parts of the cluster share
    #[arg(
        long = "cluster-token",
        value_name = "FILE",
        env = "ENVELOPE_CLUSTER_TOKEN"
    )]
    token: Option<PathBuf>,

    /// The name that the certificates of all parts are for [default: the host that is connected to]
    #[arg(
        long = "cluster-name",
        value_name = "NAME",
        env = "ENVELOPE_CLUSTER_NAME"
    )]
    name: Option<String>,
}

impl Credentials {
    /// The files, if they are given.
    pub(crate) fn files(&self) -> Result<Option<batch::Credentials>, Error> {
        match (&self.certificate, &self.key, &self.authority, &self.token) {
            (None, None, None, None) => Ok(None),
            (Some(certificate), Some(key), Some(authority), Some(token)) => {
                Ok(Some(batch::Credentials {
                    certificate: certificate.clone(),
                    key: key.clone(),
                    authority: authority.clone(),
                    token: token.clone(),
                    name: self.name.clone(),
                }))
            }
            _ => Err(Error::Usage {
                reason: "some of the credentials of the cluster are missing".into(),
                hint: "give `--cluster-certificate`, `--cluster-key`, `--cluster-ca` and `--cluster-token`, or none of them",
            }),
        }
    }
}
