use super::elf::Elf;
use super::files::unchecked;
use super::machine::{Glibc, check};
use super::*;
use crate::launch::PROGRAMS;

fn carried() -> Carried {
    Carried {
        digest: Digest::of(b""),
        packed_bytes: 1,
        unpacked_bytes: 2,
        files: 1,
        architecture: std::env::consts::ARCH.into(),
        glibc: "2.2.5".parse().unwrap(),
        of_glibc: vec!["libc.so.6".into(), "libm.so.6".into()],
        libraries: vec![],
        missing: vec![],
        interpreter: CarriedInterpreter {
            version: "3.11.7".into(),
            cache_tag: "cpython-311".into(),
            platform: "linux_x86_64".into(),
            library: None,
        },
    }
}

#[test]
fn versions_are_compared_by_number() {
    let version = |text: &str| text.parse::<GlibcVersion>().unwrap();
    assert!(version("2.9") < version("2.34"));
    assert_eq!(version("2.2.5").to_string(), "2.2");
    assert!("2".parse::<GlibcVersion>().is_err());
    assert!("PRIVATE".parse::<GlibcVersion>().is_err());
}

#[test]
fn what_a_program_asks_for_is_read_from_its_file() {
    for (name, bytes) in PROGRAMS {
        let elf = Elf::of(bytes).unwrap();
        assert!(elf.needed.contains(&"libc.so.6".to_owned()), "{name}");
        assert!(
            elf.asks.iter().max() >= Some(&"2.14".parse().unwrap()),
            "{name}"
        );
        assert!(elf.has.is_empty(), "{name}");
    }
    assert!(Elf::of(b"\x7fELF and so on").is_none());
}

#[test]
fn this_machine_has_what_its_own_programs_ask_for() {
    let glibc = Glibc::here();
    assert!(glibc.is_some());
    check(&carried(), glibc.as_ref()).unwrap();
}

#[test]
fn what_does_not_fit_is_refused() {
    let refused = |change: fn(&mut Carried)| {
        let mut carried = carried();
        change(&mut carried);
        check(&carried, Glibc::here().as_ref()).unwrap_err().code()
    };
    let code = refused(|carried| carried.architecture = "sparc".into());
    assert_eq!(code, "another_architecture");
    let code = refused(|carried| carried.glibc = "2.999".parse().unwrap());
    assert_eq!(code, "older_glibc");
    let code = refused(|carried| carried.of_glibc.push("libm.so.5".into()));
    assert_eq!(code, "missing_library");
}

#[test]
fn compiled_code_is_never_compared_with_a_source_of_another_time() {
    let header = [0xa7, 13, 13, 10, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 99];
    let expected = [0xa7, 13, 13, 10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 99];
    assert_eq!(unchecked(header.to_vec()), expected);
    assert_eq!(unchecked(vec![1, 2]), [1, 2]);
}
