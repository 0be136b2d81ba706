//! `dump`: the content of a disk as hexadecimal numbers and characters.

mod lines;

use crate::command_line;
use anyhow::{Context, Result, bail};
use clap::{CommandFactory, Parser};
use client::{Connector, RemoteDisk};
use disk::{Disk, Extents, Kind, Piece, Range};
use lines::Lines;
use std::{
    ffi::OsString,
    io::{self, BufWriter, IsTerminal, Write},
    process::ExitCode,
};

/// Read so many bytes at once.
const STEP: u64 = 1 << 20;
/// Extents asked for at once.
const LIMIT: usize = 4096;

/// Show the content of a disk over NBD as hexadecimal numbers and characters.
#[derive(Parser, Debug)]
#[command(
    name = "dump",
    infer_long_args = true,
    args_override_self = true,
    disable_version_flag = true,
    bin_name = "diskpipe dump",
    after_help = "SERVER is NBD-URI | [ COMMAND ARGUMENT... ]"
)]
struct Options {
    /// Use colours, even when the output is no terminal.
    #[arg(long, aliases = ["colors", "colour", "colours"], overrides_with = "no_color")]
    color: bool,

    /// Use no colours.
    #[arg(long, aliases = ["no-colors", "no-colour", "no-colours"], overrides_with = "color")]
    no_color: bool,

    /// Stop after so many bytes, such as 512, 64K or 1M.
    #[arg(short = 'n', long, alias = "limit", value_name = "SIZE", value_parser = command_line::size)]
    length: Option<u64>,

    /// Begin at this byte of the disk.
    #[arg(long, value_name = "OFFSET", default_value = "0", value_parser = command_line::size)]
    offset: u64,

    /// The server.
    #[arg(value_name = "SERVER")]
    server: OsString,
}

/// The options, for manual pages and completions.
pub fn command() -> clap::Command {
    Options::command()
}

/// Runs the tool. The first argument is the name that it was started under.
pub fn main(args: Vec<OsString>) -> ExitCode {
    command_line::run(args, "diskpipe dump", command(), |invocation, options: Options| {
        let colours = options.color || (!options.no_color && io::stdout().is_terminal());
        let mut connector = invocation.word(options.server).connector()?;
        connector.options.extended_headers = true;
        dump(&connector, options.offset, options.length.unwrap_or(u64::MAX), colours)?;
        Ok(ExitCode::SUCCESS)
    })
}

fn dump(connector: &Connector, offset: u64, length: u64, colours: bool) -> Result<()> {
    let disk = connector.open()?;
    if offset > disk.size() {
        bail!("--offset={offset} is behind the end of the disk, which has {} bytes", disk.size());
    }
    let range = Range::new(offset, length.min(disk.size() - offset));
    let mut lines = Lines::new(BufWriter::new(io::stdout().lock()), offset, colours);
    let shown = show(&disk, range, &mut lines);
    // What was read before an error is shown. The last line of the disk is so even where it is cut short.
    let whole = offset.saturating_add(range.len.next_multiple_of(lines::WIDTH as u64)) >= disk.size();
    lines.end(whole).context("writing to standard output")?;
    shown?;
    reactor::block_on(disk.disconnect())?;
    Ok(())
}

fn show<W: Write>(disk: &RemoteDisk, range: Range, lines: &mut Lines<W>) -> Result<()> {
    let mut mapped = disk.facts().extents;
    // Asked in whole blocks; of the first and the last, only what is in the range is shown.
    let block = u64::from(disk.facts().blocks.minimum).max(1);
    let whole = range.whole_blocks(block, disk.size());
    let mut at = whole.start;
    while at < range.end() {
        let rest = Range::new(at, whole.end() - at);
        let extents = if mapped { disk.extents(rest, LIMIT).wait() } else { Ok(Extents::new()) };
        let extents = match extents {
            Ok(extents) if !extents.is_empty() => extents,
            // A disk that cannot say what it holds is read.
            _ => {
                mapped = false;
                Extents::one(rest.len, Kind::DATA)
            }
        };
        for (part, kind) in extents.ranges(at) {
            match part.intersect(range) {
                None => {}
                Some(shown) if kind.zero => lines.zeroes(shown.len).context("writing to standard output")?,
                Some(shown) => show_data(disk, part, shown, lines)?,
            }
        }
        at += extents.covered();
    }
    Ok(())
}

/// Shows a part of what is read.
fn show_data<W: Write>(disk: &RemoteDisk, read: Range, shown: Range, lines: &mut Lines<W>) -> Result<()> {
    for step in read.split_at_multiples(STEP) {
        let Some(counts) = step.intersect(shown) else { continue };
        let data = disk.read(step).wait().with_context(|| format!("reading at {}", step.start))?;
        let data = data.slice(counts.start - step.start, counts.len);
        for piece in data.pieces() {
            let shown = match piece {
                Piece::Zeroes(count) => lines.zeroes(count),
                Piece::Bytes(bytes) => lines.bytes(bytes),
                Piece::Lent(_) => {
                    let mut bytes = Vec::new();
                    piece.append_to(&mut bytes);
                    lines.bytes(&bytes)
                }
            };
            shown.context("writing to standard output")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_to_show_has_many_spellings() {
        let parse = |args: &[&str]| Options::try_parse_from([&["dump"], args].concat()).ok();
        for length in [&["-n", "1K", "x"][..], &["--length=1K", "x"], &["x", "--limit", "1K"], &["-n1K", "x"]]
        {
            assert_eq!(parse(length).unwrap().length, Some(1024));
        }
        assert_eq!(parse(&["--offset=512", "x"]).unwrap().offset, 512);
        assert!(parse(&["--colours", "x"]).unwrap().color);
        assert!(parse(&[]).is_none() && parse(&["x", "y"]).is_none());
    }
}
