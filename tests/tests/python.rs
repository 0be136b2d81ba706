//! The Python module `nbd`: programs written for the peer's give the same output with ours, against our server and
//! others; and what only ours can do.

use e2e::{Run, Server, directory, needs, peers_python, python};
use std::path::Path;

/// What every program has: `show` prints a result, or an error by its number (the words are everybody's own).
const PRELUDE: &str = r#"
import nbd, os, sys
uri = os.environ["SERVER"]
def show(label, call):
    try:
        print(label, repr(call()))
    except nbd.Error as e:
        print(label, "error", e.errno, e.errnum, e.string.split(":")[0])
    except (TypeError, BufferError, ValueError) as e:
        print(label, type(e).__name__)
def connected(*contexts):
    h = nbd.NBD()
    for context in contexts:
        h.add_meta_context(context)
    h.connect_uri(uri)
    return h
# What newer releases, or only ours, have.
THEIRS_NOT = set("""ALLOW_TRANSPORT_SSH CMD_FLAG_PAYLOAD_LEN CMD_RESIZE CONTEXT_QEMU_ALLOCATION_DEPTH NAMESPACE_QEMU
CONTEXT_QEMU_DIRTY_BITMAP FLAG_SEND_RESIZE REPLY_TYPE_RESIZE SIZE_PAYLOAD STATE_DIRTY STRICT_AUTO_FLAG STRICT_PAYLOAD
aio_block_status_64 aio_block_status_filter aio_opt_extended_headers aio_opt_list_meta_context_queries
aio_opt_set_meta_context aio_opt_set_meta_context_queries aio_opt_starttls aio_opt_structured_reply aio_resize
block_status_64 block_status_filter can_block_status_payload can_resize get_extended_headers_negotiated
get_request_extended_headers get_request_meta_context get_socket_activation_name get_subprocess_pid get_tls_hostname
get_tls_priority get_version_extra is_uri opt_extended_headers opt_list_meta_context_queries opt_set_meta_context
opt_set_meta_context_queries opt_starttls opt_structured_reply poll2 pread_into resize set_request_extended_headers
set_request_meta_context set_socket_activation_name set_tls_hostname set_tls_priority set_uri_allow_tls_priority
stats_bytes_received stats_bytes_sent stats_chunks_received stats_chunks_sent supports_vsock""".split())
def drain(h):
    while h.aio_in_flight() > 0:
        h.poll(-1)
"#;

fn programs() -> Vec<(String, String)> {
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/same.py")).unwrap();
    let parts = text.split("\n### ").skip(1);
    let part = |part: &str| {
        let (name, program) = part.split_once('\n').unwrap();
        (name.to_owned(), format!("{PRELUDE}\n{program}"))
    };
    parts.map(part).collect()
}

fn same_with(server: &Server) {
    let programs = programs();
    assert!(programs.len() >= 15, "only {} programs", programs.len());
    for (name, program) in programs {
        let run = |run: Run| {
            let ended = run.env("SERVER", server.uri()).end();
            assert!(ended.status.success(), "{name}: {}\n{}", ended.stderr, ended.text());
            ended.text()
        };
        let (theirs, ours) = (run(peers_python(&program)), run(python(&program)));
        assert_eq!(ours, theirs, "{name}: ours is left");
        assert!(!ours.trim().is_empty(), "{name} says nothing");
    }
}

#[test]
fn programs_for_the_peers_module_say_the_same_with_our_server() {
    needs!("nbdsh");
    same_with(&Server::ours("memory 1M"));
}

#[test]
fn programs_for_the_peers_module_say_the_same_with_nbdkit() {
    needs!("nbdsh", "nbdkit");
    same_with(&Server::nbdkit("memory 1M"));
}

#[test]
fn a_disk_grows_and_takes_what_it_refused_before() {
    let server = Server::ours("--resize memory 1K max-size=1M");
    let program = r#"
import nbd, os
h = nbd.NBD()
h.connect_uri(os.environ["SERVER"])
assert h.can_resize() and h.get_size() == 1024
try:
    h.pwrite(b"hello", 2048)
    raise SystemExit("beyond the end")
except nbd.Error as e:
    assert e.errno == "ENOSPC", e
h.set_strict_mode(h.get_strict_mode() & ~nbd.STRICT_BOUNDS)
try:
    h.pwrite(b"hello", 2048)
    raise SystemExit("beyond the end")
except nbd.Error as e:
    assert e.errno == "ENOSPC", e  # the server knows as well
assert h.resize(4096) == 4096 and h.get_size() == 4096
h.set_strict_mode(nbd.STRICT_MASK)
h.pwrite(b"hello", 2048)
assert h.pread(7, 2047) == b"\0hello\0"
try:
    h.resize(2 << 20)
    raise SystemExit("beyond max-size")
except nbd.Error as e:
    assert e.errno == "ENOSPC", e
h.shutdown()
"#;
    python(program).env("SERVER", server.uri()).end().good();
}

#[test]
fn tasks_of_an_event_loop_share_a_handle() {
    let server = Server::ours("--filter=delay memory 1M delay-read=20ms delay-write=20ms");
    let program = r#"
import asyncio, nbd, os

async def one(h, i):
    await h.async_pwrite(bytes([i]) * 4096, i * 4096)
    return await h.async_pread(4096, i * 4096)

async def main():
    async with nbd.NBD() as h:
        h.add_meta_context("base:allocation")
        await h.async_connect_uri(os.environ["SERVER"])
        parts = await asyncio.gather(*(one(h, i) for i in range(1, 65)))
        assert all(part == bytes([i]) * 4096 for i, part in enumerate(parts, 1))
        memory = bytearray(8192)
        await h.async_pread_into(memoryview(memory)[4096:], 4096)
        assert memory == bytes(4096) + b"\x01" * 4096
        await h.async_zero(4096, 4096)
        await h.async_flush()
        told = await h.async_block_status(65536, 0)
        assert told[0][0] == "base:allocation" and sum(length for length, status in told[0][2]) >= 65536
        try:
            await h.async_pread(512, 1 << 20)
            raise SystemExit("beyond the end")
        except nbd.Error as e:
            assert e.errno == "EINVAL"
        # A task that is given up leaves the others be.
        lost = asyncio.ensure_future(h.async_pread(512, 0))
        kept = asyncio.ensure_future(h.async_pread(512, 8192))
        await asyncio.sleep(0)
        lost.cancel()
        assert await kept == b"\x02" * 512
    assert h.aio_is_closed()

    h = nbd.NBD()
    try:
        await h.async_connect_unix("/nonexistent/socket")
        raise SystemExit("nobody is there")
    except nbd.Error as e:
        assert e.errno == "ENOENT"

asyncio.run(asyncio.wait_for(main(), 60))
"#;
    python(program).env("SERVER", server.uri()).end().good();
}

#[test]
fn what_could_hang_or_crash_is_an_error() {
    let server = Server::ours("memory 1M");
    let program = r#"
import errno, gc, nbd, os, signal, socket, threading, weakref
uri = os.environ["SERVER"]
with nbd.NBD() as h:
    h.add_meta_context("base:allocation")
    h.connect_uri(uri)
    # A callback that uses its own handle.
    found = []
    def reenter(*a):
        try:
            h.get_size()
        except nbd.Error as e:
            found.append(e.errnum)
        assert not h.aio_is_dead() and "NEGOT" not in h.connection_state()  # these are harmless
    h.block_status(512, 0, reenter)
    assert set(found) == {errno.EDEADLK}, found
    # A buffer in flight keeps its size, and is free again afterwards.
    memory = bytearray(1 << 20)
    h.aio_pread(memory, 0)
    while h.aio_in_flight():
        h.poll(-1)
    memory.append(0)
    # Threads share a handle.
    def work(i):
        for _ in range(20):
            h.pwrite(bytes([i]) * 512, i * 512)
            assert h.pread(512, i * 512) == bytes([i]) * 512
    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert h.stats_bytes_sent() > 0 and h.stats_chunks_received() > 0
assert h.aio_is_closed()

# A server that says nothing, and Ctrl-C.
near, far = socket.socketpair()
h = nbd.NBD()
signal.signal(signal.SIGALRM, lambda *a: (_ for _ in ()).throw(KeyboardInterrupt()))
signal.setitimer(signal.ITIMER_REAL, 0.2)
try:
    h.connect_socket(near.detach())
    raise SystemExit("nobody said anything")
except KeyboardInterrupt:
    pass

# Signals that nobody minds do not end a wait.
ticks = []
signal.signal(signal.SIGALRM, lambda *a: ticks.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
near, far = socket.socketpair()
h = nbd.NBD()
h.aio_connect_socket(near.detach())
assert h.poll(500) == 0 and ticks
signal.setitimer(signal.ITIMER_REAL, 0)

# Nonsense instead of a server.
near, far = socket.socketpair()
far.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n")
try:
    nbd.NBD().connect_socket(near.detach())
    raise SystemExit("that was no server")
except nbd.Error as e:
    assert e.errno == "EINVAL" and "NBD server" in e.string, e

# Handles go, with requests and callbacks on them.
h = nbd.NBD()
h.connect_uri(uri)
gone = weakref.ref(h)
h.aio_pread(bytearray(512), 0, lambda e: 1)
del h
gc.collect()
assert gone() is None
"#;
    python(program).env("SERVER", server.uri()).end().good();
}

/// Writes the calls as the guide lists them: each with its arguments and the first sentence of its documentation.
const CALLS: &str = r#"
import inspect, nbd, re
for name in sorted(dir(nbd.NBD)):
    if name.startswith("_"):
        continue
    call = getattr(nbd.NBD, name)
    arguments = [str(p) for p in list(inspect.signature(call).parameters.values())[1:]]
    text = " ".join(inspect.getdoc(call).split())
    first = re.split(r"(?<=[.:]) (?=[A-Z])", text)[0]
    print(f"`{name}({', '.join(arguments)})`\n:   {first}\n")
"#;

#[test]
fn the_guide_lists_every_call() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guides/python.md");
    let text = std::fs::read_to_string(&guide).unwrap();
    let (before, rest) = text.split_once("with UPDATE=1 -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- end -->").unwrap();
    let calls = python(CALLS).text();
    assert!(calls.lines().filter(|line| line.starts_with('`')).count() > 170, "{calls}");
    let wanted = format!("{before}with UPDATE=1 -->\n\n{calls}<!-- end -->{after}");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&guide, &wanted).unwrap();
    }
    assert!(text == wanted || std::env::var_os("UPDATE").is_some(), "run this test with UPDATE=1");
}

/// Holds the types of the package against what is there.
const TYPES: &str = r#"
import ast, inspect, nbd, sys
tree = ast.parse(open(nbd.__file__ + "i").read())
wrong = []
def defaults(call):
    every = call.args.posonlyargs + call.args.args
    values = [None] * (len(every) - len(call.args.defaults)) + [ast.unparse(d) for d in call.args.defaults]
    return [(a.arg, value) for a, value in zip(every, values)]
known = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
for name in ("NBD", "Buffer"):
    real = getattr(nbd, name)
    typed = {node.name: node for node in known[name].body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
    for method in dir(real):
        if method.startswith("_"):
            continue
        if method not in typed:
            wrong.append(f"{name}.{method} has no types")
            continue
        own = isinstance(inspect.getattr_static(real, method), classmethod)
        parameters = list(inspect.signature(getattr(real, method)).parameters.values())[0 if own else 1:]
        has = [(p.name, None if p.default is p.empty else repr(p.default)) for p in parameters]
        if has != defaults(typed[method])[1:]:
            wrong.append(f"{name}.{method}: {has} {defaults(typed[method])}")
    wrong += [f"{name}.{method} does not exist" for method in typed if not hasattr(real, method)]
named = {node.target.id for node in tree.body if isinstance(node, ast.AnnAssign)}
wrong += [f"{name} has no type" for name in dir(nbd) if name.isupper() and name not in named and name != "NBD"]
wrong += [f"{name} does not exist" for name in named if not hasattr(nbd, name)]
sys.exit("\n".join(wrong) or 0)
"#;

#[test]
fn the_types_say_what_is_there() {
    python(TYPES).end().good();
}

/// virtnbdbackup's own connection and its own way through extents, unchanged; then the contents of what they name.
const VIRTNBDBACKUP: &str = r#"
import importlib, os, sys
sys.path.append(os.environ["BACKUP"])
tool = importlib.import_module("libvirtnbdbackup.nbdcli.client")
extents = importlib.import_module("libvirtnbdbackup.extenthandler.extenthandler")
for context in ("", "qemu:dirty-bitmap:since"):
    kind = tool.Unix("", context, os.environ["SOCKET"])
    connection = tool.client(kind).connect()
    found = extents.ExtentHandler(connection, kind).queryBlockStatus()
    print([(extent.data, extent.offset, extent.length) for extent in found], connection.maxRequestSize)
    print(sum(sum(connection.nbd.pread(e.length, e.offset)) for e in found if e.data))
    connection.disconnect()
"#;

#[test]
fn virtnbdbackup_finds_the_same_with_our_module() {
    needs!("nbdsh", "qemu-nbd", "qemu-img", "qemu-io");
    let modules = "usr/lib/python3/dist-packages";
    let unpacked = e2e::target_directory().join("unpacked/virtnbdbackup");
    let places = [unpacked.join(modules), Path::new("/").join(modules)];
    let Some(place) = places.iter().find(|place| place.join("libvirtnbdbackup").is_dir()) else {
        return e2e::skip("needs virtnbdbackup, installed or unpacked");
    };
    let dir = directory();
    changed_image(dir.path());
    let image = dir.path().join("image");
    let server = Server::qemu(&format!("-r -f qcow2 -B since {}", image.display()));
    let uri = server.uri();
    let socket = uri.split_once("?socket=").expect("a Unix socket").1;
    let said = |run: Run| run.env("BACKUP", place).env("SOCKET", socket).text();
    let (theirs, ours) = (said(peers_python(VIRTNBDBACKUP)), said(python(VIRTNBDBACKUP)));
    assert_eq!(ours, theirs, "ours is left");
    assert!(ours.contains("(True, 983040, 131072)"), "{ours}");
}

/// An image with the bitmap `since`, and as it was before in `full`.
fn changed_image(into: &Path) {
    let make = "qemu-img create -q -f qcow2 image 8M; qemu-io -f qcow2 -c 'write -P 1 0 2M' -c 'write -P 2 5M 1M' image
        qemu-img convert -O raw image full; qemu-img bitmap --add image since
        qemu-io -f qcow2 -c 'write -P 3 960k 128k' -c 'write -z 5M 64k' -c 'write -P 4 7M 64k' image";
    Run::sh(&format!("set -e; {make}")).in_directory(into).end().good();
}

/// What a backup tool does: of a full copy and of what a dirty bitmap says has changed since, the disk as it is now.
const INCREMENT: &str = r#"
import nbd, os
context = "qemu:dirty-bitmap:since"
h = nbd.NBD()
h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.add_meta_context(context)
h.connect_uri(os.environ["SERVER"])
assert h.can_meta_context(context) and h.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
full = bytearray(open(os.environ["FULL"], "rb").read())
size, step, changed, zeroes = h.get_size(), 1 << 20, [], 0
for start in range(0, size, step):
    length, maps = min(step, size - start), {}
    def extents(name, offset, entries, error):
        assert offset == start and error.value == 0
        maps[name] = list(zip(entries[0::2], entries[1::2]))
    h.block_status(length, start, extents)
    assert sorted(maps) == sorted([nbd.CONTEXT_BASE_ALLOCATION, context]), maps
    at = start
    for count, dirty in maps[context]:
        end = min(at + count, start + length)
        if dirty & 1:
            changed.append((at, end))
            full[at:end] = h.pread(end - at, at)
        at = end
    assert at == start + length, "the server told of less than was asked"
    zeroes += sum(min(count, length) for count, state in maps[nbd.CONTEXT_BASE_ALLOCATION] if state & nbd.STATE_ZERO)
joined = []
for start, end in changed:
    if joined and joined[-1][1] == start:
        start = joined.pop()[0]
    joined.append((start, end))
print(joined, zeroes > 0, bytes(full) == b"".join(bytes(h.pread(step, at)) for at in range(0, size, step)))
h.shutdown()
"#;

#[test]
fn a_backup_tool_reads_what_a_dirty_bitmap_of_qemu_names() {
    needs!("nbdsh", "qemu-nbd", "qemu-img", "qemu-io");
    let dir = directory();
    changed_image(dir.path());
    let server = Server::qemu(&format!("-r -f qcow2 -B since {}", dir.path().join("image").display()));
    for run in [peers_python(INCREMENT), python(INCREMENT)] {
        let said = run.env("SERVER", server.uri()).env("FULL", dir.path().join("full")).text();
        assert_eq!(said, "[(983040, 1114112), (5242880, 5308416), (7340032, 7405568)] True True\n");
    }
}
