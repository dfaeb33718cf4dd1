//! `envelope verify`: every digest, then every function on the sample it was saved with.

mod compare;

use std::time::Duration;

use envelope_format::{Equality, Function, PublicKey, Sample};
use runtime::{EnvelopeFile, Runtime};
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

/// What was found of an envelope that is as it was saved.
#[derive(Debug, Serialize)]
struct Verified {
    digest: envelope_format::Digest,
    /// The trusted keys that vouch for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    trusted: Vec<PublicKey>,
    members: usize,
    functions: Vec<VerifiedFunction>,
}

#[derive(Debug, Serialize)]
struct VerifiedFunction {
    name: String,
    /// Rows of the sample; `None` when the envelope has no sample of it.
    rows: Option<usize>,
    equality: Equality,
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
    // One more than the manifest lists: itself.
    let mut verified = Verified {
        digest: envelope.digest(),
        trusted,
        members: manifest.members.len() + 1,
        functions: vec![],
    };
    if !terminal.json() {
        let good = format!(
            "{} members have the digests they were saved with",
            verified.members
        );
        terminal.print(&line(terminal, &good))?;
        for key in &verified.trusted {
            terminal.print(&line(terminal, &format!("{key} vouches for it")))?;
        }
    }
    let waiting = Waiting::new(terminal);
    let runtime = wiring.start(envelope, 1..=1, &waiting).await?;
    for function in &manifest.functions {
        waiting.step(&format!("running `{}`", function.name));
        let rows = reproduce(&runtime, envelope, function).await?;
        let equality = function.certificate.equality;
        let name = function.name.clone();
        verified.functions.push(VerifiedFunction {
            name,
            rows,
            equality,
        });
    }
    waiting.end();
    runtime.shutdown(Duration::ZERO).await;
    if terminal.json() {
        return terminal.document(&verified);
    }
    let lines = verified
        .functions
        .iter()
        .map(|function| line(terminal, &told(function)));
    terminal.print(&lines.collect::<String>())
}

/// Runs a function on its sample; gives the number of rows.
async fn reproduce(
    runtime: &Runtime,
    envelope: &EnvelopeFile,
    function: &Function,
) -> Result<Option<usize>, Error> {
    let Some(Sample { input, output }) = &function.sample else {
        return Ok(None);
    };
    let stored = |part, member| {
        let bytes = envelope.read(member)?;
        rows::from_stream(&bytes).map_err(|reason| Error::Stored {
            part,
            function: function.name.clone(),
            reason,
        })
    };
    let (input, expected) = (
        stored("sample input", input)?,
        stored("sample output", output)?,
    );
    let rows = input.num_rows();
    let given = runtime
        .call(Some(&function.name), input, CALL_DEADLINE)
        .await?;
    match compare::difference(&expected, &given, tolerance(function.certificate.equality)) {
        None => Ok(Some(rows)),
        Some(difference) => Err(Error::NotReproduced {
            function: function.name.clone(),
            difference,
        }),
    }
}

/// Without a certificate, what was proved is that the sample's output comes again within this.
fn tolerance(equality: Equality) -> f64 {
    match equality {
        Equality::Bitwise => 0.0,
        Equality::Close | Equality::None => 1e-6,
    }
}

fn told(function: &VerifiedFunction) -> String {
    let VerifiedFunction {
        name,
        rows,
        equality,
    } = function;
    let Some(rows) = rows else {
        return format!("`{name}` has no sample to run");
    };
    let how = match equality {
        Equality::Bitwise => "to the bit",
        Equality::Close | Equality::None => "within 1e-6",
    };
    format!("`{name}` gives the stored output for the {rows} rows of its sample, {how}")
}

fn line(terminal: &Terminal, text: &str) -> String {
    format!("{}  {text}\n", terminal.paint(Look::Good, "ok"))
}
