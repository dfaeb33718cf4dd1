//! What is settled about a job before any work.

use std::error::Error as _;
use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::attempt::Attempt;
use crate::blame::located;
use crate::claim::Record;
use crate::commit::Facts;
use crate::filter::Filter;
use crate::groups;
use crate::hold::Hold;
use crate::identity::Key;
use crate::model::{Splittable, asked, digests, types};
use crate::plan::Cut;
use crate::schema::Columns;
use crate::source::{Reading, Source};
use crate::target::Target;
use crate::whereabouts::{self, Told};
use crate::workplace::Workplace;
use crate::{AsOf, Error, Job};

use super::Components;

/// Everything about a job that is settled before any work.
pub(crate) struct Decided<'j> {
    pub(super) job: &'j Job,
    pub(crate) components: &'j Components,
    pub(super) models: Vec<Splittable<'j>>,
    pub(crate) source: Arc<Source>,
    pub(super) filter: Option<Filter>,
    pub(super) columns: Columns,
    pub(super) target: Target,
    pub(super) workplace: Workplace,
    pub(super) cut: Cut,
}

/// Settles all that can be refused. An attempt before this one has settled which version is read, and
/// how it is cut.
pub(super) async fn decide<'j>(
    job: &'j Job,
    components: &'j Components,
    models: Vec<Splittable<'j>>,
    before: Option<Record>,
) -> Result<Decided<'j>, Error> {
    let input = job.input_place(&components.stores).await?.to_string();
    let asked = as_of_text(job);
    let before = before.filter(|before| before.input == input && before.as_of == asked);
    let version = before.as_ref().and_then(|before| before.version);
    let version = version.and_then(|version| u64::try_from(version).ok());
    let as_of = version.map(AsOf::Version).or(job.as_of);
    let workplace = Workplace::find(job).await?;
    let (source, filter) = read(job, components, &models, as_of).await?;
    let passed = groups::passed(job, &models, &source)?;
    let columns = Columns::decide(&source, &models, &passed)?;
    let target = Target::check(job, &components.stores, &columns.mapped).await?;
    let before = before.filter(|_| job.group_by.is_empty());
    let count = before.and_then(|before| NonZeroUsize::new(before.splits));
    Ok(Decided {
        cut: Cut {
            count: count.unwrap_or_else(|| partition_count(job, &workplace, &source)),
            fixed: job.identity.is_some() || !job.group_by.is_empty() || workplace.is_shared(),
        },
        job,
        components,
        models,
        source,
        filter,
        columns,
        target,
        workplace,
    })
}

impl Decided<'_> {
    /// Whether calls get the rows of a group.
    pub(super) fn is_grouped(&self) -> bool {
        !self.job.group_by.is_empty()
    }

    /// How many rounds of tasks a cluster needs: rows that are grouped go to the task that has their group.
    #[cfg(feature = "cluster")]
    pub(crate) fn rounds(&self) -> usize {
        1 + usize::from(self.is_grouped())
    }

    /// The error as one of the filter, if it is about values that the filter computes.
    pub(super) fn of_filter(&self, error: Error) -> Error {
        const COMPUTED: [&str; 3] = ["Divide by zero", "Cannot cast", "Overflow happened"];
        let text = error.source().map(ToString::to_string).unwrap_or_default();
        let is_of_it = COMPUTED.iter().any(|what| text.contains(what));
        match &self.job.filter {
            Some(filter) if is_of_it && self.source.kind.is_typed() => Error::Filter {
                filter: filter.clone(),
                reason: format!("cannot be evaluated: {text}"),
            },
            _ => error,
        }
    }

    /// The error with the place in the input that it comes from, if it can be found.
    pub(super) async fn located(&self, error: Error) -> Error {
        let error = self.of_filter(error);
        let Ok(place) = self.job.input_place(&self.components.stores).await else {
            return error;
        };
        let error = located(error, (&place, &self.source), &self.columns.scanned).await;
        whereabouts::located(error, (&place, &self.source), self.told()).await
    }

    /// The columns of a row as an error of the first map tells them.
    fn told(&self) -> Told {
        let (Some(model), Some(map)) = (self.models.first(), self.columns.maps.first()) else {
            return vec![];
        };
        let taken = runtime::arrow_schema(&model.function.signature.input);
        let taken = taken.fields().iter();
        let taken = taken.map(|field| (field.name().clone(), Some(field.data_type().clone())));
        let kept = map.keep.iter().map(|name| (name.clone(), None));
        kept.chain(taken).collect()
    }

    /// Makes room for the files; notes first what the next attempt needs to know.
    pub(super) async fn begin(&self, hold: Option<(Key, Hold)>) -> Result<Attempt, Error> {
        let Decided {
            components,
            job,
            source,
            target,
            cut,
            ..
        } = self;
        let Some((key, mut hold)) = hold else {
            return Attempt::begin(target, components.id).await;
        };
        hold.note(&Record {
            job: key.text().to_owned(),
            input: source.name.clone(),
            as_of: as_of_text(job),
            version: source.version,
            splits: cut.count.get(),
        })
        .await?;
        Attempt::again(target, &key, hold, components.id)
    }

    /// What the log of a Delta table keeps about the job.
    pub(super) fn facts(&self) -> Facts {
        let Decided {
            job,
            components,
            models,
            source,
            ..
        } = self;
        let digests = digests(&components.models);
        let digests: Vec<_> = digests.iter().map(ToString::to_string).collect();
        let envelopes = match digests.as_slice() {
            [only] => ("envelopeDigest".into(), only.clone().into()),
            _ => ("envelopeDigests".into(), digests.into()),
        };
        let mut facts = Facts::from([
            envelopes,
            ("jobId".into(), components.id.simple().to_string().into()),
        ]);
        for (fact, _, asked) in asked(job, models, source.name.clone()) {
            facts.extend(asked.map(|asked| (fact.to_owned(), asked.into())));
        }
        if let Some(identity) = &job.identity {
            facts.insert("jobName".into(), identity.name().into());
            facts.insert("logicalDate".into(), identity.logical_date().into());
        }
        if let Some(version) = source.version {
            facts.insert("inputVersion".into(), version.into());
        }
        facts
    }
}

fn as_of_text(job: &Job) -> Option<String> {
    job.as_of.map(|as_of| as_of.to_string())
}

/// One for each worker; more for a large table if what is done of it may have to last. Never more where rows
/// are grouped: each partition of theirs gets rows from all, so all must be worked on at once.
fn partition_count(job: &Job, workplace: &Workplace, source: &Source) -> NonZeroUsize {
    let workers = workplace.workers(&job.settings);
    if job.identity.is_none() || !job.group_by.is_empty() {
        return workers;
    }
    let bytes: u64 = source.files.iter().map(|file| file.bytes).sum();
    let splits = bytes.div_ceil(job.settings.split_bytes.get());
    let splits = usize::try_from(splits).ok().and_then(NonZeroUsize::new);
    splits.map_or(workers, |splits| splits.max(workers))
}

/// The table as it is read, and which of its rows are.
pub(super) async fn read(
    job: &Job,
    components: &Components,
    models: &[Splittable<'_>],
    as_of: Option<AsOf>,
) -> Result<(Arc<Source>, Option<Filter>), Error> {
    let reading = Reading {
        as_of,
        types: types(models),
    };
    let source = Source::read(&job.input(&components.stores).await?, &reading).await?;
    let Some(filter) = &job.filter else {
        return Ok((Arc::new(source), None));
    };
    let filter = Filter::parse(filter, &source)?;
    Ok((Arc::new(source.filtered(&filter)), Some(filter)))
}
