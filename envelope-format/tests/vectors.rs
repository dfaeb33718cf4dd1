//! Golden files: every rule of `SPEC.md` has at least one envelope that breaks it.
//!
//! `BLESS=1 cargo test -p envelope-format --test vectors` writes the files anew. `NAME.envelope` is
//! refused with the message in `NAME.txt`.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

#[allow(dead_code, reason = "each test file uses its part")]
mod forge;

use std::fs;
use std::path::{Path, PathBuf};

use envelope_format::Envelope;
use forge::{Entry, Forge, manifest, members};

fn folder(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("vectors")
        .join(kind)
}

/// The error of opening and verifying, with its causes.
fn refusal(bytes: Vec<u8>) -> Option<String> {
    let opened = Envelope::open(bytes).and_then(|envelope| envelope.verify());
    let error = opened.err()?;
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    Some(text)
}

/// A good envelope whose manifest text is changed.
fn edited(from: &str, to: &str) -> Vec<u8> {
    let text = manifest();
    assert!(text.contains(from), "nothing to change: {from}");
    Forge::with(&text.replace(from, to), members()).bytes()
}

/// A good envelope of which one entry is changed.
fn tampered(index: usize, change: impl Fn(&mut Entry)) -> Vec<u8> {
    let mut forge = Forge::good();
    change(&mut forge.entries[index]);
    forge.bytes()
}

fn forged(change: impl Fn(&mut Forge)) -> Vec<u8> {
    let mut forge = Forge::good();
    change(&mut forge);
    forge.bytes()
}

/// A good envelope with another name for the last member, everywhere.
fn renamed(name: &str) -> Vec<u8> {
    let text = manifest().replace("state/functions.pkl", &name.replace('\\', "\\\\"));
    let mut forge = Forge::with(&text, members());
    forge.entries[0].name = name.into();
    forge.bytes()
}

/// Every invalid vector: the rule, what is wrong, and the bytes.
#[expect(clippy::too_many_lines, reason = "a table")]
fn invalid() -> Vec<(&'static str, Vec<u8>)> {
    let good = Forge::good().bytes();
    vec![
        ("1.1-empty", vec![]),
        ("1.1-truncated-by-one-byte", good[..good.len() - 1].to_vec()),
        ("1.1-truncated-by-half", good[..good.len() / 2].to_vec()),
        (
            "1.1-bytes-after-the-end",
            forged(|forge| forge.after = b"tail".to_vec()),
        ),
        (
            "1.1-archive-comment",
            forged(|forge| (forge.comment, forge.after) = ([4, 0], b"note".to_vec())),
        ),
        (
            "1.1-directory-longer-than-its-records",
            forged(|forge| forge.count = Some(2)),
        ),
        (
            "1.1-manifest-is-not-last",
            forged(|forge| forge.entries.rotate_left(1)),
        ),
        (
            "1.3-too-many-members",
            forged(|forge| forge.count = Some(65_536)),
        ),
        (
            "2.1-time-in-the-directory",
            tampered(1, |entry| entry.patch_record = Some((12, 1))),
        ),
        (
            "2.1-time-in-a-local-header",
            tampered(1, |entry| entry.patch_local = Some((10, 1))),
        ),
        (
            "2.1-encrypted",
            tampered(1, |entry| entry.patch_record = Some((8, 1))),
        ),
        (
            "2.1-unknown-compression",
            tampered(1, |entry| entry.method = 14),
        ),
        (
            "2.1-other-name-in-the-local-header",
            tampered(1, |entry| entry.patch_local = Some((31, b'x'))),
        ),
        (
            "2.1-padding-is-not-zero",
            tampered(0, |entry| entry.patch_local = Some((100, 1))),
        ),
        (
            "2.2-bytes-before-the-first-entry",
            forged(|forge| forge.before = b"#!/bin/sh\n".to_vec()),
        ),
        (
            "2.2-hole-before-the-directory",
            forged(|forge| forge.hole = vec![0; 16]),
        ),
        (
            "2.3-stored-bytes-damaged",
            tampered(1, |entry| entry.stored_crc ^= 1),
        ),
        ("2.3-content-crc-wrong", tampered(1, |entry| entry.crc ^= 1)),
        (
            "2.3-mapped-content-crc-wrong",
            tampered(0, |entry| entry.crc ^= 1),
        ),
        (
            "3.1-name-leaves-the-envelope",
            renamed("../../../../etc/passwd"),
        ),
        ("3.1-absolute-name", renamed("/etc/passwd")),
        ("3.1-name-with-backslash", renamed("state\\functions.pkl")),
        (
            "3.1-name-with-bidirectional-override",
            renamed("state/\u{202e}lkp.exe"),
        ),
        ("3.2-same-name-twice", renamed("environment/pylock.toml")),
        (
            "3.2-same-name-in-another-case",
            renamed("Environment/PyLock.toml"),
        ),
        (
            "3.3-member-is-a-folder",
            renamed("environment/pylock.toml/functions.pkl"),
        ),
        (
            "4.1-member-is-not-listed",
            Forge::with(
                &manifest(),
                [members(), vec![Entry::deflated("extra", b"x")]].concat(),
            )
            .bytes(),
        ),
        (
            "4.1-listed-member-is-missing",
            Forge::with(&manifest(), members()[..1].to_vec()).bytes(),
        ),
        (
            "4.1-another-order",
            forged(|forge| forge.entries.swap(0, 1)),
        ),
        ("4.1-mapped-after-deflated", mapped_last()),
        ("4.1-another-size", edited("\"size\": 38", "\"size\": 39")),
        (
            "4.1-another-encoding",
            edited("\"encoding\": \"mapped\"", "\"encoding\": \"deflated\""),
        ),
        (
            "4.2-deflated-content-is-another",
            tampered(1, |entry| {
                *entry = Entry::deflated("environment/pylock.toml", b"lock-version = \"6.6\"\n")
            }),
        ),
        (
            "4.2-mapped-content-is-another",
            tampered(0, |entry| {
                *entry = Entry::mapped("state/functions.pkl", &[b'x'; 38])
            }),
        ),
        (
            "4.3-inflates-to-more",
            tampered(1, |entry| (entry.stored, entry.stored_crc) = bomb()),
        ),
        (
            "4.3-deflate-stream-is-garbage",
            tampered(1, |entry| {
                (entry.stored, entry.stored_crc) = (vec![0xff; 9], forge::crc(&[0xff; 9]))
            }),
        ),
        (
            "4.4-deflated-member-too-large",
            Forge::with(
                &manifest().replace("\"size\": 21", "\"size\": 1073741825"),
                {
                    let mut members = members();
                    members[1].size = 1_073_741_825;
                    members
                },
            )
            .bytes(),
        ),
        (
            "5.1-manifest-too-large",
            tampered(2, |entry| entry.size = 32 * 1024 * 1024 + 1),
        ),
        (
            "5.2-version-of-the-future",
            edited("\"format_version\": 1", "\"format_version\": 2"),
        ),
        (
            "5.2-version-zero",
            edited("\"format_version\": 1", "\"format_version\": 0"),
        ),
        (
            "5.3-not-json",
            Forge::with("{\"format_version\": 1,}", members()).bytes(),
        ),
        (
            "5.3-deep-nesting",
            Forge::with(&"[".repeat(10_000), members()).bytes(),
        ),
        (
            "5.3-field-missing",
            edited("  \"description\": \"doubles\",\n", ""),
        ),
        (
            "5.3-field-unknown",
            edited("\"description\"", "\"descriptiom\""),
        ),
        (
            "5.3-wrong-type",
            edited("\"trials\": 8", "\"trials\": \"8\""),
        ),
        (
            "5.3-number-too-large",
            edited("\"trials\": 8", "\"trials\": 1e999"),
        ),
        (
            "5.3-digest-of-another-algorithm",
            edited("\"sha256:", "\"md5:"),
        ),
        (
            "5.3-unknown-column-type",
            edited("\"float64\"", "\"float65\""),
        ),
        (
            "5.4-key-twice",
            edited(
                "\"region\": \"US\"",
                "\"region\": \"UK\",\n    \"region\": \"US\"",
            ),
        ),
        (
            "5.4-escaped-spelling",
            edited("\"region\"", "\"\\u0072egion\""),
        ),
        ("5.4-white-space", edited("\"trials\": 8", "\"trials\":  8")),
        (
            "5.4-bytes-after-the-value",
            Forge::with(&format!("{}\n", manifest()), members()).bytes(),
        ),
        (
            "6.1-model-name-is-a-path",
            edited("\"name\": \"doubler\"", "\"name\": \"../doubler\""),
        ),
        (
            "6.1-model-name-is-empty",
            edited("\"name\": \"doubler\"", "\"name\": \"\""),
        ),
        (
            "6.2-column-without-a-name",
            edited("\"name\": \"x\"", "\"name\": \"\""),
        ),
        ("6.3-no-functions", without_functions()),
        (
            "6.4-function-name-is-not-an-identifier",
            edited("\"name\": \"double\"", "\"name\": \"os:system\""),
        ),
        (
            "6.5-pickle-is-not-a-member",
            edited(
                "\"pickle\": \"state/functions.pkl\"",
                "\"pickle\": \"state/other.pkl\"",
            ),
        ),
    ]
}

/// One kilobyte that inflates to a megabyte.
fn bomb() -> (Vec<u8>, u32) {
    let entry = Entry::deflated("x", &vec![b'x'; 1 << 20]);
    (entry.stored, entry.stored_crc)
}

/// Manifest and archive agree on an order that the writer does not use.
fn mapped_last() -> Vec<u8> {
    let mut manifest: envelope_format::Manifest = serde_json::from_str(&manifest()).unwrap();
    manifest.members.reverse();
    let text = String::from_utf8(manifest.to_bytes().unwrap()).unwrap();
    Forge::with(&text, members().into_iter().rev().collect()).bytes()
}

fn without_functions() -> Vec<u8> {
    let text = manifest();
    let start = text.find("\"functions\": [").unwrap();
    let end = text.find("\"state\": {").unwrap();
    Forge::with(
        &format!("{}\"functions\": [],\n  {}", &text[..start], &text[end..]),
        members(),
    )
    .bytes()
}

#[test]
fn every_broken_rule_is_refused_with_its_own_message() {
    if std::env::var_os("BLESS").is_some() {
        bless();
    }
    let mut seen = 0;
    for file in fs::read_dir(folder("invalid"))
        .unwrap()
        .map(|file| file.unwrap().path())
    {
        if file
            .extension()
            .is_some_and(|extension| extension == "envelope")
        {
            let expected = fs::read_to_string(file.with_extension("txt")).unwrap();
            let found = refusal(fs::read(&file).unwrap());
            assert_eq!(
                found.as_deref(),
                Some(expected.trim_end()),
                "{}",
                file.display()
            );
            seen += 1;
        }
    }
    assert_eq!(
        seen,
        invalid().len(),
        "the vectors on disk are not those of this file: run with BLESS=1"
    );
}

#[test]
fn what_is_forged_here_is_refused_as_on_disk() {
    for (name, bytes) in invalid() {
        let expected = fs::read_to_string(folder("invalid").join(format!("{name}.txt"))).unwrap();
        assert_eq!(
            refusal(bytes).as_deref(),
            Some(expected.trim_end()),
            "{name}"
        );
    }
}

#[test]
fn every_rule_of_the_specification_has_a_vector() {
    let specification = include_str!("../SPEC.md");
    let rules = specification
        .lines()
        .filter_map(|line| line.strip_prefix("**")?.split_once("**"));
    for (rule, _) in rules {
        let tested = invalid()
            .iter()
            .any(|(name, _)| name.starts_with(&format!("{rule}-")));
        assert!(tested || rule == "1.2", "rule {rule} has no vector");
    }
}

#[test]
fn good_envelopes_are_accepted() {
    for file in fs::read_dir(folder("valid"))
        .unwrap()
        .map(|file| file.unwrap().path())
    {
        assert_eq!(
            refusal(fs::read(&file).unwrap()),
            None,
            "{}",
            file.display()
        );
    }
    assert_eq!(refusal(Forge::good().bytes()), None);
}

fn bless() {
    for kind in ["valid", "invalid"] {
        fs::remove_dir_all(folder(kind)).unwrap_or_default();
        fs::create_dir_all(folder(kind)).unwrap();
    }
    fs::write(
        folder("valid").join("small.envelope"),
        Forge::good().bytes(),
    )
    .unwrap();
    for (name, bytes) in invalid() {
        let message = refusal(bytes.clone()).unwrap_or_else(|| panic!("{name} is accepted"));
        let path = folder("invalid").join(name);
        fs::write(path.with_added_extension("envelope"), bytes).unwrap();
        fs::write(path.with_added_extension("txt"), format!("{message}\n")).unwrap();
    }
}
