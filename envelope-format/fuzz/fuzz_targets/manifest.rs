//! Any text can be the manifest of an archive that is right in all else: without the headers that
//! are made for it here, a checksum would hide what is behind it.
#![no_main]

use envelope_format::{Content, Draft, Envelope, Manifest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(bytes) else {
        return;
    };
    let mut draft = Draft::new(manifest.clone());
    for name in [&manifest.environment.lock, &manifest.state.pickle] {
        draft.add(name.clone(), Content::Text(b"lock-version = \"1.0\"\n".to_vec()));
    }
    let mut written = vec![];
    if draft.write(&mut written).is_ok() {
        let envelope = Envelope::open(written).expect("what was written can be opened");
        envelope.verify().expect("what was written is good");
    }
});
