//! `--explain`: what would be served, layer by layer, and where it is refused.

use super::config::{self, Config};
use super::options::ServeOptions;
use super::stack::Stack;
use anyhow::Result;
use disk::registry::About;
use disk::{Backend, Blocks, Client, Facts, ThreadModel};
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
    let opened: Vec<Result<Seen, String>> = made.iter().map(|backend| see(&**backend, &client)).collect();

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
            (Some(Ok(seen)), Some(Ok(below))) => text += &changes(below, seen),
            (Some(Ok(seen)), _) => text += &whole(seen),
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
    if let (Ok(_), Some(Ok(seen))) = (&started, opened.last()) {
        text += &clients_see(&client, seen);
    }
    (Explained { text, served }, started.ok())
}

/// What is seen of a layer from above.
#[derive(Clone)]
struct Seen {
    facts: Facts,
    model: ThreadModel,
    /// The size may change while clients are there.
    resizes: bool,
}

fn see(backend: &dyn Backend, client: &Client<'_>) -> Result<Seen, String> {
    let open = || -> disk::Result<Seen> {
        let mut client = client.clone();
        let default = match client.export {
            "" => backend.default_export(&client).wait()?,
            _ => None,
        };
        client.export = default.as_deref().unwrap_or(client.export);
        let disk = backend.open(&client).wait()?;
        let facts = disk.facts().clone();
        let resizes = disk.resizing().is_some();
        disk.close().wait()?;
        let facts = if client.read_only { facts.without_write() } else { facts };
        Ok(Seen { facts, model: backend.thread_model(), resizes })
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
fn whole(Seen { facts, model, resizes }: &Seen) -> String {
    let mut text =
        format!("    gives {}{}\n", size(facts.size), if *resizes { ", which may change" } else { "" });
    let abilities = join(&abilities(facts));
    let _ = writeln!(text, "    can: {}", if abilities.is_empty() { "be read" } else { &abilities });
    let _ = writeln!(text, "    blocks: {}", blocks(facts.blocks));
    if *model != ThreadModel::Parallel {
        let _ = writeln!(text, "    takes {}", at_once(*model));
    }
    text
}

/// What a filter makes of the disk below it.
fn changes(below: &Seen, above: &Seen) -> String {
    let mut text = String::new();
    let mut say = |line: String| text += &format!("    {line}\n");
    let (old, new) = (&below.facts, &above.facts);
    if old.size != new.size {
        say(format!("size: {} -> {}", size(old.size), size(new.size)));
    }
    if old.blocks != new.blocks {
        say(format!("blocks: {} -> {}", blocks(old.blocks), blocks(new.blocks)));
    }
    if old.told_blocks != new.told_blocks
        && let Some(told) = new.told_blocks
    {
        say(format!("tells clients of blocks: {}; takes others all the same", blocks(told)));
    }
    let (before, after) = (abilities(old), abilities(new));
    let only = |of: &[String], not_in: &[String]| -> Vec<String> {
        of.iter().filter(|ability| !not_in.contains(ability)).cloned().collect()
    };
    match (old.write, new.write) {
        (false, true) => say("makes a read-only disk writable".into()),
        (true, false) => say("makes the disk read-only".into()),
        _ => {}
    }
    for (word, abilities) in [("adds", only(&after, &before)), ("takes away", only(&before, &after))] {
        if !abilities.is_empty() {
            say(format!("{word}: {}", join(&abilities)));
        }
    }
    if below.resizes && !above.resizes {
        say("takes away: a size that follows the disk below".into());
    }
    if above.model != below.model {
        say(format!("thread model: {} -> {} ({})", below.model, above.model, at_once(above.model)));
    }
    if text.is_empty() {
        text.push_str("    changes nothing that clients are told\n");
    }
    text
}

fn at_once(model: ThreadModel) -> &'static str {
    match model {
        ThreadModel::SerializeConnections => "one client at a time",
        ThreadModel::SerializeAllRequests => "one request at a time, whoever asks",
        ThreadModel::SerializeRequests => "one request at a time of each client",
        ThreadModel::Parallel => "many requests at a time",
    }
}

/// What clients are told in the end.
fn clients_see(client: &Client<'_>, Seen { facts, model, .. }: &Seen) -> String {
    let mut text = format!("\nclients get {}; can: ", size(facts.size));
    let abilities = join(&abilities(facts));
    let _ = writeln!(text, "{}", if abilities.is_empty() { "be read" } else { &abilities });
    let _ = writeln!(text, "blocks: {}", blocks(facts.told_blocks.unwrap_or(facts.blocks)));
    let _ = writeln!(text, "thread model: {model}");
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

fn blocks(blocks: Blocks) -> String {
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
    fn a_filter_that_changes_nothing_says_so_and_one_that_does_says_what() {
        let below = Seen { facts: Facts::writable(1 << 20), model: ThreadModel::Parallel, resizes: true };
        assert_eq!(changes(&below, &below), "    changes nothing that clients are told\n");
        let facts = Facts { trim: true, multi_conn: false, size: 1000, ..below.facts.clone() };
        let above = Seen { facts, model: ThreadModel::SerializeRequests, resizes: false };
        assert_eq!(
            changes(&below, &above),
            "    size: 1048576 bytes (1M) -> 1000 bytes\n    adds: trim\n    takes away: multi-conn\n    \
             takes away: a size that follows the disk below\n    \
             thread model: parallel -> serialize_requests (one request at a time of each client)\n"
        );
        let read_only = Seen { facts: Facts::read_only(1 << 20), ..below.clone() };
        assert_eq!(
            changes(&read_only, &below),
            "    makes a read-only disk writable\n    adds: write, flush\n"
        );
    }

    #[test]
    fn every_filter_that_lowers_what_a_disk_can_do_is_found_out() {
        let told = |line: &[&str]| {
            let options = ServeOptions::parse(line).unwrap();
            let stack = Stack::find(&options).unwrap();
            explain(&stack, &options.arguments, "", false).0.text
        };
        for (filter, expected) in [
            ("nozero", "takes away: zero, fast zero"),
            ("noextents", "takes away: extents"),
            ("nocache", "takes away: cache"),
            ("fua", "takes away: fua"),
            ("readonly", "makes the disk read-only"),
            ("noparallel", "thread model: parallel -> serialize_requests"),
        ] {
            let text = told(&[&format!("--filter={filter}"), "memory", "1M"]);
            assert!(text.contains(expected), "{filter}: {text}");
        }
        let policy = told(&["--filter=blocksize-policy", "memory", "1M", "blocksize-preferred=32K"]);
        assert!(policy.contains("tells clients of blocks: at least 1, best 32768"), "{policy}");
        assert!(policy.contains("\nblocks: at least 1, best 32768"), "{policy}");
    }
}
