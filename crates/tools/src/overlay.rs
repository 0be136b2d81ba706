//! `overlay`: what is in the files that the filter `cow` keeps, and what becomes of them.

mod commit;
mod diff;
mod fork;
mod info;

use crate::command_line::{self, Invocation, Word};
use clap::{CommandFactory, Parser, ValueEnum};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Look at the overlays that the filter cow keeps, compare, commit and fork them.
#[derive(Parser, Debug)]
#[command(
    name = "overlay",
    infer_long_args = true,
    args_override_self = true,
    disable_version_flag = true,
    bin_name = "diskpipe overlay",
    override_usage = "diskpipe overlay info [--json] FILE...\n       \
                      diskpipe overlay diff [--json] FILE [OTHER]\n       \
                      diskpipe overlay commit [--force] FILE DISK\n       \
                      diskpipe overlay fork [--freeze] FILE NEW...",
    after_help = "DISK is NBD-URI | FILE | [ COMMAND ARGUMENT... ]"
)]
struct Options {
    /// Commit although the disk is not as it was, or although others may stand on what the overlay stands on.
    #[arg(long)]
    force: bool,

    /// What FILE holds never changes any more: the forks stand on it directly.
    #[arg(long)]
    freeze: bool,

    /// Write JSON.
    #[arg(long)]
    json: bool,

    /// What to do: show what an overlay is, which ranges it changes, write its changes to a disk, or fork it.
    #[arg(value_enum, value_name = "ACTION")]
    action: Action,

    /// The overlay, and what else the action needs.
    #[arg(value_name = "FILE", required = true)]
    words: Vec<OsString>,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Show what an overlay is.
    Info,
    /// Show which ranges of the disk it changes, or in which it differs from another.
    Diff,
    /// Write what it changes to the disk below, and empty it.
    Commit,
    /// Make new overlays that begin with what it holds.
    Fork,
}

/// The options, for manual pages and completions.
pub fn command() -> clap::Command {
    Options::command()
}

/// Runs the tool. The first argument is the name that it was started under.
pub fn main(args: Vec<OsString>) -> ExitCode {
    command_line::run(args, "diskpipe overlay", command(), |invocation, options: Options| {
        if let Some(why) = wrong(&options) {
            return Ok(invocation.usage(why));
        }
        let words = words(invocation, &options);
        let paths: Vec<PathBuf> = options.words.iter().map(PathBuf::from).collect();
        let text = match options.action {
            Action::Info => info::show(&paths, options.json)?,
            Action::Diff => return diff::print(&paths[0], paths.get(1).map(Path::new), options.json),
            Action::Commit => commit::commit(&paths[0], &words[1], options.force)?,
            Action::Fork => fork::fork(&paths[0], &paths[1..], options.freeze)?,
        };
        command_line::print(&text)
    })
}

fn words(invocation: &Invocation, options: &Options) -> Vec<Word> {
    options.words.iter().map(|word| invocation.word(word.clone())).collect()
}

/// What does not go together.
fn wrong(options: &Options) -> Option<&'static str> {
    let count = options.words.len();
    match options.action {
        Action::Diff if count > 2 => Some("diff compares an overlay with nothing, or with one other"),
        Action::Commit if count != 2 => Some("commit needs an overlay and a disk"),
        Action::Fork if count < 2 => Some("fork needs an overlay and the names of new ones"),
        Action::Commit | Action::Fork if options.json => Some("--json is for info and diff"),
        action if options.force && action != Action::Commit => Some("--force is for commit"),
        action if options.freeze && action != Action::Fork => Some("--freeze is for fork"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
