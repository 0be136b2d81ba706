//! The command line of `info`.

use crate::command_line;
use clap::{ArgAction, Parser};
use std::ffi::OsString;

/// Show what an NBD server offers.
#[derive(Parser, Debug)]
#[command(
    name = "info",
    infer_long_args = true,
    args_override_self = true,
    disable_version_flag = true,
    bin_name = "diskpipe info",
    after_help = "SERVER is NBD-URI | [ COMMAND ARGUMENT... ]"
)]
pub(crate) struct Options {
    /// Exit with 0 if this is true of the export, with 2 if it is not. PROPERTY is one of cache, connect, df,
    /// extended-headers, fast-zero, flush, fua, multi-conn, open, read, read-only, rotational, structured-reply, tls, trim,
    /// write, zero.
    #[arg(long, visible_aliases = ["is", "has"], value_name = "PROPERTY", overrides_with = "cannot")]
    pub(crate) can: Option<String>,

    /// The opposite of --can.
    #[arg(long, visible_aliases = ["isnt", "hasnt"], value_name = "PROPERTY", overrides_with = "can")]
    pub(crate) cannot: Option<String>,

    /// Use colours, even when the output is no terminal.
    #[arg(long, aliases = ["colors", "colour", "colours"], overrides_with = "no_color")]
    pub(crate) color: bool,

    /// Use no colours.
    #[arg(long, aliases = ["no-colors", "no-colour", "no-colours"], overrides_with = "color")]
    pub(crate) no_color: bool,

    /// Read the beginning of each export and say what it looks like. The default, except with --list.
    #[arg(long, conflicts_with = "no_content")]
    pub(crate) content: bool,

    /// Read nothing of the exports.
    #[arg(long)]
    pub(crate) no_content: bool,

    /// Write JSON.
    #[arg(long)]
    pub(crate) json: bool,

    /// Show all exports of the server, whichever one the URI names.
    #[arg(short = 'L', long)]
    pub(crate) list: bool,

    /// With --map: show no more than so many bytes, such as 512, 64K or 1M.
    #[arg(long, value_name = "SIZE", value_parser = command_line::size)]
    pub(crate) length: Option<u64>,

    /// Show which parts of the export are data and which are holes, or what another metadata context says of them.
    #[arg(long, value_name = "CONTEXT", num_args = 0..=1, require_equals = true, default_missing_value = "base:allocation")]
    pub(crate) map: Option<String>,

    /// With --map: begin at this byte of the export.
    #[arg(long, value_name = "OFFSET", value_parser = command_line::size)]
    pub(crate) offset: Option<u64>,

    /// Show only the size of the export, in bytes.
    #[arg(long)]
    pub(crate) size: bool,

    /// With --map: show how much there is of each kind.
    #[arg(long, alias = "total")]
    pub(crate) totals: bool,

    /// Show only the URI of the export.
    #[arg(long)]
    pub(crate) uri: bool,

    /// With --map: show what this metadata context says beside it. May be given several times.
    #[arg(long, value_name = "CONTEXT", action = ArgAction::Append)]
    pub(crate) with: Vec<String>,

    /// The server.
    #[arg(value_name = "SERVER")]
    pub(crate) server: OsString,
}

impl Options {
    /// Which of the options that exclude each other are there, and whether the others fit them.
    ///
    /// # Errors
    /// A sentence.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let modes =
            [self.list, self.map.is_some(), self.size, self.uri, self.can.is_some() || self.cannot.is_some()];
        if modes.iter().filter(|mode| **mode).count() > 1 {
            return Err("--list, --map, --size, --uri and --can or --is exclude each other");
        }
        if self.totals && self.map.is_none() {
            return Err("--totals goes with --map only");
        }
        if (self.offset.is_some() || self.length.is_some()) && self.map.is_none() {
            return Err("--offset and --length go with --map only");
        }
        if !self.with.is_empty() && self.map.is_none() {
            return Err("--with goes with --map only");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Option<Options> {
        let options = Options::try_parse_from([&["info"], args].concat()).ok()?;
        options.check().ok().map(|()| options)
    }

    #[test]
    fn options_follow_the_server_and_have_many_spellings() {
        assert_eq!(parse(&["nbd://x", "--map"]).unwrap().map.as_deref(), Some("base:allocation"));
        assert_eq!(parse(&["--map=qemu:x", "nbd://x"]).unwrap().map.as_deref(), Some("qemu:x"));
        assert_eq!(parse(&["--map", "nbd://x"]).unwrap().server, "nbd://x");
        assert_eq!(parse(&["--is", "tls", "x"]).unwrap().can.as_deref(), Some("tls"));
        assert_eq!(
            parse(&["--can", "write", "--is=rotational", "x"]).unwrap().can.as_deref(),
            Some("rotational")
        );
        let last = parse(&["--can", "write", "--isnt=rotational", "x"]).unwrap();
        assert_eq!((last.can, last.cannot.as_deref()), (None, Some("rotational")));
        assert!(parse(&["--colours", "x"]).unwrap().color);
        assert!(parse(&["--map", "--total", "x"]).unwrap().totals);
        let part = parse(&["--map", "x", "--offset=1K", "--length", "1M"]).unwrap();
        assert_eq!((part.offset, part.length), (Some(1024), Some(1 << 20)));
        assert_eq!(parse(&["--map", "--with=a", "x", "--with", "b"]).unwrap().with, ["a", "b"]);
    }

    #[test]
    fn what_excludes_each_other_is_refused() {
        for bad in [
            &["--list", "--size", "x"][..],
            &["--can=read", "--map", "x"],
            &["--totals", "x"],
            &["--offset=1K", "x"],
            &["--length=1K", "--size", "x"],
            &["--with=a", "x"],
            &["--content", "--list", "--no-content", "x"],
            &["x", "y"],
            &[],
        ] {
            assert!(parse(bad).is_none(), "{bad:?}");
        }
    }
}
