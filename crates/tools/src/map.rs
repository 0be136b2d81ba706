//! `map`: a picture of what a disk says of itself; or of two disks, and where they differ.

use crate::{
    command_line::{self, Invocation},
    diff::compare::Side,
    picture::{self, Picture},
    walk::{self, Walk},
};
use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};
use client::proto::meta_context::{BASE_ALLOCATION, describe};
use disk::{Kind, Range};
use std::{
    ffi::OsString,
    io::{self, BufWriter, IsTerminal, Write},
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

    /// Write the parts of one disk as JSON, instead of drawing them.
    #[arg(long, conflicts_with_all = ["svg", "width"])]
    json: bool,

    /// Draw into this file, as SVG, instead of in the terminal.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// Draw on so many columns. Otherwise as many as the terminal has, or 77.
    #[arg(long, value_name = "COLUMNS", value_parser = clap::value_parser!(u64).range(20..=10_000))]
    width: Option<u64>,

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
    if options.json && options.disks.len() > 1 {
        return Ok(invocation.usage("--json goes with one disk; where two differ is told by diff --json"));
    }
    let words: Vec<_> = options.disks.iter().map(|disk| invocation.word(disk.clone())).collect();
    let names = walk::names(&words);
    let disks = words.iter().map(walk::open).collect::<Result<Vec<_>>>()?;
    let side = |n: usize| Side { disk: &*disks[n].1, name: &names[n] };
    if options.json {
        return list(&side(0));
    }
    let columns = options.width.unwrap_or_else(picture::columns);
    let (picture, failure) = match disks.len() {
        1 => (Picture::of(&side(0), columns)?, None),
        _ => {
            let (picture, outcome) = Picture::beside(&side(0), &side(1), BLOCK, columns)?;
            (picture, outcome.failure)
        }
    };
    if let Some(file) = &options.svg {
        std::fs::write(file, picture.svg()).with_context(|| file.display().to_string())?;
    } else {
        let colours = options.color || (!options.no_color && io::stdout().is_terminal());
        command_line::print(&picture.text(colours))?;
    }
    Ok(failure.map_or(ExitCode::SUCCESS, |why| invocation.failed(&why)))
}

/// Writes the parts of a disk, neighbours of one kind joined, as `info --map --json` does.
fn list(side: &Side<'_>) -> Result<ExitCode> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut write = |text: &str| out.write_all(text.as_bytes()).context("writing to standard output");
    let mut walk = Walk::new(side.disk, side.name);
    let size = side.disk.facts().size;
    let mut part: Option<(Range, Kind)> = None;
    let mut before = "[\n";
    let mut at = 0;
    while at < size {
        let (range, kind) = walk.at(at)?;
        at = range.end();
        match &mut part {
            Some((last, same)) if *same == kind => last.len += range.len,
            other => {
                if let Some((range, kind)) = other.replace((range, kind)) {
                    write(&format!("{before}{}", item(range, kind)))?;
                    before = ",\n";
                }
            }
        }
    }
    match part {
        Some((range, kind)) => write(&format!("{before}{}\n]\n", item(range, kind)))?,
        None => write("[]\n")?,
    }
    out.flush().context("writing to standard output")?;
    Ok(ExitCode::SUCCESS)
}

fn item(Range { start, len }: Range, kind: Kind) -> String {
    let value = walk::state(kind);
    let words = describe(BASE_ALLOCATION, value).unwrap_or_default();
    format!("{{ \"offset\": {start}, \"length\": {len}, \"type\": {value}, \"description\": \"{words}\" }}")
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
