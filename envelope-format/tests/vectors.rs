//! Golden files: every rule of `SPEC.md` has at least one envelope that breaks it.
//!
//! `BLESS=1 cargo test -p envelope-format --test vectors` writes the files anew. `NAME.envelope` is
//! refused with the code and message in `NAME.txt`.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

#[allow(dead_code, reason = "each test file uses its part")]
mod forge;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use envelope_format::{Envelope, Error};
use forge::invalid::{carrying, invalid, lock, locked, with_wheels};
use forge::wheel::{self, Wheel};
use forge::{Forge, deflated, good};

fn folder(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("vectors")
        .join(kind)
}

fn error(bytes: Vec<u8>) -> Option<Error> {
    Envelope::open(bytes)
        .and_then(|envelope| envelope.verify())
        .err()
}

/// The code and the text of the error of opening and verifying.
fn refusal(bytes: Vec<u8>) -> Option<String> {
    let error = error(bytes)?;
    assert!(std::error::Error::source(&error).is_none(), "{error}");
    Some(format!("{}: {error}", error.code()))
}

/// Every valid vector.
fn valid() -> Vec<(&'static str, Vec<u8>)> {
    let inner = Forge::good().bytes();
    let nested = [good(), vec![deflated("inner.envelope", &inner)]].concat();
    let wheel = Wheel::good().bytes();
    vec![
        ("small", inner.clone()),
        (
            "envelope-in-an-envelope",
            Forge::of(&nested, |_| {}).bytes(),
        ),
        ("lock-of-an-index", locked(&lock("", ""))),
        (
            "carried-wheel",
            with_wheels(&carrying(wheel::NAME, &wheel), &[(wheel::NAME, &wheel)]),
        ),
        ("longest-part-of-a-name", with_member(&"a".repeat(255))),
        ("longest-name", with_member(&["abc"; 256].join("/")[..1023])),
    ]
}

fn with_member(name: &str) -> Vec<u8> {
    let members = [good(), vec![deflated(name, b"x")]].concat();
    Forge::of(&members, |_| {}).bytes()
}

#[test]
fn every_broken_rule_is_refused_with_its_own_message() {
    if std::env::var_os("BLESS").is_some() {
        bless();
    }
    let on_disk = files("invalid");
    let names: Vec<_> = on_disk.keys().cloned().collect();
    let mut expected: Vec<_> = invalid()
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    expected.sort();
    assert!(
        names == expected,
        "other vectors are on disk: run with BLESS=1"
    );
    for (name, bytes) in on_disk {
        let expected = fs::read_to_string(folder("invalid").join(format!("{name}.txt"))).unwrap();
        assert_eq!(
            refusal(bytes).as_deref(),
            Some(expected.trim_end()),
            "{name}"
        );
    }
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
fn a_vector_breaks_the_rule_that_it_is_named_by() {
    for (name, bytes) in invalid() {
        let error = error(bytes).unwrap_or_else(|| panic!("{name} is accepted"));
        let (rule, _) = name.split_once('-').unwrap();
        assert_eq!(error.rule(), Some(rule), "{name}: {error}");
        assert!(error.offset().is_some(), "{name}: {error}");
        assert!(!error.code().is_empty(), "{name}");
    }
}

#[test]
fn one_code_is_one_rule_or_one_chapter() {
    let mut chapters = BTreeMap::new();
    for (name, bytes) in invalid() {
        let error = error(bytes).unwrap();
        let rule = error.rule().unwrap();
        let chapter = rule.split('.').next().unwrap();
        let scope = if matches!(chapter, "7" | "8") {
            chapter
        } else {
            rule
        };
        let known = *chapters.entry(error.code()).or_insert(scope);
        assert_eq!(known, scope, "{name}: {}", error.code());
    }
    assert_eq!(chapters.len(), 24);
}

#[test]
fn every_code_is_documented() {
    for (name, bytes) in invalid() {
        let code = error(bytes).unwrap().code();
        assert!(
            include_str!("../SPEC.md").contains(&format!("| `{code}` |")),
            "{name}: {code}"
        );
    }
}

#[test]
fn messages_hold_no_control_characters_and_no_paths_of_this_machine() {
    for (name, bytes) in invalid() {
        let text = error(bytes).unwrap().to_string();
        assert!(!text.chars().any(char::is_control), "{name}: {text:?}");
        assert!(!text.contains(env!("CARGO_MANIFEST_DIR")), "{name}: {text}");
    }
}

#[test]
fn every_rule_of_the_specification_has_a_vector() {
    let specification = include_str!("../SPEC.md");
    let rules: Vec<_> = specification
        .lines()
        .filter_map(|line| Some(line.strip_prefix("**")?.split_once("**")?.0))
        .collect();
    assert!(rules.len() > 30, "{rules:?}");
    for rule in rules {
        let tested = invalid()
            .iter()
            .any(|(name, _)| name.starts_with(&format!("{rule}-")));
        // These cannot be files here: `tests/attacks.rs` has them.
        let elsewhere = ["1.2", "1.4"].contains(&rule) || rule.starts_with("9.");
        assert!(tested || elsewhere, "rule {rule} has no vector");
    }
    for (name, _) in invalid() {
        let (rule, _) = name.split_once('-').unwrap();
        assert!(specification.contains(&format!("**{rule}**")), "{name}");
    }
}

#[test]
fn good_envelopes_are_accepted() {
    let on_disk = files("valid");
    assert_eq!(on_disk.len(), valid().len());
    for (name, bytes) in valid() {
        assert_eq!(refusal(bytes.clone()), None, "{name}");
        assert_eq!(on_disk[name], bytes, "{name}: run with BLESS=1");
    }
}

fn files(kind: &str) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(folder(kind))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "envelope")
        })
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        })
        .collect()
}

fn bless() {
    for kind in ["valid", "invalid"] {
        fs::remove_dir_all(folder(kind)).unwrap_or_default();
        fs::create_dir_all(folder(kind)).unwrap();
    }
    for (name, bytes) in valid() {
        fs::write(folder("valid").join(format!("{name}.envelope")), bytes).unwrap();
    }
    for (name, bytes) in invalid() {
        let message = refusal(bytes.clone()).unwrap_or_else(|| panic!("{name} is accepted"));
        let path = folder("invalid").join(name);
        fs::write(path.with_added_extension("envelope"), bytes).unwrap();
        fs::write(path.with_added_extension("txt"), format!("{message}\n")).unwrap();
    }
}
