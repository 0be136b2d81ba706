//! The command line of `copy`.

use crate::{command_line, copy::hash::Way};
use clap::{ArgAction, Parser};
use std::{
    ffi::OsString,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};

/// Copy to and from NBD servers, files, devices and pipes.
#[derive(Parser, Debug)]
#[command(
    name = "copy",
    infer_long_args = true,
    args_override_self = true,
    disable_version_flag = true,
    bin_name = "diskpipe copy",
    after_help = "SOURCE and DESTINATION are - | FILE | DEVICE | NBD-URI | [ COMMAND ARGUMENT... ]; \
                  DESTINATION may also be null:"
)]
pub(crate) struct Options {
    /// Keep the space of zeroes allocated at the destination, instead of making holes.
    #[arg(long)]
    pub(crate) allocated: bool,

    /// Print the hash of the disk, computed block by block while it is copied: md5, sha1, sha224, sha256 (the default),
    /// sha384, sha512 or sha512-256, of blocks of SIZE (64K).
    #[arg(long, value_name = "ALGORITHM/SIZE", num_args = 0..=1, require_equals = true, value_parser = Way::parse)]
    pub(crate) blkhash: Option<Option<Way>>,

    /// Write that hash into this file instead.
    #[arg(long, value_name = "FILE")]
    pub(crate) blkhash_file: Option<PathBuf>,

    /// Copy only what has changed since this manifest was written, onto a copy of what the source was then.
    #[arg(long, value_name = "MANIFEST", conflicts_with_all = ["incremental", "check", "checkpoint", "destination_is_zero"])]
    pub(crate) changed_since: Option<PathBuf>,

    /// Make sure that the source is what this manifest says.
    #[arg(long, value_name = "MANIFEST")]
    pub(crate) check: Option<PathBuf>,

    /// Note in this file what is copied and safe, and go on from there if it exists. It is removed when all is done.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["blkhash", "blkhash_file", "manifest", "check"])]
    pub(crate) checkpoint: Option<PathBuf>,

    /// How often to note it: the destination is flushed each time.
    #[arg(long, value_name = "TIME", default_value = "5", value_parser = command_line::delay)]
    pub(crate) checkpoint_interval: Duration,

    /// Go on from the checkpoint even if the source cannot be proved to be the same.
    #[arg(long, requires = "checkpoint")]
    pub(crate) assume_same_source: bool,

    /// Use up to N connections to each server that allows several.
    #[arg(short = 'C', long, value_name = "N", value_parser = command_line::count)]
    pub(crate) connections: Option<NonZeroUsize>,

    /// The destination reads as zeroes already: do not write those of the source.
    #[arg(long, visible_alias = "target-is-zero")]
    pub(crate) destination_is_zero: bool,

    /// Make everything stable at the destination before exiting: the default.
    #[arg(long, overrides_with = "no_flush")]
    pub(crate) flush: bool,

    /// Copy only what this metadata context of the source says has changed, such as qemu:dirty-bitmap:NAME (or only NAME), onto
    /// a copy of what the source was before.
    #[arg(long, value_name = "CONTEXT", conflicts_with_all = ["blkhash", "blkhash_file", "manifest", "check", "destination_is_zero"])]
    pub(crate) incremental: Option<String>,

    /// Write the digest of each block into this file, for --check and --changed-since.
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,

    /// Read all of the source, whatever its server says of holes.
    #[arg(long)]
    pub(crate) no_extents: bool,

    /// Be done when the destination has taken everything, even if it has not made it stable.
    #[arg(long, overrides_with = "flush", conflicts_with_all = ["checkpoint", "retry"])]
    pub(crate) no_flush: bool,

    /// Show a progress bar; with =FD (or fd:FD) write lines such as 50/100 to that file descriptor. With bar, percent, json,
    /// percent:FD or json:FD also tell the rate and the time left.
    #[arg(short, long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub(crate) progress: Option<String>,

    /// At most so many bytes of data in flight per connection.
    #[arg(long, value_name = "BYTES", value_parser = command_line::size)]
    pub(crate) queue_size: Option<u64>,

    /// Copy no more than so many bytes per second, such as 10M.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) rate: Option<u64>,

    /// The longest read or write, in bytes: a power of 2 from 4096 to 33554432.
    #[arg(long, value_name = "BYTES", default_value = "262144", value_parser = request_size)]
    pub(crate) request_size: u64,

    /// At most so many requests in flight per connection.
    #[arg(short = 'R', long, value_name = "N", value_parser = command_line::count)]
    pub(crate) requests: Option<NonZeroUsize>,

    /// Connect again to a server (of a URI) that goes away, up to N times for each request.
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "10")]
    pub(crate) retry: Option<NonZeroU32>,

    /// Turn blocks of zeroes of so many bytes into holes: a power of 2 of at least 512, or 0 for none.
    /// The default is 4096, or the destination's preferred block size if that is larger.
    #[arg(short = 'S', long, value_name = "BYTES", value_parser = sparse)]
    pub(crate) sparse: Option<u64>,

    /// Say at the end, on standard error, what was done.
    #[arg(long)]
    pub(crate) summary: bool,

    /// One request at a time, in order.
    #[arg(long)]
    pub(crate) synchronous: bool,

    /// Use up to N threads; 0 lets the tool choose.
    #[arg(short = 'T', long, value_name = "N", default_value = "0", value_parser = threads)]
    pub(crate) threads: usize,

    /// Say on standard error what is copied and how.
    #[arg(short, long, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Read everything back when it is written, and compare it with the source.
    #[arg(long)]
    pub(crate) verify: bool,

    /// Where to copy from.
    #[arg(value_name = "SOURCE")]
    pub(crate) source: OsString,

    /// Where to copy to.
    #[arg(value_name = "DESTINATION")]
    pub(crate) destination: OsString,
}

fn rate(text: &str) -> Result<u64, String> {
    match command_line::size(text.strip_suffix("/s").unwrap_or(text))? {
        0 => Err("must be at least one byte per second".into()),
        rate => Ok(rate),
    }
}

fn request_size(text: &str) -> Result<u64, String> {
    match command_line::size(text) {
        Ok(n) if n.is_power_of_two() && (4096..=32 << 20).contains(&n) => Ok(n),
        _ => Err("must be a power of 2 from 4096 to 33554432".into()),
    }
}

fn sparse(text: &str) -> Result<u64, String> {
    match command_line::size(text) {
        Ok(n) if n == 0 || (n.is_power_of_two() && n >= 512) => Ok(n),
        _ => Err("must be a power of 2 of at least 512, or 0".into()),
    }
}

fn threads(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "must be a number, and 0 lets the tool choose".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Option<Options> {
        Options::try_parse_from([&["copy"], args].concat()).ok()
    }

    #[test]
    fn options_stand_anywhere_and_may_be_shortened() {
        let o = parse(&["a", "-pv", "b", "--dest", "--conn=3", "-R", "7", "-S0"]).unwrap();
        assert_eq!(o.progress.as_deref(), Some(""));
        assert_eq!((o.verbose, o.destination_is_zero, o.sparse), (1, true, Some(0)));
        assert_eq!((o.connections, o.requests), (NonZeroUsize::new(3), NonZeroUsize::new(7)));
        assert!(parse(&["a", "b", "--target-is-zero"]).unwrap().destination_is_zero);
        assert_eq!(parse(&["--progress=3", "a", "b"]).unwrap().progress.as_deref(), Some("3"));
        assert_eq!(parse(&["--progress", "a", "b"]).unwrap().source, "a");
    }

    #[test]
    fn what_cannot_go_together_is_refused() {
        let o = parse(&["--retry", "--rate=10M", "--checkpoint=c", "--incremental=b", "a", "b"]).unwrap();
        assert_eq!((o.retry.unwrap().get(), o.rate), (10, Some(10 << 20)));
        assert_eq!(o.checkpoint_interval, Duration::from_secs(5));
        assert_eq!(parse(&["--retry=3", "a", "b"]).unwrap().retry.unwrap().get(), 3);
        let hash = parse(&["--blkhash", "a", "b"]).unwrap().blkhash.unwrap();
        assert_eq!(hash, None);
        assert_eq!(parse(&["--blkhash=md5/4k", "a", "b"]).unwrap().blkhash.flatten().unwrap().block, 4096);
        for bad in [
            &["--checkpoint=c", "--blkhash"][..],
            &["--incremental=b", "--manifest=m"],
            &["--changed-since=m", "--incremental=b"],
            &["--assume-same-source"],
            &["--retry=0"],
            &["--rate=0"],
            &["--blkhash=x"],
        ] {
            assert!(parse(&[bad, &["a", "b"]].concat()).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn the_last_word_about_flushing_counts() {
        assert!(!parse(&["a", "b"]).unwrap().no_flush);
        assert!(!parse(&["--no-flush", "--flush", "a", "b"]).unwrap().no_flush);
        assert!(parse(&["--flush", "--no-flush", "a", "b"]).unwrap().no_flush);
        assert!(parse(&["--no-flush", "--checkpoint=c", "a", "b"]).is_none());
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        for bad in
            ["-C0", "-R0", "-Tx", "--request-size=1000", "--request-size=2048", "--request-size=67108864"]
        {
            assert!(parse(&[bad, "a", "b"]).is_none(), "{bad}");
        }
        let o = parse(&["--queue-size=16M", "--request-size=1M", "-S64k", "a", "b"]).unwrap();
        assert_eq!((o.queue_size, o.request_size, o.sparse), (Some(16 << 20), 1 << 20, Some(64 << 10)));
        for bad in ["-S256", "-S1000", "-S-1", "--progress="] {
            assert!(bad == "--progress=" || parse(&[bad, "a", "b"]).is_none(), "{bad}");
        }
        assert!(parse(&["--req=4", "a", "b"]).is_none(), "ambiguous");
        assert!(parse(&["a"]).is_none());
        assert!(parse(&["a", "b", "c"]).is_none());
    }
}
