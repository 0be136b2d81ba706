//! Guards of the fast path that no machine's speed can blur: what requests that are ready allocate, how often the
//! server sends, and how much memory a connection may take.

use disk::{Backend, Client as Who, Data, Disk, Facts, Io, Range, WriteFlags};
use diskpipe_server::Server;
use net::{Address, Listener, Stream, Wait};
use proto::{Command, CommandFlags, HeaderStyle, Request, handshake::oldstyle};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// Bytes that this thread has taken and not given back, now and at most.
    static BYTES: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

struct Counting;

fn count(bytes: isize) {
    let _ = BYTES.try_with(|counted| {
        let (now, most) = counted.get();
        counted.set((now + bytes, most.max(now + bytes)));
    });
}

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
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

/// Serves `far` on a thread; it tells how many bytes of the heap it had at most.
fn serve(disk: Watching, far: Stream) -> JoinHandle<isize> {
    let options = diskpipe_server::Options { oldstyle: true, ..Default::default() };
    let server = Server::with_options(Arc::new(One(Arc::new(disk))), options).unwrap();
    std::thread::spawn(move || {
        server.serve_stream(far);
        BYTES.get().1
    })
}

fn requests(command: Command, n: u64, length: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for cookie in 0..n {
        let request = Request { flags: CommandFlags::NONE, command, cookie, offset: 4096 * cookie, length };
        request.encode_into(HeaderStyle::Compact, &mut out);
        if command == Command::Write {
            out.resize(out.len() + length as usize, 1);
        }
    }
    out
}

#[test]
fn a_ready_request_allocates_nothing() {
    const ROUNDS: usize = 200;
    const AT_ONCE: usize = 16;
    let notes = Arc::new(Mutex::new(Vec::with_capacity(ROUNDS * AT_ONCE * 2)));
    let (stream, far) = Stream::pair().unwrap();
    let thread = serve(Watching(Facts::writable(1 << 20), notes.clone()), far);
    receive(&stream, oldstyle::GREETING_LEN);

    for round in 0..ROUNDS {
        let (command, reply) = match round % 2 {
            0 => (Command::Read, 16 + 4096),
            _ => (Command::Write, 16),
        };
        stream.send_all(&requests(command, AT_ONCE as u64, 4096)).unwrap();
        receive(&stream, reply * AT_ONCE);
    }
    drop(stream);
    thread.join().unwrap();

    let notes = notes.lock().unwrap();
    assert_eq!(notes.len(), ROUNDS * AT_ONCE);
    let warm = notes[notes.len() / 4];
    assert_eq!(notes.last(), Some(&warm), "allocations after the first quarter of the requests");
}

#[test]
fn requests_that_come_together_are_answered_together() {
    const AT_ONCE: usize = 64;
    // Here every send is a packet, and every receive takes one.
    let (near, far) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let thread = serve(Watching(Facts::writable(1 << 20), Arc::default()), Stream::from_socket(far).unwrap());
    let near = Stream::from_socket(near).unwrap();
    receive(&near, oldstyle::GREETING_LEN);
    let mut room = vec![0; 1 << 20];
    for (command, length, reply) in [(Command::Read, 1024, 16 + 1024), (Command::Write, 1024, 16)] {
        for _ in 0..10 {
            near.send_all(&requests(command, AT_ONCE as u64, length)).unwrap();
            assert_eq!(near.recv(&mut room, Wait::Block).unwrap(), AT_ONCE * reply);
        }
    }
    drop(near);
    thread.join().unwrap();
}

#[test]
fn a_connection_takes_little_memory_however_much_it_asks_for() {
    const READS: u64 = 256;
    const LEN: u64 = 256 << 10;
    let (stream, far) = Stream::pair().unwrap();
    let thread = serve(Watching(Facts::writable(READS * 4096 + LEN), Arc::default()), far);
    receive(&stream, oldstyle::GREETING_LEN);
    // All of 64 MiB is asked for before anything is taken.
    stream.send_all(&requests(Command::Read, READS, LEN)).unwrap();
    receive(&stream, READS as usize * (16 + LEN as usize));
    drop(stream);
    let most = thread.join().unwrap();
    assert!((LEN as isize..4 * LEN as isize).contains(&most), "{most} bytes of heap");
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

/// Its opening needs more of the stack than a connection ever does afterwards, and tells where that is.
struct Deep(Arc<Mutex<usize>>);
impl Backend for Deep {
    fn open<'a>(&'a self, _: &'a Who<'a>) -> Io<'a, Arc<dyn Disk>> {
        let used = std::hint::black_box([1u8; 96 << 10]);
        *self.0.lock().unwrap() = used.as_ptr().addr();
        Io::ok(Arc::new(Watching(Facts::writable(1 << 20), Arc::default())))
    }
}

/// How much memory the piece of this process takes in which `address` lies, in KiB.
fn resident(address: usize) -> usize {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (first, second) = (words.next().unwrap(), words.next());
        if let Some((from, to)) = first.split_once('-') {
            let [from, to] = [from, to].map(|text| usize::from_str_radix(text, 16).unwrap());
            inside = (from..to).contains(&address);
        } else if inside && first == "Rss:" {
            return second.unwrap().parse().unwrap();
        }
    }
    panic!("nothing is at {address:x}");
}

#[test]
fn an_idle_connection_gives_back_the_stack_that_opening_took() {
    let place = Arc::new(Mutex::new(0));
    let options = diskpipe_server::Options { oldstyle: true, ..Default::default() };
    let server = Arc::new(Server::with_options(Arc::new(Deep(place.clone())), options).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let listeners = [Listener::unix(&dir.path().join("socket"), true).unwrap()];
    let serving = std::thread::spawn({
        let server = server.clone();
        move || server.serve(&listeners).unwrap()
    });
    let stream = net::connect(&Address::Unix(dir.path().join("socket")), None).unwrap();
    receive(&stream, oldstyle::GREETING_LEN);
    let address = *place.lock().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while resident(address) > 64 {
        assert!(Instant::now() < end, "it still takes {} KiB", resident(address));
        std::thread::sleep(Duration::from_millis(50));
    }
    // And the connection goes on.
    stream.send_all(&requests(Command::Read, 1, 512)).unwrap();
    receive(&stream, 16 + 512);
    drop(stream);
    server.stop();
    serving.join().unwrap();
}
