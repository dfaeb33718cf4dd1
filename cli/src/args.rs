//! What can be typed.

#[cfg(feature = "cluster")]
mod credentials;

#[cfg(feature = "cluster")]
use std::net::IpAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Puts Python functions in envelopes to work: shows, serves and maps them over tables.
#[derive(Debug, Parser)]
#[command(name = "envelope", version, propagate_version = true, max_term_width = 100, after_help = REFERENCES)]
pub(crate) struct Command {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Print one JSON document instead of text for people
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Say nothing on standard error but errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    /// Say more on standard error: progress off terminals, tracebacks, log lines
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: bool,

    /// When to use colors [default: auto]
    #[arg(long, global = true, value_name = "WHEN")]
    pub(crate) color: Option<Color>,

    /// Folder of the store [env: `ENVELOPE_URL`] [default: `~/.local/share/model-envelope`]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub(crate) url: Option<String>,

    /// Folder of realised environments [env: `ENVELOPE_CACHE_DIR`] [default: `~/.cache/model-envelope`]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub(crate) cache_dir: Option<PathBuf>,

    /// Run only envelopes that a key in this file vouches for [env: `ENVELOPE_TRUST`]
    #[arg(long, global = true, value_name = "KEYFILE")]
    pub(crate) trust: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On terminals, unless `NO_COLOR` is set
    Auto,
    /// Also into files and pipes
    Always,
    /// Nowhere
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Ls(Ls),
    Show(Show),
    Verify(Verify),
    Diff(Diff),
    Sign(Sign),
    Keygen(Keygen),
    Predict(Predict),
    Serve(Serve),
    Build(Build),
    Batch(Batch),
    Sql(Sql),
    Vacuum(Vacuum),
    #[cfg(feature = "cluster")]
    Scheduler(Scheduler),
    #[cfg(feature = "cluster")]
    Executor(Executor),
    Export(Export),
    Import(Import),
    Tag(Tag),
    Completion(Completion),
}

/// Where an envelope is: `ltv`, `ltv:7`, `sha256:…`, a tag query, or a file
#[derive(Debug, Args)]
pub(crate) struct Ref {
    /// The envelope: `NAME`, `NAME:VERSION`, `sha256:…`, a tag query, or a file
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
}

/// One envelope, or several for one pass over a table
#[derive(Debug, Args)]
pub(crate) struct Models {
    /// The envelope: `NAME`, `NAME:VERSION`, `sha256:…`, a tag query, or a file
    #[arg(
        value_name = "REF",
        required_unless_present = "model",
        conflicts_with = "model"
    )]
    pub(crate) reference: Option<String>,

    /// One of several envelopes (repeated): the table is read once, and their results stand side by side
    #[arg(long, value_name = "REF")]
    pub(crate) model: Vec<String>,

    /// What the results of each `--model` are called after (repeated): `NAME_prediction` [default: the
    /// name of the envelope; with its version, where several have it]
    #[arg(long = "as", value_name = "NAME", requires = "model")]
    pub(crate) names: Vec<String>,
}

impl Models {
    /// All that is named.
    pub(crate) fn references(&self) -> impl Iterator<Item = &str> {
        self.reference.iter().chain(&self.model).map(String::as_str)
    }
}

/// List versions, newest first
#[derive(Debug, Args)]
#[command(after_help = LS_HELP)]
pub(crate) struct Ls {
    /// Only versions that match this tag query
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) query: String,

    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: usize,
}

/// Show what is in an envelope
#[derive(Debug, Args)]
#[command(after_help = SHOW_HELP)]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) envelope: Ref,

    /// Draw the statistics of each function's input and output too
    #[arg(long)]
    pub(crate) stats: bool,
}

/// Check every digest, then that each function still gives its stored output
#[derive(Debug, Args)]
#[command(after_help = VERIFY_HELP)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) envelope: Ref,

    /// The attestation, with `--trust` [default: beside the envelope]
    #[arg(long, value_name = "FILE")]
    pub(crate) attestation: Option<PathBuf>,

    /// Only the digests and the sample, not the trials
    #[arg(long)]
    pub(crate) quick: bool,

    #[command(flatten)]
    pub(crate) sandbox: server::SandboxOptions,
}

/// Show how two envelopes differ: code, environment, signature, statistics, certificate
#[derive(Debug, Args)]
#[command(after_help = DIFF_HELP)]
pub(crate) struct Diff {
    /// The one envelope: `NAME`, `NAME:VERSION`, `sha256:…`, a tag query, or a file
    pub(crate) a: String,

    /// The other one
    pub(crate) b: String,

    /// Exit with 1 when they differ
    #[arg(long)]
    pub(crate) exit_code: bool,
}

/// Vouch for an envelope: put a signature beside it
#[derive(Debug, Args)]
#[command(after_help = SIGN_HELP)]
pub(crate) struct Sign {
    #[command(flatten)]
    pub(crate) envelope: Ref,

    /// The secret key
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,

    /// How long the signature counts [default: for ever]
    #[arg(long, value_name = "N")]
    pub(crate) days: Option<u32>,

    /// Where the signature is put [default: beside the envelope]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// Make a pair of keys: `FILE` to sign with, `FILE.pub` for those who trust it
#[derive(Debug, Args)]
#[command(after_help = KEYGEN_HELP)]
pub(crate) struct Keygen {
    /// The file of the secret key
    pub(crate) file: PathBuf,
}

/// Call a function once
#[derive(Debug, Args)]
#[command(after_help = PREDICT_HELP)]
pub(crate) struct Predict {
    #[command(flatten)]
    pub(crate) envelope: Ref,

    /// The function [default: the first one]
    #[arg(long, value_name = "NAME")]
    pub(crate) function: Option<String>,

    /// A value of the one row (`COLUMN=VALUE`, repeated), or a file with rows (`@FILE.json`,
    /// `@FILE.parquet`, `@-` for JSON on standard input)
    #[arg(short, long, value_name = "INPUT", required = true)]
    pub(crate) input: Vec<String>,

    /// Write the predictions here instead of to standard output; `.parquet` or JSON
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) sandbox: server::SandboxOptions,

    /// Give up after so many seconds
    #[arg(
        long,
        value_name = "SECONDS",
        default_value = "600",
        env = "ENVELOPE_TIMEOUT"
    )]
    pub(crate) timeout: NonZeroU64,
}

/// Serve an envelope over HTTP
#[derive(Debug, Args)]
#[command(after_help = SERVE_HELP)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) envelope: Ref,

    #[command(flatten)]
    pub(crate) options: server::Options,
}

/// Write one executable that serves an envelope
#[derive(Debug, Args)]
#[command(after_help = BUILD_HELP)]
pub(crate) struct Build {
    #[command(flatten)]
    pub(crate) envelope: Ref,

    /// The executable to write
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,

    /// Carry the interpreter and the packages too: it runs without Python and without a network
    #[arg(long)]
    pub(crate) bundle: bool,
}

/// Map a function over a table
#[derive(Debug, Args)]
#[command(after_help = BATCH_HELP)]
pub(crate) struct Batch {
    #[command(flatten)]
    pub(crate) models: Models,

    /// Folder of the tables that are given as `DATABASE.TABLE`: a path, or `s3://BUCKET/PREFIX`
    #[arg(long, value_name = "ROOT", env = "ENVELOPE_WAREHOUSE")]
    pub(crate) warehouse: Option<String>,

    /// Table to read: a Delta table, or Parquet, CSV, JSON lines or Arrow files or one such file
    #[arg(long, value_name = "TABLE")]
    pub(crate) input: String,

    /// Read a Delta table as it was: at a version or a time (RFC 3339)
    #[arg(long, value_name = "VERSION|TIME", allow_hyphen_values = true)]
    pub(crate) as_of: Option<batch::AsOf>,

    /// Read only rows for which this SQL condition on the columns is true
    #[arg(long = "where", value_name = "CONDITION", allow_hyphen_values = true)]
    pub(crate) filter: Option<String>,

    /// Table to write
    #[arg(long, value_name = "TABLE")]
    pub(crate) output: String,

    /// Columns of the input that the output has too
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    pub(crate) keep: Vec<String>,

    /// Call the function once for each group of rows with the same values in these columns, which the output has, too
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    pub(crate) group_by: Vec<String>,

    /// The largest group, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = batch::Settings::default().max_group_bytes, requires = "group_by")]
    pub(crate) max_group_bytes: NonZeroUsize,

    /// What to do when the output exists
    #[arg(long, value_enum, default_value_t = Mode::Error)]
    pub(crate) mode: Mode,

    /// Each row takes the place of the one with the same values in these columns, or is added
    #[arg(
        long,
        value_name = "COLUMNS",
        value_delimiter = ',',
        conflicts_with = "mode"
    )]
    pub(crate) merge_on: Vec<String>,

    /// Columns that are in the names of the output's folders [default: those of the table that is there]
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    pub(crate) partition_by: Vec<String>,

    /// How the output is kept
    #[arg(long, value_enum, default_value_t = Format::Delta)]
    pub(crate) format: Format,

    /// Name of the job: with the same name, date and envelope it is done once, however often it is run
    #[arg(long, value_name = "NAME")]
    pub(crate) job: Option<String>,

    /// What the job is for: a date (`2026-11-28`) or a moment (RFC 3339)
    #[arg(long, value_name = "DATE", requires = "job")]
    pub(crate) logical_date: Option<String>,

    /// The function, of each envelope [default: the first one]
    #[arg(long, value_name = "NAME")]
    pub(crate) function: Option<String>,

    /// Have a cluster do the work: the address of its scheduler, `df://HOST:PORT`
    #[arg(long, value_name = "URL", env = "ENVELOPE_CLUSTER")]
    pub(crate) cluster: Option<String>,

    #[cfg(feature = "cluster")]
    #[command(flatten)]
    pub(crate) credentials: credentials::Credentials,

    /// Worker processes [default: one for each core]; on a cluster, parts that the table is shared
    /// out into [default: four for each slot]
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<NonZeroUsize>,

    #[command(flatten)]
    pub(crate) sandbox: server::SandboxOptions,

    /// Give up when one call of the function takes longer than so many seconds
    #[arg(
        long,
        value_name = "SECONDS",
        default_value = "600",
        env = "ENVELOPE_TIMEOUT"
    )]
    pub(crate) timeout: NonZeroU64,
}

/// Query tables in SQL, in which `predict` calls functions of envelopes
#[derive(Debug, Args)]
#[command(after_help = SQL_HELP)]
pub(crate) struct Sql {
    /// The query: `SELECT client_id, predict('REF', t) FROM features t`
    #[arg(value_name = "SELECT")]
    pub(crate) text: String,

    /// A table that the query calls by a short name (repeated)
    #[arg(long, value_name = "NAME=TABLE")]
    pub(crate) table: Vec<String>,

    /// Folder of the tables that are given as `DATABASE.TABLE`
    #[arg(long, value_name = "ROOT", env = "ENVELOPE_WAREHOUSE")]
    pub(crate) warehouse: Option<String>,

    /// Write the rows to this table instead of printing them
    #[arg(short, long, value_name = "TABLE")]
    pub(crate) output: Option<String>,

    /// What to do when the output exists
    #[arg(long, value_enum, default_value_t = Mode::Error, requires = "output")]
    pub(crate) mode: Mode,

    /// Columns that are in the names of the output's folders [default: those of the table that is there]
    #[arg(
        long,
        value_name = "COLUMNS",
        value_delimiter = ',',
        requires = "output"
    )]
    pub(crate) partition_by: Vec<String>,

    /// How rows are printed [default: table], or how the output is kept [default: delta]
    #[arg(long, value_enum)]
    pub(crate) format: Option<SqlFormat>,

    /// At most so many rows [default: 100 for people, else all]
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,

    /// Worker processes of each envelope [default: one for each core]
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<NonZeroUsize>,

    #[command(flatten)]
    pub(crate) sandbox: server::SandboxOptions,

    /// Give up when one call of a function takes longer than so many seconds
    #[arg(
        long,
        value_name = "SECONDS",
        default_value = "600",
        env = "ENVELOPE_TIMEOUT"
    )]
    pub(crate) timeout: NonZeroU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SqlFormat {
    /// Aligned columns, for people
    Table,
    /// One JSON object for each row
    Jsonl,
    /// With the names of the columns in the first line
    Csv,
    /// Parquet files and a transaction log
    Delta,
    /// Parquet files
    Parquet,
}

/// Delete files of a table that nobody needs: of old versions, and of jobs that died
#[derive(Debug, Args)]
#[command(after_help = VACUUM_HELP)]
pub(crate) struct Vacuum {
    /// Folder of the tables that are given as `DATABASE.TABLE`: a path, or `s3://BUCKET/PREFIX`
    #[arg(long, value_name = "ROOT", env = "ENVELOPE_WAREHOUSE")]
    pub(crate) warehouse: Option<String>,

    /// The table: a folder that `envelope batch` writes
    #[arg(value_name = "TABLE")]
    pub(crate) table: String,

    /// Only files that nobody has needed for so many hours
    #[arg(long, value_name = "HOURS", default_value_t = 168)]
    pub(crate) older_than: u32,

    /// Only tell what would be deleted
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Refuse, before any work
    Error,
    /// Add rows to those there are
    Append,
    /// Replace the rows there are
    Overwrite,
    /// Replace the rows in the partitions that results are in
    OverwritePartitions,
}

impl From<Mode> for batch::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Error => Self::Error,
            Mode::Append => Self::Append,
            Mode::Overwrite => Self::Overwrite,
            Mode::OverwritePartitions => Self::OverwritePartitions,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Parquet files and a transaction log
    Delta,
    /// Parquet files
    Parquet,
}

/// Run the scheduler of a cluster: it takes jobs and gives their parts to executors
#[cfg(feature = "cluster")]
#[derive(Debug, Args)]
#[command(after_help = SCHEDULER_HELP)]
pub(crate) struct Scheduler {
    /// Where to listen; at an address that other machines reach only with certificates and a token
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:50050")]
    pub(crate) listen: String,

    #[command(flatten)]
    pub(crate) credentials: credentials::Credentials,
}

/// Run an executor of a cluster: it maps functions over parts of tables
#[cfg(feature = "cluster")]
#[derive(Debug, Args)]
#[command(after_help = EXECUTOR_HELP)]
pub(crate) struct Executor {
    /// The scheduler
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:50050")]
    pub(crate) scheduler: String,

    /// The address of this machine at which scheduler and drivers reach the executor
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) listen: IpAddr,

    #[command(flatten)]
    pub(crate) credentials: credentials::Credentials,

    /// Copies of envelopes that this machine keeps take so many bytes at most, unless all are in use
    #[arg(long, value_name = "BYTES", default_value = "10737418240")]
    pub(crate) cache_bytes: NonZeroU64,

    /// Parts at the same time, and worker processes of each envelope [default: one for each core]
    #[arg(long, value_name = "N")]
    pub(crate) slots: Option<NonZeroUsize>,

    #[command(flatten)]
    pub(crate) sandbox: server::SandboxOptions,
}

/// Copy an envelope out of the store
#[derive(Debug, Args)]
#[command(after_help = EXPORT_HELP)]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) envelope: Ref,

    /// The file to write; one that is there is not replaced
    pub(crate) file: PathBuf,
}

/// Save an envelope file in the store
#[derive(Debug, Args)]
#[command(after_help = IMPORT_HELP)]
pub(crate) struct Import {
    /// The envelope file
    pub(crate) file: PathBuf,
}

/// Set and remove tags of a version
#[derive(Debug, Args)]
#[command(after_help = TAG_HELP)]
pub(crate) struct Tag {
    #[command(flatten)]
    pub(crate) envelope: Ref,

    /// `KEY=VALUE` sets, `KEY-` removes
    #[arg(value_name = "CHANGE", required = true)]
    pub(crate) changes: Vec<String>,
}

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = COMPLETION_HELP)]
pub(crate) struct Completion {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

const REFERENCES: &str = "\
How to say which envelope is meant:
  ltv                      the latest version of `ltv`
  ltv:7                    version 7
  sha256:3f8a91c2          the envelope whose digest begins so
  'region in (US,UK),!old' the latest version that matches a tag query
  ./ltv.envelope           a file

Loading an envelope runs its author's code. `ls`, `show`, `export`, `import` and `tag` load nothing.

Exit codes:
  0 done          1 failed                      2 wrong usage or settings
  3 not found     4 not allowed                 5 in conflict with what is there
  6 unreachable   7 not done in time          130 interrupted";

const LS_HELP: &str = "\
Examples:
  envelope ls
  envelope ls 'business_line=womens,region in (US,UK),!deprecated'
  envelope ls name=client_ltv_model --limit 5
  envelope ls --json | jq -r '.[].digest'

A tag query is requirements joined by commas: `a=b`, `a!=b`, `a in (b,c)`, `a notin (b,c)`, `a`, `!a`.
The key `name` stands for the name of the model.";

const SHOW_HELP: &str = "\
Examples:
  envelope show client_ltv_model
  envelope show client_ltv_model:7 --stats
  envelope show ./ltv.envelope --json | jq '.functions[0].input'";

const VERIFY_HELP: &str = "\
Examples:
  envelope verify client_ltv_model
  envelope verify client_ltv_model --quick
  envelope verify ./ltv.envelope --json
  envelope verify --trust trusted.keys client_ltv_model

This runs the functions on the samples they were saved with, in a new process.";

const DIFF_HELP: &str = "\
Examples:
  envelope diff client_ltv_model:6 client_ltv_model:7
  envelope diff client_ltv_model ./candidate.envelope --exit-code
  envelope diff a.envelope b.envelope --json | jq .packages

This runs nothing that is in the envelopes.";

const SIGN_HELP: &str = "\
Examples:
  envelope sign client_ltv_model:7 --key release.key
  envelope sign ./ltv.envelope --key release.key --days 90 -o ltv.attestation

The signature is over the digest of the envelope, so over every byte of it. It stands in
`FILE.envelope.attestation`; `export` and `import` take it along. A second key adds a second one.";

const KEYGEN_HELP: &str = "\
Examples:
  envelope keygen release.key
  cat release.key.pub >> trusted.keys
  ENVELOPE_TRUST=trusted.keys envelope serve client_ltv_model";

const PREDICT_HELP: &str = "\
Examples:
  envelope predict client_ltv_model -i age=41 -i region=UK
  envelope predict client_ltv_model -i @rows.json
  echo '[{\"age\": 41, \"region\": \"UK\"}]' | envelope predict client_ltv_model -i @-
  envelope predict client_ltv_model -i @rows.parquet -o predictions.parquet

JSON is a list of rows, or `{\"data\": [...]}`. The answer is `{\"predictions\": [...]}`.";

const SERVE_HELP: &str = "\
Examples:
  envelope serve client_ltv_model
  envelope serve client_ltv_model:7 --port 9000 --workers 1..4
  envelope serve client_ltv_model --port 8443 --tls-cert cert.pem --tls-key key.pem
  envelope serve client_ltv_model --watch           # and whatever version comes next
  envelope serve 'region=US,stage=prod' --watch     # and what is tagged so later
  curl -d '{\"data\":[{\"age\":41,\"region\":\"UK\"}]}' -H 'content-type: application/json' \\
    http://127.0.0.1:8080/predict";

const BUILD_HELP: &str = "\
Examples:
  envelope build client_ltv_model -o ltv-service
  ./ltv-service --port 8081
  envelope build client_ltv_model -o ltv-service --bundle     # for machines without Python";

const BATCH_HELP: &str = "\
Examples:
  envelope batch client_ltv_model --input clients/ --output scores/ --keep client_id
  envelope batch client_ltv_model --input clients/ --output scores/ --mode overwrite
  envelope batch client_ltv_model --input clients.parquet --output scores/ --format parquet
  envelope batch client_ltv_model --input clients/ --output scores/ --mode append \\
    --job nightly --logical-date 2026-11-28         # run it again, whatever happened
  envelope batch client_ltv_model --input clients/ --output scores/ --keep client_id,day \\
    --partition-by day --mode overwrite-partitions
  envelope batch client_ltv_model --input clients/ --output scores/ --keep client_id --merge-on client_id
  envelope batch --model ltv:7 --model ltv:8 --input clients/ --output compared/ --keep client_id
                                                    # columns `ltv_7_prediction` and `ltv_8_prediction`
  envelope batch basket --input orders/ --output baskets/ --group-by country,day
                                                    # one call for each country and day
  envelope batch client_ltv_model --input clients/ --output scores/ --cluster df://127.0.0.1:50050";

const SQL_HELP: &str = "\
Examples:
  envelope sql \"SELECT client_id, predict('client_ltv_model', t) FROM 'clients/' t LIMIT 10\"
  envelope sql \"SELECT region, avg(predict('region=UK', t)) FROM features t GROUP BY region\" \\
    --table features=clients.parquet
  envelope sql \"SELECT predict('ltv', 'explain', t, age => t.years) FROM sales.clients t\" \\
    --warehouse /data --format csv
  envelope sql \"SELECT client_id, predict('ltv', t) ltv, predict('churn', t) churn FROM 'clients/' t\" \\
    --output scores/ --mode append

`predict('REF', t)` gives the default function of an envelope the columns that it takes of the table `t`;
`column => expression` says another one, and a second text names another function. Where a function gives
several columns, `predict(…)['column']` is one of them.";

const VACUUM_HELP: &str = "\
Examples:
  envelope vacuum scores/ --dry-run
  envelope vacuum scores/ --older-than 24

Files of a job that still runs are never deleted. Versions whose files are deleted cannot be read any more.";

#[cfg(feature = "cluster")]
const SCHEDULER_HELP: &str = "\
Examples:
  envelope scheduler
  envelope scheduler --listen 127.0.0.1:50060
  envelope scheduler --listen 10.0.0.5:50050 --cluster-certificate node.pem --cluster-key node.key \
    --cluster-ca ca.pem --cluster-token token

Whoever reaches it can run code on its executors, so without certificates it listens to this machine
only. Its jobs are gone when it ends.";

#[cfg(feature = "cluster")]
const EXECUTOR_HELP: &str = "\
Examples:
  envelope executor --slots 4
  envelope executor --scheduler 127.0.0.1:50060 --slots 2 --sandbox strong
  envelope executor --scheduler 10.0.0.5:50050 --listen 10.0.0.6 --cluster-certificate node.pem \
    --cluster-key node.key --cluster-ca ca.pem --cluster-token token

It gets envelopes by their digest, from the store (`--url`, `ENVELOPE_URL`) or from that of a scheduler on
another machine, keeps copies in the cache (`--cache-dir`), and runs them in worker processes, so that
several may share it. When it is asked to end (Ctrl-C, SIGTERM), others do its work.";

const EXPORT_HELP: &str = "\
Examples:
  envelope export client_ltv_model ltv.envelope
  envelope export sha256:3f8a91c2 /mnt/usb/ltv.envelope";

const IMPORT_HELP: &str = "\
Examples:
  envelope import ltv.envelope
  envelope import ltv.envelope --json | jq .version";

const TAG_HELP: &str = "\
Examples:
  envelope tag client_ltv_model passes_tests=true
  envelope tag client_ltv_model:7 stage=prod candidate-";

const COMPLETION_HELP: &str = "\
Examples:
  envelope completion bash > ~/.local/share/bash-completion/completions/envelope
  envelope completion zsh > \"${fpath[1]}/_envelope\"
  envelope completion fish > ~/.config/fish/completions/envelope.fish";
