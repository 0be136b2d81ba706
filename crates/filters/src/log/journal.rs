//! Where the lines of `log` go: what threads note becomes lines in a buffer that one thread writes to the file and hands
//! to the script, so that no request waits for a disk or a shell.

use super::{
    line::{Line, Text},
    notes::{Note, Notes, Waiting},
    sheet::Sheet,
};
use crate::common::per_thread::PerThread;
use disk::{Error, Result};
use rustix::time::{ClockId, clock_gettime};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    fs::{File, OpenOptions},
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// While lines come fast, the file is at most this far behind them.
const BEHIND: Duration = Duration::from_millis(1);
/// So often the writer looks in vain before it sleeps.
const IDLE: u32 = 16;
/// When so much waits to be written, requests wait too.
const MOST_BYTES: usize = 4 << 20;
const MOST_SCRIPTS: usize = 1024;

/// A log with its destinations.
pub(super) struct Journal {
    path: Option<PathBuf>,
    append: bool,
    script: Option<String>,
    notes: PerThread<Notes>,
    /// Nobody looks for notes by itself: the writer sleeps, or there is none.
    asleep: AtomicBool,
    pending: Mutex<Pending>,
    /// The writer has something to do.
    work: Condvar,
    /// Less is pending now.
    room: Condvar,
    out: Mutex<Out>,
}

#[derive(Default)]
struct Pending {
    sheet: Sheet,
    /// From the machine's own clock to the time since 1970, in nanoseconds.
    offset: u64,
    /// Of the last line, by the machine's own clock.
    last: u64,
    text: Text,
    scripts: VecDeque<String>,
    writer: Option<JoinHandle<()>>,
    stop: bool,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.text.0.is_empty() && self.scripts.is_empty()
    }

    /// Whether requests should wait; without a writer nothing stays pending.
    fn is_full(&self) -> bool {
        self.writer.is_some() && (self.text.0.len() > MOST_BYTES || self.scripts.len() > MOST_SCRIPTS)
    }
}

#[derive(Default)]
struct Out {
    file: Option<File>,
    /// Empty between two writes; its room and that of what is pending are used in turn.
    text: Text,
    /// Each kind of trouble is told once.
    file_failed: bool,
    script_failed: bool,
}

impl Journal {
    pub(super) fn new(path: Option<PathBuf>, append: bool, script: Option<String>) -> Arc<Journal> {
        Arc::new(Journal {
            path,
            append,
            script,
            notes: PerThread::new(),
            asleep: AtomicBool::new(true),
            pending: Mutex::default(),
            work: Condvar::new(),
            room: Condvar::new(),
            out: Mutex::default(),
        })
    }

    /// Opens the file.
    pub(super) fn open(&self) -> Result<()> {
        if let Some(path) = &self.path {
            let mut options = OpenOptions::new();
            options.create(true).write(true).append(self.append).truncate(!self.append);
            let file = options.open(path).map_err(|e| self.file_error(e))?;
            lock(&self.out).file = Some(file);
        }
        Ok(())
    }

    /// From now on a thread writes. Before, every line is written at once.
    pub(super) fn start_writing(self: &Arc<Self>) -> Result<()> {
        let journal = self.clone();
        let writer = std::thread::Builder::new().name("log".into()).spawn(move || journal.write_on())?;
        lock(&self.pending).writer = Some(writer);
        Ok(())
    }

    /// Notes a request, or its success, with the time now: a line soon. `make` is told the number of the thread; what
    /// comes back is the number of the request, and nothing larger: see `Notes::push`.
    #[inline]
    pub(super) fn note(&self, make: impl Fn(u64) -> Note + Copy) -> u64 {
        let time = now();
        let mut id = self.notes.with(|notes| notes.push(time, make));
        if id == 0 {
            id = self.note_later(time, make);
        }
        if self.asleep.load(SeqCst) {
            self.wake(lock(&self.pending));
        }
        id
    }

    /// The number of this thread.
    pub(super) fn thread(&self) -> u64 {
        self.notes.with(|notes| notes.thread)
    }

    /// Makes lines of all notes, so that there is room for another one.
    #[cold]
    fn note_later(&self, time: u64, make: impl Fn(u64) -> Note) -> u64 {
        // Under the lock, so that nobody's line comes between.
        let _pending = self.gathered();
        self.notes.with(|notes| notes.push(time, make))
    }

    /// Logs a line.
    pub(super) fn write(&self, line: Line, what: impl Fn(&mut Text) -> &mut Text) {
        let mut guard = self.gathered();
        let pending = &mut *guard;
        if self.path.is_some() {
            let now = pending.last.wrapping_add(pending.offset);
            pending.text.0.extend_from_slice(pending.sheet.time(now));
            line.append_text(&mut pending.text, &what);
        }
        if let Some(script) = &self.script {
            pending.scripts.push_back(line.variables(&what) + script);
        }
        if self.asleep.load(SeqCst) {
            self.wake(guard);
        }
    }

    /// Sees to it that what is pending, or noted, gets written.
    #[cold]
    fn wake(&self, mut pending: MutexGuard<'_, Pending>) {
        if pending.writer.is_some() {
            self.asleep.store(false, SeqCst);
            self.work.notify_one();
        } else {
            self.gather(&mut pending);
            self.flush(pending);
        }
    }

    /// What is pending, when all notes have become lines and there is room.
    fn gathered(&self) -> MutexGuard<'_, Pending> {
        let mut pending = lock(&self.pending);
        while !self.gather(&mut pending) {
            let waited = self.room.wait_while(pending, |pending| pending.is_full());
            pending = waited.unwrap_or_else(PoisonError::into_inner);
        }
        pending
    }

    /// Makes lines of the notes of all threads in the order of their times, as far as there is room. What came before in
    /// any way that somebody could see is older than the moment of the call, and noted.
    fn gather(&self, pending: &mut Pending) -> bool {
        let until = now();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        pending.offset = (since_1970.as_nanos() as u64).wrapping_sub(until);
        let all = self.notes.look(|all| {
            let mut threads: Vec<Waiting<'_>> = all.map(Notes::waiting).collect();
            let next = |thread: &Waiting<'_>| thread.peek().map(|note| note.time);
            let mut order: BinaryHeap<_> = threads
                .iter()
                .enumerate()
                .filter_map(|(i, thread)| Some(Reverse((next(thread)?, i))))
                .collect();
            while let Some(Reverse((_, i))) = order.pop() {
                let others = order.peek().map_or(until, |Reverse((time, _))| until.min(*time));
                let thread = &mut threads[i];
                while let Some(note) = thread.peek().filter(|note| note.time <= others) {
                    if pending.is_full() {
                        return false;
                    }
                    self.add(pending, &note);
                    thread.skip();
                }
                if let Some(time) = next(thread).filter(|time| *time <= until) {
                    order.push(Reverse((time, i)));
                }
            }
            true
        });
        if all {
            pending.last = pending.last.max(until);
        }
        all
    }

    /// The line of a note.
    #[inline]
    fn add(&self, pending: &mut Pending, note: &Note) {
        // Times never run backwards in the file.
        pending.last = pending.last.max(note.time);
        if self.path.is_some() {
            let now = pending.last.wrapping_add(pending.offset);
            pending.text.0.extend_from_slice(pending.sheet.line(now, note));
        }
        if let Some(script) = &self.script {
            pending.scripts.push_back(note.line().variables(|out| note.say(out)) + script);
        }
    }

    /// Writes what is left and ends the thread.
    pub(super) fn finish(&self) {
        let writer = {
            let mut pending = lock(&self.pending);
            pending.stop = true;
            self.work.notify_one();
            pending.writer.take()
        };
        if let Some(writer) = writer {
            // The thread does not panic; if it did, that has been said on standard error.
            let _ = writer.join();
        }
        self.asleep.store(true, SeqCst);
        self.wake(lock(&self.pending));
    }

    fn write_on(&self) {
        let mut idle = 0;
        let mut pending = lock(&self.pending);
        loop {
            self.gather(&mut pending);
            if !pending.is_empty() {
                self.asleep.store(false, SeqCst);
                idle = 0;
                self.flush(pending);
                pending = lock(&self.pending);
            } else if pending.stop {
                return;
            }
            if pending.stop {
                continue;
            }
            idle += 1;
            if idle == IDLE {
                self.asleep.store(true, SeqCst);
            }
            pending = if idle > IDLE {
                idle = 0;
                // A note by a thread that could not see yet that it has to wake the writer would have been seen by now.
                let asleep = |pending: &mut Pending| self.asleep.load(SeqCst) && !pending.stop;
                self.work.wait_while(pending, asleep).unwrap_or_else(PoisonError::into_inner)
            } else {
                // What comes meanwhile needs no wake-up, and is written together.
                self.work.wait_timeout(pending, BEHIND).unwrap_or_else(PoisonError::into_inner).0
            };
        }
    }

    /// Writes what is pending; who comes second waits for the first, so that the order stays.
    fn flush(&self, mut pending: MutexGuard<'_, Pending>) {
        let scripts = std::mem::take(&mut pending.scripts);
        let mut out = lock(&self.out);
        let out = &mut *out;
        std::mem::swap(&mut pending.text, &mut out.text);
        drop(pending);
        self.room.notify_all();
        if let Some(file) = &mut out.file
            && let Err(e) = file.write_all(&out.text.0)
            && !std::mem::replace(&mut out.file_failed, true)
        {
            eprintln!("log: {}", self.file_error(e));
        }
        out.text.0.clear();
        for script in scripts {
            if let Err(e) = run(&script)
                && !std::mem::replace(&mut out.script_failed, true)
            {
                eprintln!("log: the script of logscript cannot be run: {e}");
            }
        }
    }

    fn file_error(&self, e: std::io::Error) -> Error {
        let path = self.path.as_deref().unwrap_or_else(|| "".as_ref());
        Error::from(e).context(format!("logfile={}", path.display()))
    }
}

/// Nanoseconds since the machine started.
#[inline]
fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Runs a script. What it makes of the line, and its exit status, are its own business.
fn run(script: &str) -> std::io::Result<()> {
    Command::new("bash").arg("-c").arg(script).stdin(Stdio::null()).status().map(drop)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
