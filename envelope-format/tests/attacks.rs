//! The attacks of `ATTACKS.md`: those that need a table, and those that are not files.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

#[allow(dead_code, reason = "each test file uses its part")]
mod forge;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use envelope_format::{DataType, Envelope, Error, Field, ReadAt, open_file};
use forge::invalid::{edited, invalid};
use forge::{Entry, Forge, deflated, good, manifest, members};
use serde_json::{Value, json};

fn error(source: impl ReadAt) -> Option<Error> {
    Envelope::open(source)
        .and_then(|envelope| envelope.verify())
        .err()
}

fn rule(source: impl ReadAt) -> Option<&'static str> {
    error(source)?.rule()
}

/// The rows of the table: attack, and what holds it.
fn table() -> Vec<(&'static str, &'static str)> {
    let rows = include_str!("../ATTACKS.md")
        .lines()
        .skip_while(|line| !line.starts_with("|---"));
    rows.skip(1)
        .map(|row| {
            let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            assert_eq!(cells.len(), 3, "{row}");
            (cells[0], cells[2])
        })
        .collect()
}

#[test]
fn every_attack_is_held_by_vectors_or_tests_or_cannot_apply() {
    let numbered = (1..=58).map(|number| format!("F{number}"));
    let lettered = ["Z1", "Z2", "Z3", "Z4", "T1", "A1"].map(str::to_owned);
    let expected: Vec<_> = numbered.chain(lettered).collect();
    let found: Vec<_> = table()
        .iter()
        .map(|(attack, _)| (*attack).to_owned())
        .collect();
    assert_eq!(found, expected);
    let vectors: BTreeSet<_> = invalid().iter().map(|(name, _)| *name).collect();
    for (attack, held) in table() {
        let (holders, reason) = held.split_once("; ").unwrap_or((held, ""));
        if let Some(reason) = holders.strip_prefix("not a rule of the archive: ") {
            assert!(reason.len() > 30, "{attack}: {reason}");
            continue;
        }
        assert!(reason.is_empty() || reason.len() > 30, "{attack}: {reason}");
        for holder in holders.split(", ") {
            match holder.strip_prefix("test `") {
                Some(test) => assert!(is_test(test.trim_end_matches('`')), "{attack}: {holder}"),
                None => assert!(vectors.contains(holder), "{attack}: {holder}"),
            }
        }
    }
}

fn is_test(name: &str) -> bool {
    let sources = [
        include_str!("attacks.rs"),
        include_str!("attestations.rs"),
        include_str!("integrity.rs"),
        include_str!("vectors.rs"),
    ];
    sources
        .iter()
        .any(|source| source.contains(&format!("fn {name}(")))
}

/// Every value of the manifest, by its JSON pointer.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    let mut inner = |key: &str, value: &Value| {
        let pointer = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
        found.push(pointer.clone());
        pointers(value, &pointer, found);
    };
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others hold no values")]
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| inner(key, value)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(index, value)| inner(&index.to_string(), value)),
        _ => {}
    }
}

/// The manifest's lines with each field, in the order of the text.
fn manifest_with(pointer: &str, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value: Value = serde_json::from_str(&manifest()).unwrap();
    change(value.pointer_mut(pointer).unwrap());
    // Sorted by key, which alone would be refused by rule 5.4, but 5.3 comes before.
    Forge::with(
        serde_json::to_string_pretty(&value).unwrap() + "\n",
        members(),
    )
    .bytes()
}

#[test]
fn no_field_takes_another_type() {
    let value: Value = serde_json::from_str(&manifest()).unwrap();
    let mut all = vec![];
    pointers(&value, "", &mut all);
    assert!(all.len() > 50);
    // Tags are texts of the user's choice under keys of the user's choice.
    for pointer in all {
        for other in [
            json!([[]]),
            json!({"x": {}}),
            json!(-1.5),
            json!(true),
            json!(null),
            json!(""),
        ] {
            let old = value.pointer(&pointer).unwrap();
            if std::mem::discriminant(old) == std::mem::discriminant(&other) || *old == Value::Null
            {
                continue;
            }
            let nullable = ["/functions/0/certificate/tile"];
            if other.is_null() && nullable.contains(&pointer.as_str()) {
                continue;
            }
            let error = error(manifest_with(&pointer, |value| *value = other.clone())).unwrap();
            assert_eq!(error.rule(), Some("5.3"), "{pointer} = {other}: {error}");
        }
    }
}

#[test]
fn no_field_may_be_missing() {
    let value: Value = serde_json::from_str(&manifest()).unwrap();
    let mut all = vec![];
    pointers(&value, "", &mut all);
    for pointer in all {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        if key.parse::<usize>().is_ok() || parent == "/tags" {
            continue;
        }
        let bytes = manifest_with(parent, |value| {
            _ = value.as_object_mut().unwrap().remove(key)
        });
        let found = error(bytes).unwrap();
        // Fields that may be null may also be left out by whoever writes JSON, but not in the one spelling.
        let optional = value.pointer(&pointer).unwrap().is_null() || pointer == "/members";
        let expected = if optional { "5.4" } else { "5.3" };
        assert_eq!(found.rule(), Some(expected), "{pointer}: {found}");
    }
}

#[test]
fn a_key_of_the_manifest_is_never_there_twice() {
    let text = manifest();
    let lines: Vec<_> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let is_plain = line.contains("\": ") && line.ends_with(',');
        if is_plain {
            let mut twice = lines.clone();
            twice.insert(index, line);
            let rule = rule(Forge::with(twice.join("\n") + "\n", members()).bytes());
            assert!(matches!(rule, Some("5.3" | "5.4")), "{line}: {rule:?}");
        }
    }
}

#[test]
fn white_space_in_the_manifest_is_bounded() {
    let spaces = " ".repeat(32 << 20);
    assert_eq!(
        rule(Forge::with(manifest() + &spaces, members()).bytes()),
        Some("5.1")
    );
    assert_eq!(
        rule(Forge::with(manifest() + &spaces[..1 << 20], members()).bytes()),
        Some("5.4")
    );
}

#[test]
fn ten_thousand_columns_are_the_most() {
    let with = |count: usize| {
        Forge::of(&good(), |manifest| {
            let rows = &mut manifest.functions[0].signature.output;
            rows.shape = envelope_format::Shape::PandasDataFrame;
            rows.fields = (0..count)
                .map(|index| Field::new(format!("c{index}"), DataType::Int64, false))
                .collect();
        })
        .bytes()
    };
    assert_eq!(rule(with(10_000)), None);
    assert_eq!(rule(with(10_001)), Some("6.2"));
}

#[test]
fn as_many_members_as_allowed_are_read_in_linear_time() {
    let names: Vec<_> = (0..65_532)
        .map(|index| format!("state/buffers/{index:05}"))
        .collect();
    let mut members = good();
    members.extend(names.iter().map(|name| deflated(name, b"")));
    assert_eq!(rule(Forge::of(&members, |_| {}).bytes()), None);
    members.push(deflated("one-more", b""));
    assert_eq!(rule(Forge::of(&members, |_| {}).bytes()), Some("1.3"));
}

#[test]
fn the_longest_names_are_accepted() {
    for name in [
        "a".repeat(255),
        ["abc"; 256].join("/")[..1023].to_owned() + "d",
    ] {
        let members = [good(), vec![deflated(&name, b"x")]].concat();
        assert_eq!(
            rule(Forge::of(&members, |_| {}).bytes()),
            None,
            "{}",
            name.len()
        );
    }
}

#[test]
fn an_envelope_in_an_envelope_is_only_bytes() {
    let mut bytes = Forge::good().bytes();
    for _ in 0..50 {
        let members = [good(), vec![deflated("inner.envelope", &bytes)]].concat();
        bytes = Forge::of(&members, |_| {}).bytes();
    }
    assert_eq!(rule(bytes), None);
    // What would be refused as an envelope is a good member.
    let members = [good(), vec![deflated("inner.envelope", b"PK\x05\x06")]].concat();
    assert_eq!(rule(Forge::of(&members, |_| {}).bytes()), None);
}

/// Counts how many bytes are read, and fails from some read on.
struct Watched<'b> {
    bytes: &'b [u8],
    read: Cell<u64>,
    reads: Cell<usize>,
    fails_at: usize,
    /// What is there from that read on.
    then: Option<&'b [u8]>,
}

impl<'b> Watched<'b> {
    fn new(bytes: &'b [u8], fails_at: usize, then: Option<&'b [u8]>) -> Self {
        let (read, reads) = (Cell::new(0), Cell::new(0));
        Self {
            bytes,
            read,
            reads,
            fails_at,
            then,
        }
    }
}

impl ReadAt for &Watched<'_> {
    fn length(&self) -> io::Result<u64> {
        self.bytes.length()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read.set(self.read.get() + buffer.len() as u64);
        self.reads.set(self.reads.get() + 1);
        match self.then {
            _ if self.reads.get() <= self.fails_at => self.bytes.read_at(buffer, offset),
            Some(then) => then.read_at(buffer, offset),
            None => Err(io::Error::other("the disk")),
        }
    }
}

#[test]
fn a_bomb_is_not_inflated_further_than_it_says() {
    // Ten thousand megabytes of zeros would be inflated from this, if anybody did.
    let bomb = Entry::deflated("x", &vec![0; 100 << 20]);
    let mut forge = Forge::good();
    (forge.entries[1].stored, forge.entries[1].stored_crc) = (bomb.stored, bomb.stored_crc);
    let bytes = forge.bytes();
    assert!(bytes.len() > 100_000);
    let watched = Watched::new(&bytes, usize::MAX, None);
    assert_eq!(rule(&watched), Some("4.3"));
    // It was not even read: nothing of so few bytes is stored in so many.
    assert!(watched.read.get() < 20_000, "{}", watched.read.get());
}

#[test]
fn a_failing_disk_is_not_a_damaged_envelope() {
    let bytes = Forge::good().bytes();
    let healthy = Watched::new(&bytes, usize::MAX, None);
    assert!(error(&healthy).is_none());
    for fails_at in 0..healthy.reads.get() {
        let failing = Watched::new(&bytes, fails_at, None);
        let error = error(&failing).unwrap();
        assert_eq!(
            (error.code(), error.rule()),
            ("io", None),
            "read {fails_at}: {error}"
        );
        assert_eq!(
            failing.reads.get(),
            fails_at + 1,
            "nothing is read after a failure"
        );
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_never_mixed() {
    let before = Forge::good().bytes();
    // The same length everywhere, so that the change is not seen by that.
    let after = edited("\"doubles\"", "\"triples\"");
    let reads = Watched::new(&before, usize::MAX, None);
    assert!(error(&reads).is_none());
    let mut refused = 0;
    for changes_at in 0..=reads.reads.get() {
        let changing = Watched::new(&before, changes_at, Some(&after));
        let Ok(envelope) = Envelope::open(&changing) else {
            refused += 1;
            continue;
        };
        let whole =
            [&before, &after].map(|bytes| Envelope::open(bytes.as_slice().to_vec()).unwrap());
        let same = whole
            .iter()
            .find(|whole| whole.digest() == envelope.digest());
        assert_eq!(
            envelope.manifest(),
            same.expect("one of the two").manifest()
        );
        let truncated = Watched::new(&before, changes_at, Some(&before[..100]));
        assert!(changes_at == reads.reads.get() || error(&truncated).is_some());
    }
    assert!(refused > 0, "no change was ever noticed");
}

#[test]
fn only_regular_files_are_opened() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let socket = folder.path().join("socket");
    let _listening = UnixListener::bind(&socket).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&pipe, &link).unwrap();
    let others: [(&Path, &str); 6] = [
        (folder.path(), "a folder"),
        (&pipe, "a pipe"),
        (&link, "a pipe"),
        (&socket, "a socket"),
        ("/dev/zero".as_ref(), "a device"),
        ("/dev/null".as_ref(), "a device"),
    ];
    for (path, expected) in others {
        let error = in_time(path);
        assert_eq!(error.rule(), Some("1.4"), "{}", path.display());
        assert_eq!(
            error.to_string(),
            format!("an envelope is a regular file, this is {expected}")
        );
    }
    // It is regular, has no length, and would be read for ever.
    let memory = open_file("/proc/self/mem".as_ref()).unwrap();
    assert_eq!(rule(memory), Some("1.1"));
    let missing = in_time(&folder.path().join("missing"));
    assert_eq!(missing.code(), "io");
}

/// The error of opening; a pipe without a writer must not be waited for.
fn in_time(path: &Path) -> Error {
    let (send, receive) = mpsc::channel();
    let path = path.to_owned();
    std::thread::spawn(move || send.send(open_file(&path).err()));
    let opened = receive.recv_timeout(Duration::from_secs(20));
    opened.expect("it waits").expect("it was opened")
}

#[test]
fn a_sparse_terabyte_is_refused_at_once() {
    let file = tempfile::tempfile().unwrap();
    let write = |size: u64, end: &[u8]| {
        file.set_len(0).unwrap();
        // Not every file system has room for so long a name of nothing.
        if file.set_len(size).is_err() {
            return false;
        }
        std::os::unix::fs::FileExt::write_all_at(&file, end, size - end.len() as u64).unwrap();
        true
    };
    let limit = 1u64 << 40;
    if write(limit + 1, b"x") {
        assert_eq!(rule(file.try_clone().unwrap()), Some("1.2"));
    }
    assert_eq!(rule(Huge(limit + 1)), Some("1.2"));
    assert_eq!(rule(Huge(limit)), Some("1.1"));
    // A manifest of which the archive says that it is stored in half a terabyte.
    let mut forge = Forge::good();
    forge.entries[2].stored_size = Some(limit / 2);
    let bytes = forge.bytes();
    let (head, tail) = bytes.split_at(bytes.len() - 98);
    if write(limit / 2 + bytes.len() as u64, tail) {
        std::os::unix::fs::FileExt::write_all_at(&file, head, 0).unwrap();
        assert!(rule(file.try_clone().unwrap()).is_some());
    }
}

/// So many zeros.
struct Huge(u64);

impl ReadAt for Huge {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0)
    }

    fn read_at(&self, buffer: &mut [u8], _offset: u64) -> io::Result<()> {
        assert!(buffer.len() < 1000, "{} bytes are read", buffer.len());
        buffer.fill(0);
        Ok(())
    }
}
