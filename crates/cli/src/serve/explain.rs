//! `--explain`: what would be served, layer by layer, and where it is refused.

use super::config::{self, Config};
use super::options::ServeOptions;
use super::stack::Stack;
use anyhow::Result;
use disk::registry::About;
use disk::{Backend, Client, Facts};
use params::{Args, Kind, Param};
use std::cell::RefCell;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

/// An explanation, and whether everything in it could be served.
pub(crate) struct Explained {
    pub(crate) text: String,
    pub(crate) served: bool,
}

/// Explains what the command line names.
pub(crate) fn command_line(options: &ServeOptions, stack: &Stack) -> Explained {
    let (mut explained, backend) = explain(stack, &options.arguments, &options.export, options.read_only);
    if let (true, Some(backend)) = (explained.served, backend) {
        explained.text += &exports(&*backend, options.read_only);
    }
    explained
}

/// Explains every export of a file.
pub(crate) fn file(options: &ServeOptions, file: &Path) -> Result<Explained> {
    let config = Config::read(file)?;
    config::go_to_directory_of(file)?;
    let mut all = Explained { text: String::new(), served: true };
    for (name, export) in config.exports() {
        let one = match export.stack() {
            Ok(stack) => {
                let read_only = options.read_only || export.read_only();
                explain(&stack, &export.arguments(), export.opens(name), read_only).0
            }
            Err(why) => refused(&why),
        };
        let _ = write!(all.text, "{}export {name:?}\n\n", if all.text.is_empty() { "" } else { "\n" });
        all.text += &one.text;
        all.served &= one.served;
    }
    Ok(all)
}

fn refused(why: &str) -> Explained {
    Explained { text: format!("refused: {why}\n"), served: false }
}

/// Also what would be served, if it would.
fn explain(
    stack: &Stack,
    arguments: &[String],
    export: &str,
    read_only: bool,
) -> (Explained, Option<Arc<dyn Backend>>) {
    let shares = match stack.share(arguments) {
        Ok(shares) => shares,
        Err(why) => return (refused(&why), None),
    };
    // Each layer's backend as it is made, the plugin's first.
    let made: RefCell<Vec<Arc<dyn Backend>>> = RefCell::default();
    let started = stack.start(arguments, &|_, _, backend| {
        made.borrow_mut().push(backend.clone());
        backend
    });
    let made = made.into_inner();
    let client = Client { export, read_only, ..Client::default() };
    let opened: Vec<Result<Facts, String>> = made.iter().map(|backend| facts(&**backend, &client)).collect();

    let components: Vec<About> = stack.components().collect();
    let given = shares.filters.iter().chain([&shares.plugin]);
    let mut served = started.is_ok();
    // Outermost first: so they are read, and so they stand on the command line.
    let mut layers = Vec::new();
    for (number, (about, given)) in components.iter().zip(given).enumerate() {
        let depth = components.len() - 1 - number;
        let kind = if depth == 0 { "plugin" } else { "filter" };
        let mut text = format!("{kind} {}: {}\n", about.name, about.summary.trim_end_matches('.'));
        text += &parameters(about.params, given);
        match (opened.get(depth), depth.checked_sub(1).and_then(|below| opened.get(below))) {
            (Some(Ok(facts)), Some(Ok(below))) => text += &changes(below, facts),
            (Some(Ok(facts)), _) => text += &whole(facts),
            (Some(Err(why)), below) => {
                served = false;
                // Told where it arises; the layers above only pass it on.
                if !matches!(below, Some(Err(_))) {
                    let _ = writeln!(text, "    cannot be opened: {why}");
                }
            }
            (None, _) if depth == made.len() => {
                let why = started.as_ref().err().map_or("", String::as_str);
                let _ = writeln!(text, "    refused: {why}");
            }
            (None, _) => text += "    not reached\n",
        }
        layers.push(text);
    }
    let mut text = layers.join("\n");
    if let (Ok(backend), Some(Ok(facts))) = (&started, opened.last()) {
        text += &clients_see(&**backend, &client, facts);
    }
    (Explained { text, served }, started.ok())
}

fn facts(backend: &dyn Backend, client: &Client<'_>) -> Result<Facts, String> {
    let open = || -> disk::Result<Facts> {
        let mut client = client.clone();
        let default = match client.export {
            "" => backend.default_export(&client).wait()?,
            _ => None,
        };
        client.export = default.as_deref().unwrap_or(client.export);
        let disk = backend.open(&client).wait()?;
        let facts = disk.facts().clone();
        disk.close().wait()?;
        Ok(if client.read_only { facts.without_write() } else { facts })
    };
    open().map_err(|error| error.to_string())
}

/// One line per parameter: what was given, or what it is without.
fn parameters(params: &[Param], given: &Args) -> String {
    let shown = params.iter().filter(|param| !param.hidden);
    let width = shown.clone().map(|param| param.key.len()).max().unwrap_or(0);
    let mut text = String::new();
    for param in shown {
        let values: Vec<&str> =
            given.iter().filter(|arg| param.is_called(&arg.key)).map(|arg| arg.value.as_str()).collect();
        let value = match (&values[..], param.default) {
            ([], Some(default)) => format!("{default} (the default)"),
            ([], None) if param.required => "missing, and required".to_owned(),
            ([], None) => "not given".to_owned(),
            _ if matches!(param.kind, Kind::Secret) => "(a secret)".to_owned(),
            (values, _) if param.repeatable => values.join(", "),
            // The last one counts.
            ([.., last], _) => (*last).to_owned(),
        };
        let _ = writeln!(text, "    {:width$} = {value}", param.key);
    }
    text
}

/// What a disk is.
fn whole(facts: &Facts) -> String {
    let mut text = format!("    gives {}\n", size(facts.size));
    let abilities = join(&abilities(facts));
    let _ = writeln!(text, "    can: {}", if abilities.is_empty() { "be read" } else { &abilities });
    let _ = writeln!(text, "    blocks: {}", blocks(facts));
    text
}

/// What a filter makes of the disk below it.
fn changes(below: &Facts, facts: &Facts) -> String {
    let mut text = String::new();
    if below.size != facts.size {
        let _ = writeln!(text, "    size: {} -> {}", size(below.size), size(facts.size));
    }
    if below.blocks != facts.blocks {
        let _ = writeln!(text, "    blocks: {} -> {}", blocks(below), blocks(facts));
    }
    let (before, after) = (abilities(below), abilities(facts));
    let only = |of: &[String], not_in: &[String]| -> Vec<String> {
        of.iter().filter(|ability| !not_in.contains(ability)).cloned().collect()
    };
    for (word, abilities) in [("adds", only(&after, &before)), ("takes away", only(&before, &after))] {
        if !abilities.is_empty() {
            let _ = writeln!(text, "    {word}: {}", join(&abilities));
        }
    }
    if text.is_empty() {
        text.push_str("    changes nothing that clients are told\n");
    }
    text
}

/// What clients are told in the end.
fn clients_see(backend: &dyn Backend, client: &Client<'_>, facts: &Facts) -> String {
    let mut text = format!("\nclients get {}; can: ", size(facts.size));
    let abilities = join(&abilities(facts));
    let _ = writeln!(text, "{}", if abilities.is_empty() { "be read" } else { &abilities });
    let _ = writeln!(text, "blocks: {}", blocks(facts));
    let _ = writeln!(text, "thread model: {}", backend.thread_model());
    if client.read_only {
        text.push_str("read-only, because that was asked for\n");
    }
    text
}

/// What a list shows.
fn exports(backend: &dyn Backend, read_only: bool) -> String {
    let mut text = String::new();
    match backend.exports(&Client { read_only, ..Client::default() }).wait() {
        Ok(exports) => {
            for export in exports {
                let description = export.description.map(|text| format!(": {text}")).unwrap_or_default();
                let _ = writeln!(text, "export {:?}{description}", export.name);
            }
        }
        Err(error) => drop(writeln!(text, "exports cannot be listed: {error}")),
    }
    text
}

fn size(bytes: u64) -> String {
    match params::Size::new(bytes).map(|size| size.to_string()) {
        Some(short) if short != bytes.to_string() => format!("{bytes} bytes ({short})"),
        _ => format!("{bytes} bytes"),
    }
}

fn blocks(facts: &Facts) -> String {
    let blocks = facts.blocks;
    let maximum = match blocks.maximum {
        u32::MAX => "no maximum".to_owned(),
        bytes => format!("at most {bytes}"),
    };
    format!("at least {}, best {}, {maximum}", blocks.minimum, blocks.preferred)
}

fn abilities(facts: &Facts) -> Vec<String> {
    let known = [
        ("write", facts.write),
        ("flush", facts.flush),
        ("fua", facts.fua),
        ("trim", facts.trim),
        ("zero", facts.zero),
        ("fast zero", facts.fast_zero),
        ("cache", facts.cache),
        ("extents", facts.extents),
        ("multi-conn", facts.multi_conn),
        ("rotational", facts.rotational),
    ];
    let has = known.into_iter().filter(|(_, has)| *has).map(|(name, _)| name.to_owned());
    has.chain(facts.contexts.iter().map(|context| format!("context {context}"))).collect()
}

fn join(words: &[String]) -> String {
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use params::{Params, Secret};

    /// For the table.
    #[derive(Params)]
    #[expect(dead_code, reason = "only the table matters")]
    struct Login {
        /// Who.
        user: String,
        /// A secret.
        password: Option<Secret>,
        /// Several.
        host: Vec<String>,
        /// A number.
        #[param(default = "22", alias = "p")]
        port: u16,
    }

    #[test]
    fn parameters_show_what_counts_and_no_secret() {
        let given = [("password", "hunter2"), ("host", "a"), ("host", "b"), ("p", "1"), ("port", "2")];
        let text = parameters(Login::PARAMS, &Args::new(given));
        let expected = "    user     = missing, and required\n    password = (a secret)\n    host     = a, b\n    port     = 2\n";
        assert_eq!(text, expected);
        assert!(parameters(Login::PARAMS, &Args::default()).contains("port     = 22 (the default)"));
    }

    #[test]
    fn a_filter_that_changes_nothing_says_so() {
        let facts = Facts::writable(1 << 20);
        assert_eq!(changes(&facts, &facts), "    changes nothing that clients are told\n");
        let above = Facts { trim: true, multi_conn: false, size: 1000, ..facts.clone() };
        let told = changes(&facts, &above);
        assert_eq!(
            told,
            "    size: 1048576 bytes (1M) -> 1000 bytes\n    adds: trim\n    takes away: multi-conn\n"
        );
    }
}
