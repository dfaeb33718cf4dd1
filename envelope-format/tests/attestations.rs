//! Whom an envelope is trusted for.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

#[allow(dead_code, reason = "each test file uses its part")]
mod forge;

use envelope_format::{Attestation, Digest, Envelope, Error, SecretKey, Trust};
use forge::Forge;
use forge::invalid::edited;

const NOW: u64 = 1_800_000_000;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

fn trust(seeds: &[u8]) -> Trust {
    let lines: String = seeds
        .iter()
        .map(|seed| format!("{} somebody\n", key(*seed).public()))
        .collect();
    format!("# who may release\n\n{lines}").parse().unwrap()
}

fn good() -> Digest {
    Envelope::open(Forge::good().bytes()).unwrap().digest()
}

fn signed(seeds: &[u8], expires: Option<u64>) -> Attestation {
    let mut attestation = Attestation::new(good(), expires);
    seeds.iter().for_each(|seed| attestation.sign(&key(*seed)));
    attestation
}

#[track_caller]
fn refuses(checked: Result<impl std::fmt::Debug, Error>, rule: &str) {
    let error = checked.expect_err("it is trusted");
    assert_eq!(
        (error.code(), error.rule()),
        ("bad_attestation", Some(rule)),
        "{error}"
    );
}

/// The attestation with a change in its text.
fn edit(attestation: &Attestation, from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(attestation.to_bytes()).unwrap();
    assert!(text.contains(from), "{text}");
    text.replace(from, to).into_bytes()
}

#[test]
fn an_attestation_by_a_trusted_key_is_good() {
    let attestation = Attestation::parse(&signed(&[1, 2], None).to_bytes()).unwrap();
    let keys = attestation.check(good(), &trust(&[2, 3]), NOW).unwrap();
    assert_eq!(keys, [key(2).public()]);
    assert_eq!(attestation, signed(&[1, 2], None));
    let mut again = attestation.clone();
    again.sign(&key(1));
    assert_eq!(again.keys().count(), 2);
}

#[test]
fn an_attestation_of_unknown_keys_is_refused() {
    refuses(signed(&[1], None).check(good(), &trust(&[2]), NOW), "9.4");
    refuses(signed(&[1], None).check(good(), &trust(&[]), NOW), "9.4");
    refuses(signed(&[], None).check(good(), &trust(&[2]), NOW), "9.4");
}

#[test]
fn an_attestation_is_of_one_manifest() {
    // Consistent in itself: only the digest tells that it is another.
    let changed = Envelope::open(edited("\"doubles\"", "\"triples\"")).unwrap();
    refuses(
        signed(&[1], None).check(changed.digest(), &trust(&[1]), NOW),
        "9.2",
    );
    let claimed = edit(
        &signed(&[1], None),
        &good().to_string(),
        &changed.digest().to_string(),
    );
    let claimed = Attestation::parse(&claimed).unwrap();
    refuses(claimed.check(changed.digest(), &trust(&[1]), NOW), "9.3");
}

#[test]
fn one_bad_signature_of_two_is_enough() {
    let both = signed(&[1, 2], None);
    for bad in [1, 2] {
        let one = String::from_utf8(signed(&[bad], None).to_bytes()).unwrap();
        let signature = one
            .split("\"signature\": \"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap();
        let other = format!(
            "{}{}",
            if signature.starts_with('0') { '1' } else { '0' },
            &signature[1..]
        );
        let parsed = Attestation::parse(&edit(&both, signature, &other)).unwrap();
        refuses(parsed.check(good(), &trust(&[1, 2]), NOW), "9.3");
    }
    // A good signature under another key's name.
    let (one, two) = (key(1).public().to_string(), key(2).public().to_string());
    let stolen = Attestation::parse(&edit(&signed(&[1], None), &one, &two)).unwrap();
    refuses(stolen.check(good(), &trust(&[1, 2]), NOW), "9.3");
}

#[test]
fn an_attestation_ends_when_it_says() {
    let attestation = signed(&[1], Some(NOW));
    assert!(attestation.check(good(), &trust(&[1]), NOW - 1).is_ok());
    refuses(attestation.check(good(), &trust(&[1]), NOW), "9.5");
    let longer = edit(&attestation, &NOW.to_string(), &(NOW + 1).to_string());
    refuses(
        Attestation::parse(&longer)
            .unwrap()
            .check(good(), &trust(&[1]), NOW),
        "9.3",
    );
    let never = edit(&attestation, &NOW.to_string(), "null");
    refuses(
        Attestation::parse(&never)
            .unwrap()
            .check(good(), &trust(&[1]), NOW),
        "9.3",
    );
}

#[test]
fn an_attestation_has_one_spelling() {
    let bytes = signed(&[1, 2], Some(NOW)).to_bytes();
    for length in 0..bytes.len() {
        refuses(Attestation::parse(&bytes[..length]), "9.1");
    }
    for position in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[position] ^= 1 << bit;
            let checked = Attestation::parse(&flipped)
                .and_then(|attestation| attestation.check(good(), &trust(&[1, 2]), NOW - 1));
            assert!(checked.is_err(), "bit {bit} of byte {position}");
        }
    }
    refuses(
        Attestation::parse(&[bytes.as_slice(), b"\n"].concat()),
        "9.1",
    );
    refuses(
        Attestation::parse(&edit(&signed(&[1], None), "_version\": 1", "_version\": 2")),
        "9.1",
    );
    refuses(Attestation::parse(&vec![b' '; 1 << 20]), "9.1");
}

#[test]
fn a_key_that_signs_everything_is_not_trusted() {
    // The neutral element of the curve: for it, a signature can be made for any message.
    let weak = format!("ed25519:01{}", "0".repeat(62));
    let everything = format!("01{}", "0".repeat(126));
    let one = signed(&[1], None);
    let text = String::from_utf8(one.to_bytes()).unwrap();
    let signature = text
        .split("\"signature\": \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let text = text
        .replace(signature, &everything)
        .replace(&key(1).public().to_string(), &weak);
    let parsed = Attestation::parse(text.as_bytes()).unwrap();
    refuses(parsed.check(good(), &weak.parse().unwrap(), NOW), "9.3");
}

#[test]
fn keys_are_texts() {
    let secret = key(7);
    let same: SecretKey = secret.to_text().parse().unwrap();
    assert_eq!(same.public(), secret.public());
    assert!(!format!("{secret:?}").contains("0707"));
    for text in [
        "",
        "ed25519:",
        "ed25519:00",
        &secret.to_text(),
        &secret.public().to_string().to_uppercase(),
    ] {
        assert!(
            text.parse::<envelope_format::PublicKey>().is_err(),
            "{text}"
        );
        assert!(
            text.trim().is_empty() || text.parse::<Trust>().is_err(),
            "{text}"
        );
    }
    assert!("ed25519-secret:00".parse::<SecretKey>().is_err());
}
