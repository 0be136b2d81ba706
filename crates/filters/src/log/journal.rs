//! Where the lines of `log` go: into a buffer that one thread writes to the file and hands to the script, so that no
//! request waits for a disk or a shell.

use super::line::{Clock, Line, Text};
use disk::{Error, Result};
use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

/// While lines come fast, the file is at most this far behind them.
const BEHIND: Duration = Duration::from_millis(1);
/// When so much waits to be written, requests wait too.
const MOST_BYTES: usize = 4 << 20;
const MOST_SCRIPTS: usize = 1024;

/// A log with its destinations.
pub(super) struct Journal {
    path: Option<PathBuf>,
    append: bool,
    script: Option<String>,
    pending: Mutex<Pending>,
    /// Something is pending and the writer sleeps.
    work: Condvar,
    /// Less is pending now.
    room: Condvar,
    out: Mutex<Out>,
}

#[derive(Default)]
struct Pending {
    clock: Clock,
    text: Text,
    scripts: VecDeque<String>,
    writer: Option<JoinHandle<()>>,
    asleep: bool,
    stop: bool,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.text.0.is_empty() && self.scripts.is_empty()
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

    /// Logs a line.
    pub(super) fn write(&self, line: Line, what: impl Fn(&mut Text) -> &mut Text) {
        let mut guard = lock(&self.pending);
        while guard.writer.is_some()
            && (guard.text.0.len() > MOST_BYTES || guard.scripts.len() > MOST_SCRIPTS)
        {
            guard = self.room.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        let pending = &mut *guard;
        if self.path.is_some() {
            // Under the lock, so that times never run backwards in the file.
            pending.clock.append(&mut pending.text);
            line.append_text(&mut pending.text, &what);
        }
        if let Some(script) = &self.script {
            pending.scripts.push_back(line.variables(&what) + script);
        }
        if pending.writer.is_none() {
            self.flush(guard);
        } else if std::mem::take(&mut pending.asleep) {
            self.work.notify_one();
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
        self.flush(lock(&self.pending));
    }

    fn write_on(&self) {
        loop {
            let mut pending = lock(&self.pending);
            while pending.is_empty() && !pending.stop {
                pending.asleep = true;
                pending = self.work.wait(pending).unwrap_or_else(PoisonError::into_inner);
            }
            pending.asleep = false;
            if pending.stop && pending.is_empty() {
                return;
            }
            let stop = pending.stop;
            self.flush(pending);
            if !stop {
                // Lines that come meanwhile need no wake-up, and are written together.
                std::thread::sleep(BEHIND);
            }
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

/// Runs a script. What it makes of the line, and its exit status, are its own business.
fn run(script: &str) -> std::io::Result<()> {
    Command::new("bash").arg("-c").arg(script).stdin(Stdio::null()).status().map(drop)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
