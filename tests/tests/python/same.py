# Programs that say the same with the peer's module and with ours; each begins at a line with ###.

### errors in states
h = nbd.NBD()
show("pread", lambda: h.pread(512, 0))
show("size", h.get_size)
show("fd", h.aio_get_fd)
show("direction", h.aio_get_direction)
show("notify", h.aio_notify_read)
show("in flight", h.aio_in_flight)
show("peek", h.aio_peek_command_completed)
show("protocol", h.get_protocol)
show("kill", lambda: h.kill_subprocess(15))
show("list", lambda: h.opt_list(lambda *a: 0))
show("context", lambda: h.can_meta_context("x:y"))
h.connect_uri(uri)
show("again", lambda: h.connect_uri(uri))
show("export", lambda: h.set_export_name("other"))
show("go", h.opt_go)
h.shutdown()
show("read after", lambda: h.pread(512, 0))
show("size after", h.get_size)
show("fd after", h.aio_get_fd)
show("closed", h.aio_is_closed)
show("shutdown again", h.shutdown)

### settings
h = nbd.NBD()
for name in ("get_debug", "get_export_name", "get_full_info", "get_handshake_flags", "get_nr_meta_contexts",
             "get_opt_mode", "get_pread_initialize", "get_private_data", "get_request_block_size",
             "get_request_structured_replies", "get_tls", "get_tls_verify_peer", "get_package_name",
             "supports_tls", "supports_uri", "aio_is_created", "aio_is_dead"):
    show(name, getattr(h, name))
show("flags", lambda: h.set_handshake_flags(8))
show("flags stay", h.get_handshake_flags)
show("tls", lambda: h.set_tls(9))
show("tls stays", h.get_tls)
show("strict", lambda: h.set_strict_mode(1 << 20))
show("long name", lambda: h.set_export_name("x" * 5000))
show("longest name", lambda: h.set_export_name("x" * 4096))
show("long context", lambda: h.add_meta_context("x" * 5000))
show("private", lambda: (h.set_private_data(7), h.set_private_data(8), h.get_private_data()))
h.set_handle_name("a%b")
show("name", h.get_handle_name)
h.add_meta_context("a:b"); h.add_meta_context("a:b")
show("contexts", lambda: (h.get_nr_meta_contexts(), h.get_meta_context(1)))
show("context 2", lambda: h.get_meta_context(2))
h.clear_meta_contexts()
show("no contexts", h.get_nr_meta_contexts)
show("number", lambda: h.set_export_name(3))
h.set_full_info(1)
show("truth", h.get_full_info)

### reading and writing
h = connected()
show("size", h.get_size)
h.pwrite(b"hello", 0)
h.pwrite(bytearray(b" world"), 5)
h.pwrite(memoryview(b"xx!xx")[2:3], 11)
show("read", lambda: h.pread(14, 0))
show("keywords", lambda: h.pread(offset=6, count=5))
show("type", lambda: type(h.pread(4, 0)).__name__)
show("text", lambda: h.pwrite("text", 0))
show("list", lambda: h.pwrite([1], 0))
show("flush", h.flush)
show("zero", lambda: h.zero(512, 0, nbd.CMD_FLAG_NO_HOLE))
show("zeroes", lambda: bytes(h.pread(512, 0)) == bytes(512))
show("trim", lambda: h.trim(512, 512))
for what in ("cache", "df", "fast_zero", "flush", "fua", "multi_conn", "trim", "zero"):
    show(what, lambda: type(getattr(h, "can_" + what)()).__name__)
show("read only", h.is_read_only)
show("rotational", h.is_rotational)
show("protocol", h.get_protocol)
show("structured", h.get_structured_replies_negotiated)
show("uri", lambda: h.get_uri() == uri)

### what is refused at once
h = connected("base:allocation")
end = h.get_size()
show("beyond", lambda: h.pread(512, end))
show("negative", lambda: h.pread(512, -1))
show("none", lambda: h.pread(0, 0))
show("write beyond", lambda: h.pwrite(b"x", end))
show("zero beyond", lambda: h.zero(1 << 33, 0))
show("trim beyond", lambda: h.trim(512, end - 1))
show("status beyond", lambda: h.block_status(1 << 33, 0, lambda *a: 0))
show("flag", lambda: h.pread(512, 0, nbd.CMD_FLAG_FUA))
show("flush flag", lambda: h.flush(nbd.CMD_FLAG_FUA))
show("shutdown flag", lambda: h.shutdown(5))
show("no trim", lambda: h.trim(0, 0))
show("no callback", lambda: h.block_status(512, 0, 42))
show("block size", lambda: h.get_block_size(7))
show("cookie", lambda: h.aio_command_completed(0))
show("unknown cookie", lambda: h.aio_command_completed(99))
h.set_strict_mode(0)
show("sent", lambda: h.pread(512, end))
show("large", lambda: h.pread(65 << 20, 0))
show("still there", lambda: len(h.pread(512, 0)))

### extents
h = connected("base:allocation")
h.zero(1 << 20, 0)
h.pwrite(b"x" * 65536, 131072)
def extents(context, offset, entries, error):
    total = sum(entries[0::2])
    print(context, offset, type(entries).__name__, total >= 1 << 20, len(entries) % 2, type(error).__name__, error.value)
show("status", lambda: h.block_status(1 << 20, 0, extents))
show("one", lambda: h.block_status(1 << 20, 0, lambda c, o, e, r: print(len(e)), nbd.CMD_FLAG_REQ_ONE))
show("has", lambda: (h.can_meta_context("base:allocation"), h.can_meta_context("x:y")))
show("none", lambda: connected().block_status(512, 0, extents))
def number(*a):
    a[3].value = 19
    return -1
show("number", lambda: h.block_status(512, 0, number))
show("minus one", lambda: h.block_status(512, 0, lambda *a: -1))
show("text", lambda: h.block_status(512, 0, lambda *a: "x"))
def raises(*a):
    raise ValueError("in a callback")
sys.stderr = open(os.devnull, "w")
show("raises", lambda: h.block_status(512, 0, raises))

### chunks
h = connected()
h.pwrite(b"0123456789", 0)
kept = []
def chunk(view, offset, status, error):
    kept.append(view)
    print(type(view).__name__, view.readonly, bytes(view), offset, status == nbd.READ_DATA, error.value)
show("structured", lambda: h.pread_structured(10, 0, chunk))
show("kept", lambda: bytes(kept[0]))
show("df", lambda: h.pread_structured(10, 0, chunk, nbd.CMD_FLAG_DF))
show("failing", lambda: h.pread_structured(10, 0, lambda *a: -1))
buffer = nbd.Buffer(10)
cookie = h.aio_pread_structured(buffer, 0, chunk)
drain(h)
show("completed", lambda: h.aio_command_completed(cookie))
show("filled", buffer.to_bytearray)

### asynchronous requests
h = connected()
buffer = nbd.Buffer(512)
def done(error):
    print("done", error.value, type(error).__name__)
    return 1
cookie = h.aio_pwrite(nbd.Buffer.from_bytearray(b"abcd" * 128), 0, done)
drain(h)
show("retired", lambda: h.aio_command_completed(cookie))
cookie = h.aio_pread(buffer, 0, lambda error: 0)
show("pending", h.aio_peek_command_completed)
drain(h)
show("peek", lambda: h.aio_peek_command_completed() == cookie)
show("completed", lambda: h.aio_command_completed(cookie))
show("once", lambda: h.aio_command_completed(cookie))
show("nothing", h.aio_peek_command_completed)
show("read", lambda: bytes(buffer.to_bytearray()[:8]))
cookies = [h.aio_pread(nbd.Buffer(4096), i * 4096) for i in range(16)]
show("in flight", h.aio_in_flight)
drain(h)
show("all", lambda: [h.aio_command_completed(c) for c in cookies].count(True))
for begin in (h.aio_flush, lambda: h.aio_zero(512, 0), lambda: h.aio_trim(512, 0)):
    cookie = begin()
    drain(h)
    show("begun", lambda: h.aio_command_completed(cookie))
show("read only", lambda: h.aio_pread(b"123", 0))
memory = bytearray(512)
cookie = h.aio_pread(memory, 0)
show("resize", lambda: memory.append(1) if False else "locked")
drain(h)
h.aio_disconnect()
while not (h.aio_is_closed() or h.aio_is_dead()):
    h.poll(-1)
show("closed", h.aio_is_closed)

### a loop of one's own
import select
h = nbd.NBD()
h.aio_connect_uri(uri)
def turn():
    poll = select.poll()
    direction = h.aio_get_direction()
    events = (select.POLLIN if direction & nbd.AIO_DIRECTION_READ else 0) | (select.POLLOUT if direction & nbd.AIO_DIRECTION_WRITE else 0)
    poll.register(h.aio_get_fd(), events)
    for fd, what in poll.poll(20000):
        if what & select.POLLIN and h.aio_get_direction() & nbd.AIO_DIRECTION_READ:
            h.aio_notify_read()
        elif what & select.POLLOUT and h.aio_get_direction() & nbd.AIO_DIRECTION_WRITE:
            h.aio_notify_write()
while h.aio_is_connecting():
    turn()
show("ready", h.aio_is_ready)
show("waits", lambda: h.poll(0))
ends = []
for i in range(8):
    h.aio_pwrite(nbd.Buffer.from_bytearray(bytes([i]) * 65536), i * 65536, lambda e: ends.append(e.value) or 1)
while h.aio_in_flight():
    turn()
show("ends", lambda: ends)
show("read", lambda: bytes(h.pread(8 * 65536, 0)) == b"".join(bytes([i]) * 65536 for i in range(8)))

### buffers
b = nbd.Buffer(8)
show("size", lambda: (b.size(), len(b), b.is_zero()))
b = nbd.Buffer.from_bytearray(b"\0\0ab\0\0")
show("zero", lambda: (b.is_zero(), b.is_zero(0, 2), b.is_zero(4), b.is_zero(2, 1)))
show("copy", b.to_bytearray)
show("list", lambda: nbd.Buffer.from_bytearray([1, 2]).to_bytearray())
show("int", lambda: nbd.Buffer.from_bytearray(3).to_bytearray())
shared = bytearray(4)
b = nbd.Buffer.from_buffer(shared)
show("same", lambda: b.to_buffer() is shared)
shared[0] = 7
show("shared", b.to_bytearray)
show("none", lambda: nbd.Buffer.from_buffer(3))
h = connected()
h.pwrite(b"1234", 0)
h.aio_pread(b, 0)
drain(h)
show("read", lambda: shared)

### options
h = nbd.NBD()
h.set_opt_mode(True)
h.connect_uri(uri)
show("negotiating", h.aio_is_negotiating)
show("no size", h.get_size)
show("no read", lambda: h.pread(1, 0))
show("list", lambda: h.opt_list(lambda name, description: print(repr(name)) or 0))
show("contexts", lambda: h.opt_list_meta_context(lambda name: print(name) if name == "base:allocation" else None) > 0)
show("info", h.opt_info)
show("size", h.get_size)
h.add_meta_context("base:allocation")
show("info", h.opt_info)
show("context", lambda: h.can_meta_context("base:allocation"))
ended = []
h.aio_opt_list(lambda *a: 0, lambda error: ended.append(error.value) or 1)
while h.aio_is_connecting():
    h.poll(-1)
show("ended", lambda: ended)
show("protocol", h.get_protocol)
show("go", h.opt_go)
show("ready", h.aio_is_ready)
show("context", lambda: h.can_meta_context("base:allocation"))
show("read", lambda: len(h.pread(512, 0)))
h = nbd.NBD()
h.set_opt_mode(True)
h.connect_uri(uri)
show("abort", h.opt_abort)
show("closed", h.aio_is_closed)

### without structured replies
h = nbd.NBD()
h.set_request_structured_replies(False)
h.add_meta_context("base:allocation")
h.connect_uri(uri)
show("structured", h.get_structured_replies_negotiated)
show("df", h.can_df)
show("context", lambda: h.can_meta_context("base:allocation"))
show("status", lambda: h.block_status(512, 0, lambda *a: 0))
h.pwrite(b"plain", 0)
show("read", lambda: h.pread(5, 0))
show("chunk", lambda: h.pread_structured(5, 0, lambda view, offset, status, error: print(bytes(view), offset, status)))
show("df", lambda: h.pread_structured(5, 0, lambda *a: 0, nbd.CMD_FLAG_DF))

### old handshakes
for flags in (0, 1, 2, 3):
    h = nbd.NBD()
    h.set_handshake_flags(flags)
    show(flags, lambda: (h.connect_uri(uri), h.get_protocol(), h.get_size(), len(h.pread(512, 0))))

### ways that lead nowhere
def attempt(connect):
    h = nbd.NBD()
    show("connect", lambda: connect(h))
    show("created or dead", lambda: (h.aio_is_created(), h.aio_is_dead()))
attempt(lambda h: h.connect_unix("/nonexistent"))
attempt(lambda h: h.connect_tcp("127.0.0.1", "1"))
attempt(lambda h: h.connect_socket(-1))
attempt(lambda h: h.connect_uri("nothing"))
attempt(lambda h: h.connect_uri("foo://x"))
attempt(lambda h: h.connect_command([]))
attempt(lambda h: h.connect_command(["false"]))
attempt(lambda h: (h.set_uri_allow_transports(nbd.ALLOW_TRANSPORT_TCP), h.connect_uri("nbd+unix:///?socket=/x")))
attempt(lambda h: (h.set_uri_allow_tls(nbd.TLS_DISABLE), h.connect_uri("nbds://x")))
attempt(lambda h: (h.set_uri_allow_tls(nbd.TLS_REQUIRE), h.connect_uri("nbd://x")))
attempt(lambda h: h.connect_uri("nbds://x/?tls-psk-file=/x"))
attempt(lambda h: (h.set_tls(nbd.TLS_REQUIRE), h.connect_uri(uri)))

### servers of one's own
import socket
h = nbd.NBD()
h.connect_command(["nbdkit", "-s", "--exit-with-parent", "memory", "1M"])
show("command", h.get_size)
show("uri", h.get_uri)
h.pwrite(b"mine", 0)
show("read", lambda: h.pread(4, 0))
h.shutdown()
h = nbd.NBD()
h.connect_systemd_socket_activation(["nbdkit", "memory", "2M"])
show("activated", h.get_size)
show("uri", lambda: h.get_uri().startswith("nbd+unix://"))
show("kill", lambda: h.kill_subprocess(0))
s = socket.socket(socket.AF_UNIX)
s.connect(uri.split("socket=")[1])
h = nbd.NBD()
h.connect_socket(s.detach())
show("socket", h.get_size)

### the exception
e = nbd.Error("a sentence", 2)
show("fields", lambda: (e.string, e.errno, e.errnum, str(e), repr(e)))
e = nbd.Error("a sentence", 0)
show("no number", lambda: (e.string, e.errno, e.errnum, str(e)))
show("is", lambda: isinstance(e, Exception))
show("notsup", lambda: nbd.Error("x", 95).errno)

### constants
for name in sorted(dir(nbd)):
    if name.isupper() and not name.endswith("MASK") and name not in THEIRS_NOT:
        print(name, repr(getattr(nbd, name)))

### every method
for name in sorted(dir(nbd.NBD)):
    if not name.startswith("_") and not name.startswith("async_") and name not in THEIRS_NOT:
        print(name)

### every signature
import inspect
for kind in (nbd.NBD, nbd.Buffer):
    for name in sorted(dir(kind)):
        if name != "__init__" and name != "__len__" and (name[:1] == "_" or name.startswith("async_") or name in THEIRS_NOT):
            continue
        call = getattr(kind, name)
        parameters = [(p.name, None if p.default is p.empty else repr(p.default)) for p in inspect.signature(call).parameters.values()]
        print(kind.__name__, name, parameters, bool(inspect.getdoc(call)))
    show(kind.__name__, lambda: (kind.__mro__[-1] is object, kind.__module__, bool(kind.__doc__)))
show("too many", lambda: nbd.NBD(3))
show("too few", lambda: nbd.Buffer())
class Named(nbd.NBD):
    def __init__(self, name):
        super().__init__()
        self.set_handle_name(name)
show("one's own", lambda: Named("mine").get_handle_name())
show("keyword", lambda: Named("mine").set_export_name(export_name="x"))
show("wrong keyword", lambda: Named("mine").set_export_name(name="x"))
show("missing", lambda: Named("mine").pread(512))
show("text for a number", lambda: Named("mine").set_tls("x"))
show("bytes for a path", lambda: Named("mine").connect_unix(b"/nonexistent"))
show("bytes for keys", lambda: Named("mine").set_tls_psk_file(b"/nonexistent"))
show("a number for a path", lambda: Named("mine").set_tls_certificates(7))
show("bytes for text", lambda: Named("mine").set_export_name(b"x"))

### arguments of every kind
import inspect
kinds = [None, -1, 1.5, 1 << 31, "", "x", "a\0b", b"x", b"a\0b", [], [1], ["a\0b"], ("x",), {}, {"x"}, object(), len,
         bytearray(512), bytearray(0), memoryview(bytearray(512)), True]
fitting = {"count": 512, "offset": 0, "completion": None, "flags": 0, "chunk": lambda *a: 0, "extent": lambda *a: 0}
def outcome(call):
    try:
        result = call()
        return repr(result) if isinstance(result, (int, str, bool, type(None))) else type(result).__name__
    except nbd.Error as e:
        return "nbd.Error " + str(e.errno)
    except Exception as e:
        return type(e).__name__
# What may start or reach something, and what waits, has its turns elsewhere; ours keeps 64 bits of private data, the peer 32.
elsewhere = {"set_private_data", "kill_subprocess", "poll", "set_debug", "connect_vsock", "aio_connect_vsock", "connect_socket", "aio_connect_socket"}
for name in sorted(dir(nbd.NBD)):
    if name[:1] == "_" or name.startswith("async_") or name in THEIRS_NOT or name in elsewhere:
        continue
    parameters = [p.name for p in list(inspect.signature(getattr(nbd.NBD, name)).parameters.values())[1:]]
    for place, parameter in enumerate(parameters):
        for connect in (False, True):
            h = None
            for number, kind in enumerate(kinds):
                if "connect" in name and (connect or kind in ("x", b"x", "a\0b", ["a\0b"])):
                    continue
                if h is None or "aio" in name or "opt" in name or not connect or not h.aio_is_ready():
                    h = connected() if connect else nbd.NBD()
                buf = nbd.Buffer(512) if name.startswith("aio_") else bytes(512)
                given = [fitting.get(other, buf if other == "buf" else 0) for other in parameters]
                given[place] = kind
                print(name, parameter, number, connect, outcome(lambda: getattr(h, name)(*given)))
for number, kind in enumerate(kinds):
    for call in (nbd.Buffer, nbd.Buffer.from_bytearray, nbd.Buffer.from_buffer, nbd.Buffer(9).is_zero,
                 lambda size: nbd.Buffer.from_bytearray(bytes(9)).is_zero(1, size)):
        if kind != 1 << 31:
            print(getattr(call, "__name__", "part"), number, outcome(lambda: call(kind)))
h = nbd.NBD()
for mask in (~nbd.STRICT_BOUNDS, -1, 1 << 31):
    print(mask, outcome(lambda: h.set_strict_mode(mask)), outcome(lambda: h.set_handshake_flags(mask)), outcome(lambda: h.set_uri_allow_transports(mask)))
for size in (-1, -2, 0, 5, 9, 10, 1 << 62):
    for offset in (-1, 0, 5, 9, 10):
        if size or 0 <= offset < 10:
            print(offset, size, outcome(lambda: nbd.Buffer.from_bytearray(bytes(9)).is_zero(offset, size)))

### a backup tool's loop
h = connected("base:allocation")
h.zero(1 << 20, 0)
for i in range(0, 16, 3):
    h.pwrite(bytes([i + 1]) * 4096, i * 65536)
image, offset, size = bytearray(1 << 20), 0, h.get_size()
while offset < size:
    found = []
    h.block_status(size - offset, offset, lambda c, o, e, r: found.extend(e) if c == nbd.CONTEXT_BASE_ALLOCATION else None)
    for length, status in zip(found[0::2], found[1::2]):
        length = min(length, size - offset)
        if not status & nbd.STATE_ZERO:
            image[offset:offset + length] = h.pread(length, offset)
        offset += length
show("same", lambda: bytes(image) == bytes(h.pread(size, 0)))
