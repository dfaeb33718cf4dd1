use std::collections::BTreeMap;

use proptest::prelude::*;
use sqlx::{AssertSqlSafe, SqlitePool};

use super::*;
use crate::versions;

#[track_caller]
fn prints(text: &str, expected: &str) {
    let query: TagQuery = text.parse().unwrap();
    assert_eq!(query.to_string(), expected);
    assert_eq!(expected.parse(), Ok(query));
}

#[track_caller]
fn refuses(text: &str, message: &str) {
    let error = text
        .parse::<TagQuery>()
        .expect_err("the query was accepted");
    assert_eq!(error.to_string(), message, "{text}");
}

#[track_caller]
fn matches(query: &str, tags: &str, expected: bool) {
    let tags = tags
        .split_whitespace()
        .filter_map(|tag| tag.split_once('='));
    let tags = tags
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    assert_eq!(
        query.parse::<TagQuery>().unwrap().matches("ltv", &tags),
        expected,
        "{query}"
    );
}

#[test]
fn queries_print_in_one_spelling() {
    prints("", "");
    prints("  a = b , c ", "a=b,c");
    prints("a==b", "a=b");
    prints("a in ( c , b ,b)", "a in (b,c)");
    prints("a in (b)", "a=b");
    prints("a notin (b)", "a!=b");
    prints("! a", "!a");
    prints("in in (in,notin)", "in in (in,notin)");
    prints("team/owner=größe", "team/owner=größe");
    prints("a=", "a=\"\"");
    prints("a in (,b)", "a in (\"\",b)");
    prints(r#"a="x \"y\" \\ (z), =""#, r#"a="x \"y\" \\ (z), =""#);
}

#[test]
fn errors_say_where() {
    refuses(
        "a,",
        "character 3 of the tag query: expected a requirement, found the end",
    );
    refuses(
        "a b",
        "character 3 of the tag query: expected `=`, `!=`, `in`, `notin`, `,` or the end, found `b`",
    );
    refuses(
        "a in x",
        "character 6 of the tag query: expected `(`, found `x`",
    );
    refuses(
        "a in ()",
        "character 7 of the tag query: expected a value, found `)`",
    );
    refuses(
        "a in (b",
        "character 8 of the tag query: expected `,` or `)`, found the end",
    );
    refuses(
        "a>1",
        "character 2 of the tag query: expected `=`, `!=`, `in`, `notin`, `,` or the end, found `>`",
    );
    refuses(
        "a=b c",
        "character 5 of the tag query: expected a plain value, or one in double quotes, found `c`",
    );
    refuses(
        "ö=1",
        "character 1 of the tag query: expected a tag key of 1 to 63 letters, digits, `.`, `_`, `-`, `/`, found `ö`",
    );
    refuses(
        "a=\"ö",
        "character 5 of the tag query: expected `\"`, found the end",
    );
    refuses(
        r#"a="\n""#,
        "character 5 of the tag query: expected `\"` or `\\` after `\\`, found `n`",
    );
    refuses(
        &"a,".repeat(300),
        "the tag query has 257 requirements, the most is 256",
    );
    refuses(
        &"a".repeat(20_000),
        "the tag query has 20000 bytes, the most is 16384",
    );
}

#[test]
fn negative_requirements_match_versions_without_the_key() {
    matches("a!=b", "", true);
    matches("a!=b", "a=b", false);
    matches("a notin (b,c)", "", true);
    matches("a notin (b,c)", "a=c", false);
    matches("!a", "", true);
    matches("!a", "a=", false);
}

#[test]
fn requirements_must_all_hold() {
    matches("", "", true);
    matches("a=b,c in (d,e),!f", "a=b c=e", true);
    matches("a=b,c in (d,e),!f", "a=b c=e f=", false);
    matches("a=b,a=c", "a=b", false);
    matches("a", "a=", true);
}

#[test]
fn name_stands_for_the_name_of_the_model() {
    matches("name=ltv", "", true);
    matches("name in (churn,fraud)", "", false);
    matches("name!=ltv", "", false);
    matches("name", "", true);
    matches("!name", "", false);
}

/// Few keys and values, so that queries and versions meet; values that SQL or the grammar could
/// misread.
const KEYS: [&str; 4] = ["a", "B", "team/owner", "in"];
const VALUES: [&str; 8] = ["", "x", "X", "größe", "it's", "\"); --", "a\0b", "%_"];
const NAMES: [&str; 3] = ["ltv", "LTV", "churn"];

fn value() -> impl Strategy<Value = String> {
    prop_oneof![4 => prop::sample::select(&VALUES[..]).prop_map(str::to_owned), 1 => any::<String>()]
}

fn test(value: impl Strategy<Value = String> + Clone) -> impl Strategy<Value = Test> {
    let values = prop::collection::btree_set(value, 1..4);
    prop_oneof![
        values.clone().prop_map(Test::In),
        values.prop_map(Test::NotIn),
        Just(Test::Exists),
        Just(Test::Absent),
    ]
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let key = prop::sample::select(&KEYS[..]).prop_map(|key| Subject::Tag(key.to_owned()));
    let value =
        prop_oneof![3 => value(), 1 => prop::sample::select(&NAMES[..]).prop_map(str::to_owned)];
    let subject = prop_oneof![3 => key, 1 => Just(Subject::Name)];
    (subject, test(value.boxed())).prop_map(|(subject, test)| Requirement { subject, test })
}

fn query() -> impl Strategy<Value = TagQuery> {
    prop::collection::vec(requirement(), 0..4).prop_map(|requirements| TagQuery { requirements })
}

type Tagged = (String, BTreeMap<String, String>);

fn tagged() -> impl Strategy<Value = Tagged> {
    let key = prop::sample::select(&KEYS[..]).prop_map(str::to_owned);
    let tags = prop::collection::btree_map(key, value(), 0..4);
    (
        prop::sample::select(&NAMES[..]).prop_map(str::to_owned),
        tags,
    )
}

proptest! {
    #[test]
    fn what_is_printed_is_read_back(query in query()) {
        prop_assert_eq!(query.to_string().parse(), Ok(query));
    }

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        if let Ok(query) = text.parse::<TagQuery>() {
            prop_assert_eq!(query.to_string().parse(), Ok(query));
        }
    }

    #[test]
    fn anything_like_a_query_is_read_or_refused(text in "[ab=!,() \"\\\\inot]{0,24}") {
        if let Ok(query) = text.parse::<TagQuery>() {
            prop_assert_eq!(query.to_string().parse(), Ok(query));
        }
    }

    #[test]
    fn the_database_and_the_evaluator_agree(
        saved in prop::collection::vec(tagged(), 1..12),
        queries in prop::collection::vec(query(), 1..16),
    ) {
        agree(&saved, &queries);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn agree(saved: &[Tagged], queries: &[TagQuery]) {
    let folder = tempfile::tempdir().unwrap();
    let rows = crate::database::open(folder.path()).await.unwrap();
    for (index, (name, tags)) in saved.iter().enumerate() {
        insert(&rows, index, name, tags).await;
    }
    for query in queries {
        let found = versions::find(&rows, query, usize::MAX).await.unwrap();
        let found: Vec<_> = found
            .into_iter()
            .map(|version| (version.name, version.tags))
            .collect();
        let expected: Vec<_> = saved
            .iter()
            .rev()
            .filter(|(name, tags)| query.matches(name, tags))
            .cloned()
            .collect();
        assert_eq!(found, expected, "{query}");
    }
    rows.close().await;
}

async fn insert(rows: &SqlitePool, index: usize, name: &str, tags: &BTreeMap<String, String>) {
    let digest = envelope_format::Digest::of(&index.to_le_bytes());
    // The same time for each two: then the order is that of the ids.
    let row = format!(
        "INSERT INTO versions VALUES ({0}, '{name}', {0}, '{digest}', '', {1})",
        index + 1,
        index / 2
    );
    sqlx::raw_sql(AssertSqlSafe(row))
        .execute(rows)
        .await
        .unwrap();
    let mut connection = rows.acquire().await.unwrap();
    for (key, value) in tags {
        crate::tags::set(
            &mut connection,
            i64::try_from(index + 1).unwrap(),
            key,
            value,
        )
        .await
        .unwrap();
    }
}
