//! The description of an envelope.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::limits::MAX_MANIFEST_BYTES;
use crate::{DataType, Digest, Encoding, Error, Field, MemberName, Rows, Shape, Signature};

/// The only version of the format there is.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// The parsed and validated `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the format.
    pub format_version: u32,
    /// Name under which versions of the model are kept.
    pub name: String,
    /// What the model does, for people.
    pub description: String,
    /// Tags given when the envelope was saved. The registry's tags start from these.
    pub tags: BTreeMap<String, String>,
    /// The query functions; the first is the default one.
    pub functions: Vec<Function>,
    /// The functions themselves.
    pub state: State,
    /// What the functions need to run.
    pub environment: Environment,
    /// Where the code came from, and which modules are carried.
    pub source: SourceCode,
    /// Every other entry of the archive, in its order.
    #[serde(default)]
    pub members: Vec<Member>,
}

/// One query function and the evidence about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// Name of the function, a Python identifier.
    pub name: String,
    /// Its doc text.
    pub doc: String,
    /// What its definition says about its parameters, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Parameter>,
    /// Input and output.
    pub signature: Signature,
    /// The rows on which it was run.
    pub sample: Option<Sample>,
    /// Member with the statistics of input and output (JSON).
    pub statistics: Option<MemberName>,
    /// What was tested.
    pub certificate: Certificate,
    /// Member with what was seen while it was proved (JSON).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcript: Option<MemberName>,
    /// Where it was proved.
    #[serde(default, skip_serializing_if = "Proof::is_full")]
    pub proof: Proof,
}

/// Where a function gave the output of its sample again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// In an environment that was realised from the lock.
    #[default]
    Full,
    /// In the environment that it was saved from. That the lock is complete was not tried.
    Quick,
}

impl Proof {
    fn is_full(&self) -> bool {
        *self == Self::Full
    }
}

/// The functions as one pickle, so that they share what they all reach: a model is carried and
/// loaded once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Member with the pickle of a `dict` from the names of the functions to the functions.
    pub pickle: MemberName,
    /// Members with the pickle's out-of-band buffers, in order.
    pub buffers: Vec<MemberName>,
}

/// A parameter of a query function, as the source code writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// Its name, with the `*` or `**` of one that takes the rest.
    pub name: String,
    /// Its annotation: `pd.DataFrame`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotation: Option<String>,
    /// Its default; `...` where that is not a short plain value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

impl std::fmt::Display for Parameter {
    /// As in a definition: `limit: int = 10`.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.name)?;
        if let Some(annotation) = &self.annotation {
            write!(formatter, ": {annotation}")?;
        }
        match (&self.default, &self.annotation) {
            (Some(default), Some(_)) => write!(formatter, " = {default}"),
            (Some(default), None) => write!(formatter, "={default}"),
            (None, _) => Ok(()),
        }
    }
}

/// Members with input rows and the output that a clean process gave for them (Arrow IPC streams).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// Input rows.
    pub input: MemberName,
    /// Output rows.
    pub output: MemberName,
}

/// What was tested about a function, never merely promised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The output for a row did not depend on the other rows in any of the trials.
    pub row_wise: bool,
    /// How equal the outputs of the trials were.
    pub equality: Equality,
    /// Batches are padded to a multiple of so many rows. No padding was needed when absent.
    pub tile: Option<u32>,
    /// Number of trials: splits, reorderings, duplications and mixtures of the sample with other rows.
    pub trials: u32,
    /// Seed of the trials' choices.
    pub seed: u64,
    /// Why it is not row-wise, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The relative difference within which outputs are [`Equality::Close`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f64>,
    /// It gives one row for all the rows of a call: online for each request, in a job for each row.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reducer: bool,
    /// How many trials there would have been, had time not ended them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<u32>,
}

impl Certificate {
    /// What [`Equality::Close`] meant before a certificate said within what.
    pub const TOLERANCE: f64 = 1e-6;

    /// The relative difference that two outputs for the same rows may have: 0 where bits are equal.
    #[must_use]
    pub fn tolerance(&self) -> f64 {
        match self.equality {
            Equality::Bitwise => 0.0,
            Equality::Close | Equality::None => self.tolerance.unwrap_or(Self::TOLERANCE),
        }
    }
}

/// How equal two outputs for the same row are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Equality {
    /// The same bits at any number of rows; with a tile, at any number of whole tiles.
    Bitwise,
    /// Floating-point numbers within the tolerance of each other, relatively; all else the same.
    Close,
    /// No statement.
    None,
}

/// What the functions need to run: an interpreter and a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// The interpreter.
    pub python: Interpreter,
    /// Operating system and processor, as in wheel tags: `linux_x86_64`.
    pub platform: String,
    /// C library it was locked on: `glibc 2.36`.
    pub libc: String,
    /// Member with the PEP 751 lock.
    pub lock: MemberName,
    /// Wheels that no index has. The lock names each by its path from the lock's own folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wheels: Vec<MemberName>,
}

/// The interpreter that code objects were compiled by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interpreter {
    /// `cpython`.
    pub implementation: String,
    /// Exact version: `3.11.7`.
    pub version: String,
    /// Code objects are understood by interpreters with this tag only: `cpython-311`.
    pub cache_tag: String,
}

impl Interpreter {
    /// Major and minor version: `3.11`.
    #[must_use]
    pub fn minor(&self) -> String {
        self.version
            .split('.')
            .take(2)
            .collect::<Vec<_>>()
            .join(".")
    }
}

/// Where the code came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceCode {
    /// Commit of the git repository that the function was saved from.
    pub git_commit: Option<String>,
    /// Whether files differed from that commit.
    pub git_dirty: bool,
    /// Files of custom modules; each is importable under its path below `modules/`.
    pub modules: Vec<MemberName>,
}

/// One entry of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its name.
    pub name: MemberName,
    /// Length of its content in bytes.
    pub size: u64,
    /// SHA-256 of its content.
    pub digest: Digest,
    /// How it is kept.
    pub encoding: Encoding,
}

impl Manifest {
    /// The function called `name`, or the default one.
    ///
    /// # Errors
    /// [`Error::NoSuchFunction`], with the names there are.
    pub fn function(&self, name: Option<&str>) -> Result<&Function, Error> {
        let found = match name {
            None => self.functions.first(),
            Some(name) => self.functions.iter().find(|function| function.name == name),
        };
        found.ok_or_else(|| Error::NoSuchFunction {
            name: name.unwrap_or_default().to_owned(),
            known: self
                .functions
                .iter()
                .map(|function| function.name.clone())
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    /// The bytes of `manifest.json`: JSON with two spaces of indentation, fields in the order of
    /// the type, and a final newline. There is one spelling of each manifest.
    ///
    /// # Errors
    /// [`Error::ManifestTooLarge`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut bytes =
            serde_json::to_vec_pretty(self).map_err(|reason| Error::ManifestSyntax {
                field: ".".to_owned(),
                reason,
            })?;
        bytes.push(b'\n');
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(Error::ManifestTooLarge {
                size: bytes.len() as u64,
            });
        }
        Ok(bytes)
    }

    /// Parses and validates the bytes of `manifest.json`.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        check_version(bytes)?;
        let manifest: Self = parse(bytes)?;
        // One spelling only: no duplicate keys, no other number formats, no hidden white space.
        if manifest.to_bytes()? != bytes {
            return Err(Error::ManifestNotCanonical);
        }
        manifest.check()?;
        Ok(manifest)
    }

    /// Rules 5 and 6: what a manifest says about itself must hold.
    pub(crate) fn check(&self) -> Result<(), Error> {
        check_known(self.format_version)?;
        check_name(&self.name)?;
        if self.functions.is_empty() {
            return Err(Error::NoFunctions);
        }
        let mut names = BTreeSet::new();
        for function in &self.functions {
            if !names.insert(&function.name) || !is_identifier(&function.name) {
                return Err(Error::FunctionName {
                    name: function.name.clone(),
                });
            }
            function.signature.input.check(&function.name)?;
            function.signature.output.check(&function.name)?;
        }
        self.check_references()?;
        check_modules(&self.source.modules)
    }

    fn check_references(&self) -> Result<(), Error> {
        let known: BTreeSet<_> = self.members.iter().map(|member| &member.name).collect();
        match self.references().find(|name| !known.contains(name)) {
            None => Ok(()),
            Some(name) => Err(Error::MemberMissing { name: name.clone() }),
        }
    }

    fn references(&self) -> impl Iterator<Item = &MemberName> {
        let functions = self.functions.iter().flat_map(|function| {
            let sample = function
                .sample
                .iter()
                .flat_map(|sample| [&sample.input, &sample.output]);
            sample
                .chain(&function.statistics)
                .chain(&function.transcript)
        });
        functions
            .chain([&self.state.pickle])
            .chain(&self.state.buffers)
            .chain([&self.environment.lock])
            .chain(&self.environment.wheels)
            .chain(&self.source.modules)
    }

    /// A manifest with one function, for documentation and tests.
    #[must_use]
    #[doc(hidden)]
    pub fn example() -> Self {
        let name = |text: &str| {
            text.parse()
                .unwrap_or_else(|_| unreachable!("a literal name"))
        };
        let column = |column: &str| Rows {
            shape: Shape::PandasSeries,
            fields: vec![Field::new(column, DataType::Float64, false)],
        };
        Self {
            format_version: FORMAT_VERSION,
            name: "doubler".into(),
            description: "doubles".into(),
            tags: BTreeMap::from([("region".into(), "US".into())]),
            functions: vec![Function {
                name: "double".into(),
                doc: String::new(),
                parameters: vec![],
                signature: Signature {
                    input: column("x"),
                    output: column("prediction"),
                },
                sample: None,
                statistics: None,
                certificate: Certificate {
                    row_wise: true,
                    equality: Equality::Bitwise,
                    tile: None,
                    trials: 8,
                    seed: 0,
                    reason: None,
                    tolerance: None,
                    reducer: false,
                    planned: None,
                },
                transcript: None,
                proof: Proof::Full,
            }],
            state: State {
                pickle: name("state/functions.pkl"),
                buffers: vec![],
            },
            environment: Environment {
                python: Interpreter {
                    implementation: "cpython".into(),
                    version: "3.11.7".into(),
                    cache_tag: "cpython-311".into(),
                },
                platform: "linux_x86_64".into(),
                libc: "glibc 2.36".into(),
                lock: name("environment/pylock.toml"),
                wheels: vec![],
            },
            source: SourceCode::default(),
            members: vec![],
        }
    }
}

/// Rule 5.2 comes before the rest: a manifest of another version may have any other shape.
fn check_version(bytes: &[u8]) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let Version { format_version } = parse(bytes)?;
    check_known(format_version)
}

fn check_known(format_version: u32) -> Result<(), Error> {
    if format_version == FORMAT_VERSION {
        return Ok(());
    }
    Err(Error::FormatVersion {
        found: format_version,
        known: FORMAT_VERSION,
    })
}

/// Rule 5.3, with the path of the field that breaks it.
fn parse<'m, T: Deserialize<'m>>(bytes: &'m [u8]) -> Result<T, Error> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let syntax = |field: String, reason| Error::ManifestSyntax { field, reason };
    let parsed = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| syntax(error.path().to_string(), error.into_inner()))?;
    json.end().map_err(|error| syntax(".".to_owned(), error))?;
    Ok(parsed)
}

/// Rule 6.1: a name can be part of a path, a URL and a tag query unchanged.
fn check_name(name: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    if name.len() > 128 || !first || !name.chars().all(plain) {
        return Err(Error::ModelName {
            name: name.chars().take(160).collect(),
        });
    }
    Ok(())
}

/// Rule 6.6: what is put on the import path is a folder of its own.
fn check_modules(modules: &[MemberName]) -> Result<(), Error> {
    let outside = |name: &&MemberName| !name.as_str().starts_with("modules/");
    match modules.iter().find(outside) {
        None => Ok(()),
        Some(name) => Err(Error::ModulePlace { name: name.clone() }),
    }
}

fn is_identifier(name: &str) -> bool {
    let start = |c: char| c.is_alphabetic() || c == '_';
    name.len() <= 256
        && name.starts_with(start)
        && name.chars().all(|c| c.is_alphanumeric() || c == '_')
}
