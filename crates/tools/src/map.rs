//! `map`: a picture of what a disk says of itself; or of two disks, and where they differ.

use crate::{
    command_line::{self, Invocation},
    diff::compare::Side,
    picture::{Picture, Strip},
    walk,
};
use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};
use std::{
    ffi::OsString,
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
};

/// Blocks in which two disks are compared, in bytes.
const BLOCK: u64 = 4096;

/// Draw where a disk has data and holes, or two disks side by side and where they differ.
#[derive(Parser, Debug)]
#[command(
    name = "map",
    infer_long_args = true,
    args_override_self = true,
    disable_version_flag = true,
    bin_name = "diskpipe map",
    after_help = "DISK is NBD-URI | FILE | [ COMMAND ARGUMENT... ]"
)]
struct Options {
    /// Use colours, even when the output is no terminal.
    #[arg(long, alias = "colour", overrides_with = "no_color")]
    color: bool,

    /// Use no colours.
    #[arg(long, alias = "no-colour", overrides_with = "color")]
    no_color: bool,

    /// Draw into this file, as SVG, instead of in the terminal.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// One disk, or two.
    #[arg(value_name = "DISK", required = true, num_args = 1..=2)]
    disks: Vec<OsString>,
}

/// The options, for manual pages and completions.
pub fn command() -> clap::Command {
    Options::command()
}

/// Runs the tool. The first argument is the name that it was started under.
pub fn main(args: Vec<OsString>) -> ExitCode {
    command_line::run(args, "diskpipe map", command(), run)
}

fn run(invocation: &Invocation, options: Options) -> Result<ExitCode> {
    let words: Vec<_> = options.disks.iter().map(|disk| invocation.word(disk.clone())).collect();
    let names: Vec<String> = words.iter().map(ToString::to_string).collect();
    let disks = words.iter().map(walk::open).collect::<Result<Vec<_>>>()?;
    let side = |n: usize| Side { disk: &*disks[n].1, name: &names[n] };
    let picture = match disks.len() {
        1 => Picture::new(vec![Strip::of(side(0).disk, side(0).name)?]),
        _ => Picture::beside(&side(0), &side(1), BLOCK)?.0,
    };
    if let Some(file) = &options.svg {
        std::fs::write(file, picture.svg()).with_context(|| file.display().to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    let colours = options.color || (!options.no_color && io::stdout().is_terminal());
    command_line::print(&picture.text(colours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_disk_is_drawn_or_two() {
        let parse = |args: &[&str]| Options::try_parse_from([&["map"], args].concat()).ok();
        assert_eq!(parse(&["a", "b", "--svg=x"]).unwrap().disks.len(), 2);
        assert_eq!(parse(&["a"]).unwrap().disks.len(), 1);
        assert!(parse(&[]).is_none() && parse(&["a", "b", "c"]).is_none());
    }
}
