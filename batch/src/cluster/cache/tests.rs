//! What a machine keeps, by real envelopes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use envelope_format::{Content, Draft, Manifest};
use tempfile::TempDir;

use super::*;

/// A small envelope; another number, another one of the same length.
fn envelope(number: u8) -> (Digest, Vec<u8>) {
    let mut manifest = Manifest::example();
    manifest.name = format!("model_{number:03}");
    let mut draft = Draft::new(manifest);
    for member in ["environment/pylock.toml", "state/functions.pkl"] {
        let text = b"lock-version = \"1.0\"\n".to_vec();
        draft.add(member.parse().unwrap(), Content::Text(text));
    }
    let mut bytes = vec![];
    let digest = draft.write(&mut bytes).unwrap();
    (digest, bytes)
}

fn lent(bytes: Vec<u8>) -> Lent {
    Lent {
        bytes: bytes.len() as u64,
        attestation: None,
        reader: Box::new(io::Cursor::new(bytes)),
    }
}

fn anything() -> Check {
    Arc::new(|_, _| Ok(()))
}

/// A cache for so many envelopes.
fn cache(envelopes: usize) -> (TempDir, EnvelopeCache) {
    let folder = TempDir::new().unwrap();
    let most = envelopes * envelope(0).1.len();
    let cache = EnvelopeCache::new(folder.path().join("envelopes"), most as u64);
    (folder, cache)
}

async fn get(cache: &EnvelopeCache, number: u8) -> InUse {
    let (digest, bytes) = envelope(number);
    let copy = cache
        .get(digest, &anything(), async || Ok(lent(bytes)))
        .await;
    // Times of files have some milliseconds.
    tokio::time::sleep(Duration::from_millis(15)).await;
    copy.unwrap()
}

fn is_kept(cache: &EnvelopeCache, number: u8) -> bool {
    cache.file(&envelope(number).0, ENVELOPE).exists()
}

fn names(cache: &EnvelopeCache, ending: &str) -> usize {
    cache.files(ending).unwrap().len()
}

#[tokio::test]
async fn an_envelope_is_fetched_once_for_all_executors_of_a_machine() {
    let (_folder, first) = cache(3);
    let second = EnvelopeCache::new(first.folder.clone(), first.most_bytes);
    let fetched = AtomicUsize::new(0);
    let (digest, bytes) = envelope(1);
    let get = async |cache: &EnvelopeCache| {
        let fetch = async || {
            fetched.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(lent(bytes.clone()))
        };
        cache.get(digest, &anything(), fetch).await.unwrap()
    };
    let copies = tokio::join!(get(&first), get(&second), get(&first), get(&second));
    assert_eq!(fetched.load(Ordering::SeqCst), 1);
    assert_eq!(copies.0.envelope().digest(), digest);
    assert_eq!(copies.0.envelope().path(), copies.3.envelope().path());
}

#[tokio::test]
async fn what_was_asked_for_the_longest_ago_goes_when_bytes_are_short() {
    let (_folder, cache) = cache(2);
    get(&cache, 1).await;
    get(&cache, 2).await;
    // It is asked for again: the other one is older now.
    get(&cache, 1).await;
    get(&cache, 3).await;
    let kept = [1, 2, 3].map(|number| is_kept(&cache, number));
    assert_eq!(kept, [true, false, true]);
    assert_eq!(names(&cache, LOCK), 2, "nothing is left of what has gone");
}

#[tokio::test]
async fn what_is_in_use_stays_though_there_is_no_room() {
    let (_folder, cache) = cache(2);
    let in_use = get(&cache, 1).await;
    let other_executor = EnvelopeCache::new(cache.folder.clone(), cache.most_bytes);
    for number in 2..5 {
        get(&other_executor, number).await;
    }
    assert!(is_kept(&cache, 1) && is_kept(&cache, 4));
    assert_eq!(names(&cache, ENVELOPE), 2);
    drop(in_use);
    get(&cache, 5).await;
    assert!(!is_kept(&cache, 1));
    // Larger than all the room there is: the job is done all the same.
    let small = EnvelopeCache::new(cache.folder.clone(), 1);
    get(&small, 6).await;
    assert_eq!(names(&cache, ENVELOPE), 1);
}

#[tokio::test]
async fn bytes_that_are_not_those_of_the_digest_are_not_kept() {
    let (_folder, cache) = cache(3);
    let (digest, whole) = envelope(1);
    let mut damaged = whole.clone();
    damaged[60] ^= 1;
    let short = Lent {
        bytes: whole.len() as u64,
        ..lent(whole[..whole.len() - 1].to_vec())
    };
    for wrong in [lent(damaged), short, lent(envelope(2).1), lent(vec![1; 10])] {
        let got = cache.get(digest, &anything(), async || Ok(wrong)).await;
        assert!(got.is_err());
        assert_eq!((names(&cache, ENVELOPE), names(&cache, PART)), (0, 0));
    }
    assert!(is_kept(&cache, 1) || get(&cache, 1).await.envelope().verify().is_ok());
}

#[tokio::test]
async fn a_copy_that_was_damaged_is_fetched_again() {
    let (_folder, cache) = cache(3);
    let path = get(&cache, 1).await.envelope().path().to_owned();
    let whole = std::fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    damaged[60] ^= 1;
    std::fs::write(&path, damaged).unwrap();
    get(&cache, 1).await;
    assert_eq!(std::fs::read(&path).unwrap(), whole);
}

#[tokio::test]
async fn what_nobody_vouches_for_is_not_kept() {
    let (_folder, cache) = cache(3);
    let (digest, bytes) = envelope(1);
    let vouched: Check = Arc::new(|_, attestation| match std::fs::read(attestation) {
        Ok(bytes) if bytes == b"we do" => Ok(()),
        _ => Err(runtime::Error::Stopped),
    });
    let with = |attestation: Option<&[u8]>| Lent {
        attestation: attestation.map(<[u8]>::to_vec),
        ..lent(bytes.clone())
    };
    for wrong in [with(None), with(Some(b"somebody"))] {
        let got = cache.get(digest, &vouched, async || Ok(wrong)).await;
        assert!(matches!(got, Err(runtime::Error::Stopped)));
        assert!(!is_kept(&cache, 1));
    }
    let good = with(Some(b"we do"));
    cache
        .get(digest, &vouched, async || Ok(good))
        .await
        .unwrap();
    let again = cache.get(digest, &vouched, async || unreachable!("it is kept"));
    again.await.unwrap();
}

#[tokio::test]
async fn parts_of_the_dead_are_deleted_and_those_of_the_living_count() {
    let (_folder, cache) = cache(3);
    get(&cache, 1).await;
    let dead = cache.folder.join("dead.part");
    std::fs::write(&dead, [0; 100]).unwrap();
    let alive = File::create(cache.folder.join("alive.part")).unwrap();
    alive.lock().unwrap();
    alive.set_len(cache.most_bytes).unwrap();
    get(&cache, 2).await;
    assert!(!dead.exists() && cache.folder.join("alive.part").exists());
    assert_eq!([1, 2].map(|number| is_kept(&cache, number)), [false, true]);
}
