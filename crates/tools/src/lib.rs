//! The tools: `copy`, `info` and others, each a command line that ends in an exit code.
//!
//! Each has a `main` (its arguments, beginning with the name that it was started under, in; an exit code out), a
//! `command` from which manual pages and completions are made, and a manual.
#![forbid(unsafe_code)]

pub mod cat;
mod command_line;
pub mod copy;
pub mod cp;
pub mod diff;
pub mod dump;
pub mod erase;
pub mod info;
pub mod keygen;
pub mod ls;
pub mod map;
#[cfg(feature = "mount")]
pub mod mount;
pub mod overlay;
mod picture;
pub mod resize;
pub mod shell;
mod size;
mod volume;
mod walk;

use std::{ffi::OsString, process::ExitCode};

/// A tool, as lists of tools show it.
pub struct Tool {
    /// What follows `diskpipe` on the command line.
    pub name: &'static str,
    /// The name under which it behaves as people know it, if there is one.
    pub alias: Option<&'static str>,
    /// Its manual, in Markdown, with a marker where the table of options goes.
    pub manual: &'static str,
    /// Its options.
    pub command: fn() -> clap::Command,
    /// Runs it; the first argument is the name that it was started under.
    pub main: fn(Vec<OsString>) -> ExitCode,
}

/// All tools, sorted.
pub const TOOLS: [Tool; 14 + cfg!(feature = "mount") as usize] = [
    Tool {
        name: "cat",
        alias: None,
        manual: include_str!("cat/cat.md"),
        command: cat::command,
        main: cat::main,
    },
    Tool {
        name: "copy",
        alias: Some("nbdcopy"),
        manual: include_str!("copy/copy.md"),
        command: copy::command,
        main: copy::main,
    },
    Tool { name: "cp", alias: None, manual: include_str!("cp/cp.md"), command: cp::command, main: cp::main },
    Tool {
        name: "diff",
        alias: None,
        manual: include_str!("diff/diff.md"),
        command: diff::command,
        main: diff::main,
    },
    Tool {
        name: "discard",
        alias: Some("nbddiscard"),
        manual: include_str!("erase/discard.md"),
        command: erase::discard,
        main: erase::main_discard,
    },
    Tool {
        name: "dump",
        alias: Some("nbddump"),
        manual: include_str!("dump/dump.md"),
        command: dump::command,
        main: dump::main,
    },
    Tool {
        name: "info",
        alias: Some("nbdinfo"),
        manual: include_str!("info/info.md"),
        command: info::command,
        main: info::main,
    },
    Tool {
        name: "keygen",
        alias: None,
        manual: include_str!("keygen/keygen.md"),
        command: keygen::command,
        main: keygen::main,
    },
    Tool { name: "ls", alias: None, manual: include_str!("ls/ls.md"), command: ls::command, main: ls::main },
    Tool {
        name: "map",
        alias: None,
        manual: include_str!("map/map.md"),
        command: map::command,
        main: map::main,
    },
    #[cfg(feature = "mount")]
    Tool {
        name: "mount",
        alias: Some("nbdfuse"),
        manual: include_str!("mount/mount.md"),
        command: mount::command,
        main: mount::main,
    },
    Tool {
        name: "overlay",
        alias: None,
        manual: include_str!("overlay/overlay.md"),
        command: overlay::command,
        main: overlay::main,
    },
    Tool {
        name: "resize",
        alias: None,
        manual: include_str!("resize/resize.md"),
        command: resize::command,
        main: resize::main,
    },
    Tool {
        name: "shell",
        alias: Some("nbdsh"),
        manual: include_str!("shell/shell.md"),
        command: shell::command,
        main: shell::main,
    },
    Tool {
        name: "zero",
        alias: Some("nbdzero"),
        manual: include_str!("erase/zero.md"),
        command: erase::zero,
        main: erase::main_zero,
    },
];
