//! What a service promises when much goes wrong at once: real executables, real workers, real sockets.
//!
//! As tests these are short. `make chaos` and `make swaps` go on for longer and print what they saw.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod chaos;
mod client;
mod frameworks;
mod load;
mod memory;
mod poison;
mod served;
mod stall;
mod swaps;
mod tally;

/// How much is asked for: a variable of the environment, for long runs.
#[expect(
    clippy::disallowed_methods,
    reason = "there is no other way to set up a test"
)]
fn amount(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |amount| amount.parse().unwrap())
}
