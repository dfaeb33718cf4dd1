//! The registry through its public API, on real folders and with real processes.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use envelope_format::{Content, Digest, Draft, Envelope, Manifest};
use registry::{Error, InvalidTag, Reference, Registry, TagQuery, Version};
use tempfile::TempDir;

/// A store, and a folder to make envelopes in.
struct Stack {
    folder: TempDir,
}

impl Stack {
    fn new() -> Self {
        let stack = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(stack.drafts()).unwrap();
        stack
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("data/store")
    }

    fn drafts(&self) -> PathBuf {
        self.folder.path().join("drafts")
    }

    async fn open(&self) -> Registry {
        Registry::open(&self.root()).await.unwrap()
    }

    /// A file with an envelope; the same `description` gives the same envelope.
    fn draft(&self, name: &str, description: &str, tags: &[(&str, &str)]) -> PathBuf {
        let tags = tags
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let manifest = Manifest {
            name: name.into(),
            description: description.into(),
            tags,
            ..Manifest::example()
        };
        let mut draft = Draft::new(manifest);
        for member in ["environment/pylock.toml", "state/functions.pkl"] {
            draft.add(member.parse().unwrap(), Content::Text(b"...".to_vec()));
        }
        let mut bytes = vec![];
        let digest = draft.write(&mut bytes).unwrap();
        let path = self.drafts().join(format!("{}.envelope", digest.short()));
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Files below a folder of the store.
    fn files(&self, folder: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.root().join(folder)) else {
            return vec![];
        };
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

/// So many seconds after a moment in 2026.
fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000 + seconds)
}

async fn find(registry: &Registry, query: &str) -> Vec<String> {
    let found = registry.find(&query.parse().unwrap(), 100).await.unwrap();
    found
        .iter()
        .map(|version| format!("{}:{}", version.name, version.version))
        .collect()
}

async fn resolve(registry: &Registry, reference: &str) -> Result<Version, Error> {
    registry
        .resolve(&reference.parse::<Reference>().unwrap())
        .await
}

#[tokio::test]
async fn a_saved_envelope_is_found_again_after_reopening() {
    let stack = Stack::new();
    let file = stack.draft("ltv", "first", &[("region", "US")]);
    let registry = stack.open().await;
    let saved = registry.save(&file, at(0)).await.unwrap();
    registry.close().await;

    let registry = stack.open().await;
    let found = resolve(&registry, "ltv").await.unwrap();
    assert_eq!(found, saved);
    let stored = registry.envelope_path(&found.digest).unwrap();
    assert_eq!(fs::read(stored).unwrap(), fs::read(&file).unwrap());
    let expected = serde_json::json!({
        "name": "ltv", "version": 1, "digest": saved.digest, "description": "first",
        "tags": {"region": "US"}, "created_at": "2026-11-18T11:06:40.000Z",
    });
    assert_eq!(serde_json::to_value(&found).unwrap(), expected);
}

#[tokio::test]
async fn saving_again_gives_the_same_version() {
    let stack = Stack::new();
    let file = stack.draft("ltv", "first", &[]);
    let registry = stack.open().await;
    let first = registry.save(&file, at(0)).await.unwrap();
    let again = registry.save(&file, at(1)).await.unwrap();
    assert_eq!(again, first);
    assert_eq!(stack.files("envelopes").len(), 1);
    assert!(stack.files("staging").is_empty());
}

#[tokio::test]
async fn an_adopted_file_is_moved_and_only_from_this_store() {
    let stack = Stack::new();
    let registry = stack.open().await;
    let draft = stack.draft("ltv", "", &[]);
    let refused = registry.adopt(&draft, at(1)).await;
    assert!(matches!(refused, Err(Error::Store { .. })), "{refused:?}");
    for _ in 0..2 {
        let staged = registry.stage().unwrap();
        fs::copy(&draft, &staged).unwrap();
        let version = registry.adopt(&staged, at(1)).await.unwrap();
        assert_eq!(version.version, 1);
        let stored = registry.envelope_path(&version.digest).unwrap();
        assert_eq!(fs::read(stored).unwrap(), fs::read(&draft).unwrap());
        assert!(!staged.exists());
    }
}

#[tokio::test]
async fn a_damaged_envelope_is_refused_and_nothing_is_stored() {
    let stack = Stack::new();
    let file = stack.draft("ltv", "first", &[]);
    let good = fs::read(&file).unwrap();
    let registry = stack.open().await;
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    // The content of the last member, the directory, and the end.
    let directory = good.len() - 400;
    for bytes in [
        flipped(directory),
        flipped(good.len() - 1),
        good[..good.len() / 2].to_vec(),
        vec![],
    ] {
        fs::write(&file, bytes).unwrap();
        let error = registry.save(&file, at(0)).await.unwrap_err();
        assert!(matches!(error, Error::Envelope { .. }), "{error:?}");
    }
    assert!(find(&registry, "").await.is_empty());
    assert!(stack.files("envelopes").is_empty() && stack.files("staging").is_empty());
}

#[tokio::test]
async fn a_damaged_stored_envelope_is_repaired_by_a_good_copy() {
    let stack = Stack::new();
    let file = stack.draft("ltv", "first", &[]);
    let registry = stack.open().await;
    let saved = registry.save(&file, at(0)).await.unwrap();
    let stored = registry.envelope_path(&saved.digest).unwrap();
    fs::write(&stored, b"torn").unwrap();
    assert_eq!(registry.save(&file, at(1)).await.unwrap(), saved);
    assert_eq!(fs::read(&stored).unwrap(), fs::read(&file).unwrap());

    fs::remove_file(&stored).unwrap();
    let missing = registry.envelope_path(&saved.digest);
    assert!(
        matches!(missing, Err(Error::BytesMissing { .. })),
        "{missing:?}"
    );
    registry.save(&file, at(2)).await.unwrap();
    assert!(registry.envelope_path(&saved.digest).is_ok());
}

#[tokio::test]
async fn an_envelope_with_a_tag_that_cannot_be_kept_is_refused() {
    let stack = Stack::new();
    let registry = stack.open().await;
    for key in ["name", "two words", ""] {
        let file = stack.draft("ltv", "", &[(key, "x")]);
        let error = registry.save(&file, at(0)).await.unwrap_err();
        assert!(matches!(error, Error::Tag(_)), "{error:?}");
    }
    assert!(stack.files("envelopes").is_empty());
}

#[tokio::test]
async fn the_latest_is_the_one_saved_last() {
    let stack = Stack::new();
    let registry = stack.open().await;
    for (description, seconds) in [("a", 5), ("b", 3), ("c", 5)] {
        registry
            .save(&stack.draft("ltv", description, &[]), at(seconds))
            .await
            .unwrap();
    }
    registry
        .save(&stack.draft("churn", "", &[("region", "UK")]), at(4))
        .await
        .unwrap();
    assert_eq!(
        find(&registry, "").await,
        ["ltv:3", "ltv:1", "churn:1", "ltv:2"]
    );
    assert_eq!(
        find(&registry, "name=ltv").await,
        ["ltv:3", "ltv:1", "ltv:2"]
    );
    assert_eq!(
        resolve(&registry, "name in (ltv,churn)")
            .await
            .unwrap()
            .version,
        3
    );
    assert_eq!(resolve(&registry, "region=UK").await.unwrap().name, "churn");
    let limited = registry.find(&TagQuery::default(), 2).await.unwrap();
    assert_eq!(limited.len(), 2);
}

#[tokio::test]
async fn every_form_of_reference_finds_its_version() {
    let stack = Stack::new();
    let registry = stack.open().await;
    let file = stack.draft("ltv", "a", &[]);
    let first = registry.save(&file, at(0)).await.unwrap();
    registry
        .save(&stack.draft("ltv", "b", &[]), at(1))
        .await
        .unwrap();
    let digest = first.digest.to_string();
    for reference in ["ltv:1", &digest, &digest[..15], file.to_str().unwrap()] {
        assert_eq!(
            resolve(&registry, reference).await.unwrap(),
            first,
            "{reference}"
        );
    }
}

#[tokio::test]
async fn what_is_not_found_names_what_is_near() {
    let stack = Stack::new();
    let registry = stack.open().await;
    let hint = async |reference: &str| {
        resolve(&registry, reference)
            .await
            .unwrap_err()
            .hint()
            .unwrap()
    };
    assert!(hint("ltv").await.ends_with("is empty"));
    registry
        .save(&stack.draft("ltv_model", "", &[("region", "US")]), at(0))
        .await
        .unwrap();
    registry
        .save(&stack.draft("churn", "", &[("region", "UK")]), at(0))
        .await
        .unwrap();
    assert_eq!(hint("ltv_modle").await, "did you mean `ltv_model`?");
    assert_eq!(hint("ltv_model:2").await, "`ltv_model` has only version 1");
    assert_eq!(
        hint("region=US,stage=prod").await,
        "no version matches `stage=prod`"
    );
    let both = hint("region=US,name=churn").await;
    assert_eq!(
        both,
        "each requirement matches some version, but no version matches all of them"
    );
    assert!(
        hint(&Digest::of(b"").to_string())
            .await
            .starts_with("no envelope with this digest")
    );
}

#[tokio::test]
async fn tags_change_all_at_once_or_not_at_all() {
    let stack = Stack::new();
    let registry = stack.open().await;
    let saved = registry
        .save(&stack.draft("ltv", "", &[("a", "1"), ("b", "2")]), at(0))
        .await
        .unwrap();
    let changes = |changes: &[(&str, Option<&str>)]| {
        let owned = changes
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned)));
        owned.collect::<BTreeMap<_, _>>()
    };
    let wrong = changes(&[("a", Some("9")), ("b b", Some("9"))]);
    let error = registry.set_tags(&saved.digest, &wrong).await.unwrap_err();
    assert!(
        matches!(error, Error::Tag(InvalidTag::Key { .. })),
        "{error:?}"
    );
    assert_eq!(resolve(&registry, "ltv").await.unwrap(), saved);

    let right = changes(&[
        ("a", None),
        ("b", Some("Größe, 3")),
        ("c", Some("")),
        ("d", None),
    ]);
    let changed = registry.set_tags(&saved.digest, &right).await.unwrap();
    let expected = BTreeMap::from([("b".into(), "Größe, 3".into()), ("c".into(), String::new())]);
    assert_eq!(changed.tags, expected);
    assert_eq!(find(&registry, "b=\"Größe, 3\",c,!a").await, ["ltv:1"]);

    let unknown = registry.set_tags(&Digest::of(b""), &right).await;
    assert!(
        matches!(unknown, Err(Error::NotFound { .. })),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn a_store_of_a_newer_program_is_left_alone() {
    let stack = Stack::new();
    stack.open().await.close().await;
    let url = format!("sqlite:{}", stack.root().join("registry.sqlite").display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    sqlx::query("PRAGMA user_version = 99")
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
    let error = Registry::open(&stack.root()).await.unwrap_err();
    assert!(
        matches!(error, Error::NewerStore { found: 99, .. }),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn saves_at_once_get_dense_numbers() {
    let stack = Stack::new();
    let registry = Arc::new(stack.open().await);
    let drafts: Vec<_> = (0..12)
        .map(|index| stack.draft("ltv", &index.to_string(), &[]))
        .collect();
    let mut saves = tokio::task::JoinSet::new();
    // Each envelope is saved by two tasks.
    for draft in drafts.iter().chain(&drafts) {
        let (registry, draft) = (Arc::clone(&registry), draft.clone());
        saves.spawn(async move { registry.save(&draft, at(0)).await.unwrap().version });
    }
    let numbers: BTreeSet<_> = saves.join_all().await.into_iter().collect();
    assert_eq!(numbers, (1..=12).collect());
    assert!(stack.files("staging").is_empty());
}

const PROCESSES: usize = 4;
const SAVES: usize = 6;

#[tokio::test]
async fn processes_open_one_new_store_and_save_at_once() {
    let stack = Stack::new();
    for index in 0..PROCESSES * SAVES {
        stack.draft("ltv", &index.to_string(), &[]);
    }
    let drafts: Vec<_> = fs::read_dir(stack.drafts())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let children: Vec<_> = drafts
        .chunks(SAVES)
        .map(|drafts| child(&stack, drafts))
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let registry = stack.open().await;
    let found = registry.find(&TagQuery::default(), 100).await.unwrap();
    let numbers: BTreeSet<_> = found.iter().map(|version| version.version).collect();
    assert_eq!(numbers, (1..=drafts.len() as u64).collect());
    for version in &found {
        let file = fs::File::open(registry.envelope_path(&version.digest).unwrap()).unwrap();
        Envelope::open(file).unwrap().verify().unwrap();
    }
}

/// This program again, in a folder that says what to do.
fn child(stack: &Stack, drafts: &[PathBuf]) -> Child {
    let folder = tempfile::tempdir_in(&stack.folder).unwrap().keep();
    let root = stack.root();
    let paths = [&root].into_iter().chain(drafts);
    let lines: Vec<_> = paths.map(|path| path.to_str().unwrap()).collect();
    fs::write(folder.join("task"), lines.join("\n")).unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_that_saves", "--ignored"])
        .current_dir(folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
#[ignore = "a part of `processes_open_one_new_store_and_save_at_once`"]
async fn a_process_that_saves() {
    let Ok(task) = fs::read_to_string("task") else {
        return;
    };
    let mut paths = task.lines().map(Path::new);
    let registry = Registry::open(paths.next().unwrap()).await.unwrap();
    for draft in paths {
        registry.save(draft, at(0)).await.unwrap();
    }
}
