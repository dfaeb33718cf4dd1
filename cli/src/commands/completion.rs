//! `envelope completion`: a script for a shell.

use clap::CommandFactory as _;

use crate::args::{Command, Completion};
use crate::error::Error;
use crate::wiring::Wiring;

pub(crate) fn completion(wiring: &Wiring, args: &Completion) -> Result<(), Error> {
    let mut script = vec![];
    clap_complete::generate(args.shell, &mut Command::command(), "envelope", &mut script);
    wiring.terminal.print(&String::from_utf8_lossy(&script))
}
