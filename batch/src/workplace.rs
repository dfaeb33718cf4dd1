//! Who does the work of a job.

use std::num::NonZeroUsize;

use crate::job::Settings;
use crate::{Error, Job};

/// Who does the work of a job.
pub(crate) enum Workplace {
    /// This process and its workers.
    Here,
    /// The executors of a cluster.
    #[cfg(feature = "cluster")]
    Cluster(crate::cluster::Cluster),
}

impl Workplace {
    /// The place that the settings name. A cluster that is not there is noticed now.
    pub(crate) async fn find(job: &Job) -> Result<Self, Error> {
        match &job.settings.cluster {
            None => Ok(Self::Here),
            #[cfg(feature = "cluster")]
            Some(address) => {
                let cluster = crate::cluster::Cluster::connect(address).await?;
                Ok(Self::Cluster(cluster))
            }
            #[cfg(not(feature = "cluster"))]
            Some(_) => Err(Error::NoClusters),
        }
    }

    /// How many parts of a table are worked on at once, at most.
    pub(crate) fn workers(&self, settings: &Settings) -> NonZeroUsize {
        match self {
            Self::Here => settings.workers(),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => {
                let usual = || cluster.usual_partitions();
                settings.partitions.unwrap_or_else(usual)
            }
        }
    }

    /// Whether parts are worked on in processes that know nothing of each other.
    pub(crate) fn is_shared(&self) -> bool {
        !matches!(self, Self::Here)
    }
}
