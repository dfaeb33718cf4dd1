//! Any bytes can be taken for a wheel.
#![no_main]

use envelope_format::check_wheel;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| drop(check_wheel("pricing-1.0-py3-none-any.whl", bytes)));
