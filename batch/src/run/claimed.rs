//! Whether there is anything to do, and who does it.

use crate::attempt::tidy;
use crate::commit::{Finished, finished};
use crate::hold::Hold;
use crate::identity::Key;
use crate::model::{Splittable, asked, digests, splittable};
use crate::point;
use crate::{Error, Identity, Job};

use super::{Components, Summary};

/// What there is to do for a job.
pub(super) enum Claimed {
    /// Nothing: another run has done it.
    Done(Finished),
    /// All of it. If the job has an identity, no other process works on it where there are locks.
    Ours(Option<(Key, Hold)>),
}

/// Looks whether the job is done already; if not, claims it.
pub(super) async fn claim(
    job: &Job,
    components: &Components,
    models: &[Splittable<'_>],
) -> Result<Claimed, Error> {
    let Some(identity) = &job.identity else {
        return Ok(Claimed::Ours(None));
    };
    let key = identity.key(&digests(&components.models));
    let output = job.output(&components.stores).await?.resolved();
    let mut hold = None;
    let mut found = finished(&output, job.format, &key).await?;
    if found.is_none() {
        let taken = Hold::take(&output, job.format, key.short(), &components.cancelled);
        hold = Some(taken.await?);
        point::reached(point::CLAIMED);
        // Whoever we waited for may have done it.
        found = finished(&output, job.format, &key).await?;
    }
    let Some(found) = found else {
        return Ok(Claimed::Ours(hold.map(|hold| (key, hold))));
    };
    drop(hold);
    let input = job.input_place(&components.stores).await?.to_string();
    check_same_job((job, input), identity, models, &found)?;
    tidy(&output, job.format, &key, &found).await;
    Ok(Claimed::Done(found))
}

/// What another run of the same job has done while this one was at it. Where a claim keeps others away,
/// there is none.
pub(super) async fn done_meanwhile(job: &Job, components: &Components) -> Option<Summary> {
    let output = job.output(&components.stores).await.ok()?;
    let identity = job.identity.as_ref()?;
    output.bucket()?;
    let key = identity.key(&digests(&components.models));
    let found = finished(&output, job.format, &key).await.ok()??;
    let models = splittable(job, &components.models).ok()?;
    let input = job.input_place(&components.stores).await.ok()?.to_string();
    check_same_job((job, input), identity, &models, &found).ok()?;
    Some(Summary::before(&found))
}

/// Refuses a job that has the identity of a finished one, but does something else.
fn check_same_job(
    (job, input): (&Job, String),
    identity: &Identity,
    models: &[Splittable<'_>],
    finished: &Finished,
) -> Result<(), Error> {
    if finished.facts.is_empty() {
        // The output does not tell what the job was.
        return Ok(());
    }
    let told = |fact: &str| finished.facts.get(fact).and_then(|before| before.as_str());
    for (fact, what, now) in asked(job, models, input) {
        let before = told(fact);
        if before != now.as_deref() {
            let told = |text: Option<&str>| text.unwrap_or("none").to_owned();
            return Err(Error::OtherJob {
                job: identity.name().to_owned(),
                what,
                before: told(before),
                now: told(now.as_deref()),
            });
        }
    }
    Ok(())
}
