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
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tracing_subscriber::fmt::MakeWriter;

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
    let (started, warnings) = heard(|| {
        stack.start(arguments, &|_, _, backend| {
            made.borrow_mut().push(backend.clone());
            backend
        })
    });
    let made = made.into_inner();
    let client = Client { export, read_only, looks: true, ..Client::default() };
    let (opened, said): (Vec<Result<Seen, String>>, Vec<Vec<String>>) =
        made.iter().map(|backend| heard(|| see(&**backend, &client))).unzip();

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
        // What the layers below say, they say again.
        let before = depth.checked_sub(1).and_then(|below| said.get(below));
        let new = |line: &&String| !before.is_some_and(|before| before.contains(line));
        for line in said.get(depth).into_iter().flatten().filter(new) {
            let _ = writeln!(text, "    warning: {line}");
        }
        layers.push(text);
    }
    let mut text = layers.join("\n");
    if let (Ok(_), Some(Ok(seen))) = (&started, opened.last()) {
        text += &clients_see(&client, seen);
        text += &with_tls(&client, seen, made.last().map(|backend| &**backend));
    }
    for line in warnings {
        let _ = writeln!(text, "warning: {line}");
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
            ([], Some(default)) => format!("{} (the default)", one_line(default)),
            ([], None) if param.required => "missing, and required".to_owned(),
            ([], None) => "not given".to_owned(),
            _ if matches!(param.kind, Kind::Secret) => "(a secret)".to_owned(),
            (values, _) if param.repeatable => values.join(", "),
            // The last one counts.
            ([.., last], _) => (*last).to_owned(),
        };
        let _ = writeln!(text, "    {:width$} = {}", param.key, one_line(&value));
    }
    text
}

/// A text of several lines as one.
fn one_line(text: &str) -> String {
    text.trim_end_matches('\n').replace('\n', "\\n")
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

/// What clients are told that use TLS, where that is something else.
fn with_tls(client: &Client<'_>, without: &Seen, backend: Option<&dyn Backend>) -> String {
    let client = Client { tls: true, ..client.clone() };
    match backend.map(|backend| heard(|| see(backend, &client)).0) {
        Some(Ok(seen))
            if seen.facts.size != without.facts.size
                || abilities(&seen.facts) != abilities(&without.facts) =>
        {
            let (size, abilities) = (size(seen.facts.size), join(&abilities(&seen.facts)));
            format!("that is without TLS; with TLS, clients get {size}; can: {abilities}\n")
        }
        _ => String::new(),
    }
}

/// Calls, and hears of what would be a warning in a server's log.
fn heard<T>(call: impl FnOnce() -> T) -> (T, Vec<String>) {
    let heard = Heard::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(heard.clone())
        .without_time()
        .with_level(false)
        .with_target(false)
        .with_ansi(false)
        .finish();
    let outcome = tracing::subscriber::with_default(subscriber, call);
    let bytes = std::mem::take(&mut *heard.0.lock().unwrap_or_else(PoisonError::into_inner));
    let text = String::from_utf8_lossy(&bytes);
    (outcome, text.lines().map(|line| line.trim().to_owned()).collect())
}

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl io::Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Heard {
    type Writer = Heard;
    fn make_writer(&self) -> Heard {
        self.clone()
    }
}

/// What a list shows.
fn exports(backend: &dyn Backend, read_only: bool) -> String {
    let mut text = String::new();
    match backend.exports(&Client { read_only, looks: true, ..Client::default() }).wait() {
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

    fn told(line: &[&str]) -> String {
        let options = ServeOptions::parse(line).unwrap();
        let stack = Stack::find(&options).unwrap();
        explain(&stack, &options.arguments, "", false).0.text
    }

    #[test]
    fn every_filter_that_lowers_what_a_disk_can_do_is_found_out() {
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

    /// What filters cannot do without, and what they are told here so that they do something.
    const GIVEN: &[(&str, &[&str])] = &[
        ("cbt", &["cbt-file=FILE", "cbt-name=a"]),
        ("ddrescue", &["ddrescue-mapfile=MAP"]),
        ("extentlist", &["extentlist=LIST"]),
        ("log", &["logfile=FILE"]),
        ("map", &["map=0-511:512", "map=512-1023:0"]),
        ("multi-conn", &["multi-conn-mode=disable"]),
        ("partition", &["partition=1"]),
        ("pause", &["pause-control=FILE"]),
        ("prefetch", &["prefetch-file=TRACE"]),
        ("protect", &["protect=0-511"]),
        ("stats", &["statsfile=FILE"]),
        ("trace", &["trace-file=FILE"]),
        ("truncate", &["truncate=512K"]),
        ("xor", &["xor=1", "xorlen=1"]),
    ];

    #[test]
    fn no_filter_takes_anything_away_without_a_word_and_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
        put("MAP", b"0 + 1\n0 0x100000 +\n");
        put("LIST", b"0 64K\n");
        // Of a disk of 1 MiB, of which nothing was read; with its checksum.
        let head = [&b"DPTRACE\x01"[..], &(1u64 << 20).to_le_bytes(), &[0, 0], &0x6f5a800bu32.to_le_bytes()];
        put("TRACE", &head.concat());
        let mut plain = vec![0; 1 << 20];
        plain[446 + 4] = 0x83;
        plain[446 + 8..446 + 16].copy_from_slice(&[1, 0, 0, 0, 100, 0, 0, 0]);
        plain[510..512].copy_from_slice(&[0x55, 0xaa]);
        put("DISK", &plain);
        let there = || std::fs::read_dir(dir.path()).unwrap().count();
        let before = there();
        for plugin in [["memory", "1M"], ["null", "1M"], ["file", "DISK"]] {
            for filter in filters::FILTERS.iter().map(|filter| filter.about.name) {
                let given =
                    GIVEN.iter().find(|(name, _)| *name == filter).map_or(&[][..], |(_, given)| given);
                if filter == "partition" && plugin[0] != "file" {
                    continue;
                }
                let place = |word: &str| {
                    ["FILE", "MAP", "LIST", "TRACE", "DISK"].iter().fold(word.to_owned(), |word, name| {
                        word.replace(name, &dir.path().join(name).display().to_string())
                    })
                };
                let words: Vec<String> = [format!("--filter={filter}")]
                    .into_iter()
                    .chain(plugin.iter().chain(given).map(|word| place(word)))
                    .collect();
                let line: Vec<&str> = words.iter().map(String::as_str).collect();
                let options = ServeOptions::parse(&line).unwrap();
                let stack = Stack::find(&options).unwrap();
                let Explained { text, served } = explain(&stack, &options.arguments, "", false).0;
                assert!(served, "{filter}: {text}");
                let made: RefCell<Vec<Arc<dyn Backend>>> = RefCell::default();
                let keep = |backend: Arc<dyn Backend>| {
                    made.borrow_mut().push(backend.clone());
                    backend
                };
                stack.start(&options.arguments, &|_, _, backend| keep(backend)).unwrap();
                let made = made.into_inner();
                let [below, above] = &made[..] else { panic!("a plugin and a filter") };
                let client = Client { looks: true, ..Client::local("") };
                let facts = |backend: &dyn Backend| backend.open(&client).wait().unwrap().facts().clone();
                let (old, new) = (facts(&**below), facts(&**above));
                let own = text.split("\n\n").next().unwrap();
                for lost in abilities(&old).iter().filter(|ability| !abilities(&new).contains(ability)) {
                    let line = own.lines().find(|line| line.contains("takes away: ")).unwrap_or_default();
                    let words = line.split_once(": ").map_or("", |(_, words)| words);
                    assert!(words.split(", ").any(|word| word == lost), "{filter} loses {lost}: {text}");
                }
                let told = |what: &str| own.contains(what);
                assert_eq!(told("    size: "), old.size != new.size, "{filter}: {text}");
                assert_eq!(told("    blocks: "), old.blocks != new.blocks, "{filter}: {text}");
                assert_eq!(told("makes the disk read-only"), old.write && !new.write, "{filter}: {text}");
                assert_eq!(
                    told("    thread model: "),
                    below.thread_model() != above.thread_model(),
                    "{filter}: {text}"
                );
                assert_eq!(there(), before, "{filter} has made something");
            }
        }
    }

    #[test]
    fn what_a_server_would_warn_of_is_told() {
        let text = told(&["--filter=readahead", "--filter=nocache", "memory", "1M"]);
        let warning =
            "    warning: readahead does nothing: what is below cannot cache; put the filter cache behind";
        assert_eq!(text.matches(warning).count(), 1, "{text}");
        let text = told(&["--filter=tls-fallback", "memory", "1M"]);
        assert!(text.contains("useful data. (the default)\n"), "{text}");
        assert!(
            text.contains("\nthat is without TLS; with TLS, clients get 1048576 bytes (1M); can: write"),
            "{text}"
        );
    }
}
