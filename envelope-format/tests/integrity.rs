//! What must hold for every envelope, and for every way to damage one.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

#[allow(dead_code, reason = "each test file uses its part")]
mod forge;

use std::fs::File;
use std::io::Read as _;

use envelope_format::{Buffers, Content, Draft, Envelope, Error, Manifest};
use forge::{Forge, LOCK};
use proptest::prelude::*;

fn is_good(bytes: Vec<u8>) -> bool {
    Envelope::open(bytes)
        .and_then(|envelope| envelope.verify())
        .is_ok()
}

#[test]
fn every_single_flipped_bit_is_noticed() {
    let good = Forge::good().bytes();
    for position in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[position] ^= 1 << bit;
            assert!(
                !is_good(bytes),
                "bit {bit} of byte {position} of {} may be flipped",
                good.len()
            );
        }
    }
}

#[test]
fn every_truncation_is_noticed() {
    let good = Forge::good().bytes();
    for length in 0..good.len() {
        assert!(
            !is_good(good[..length].to_vec()),
            "the first {length} bytes are accepted"
        );
    }
}

fn draft(members: &[(String, Vec<u8>, bool)]) -> Vec<u8> {
    let mut draft = Draft::new(Manifest::example());
    for name in ["environment/pylock.toml", "state/functions.pkl"] {
        draft.add(name.parse().unwrap(), Content::Text(LOCK.to_vec()));
    }
    for (name, content, mapped) in members {
        let content = if *mapped {
            Content::Buffer(content)
        } else {
            Content::Text(content.clone())
        };
        draft.add(name.parse().unwrap(), content);
    }
    let mut bytes = Vec::new();
    draft.write(&mut bytes).unwrap();
    bytes
}

/// Writes the same as [`draft`], the mapped members in pieces of `size` bytes.
fn piecewise(members: &[(String, Vec<u8>, bool)], size: usize) -> Vec<u8> {
    let file = tempfile::tempfile().unwrap();
    let mut buffers = Buffers::new(file.try_clone().unwrap());
    for (name, content, _) in members.iter().filter(|(_, _, mapped)| *mapped) {
        let mut buffer = buffers.begin(name.parse().unwrap(), content.len() as u64);
        for piece in content.chunks(size) {
            buffer.write(piece).unwrap();
        }
        buffer.finish().unwrap();
    }
    let fixed =
        ["environment/pylock.toml", "state/functions.pkl"].map(|name| (name, LOCK.to_vec()));
    let texts = members.iter().filter(|(_, _, mapped)| !*mapped);
    let texts = texts.map(|(name, content, _)| (name.as_str(), content.clone()));
    let texts: Vec<_> = fixed
        .into_iter()
        .chain(texts)
        .map(|(name, content)| (name.parse().unwrap(), content))
        .collect();
    // What was written before the last time leaves no trace.
    let long = vec![
        ("environment/x".parse().unwrap(), vec![b'x'; 70_000]),
        texts[0].clone(),
        texts[1].clone(),
    ];
    buffers.finish(&Manifest::example(), &long).unwrap();
    buffers.finish(&Manifest::example(), &texts).unwrap();
    read_all(file)
}

fn read_all(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::io::Seek::rewind(&mut file).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn nothing_is_written_that_no_reader_knows() {
    let mut manifest = Manifest::example();
    manifest.format_version = 0;
    let mut draft = Draft::new(manifest.clone());
    for name in [manifest.environment.lock, manifest.state.pickle] {
        draft.add(name, Content::Text(LOCK.to_vec()));
    }
    let refused = draft.write(&mut vec![]).unwrap_err();
    assert!(matches!(refused, Error::FormatVersion { found: 0, .. }));
}

#[test]
fn a_member_has_the_size_that_was_said() {
    let mut buffers = Buffers::new(tempfile::tempfile().unwrap());
    let mut buffer = buffers.begin("state/0".parse().unwrap(), 2);
    buffer.write(b"x").unwrap();
    assert!(matches!(buffer.finish(), Err(Error::Io { .. })));
}

prop_compose! {
    fn some_members()(contents in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..9000), any::<bool>()), 0..5))
        -> Vec<(String, Vec<u8>, bool)> {
        contents.into_iter().enumerate().map(|(index, (content, mapped))| (format!("buffers/{index}"), content, mapped)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(members in some_members()) {
        let bytes = draft(&members);
        prop_assert_eq!(&bytes, &draft(&members), "the same content gives other bytes");
        prop_assert_eq!(&bytes, &piecewise(&members, 1000));
        let envelope = Envelope::open(bytes).unwrap();
        envelope.verify().unwrap();
        for (name, content, mapped) in &members {
            let name = name.parse().unwrap();
            prop_assert_eq!(&envelope.read(&name).unwrap(), content);
            let range = envelope.range(&name).unwrap();
            prop_assert_eq!(range.map(|range| range.offset % 4096), mapped.then_some(0));
        }
    }

    #[test]
    fn anything_can_be_opened_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(!is_good(bytes));
    }

    #[test]
    fn mutations_are_refused(position in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 1..40)) {
        let good = Forge::good().bytes();
        let mut mutated = good.clone();
        let start = position.index(good.len());
        let end = (start + bytes.len()).min(good.len());
        mutated[start..end].copy_from_slice(&bytes[..end - start]);
        prop_assert!(mutated == good || !is_good(mutated));
    }
}
