//! Disks whose methods are scripts: the same scripts under the peer whose protocol it is, and what is ours alone.

use e2e::{Run, Server, directory, needs};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// An executable script.
fn script(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

/// What `nbdsh` prints of these lines of Python, run after a function `attempt` is defined that prints what is raised.
fn asked(server: &Server, python: &str) -> String {
    let prelude = "
import nbd
def attempt(what, *args, **named):
    try:
        result = what(*args, **named)
        result = bytes(result) if isinstance(result, bytearray) else result
        short = isinstance(result, bytes) and len(result) > 8
        print(what.__name__, (len(result), hash(result)) if short else result)
    except nbd.Error as error:
        print(what.__name__, error.errno)
";
    // Hashes are to be the same in all processes.
    let run = Run::new("nbdsh").env("PYTHONHASHSEED", "1").args([
        "--base-allocation",
        "-u",
        &server.uri(),
        "-c",
        prelude,
        "-c",
        python,
    ]);
    run.end().text()
}

const BAD: &str = r#"#!/bin/sh
case "$1" in
    get_size) echo 1M ;;
    pread)
        if [ "$4" -le 100000 ] && [ $(( $4 + $3 )) -gt 100000 ]; then
            echo 'EIO Bad block' >&2
            exit 1
        fi
        dd if=/dev/zero count=$3 iflag=count_bytes ;;
    *) exit 2 ;;
esac
"#;

#[test]
fn a_bad_block_is_an_error_with_its_message() {
    needs!("nbdsh");
    let dir = directory();
    let bad = script(dir.path(), "bad.sh", BAD);
    let server = Server::ours(&format!("sh {}", bad.display()));
    let said = asked(&server, "attempt(h.pread, 512, 0) or attempt(h.pread, 512, 99840)");
    assert!(said.ends_with("pread EIO\n") && said.starts_with("pread (512"), "{said}");
    let (_, log) = server.stop();
    assert!(log.contains("bad.sh: pread: Bad block"), "{log}");
}

/// A file with everything that a script can have, and a journal of what it is asked.
const WHOLE: &str = r#"#!/bin/sh
# Handles differ from run to run, so they are not written down.
echo "$1 $(case "$1" in config|preconnect|list_exports|default_export) shift; echo "$@" ;; *) shift 2; echo "$@" ;; esac)" >> "$journal"
file=$tmpdir/disk
case "$1" in
    load) truncate -s 1M "$file" ;;
    magic_config_key) echo word ;;
    config) case "$2" in word|journal|other) ;; *) echo "EINVAL what is $2?" >&2; exit 1 ;; esac ;;
    open) mktemp -d "$tmpdir/handle-XXXXXX" ;;
    close) rm -r "$2" ;;
    list_exports) printf 'INTERLEAVED\none\nthe first\ntwo\nthe second\n' ;;
    default_export) echo one ;;
    export_description) echo "a disk in $(basename "$file")" ;;
    get_size) stat -c %s "$file" ;;
    block_size) echo 512 4K 1M ;;
    can_write|can_flush|can_trim|can_zero|can_extents|can_multi_conn) ;;
    can_fast_zero|is_rotational) exit 3 ;;
    can_fua|can_cache) echo native ;;
    pread) dd if="$file" skip="$4" count="$3" iflag=count_bytes,skip_bytes status=none ;;
    pwrite) dd of="$file" seek="$4" conv=notrunc oflag=seek_bytes status=none ;;
    trim|zero)
        case "$5" in *fast*) echo 'ENOTSUP not fast' >&2; exit 1 ;; esac
        fallocate -z -o "$4" -l "$3" "$file" ;;
    extents) echo "0 64K hole,zero"; echo "64K 960K 0" ;;
    flush|cache|config_complete|get_ready|after_fork|preconnect|unload) ;;
    *) exit 2 ;;
esac
"#;

const SESSION: &str = "
print(h.get_size(), h.get_block_size(nbd.SIZE_MAXIMUM))
print([f() for f in (h.is_read_only, h.is_rotational, h.can_flush, h.can_fua, h.can_trim, h.can_zero,
                     h.can_cache, h.can_multi_conn)])
attempt(h.pwrite, b'abcd' * 1024, 4096)
attempt(h.pread, 512, 4096)
attempt(h.pwrite, b'x' * 512, 0, nbd.CMD_FLAG_FUA)
attempt(h.zero, 512, 4608)
attempt(h.zero, 512, 4608, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
attempt(h.trim, 1024, 65536)
attempt(h.cache, 1024, 65536)
attempt(h.flush)
attempt(h.block_status, 131072, 32768, lambda *args: print(args[:3]), nbd.CMD_FLAG_REQ_ONE)
attempt(h.pread, 8192, 0)
print(bytes(h.pread(512, 0))[:4])
";

/// What the clients of both servers see, and what both scripts were asked.
fn both(serve: impl Fn(&str, &Path) -> Run, python: &str) -> [(String, String); 2] {
    ["nbdkit", "diskpipe"].map(|program| {
        let dir = directory();
        let journal = dir.path().join("journal");
        let server = Server::start(|socket| {
            let run = match program {
                "nbdkit" => serve("-f -U", socket),
                _ => serve("serve -f -U", socket),
            };
            run.env("journal", &journal).in_directory(dir.path())
        });
        let said = asked(&server, python);
        server.stop();
        (said, fs::read_to_string(journal).unwrap_or_default())
    })
}

fn program(options: &str) -> Run {
    if options.starts_with("serve") { Run::diskpipe() } else { Run::new("nbdkit") }.words(options)
}

#[test]
fn a_script_is_asked_the_same_and_answers_the_same() {
    needs!("nbdkit", "nbdsh", "fallocate");
    let dir = directory();
    let whole = script(dir.path(), "whole.sh", WHOLE);
    let serve = |options: &str, socket: &Path| {
        program(options).arg(socket).arg("sh").arg(&whole).args(["hello", "other=a b"])
    };
    let [theirs, ours] = both(serve, SESSION);
    assert_eq!(theirs.0, ours.0);
    assert!(ours.0.ends_with("b'xxxx'\n"), "{}", ours.0);
    // How often these are asked for is up to the server.
    let lines = |journal: &str| {
        let kept = journal
            .lines()
            .filter(|line| !line.starts_with("default_export") && !line.starts_with("export_description"));
        kept.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lines(&theirs.1), lines(&ours.1));
}

#[test]
fn fragments_that_fail_fail_in_the_same_way() {
    needs!("nbdkit", "nbdsh");
    let fragments = [
        "echo 'ENOSPC Out of space' >&2; exit 1",
        "echo enospc >&2; exit 1",
        "echo ENOSPC:foo >&2; exit 1",
        "echo 'EPIPE x' >&2; exit 1",
        r"printf 'EINVAL\nsecond line\n' >&2; exit 1",
        "echo '  EINVAL hello' >&2; exit 1",
        "echo EDQUOT full >&2; exit 1",
        "echo EROFS no >&2; exit 1",
        "echo ESHUTDOWN over >&2; exit 1",
        "echo EOVERFLOW much >&2; exit 1",
        "echo EAGAIN again >&2; exit 1",
        "echo ENOENT none >&2; exit 1",
        "printf x",
        "head -c 600 /dev/zero",
        "exit 2",
        "exit 3",
        "exit 99",
        "kill -9 $$",
        "head -c $3 /dev/zero; echo ENOSPC ignored >&2",
    ];
    for fragment in fragments {
        let serve = |options: &str, socket: &Path| {
            let pread = format!("pread={fragment}");
            program(options).arg(socket).args(["eval", "get_size=echo 1M", &pread])
        };
        let [theirs, ours] = both(serve, "attempt(h.pread, 512, 0)");
        assert_eq!(theirs, ours, "{fragment}");
    }
}

#[test]
fn fragments_imply_the_same_abilities() {
    needs!("nbdkit", "nbdsh");
    let stacks: [&[&str]; 8] = [
        &[],
        &["pwrite=cat"],
        &["pwrite=cat", "flush=exit 0", "trim=exit 0", "zero=exit 0", "extents=echo 0 1M 0", "cache=exit 0"],
        &["pwrite=cat", "can_write=exit 3"],
        &["can_cache=echo emulate"],
        &[
            "pwrite=cat",
            "flush=exit 0",
            "can_fua=echo emulate",
            "can_multi_conn=exit 0",
            "thread_model=echo parallel",
        ],
        &["can_multi_conn=exit 0", "thread_model=echo serialize_connections"],
        &["is_rotational=exit 0", "block_size=echo 1K 4K 32M", "thread_model=echo nonsense"],
    ];
    for stack in stacks {
        let serve = |options: &str, socket: &Path| {
            let required = ["eval", "get_size=echo 1M", "pread=head -c $3 /dev/zero"];
            program(options).arg(socket).args(required).args(stack)
        };
        let session = "
print([f() for f in (h.is_read_only, h.is_rotational, h.can_flush, h.can_fua, h.can_trim, h.can_zero,
                     h.can_cache, h.can_multi_conn)])
attempt(h.pread, 1024, 0)
";
        let [theirs, ours] = both(serve, session);
        assert_eq!(theirs, ours, "{stack:?}");
    }
}

#[test]
fn exit_codes_end_the_server_or_let_the_client_go() {
    needs!("nbdsh");
    let dir = directory();
    // The offset chooses the exit code.
    let codes = script(
        dir.path(),
        "codes.sh",
        r#"#!/bin/sh
case "$1" in
    get_size) echo 1M ;;
    pread) head -c "$3" /dev/zero; echo EINVAL refused >&2; exit $(( $4 / 512 )) ;;
    *) exit 2 ;;
esac
"#,
    );
    let arguments = format!("sh {}", codes.display());
    let mut server = Server::ours(&arguments);
    let python = |code: u32| format!("attempt(h.pread, 1, {}); attempt(h.pread, 1, 0)", code * 512);
    let (fine, refused, gone) = ("pread b'\\x00'\n", "pread EINVAL\n", "pread ESHUTDOWN\n");
    assert_eq!(asked(&server, &python(7)), [fine, gone].concat());
    assert_eq!(asked(&server, &python(8)), [refused, gone].concat());
    let cut = asked(&server, &python(6));
    assert!(!cut.contains("b'") && cut.matches("pread").count() == 2, "{cut}");
    assert_eq!(asked(&server, "attempt(h.pread, 1, 0)"), fine, "others are not concerned");
    asked(&server, "attempt(h.pread, 1, 2560)");
    server.until("code 5 ends it", |server| server.process.wait(std::time::Duration::ZERO).is_some());
    let mut server = Server::ours(&arguments);
    asked(&server, "attempt(h.pread, 1, 2048)");
    server.until("code 4 ends it", |server| server.process.wait(std::time::Duration::ZERO).is_some());
}

/// A disk in the memory of one process. Reading beyond the first megabyte kills it.
const RAM: &str = r#"#!/usr/bin/python3
import os, sys
from urllib.parse import unquote
requests, answers = sys.stdin.buffer, sys.stdout.buffer
disk, words_seen = bytearray(2 << 20), []
for line in iter(requests.readline, b""):
    method, *words = ["" if word == "-" else unquote(word) for word in line.decode().split()]
    code, result = 0, b""
    if method == "get_size":
        result = b"2M"
    elif method == "config":
        words_seen += words
    elif method == "export_description":
        result = "|".join(words_seen).encode()
    elif method == "pread":
        count, offset = int(words[1]), int(words[2])
        if offset >= 1 << 20:
            os._exit(7)
        result = disk[offset:offset + count]
    elif method == "pwrite":
        count, offset = int(words[1]), int(words[2])
        disk[offset:offset + count] = requests.read(count)
    elif method == "flush":
        code, result = 1, b"ENOSPC full"
    elif method not in ("can_write", "can_flush", "config_complete"):
        code = 2
    answers.write(b"%d %d\n" % (code, len(result)) + result)
    answers.flush()
"#;

#[test]
fn a_persistent_script_remembers_until_it_dies_and_is_started_again() {
    needs!("nbdsh", "python3");
    let dir = directory();
    let ram = script(dir.path(), "ram.py", RAM);
    let server = Server::start(|socket| {
        let words = ["sh", "persistent=true", ram.to_str().unwrap(), "a=b c%", "d=-", "e="];
        Run::diskpipe().words("serve -f -U").arg(socket).args(words)
    });
    let said = asked(
        &server,
        "
attempt(h.pwrite, b'hello' * 100000, 0)
print(bytes(h.pread(500000, 0)) == b'hello' * 100000)
attempt(h.flush)
attempt(h.pread, 512, 1 << 20)
attempt(h.pread, 5, 0)
attempt(h.pwrite, b'again', 0)
attempt(h.pread, 5, 0)
",
    );
    let expected = "pwrite None\nTrue\nflush ENOSPC\npread EIO\npread b'\\x00\\x00\\x00\\x00\\x00'\n\
                    pwrite None\npread b'again'\n";
    assert_eq!(said, expected);
    let info = Run::new("nbdinfo").arg(server.uri()).text();
    assert!(info.contains("a|b c%|d|-|e|"), "the new process knows its parameters: {info}");
    let (_, log) = server.stop();
    assert!(log.contains("exit status: 7"), "{log}");
}

#[test]
fn nothing_is_left_behind() {
    needs!("nbdinfo");
    let dir = directory();
    for arguments in [
        "eval get_size=exit\\ 1",
        "eval get_size=1",
        "eval config_complete=false",
        "eval after_fork=false",
        "sh /does/not/exist",
        "eval --dump-plugin",
    ] {
        let arguments = arguments.replace("\\ ", "\u{a0}");
        let words = arguments.split(' ').map(|word| word.replace('\u{a0}', " "));
        let run = Run::diskpipe().arg("serve").args(words).args(["--run", r#"nbdinfo "$uri""#]);
        run.env("TMPDIR", dir.path()).end();
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "{arguments}: {left:?}");
    }
}

#[test]
fn a_script_on_standard_input_works_except_where_that_is_the_clients() {
    needs!("nbdinfo");
    let script = "case $1 in get_size) echo 12345;; *) exit 2;; esac";
    let serve = |words: &str| Run::diskpipe().words(words).input(script.as_bytes());
    assert_eq!(serve("serve sh - --run").arg(r#"nbdinfo --size "$uri""#).text(), "12345\n");
    let ended = serve("serve -s sh -").end();
    assert!(
        !ended.status.success() && ended.stderr.contains("with -s it is the client's"),
        "{}",
        ended.stderr
    );
}
