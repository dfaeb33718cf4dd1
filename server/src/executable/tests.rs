use std::fs;

use envelope_format::{Content, Draft, Manifest};
use tempfile::TempDir;

use super::*;

struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self {
            folder: TempDir::new().unwrap(),
        };
        let mut draft = Draft::new(Manifest::example());
        for name in ["environment/pylock.toml", "state/functions.pkl"] {
            draft.add(
                name.parse().unwrap(),
                Content::Text(b"lock-version = \"1.0\"\n".to_vec()),
            );
        }
        draft
            .write(&mut File::create(bench.path("envelope")).unwrap())
            .unwrap();
        fs::write(bench.path("stub"), b"\x7fELF and so on").unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn build(&self, stub: &str) -> Result<Built, Error> {
        let hints = Hints {
            cache_dir: "/cache".into(),
            uv: None,
            interpreters: vec!["/usr/bin/python3".into()],
        };
        build(
            &self.path(stub),
            &self.path("envelope"),
            Surroundings::Machine(&hints),
            &self.path("service"),
        )
    }
}

#[test]
fn the_envelope_comes_out_as_it_went_in() {
    let bench = Bench::new();
    bench.build("stub").unwrap();
    let service = bench.path("service");
    let payload = payload(&service).unwrap().unwrap();
    let Needs::Machine(hints) = payload.needs else {
        panic!("it carries no environment");
    };
    assert_eq!(hints.interpreters, [PathBuf::from("/usr/bin/python3")]);
    let carried = EnvelopeFile::open_section(&service, payload.offset, payload.length).unwrap();
    assert_eq!(
        carried.digest(),
        EnvelopeFile::open(bench.path("envelope")).unwrap().digest()
    );
    carried.verify().unwrap();
    assert!(
        fs::read(&service)
            .unwrap()
            .starts_with(b"\x7fELF and so on")
    );
    assert_eq!(
        service.metadata().unwrap().permissions().mode() & 0o777,
        0o755
    );
}

#[test]
fn the_same_envelope_gives_the_same_executable() {
    let bench = Bench::new();
    bench.build("stub").unwrap();
    let first = fs::read(bench.path("service")).unwrap();
    bench.build("stub").unwrap();
    assert_eq!(fs::read(bench.path("service")).unwrap(), first);
}

#[test]
fn a_program_without_an_envelope_carries_none() {
    let bench = Bench::new();
    assert_eq!(payload(&bench.path("stub")).unwrap(), None);
    fs::write(bench.path("stub"), vec![7; 5000]).unwrap();
    assert_eq!(payload(&bench.path("stub")).unwrap(), None);
}

#[test]
fn a_damaged_trailer_is_refused() {
    let bench = Bench::new();
    bench.build("stub").unwrap();
    let good = fs::read(bench.path("service")).unwrap();
    let trailer = good.len() - usize::try_from(TRAILER_BYTES).unwrap();
    for at in (trailer..trailer + 32).chain([good.len() - 1]) {
        for change in [1, 0x80] {
            let mut bytes = good.clone();
            bytes[at] ^= change;
            fs::write(bench.path("bad"), bytes).unwrap();
            assert!(
                matches!(payload(&bench.path("bad")), Err(Error::Payload { .. })),
                "byte {at}"
            );
        }
    }
    // A byte missing in the middle: the parts no longer fill the file.
    let mut shorter = good;
    shorter.remove(20);
    fs::write(bench.path("bad"), shorter).unwrap();
    assert!(matches!(
        payload(&bench.path("bad")),
        Err(Error::Payload { .. })
    ));
}

#[test]
fn only_a_program_becomes_the_beginning() {
    let bench = Bench::new();
    assert!(matches!(bench.build("envelope"), Err(Error::Stub { .. })));
    bench.build("stub").unwrap();
    assert!(matches!(bench.build("service"), Err(Error::Stub { .. })));
    assert!(matches!(bench.build("missing"), Err(Error::Io { .. })));
}

#[test]
fn a_damaged_envelope_is_not_built_in() {
    let bench = Bench::new();
    let mut bytes = fs::read(bench.path("envelope")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(bench.path("envelope"), bytes).unwrap();
    assert!(matches!(bench.build("stub"), Err(Error::Runtime(_))));
    assert!(!bench.path("service").exists());
}

#[test]
fn only_a_file_is_replaced() {
    let bench = Bench::new();
    fs::create_dir(bench.path("service")).unwrap();
    assert!(matches!(
        bench.build("stub"),
        Err(Error::NotAProgram { .. })
    ));
}

#[test]
fn nothing_half_written_is_left() {
    let bench = Bench::new();
    fs::write(bench.path("service"), b"before").unwrap();
    fs::remove_file(bench.path("envelope")).unwrap();
    assert!(bench.build("stub").is_err());
    assert_eq!(fs::read(bench.path("service")).unwrap(), b"before");
    let files = fs::read_dir(bench.folder.path()).unwrap().count();
    assert_eq!(files, 2, "only the stub and what was there before");
}
