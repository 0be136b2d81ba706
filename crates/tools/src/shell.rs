//! `shell`: Python with the module `nbd` and a handle, interactive or for one line. What is Python of it is in
//! `shell/shell.py`, which the binary carries.

use crate::command_line;
use anyhow::anyhow;
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{self, ExitCode},
};

const PROGRAM: &str = include_str!("shell/shell.py");

/// Tried when the first `python3` of the PATH has no module: that of the system, for which packages install.
const SYSTEM_PYTHON: &str = "/usr/bin/python3";

/// The options, for manual pages and completions.
pub fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    Command::new("shell")
        .about("Talk to NBD servers in Python.")
        .bin_name("diskpipe shell")
        .infer_long_args(true)
        .args_override_self(true)
        .disable_version_flag(true)
        .args([
            flag("base-allocation", "Ask for the metadata context base:allocation when connecting"),
            Arg::new("command")
                .short('c')
                .long("command")
                .value_name("COMMAND")
                .action(ArgAction::Append)
                .allow_hyphen_values(true)
                .help("Run this as Python instead of being interactive; - reads it from standard input"),
            Arg::new("no-handle")
                .short('n')
                .action(ArgAction::SetTrue)
                .conflicts_with_all(["base-allocation", "opt-mode", "uri"])
                .help("Make no handle h"),
            flag("opt-mode", "Stop in the handshake when connecting, for the calls opt_go and so on"),
            Arg::new("uri")
                .short('u')
                .long("uri")
                .value_name("URI")
                .action(ArgAction::Append)
                .help("Connect h to the server of this NBD URI"),
            flag("verbose", "Show what the handle does").short('v'),
        ])
}

/// What was asked, as the pairs of words that the Python side takes.
struct Work(Vec<OsString>);

impl clap::FromArgMatches for Work {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut words = Vec::new();
        for flag in ["base-allocation", "no-handle", "opt-mode", "verbose"] {
            if matches.get_flag(flag) {
                words.push((0, flag, OsString::new()));
            }
        }
        // These work in the order of the command line.
        for key in ["uri", "command"] {
            let at = matches.indices_of(key).into_iter().flatten();
            let values = matches.get_many::<String>(key).into_iter().flatten();
            words.extend(at.zip(values).map(|(at, value)| (at, key, value.into())));
        }
        words.sort_by_key(|(at, ..)| *at);
        Ok(Work(words.into_iter().flat_map(|(_, key, value)| [key.into(), value]).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Work::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Where the module may lie beside the binary.
fn beside(binary: &Path) -> Vec<PathBuf> {
    let Some(directory) = binary.parent() else { return Vec::new() };
    let places = ["python", "../lib/diskpipe/python"].map(|place| directory.join(place));
    places.into_iter().filter(|place| place.join("nbd/__init__.py").is_file()).collect()
}

/// Runs the tool. The first argument is the name that it was started under.
pub fn main(args: Vec<OsString>) -> ExitCode {
    // The peer's are those of Python programs: 2 for a command line that makes no sense, 1 for all else.
    command_line::run_or(2, args, "diskpipe shell", command(), |invocation, Work(mut words)| {
        // As the process was found, also through a link.
        let binary = env::current_exe().and_then(|path| path.canonicalize());
        for place in binary.map(|binary| beside(&binary)).unwrap_or_default() {
            words.extend(["path".into(), place.into()]);
        }
        words.extend(["python".into(), SYSTEM_PYTHON.into()]);
        let mut python = process::Command::new("python3");
        let why = python.args(["-c", PROGRAM, &invocation.name]).args(words).exec();
        let _ = invocation.failed(&match why.kind() {
            std::io::ErrorKind::NotFound => {
                anyhow!("there is no Python 3 here; this installs it: apt-get install python3 python3-libnbd")
            }
            _ => anyhow!("python3: {why}"),
        });
        Ok(ExitCode::FAILURE)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::FromArgMatches;

    fn work(args: &[&str]) -> Option<Vec<String>> {
        let matches = command().try_get_matches_from([&["shell"], args].concat()).ok()?;
        let Work(words) = Work::from_arg_matches(&matches).ok()?;
        Some(words.into_iter().map(|word| word.into_string().unwrap()).collect())
    }

    #[test]
    fn uris_and_commands_keep_their_order() {
        let words = work(&["-c", "a", "--opt", "--uri", "nbd://x", "-c", "-", "--comm=b", "-v"]).unwrap();
        let expected =
            ["opt-mode", "", "verbose", "", "command", "a", "uri", "nbd://x", "command", "-", "command", "b"];
        assert_eq!(words, expected);
        assert_eq!(work(&[]), Some(vec![]));
    }

    #[test]
    fn what_needs_a_handle_does_not_go_without_one() {
        for with in [&["-u", "nbd://x"][..], &["--opt-mode"], &["--base-allocation"]] {
            assert!(work(&[&["-n"], with].concat()).is_none(), "{with:?}");
        }
        assert_eq!(work(&["-n", "-c", "x"]).unwrap(), ["no-handle", "", "command", "x"]);
        assert!(work(&["word"]).is_none());
    }
}
