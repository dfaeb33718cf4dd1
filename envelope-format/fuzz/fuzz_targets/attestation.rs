//! Any bytes can be taken for an attestation, and nobody is trusted by chance.
#![no_main]

use envelope_format::{Attestation, Trust};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(attestation) = Attestation::parse(bytes) {
        assert_eq!(attestation.to_bytes(), bytes);
        assert!(attestation.check(attestation.digest(), &Trust::default(), 0).is_err());
    }
});
