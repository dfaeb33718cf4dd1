//! Tags: what a version is called by, besides its name.

use std::collections::BTreeMap;

use sqlx::SqliteConnection;

use crate::error::database;
use crate::tag_query::{NAME, is_key};
use crate::{Error, InvalidTag};

/// Longest key, in bytes: as in Kubernetes.
const MAX_KEY_BYTES: usize = 63;

/// Longest value, in bytes: a sentence, not a document.
const MAX_VALUE_BYTES: usize = 1024;

/// Whether `key` and `value` can be a tag.
pub(crate) fn check(key: &str, value: &str) -> Result<(), InvalidTag> {
    if key == NAME {
        return Err(InvalidTag::Reserved);
    }
    if !(1..=MAX_KEY_BYTES).contains(&key.len()) || !key.chars().all(is_key) {
        return Err(InvalidTag::Key {
            key: key.chars().take(MAX_KEY_BYTES + 1).collect(),
        });
    }
    if value.len() > MAX_VALUE_BYTES {
        return Err(InvalidTag::Value {
            key: key.to_owned(),
            size: value.len(),
        });
    }
    Ok(())
}

/// Whether each of `tags` can be one.
pub(crate) fn check_all(tags: &BTreeMap<String, String>) -> Result<(), InvalidTag> {
    tags.iter().try_for_each(|(key, value)| check(key, value))
}

/// Sets a tag of the version with this row id.
pub(crate) async fn set(
    connection: &mut SqliteConnection,
    id: i64,
    key: &str,
    value: &str,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO tags (version_id, key, value) VALUES (?, ?, ?)
         ON CONFLICT (version_id, key) DO UPDATE SET value = excluded.value",
    )
    .bind(id)
    .bind(key)
    .bind(value)
    .execute(connection)
    .await
    .map_err(database("set a tag"))?;
    Ok(())
}

/// Removes a tag, if it is there.
pub(crate) async fn remove(
    connection: &mut SqliteConnection,
    id: i64,
    key: &str,
) -> Result<(), Error> {
    sqlx::query("DELETE FROM tags WHERE version_id = ? AND key = ?")
        .bind(id)
        .bind(key)
        .execute(connection)
        .await
        .map_err(database("remove a tag"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_short_and_plain() {
        for key in ["a", "team/owner", "A.b-c_9", &"k".repeat(63)] {
            assert_eq!(check(key, ""), Ok(()), "{key}");
        }
        for key in ["", "a b", "größe", "a=b", &"k".repeat(64)] {
            assert!(
                matches!(check(key, ""), Err(InvalidTag::Key { .. })),
                "{key}"
            );
        }
        assert_eq!(check("name", "x"), Err(InvalidTag::Reserved));
    }

    #[test]
    fn values_are_any_text_up_to_a_kibibyte() {
        assert_eq!(check("a", "Größe, \"quoted\"\n\0"), Ok(()));
        assert_eq!(check("a", &"x".repeat(1024)), Ok(()));
        assert!(matches!(
            check("a", &"x".repeat(1025)),
            Err(InvalidTag::Value { size: 1025, .. })
        ));
    }
}
