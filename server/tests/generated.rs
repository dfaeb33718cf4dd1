//! The messages of gRPC are generated once and kept, so that nobody needs a generator to build this.

use std::fs;
use std::path::Path;

use prost::Message as _;

const KEPT: &str = "src/protocol/grpc/generated";

/// With `UPDATE_GENERATED=1` in the environment they are written anew.
#[test]
fn the_messages_that_are_kept_are_those_of_the_protocol() {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = tempfile::tempdir().unwrap();
    let proto = crate_folder.join("proto");
    let described = protox::compile(["inference.proto"], [&proto]).unwrap();
    fs::write(made.path().join("inference.bin"), described.encode_to_vec()).unwrap();
    prost_build::Config::new()
        .out_dir(made.path())
        .bytes(["."])
        .compile_fds(described)
        .unwrap();
    for name in ["inference.bin", "inference.rs"] {
        let made = fs::read(made.path().join(name)).unwrap();
        let kept = crate_folder.join(KEPT).join(name);
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            fs::write(&kept, &made).unwrap();
        }
        assert_eq!(fs::read(&kept).unwrap_or_default(), made, "{name}");
    }
}
