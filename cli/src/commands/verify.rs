//! `envelope verify`: what was found when an envelope was saved is found again on this machine.
//!
//! Every digest, the environment, every function on the sample it was saved with, and all trials of
//! its certificate with the seed they had.

use std::time::Duration;

use envelope_format::{Certificate, Equality, Function, PublicKey, Sample};
use runtime::{EnvelopeFile, Runtime, Trials};
use serde::Serialize;

use crate::args::Verify;
use crate::error::Error;
use crate::progress::Waiting;
use crate::rows;
use crate::terminal::{Look, Terminal};
use crate::trust;
use crate::wiring::Wiring;

/// As long as the proof at save time had for one call.
const CALL_DEADLINE: Duration = Duration::from_secs(600);

/// What was found.
#[derive(Debug, Serialize)]
struct Verified {
    digest: envelope_format::Digest,
    /// The trusted keys that vouch for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    trusted: Vec<PublicKey>,
    members: usize,
    /// Interpreter of the environment, as it was made real here.
    python: String,
    platform: String,
    functions: Vec<VerifiedFunction>,
    /// What is not as it was saved, in words.
    differences: Vec<String>,
}

#[derive(Debug, Serialize)]
struct VerifiedFunction {
    name: String,
    /// Rows of the sample; `None` when the envelope has no sample of it.
    rows: Option<usize>,
    equality: Equality,
    /// What the trials came to here; `None` when they were not repeated.
    certificate: Option<Certificate>,
    differences: Vec<String>,
}

pub(crate) async fn verify(wiring: &Wiring, args: &Verify) -> Result<(), Error> {
    let found = wiring.find(&args.envelope.reference).await?;
    let envelope = &found.envelope;
    // Before anything of it is unpickled.
    let trusted = match &wiring.settings.trust {
        Some(keys) => trust::check(envelope, keys, args.attestation.as_deref())?,
        None => {
            envelope.verify()?;
            vec![]
        }
    };
    let manifest = envelope.manifest();
    let terminal = &wiring.terminal;
    let mut verified = Verified {
        digest: envelope.digest(),
        trusted,
        // One more than the manifest lists: itself.
        members: manifest.members.len() + 1,
        python: manifest.environment.python.version.clone(),
        platform: manifest.environment.platform.clone(),
        functions: vec![],
        differences: vec![],
    };
    let report = Report { terminal };
    report.good(&format!(
        "{} members have the digests they were saved with",
        verified.members
    ))?;
    for key in &verified.trusted {
        report.good(&format!("{key} vouches for it"))?;
    }
    let waiting = Waiting::new(terminal);
    let sandbox = args.sandbox.sandbox();
    // As for the proof: the trials ask two workers at once, each with its share of the cores.
    let runtime = wiring.start(envelope, 1..=2, sandbox, &waiting).await?;
    waiting.end();
    report.good(&format!(
        "the locked environment runs here: Python {} on {}",
        verified.python, verified.platform
    ))?;
    for function in &manifest.functions {
        let checked = Checked {
            runtime: &runtime,
            envelope,
            function,
            quick: args.quick,
        };
        let function = checked.run(terminal).await?;
        report.function(&function)?;
        verified
            .differences
            .extend(function.differences.iter().cloned());
        verified.functions.push(function);
    }
    runtime.shutdown(Duration::ZERO).await;
    if terminal.json() {
        terminal.document(&verified)?;
    }
    if verified.differences.is_empty() {
        return Ok(());
    }
    Err(Error::NotReproduced {
        differences: verified.differences,
    })
}

/// One function, and how it is checked.
struct Checked<'c> {
    runtime: &'c Runtime,
    envelope: &'c EnvelopeFile,
    function: &'c Function,
    quick: bool,
}

impl Checked<'_> {
    async fn run(&self, terminal: &Terminal) -> Result<VerifiedFunction, Error> {
        let function = self.function;
        let mut verified = VerifiedFunction {
            name: function.name.clone(),
            rows: None,
            equality: function.certificate.equality,
            certificate: None,
            differences: vec![],
        };
        let Some(sample) = &function.sample else {
            return Ok(verified);
        };
        let input = self.stored("sample input", &sample.input)?;
        verified.rows = Some(input.num_rows());
        let waiting = Waiting::new(terminal);
        waiting.step(&format!("running `{}`", function.name));
        let differs = self.reproduce(sample, input.clone()).await?;
        verified.differences.extend(differs);
        // Nothing was tested where there are no trials: nothing can be repeated.
        if !self.quick && function.certificate.trials > 0 {
            let found = self.certify(&input, &waiting).await?;
            let differs = difference(&function.certificate, &found);
            let told = differs.map(|what| format!("the trials of `{}`: {what}", function.name));
            verified.differences.extend(told);
            verified.certificate = Some(found);
        }
        Ok(verified)
    }

    fn stored(
        &self,
        part: &'static str,
        member: &envelope_format::MemberName,
    ) -> Result<arrow_array::RecordBatch, Error> {
        let bytes = self.envelope.read(member)?;
        rows::from_stream(&bytes).map_err(|reason| Error::Stored {
            part,
            function: self.function.name.clone(),
            reason,
        })
    }

    /// Runs the function on its sample; says how the output differs from the stored one.
    async fn reproduce(
        &self,
        sample: &Sample,
        input: arrow_array::RecordBatch,
    ) -> Result<Option<String>, Error> {
        let Function {
            name, certificate, ..
        } = self.function;
        let expected = self.stored("sample output", &sample.output)?;
        let given = self.runtime.call(Some(name), input, CALL_DEADLINE).await?;
        let difference = runtime::difference(&expected, &given, certificate.tolerance());
        Ok(
            difference
                .map(|what| format!("`{name}` does not give its stored output again: {what}")),
        )
    }

    async fn certify(
        &self,
        input: &arrow_array::RecordBatch,
        waiting: &Waiting,
    ) -> Result<Certificate, Error> {
        let name = &self.function.name;
        let trials = Trials {
            seed: self.function.certificate.seed,
            ..Trials::default()
        };
        let tell = |done: u32, planned: u32| {
            if done.is_multiple_of(TOLD_TRIALS) {
                waiting.step(&format!("testing `{name}`, {done} of {planned} trials"));
            }
        };
        let certified = self.runtime.certify(Some(name), input, trials, &tell);
        Ok(certified.await?.certificate)
    }
}

/// Every so many trials people are told how many are done.
const TOLD_TRIALS: u32 = 50;

/// How what was found is worse than, or unlike, what was stored; how many trials there was time
/// for does not matter.
fn difference(stored: &Certificate, found: &Certificate) -> Option<String> {
    let reason = || found.reason.clone().unwrap_or_default();
    if stored.row_wise && !found.row_wise {
        return Some(format!("it is not row-wise here: {}", reason()));
    }
    if !stored.row_wise && found.row_wise {
        return Some("no trial shows here that it is not row-wise".into());
    }
    if !stored.row_wise {
        return (stored.equality != found.equality)
            .then(|| format!("it does not answer a row here as it did: {}", reason()));
    }
    if !holds(stored, found) {
        return Some(format!(
            "outputs are {} here, not {}",
            told(found),
            told(stored)
        ));
    }
    None
}

/// Whether all that was stored about equality is true here.
fn holds(stored: &Certificate, found: &Certificate) -> bool {
    let tile = |certificate: &Certificate| certificate.tile.unwrap_or(1);
    match (stored.equality, found.equality) {
        (Equality::Bitwise, Equality::Bitwise) => tile(stored).is_multiple_of(tile(found)),
        (Equality::Close, Equality::Close) => found.tolerance() <= stored.tolerance(),
        (Equality::Close, Equality::Bitwise) | (Equality::None, _) => true,
        (Equality::Bitwise | Equality::Close, _) => false,
    }
}

fn told(certificate: &Certificate) -> String {
    match (certificate.equality, certificate.tile) {
        (Equality::Bitwise, None) => "the same bits at any number of rows".into(),
        (Equality::Bitwise, Some(tile)) => format!("the same bits in tiles of {tile} rows"),
        (Equality::Close, _) => format!("equal within {:e}", certificate.tolerance()),
        (Equality::None, _) => "of no known equality".into(),
    }
}

/// Tells people what was found; programs get one document.
struct Report<'t> {
    terminal: &'t Terminal,
}

impl Report<'_> {
    fn good(&self, text: &str) -> Result<(), Error> {
        self.line(Look::Good, "ok", text)
    }

    fn line(&self, look: Look, mark: &str, text: &str) -> Result<(), Error> {
        if self.terminal.json() {
            return Ok(());
        }
        let mark = self.terminal.paint(look, mark);
        self.terminal.print(&format!("{mark}  {text}\n"))
    }

    fn function(&self, function: &VerifiedFunction) -> Result<(), Error> {
        let name = &function.name;
        for difference in &function.differences {
            self.line(Look::Bad, "!!", difference)?;
        }
        let Some(rows) = function.rows else {
            return self.good(&format!("`{name}` has no sample to run"));
        };
        if !function.differences.is_empty() {
            return Ok(());
        }
        let how = match function.equality {
            Equality::Bitwise => "to the bit",
            Equality::Close | Equality::None => "within its tolerance",
        };
        self.good(&format!(
            "`{name}` gives the stored output for the {rows} rows of its sample, {how}"
        ))?;
        let Some(certificate) = &function.certificate else {
            return Ok(());
        };
        let trials = certificate.trials;
        self.good(&if certificate.row_wise {
            format!("`{name}` was tested row-wise again, {trials} trials")
        } else {
            format!("`{name}` is not row-wise here either")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(equality: Equality, tile: Option<u32>, tolerance: Option<f64>) -> Certificate {
        let mut certificate = envelope_format::Manifest::example()
            .functions
            .remove(0)
            .certificate;
        certificate.equality = equality;
        certificate.tile = tile;
        certificate.tolerance = tolerance;
        certificate
    }

    #[test]
    fn what_is_worse_here_is_a_difference_and_what_is_better_is_none() {
        let bits = certificate(Equality::Bitwise, None, None);
        let tile = |rows| certificate(Equality::Bitwise, Some(rows), None);
        let close = |tolerance| certificate(Equality::Close, None, Some(tolerance));
        for (stored, found) in [
            (&bits, &bits),
            (&tile(8), &bits),
            (&tile(8), &tile(4)),
            (&close(1e-6), &close(1e-9)),
            (&close(1e-6), &tile(4)),
        ] {
            assert_eq!(difference(stored, found), None);
        }
        for (stored, found) in [
            (&bits, &tile(2)),
            (&tile(4), &tile(8)),
            (&tile(4), &close(1e-12)),
            (&close(1e-12), &close(1e-6)),
        ] {
            assert!(difference(stored, found).is_some());
        }
    }

    #[test]
    fn the_reason_is_told_when_it_is_not_row_wise_here() {
        let stored = certificate(Equality::Bitwise, None, None);
        let mut found = stored.clone();
        found.row_wise = false;
        found.reason = Some("with 9 rows: 1 instead of 2".into());
        let told = difference(&stored, &found).unwrap();
        assert_eq!(told, "it is not row-wise here: with 9 rows: 1 instead of 2");
        assert!(difference(&found, &stored).is_some());
    }
}
