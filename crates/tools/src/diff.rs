//! `diff`: which ranges of two disks differ.

pub(crate) mod compare;

use crate::{
    command_line::{self, Invocation},
    picture::{self, Outcome, Picture},
    walk,
};
use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};
use compare::{Change, Joined, Side, compare};
use disk::Range;
use std::{
    ffi::OsString,
    io::{self, BufWriter, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

/// Show which ranges of two disks differ.
#[derive(Parser, Debug)]
#[command(
    name = "diff",
    infer_long_args = true,
    args_override_self = true,
    disable_version_flag = true,
    bin_name = "diskpipe diff",
    after_help = "A and B are NBD-URI | FILE | [ COMMAND ARGUMENT... ]"
)]
struct Options {
    /// Compare in blocks of this size: a range that differs is a multiple of it.
    #[arg(long, value_name = "SIZE", default_value = "4K", value_parser = command_line::size)]
    block_size: u64,

    /// Use colours in the picture, even when the output is no terminal.
    #[arg(long, alias = "colour", overrides_with = "no_color")]
    color: bool,

    /// Use no colours.
    #[arg(long, alias = "no-colour", overrides_with = "color")]
    no_color: bool,

    /// Write JSON.
    #[arg(long, conflicts_with_all = ["picture", "quiet"])]
    json: bool,

    /// Draw both disks, and where they differ, instead of listing the differences.
    #[arg(long, conflicts_with = "quiet")]
    picture: bool,

    /// Write nothing, and stop at the first difference: the exit code tells.
    #[arg(short, long)]
    quiet: bool,

    /// Draw the picture into this file, as SVG.
    #[arg(long, value_name = "FILE", conflicts_with = "quiet")]
    svg: Option<PathBuf>,

    /// Show how much there is of each kind of difference, instead of where.
    #[arg(long, conflicts_with_all = ["picture", "quiet"])]
    totals: bool,

    /// The one disk.
    #[arg(value_name = "A")]
    a: OsString,

    /// The other.
    #[arg(value_name = "B")]
    b: OsString,
}

/// The options, for manual pages and completions.
pub fn command() -> clap::Command {
    Options::command()
}

/// The exit code when something went wrong; 1 says that the disks differ.
const TROUBLE: u8 = 2;

/// Runs the tool. The first argument is the name that it was started under.
pub fn main(args: Vec<OsString>) -> ExitCode {
    command_line::run_or(TROUBLE, args, "diskpipe diff", command(), |invocation, options: Options| {
        let block = options.block_size;
        if !block.is_power_of_two() || !(512..=256 << 10).contains(&block) {
            let why = format!("--block-size={block}: not a power of 2 from 512 to 256K");
            return Ok(invocation.usage(&why));
        }
        let Outcome { same, failure } = run(invocation, &options, block)?;
        Ok(match failure {
            // With --quiet one difference says it all.
            Some(why) if same || !options.quiet => invocation.failed(&why),
            _ if same => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        })
    })
}

fn run(invocation: &Invocation, options: &Options, block: u64) -> Result<Outcome> {
    let words = [invocation.word(options.a.clone()), invocation.word(options.b.clone())];
    let (_endpoint_a, a) = walk::open(&words[0])?;
    let (_endpoint_b, b) = walk::open(&words[1])?;
    let names = walk::names(&words);
    let (a, b) = (Side { disk: &*a, name: &names[0] }, Side { disk: &*b, name: &names[1] });
    if options.picture || options.svg.is_some() {
        return draw(options, block, &a, &b);
    }
    let mut out = Lines { out: BufWriter::new(io::stdout().lock()), json: options.json, count: 0 };
    let mut same = true;
    let mut sums = [0; Change::ALL.len()];
    let mut joined = Joined::default();
    let mut written = Ok(());
    let compared = compare(&a, &b, block, &mut |range, change| {
        let differs = change != Change::Unreadable;
        same &= !differs;
        if options.quiet {
            return !differs;
        }
        sums[change as usize] += range.len;
        if let Some((range, change)) = joined.push(range, change).filter(|_| !options.totals) {
            written = out.line(range, change);
        }
        written.is_ok()
    });
    // What was found before an error is shown.
    let last = joined.end().filter(|_| !options.totals);
    let written = written.and_then(|()| last.map_or(Ok(()), |(range, change)| out.line(range, change)));
    if !options.quiet {
        written.and_then(|()| out.end(options, &sums)).context("writing to standard output")?;
    }
    Ok(Outcome { same, failure: compared? })
}

/// Text, or JSON.
struct Lines<W> {
    out: W,
    json: bool,
    /// Written so far.
    count: u64,
}

impl<W: Write> Lines<W> {
    fn line(&mut self, range: Range, change: Change) -> io::Result<()> {
        let (Range { start, len }, word) = (range, change.word());
        self.count += 1;
        match self.json {
            false => writeln!(self.out, "{start:10}  {len:10}  {word}"),
            true => {
                let before = if self.count > 1 { ",\n" } else { "[\n" };
                write!(self.out, "{before}{{ \"offset\": {start}, \"length\": {len}, \"type\": \"{word}\" }}")
            }
        }
    }

    fn end(&mut self, options: &Options, sums: &[u64]) -> io::Result<()> {
        let kinds = || Change::ALL.into_iter().map(Change::word).zip(sums);
        match (options.totals, options.json) {
            (true, false) => {
                for (kind, bytes) in kinds().filter(|(_, bytes)| **bytes > 0) {
                    writeln!(self.out, "{bytes:10}  {kind}")?;
                }
            }
            (true, true) => {
                let kinds: Vec<String> =
                    kinds().map(|(kind, bytes)| format!("\"{kind}\": {bytes}")).collect();
                writeln!(self.out, "{{ {} }}", kinds.join(", "))?;
            }
            (false, true) => self.out.write_all(if self.count > 0 { b"\n]\n" } else { b"[\n]\n" })?,
            (false, false) => {}
        }
        self.out.flush()
    }
}

fn draw(options: &Options, block: u64, a: &Side<'_>, b: &Side<'_>) -> Result<Outcome> {
    let (picture, outcome) = Picture::beside(a, b, block, picture::columns())?;
    if let Some(file) = &options.svg {
        std::fs::write(file, picture.svg()).with_context(|| file.display().to_string())?;
    }
    if options.picture {
        let colours = options.color || (!options.no_color && io::stdout().is_terminal());
        command_line::print(&picture.text(colours))?;
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_show_it_exclude_each_other() {
        let parse = |args: &[&str]| Options::try_parse_from([&["diff"], args].concat()).ok();
        assert!(parse(&["a", "b", "--json"]).unwrap().json);
        assert!(parse(&["--picture", "--svg", "x.svg", "a", "b"]).unwrap().picture);
        for bad in
            [&["a"][..], &["a", "b", "c"], &["-q", "--json", "a", "b"], &["--picture", "--json", "a", "b"]]
        {
            assert!(parse(bad).is_none(), "{bad:?}");
        }
    }
}
