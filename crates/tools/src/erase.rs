//! `discard` and `zero`: give the space of a disk back, or overwrite it with zeroes; or look whether that is needed.

mod check;

use crate::command_line;
use anyhow::{Context, Result, bail, ensure};
use clap::{CommandFactory, Parser};
use client::{Connector, RemoteDisk};
use disk::{Data, Disk, Range, WriteFlags, ZeroFlags};
use std::{ffi::OsString, io, process::ExitCode};

/// The parts that a disk is done in are at least so long, in bytes; a disk has at most [`PARTS`] of them.
const STEP: u64 = 1 << 30;
const PARTS: u64 = 1 << 10;
/// Read or write so many bytes at once where a disk cannot zero, or cannot say what it holds.
const PIECE: u64 = 1 << 20;
/// Extents asked for at once.
const LIMIT: usize = 4096;

#[derive(Parser, Debug)]
#[command(
    infer_long_args = true,
    args_override_self = true,
    disable_version_flag = true,
    after_help = "SERVER is NBD-URI | [ COMMAND ARGUMENT... ]"
)]
struct Options {
    /// Change nothing: exit with 0 if it is so already (discarded; with --zero, zeroes), with 2 if it is not.
    #[arg(short, long)]
    check: bool,

    /// Zero only if that is faster than writing; else fail, and change nothing.
    #[arg(long)]
    fast_zero: bool,

    /// The part to erase is so long, such as 512, 64K or 1M; without it, up to the end of the disk.
    #[arg(short, long, value_name = "SIZE", value_parser = command_line::size)]
    length: Option<u64>,

    /// The part to erase begins at this byte.
    #[arg(short, long, value_name = "OFFSET", default_value = "0", value_parser = command_line::size)]
    offset: u64,

    /// Say nothing but what went wrong.
    #[arg(short, long)]
    quiet: bool,

    /// Say what is being done.
    #[arg(short, long, conflicts_with = "quiet")]
    verbose: bool,

    /// Do not ask.
    #[arg(short, long)]
    yes: bool,

    /// Overwrite with zeroes that stay allocated, instead of discarding.
    #[arg(short, long)]
    zero: bool,

    /// The server.
    #[arg(value_name = "SERVER")]
    server: OsString,
}

/// The options of `discard`, for manual pages and completions.
pub fn discard() -> clap::Command {
    Options::command()
        .name("discard")
        .about("Give all space of a disk over NBD back")
        .bin_name("diskpipe discard")
}

/// The options of `zero`, for manual pages and completions.
pub fn zero() -> clap::Command {
    Options::command()
        .name("zero")
        .about("Overwrite a disk over NBD with zeroes")
        .bin_name("diskpipe zero")
        .mut_arg("zero", |arg| arg.hide(true))
}

/// Runs `discard`. The first argument is the name that it was started under.
pub fn main_discard(args: Vec<OsString>) -> ExitCode {
    main(args, "diskpipe discard", discard())
}

/// Runs `zero`. The first argument is the name that it was started under.
pub fn main_zero(args: Vec<OsString>) -> ExitCode {
    main(args, "diskpipe zero", zero())
}

fn main(args: Vec<OsString>, name: &str, command: clap::Command) -> ExitCode {
    let zeroes = command.get_name() == "zero";
    command_line::run(args, name, command, |invocation, options: Options| {
        let options = Options { zero: zeroes || options.zero || options.fast_zero, ..options };
        let server = invocation.word(options.server.clone());
        let mut connector = server.connector()?;
        connector.options.extended_headers = true;
        let is_so = run(&options, &connector, &server.to_string())?;
        Ok(if is_so { ExitCode::SUCCESS } else { ExitCode::from(2) })
    })
}

/// Does it, or looks whether it is so.
fn run(options: &Options, connector: &Connector, server: &str) -> Result<bool> {
    let disk = connector.open()?;
    let offset = options.offset;
    let size = disk.size();
    ensure!(offset <= size, "--offset={offset} is behind the end of the disk, which has {size} bytes");
    let length = options.length.unwrap_or(size - offset);
    ensure!(
        length <= size - offset,
        "--length={length} from byte {offset} on reaches behind the end of the disk, which has {size} bytes"
    );
    let range = Range::new(offset, length);
    let say = |what: &str| {
        if options.verbose {
            eprintln!("{what} {length} bytes from byte {offset} on")
        }
    };
    if options.check {
        say("looking at");
        let so = match options.zero {
            true => check::is_zero(&disk, range)?,
            false => check::is_discarded(&disk, range)?,
        };
        if !options.quiet {
            let what = if options.zero { "zero" } else { "sparse" };
            command_line::print(&format!("{server}: {}{what}\n", if so { "" } else { "not " }))?;
        }
        reactor::block_on(disk.disconnect())?;
        return Ok(so);
    }
    can(&disk, range, options)?;
    if range.is_empty() {
        return Ok(true);
    }
    if !options.yes && !agreed(server, range)? {
        bail!("nothing was changed");
    }
    say(if options.zero { "zeroing" } else { "discarding" });
    for step in range.split_at_multiples(STEP.max((size / PARTS).next_power_of_two())) {
        match options.zero {
            true => zero_part(&disk, step, options.fast_zero),
            false => disk.trim(step, WriteFlags::default()).wait().map_err(Into::into),
        }
        .with_context(|| format!("at {}", step.start))?;
    }
    if disk.facts().flush {
        disk.flush().wait().context("flushing")?;
    }
    reactor::block_on(disk.disconnect())?;
    Ok(true)
}

/// Whether the server offers what is asked for.
fn can(disk: &RemoteDisk, range: Range, options: &Options) -> Result<()> {
    let facts = disk.facts();
    ensure!(facts.write, "the export is read-only");
    ensure!(options.zero || facts.trim, "the server does not offer to discard");
    ensure!(!options.fast_zero || facts.fast_zero, "the server does not offer fast zeroes");
    let minimum = u64::from(facts.blocks.minimum);
    for (name, value) in [("offset", range.start), ("length", range.len)] {
        // The disk itself may end within a block.
        ensure!(
            value % minimum == 0 || name == "length" && range.end() == disk.size(),
            "the {name} {value} is no multiple of the server's smallest block, {minimum} bytes"
        );
    }
    Ok(())
}

/// Asks the user.
fn agreed(server: &str, range: Range) -> Result<bool> {
    let (first, last) = (range.start, range.end() - 1);
    command_line::print(&format!("ERASE FOR EVER all that is on {server}, bytes {first} to {last} (y/N)? "))?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("reading the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn zero_part(disk: &RemoteDisk, range: Range, fast: bool) -> Result<()> {
    if disk.facts().zero {
        let flags = ZeroFlags { may_trim: false, fast, ..ZeroFlags::default() };
        return Ok(disk.zero(range, flags).wait()?);
    }
    let zeroes = vec![0; PIECE as usize];
    for piece in range.split_at_multiples(PIECE) {
        let data = Data::copy_from(&zeroes[..piece.len as usize]);
        disk.write(piece.start, data, WriteFlags::default()).wait()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::FromArgMatches;

    #[test]
    fn both_tools_take_the_same_options() {
        for command in [discard(), zero()] {
            let words = ["x", "-cqy", "-o", "512", "--length=1M", "--fast-zero", "-z", "nbd://x"];
            let options = Options::from_arg_matches(&command.try_get_matches_from(words).unwrap()).unwrap();
            assert!(options.check && options.quiet && options.yes && options.fast_zero && options.zero);
            assert_eq!((options.offset, options.length), (512, Some(1 << 20)));
        }
        assert!(Options::try_parse_from(["x", "-q", "-v", "nbd://x"]).is_err());
        assert!(Options::try_parse_from(["x"]).is_err());
    }
}
