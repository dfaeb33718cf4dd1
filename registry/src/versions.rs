//! Versions: a name and a number that point at an envelope's bytes.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat};
use envelope_format::{Digest, Manifest};
use serde::Serialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection, SqliteExecutor, SqlitePool};

use crate::error::database;
use crate::{Error, TagQuery, tags};

/// One saved envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    /// Name of the model.
    pub name: String,
    /// Number of the version: 1, 2, 3, … without gaps.
    pub version: u64,
    /// Identity of the envelope.
    pub digest: Digest,
    /// What the model does, for people.
    pub description: String,
    /// The tags it has now.
    pub tags: BTreeMap<String, String>,
    /// When it was first saved here: RFC 3339 in UTC, to the millisecond.
    pub created_at: String,
}

/// The versions that `query` matches, newest first.
pub(crate) async fn find(
    pool: &SqlitePool,
    query: &TagQuery,
    limit: usize,
) -> Result<Vec<Version>, Error> {
    select(pool, |sql| query.push_condition(sql), limit).await
}

/// The version with this digest.
pub(crate) async fn by_digest(
    on: impl SqliteExecutor<'_>,
    digest: &Digest,
) -> Result<Option<Version>, Error> {
    let is_it =
        |sql: &mut QueryBuilder<Sqlite>| _ = sql.push("v.digest = ").push_bind(digest.to_string());
    Ok(select(on, is_it, 1).await?.pop())
}

/// Version `version` of `name`.
pub(crate) async fn numbered(
    pool: &SqlitePool,
    name: &str,
    version: u64,
) -> Result<Option<Version>, Error> {
    let Ok(version) = i64::try_from(version) else {
        return Ok(None);
    };
    let is_it = |sql: &mut QueryBuilder<Sqlite>| {
        sql.push("v.name = ")
            .push_bind(name.to_owned())
            .push(" AND v.version = ")
            .push_bind(version);
    };
    Ok(select(pool, is_it, 1).await?.pop())
}

/// Up to `limit` versions whose digest begins with these hex digits.
pub(crate) async fn by_prefix(
    pool: &SqlitePool,
    digits: &str,
    limit: usize,
) -> Result<Vec<Version>, Error> {
    // `g` follows the last hex digit, so this is a range of the index.
    let is_it = |sql: &mut QueryBuilder<Sqlite>| {
        sql.push("v.digest >= ")
            .push_bind(format!("sha256:{digits}"));
        sql.push(" AND v.digest < ")
            .push_bind(format!("sha256:{digits}g"));
    };
    select(pool, is_it, limit).await
}

/// The names of all models.
pub(crate) async fn names(pool: &SqlitePool) -> Result<Vec<String>, Error> {
    sqlx::query_scalar("SELECT DISTINCT name FROM versions ORDER BY name")
        .fetch_all(pool)
        .await
        .map_err(database("list the names"))
}

/// Adds the next version of the manifest's name; the tags begin as the manifest's.
///
/// The caller holds the write lock, so that no other version gets the same number.
pub(crate) async fn insert(
    connection: &mut SqliteConnection,
    manifest: &Manifest,
    digest: &Digest,
    created_at_ms: i64,
) -> Result<(), Error> {
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO versions (name, version, digest, description, created_at_ms)
         SELECT ?1, COALESCE(MAX(version), 0) + 1, ?2, ?3, ?4 FROM versions WHERE name = ?1
         RETURNING id",
    )
    .bind(&manifest.name)
    .bind(digest.to_string())
    .bind(&manifest.description)
    .bind(created_at_ms)
    .fetch_one(&mut *connection)
    .await
    .map_err(database("add a version"))?;
    for (key, value) in &manifest.tags {
        tags::set(connection, id, key, value).await?;
    }
    Ok(())
}

/// The row id of the version with this digest.
pub(crate) async fn id(
    connection: &mut SqliteConnection,
    digest: &Digest,
) -> Result<Option<i64>, Error> {
    sqlx::query_scalar("SELECT id FROM versions WHERE digest = ?")
        .bind(digest.to_string())
        .fetch_optional(connection)
        .await
        .map_err(database("look for a digest"))
}

/// Versions and their tags in one statement, so that both are of one moment.
async fn select(
    on: impl SqliteExecutor<'_>,
    push_condition: impl FnOnce(&mut QueryBuilder<Sqlite>),
    limit: usize,
) -> Result<Vec<Version>, Error> {
    let mut sql = QueryBuilder::new("WITH page AS (SELECT v.* FROM versions v WHERE ");
    push_condition(&mut sql);
    sql.push(" ORDER BY v.created_at_ms DESC, v.id DESC LIMIT ");
    sql.push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
    sql.push(
        ") SELECT page.*, t.key, t.value FROM page LEFT JOIN tags t ON t.version_id = page.id",
    );
    sql.push(" ORDER BY page.created_at_ms DESC, page.id DESC");
    let rows = sql.build().fetch_all(on).await;
    rows.and_then(|rows| gather(&rows))
        .map_err(database("look for versions"))
}

/// One version from each run of rows with the same digest.
fn gather(rows: &[SqliteRow]) -> Result<Vec<Version>, sqlx::Error> {
    let mut versions: Vec<Version> = vec![];
    for row in rows {
        let version = read(row)?;
        if versions
            .last()
            .is_none_or(|last| last.digest != version.digest)
        {
            versions.push(version);
        }
        let key: Option<String> = row.try_get("key")?;
        if let (Some(key), Some(last)) = (key, versions.last_mut()) {
            last.tags.insert(key, row.try_get("value")?);
        }
    }
    Ok(versions)
}

fn read(row: &SqliteRow) -> Result<Version, sqlx::Error> {
    let digest: &str = row.try_get("digest")?;
    let version: i64 = row.try_get("version")?;
    Ok(Version {
        name: row.try_get("name")?,
        version: version.try_into().map_err(decoding)?,
        digest: digest.parse().map_err(decoding)?,
        description: row.try_get("description")?,
        tags: BTreeMap::new(),
        created_at: rfc3339(row.try_get("created_at_ms")?),
    })
}

fn decoding(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

fn rfc3339(ms: i64) -> String {
    let moment = DateTime::from_timestamp_millis(ms).unwrap_or_default();
    moment.to_rfc3339_opts(SecondsFormat::Millis, true)
}
