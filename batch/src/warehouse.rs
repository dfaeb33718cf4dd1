//! Tables by name: `sales.clients` in the folder that is the warehouse.

use std::path::Path;

use crate::error::nearest_name;
use crate::formats::Kind;
use crate::location::Location;
use crate::schema::nearest;
use crate::{Error, Job, Stores};

impl Job {
    /// Where the table that is read is. Refuses a name that the warehouse does not have.
    pub(crate) async fn input(&self, stores: &Stores) -> Result<Location, Error> {
        find(stores, self.warehouse.as_deref(), &self.input).await
    }

    /// Where the table that is read is, or would be.
    pub(crate) async fn input_place(&self, stores: &Stores) -> Result<Location, Error> {
        locate(stores, self.warehouse.as_deref(), &self.input).await
    }

    /// Where the table that is written is.
    pub(crate) async fn output(&self, stores: &Stores) -> Result<Location, Error> {
        locate(stores, self.warehouse.as_deref(), &self.output).await
    }
}

/// The place of a table that is to be read. Refuses a name that the warehouse does not have.
pub(crate) async fn find(
    stores: &Stores,
    warehouse: Option<&str>,
    table: &str,
) -> Result<Location, Error> {
    let location = locate(stores, warehouse, table).await?;
    match (warehouse, name(table)) {
        (Some(warehouse), Some(_)) if !location.exists().await? => {
            Err(unknown(&stores.locate(warehouse)?, table))
        }
        _ => Ok(location),
    }
}

/// The place of a table that is given by its name in a warehouse, or by its path.
pub(crate) async fn locate(
    stores: &Stores,
    warehouse: Option<&str>,
    table: &str,
) -> Result<Location, Error> {
    let (Some(warehouse), Some((database, table))) = (warehouse, name(table)) else {
        return stores.locate(table);
    };
    let root = stores.locate(warehouse)?;
    // Hive calls the folders of its databases so.
    let hive = root.join(&format!("{database}.db"));
    let folder = match hive.is_folder().await? {
        true => hive,
        false => root.join(database),
    };
    Ok(folder.join(table))
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
    let there = match warehouse.bucket() {
        None => names(warehouse.path()),
        // All that is below would have to be listed.
        Some(_) => vec![],
    };
    let near = nearest_name(nearest(table, &there).as_ref());
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
    use std::path::PathBuf;

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

    fn path(location: Result<Location, Error>) -> PathBuf {
        location.unwrap().path().to_path_buf()
    }

    async fn refused(job: Job) -> String {
        let error = job.input(&Stores::default()).await.unwrap_err();
        error.to_string()
    }

    #[tokio::test]
    async fn names_are_folders_of_the_warehouse_and_all_else_is_a_path() {
        let root = warehouse();
        let place = async |input: &str| path(job(&root, input).input(&Stores::default()).await);
        assert_eq!(
            place("sales.clients").await,
            root.path().join("sales/clients")
        );
        assert_eq!(place("hr.people").await, root.path().join("hr.db/people"));
        assert_eq!(place("/t/a.b").await, Path::new("/t/a.b"));
        let here = |name| std::path::absolute(name).unwrap();
        assert_eq!(place("clients.parquet").await, here("clients.parquet"));
        assert_eq!(place("clients").await, here("clients"));
        let output = job(&root, "sales.clients").output(&Stores::default()).await;
        assert_eq!(path(output), root.path().join("sales/scores"));
        let without = Job::new("sales.clients", "o")
            .input(&Stores::default())
            .await;
        assert_eq!(path(without), here("sales.clients"));
    }

    #[tokio::test]
    async fn a_name_that_is_not_there_is_told_with_the_nearest_that_is() {
        let root = warehouse();
        let error = refused(job(&root, "sales.client")).await;
        assert!(
            error.ends_with("has no such table, did you mean `sales.clients`?"),
            "{error}"
        );
        let error = refused(job(&root, "other.thing")).await;
        assert!(error.ends_with("has no such table"), "{error}");
    }
}
