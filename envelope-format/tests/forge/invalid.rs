//! Every invalid vector: the rule with what is wrong, and the bytes.

#![expect(clippy::too_many_lines, reason = "lists of vectors")]

use envelope_format::{Digest, Manifest};

use super::wheel::{self, Wheel, file, link};
use super::{Entry, Forge, LOCK, Member, crc, deflated, good, manifest, members};

type Vector = (&'static str, Vec<u8>);

/// All of them, in the order of `SPEC.md`.
pub(crate) fn invalid() -> Vec<Vector> {
    [
        of_the_file(),
        of_end_records(),
        of_headers(),
        of_layout(),
        of_names(),
        of_members(),
        of_manifest_text(),
        of_description(),
        of_locks(),
        of_wheel_archives(),
        of_wheel_files(),
    ]
    .concat()
}

/// A good envelope whose manifest text is changed.
pub(crate) fn edited(from: &str, to: &str) -> Vec<u8> {
    let text = manifest();
    assert!(text.contains(from), "nothing to change: {from}");
    Forge::with(text.replace(from, to), members()).bytes()
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

/// A good envelope whose end records are changed at a position.
fn ended(at: usize, bytes: &[u8]) -> Vec<u8> {
    forged(|forge| forge.patch_end = vec![(at, bytes.to_vec())])
}

/// A good envelope with another name for the first member, everywhere.
pub(crate) fn renamed(name: &str) -> Vec<u8> {
    let quoted = serde_json::to_string(name).unwrap();
    let text = manifest().replace("\"state/functions.pkl\"", &quoted);
    let mut forge = Forge::with(text, members());
    forge.entries[0].name = name.into();
    forge.bytes()
}

/// A good envelope with a name that is not even text.
fn named(name: &[u8]) -> Vec<u8> {
    tampered(1, |entry| entry.name = name.to_vec())
}

const POSITION_OF_DIRECTORY_COUNT: usize = 24;

fn of_the_file() -> Vec<Vector> {
    let good = Forge::good().bytes();
    vec![
        ("1.1-empty", vec![]),
        ("1.1-truncated-by-one-byte", good[..good.len() - 1].to_vec()),
        ("1.1-truncated-by-half", good[..good.len() / 2].to_vec()),
        ("1.1-another-format", b"\x80\x05}q\0.".repeat(40)),
        ("1.1-magic-with-a-flipped-bit", ended(0, b"PK\x06\x04")),
        (
            "1.1-bytes-after-the-end",
            forged(|forge| forge.after = b"tail".to_vec()),
        ),
        (
            "1.1-second-envelope-after-the-end",
            [good.clone(), good.clone()].concat(),
        ),
        (
            "1.1-archive-comment",
            forged(|forge| {
                forge.patch_end = vec![(96, vec![4, 0])];
                forge.after = b"note".to_vec();
            }),
        ),
        (
            "1.1-end-record-in-the-comment",
            forged(|forge| {
                forge.patch_end = vec![(96, vec![98, 0])];
                forge.after = good[good.len() - 98..].to_vec();
            }),
        ),
        (
            "1.1-manifest-is-not-last",
            forged(|forge| forge.entries.rotate_left(1)),
        ),
        ("1.1-no-manifest", forged(|forge| _ = forge.entries.pop())),
        ("1.1-no-entries", forged(|forge| forge.entries.clear())),
        (
            "1.3-too-many-members",
            forged(|forge| forge.count = Some(65_536)),
        ),
        (
            "1.3-a-million-members",
            forged(|forge| forge.count = Some(1_000_000)),
        ),
    ]
}

fn of_end_records() -> Vec<Vector> {
    let most = u64::MAX.to_le_bytes();
    vec![
        (
            "1.1-directory-longer-than-its-records",
            forged(|forge| forge.count = Some(2)),
        ),
        (
            "2.1-fewer-records-than-counted",
            forged(|forge| forge.count = Some(4)),
        ),
        ("1.1-locator-without-end-record", ended(0, b"PK\x01\x02")),
        ("1.1-end-record-of-another-size", ended(4, &[45])),
        ("1.1-end-record-on-another-disk", ended(16, &[1])),
        (
            "1.1-counts-differ",
            ended(POSITION_OF_DIRECTORY_COUNT, &[2]),
        ),
        ("1.1-directory-size-of-all-bits", ended(40, &most)),
        (
            "1.1-directory-size-of-2-to-the-63",
            ended(40, &(1u64 << 63).to_le_bytes()),
        ),
        ("1.1-directory-offset-of-all-bits", ended(48, &most)),
        ("1.1-directory-offset-off-by-one", {
            let offset = Forge::good().bytes().len() as u64 - 98;
            ended(48, &(offset - 1).to_le_bytes())
        }),
        ("1.1-locator-points-elsewhere", ended(64, &[0])),
        ("1.1-several-disks", ended(72, &[2])),
        ("1.1-sizes-in-the-old-end-record", ended(88, &[0; 4])),
        ("1.1-comment-length-without-comment", ended(96, &[4])),
    ]
}

fn of_headers() -> Vec<Vector> {
    let record = |at: usize, bytes: &[u8]| {
        let patch = vec![(at, bytes.to_vec())];
        tampered(1, |entry| entry.patch_record.clone_from(&patch))
    };
    let local = |at: usize, bytes: &[u8]| {
        let patch = vec![(at, bytes.to_vec())];
        tampered(1, |entry| entry.patch_local.clone_from(&patch))
    };
    let mode = |mode: u32| record(38, &(mode << 16).to_le_bytes());
    let most = u64::MAX.to_le_bytes();
    let name = "environment/pylock.toml".len();
    vec![
        ("2.1-time-in-the-directory", record(12, &[1])),
        ("2.1-time-in-a-local-header", local(10, &[1])),
        ("2.1-time-before-1980", record(14, &[0, 0])),
        ("2.1-time-in-another-extra-field", {
            tampered(1, |entry| {
                entry.extra = b"UT\x05\0\x01\xff\xff\xff\xff".to_vec()
            })
        }),
        ("2.1-encrypted", record(8, &[1])),
        ("2.1-sizes-after-the-content", record(8, &[8])),
        (
            "2.1-unknown-compression",
            tampered(1, |entry| entry.method = 14),
        ),
        ("2.1-zstandard", tampered(1, |entry| entry.method = 93)),
        ("2.1-deflate64", tampered(1, |entry| entry.method = 9)),
        ("2.1-another-disk", record(34, &[1])),
        ("2.1-comment-of-an-entry", record(32, &[1])),
        ("2.1-other-name-in-the-local-header", local(31, b"x")),
        (
            "2.1-other-size-in-the-local-header",
            local(30 + name + 4, &[9]),
        ),
        (
            "2.1-other-crc-in-the-local-header",
            local(14, &[0, 0, 0, 0]),
        ),
        ("2.1-other-compression-in-the-local-header", local(8, &[0])),
        ("2.1-other-flags-in-the-local-header", local(6, &[9])),
        ("2.1-another-name-in-an-extra-field", {
            tampered(1, |entry| {
                entry.extra = b"\x75\x70\x06\0\x01\0\0\0\0x".to_vec()
            })
        }),
        ("2.1-second-zip64-field", {
            tampered(1, |entry| {
                entry.extra = [b"\x01\0\x08\0".as_slice(), &[0; 8]].concat()
            })
        }),
        (
            "2.1-extra-field-longer-than-its-room",
            record(46 + name + 2, &[0xff, 0xff]),
        ),
        (
            "2.1-padding-is-not-zero",
            tampered(0, |entry| entry.patch_local = vec![(100, vec![1])]),
        ),
        (
            "2.1-stored-size-of-all-bits",
            tampered(1, |entry| entry.stored_size = Some(u64::MAX)),
        ),
        ("2.1-offset-of-all-bits", record(46 + name + 20, &most)),
        ("2.1-symbolic-link", mode(0o120_777)),
        ("2.1-folder", mode(0o040_755)),
        ("2.1-device", mode(0o020_644)),
        ("2.1-pipe", mode(0o010_644)),
        ("2.1-socket", mode(0o140_644)),
        ("2.1-set-user-bit", mode(0o104_755)),
        ("2.1-writable-for-all", mode(0o100_666)),
        ("2.1-manifest-is-mapped", {
            forged(|forge| forge.entries[2] = Entry::mapped("manifest.json", manifest().as_bytes()))
        }),
        ("2.1-entry-in-the-directory-only", ghost()),
        ("2.1-name-is-not-utf-8", named(b"environment/\xff\xfe")),
        ("2.1-name-is-overlong-utf-8", named(b"environment/\xc0\xaf")),
        (
            "2.1-name-with-a-surrogate",
            named(b"environment/\xed\xa0\x80"),
        ),
    ]
}

/// A record of the directory that nothing in the file belongs to. It lists no bytes, so that the
/// layout is right.
fn ghost() -> Vec<u8> {
    let mut forge = Forge::good();
    let mut ghost = Entry::mapped("state/ghost", b"");
    ghost.method = 8;
    ghost.is_ghost = true;
    forge.entries.insert(2, ghost);
    forge.bytes()
}

fn of_layout() -> Vec<Vector> {
    let moved = |by: i64| {
        let mut forge = Forge::good();
        let first = Entry::mapped("state/functions.pkl", super::PICKLE);
        let end = i64::try_from(
            Forge {
                entries: vec![first],
                ..Forge::good()
            }
            .bytes()
            .len(),
        )
        .unwrap();
        // Without the records of an archive of the first entry alone.
        let records = 46 + 19 + 36 + 98;
        forge.entries[1].offset = Some(u64::try_from(end - records + by).unwrap());
        forge.bytes()
    };
    vec![
        (
            "2.2-bytes-before-the-first-entry",
            forged(|forge| forge.before = b"#!/bin/sh\n".to_vec()),
        ),
        (
            "2.2-hole-before-the-directory",
            forged(|forge| forge.hole = vec![0; 16]),
        ),
        ("2.2-entries-overlap-by-one-byte", moved(-1)),
        ("2.2-hole-of-one-byte", moved(1)),
        (
            "2.2-two-entries-at-one-place",
            tampered(1, |entry| entry.offset = Some(0)),
        ),
        ("2.2-entry-in-the-local-headers-only", unlisted()),
        ("2.2-content-beyond-the-directory-by-one-byte", {
            forged(|forge| {
                let last = &mut forge.entries[2];
                last.stored_size = Some(last.stored.len() as u64 + 1);
            })
        }),
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
            "2.3-manifest-crc-wrong",
            tampered(2, |entry| entry.crc ^= 1),
        ),
    ]
}

/// An entry between two others that no record of the directory mentions.
fn unlisted() -> Vec<u8> {
    let hidden = Entry::deflated("hidden", b"x");
    let mut forge = Forge::good();
    let mut stored = forge.entries[1].stored.clone();
    stored.extend(
        Forge {
            entries: vec![hidden],
            ..Forge::good()
        }
        .bytes(),
    );
    forge.entries[1].stored_size = Some(forge.entries[1].stored.len() as u64);
    forge.entries[1].stored = stored;
    forge.bytes()
}

fn of_names() -> Vec<Vector> {
    vec![
        (
            "3.1-name-leaves-the-envelope",
            renamed("../../../../etc/passwd"),
        ),
        ("3.1-name-goes-up-inside", renamed("state/../functions.pkl")),
        ("3.1-absolute-name", renamed("/etc/passwd")),
        ("3.1-name-with-a-dot-part", renamed("./functions.pkl")),
        ("3.1-name-is-a-dot", renamed(".")),
        (
            "3.1-name-with-an-empty-part",
            renamed("state//functions.pkl"),
        ),
        ("3.1-name-is-empty", renamed("")),
        ("3.1-name-of-a-folder", renamed("state/")),
        ("3.1-name-with-backslash", renamed("state\\functions.pkl")),
        ("3.1-name-with-a-drive", renamed("C:functions.pkl")),
        (
            "3.1-name-of-a-network-share",
            renamed("\\\\host\\share\\functions.pkl"),
        ),
        (
            "3.1-name-of-a-windows-device-path",
            renamed("\\\\?\\C:\\functions.pkl"),
        ),
        ("3.1-name-with-nul", renamed("state/functions\0.pkl")),
        ("3.1-name-with-newline", renamed("state/functions\n.pkl")),
        (
            "3.1-name-with-escape",
            renamed("state/\u{1b}[2Jfunctions.pkl"),
        ),
        ("3.1-name-with-del", renamed("state/functions\u{7f}.pkl")),
        (
            "3.1-name-with-bidirectional-override",
            renamed("state/\u{202e}lkp.exe"),
        ),
        (
            "3.1-name-with-zero-width-space",
            renamed("state/func\u{200b}tions.pkl"),
        ),
        ("3.1-name-with-a-wildcard", renamed("state/*.pkl")),
        ("3.1-name-ends-in-a-dot", renamed("state/functions.")),
        ("3.1-name-ends-in-a-space", renamed("state/functions.pkl ")),
        ("3.1-name-of-a-windows-device", renamed("state/nul.pkl")),
        ("3.1-name-of-a-windows-port", renamed("COM1/functions.pkl")),
        (
            "3.1-part-of-256-bytes",
            renamed(&format!("state/{}", "a".repeat(256))),
        ),
        (
            "3.1-name-of-1025-bytes",
            renamed(&format!("state{}", "/abcd".repeat(204))),
        ),
        ("3.2-same-name-twice", renamed("environment/pylock.toml")),
        (
            "3.2-same-name-in-another-case",
            renamed("Environment/PyLock.toml"),
        ),
        (
            "3.2-same-name-composed-otherwise",
            twins("state/caf\u{e9}", "state/cafe\u{301}"),
        ),
        (
            "3.2-same-name-with-another-sigma",
            twins("state/\u{3c3}", "state/\u{3c2}"),
        ),
        ("3.2-manifest-twice", twins("manifest.json", "state/0")),
        (
            "3.3-member-is-a-folder",
            renamed("environment/pylock.toml/functions.pkl"),
        ),
    ]
}

/// Two members more.
fn twins(one: &str, other: &str) -> Vec<u8> {
    let members = [good(), vec![deflated(one, b"1"), deflated(other, b"2")]].concat();
    Forge::of(&members, |_| {}).bytes()
}

fn of_members() -> Vec<Vector> {
    let extra = [members(), vec![Entry::deflated("extra", b"x")]].concat();
    vec![
        (
            "4.1-member-is-not-listed",
            Forge::with(manifest(), extra).bytes(),
        ),
        (
            "4.1-listed-member-is-missing",
            Forge::with(manifest(), members()[..1].to_vec()).bytes(),
        ),
        (
            "4.1-another-order",
            forged(|forge| forge.entries.swap(0, 1)),
        ),
        ("4.1-mapped-after-deflated", {
            let reversed: Vec<_> = good().into_iter().rev().collect();
            Forge::of(&reversed, |_| {}).bytes()
        }),
        ("4.1-another-size", edited("\"size\": 38", "\"size\": 39")),
        ("4.1-smaller-size", edited("\"size\": 21", "\"size\": 20")),
        (
            "4.1-another-encoding",
            edited("\"encoding\": \"mapped\"", "\"encoding\": \"deflated\""),
        ),
        ("4.2-deflated-content-is-another", {
            tampered(1, |entry| {
                *entry = Entry::deflated("environment/pylock.toml", b"lock-version = \"6.6\"\n")
            })
        }),
        ("4.2-mapped-content-is-another", {
            tampered(0, |entry| {
                *entry = Entry::mapped("state/functions.pkl", &[b'x'; 38])
            })
        }),
        ("4.2-digests-are-swapped", swapped_digests()),
        (
            "4.3-inflates-to-more",
            tampered(1, |entry| (entry.stored, entry.stored_crc) = bomb()),
        ),
        ("4.3-inflates-to-less", sized_falsely(LOCK.len() as u64 + 1)),
        ("4.3-deflate-stream-is-garbage", restored(&[0xff; 9])),
        ("4.3-deflate-stream-is-truncated", {
            let stored = Entry::deflated("x", LOCK).stored;
            restored(&stored[..stored.len() - 2])
        }),
        ("4.3-bytes-after-the-deflate-stream", {
            restored(&[Entry::deflated("x", LOCK).stored.as_slice(), b"tail"].concat())
        }),
        ("4.3-two-deflate-streams", {
            let stored = Entry::deflated("x", LOCK).stored;
            restored(&[stored.clone(), stored].concat())
        }),
        ("4.3-stored-in-far-more-than-needed", restored(&[0; 4096])),
        (
            "4.4-deflated-member-too-large",
            sized_falsely(1_073_741_825),
        ),
    ]
}

/// The lock's stored bytes are others, and everything says so truly.
fn restored(stored: &[u8]) -> Vec<u8> {
    tampered(1, |entry| {
        (entry.stored, entry.stored_crc) = (stored.to_vec(), crc(stored))
    })
}

/// Manifest and headers agree on a size of the lock that is not true.
fn sized_falsely(size: u64) -> Vec<u8> {
    let text = manifest().replace("\"size\": 21", &format!("\"size\": {size}"));
    let mut forge = Forge::with(text, members());
    forge.entries[1].size = size;
    forge.bytes()
}

fn swapped_digests() -> Vec<u8> {
    let mut manifest: Manifest = serde_json::from_str(&manifest()).unwrap();
    let (first, second) = (manifest.members[0].digest, manifest.members[1].digest);
    (manifest.members[0].digest, manifest.members[1].digest) = (second, first);
    Forge::with(manifest.to_bytes().unwrap(), members()).bytes()
}

/// One kilobyte that inflates to a megabyte.
fn bomb() -> (Vec<u8>, u32) {
    let entry = Entry::deflated("x", &vec![b'x'; 1 << 20]);
    (entry.stored, entry.stored_crc)
}

fn of_manifest_text() -> Vec<Vector> {
    let text = |text: &[u8]| Forge::with(text, members()).bytes();
    let utf16: Vec<_> = manifest()
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let digest = Digest::of(LOCK).hex();
    vec![
        (
            "5.1-manifest-too-large",
            tampered(2, |entry| entry.size = 32 * 1024 * 1024 + 1),
        ),
        (
            "5.1-manifest-size-of-all-bits",
            tampered(2, |entry| entry.size = u64::MAX),
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
            "5.2-largest-version",
            edited("\"format_version\": 1", "\"format_version\": 4294967295"),
        ),
        ("5.3-empty-manifest", text(b"")),
        ("5.3-not-json", text(b"{\"format_version\": 1,}")),
        (
            "5.3-not-utf-8",
            text(b"{\"format_version\": 1, \"name\": \"\xff\"}"),
        ),
        ("5.3-utf-16", text(&utf16)),
        (
            "5.3-byte-order-mark",
            text(&[b"\xef\xbb\xbf", manifest().as_bytes()].concat()),
        ),
        (
            "5.3-two-values",
            text(&[manifest().as_bytes(), manifest().as_bytes()].concat()),
        ),
        ("5.3-deep-nesting", text("[".repeat(10_000).as_bytes())),
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
            "5.3-number-with-a-fraction",
            edited("\"trials\": 8", "\"trials\": 8.0"),
        ),
        ("5.3-minus-zero", edited("\"seed\": 0", "\"seed\": -0")),
        (
            "5.3-number-of-65-bits",
            edited("\"seed\": 0", "\"seed\": 18446744073709551616"),
        ),
        ("5.3-number-of-400-digits", {
            edited("\"seed\": 0", &format!("\"seed\": {}", "9".repeat(400)))
        }),
        (
            "5.3-digest-of-another-algorithm",
            edited("\"sha256:", "\"md5:"),
        ),
        ("5.3-digest-without-algorithm", edited("\"sha256:", "\"")),
        ("5.3-digest-of-no-algorithm", edited("\"sha256:", "\"none:")),
        ("5.3-digest-too-short", edited(&digest, &digest[1..])),
        (
            "5.3-digest-in-upper-case",
            edited(&digest, &digest.to_uppercase()),
        ),
        (
            "5.3-digest-is-a-path",
            edited(&digest, &format!("../{}", &digest[3..])),
        ),
        (
            "5.3-unknown-column-type",
            edited("\"float64\"", "\"float65\""),
        ),
        ("5.3-column-type-of-deep-lists", {
            let deep = format!("\"{}float64{}\"", "list<".repeat(1000), ">".repeat(1000));
            edited("\"float64\"", &deep)
        }),
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
            text(format!("{}\n", manifest()).as_bytes()),
        ),
    ]
}

fn of_description() -> Vec<Vector> {
    let described = |change: fn(&mut Manifest)| Forge::of(&good(), change).bytes();
    vec![
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
        ("6.2-column-twice", {
            described(|manifest| {
                let rows = &mut manifest.functions[0].signature.input;
                rows.fields.push(rows.fields[0].clone());
            })
        }),
        ("6.2-series-of-two-columns", {
            described(|manifest| {
                let rows = &mut manifest.functions[0].signature.input;
                rows.fields.push(rows.fields[0].clone());
                rows.fields[1].name = "y".into();
            })
        }),
        (
            "6.3-no-functions",
            described(|manifest| manifest.functions.clear()),
        ),
        (
            "6.4-function-name-is-not-an-identifier",
            edited("\"name\": \"double\"", "\"name\": \"os:system\""),
        ),
        (
            "6.4-function-name-is-dotted",
            edited("\"name\": \"double\"", "\"name\": \"os.system\""),
        ),
        ("6.4-function-twice", {
            described(|manifest| manifest.functions.push(manifest.functions[0].clone()))
        }),
        ("6.5-pickle-is-not-a-member", {
            edited(
                "\"pickle\": \"state/functions.pkl\"",
                "\"pickle\": \"state/other.pkl\"",
            )
        }),
        ("6.5-lock-is-not-a-member", {
            edited(
                "\"lock\": \"environment/pylock.toml\"",
                "\"lock\": \"environment/other.toml\"",
            )
        }),
        ("6.6-module-is-the-pickle", {
            described(|manifest| manifest.source.modules = vec![manifest.state.pickle.clone()])
        }),
    ]
}

/// An envelope with this lock.
pub(crate) fn locked(text: &str) -> Vec<u8> {
    let members = [
        good()[0],
        deflated("environment/pylock.toml", text.as_bytes()),
    ];
    Forge::of(&members, |_| {}).bytes()
}

/// A lock of one package from an index, in which something is replaced.
pub(crate) fn lock(from: &str, to: &str) -> String {
    let text = format!(
        "lock-version = \"1.0\"\ncreated-by = \"uv\"\nrequires-python = \">=3.11\"\n\n[[packages]]\n\
         name = \"pricing\"\nversion = \"1.0\"\nindex = \"https://pypi.org/simple\"\n\
         wheels = [{{ url = \"https://files.pythonhosted.org/pricing-1.0-py3-none-any.whl\", size = 5, \
         hashes = {{ sha256 = \"{}\" }} }}]\n",
        "5".repeat(64)
    );
    assert!(text.contains(from), "nothing to change: {from}");
    text.replace(from, to)
}

fn of_locks() -> Vec<Vector> {
    let url = "https://files.pythonhosted.org/pricing-1.0-py3-none-any.whl";
    let changed = |from: &str, to: &str| locked(&lock(from, to));
    let wheels = |origin: &str| {
        let text = lock("", "");
        let start = text.find("wheels = ").unwrap();
        locked(&format!("{}{origin}\n", &text[..start]))
    };
    let digest = "5".repeat(64);
    vec![
        ("7.1-not-toml", locked("lock-version = ")),
        ("7.1-not-utf-8", {
            let members = [good()[0], deflated("environment/pylock.toml", b"# \xff\n")];
            Forge::of(&members, |_| {}).bytes()
        }),
        (
            "7.1-another-lock-version",
            locked("lock-version = \"2.0\"\n"),
        ),
        (
            "7.1-packages-are-not-tables",
            locked("lock-version = \"1.0\"\npackages = [1]\n"),
        ),
        (
            "7.1-key-twice",
            locked("lock-version = \"1.0\"\nlock-version = \"1.0\"\n"),
        ),
        ("7.1-deep-nesting", {
            locked(&format!(
                "lock-version = \"1.0\"\nx = {}{}\n",
                "[".repeat(9000),
                "]".repeat(9000)
            ))
        }),
        ("7.1-lock-too-large", {
            let text = manifest().replace("\"size\": 21", "\"size\": 16777217");
            let mut forge = Forge::with(text, members());
            forge.entries[1].size = 16_777_217;
            forge.bytes()
        }),
        (
            "7.2-package-name-is-a-path",
            changed("\"pricing\"", "\"../pricing\""),
        ),
        (
            "7.2-package-name-is-an-option",
            changed("\"pricing\"", "\"--index-url=x y\""),
        ),
        (
            "7.2-version-is-none",
            changed("version = \"1.0\"\nindex", "version = \"1.0; rm\"\nindex"),
        ),
        ("7.2-marker-bomb", {
            let marker = format!(
                "marker = \"{}os_name == 'x'{}\"\nindex",
                "(".repeat(3000),
                ")".repeat(3000)
            );
            changed("index", &marker)
        }),
        ("7.3-no-origin", wheels("")),
        ("7.3-two-origins", {
            wheels(&format!(
                "wheels = [{{ url = \"{url}\", hashes = {{ sha256 = \"{digest}\" }} }}]\n\
                 archive = {{ url = \"{url}\", hashes = {{ sha256 = \"{digest}\" }} }}"
            ))
        }),
        (
            "7.3-editable-folder",
            wheels("directory = { path = \"../pricing\", editable = true }"),
        ),
        ("7.3-file-without-a-place", changed("url", "uri")),
        (
            "7.4-file-without-digest",
            changed("hashes = { sha256", "hashes = { blake2b"),
        ),
        (
            "7.4-file-with-a-weak-digest-only",
            changed("sha256 = ", "md5 = "),
        ),
        ("7.4-digest-too-short", changed(&digest, &digest[1..])),
        ("7.4-digest-is-not-hex", changed(&digest, &"g".repeat(64))),
        (
            "7.5-file-url",
            changed(url, "file:///home/ann/pricing-1.0-py3-none-any.whl"),
        ),
        (
            "7.5-ssh-url",
            changed(url, "git+ssh://git@example.com/pricing"),
        ),
        (
            "7.5-url-with-a-password",
            changed("https://files", "https://ann:secret@files"),
        ),
        (
            "7.5-index-with-a-token",
            changed("https://pypi.org", "https://token@pypi.org"),
        ),
        (
            "7.5-url-with-white-space",
            changed(url, "https://example.com/a b"),
        ),
        (
            "7.5-url-without-a-host",
            changed(url, "https:///pricing.whl"),
        ),
        (
            "7.6-wheel-outside-of-the-envelope",
            changed(&format!("url = \"{url}\""), "path = \"../x.whl\""),
        ),
        (
            "7.6-wheel-with-an-absolute-path",
            changed(&format!("url = \"{url}\""), "path = \"/tmp/x.whl\""),
        ),
        ("7.6-wheel-is-not-carried", {
            changed(
                &format!("url = \"{url}\""),
                "path = \"wheels/pricing-1.0-py3-none-any.whl\"",
            )
        }),
        ("7.6-carried-wheel-is-another", {
            let lock = lock(
                &format!("url = \"{url}\""),
                &format!("path = \"wheels/{}\"", wheel::NAME),
            );
            with_wheels(&lock, &[(wheel::NAME, &Wheel::good().bytes())])
        }),
        ("7.7-repository-at-a-branch", {
            wheels(
                "vcs = { type = \"git\", url = \"https://example.com/x.git\", commit-id = \"main\" }",
            )
        }),
        ("7.7-repository-is-a-folder", {
            wheels(&format!(
                "vcs = {{ type = \"git\", path = \"../x\", commit-id = \"{}\" }}",
                "a".repeat(40)
            ))
        }),
        ("7.7-repository-of-another-kind", {
            wheels(&format!(
                "vcs = {{ type = \"hg\", url = \"https://example.com/x\", commit-id = \"{}\" }}",
                "a".repeat(40)
            ))
        }),
    ]
}

/// An envelope that carries wheels.
pub(crate) fn with_wheels(lock: &str, wheels: &[(&str, &[u8])]) -> Vec<u8> {
    let names: Vec<_> = wheels
        .iter()
        .map(|(name, _)| format!("environment/wheels/{name}"))
        .collect();
    let mut members: Vec<Member<'_>> = vec![
        good()[0],
        deflated("environment/pylock.toml", lock.as_bytes()),
    ];
    members.extend(
        names
            .iter()
            .zip(wheels)
            .map(|(name, (_, bytes))| deflated(name, bytes)),
    );
    Forge::of(&members, |_| {}).bytes()
}

/// The lock of a wheel that is carried.
pub(crate) fn carrying(name: &str, bytes: &[u8]) -> String {
    format!(
        "lock-version = \"1.0\"\n\n[[packages]]\nname = \"pricing\"\nversion = \"1.0\"\n\
         archive = {{ path = \"wheels/{name}\", hashes = {{ sha256 = \"{}\" }} }}\n",
        Digest::of(bytes).hex()
    )
}

fn carried(wheel: &Wheel) -> Vec<u8> {
    let bytes = wheel.bytes();
    with_wheels(&carrying(wheel::NAME, &bytes), &[(wheel::NAME, &bytes)])
}

fn of_wheel_archives() -> Vec<Vector> {
    let with = |change: fn(&mut wheel::File)| {
        let mut more = file("pricing/more.py", "");
        more.content = b"x = 1\n".repeat(9);
        change(&mut more);
        carried(&Wheel::with(more))
    };
    let bytes = |bytes: &[u8]| with_wheels(&carrying(wheel::NAME, bytes), &[(wheel::NAME, bytes)]);
    let good = Wheel::good().bytes();
    vec![
        ("8.1-wheel-is-empty", bytes(b"")),
        ("8.1-wheel-is-truncated", bytes(&good[..good.len() - 1])),
        (
            "8.1-wheel-with-bytes-after-it",
            bytes(&[good.as_slice(), b"tail"].concat()),
        ),
        ("8.1-wheel-with-bytes-before-it", {
            carried(&Wheel::changed(|wheel| {
                wheel.before = b"#!/bin/sh\n".to_vec()
            }))
        }),
        (
            "8.1-wheel-of-two-archives",
            bytes(&[good.clone(), good].concat()),
        ),
        (
            "8.1-wheel-counts-wrongly",
            carried(&Wheel::changed(|wheel| {
                wheel.patch_end = vec![(10, vec![9])]
            })),
        ),
        ("8.1-wheel-file-is-encrypted", with(|file| file.flags |= 1)),
        (
            "8.1-wheel-file-of-unknown-compression",
            with(|file| file.method = 12),
        ),
        (
            "8.1-wheel-says-two-names",
            with(|file| file.patch_local = vec![(30, b"P".to_vec())]),
        ),
        (
            "8.1-wheel-says-two-sizes",
            with(|file| file.patch_local = vec![(22, vec![7])]),
        ),
        (
            "8.1-wheel-renames-in-an-extra-field",
            with(|file| file.extra = b"\x75\x70\x06\0\x01\0\0\0\0x".to_vec()),
        ),
        (
            "8.1-wheel-files-overlap",
            with(|file| file.patch_record = vec![(42, vec![0; 4])]),
        ),
    ]
}

fn of_wheel_files() -> Vec<Vector> {
    let with = |name: &str, content: &str| carried(&Wheel::with(file(name, content)));
    let record =
        |change: fn(String) -> String| carried(&Wheel::changed(|wheel| wheel.record = change));
    let second = "pricing_too-1.0-py3-none-any.whl";
    vec![
        (
            "8.2-wheel-with-a-link",
            carried(&Wheel::with(link("pricing/etc", "/etc"))),
        ),
        ("8.2-wheel-writes-through-a-link", {
            carried(&Wheel::changed(|wheel| {
                wheel.files.extend([
                    link("pricing/etc", "/etc"),
                    file("pricing/etc/passwd", "root::0:0"),
                ]);
            }))
        }),
        (
            "8.2-wheel-with-a-device",
            carried(&Wheel::with(wheel::File {
                mode: 0o020_644,
                ..file("pricing/x", "")
            })),
        ),
        ("8.2-wheel-with-a-set-user-bit", {
            carried(&Wheel::with(wheel::File {
                mode: 0o104_755,
                ..file("pricing/x", "")
            }))
        }),
        (
            "8.2-wheel-leaves-the-environment",
            with("../../../bin/sh", "x"),
        ),
        (
            "8.2-wheel-script-leaves-the-environment",
            with("pricing-1.0.data/scripts/../../bin/sh", "x"),
        ),
        (
            "8.2-wheel-with-an-absolute-name",
            with("/etc/cron.d/x", "x"),
        ),
        (
            "8.2-wheel-with-a-file-twice",
            with("Pricing/__init__.py", "x"),
        ),
        (
            "8.2-wheel-with-a-file-in-a-file",
            with("pricing/__init__.py/x.py", "x"),
        ),
        ("8.3-wheel-file-of-another-size", {
            carried(&Wheel::with(wheel::File {
                method: 8,
                patch_local: vec![(22, vec![1, 0, 0, 0])],
                patch_record: vec![(24, vec![1, 0, 0, 0])],
                ..file("pricing/bomb.py", "0000000000000000000000")
            }))
        }),
        ("8.4-wheel-with-a-bad-name", {
            let bytes = Wheel::good().bytes();
            with_wheels(&carrying("pricing.whl", &bytes), &[("pricing.whl", &bytes)])
        }),
        ("8.4-wheel-without-record", {
            carried(&Wheel::changed(|wheel| {
                wheel.record = |_| String::new();
            }))
        }),
        ("8.4-wheel-of-another-package", {
            let bytes = Wheel::good().bytes();
            with_wheels(&carrying(second, &bytes), &[(second, &bytes)])
        }),
        ("8.4-wheel-with-an-unlisted-file", {
            carried(&Wheel::changed(|wheel| {
                wheel.unlisted = vec![file("pricing/evil.py", "x")]
            }))
        }),
        (
            "8.4-wheel-lists-a-missing-file",
            record(|text| text + "pricing/none.py,sha256=x,1\n"),
        ),
        (
            "8.4-wheel-lists-another-digest",
            record(|text| text.replacen("sha256=", "sha256=A", 1)),
        ),
        ("8.4-wheel-lists-no-digest", {
            record(|text| {
                text.lines()
                    .map(|line| {
                        line.split_once(",sha256")
                            .map_or(line, |(path, _)| path)
                            .to_owned()
                            + ",,\n"
                    })
                    .collect()
            })
        }),
        ("8.4-wheel-lists-a-file-twice", {
            record(|text| format!("{}\n{text}", text.lines().next().unwrap_or_default()))
        }),
        (
            "8.5-wheel-replaces-python",
            with("pricing-1.0.data/scripts/python3", "#!/bin/sh"),
        ),
        (
            "8.5-wheel-writes-into-bin",
            with("pricing-1.0.data/data/bin/activate", "x"),
        ),
        ("8.5-wheel-has-a-program-called-python", {
            with(
                "pricing-1.0.dist-info/entry_points.txt",
                "[console_scripts]\npython = pricing:main\n",
            )
        }),
        ("8.6-two-wheels-write-one-file", {
            let first = Wheel::good().bytes();
            let mut other = Wheel::good();
            for file in &mut other.files {
                let name = String::from_utf8(file.name.clone()).unwrap();
                file.name = name.replace("pricing-1.0", "pricing_too-1.0").into();
            }
            other.record = |text| {
                text.replace(
                    "pricing-1.0.dist-info/RECORD",
                    "pricing_too-1.0.dist-info/RECORD",
                )
            };
            let other = other.renamed_record("pricing_too-1.0.dist-info/RECORD");
            with_wheels(
                &carrying(wheel::NAME, &first),
                &[(wheel::NAME, &first), (second, &other)],
            )
        }),
    ]
}
