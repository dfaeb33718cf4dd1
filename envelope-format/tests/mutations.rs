//! Two readers agree on what is an envelope, and Python's `zipfile` sees what we see.
//!
//! `MUTATIONS=1000000 cargo test --release -p envelope-format --test mutations` is the long form.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

#[allow(dead_code, reason = "each test file uses its part")]
mod forge;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use envelope_format::Envelope;
use forge::invalid::{invalid, renamed};
use forge::{Forge, manifest, members, reference};

/// As many as take a few seconds.
const USUAL: u64 = 6000;

fn accepts(bytes: &[u8]) -> bool {
    Envelope::open(bytes.to_vec())
        .and_then(|envelope| envelope.verify())
        .is_ok()
}

/// The choices of one mutation, all from its number.
struct Choices(u64);

impl Choices {
    /// `SplitMix64`.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit.max(1)).unwrap()).unwrap()
    }

    fn of<'t, T>(&mut self, items: &'t [T]) -> &'t T {
        &items[self.below(items.len())]
    }

    fn byte(&mut self) -> u8 {
        *self.of(&[0, 1, 2, 8, 0x2f, 0x7f, 0x80, 0xff, self.0.to_le_bytes()[0]])
    }
}

/// Bytes anywhere in the file, which a digest or a CRC-32 notices.
fn anywhere(choices: &mut Choices) -> Vec<u8> {
    let mut bytes = Forge::good().bytes();
    for _ in 0..=choices.below(3) {
        let at = choices.below(bytes.len());
        let length = choices.below(40).min(bytes.len() - at);
        match choices.below(5) {
            0 => bytes[at] ^= 1 << choices.below(8),
            1 => bytes[at] = choices.byte(),
            2 => _ = bytes.drain(at..at + length),
            3 => _ = bytes.splice(at..at, vec![choices.byte(); length]),
            _ => {
                let copied = bytes[at..at + length].to_vec();
                let to = choices.below(bytes.len());
                _ = bytes.splice(to..to, copied);
            }
        }
    }
    bytes
}

/// Another manifest, with headers that are right: only the rules of the manifest can notice.
fn manifest_text(choices: &mut Choices) -> Vec<u8> {
    const TOKENS: [&str; 24] = [
        "0",
        "1",
        "-0",
        "8.0",
        "1e3",
        "18446744073709551616",
        "null",
        "true",
        "\"\"",
        "\"x\"",
        "{}",
        "[]",
        ",",
        ":",
        " ",
        "\n",
        "\\u0061",
        "\\n",
        "\\/",
        "\u{e9}",
        "é",
        "\"",
        "modules/a.py",
        "state/functions.pkl",
    ];
    let mut text = manifest();
    for _ in 0..=choices.below(2) {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        let at = choices.below(lines.len());
        match choices.below(6) {
            0 => _ = lines.remove(at),
            1 => lines.insert(at, lines[at].clone()),
            2 => {
                let other = choices.below(lines.len());
                lines.swap(at, other);
            }
            3 => {
                let from = *choices.of(&[
                    "double", "x", "float64", "8", "true", "bitwise", "US", "null", "doubles",
                    "3.11.7",
                ]);
                lines[at] = lines[at].replace(from, choices.of::<&str>(&TOKENS));
            }
            4 => {
                let inside = boundary(choices, &lines[at]);
                lines[at].insert_str(inside, choices.of::<&str>(&TOKENS));
            }
            _ => {
                let inside = boundary(choices, &lines[at]);
                lines[at].truncate(inside);
            }
        }
        text = lines.join("\n") + "\n";
    }
    Forge::with(text, members()).bytes()
}

/// A position between two characters.
fn boundary(choices: &mut Choices, line: &str) -> usize {
    let positions: Vec<_> = line
        .char_indices()
        .map(|(at, _)| at)
        .chain([line.len()])
        .collect();
    *choices.of(&positions)
}

/// Another name of a member, everywhere.
fn name(choices: &mut Choices) -> Vec<u8> {
    const PARTS: [&str; 26] = [
        "a",
        "b.py",
        "..",
        ".",
        "",
        "state",
        "environment",
        "pylock.toml",
        "PYLOCK.toml",
        "nul",
        "com1.txt",
        "com0",
        "aux.",
        "x ",
        " x",
        "a:b",
        "a\\b",
        "é",
        "e\u{301}",
        "\u{200b}",
        "\u{202e}x",
        "\u{7f}",
        "a?",
        "manifest.json",
        "con.d",
        "lpt10",
    ];
    let parts: Vec<_> = (0..=choices.below(3))
        .map(|_| *choices.of(&PARTS))
        .collect();
    renamed(&parts.join("/"))
}

/// Headers that are wrong, some of them consistently.
fn headers(choices: &mut Choices) -> Vec<u8> {
    let mut forge = Forge::good();
    let patch = |choices: &mut Choices, length| {
        (
            choices.below(length),
            vec![choices.byte(); 1 + choices.below(3)],
        )
    };
    for _ in 0..=choices.below(2) {
        let index = choices.below(3);
        let entry = &mut forge.entries[index];
        match choices.below(8) {
            0 => entry.patch_local.push(patch(choices, 54)),
            1 => entry.patch_record.push(patch(choices, 78)),
            2 => forge.patch_end.push(patch(choices, 95)),
            3 => entry.crc = entry.crc.wrapping_add(u32::from(choices.byte())),
            4 => entry.size = entry.size.wrapping_add(u64::from(choices.byte())),
            5 => entry.stored_size = Some(choices.next() >> choices.below(64)),
            6 => entry.method = u16::from(choices.byte()),
            _ => forge.entries.swap(index, 1),
        }
    }
    forge.bytes()
}

type Mutation = fn(&mut Choices) -> Vec<u8>;
const MUTATIONS: [(&str, Mutation); 4] = [
    ("bytes anywhere", anywhere),
    ("manifest", manifest_text),
    ("names", name),
    ("headers", headers),
];

fn mutated(number: u64) -> (&'static str, Vec<u8>) {
    let mut choices = Choices(number);
    let (kind, mutation) = *choices.of(&MUTATIONS);
    (kind, mutation(&mut choices))
}

/// So many mutations as `make fuzz` asks for.
#[expect(clippy::disallowed_methods, reason = "a test has no settings")]
fn wanted() -> u64 {
    std::env::var("MUTATIONS").map_or(USUAL, |wanted| wanted.parse().unwrap())
}

#[test]
fn two_readers_agree() {
    let wanted = wanted();
    let good = Forge::good().bytes();
    let mut counts: BTreeMap<_, (u64, u64)> = BTreeMap::new();
    for number in 0..wanted {
        let (kind, bytes) = mutated(number);
        let accepted = accepts(&bytes);
        let reason = || Envelope::open(bytes.clone()).and_then(|envelope| envelope.verify());
        assert_eq!(
            reference::accepts(&bytes),
            accepted,
            "mutation {number} of {kind}: {:?}",
            reason()
        );
        // Nothing in a file may be changed alone.
        assert!(
            kind != "bytes anywhere" || !accepted || bytes == good,
            "mutation {number}"
        );
        let count = counts.entry(kind).or_default();
        count.0 += u64::from(accepted);
        count.1 += 1;
    }
    for (kind, (accepted, all)) in &counts {
        println!("{kind}: {all} tried, {accepted} accepted by both");
        // Where all were refused, agreement would say nothing.
        assert!(*accepted > 0 && accepted < all, "{kind}");
    }
}

#[test]
fn the_second_reader_refuses_the_vectors_too() {
    assert!(reference::accepts(&Forge::good().bytes()));
    for (name, bytes) in invalid() {
        assert!(!reference::accepts(&bytes), "{name}");
    }
}

/// Prints what `zipfile` makes of each archive that it is given: names, and digests of contents.
const ZIPFILE: &str = r#"
import hashlib, io, struct, sys, zipfile
while head := sys.stdin.buffer.read(8):
    bytes = sys.stdin.buffer.read(struct.unpack("<Q", head)[0])
    archive = zipfile.ZipFile(io.BytesIO(bytes))
    assert archive.testzip() is None and not archive.comment
    for info in archive.infolist():
        print(hashlib.sha256(archive.read(info)).hexdigest(), info.filename.encode().hex())
    print("end")
"#;

/// What we make of an archive, in the same words.
fn seen(bytes: &[u8]) -> Vec<String> {
    let envelope = Envelope::open(bytes.to_vec()).unwrap();
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let members = envelope.manifest().members.iter();
    let line = |digest: &str, name: &str| format!("{digest} {}", hex(name.as_bytes()));
    let listed = members.map(|member| {
        envelope.read(&member.name).unwrap();
        line(&member.digest.hex(), member.name.as_str())
    });
    let manifest = line(&envelope.digest().hex(), "manifest.json");
    listed.chain([manifest, "end".to_owned()]).collect()
}

#[test]
fn what_we_accept_is_the_same_to_zipfile() {
    let wanted = wanted();
    let on_disk = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/valid")).unwrap();
    let valid = on_disk.map(|file| std::fs::read(file.unwrap().path()).unwrap());
    let accepted = (0..wanted / 4)
        .map(|number| mutated(number).1)
        .filter(|bytes| accepts(bytes));
    let mut python = Command::new("python3")
        .args(["-c", ZIPFILE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = python.stdin.take().unwrap();
    let writing = std::thread::spawn({
        let archives: Vec<_> = valid.chain(accepted).collect();
        move || {
            for bytes in &archives {
                input
                    .write_all(&(bytes.len() as u64).to_le_bytes())
                    .unwrap();
                input.write_all(bytes).unwrap();
            }
            archives
        }
    });
    let output = python.wait_with_output().unwrap();
    let archives = writing.join().unwrap();
    assert!(output.status.success());
    let expected: Vec<_> = archives.iter().flat_map(|bytes| seen(bytes)).collect();
    let found = String::from_utf8(output.stdout).unwrap();
    assert!(found.lines().eq(expected), "zipfile sees something else");
    println!("{} archives are the same to zipfile", archives.len());
    assert!(archives.len() > 20);
}
