//! `info`.
use std::{ffi::OsString, process::ExitCode};
/// x
pub fn command() -> clap::Command {
    clap::Command::new("info")
}
/// x
pub fn main(_: Vec<OsString>) -> ExitCode {
    ExitCode::FAILURE
}
