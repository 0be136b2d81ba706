//! Where the lines of `log` go: what threads note becomes lines in a buffer that one thread writes to the file and hands
//! to the script, so that no request waits for a disk or a shell.

use super::{
    line::{Line, Text},
    notes::{self, NOWHERE, Note, Notes, Waiting},
    sheet::{Paper, Sheet},
    time::Time,
};
use disk::{Error, Result, ticks};
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
    time::Duration,
};
use thread_local::ThreadLocal;

/// While lines come fast, the file is at most this far behind them. Waking a thread may take as long as a hundred requests.
const BEHIND: Duration = Duration::from_millis(5);
/// So often the writer looks in vain before it sleeps.
const IDLE: u32 = 16;
/// The writer makes and writes as much text at once, while it is in the processor's nearer caches.
const AT_ONCE: usize = 64 << 10;
/// When so much waits to be written, requests wait too.
const MOST_BYTES: usize = 4 << 20;
const MOST_SCRIPTS: usize = 1024;

/// A log with its destinations.
pub(super) struct Journal {
    path: Option<PathBuf>,
    append: bool,
    script: Option<String>,
    notes: ThreadLocal<Notes>,
    /// Nobody looks for notes by itself: the writer sleeps, or there is none.
    asleep: AtomicBool,
    pending: Mutex<Pending>,
    /// The writer has something to do.
    work: Condvar,
    /// Less is pending now.
    room: Condvar,
    out: Mutex<Out>,
}

struct Pending {
    sheet: Sheet,
    time: Time,
    text: Paper,
    /// Where a line is put together that is none of a note.
    line: Text,
    scripts: VecDeque<String>,
    writer: Option<JoinHandle<()>>,
    stop: bool,
}

impl Pending {
    fn new() -> Pending {
        Pending {
            sheet: Sheet::default(),
            time: Time::new(),
            text: Paper::default(),
            line: Text::default(),
            scripts: VecDeque::new(),
            writer: None,
            stop: false,
        }
    }

    fn is_empty(&self) -> bool {
        self.text.len() == 0 && self.scripts.is_empty()
    }

    /// Whether so much text waits, or so many scripts; without a writer nothing stays pending.
    fn has(&self, most: usize) -> bool {
        self.writer.is_some() && (self.text.len() > most || self.scripts.len() > MOST_SCRIPTS)
    }
}

#[derive(Default)]
struct Out {
    file: Option<File>,
    /// Empty between two writes; its room and that of what is pending are used in turn.
    text: Paper,
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
            notes: ThreadLocal::new(),
            asleep: AtomicBool::new(true),
            pending: Mutex::new(Pending::new()),
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

    /// The notes of this thread.
    #[inline]
    pub(super) fn notes(&self) -> &Notes {
        self.notes.get_or_default()
    }

    /// Notes on this thread that a request comes, or apart from that, that it was answered: a line soon. Returns the
    /// place of the note.
    #[inline(always)]
    pub(super) fn comes(&self, notes: &Notes, note: Note) -> u64 {
        let time = ticks::now();
        let place = match notes.push(time, note) {
            Some(place) => place,
            None => self.push_later(time, note),
        };
        if notes::is_end_of_part(place) {
            self.hurry(notes);
        }
        self.see_to_it();
        place
    }

    /// Notes at its place that a request was answered with success; `false` when that is to be a note of its own.
    #[inline(always)]
    pub(super) fn answered(&self, notes: &Notes, place: u64) -> bool {
        let added = notes.answer(place, ticks::now());
        self.see_to_it();
        added
    }

    /// Wakes the writer before its time if it is needed.
    #[cold]
    fn hurry(&self, notes: &Notes) {
        if notes.are_many() {
            self.work.notify_one();
        }
    }

    /// There is no room for the note: makes lines of all, and of this one.
    #[cold]
    fn push_later(&self, time: u64, note: Note) -> u64 {
        self.add(&mut self.gathered(), time, &note);
        NOWHERE
    }

    /// Wakes the writer if it sleeps.
    #[inline(always)]
    fn see_to_it(&self) {
        if self.asleep.load(SeqCst) {
            self.wake_up();
        }
    }

    #[cold]
    fn wake_up(&self) {
        self.wake(lock(&self.pending));
    }

    /// Logs a line.
    pub(super) fn write(&self, line: Line, what: impl Fn(&mut Text) -> &mut Text) {
        let mut guard = self.gathered();
        let pending = &mut *guard;
        if self.path.is_some() {
            let now = pending.time.now();
            pending.text.put(|room| pending.sheet.time(room, now));
            line.append_text(&mut pending.line, &what);
            pending.text.add(&pending.line.0);
            pending.line.0.clear();
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
            self.gather(&mut pending, MOST_BYTES);
            self.flush(pending);
        }
    }

    /// What is pending, when all notes have become lines and there is room.
    fn gathered(&self) -> MutexGuard<'_, Pending> {
        let mut pending = lock(&self.pending);
        while !self.gather(&mut pending, MOST_BYTES) {
            let waited = self.room.wait_while(pending, |pending| pending.has(MOST_BYTES));
            pending = waited.unwrap_or_else(PoisonError::into_inner);
        }
        pending
    }

    /// Makes lines of the notes of all threads in the order of their times, until there is so much text; whether that
    /// were all. What came before in any way that somebody could see is older than the moment of the call, and noted.
    fn gather(&self, pending: &mut Pending, most: usize) -> bool {
        let until = pending.time.look();
        let mut threads: Vec<Waiting<'_>> = self.notes.iter().map(Notes::waiting).collect();
        let mut order: BinaryHeap<_> = threads
            .iter_mut()
            .enumerate()
            .filter_map(|(i, thread)| thread.peek().map(|(time, _)| Reverse((time, i))))
            .collect();
        while let Some(Reverse((_, i))) = order.pop() {
            let others = order.peek().map_or(until, |Reverse((time, _))| until.min(*time));
            let thread = &mut threads[i];
            while let Some((time, note)) = thread.peek() {
                if time > others {
                    if time <= until {
                        order.push(Reverse((time, i)));
                    }
                    break;
                }
                if pending.has(most) {
                    return false;
                }
                self.add(pending, time, &note);
                thread.skip(&note);
            }
        }
        pending.time.all_is_told();
        true
    }

    /// The line of a note.
    #[inline]
    fn add(&self, pending: &mut Pending, ticks: u64, note: &Note) {
        if self.path.is_some() {
            let time = pending.time.of(ticks);
            pending.text.put(|room| pending.sheet.line(room, time, note));
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
            let all = self.gather(&mut pending, AT_ONCE);
            if !pending.is_empty() {
                self.asleep.store(false, SeqCst);
                idle = 0;
                self.flush(pending);
                pending = lock(&self.pending);
            } else if pending.stop {
                return;
            }
            if pending.stop || !all {
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
            && let Err(e) = file.write_all(out.text.text())
            && !std::mem::replace(&mut out.file_failed, true)
        {
            eprintln!("log: {}", self.file_error(e));
        }
        out.text.clear();
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

/// Runs a script. What it makes of the line, and its exit status, are its own business.
fn run(script: &str) -> std::io::Result<()> {
    Command::new("bash").arg("-c").arg(script).stdin(Stdio::null()).status().map(drop)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
