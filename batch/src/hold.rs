//! What a process has in its hands while it works on a job.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use crate::claim::{Claim, Record};
use crate::location::Location;
use crate::notes::Notes;
use crate::{Error, Format};

/// What a process has in its hands while it works on a job.
#[derive(Debug)]
pub(crate) enum Hold {
    /// A claim: no other process works on the job.
    Claim(Claim),
    /// Notes in a bucket, which has no locks: others may work on the job, too, and the commit decides.
    Notes(Notes),
}

impl Hold {
    /// Takes the job `id`, whose results go to `table`; waits as long as another process has claimed it.
    pub(crate) async fn take(
        table: &Location,
        format: Format,
        id: &str,
        cancelled: &CancellationToken,
    ) -> Result<Self, Error> {
        if table.bucket().is_some() {
            return Ok(Self::Notes(Notes::find(table, id).await?));
        }
        let place = Claim::place(table, format, id);
        Ok(Self::Claim(Claim::wait(place, cancelled).await?))
    }

    /// Takes a job that nobody else can know of.
    pub(crate) async fn new(table: &Location, format: Format, id: &str) -> Result<Self, Error> {
        if table.bucket().is_some() {
            let notes = Notes::find(table, id).await?;
            notes.begin().await?;
            return Ok(Self::Notes(notes));
        }
        Ok(Self::Claim(Claim::new(&Claim::place(table, format, id))?))
    }

    /// What the attempt before has noted.
    pub(crate) fn record(&self) -> Option<Record> {
        match self {
            Self::Claim(claim) => claim.record(),
            Self::Notes(notes) => notes.record(),
        }
    }

    /// Notes what the next attempt must do likewise. From now on the notes outlive a failure.
    pub(crate) async fn note(&mut self, record: &Record) -> Result<(), Error> {
        match self {
            Self::Claim(claim) => claim.note(record),
            Self::Notes(notes) => notes.note(record).await,
        }
    }

    /// Whether what the attempt writes is of use to another one.
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            Self::Claim(claim) => claim.is_lasting(),
            Self::Notes(notes) => notes.is_lasting(),
        }
    }

    /// Where finished splits are noted.
    pub(crate) fn splits(&self) -> PathBuf {
        match self {
            Self::Claim(claim) => claim.splits(),
            Self::Notes(notes) => notes.splits(),
        }
    }

    /// The notes stay: somebody must look at them.
    pub(crate) fn leave(self) {
        match self {
            Self::Claim(claim) => claim.leave(),
            // They stay unless they are deleted.
            Self::Notes(_) => {}
        }
    }
}
