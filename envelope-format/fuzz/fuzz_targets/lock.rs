//! Any bytes can be taken for a lock.
#![no_main]

use envelope_format::Lock;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| drop(Lock::parse(bytes)));
