//! `info`: what an NBD server offers, as text, JSON, a map or an exit code.
//!
//! `server` asks, the others show. Nothing is written before everything is known, so that what is written is whole.

mod beside;
mod color;
mod content;
mod describe;
pub(crate) mod json;
mod map;
mod options;
mod query;
mod server;

use crate::command_line::{self, Invocation};
use anyhow::{Context, Result, anyhow};
use beside::Beside;
use clap::CommandFactory;
use map::Map;

use options::Options;
use query::Property;
use server::Server;
use std::{
    ffi::OsString,
    io::{self, IsTerminal},
    iter,
    process::ExitCode,
};

/// The options, for manual pages and completions.
pub fn command() -> clap::Command {
    Options::command()
}

/// Runs the tool. The first argument is the name that it was started under.
pub fn main(args: Vec<OsString>) -> ExitCode {
    command_line::run(args, "diskpipe info", command(), |invocation, options: Options| {
        if let Err(why) = options.check() {
            return Ok(invocation.usage(why));
        }
        let Outcome { text, code, remarks, failures } = run(invocation, &options)?;
        command_line::print(&text)?;
        for remark in &remarks {
            invocation.failed(remark);
        }
        for failure in &failures {
            invocation.failed(failure);
        }
        Ok(if failures.is_empty() { ExitCode::from(code) } else { ExitCode::FAILURE })
    })
}

/// What to write, how to end, and what else went wrong.
struct Outcome {
    text: String,
    code: u8,
    /// What is left out of the text, and why; that is no failure.
    remarks: Vec<anyhow::Error>,
    failures: Vec<anyhow::Error>,
}

impl Outcome {
    fn text(text: String) -> Result<Outcome> {
        Ok(Outcome { text, code: 0, remarks: Vec::new(), failures: Vec::new() })
    }
}

fn run(invocation: &Invocation, options: &Options) -> Result<Outcome> {
    let question = match options.can.as_ref().or(options.cannot.as_ref()) {
        Some(name) => {
            let property =
                Property::named(name).with_context(|| format!("“{name}” is no property of an export"))?;
            Some((property, options.can.is_some()))
        }
        None => None,
    };
    let mut server = Server::new(&invocation.word(options.server.clone()))?;
    let colours = options.color || (!options.no_color && io::stdout().is_terminal());
    if let Some((property, wanted)) = question {
        server.connector.options.extended_headers = property == Property::Extended;
        let (speech, export) = server.describe(server.asked(), false)?;
        let code = if property.holds(&speech, &export) == wanted { 0 } else { 2 };
        return Ok(Outcome { code, ..Outcome::text(String::new())? });
    }
    if options.size {
        let (_, export) = server.describe(server.asked(), false)?;
        return Outcome::text(format!("{}\n", export.size));
    }
    if options.uri {
        let (_, export) = server.describe(server.asked(), false)?;
        let uri = export.uri.ok_or_else(|| anyhow!("a server that is started for this has no URI"))?;
        return Outcome::text(uri + "\n");
    }
    if let Some(context) = &options.map {
        let (offset, length) = (options.offset.unwrap_or(0), options.length.unwrap_or(u64::MAX));
        let map = Map::of(&server, context, offset, length)?;
        if !options.with.is_empty() {
            let others = options.with.iter().map(|context| Map::of(&server, context, offset, length));
            let beside = Beside::of(iter::once(Ok(map)).chain(others).collect::<Result<_>>()?);
            return Outcome::text(match (options.totals, options.json) {
                (false, false) => beside.text(colours),
                (false, true) => beside.json(),
                (true, false) => beside.totals_text(colours),
                (true, true) => beside.totals_json(),
            });
        }
        return Outcome::text(match (options.totals, options.json) {
            (false, false) => map.text(colours),
            (false, true) => map.json(),
            (true, false) => map.totals_text(colours),
            (true, true) => map.totals_json(),
        });
    }
    let (speech, mut exports, failures) = if options.list {
        let listing = server.list(options.content)?;
        (listing.speech, listing.exports, listing.failures)
    } else {
        let (speech, export) = server.describe(server.asked(), !options.no_content)?;
        (speech, vec![export], Vec::new())
    };
    let text = match options.json {
        true => describe::json(&speech, &exports),
        false => describe::text(&speech, &exports, colours),
    };
    let remarks = exports.iter_mut().filter_map(|export| export.unread.take()).collect();
    Ok(Outcome { text, code: 0, remarks, failures })
}
