//! Tag query → SQL. Texts of users are bound, never spliced.

use std::collections::BTreeSet;

use sqlx::{QueryBuilder, Sqlite};

use super::{Requirement, Subject, TagQuery, Test};

impl TagQuery {
    /// Appends a condition on a row `v` of `versions`.
    pub(crate) fn push_condition(&self, sql: &mut QueryBuilder<Sqlite>) {
        sql.push("TRUE");
        for requirement in &self.requirements {
            sql.push(" AND ");
            requirement.push_condition(sql);
        }
    }
}

impl Requirement {
    fn push_condition(&self, sql: &mut QueryBuilder<Sqlite>) {
        match (&self.subject, &self.test) {
            (Subject::Name, Test::In(values)) => push_one_of(sql, "v.name IN", values),
            (Subject::Name, Test::NotIn(values)) => push_one_of(sql, "v.name NOT IN", values),
            (Subject::Name, Test::Exists) => _ = sql.push("TRUE"),
            (Subject::Name, Test::Absent) => _ = sql.push("FALSE"),
            (Subject::Tag(key), Test::In(values)) => push_exists(sql, "EXISTS", key, Some(values)),
            (Subject::Tag(key), Test::NotIn(values)) => {
                push_exists(sql, "NOT EXISTS", key, Some(values))
            }
            (Subject::Tag(key), Test::Exists) => push_exists(sql, "EXISTS", key, None),
            (Subject::Tag(key), Test::Absent) => push_exists(sql, "NOT EXISTS", key, None),
        }
    }
}

fn push_exists(
    sql: &mut QueryBuilder<Sqlite>,
    test: &str,
    key: &str,
    values: Option<&BTreeSet<String>>,
) {
    sql.push(test)
        .push(" (SELECT 1 FROM tags t WHERE t.version_id = v.id AND t.key = ")
        .push_bind(key.to_owned());
    if let Some(values) = values {
        push_one_of(sql, " AND t.value IN", values);
    }
    sql.push(")");
}

fn push_one_of(sql: &mut QueryBuilder<Sqlite>, test: &str, values: &BTreeSet<String>) {
    sql.push(test).push(" (");
    let mut list = sql.separated(", ");
    for value in values {
        list.push_bind(value.clone());
    }
    sql.push(")");
}
