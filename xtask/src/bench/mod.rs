//! `cargo xtask bench`: our server, client and copier beside the installed peers, and beside the least that can be done.
//!
//! Only ratios mean anything, and only within one round: each round measures everybody on a shape of load, in rotating
//! order, and what is printed is the median over the rounds. Server and client share one core when that can be had, so
//! that a figure is one over the processor time that a request costs on both sides; other work on the machine then
//! disturbs least.

mod clients;
mod copy;
mod echo;
mod footprint;
mod load;
mod mounts;
mod servers;
mod table;
mod tls;

use crate::{packages, run as tools};
use anyhow::{Context, Result, bail};
use load::{Ask, SHAPES, Shape};
use net::{Family, Listener};
use servers::{Kind, Server, Store};
use std::{fs::File, path::PathBuf, process::Command, sync::RwLock, time::Duration};
use table::{Column, Row, head, line, short};

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Topic {
    /// Servers over a unix socket, with disks in memory and in files.
    Servers,
    /// The same over TCP.
    Tcp,
    /// Over TLS, with certificates and with shared secrets.
    Tls,
    /// Filters, and structured replies, against a server without.
    Filters,
    /// Client libraries against the leanest client.
    Clients,
    /// One request at a time, by clients that sleep and by ours. For two free cores.
    Polling,
    /// What connections cost in memory.
    Memory,
    /// How long it takes to start.
    Startup,
    /// Copying tools.
    Copy,
    /// A disk as a file.
    Mount,
}

/// How to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What to measure; everything but polling, unless it is said.
    topics: Vec<Topic>,
    /// How often each has its turn on each shape.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How many milliseconds each turn takes.
    #[arg(long, default_value_t = 400)]
    milliseconds: u64,
    /// Only shapes (or copies) whose name contains this.
    #[arg(long, default_value = "")]
    shape: String,
    /// Let the system place server and client on all cores that this command may use: tells whether parallelism helps.
    #[arg(long)]
    free: bool,
    /// This process is the optimised and pinned one.
    #[arg(long, hide = true)]
    measuring: bool,
    /// Serve as the limit does: so much memory, or a file ...
    #[arg(long, hide = true, requires = "at")]
    echo: Option<String>,
    /// ... on this socket or port.
    #[arg(long, hide = true)]
    at: Option<String>,
}

impl Options {
    fn time(&self) -> Duration {
        Duration::from_millis(self.milliseconds)
    }
}

/// Builds everything optimised and measures.
pub(crate) fn run(options: &Options) -> Result<()> {
    if let (Some(image), Some(at)) = (&options.echo, &options.at) {
        return serve_echo(image, at);
    }
    if options.measuring {
        return measure(options);
    }
    let build = ["build", "--release", "--package", "diskpipe", "--package", "xtask"];
    if !tools::watched(tools::cargo(&build), |_| {})?.success() {
        bail!("the build failed");
    }
    let mut words: Vec<String> = vec![];
    // In real time, others on this core wait while we measure; without the right to that, we share it.
    if rustix::process::geteuid().is_root() && packages::is_installed("chrt") {
        words.extend(["chrt", "-r", "1"].map(str::to_owned));
    }
    if let (false, true, Some(core)) = (options.free, packages::is_installed("taskset"), last_core()) {
        words.extend(["taskset".to_owned(), "-c".to_owned(), core.to_string()]);
    }
    words.push(tools::target_dir().join("release/xtask").display().to_string());
    words.push("bench".into());
    words.extend(std::env::args().skip_while(|word| word != "bench").skip(1));
    words.push("--measuring".into());
    let status =
        Command::new(&words[0]).args(&words[1..]).status().context("the measurement does not start")?;
    if status.success() { Ok(()) } else { bail!("the measurement ended with {status}") }
}

/// The last core that we may use: interrupts tend to be handled by the first.
fn last_core() -> Option<usize> {
    let cores = rustix::thread::sched_getaffinity(None).ok()?;
    (0..rustix::thread::CpuSet::MAX_CPU).rev().find(|core| cores.is_set(*core))
}

fn serve_echo(image: &str, at: &str) -> Result<()> {
    let image = match image.strip_suffix('M').map(str::parse::<usize>) {
        Some(Ok(mebibytes)) => echo::Image::Memory(RwLock::new(echo::Pages::new(mebibytes << 20))),
        _ => echo::Image::File(File::options().read(true).write(true).open(image)?),
    };
    let listeners = match at.parse() {
        Ok(port) => Listener::tcp(Some("127.0.0.1"), port, Family::V4)?,
        Err(_) => vec![Listener::unix(&PathBuf::from(at), true)?],
    };
    echo::serve(&listeners, &image)
}

fn measure(options: &Options) -> Result<()> {
    println!("Medians of {} rounds of {} ms.", options.rounds, options.milliseconds);
    let everything = [
        Topic::Servers,
        Topic::Tcp,
        Topic::Tls,
        Topic::Filters,
        Topic::Clients,
        Topic::Memory,
        Topic::Startup,
        Topic::Copy,
        Topic::Mount,
    ];
    let topics = if options.topics.is_empty() { &everything[..] } else { &options.topics };
    for topic in topics {
        match topic {
            Topic::Servers => both_stores(options, false),
            Topic::Tcp => both_stores(options, true),
            Topic::Tls => tls::compare(options)?,
            Topic::Filters => filters(options),
            Topic::Clients => clients::compare(options)?,
            Topic::Polling => clients::polling(options)?,
            Topic::Memory => footprint::memory()?,
            Topic::Startup => footprint::startup(options)?,
            Topic::Copy => copy::compare(options)?,
            Topic::Mount => mounts::compare(options)?,
        }
    }
    Ok(())
}

fn shapes(options: &Options) -> Vec<&'static Shape> {
    SHAPES.iter().filter(|shape| shape.name.contains(&options.shape)).collect()
}

fn both_stores(options: &Options, tcp: bool) {
    let over = if tcp { "TCP" } else { "a unix socket" };
    for (store, title) in [(Store::Memory, "A disk in memory"), (Store::File, "A file on tmpfs")] {
        let mut kinds = vec![Kind::echo(store), Kind::nbdkit(store), Kind::diskpipe(store)];
        if store == Store::File {
            kinds.extend([Kind::qemu_nbd(), Kind::nbd_server()]);
        }
        let running = start(&kinds, tcp);
        let place = |name: &str| running.iter().position(|(kind, _)| kind.name == name);
        let columns = columns(&running, options);
        let mut titles = vec!["", "limit/s"];
        titles.extend(running.iter().skip(1).map(|(kind, _)| kind.name.as_str()));
        titles.push("diskpipe / nbdkit");
        titles.push("diskpipe / qemu-nbd");
        head(&format!("{title}, over {over}; servers as shares of the limit"), titles);
        for (n, shape) in shapes(options).into_iter().enumerate() {
            let row = Row::measure(&columns, n, options.rounds);
            let mut cells = vec![shape.name.to_owned(), short(row.figure(0))];
            cells.extend((1..columns.len()).map(|column| short(row.ratio(column, 0))));
            for peer in ["nbdkit", "qemu-nbd"] {
                let ratio = place("diskpipe").zip(place(peer)).map(|(ours, theirs)| row.ratio(ours, theirs));
                cells.push(short(ratio.unwrap_or(f64::NAN)));
            }
            line(cells);
        }
    }
}

/// Starts those that are installed.
fn start(kinds: &[Kind], tcp: bool) -> Vec<(&Kind, Server)> {
    let (mut running, mut image) = (vec![], None);
    for kind in kinds {
        match Server::beside(kind, tcp, &mut image) {
            Ok(server) => running.push((kind, server)),
            Err(why) => println!("\nSKIPPED: {}: {why:#}", kind.name),
        }
    }
    running
}

fn columns<'a>(running: &'a [(&Kind, Server)], options: &'a Options) -> Vec<Column<'a>> {
    let shapes = shapes(options);
    let column = |(kind, server): &'a (&Kind, Server)| {
        let shapes = shapes.clone();
        let measure = move |n: usize| {
            // It would fill the memory that it lies in.
            server.forget_log()?;
            load::measure(shapes[n], &server.target, options.time())
        };
        Column { name: kind.name.clone(), measure: Box::new(measure) }
    };
    running.iter().map(column).collect()
}

/// What layers cost: ours against ours.
fn filters(options: &Options) {
    let memory =
        |name, filters: &[&str], params: &[&str]| Kind::filtered(name, Store::Memory, filters, params);
    let mut passing: Vec<Kind> = vec![memory("plain", &[], &[]), memory(STRUCTURED, &[], &[])];
    passing.extend(PASSING.iter().map(|name| memory(name, &[name], &[])));
    passing.push(memory("all five", PASSING, &[]));
    layers("Filters that pass requests on, over a disk in memory", &passing, options);
    layers(
        "Filters that look at requests or keep data, all of it written through them first, over a disk in memory",
        &[
            memory("plain", &[], &[]),
            memory("stats", &["stats"], &["statsfile=/dev/null"]),
            memory("log", &["log"], &["logfile=/dev/null"]),
            memory("log to a file", &["log"], &[LOGFILE]),
            memory("cache", &["cache"], &[]),
            memory("cow", &["cow"], &[]),
            memory("log+cow+cache+offset", &["log", "cow", "cache", "offset"], &[LOGFILE]),
        ],
        options,
    );
    let cow = |name| Kind::filtered(name, Store::File, &["cow"], &[]);
    layers(
        "Copy on write, over a file; of the first one, nothing is copied until it is written to",
        &[Kind::filtered("plain", Store::File, &[], &[]), cow("cow"), cow("cow, all copied").filled()],
        options,
    );
}

/// Filters that change nothing about reads and writes but where they lie.
const PASSING: &[&str] = &["nocache", "noextents", "nozero", "fua", "offset"];
/// Beside the server's socket.
const LOGFILE: &str = "logfile=LOG";

const STRUCTURED: &str = "structured replies";

fn layers(title: &str, kinds: &[Kind], options: &Options) {
    let mut running = start(kinds, false);
    for (kind, server) in &mut running {
        server.target.structured = kind.name == STRUCTURED;
    }
    let columns = columns(&running, options);
    let mut titles = vec!["", "plain/s"];
    titles.extend(running.iter().skip(1).map(|(kind, _)| kind.name.as_str()));
    head(&format!("{title}; as shares of the plain server"), titles);
    for (n, shape) in shapes(options).into_iter().enumerate() {
        if matches!(shape.ask, Ask::Read | Ask::Write) {
            let row = Row::measure(&columns, n, options.rounds);
            let shares = (1..columns.len()).map(|column| short(row.ratio(column, 0)));
            line([shape.name.to_owned(), short(row.figure(0))].into_iter().chain(shares));
        }
    }
}
