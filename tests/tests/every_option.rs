//! A row for every option of `serve`, in every spelling, with what it visibly does. An option without a row, ours or
//! nbdkit's, fails; so does a row without an option. What goes deeper stands in `serve_options.rs`, `service.rs` and `tls.rs`.

use e2e::{Run, Server, absent, directory, needs};
use std::collections::BTreeSet;
use std::path::Path;

/// What is to be seen.
enum Seen {
    /// The command prints this, or the program itself where there is no command.
    Prints(&'static str),
    /// As `Prints`, as part of it.
    Shows(&'static str),
    /// This is part of what it complains about, and it works all the same.
    Warns(&'static str),
    /// It stays in the foreground until it is told to end.
    Stays,
    /// Either it works as `Prints`, or this machine refuses with these words.
    PrintsOr(&'static str, &'static str),
}
use Seen::{Prints, PrintsOr, Shows, Stays, Warns};

struct Row {
    /// All spellings.
    names: &'static [&'static str],
    /// The command line: `{}` is the option, `DIR` a directory with keys and a file `exports.toml`.
    line: &'static str,
    /// For `--run`; empty: without.
    command: &'static str,
    seen: Seen,
}

const fn row(names: &'static [&'static str], line: &'static str, command: &'static str, seen: Seen) -> Row {
    Row { names, line, command, seen }
}

const PROTOCOL: &str = "diskpipe info \"$uri\" | head -1";
const SIZE: &str = "diskpipe info --size \"$uri\"";
/// Both addresses of this machine, over TCP.
const FAMILIES: &str = "for host in 127.0.0.1 [::1]; do \
    diskpipe info --size nbd://$host:$port >/dev/null 2>&1 && echo yes || echo no; done";
const READ_ONLY: &str = "diskpipe info --is read-only \"$uri\" && echo read-only";

const ROWS: &[Row] = &[
    row(&["-4", "--ipv4-only"], "{} -p 0 memory 1M", FAMILIES, Prints("yes\nno\n")),
    row(&["-6", "--ipv6-only"], "{} -p 0 memory 1M", FAMILIES, PrintsOr("no\nyes\n", "no such")),
    row(&["--config"], "{} DIR/exports.toml", SIZE, Prints("2097152\n")),
    row(&["-D", "--debug"], "{} memory.x=1 memory 1M", "true", Warns("variable called memory_debug_x")),
    row(&["--dump-config"], "{}", "", Shows("\nversion_major=1\n")),
    row(&["--dump-plugin"], "{} memory", "", Shows("\nthread_model=parallel\n")),
    row(&["--exit-with-parent"], "{} memory 1M", SIZE, Prints("1048576\n")),
    row(&["--explain"], "{} memory 1M", "", Shows("plugin memory")),
    row(
        &["-e", "--exportname", "--export-name", "--export"],
        "{} a memory 1M",
        "echo \"$exportname\"",
        Prints("a\n"),
    ),
    row(&["--filter"], "{}=offset memory 1M offset=512", SIZE, Prints("1048064\n")),
    row(&["-f", "--foreground", "--no-fork"], "{} memory 1M", "", Stays),
    row(
        &["-g", "--group"],
        "{} 12345 memory 1M",
        "diskpipe info \"$uri\" >/dev/null; grep -c ^Gid:.12345 /proc/$PPID/status",
        PrintsOr("1\n", "12345"),
    ),
    row(&["--help"], "{} memory", "", Shows("\n  max-size=SIZE")),
    row(&["-i", "--ipaddr", "--ip-addr"], "{} 127.0.0.1 -p 0 memory 1M", FAMILIES, Prints("yes\nno\n")),
    row(&["--idle-timeout"], "{} 0.1 --log=null memory 1M", SIZE, Prints("1048576\n")),
    row(&["--keepalive"], "{} -p 0 memory 1M", SIZE, Prints("1048576\n")),
    row(&["--log"], "{}=null -D x.y=1 memory 1M", "true", Prints("")),
    row(&["--log-format"], "{}=json -D x.y=1 memory 1M", "true", Warns("\"level\":\"WARN\"")),
    row(&["--long-options"], "{}", "", Shows("\n--verbose\n")),
    row(
        &["--mask-handshake"],
        "{}=0 memory 1M",
        PROTOCOL,
        Prints("protocol: newstyle without TLS, using simple packets\n"),
    ),
    row(&["--metrics"], "{}=DIR/page memory 1M", "test -S DIR/page && echo there", Prints("there\n")),
    row(&["--name"], "{}=a-name -D x.y=1 memory 1M", "true", Warns(": a-name: warning: ")),
    row(
        &["-n", "--newstyle", "--new-style"],
        "-o {} memory 1M",
        PROTOCOL,
        Prints("protocol: newstyle-fixed without TLS, using structured packets\n"),
    ),
    row(
        &["--no-mc", "--no-meta-contexts"],
        "{} memory 1M",
        "diskpipe info --map \"$uri\" 2>&1 | grep hole || echo none",
        Prints("none\n"),
    ),
    row(
        &["--no-sr", "--no-structured-replies"],
        "{} memory 1M",
        PROTOCOL,
        Prints("protocol: newstyle-fixed without TLS, using simple packets\n"),
    ),
    row(
        &["-o", "--oldstyle", "--old-style"],
        "{} memory 1M",
        PROTOCOL,
        Prints("protocol: oldstyle without TLS, using simple packets\n"),
    ),
    row(
        &["-P", "--pidfile", "--pid-file"],
        "{} DIR/pid memory 1M",
        "until test -s DIR/pid; do sleep 0.01; done; test $(cat DIR/pid) = $PPID && echo same",
        Prints("same\n"),
    ),
    row(&["-p", "--port"], "{} 0 memory 1M", "test \"$port\" -gt 0 && echo $?", Prints("0\n")),
    row(&["--print-uri"], "{} memory 1M", "true", Shows("nbd+unix://")),
    row(&["-r", "--readonly", "--read-only"], "{} memory 1M", READ_ONLY, Prints("read-only\n")),
    row(
        &["--resize"],
        "{} memory 1K max-size=1M",
        "diskpipe resize \"$uri\" 4K; diskpipe info --size \"$uri\"",
        Shows("4096\n"),
    ),
    row(&["--run"], "memory 1M {} true", "", Prints("")),
    row(&["--selinux-label"], "{}=a:b:c:s0 memory 1M", SIZE, PrintsOr("1048576\n", "selinux-label")),
    row(&["--short-options"], "{}", "", Shows("\n-U\n")),
    row(&["-s", "--single", "--stdin"], "{} memory 1M", "", Shows("NBDMAGICIHAVEOPT")),
    row(&["--swap"], "{} memory 1M", SIZE, PrintsOr("1048576\n", "--swap: cannot lock the memory")),
    row(&["-t", "--threads"], "{} 1 memory 1M", SIZE, Prints("1048576\n")),
    row(&["--timeout"], "{} 30 memory 1M", SIZE, Prints("1048576\n")),
    row(&["--tls"], "{}=off memory 1M", "echo \"${tls-unset}\"", Prints("unset\n")),
    row(
        &["--tls-certificates"],
        "--tls=require {}=DIR memory 1M",
        PROTOCOL,
        Prints("protocol: newstyle-fixed with TLS, using structured packets\n"),
    ),
    row(
        &["--tls-priority"],
        "-v --tls=require --tls-psk=DIR/keys.psk {}=NORMAL:-VERS-ALL:+VERS-TLS1.2 memory 1M",
        SIZE,
        Warns(": TLSv1.2 with "),
    ),
    row(&["--tls-psk"], "{}=DIR/keys.psk memory 1M", "echo \"$tls\"", Prints("1\n")),
    row(
        &["--tls-verify-peer"],
        "-v --tls=require --tls-certificates=DIR {} memory 1M",
        SIZE,
        Warns(", client CN="),
    ),
    row(&["-U", "--unix"], "{} - memory 1M", "test -S \"$unixsocket\" && echo there", Prints("there\n")),
    row(
        &["-u", "--user"],
        "{} 12345 memory 1M",
        "diskpipe info \"$uri\" >/dev/null; grep -c ^Uid:.12345 /proc/$PPID/status",
        PrintsOr("1\n", "12345"),
    ),
    row(&["-v", "--verbose"], "{} memory 1M", SIZE, Warns("debug: memory: open readonly=0")),
    row(&["-V", "--version"], "{} --filter=offset memory", "", Shows("\noffset ")),
    row(
        &["--vsock"],
        "{} -p 10977 memory 1M",
        "echo \"$uri\"",
        PrintsOr("nbd+vsock://1:10977/\n", "vsock port 10977: cannot listen"),
    ),
];

fn spellings() -> BTreeSet<String> {
    ROWS.iter().flat_map(|row| row.names).map(|name| (*name).to_owned()).collect()
}

fn listed(run: impl Fn(&str) -> Run) -> BTreeSet<String> {
    ["--short-options", "--long-options"]
        .map(|list| run(list).text())
        .concat()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_option_has_a_row_and_every_row_an_option() {
    let ours = listed(|list| Run::diskpipe().args(["serve", list]));
    // These two are for completion scripts, and do not list themselves.
    let hidden = ["--long-options", "--short-options"].map(str::to_owned).into();
    assert_eq!(&ours | &hidden, spellings());
    if !absent(&["nbdkit"]) {
        let theirs = listed(|list| Run::new("nbdkit").arg(list));
        assert!(theirs.len() > 40, "{theirs:?}");
        assert_eq!(&theirs - &spellings(), BTreeSet::new(), "options of nbdkit that have no row");
    }
}

/// An option that nothing is missing with, by this name or an abbreviation of it, and a word that asks for the version.
fn accepts(run: Run, name: &str) -> bool {
    let value = match name {
        "--debug" => Some("null.x=1"),
        "--filter" => Some("cow"),
        "--log" => Some("null"),
        "--mask-handshake" | "--port" | "--threads" => Some("1"),
        "--tls" => Some("off"),
        "--export" | "--exportname" | "--export-name" | "--group" | "--ipaddr" | "--ip-addr"
        | "--pidfile" | "--pid-file" | "--run" | "--selinux-label" | "--tls-certificates" | "--tls-psk"
        | "--unix" | "--user" => Some("x"),
        _ => None,
    };
    run.args(value).arg("--version").end().status.success()
}

#[test]
fn what_nbdkit_takes_as_an_abbreviation_is_one_here() {
    needs!("nbdkit");
    let names = Run::new("nbdkit").arg("--long-options").text();
    let mut seen = BTreeSet::new();
    for name in names.lines() {
        for end in 3..=name.len() {
            let short = &name[..end];
            if seen.insert(short) && accepts(Run::new("nbdkit").arg(short), name) {
                assert!(accepts(Run::diskpipe().arg("serve").arg(short), name), "{short} for {name}");
            }
        }
    }
}

/// With keys of both kinds and a file of exports.
fn prepared() -> tempfile::TempDir {
    let dir = directory();
    for kind in ["psk", "x509"] {
        Run::diskpipe().args(["keygen", kind, "--user", "alice"]).arg(dir.path()).end().good();
    }
    let exports = "[export.a]\nplugin = 'memory'\nparams.size = '2M'\n";
    std::fs::write(dir.path().join("exports.toml"), format!("default = 'a'\n{exports}")).unwrap();
    dir
}

fn check(row: &Row, name: &str, dir: &Path) {
    let put = |text: &str| text.replace("{}", name).replace("DIR", &dir.display().to_string());
    let line = put(row.line);
    if matches!(row.seen, Stays) {
        let server = Server::start(|socket| Run::diskpipe().arg("serve").words(&line).arg("-U").arg(socket));
        assert_eq!(server.stop().0.and_then(|status| status.code()), Some(0), "{line}");
        return;
    }
    let mut run = Run::diskpipe().arg("serve").words(&line);
    if !row.command.is_empty() {
        run = run.args(["--run", &put(row.command)]);
    }
    let ended = run.end();
    let (said, told) = (ended.text(), ended.stderr.clone());
    match row.seen {
        Prints(text) => assert!(ended.status.success() && said == text, "{line}: {said}{told}"),
        Shows(text) => assert!(said.contains(text), "{line}: {said}{told}"),
        Warns(text) => assert!(ended.status.success() && told.contains(text), "{line}: {said}{told}"),
        PrintsOr(text, refusal) => {
            assert!(said == text || told.contains(refusal), "{line}: {said}{told}");
            if said != text {
                e2e::skip(&format!("needs what {name} asks for: {}", told.trim()));
            }
        }
        Stays => unreachable!("looked at above"),
    }
}

#[test]
fn every_option_does_what_it_should_in_every_spelling() {
    let dir = prepared();
    for row in ROWS {
        for name in row.names {
            check(row, name, dir.path());
        }
    }
}
