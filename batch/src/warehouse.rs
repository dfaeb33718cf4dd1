//! Tables by name: `sales.clients` in the folder that is the warehouse.

use std::path::Path;

use crate::error::nearest_name;
use crate::formats::Kind;
use crate::location::Location;
use crate::schema::nearest;
use crate::{Error, Job};

impl Job {
    /// Where the table that is read is. Refuses a name that the warehouse does not have.
    pub(crate) fn input(&self) -> Result<Location, Error> {
        find(self.warehouse.as_deref(), &self.input)
    }

    /// Where the table that is read is, or would be.
    pub(crate) fn input_place(&self) -> Result<Location, Error> {
        locate(self.warehouse.as_deref(), &self.input)
    }

    /// Where the table that is written is.
    pub(crate) fn output(&self) -> Result<Location, Error> {
        locate(self.warehouse.as_deref(), &self.output)
    }
}

/// The place of a table that is to be read. Refuses a name that the warehouse does not have.
pub(crate) fn find(warehouse: Option<&str>, table: &str) -> Result<Location, Error> {
    let location = locate(warehouse, table)?;
    match (warehouse, name(table)) {
        (Some(warehouse), Some(_)) if !location.path().exists() => {
            Err(unknown(&Location::parse(warehouse)?, table))
        }
        _ => Ok(location),
    }
}

/// The place of a table that is given by its name in a warehouse, or by its path.
pub(crate) fn locate(warehouse: Option<&str>, table: &str) -> Result<Location, Error> {
    let (Some(warehouse), Some((database, table))) = (warehouse, name(table)) else {
        return Location::parse(table);
    };
    let root = Location::parse(warehouse)?;
    // Hive calls the folders of its databases so.
    let hive = root.path().join(format!("{database}.db"));
    let folder = if hive.is_dir() {
        hive
    } else {
        root.path().join(database)
    };
    Location::parse(&folder.join(table).to_string_lossy())
}

/// Database and table, if it is a name. `clients.parquet` is a file.
fn name(table: &str) -> Option<(&str, &str)> {
    let plain = |part: &str| {
        let good = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-');
        !part.is_empty() && part.chars().all(good)
    };
    let parts = table
        .split_once('.')
        .filter(|(database, table)| plain(database) && plain(table));
    parts.filter(|_| Kind::of(Path::new(table)).is_none())
}

fn unknown(warehouse: &Location, table: &str) -> Error {
    let near = nearest_name(nearest(table, &names(warehouse.path())).as_ref());
    Error::TableNotFound {
        table: table.to_owned(),
        looked_for: format!("the warehouse `{warehouse}` has no such table{near}"),
    }
}

/// The tables of a warehouse. What cannot be listed has none.
fn names(warehouse: &Path) -> Vec<String> {
    let databases = folders(warehouse).into_iter();
    let tables = databases.flat_map(|database| {
        let name = database.strip_suffix(".db").unwrap_or(&database).to_owned();
        let tables = folders(&warehouse.join(&database)).into_iter();
        tables.map(move |table| format!("{name}.{table}"))
    });
    let mut names: Vec<String> = tables.collect();
    names.sort();
    names
}

fn folders(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.path().is_dir());
    let names = folders.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| !name.starts_with(['.', '_'])).collect()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn warehouse() -> TempDir {
        let root = TempDir::new().unwrap();
        for folder in ["sales/clients", "hr.db/people"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        root
    }

    fn job(root: &TempDir, input: &str) -> Job {
        let mut job = Job::new(input, "sales.scores");
        job.warehouse = Some(root.path().to_string_lossy().into_owned());
        job
    }

    #[test]
    fn names_are_folders_of_the_warehouse_and_all_else_is_a_path() {
        let root = warehouse();
        let place = |input: &str| job(&root, input).input().unwrap().path().to_path_buf();
        assert_eq!(place("sales.clients"), root.path().join("sales/clients"));
        assert_eq!(place("hr.people"), root.path().join("hr.db/people"));
        assert_eq!(place("/t/a.b"), Path::new("/t/a.b"));
        let here = |name| std::path::absolute(name).unwrap();
        assert_eq!(place("clients.parquet"), here("clients.parquet"));
        assert_eq!(place("clients"), here("clients"));
        let output = job(&root, "sales.clients").output().unwrap();
        assert_eq!(output.path(), root.path().join("sales/scores"));
        let without = Job::new("sales.clients", "o").input().unwrap();
        assert_eq!(without.path(), here("sales.clients"));
    }

    #[test]
    fn a_name_that_is_not_there_is_told_with_the_nearest_that_is() {
        let root = warehouse();
        let error = job(&root, "sales.client").input().unwrap_err().to_string();
        assert!(
            error.ends_with("has no such table, did you mean `sales.clients`?"),
            "{error}"
        );
        let error = job(&root, "other.thing").input().unwrap_err().to_string();
        assert!(error.ends_with("has no such table"), "{error}");
    }
}
