//! A guard of the fast path that no machine's speed can blur: requests that are ready allocate nothing.

use disk::{Backend, Client as Who, Data, Disk, Facts, Io, Range, WriteFlags};
use diskpipe_server::Server;
use net::{Stream, Wait};
use proto::{Command, CommandFlags, HeaderStyle, Request, handshake::oldstyle};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::{Arc, Mutex},
};

thread_local! { static ALLOCATIONS: Cell<u64> = const { Cell::new(0) }; }

struct Counting;

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Notes at every request how much its thread, the connection's, has allocated so far.
struct Watching(Facts, Arc<Mutex<Vec<u64>>>);

impl Watching {
    fn note(&self) {
        let now = ALLOCATIONS.with(Cell::get);
        self.1.lock().unwrap().push(now);
    }
}

impl Disk for Watching {
    fn facts(&self) -> &Facts {
        &self.0
    }
    fn read(&self, r: Range) -> Io<'_, Data> {
        self.note();
        Io::ok(Data::fill(r.len as usize, |b| b.fill(7)))
    }
    fn write(&self, _: u64, _: Data, _: WriteFlags) -> Io<'_, ()> {
        self.note();
        Io::ok(())
    }
}

struct One(Arc<Watching>);
impl Backend for One {
    fn open<'a>(&'a self, _: &'a Who<'a>) -> Io<'a, Arc<dyn Disk>> {
        Io::ok(self.0.clone())
    }
}

#[test]
fn a_ready_request_allocates_nothing() {
    const ROUNDS: usize = 200;
    const AT_ONCE: usize = 16;
    let notes = Arc::new(Mutex::new(Vec::with_capacity(ROUNDS * AT_ONCE * 2)));
    let disk = Arc::new(Watching(Facts::writable(1 << 20), notes.clone()));
    let (stream, far) = Stream::pair().unwrap();
    let options = diskpipe_server::Options { oldstyle: true, ..Default::default() };
    let server = Server::with_options(Arc::new(One(disk)), options).unwrap();
    let thread = std::thread::spawn(move || server.serve_stream(far));
    receive(&stream, oldstyle::GREETING_LEN);

    for round in 0..ROUNDS {
        let (command, payload, reply) = match round % 2 {
            0 => (Command::Read, 0, 16 + 4096),
            _ => (Command::Write, 4096, 16),
        };
        let mut out = Vec::new();
        for cookie in 0..AT_ONCE as u64 {
            let flags = CommandFlags::NONE;
            Request { flags, command, cookie, offset: 4096 * cookie, length: 4096 }
                .encode_into(HeaderStyle::Compact, &mut out);
            out.resize(out.len() + payload, 1);
        }
        stream.send_all(&out).unwrap();
        receive(&stream, reply * AT_ONCE);
    }
    drop(stream);
    thread.join().unwrap();

    let notes = notes.lock().unwrap();
    assert_eq!(notes.len(), ROUNDS * AT_ONCE);
    let warm = notes[notes.len() / 4];
    assert_eq!(notes.last(), Some(&warm), "allocations after the first quarter of the requests");
}

fn receive(stream: &Stream, mut len: usize) {
    let mut room = [0; 4096];
    while len > 0 {
        let most = room.len().min(len);
        let n = stream.recv(&mut room[..most], Wait::Block).unwrap();
        assert_ne!(n, 0, "the server closed");
        len -= n;
    }
}
