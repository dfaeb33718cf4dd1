//! Any bytes can be opened and verified without a panic, and what is good can be read whole.
#![no_main]

use envelope_format::Envelope;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(envelope) = Envelope::open(bytes.to_vec()) else {
        return;
    };
    if envelope.verify().is_ok() {
        for member in &envelope.manifest().members {
            assert!(envelope.read(&member.name).is_ok());
        }
    }
});
