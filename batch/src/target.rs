//! Where results go: what is there before the job, and what its commit will do to it.

use std::path::{Path, PathBuf};

use arrow_schema::{Schema, SchemaRef};
use deltalake_core::DeltaTable;
use deltalake_core::kernel::StructField;
use deltalake_core::kernel::transaction::PROTOCOL;
use deltalake_core::table::state::DeltaTableState;

use crate::attempt::is_left_over;
use crate::commit::is_mark;
use crate::delta_schema::written;
use crate::location::Location;
use crate::schema::check_same;
use crate::snapshot::{loaded, unreadable, unsupported};
use crate::source::{Source, parquet_files};
use crate::{Error, Format, Job, Mode};

/// The table that a job writes, as it was before any work.
#[derive(Debug)]
pub(crate) struct Target {
    /// Where it is.
    pub(crate) location: Location,
    /// Columns that are written.
    pub(crate) written: SchemaRef,
    /// What the commit will do.
    pub(crate) change: Change,
}

/// What a commit does to the table.
#[derive(Debug)]
pub(crate) enum Change {
    Delta(DeltaChange),
    Parquet(ParquetChange),
}

#[derive(Debug)]
pub(crate) enum DeltaChange {
    /// It makes the table.
    Create,
    /// It adds files to the table, which was at this version when it was checked.
    Append(Box<DeltaTable>),
    /// It puts files in the place of those there are; the columns stay the same.
    Overwrite,
    /// It puts files in the place of those there are, and new columns in the place of the old.
    Replace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParquetChange {
    /// It makes the folder.
    Create,
    /// It adds files to the folder.
    Append,
    /// It puts a new folder in the place of the old.
    Replace,
}

impl Target {
    /// Refuses an output that the results cannot go to, before any work.
    pub(crate) async fn check(job: &Job, mapped: &SchemaRef) -> Result<Self, Error> {
        let location = job.output()?.resolved();
        check_apart(&job.input()?.resolved(), &location)?;
        let written = written(mapped, job.format)?;
        if location.path().is_file() {
            return Err(not_that(&location, "is a file, not a folder"));
        }
        let change = match job.format {
            Format::Delta => Change::Delta(delta(&location, job.mode, &written).await?),
            Format::Parquet => Change::Parquet(parquet(&location, job.mode, &written).await?),
        };
        Ok(Self {
            location,
            written,
            change,
        })
    }

    /// How it is kept.
    pub(crate) fn format(&self) -> Format {
        match self.change {
            Change::Delta(_) => Format::Delta,
            Change::Parquet(_) => Format::Parquet,
        }
    }
}

/// A result that is part of its own input would be read as input the next time.
fn check_apart(input: &Location, output: &Location) -> Result<(), Error> {
    let (from, to) = (input.path(), output.path());
    if from != to && (from.starts_with(to) || to.starts_with(from)) {
        return Err(not_that(output, "and the input are part of one another"));
    }
    Ok(())
}

async fn delta(location: &Location, mode: Mode, written: &SchemaRef) -> Result<DeltaChange, Error> {
    let path = location.path();
    location.url()?;
    let table = match loaded(location).await {
        Ok(table) => table,
        Err(Error::TableNotFound { .. }) if is_empty(path)? => return Ok(DeltaChange::Create),
        Err(Error::TableNotFound { .. }) => {
            return Err(not_that(
                location,
                "is a folder with files, but not a Delta table",
            ));
        }
        Err(error) => return Err(error),
    };
    let state = table
        .snapshot()
        .map_err(|source| unreadable(location, source))?;
    let existing = state.snapshot().arrow_schema();
    let same = check_same(&location.to_string(), &existing, written, Format::Delta);
    if mode == Mode::Error {
        return Err(exists(location, same));
    }
    check_writable(location, state)?;
    match (mode, same) {
        (Mode::Append, Ok(())) => Ok(DeltaChange::Append(Box::new(table))),
        (Mode::Append, Err(mismatch)) => Err(mismatch),
        (_, Ok(())) => Ok(DeltaChange::Overwrite),
        (_, Err(_)) => Ok(DeltaChange::Replace),
    }
}

/// Refuses a table that asks more of its writers than what is done here.
fn check_writable(location: &Location, state: &DeltaTableState) -> Result<(), Error> {
    PROTOCOL
        .can_write_to(state)
        .map_err(|source| unsupported(location, source))?;
    let refuse = |feature: String| {
        Err(Error::Unsupported {
            table: location.to_string(),
            feature,
        })
    };
    if let Some(column) = state.metadata().partition_columns().first() {
        return refuse(format!("is partitioned (by `{column}`)"));
    }
    if let Some(column) = state.schema().fields().find(|field| has_rules(field)) {
        return refuse(format!("has rules for the values of `{}`", column.name()));
    }
    Ok(())
}

/// Rules that a writer must enforce, and that nothing here does.
fn has_rules(field: &StructField) -> bool {
    const RULES: [&str; 3] = [
        "delta.invariants",
        "delta.generationExpression",
        "delta.identity.start",
    ];
    RULES
        .iter()
        .any(|rule| field.metadata().contains_key(*rule))
}

async fn parquet(
    location: &Location,
    mode: Mode,
    written: &Schema,
) -> Result<ParquetChange, Error> {
    let path = location.path();
    if !path.exists() || is_empty(path)? {
        return Ok(ParquetChange::Create);
    }
    if path.join("_delta_log").exists() {
        return Err(not_that(location, "is a Delta table"));
    }
    let unreadable = |source| Error::Read {
        table: location.to_string(),
        file: None,
        source: Box::new(source),
    };
    // Overwriting removes the folder: it must not hold anything else.
    if let Some(foreign) = foreign_file(path).map_err(unreadable)? {
        return Err(not_that(
            location,
            &format!(
                "holds `{}`, which is not a part of a table",
                foreign.display()
            ),
        ));
    }
    if parquet_files(path).map_err(unreadable)?.is_empty() {
        return Err(not_that(location, "is a folder without Parquet files"));
    }
    if mode == Mode::Overwrite {
        return Ok(ParquetChange::Replace);
    }
    let same = match Source::open(location).await {
        Ok(existing) if existing.partition_columns > 0 => Err(Error::Unsupported {
            table: existing.name,
            feature: "is partitioned".to_owned(),
        }),
        Ok(existing) => check_same(&existing.name, &existing.schema, written, Format::Parquet),
        Err(error) => Err(error),
    };
    match mode {
        Mode::Append => same.map(|()| ParquetChange::Append),
        Mode::Error | Mode::Overwrite => Err(exists(location, same)),
    }
}

fn is_empty(folder: &Path) -> Result<bool, Error> {
    let unreadable = |source| Error::Write {
        path: folder.to_path_buf(),
        source: Box::new(source),
    };
    if !folder.exists() {
        return Ok(true);
    }
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        // A log without a version is what a commit leaves that failed at the last step.
        if entry.file_name() != "_delta_log"
            && !is_left_over(folder, &entry.path()).map_err(unreadable)?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A file below `folder` that writers of Parquet tables do not make.
fn foreign_file(folder: &Path) -> std::io::Result<Option<PathBuf>> {
    const MARKS: [&str; 3] = ["_SUCCESS", "_metadata", "_common_metadata"];
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() && !name.starts_with('.') {
                folders.push(entry.path());
            } else if !name.ends_with(".parquet")
                && !name.ends_with(".crc")
                && !MARKS.contains(&name.as_str())
                && !is_mark(&name)
            {
                return Ok(Some(entry.path()));
            }
        }
    }
    Ok(None)
}

fn exists(location: &Location, same: Result<(), Error>) -> Error {
    Error::TableExists {
        table: location.to_string(),
        differs: same.err().map(|error| error.to_string()),
    }
}

fn not_that(location: &Location, reason: &str) -> Error {
    Error::NotThatTable {
        path: location.to_string(),
        reason: reason.to_owned(),
    }
}
