//! `trace`: writes down in which order a disk is read, for `prefetch`.

pub(crate) mod file;

use crate::common::wrap::each;
use disk::{
    Around, Backend, Client, Disk, Error, Facts, Filter, Io, Range, Result,
    shapes::{Op, OpKind, around::EveryRequest},
};
use file::{UNIT, Writer};
use params::Params;
use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};
use store::lock::Lock;
use thread_local::ThreadLocal;

/// Write down in which order a disk is read.
#[derive(Params)]
pub(crate) struct Trace {
    /// The file to write; it is made anew when the server starts.
    trace_file: PathBuf,
}

impl Filter for Trace {
    const NAME: &'static str = "trace";
    const MANUAL: &'static str = include_str!("trace.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        let notes = Arc::new(Notes::new(self.trace_file));
        let own = notes.clone();
        let next = each(next, move |disk, client: &Client<'_>| {
            Ok(if own.is_of(client.export, disk.facts())? {
                Arc::new(Around::new(Noting(own.clone()), disk)) as Arc<dyn Disk>
            } else {
                disk
            })
        });
        Ok(Recording { notes, next })
    }
}

struct Recording<B> {
    notes: Arc<Notes>,
    next: B,
}

impl<B: Backend> Backend for Recording<B> {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.next.open(client)
    }
    fn get_ready(&self) -> Result<()> {
        self.next.get_ready()?;
        let (file, lock) = new_file(&self.notes.path).map_err(|e| self.notes.error(e))?;
        let mut state = self.notes.state();
        (state.file, state._lock) = (Some(file), lock);
        Ok(())
    }
    fn finish(&self) {
        self.next.finish();
        self.notes.end();
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&self.next)
    }
}

/// The file, empty, and its lock if it is one to be locked: two traces at once would make nonsense of it.
fn new_file(path: &Path) -> Result<(File, Option<Lock>)> {
    let file = File::options().write(true).create(true).truncate(false).open(path)?;
    if !file.metadata()?.is_file() {
        return Ok((file, None));
    }
    let lock = Lock::take(&file, true, "the filter trace")?;
    file.set_len(0)?;
    Ok((file, Some(lock)))
}

/// So many notes of a thread are put among those of the others at once.
const AT_ONCE: usize = 64;
/// So many wait at most, for another thread that is doing that.
const MOST_WAITING: usize = 4096;

/// What is written down, of all connections together.
struct Notes {
    path: PathBuf,
    /// What threads have noted, and is not in order yet: so they seldom need the lock of all.
    recent: ThreadLocal<Mutex<Vec<Note>>>,
    /// The number of the next note.
    next: AtomicU64,
    /// Nothing is written down any more.
    over: AtomicBool,
    state: Mutex<State>,
}

struct Note {
    number: u64,
    range: Range,
    read: bool,
}

#[derive(Default)]
struct State {
    file: Option<File>,
    /// Once the first disk is open; `None` again when no more can be written.
    writer: Option<Writer<File>>,
    of: Option<Of>,
    seen: Seen,
    /// Of the file; dropped after that.
    _lock: Option<Lock>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The disk that a trace is of: the first one.
struct Of {
    export: String,
    size: u64,
    identity: Option<Arc<str>>,
}

impl Notes {
    fn new(path: PathBuf) -> Notes {
        let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
        Notes { path, recent: ThreadLocal::new(), next, over, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    fn error(&self, e: Error) -> Error {
        e.context(format!("trace-file={}", self.path.display()))
    }

    /// Whether the trace is one of this disk: the first that is opened decides. An export that was written to since is
    /// still that disk, and so is the same one under another name.
    fn is_of(&self, export: &str, Facts { size, identity, .. }: &Facts) -> Result<bool> {
        let mut state = self.state();
        if let Some(of) = &state.of {
            let same = of.size == *size && (of.export == export || of.identity == *identity);
            if !same {
                tracing::warn!(target: "diskpipe", "trace: another disk than the first is not written down");
            }
            return Ok(same);
        }
        if let Some(file) = state.file.take() {
            let writer = Writer::new(file, *size, identity.as_deref());
            state.writer = Some(writer.map_err(|e| self.error(e))?);
        }
        state.of = Some(Of { export: export.to_owned(), size: *size, identity: identity.clone() });
        Ok(true)
    }

    /// Notes that a part is read, or need not be read any more.
    fn note(&self, range: Range, read: bool) {
        if self.over.load(Relaxed) {
            return;
        }
        let note = Note { number: self.next.fetch_add(1, Relaxed), range, read };
        let waiting = {
            let mut recent = locked(self.recent.get_or_default());
            recent.push(note);
            recent.len()
        };
        if waiting >= MOST_WAITING {
            self.collect(&mut self.state());
        } else if waiting >= AT_ONCE
            && let Ok(mut state) = self.state.try_lock()
        {
            self.collect(&mut state);
        }
    }

    /// Writes down what all threads have noted.
    fn collect(&self, state: &mut State) {
        let taken = |recent: &Mutex<Vec<Note>>| std::mem::take(&mut *locked(recent));
        let mut notes: Vec<Note> = self.recent.iter().flat_map(taken).collect();
        notes.sort_unstable_by_key(|note| note.number);
        for note in notes {
            self.write_down(state, note);
        }
    }

    fn write_down(&self, state: &mut State, Note { range, read, .. }: Note) {
        let State { writer: Some(writer), of: Some(Of { size, .. }), seen, .. } = state else { return };
        for new in seen.add(range.whole_blocks(UNIT, *size)) {
            let outcome = if read { writer.add(new) } else { Ok(seen.0.len() < file::MOST_PARTS) };
            if !outcome.goes_on(self) {
                return self.stop(state);
            }
        }
    }

    /// Writes what was noted to the file.
    fn flush(&self) {
        let mut state = self.state();
        self.collect(&mut state);
        if let Some(writer) = &mut state.writer
            && !writer.flush().map(|()| true).goes_on(self)
        {
            self.stop(&mut state);
        }
    }

    fn stop(&self, state: &mut State) {
        (state.writer, state.seen) = (None, Seen::default());
        self.over.store(true, Relaxed);
    }

    fn end(&self) {
        self.flush();
        self.stop(&mut self.state());
    }
}

/// Of what a [`Writer`] says: whether it takes more. Why not is told.
trait Outcome {
    fn goes_on(self, notes: &Notes) -> bool;
}

impl Outcome for Result<bool> {
    fn goes_on(self, notes: &Notes) -> bool {
        match self {
            Ok(true) => return true,
            Ok(false) => {
                tracing::warn!(target: "diskpipe", "trace: the file is full; the rest is not written")
            }
            // Nobody is harmed by a trace that ends early.
            Err(e) => {
                tracing::warn!(target: "diskpipe", "trace: the rest is not written: {}", notes.error(e))
            }
        }
        false
    }
}

struct Noting(Arc<Notes>);

impl EveryRequest for Noting {
    fn may_place(&self) -> bool {
        true
    }
    fn around<'a, T: Send + 'a>(&'a self, op: Op, call: impl FnOnce() -> Io<'a, T> + Send + 'a) -> Io<'a, T> {
        match op.kind {
            OpKind::Read | OpKind::Cache => self.0.note(op.range, true),
            OpKind::Write | OpKind::Zero { .. } | OpKind::Trim => self.0.note(op.range, false),
            OpKind::Flush | OpKind::Extents => {}
        }
        call()
    }
    fn close<'a>(&'a self, call: impl FnOnce() -> Io<'a, ()> + Send + 'a) -> Io<'a, ()> {
        self.0.flush();
        call()
    }
}

/// A set of bytes: starts of its parts, with their ends.
#[derive(Debug, Default)]
pub(crate) struct Seen(BTreeMap<u64, u64>);

impl Seen {
    /// Adds a range; returns what of it is new, in order.
    pub(crate) fn add(&mut self, range: Range) -> Vec<Range> {
        let (mut start, mut end) = (range.start, range.end());
        let mut new = Vec::new();
        let mut at = start;
        // Mostly one at most.
        let touched: Vec<(u64, u64)> = {
            let before = self.0.range(..start).next_back().filter(|(_, last)| **last >= start);
            let after = self.0.range(start..=end);
            before.into_iter().chain(after).map(|(a, b)| (*a, *b)).collect()
        };
        if let [(first, last)] = touched[..]
            && first <= start
            && last >= end
        {
            return new;
        }
        for (first, last) in touched {
            if first > at {
                new.push(Range::new(at, first - at));
            }
            at = at.max(last);
            (start, end) = (start.min(first), end.max(last));
            self.0.remove(&first);
        }
        if at < range.end() {
            new.push(Range::new(at, range.end() - at));
        }
        self.0.insert(start, end);
        new
    }
}

/// For the fuzzer: what is read of any bytes is what the format promises.
pub(crate) fn try_file(bytes: &[u8]) {
    let Ok(trace) = file::read(bytes) else { return };
    let mut seen = Seen::default();
    for part in &trace.parts {
        assert!(!part.is_empty() && part.lies_within(trace.size));
        assert_eq!(seen.add(*part), [*part], "nothing comes twice");
    }
    let mut again = Vec::new();
    let mut writer = Writer::new(&mut again, trace.size, trace.identity.as_deref()).expect("memory");
    for part in &trace.parts {
        writer.add(*part).expect("memory");
    }
    writer.flush().expect("memory");
    let again = file::read(&again).expect("it was just written");
    let bytes = |parts: &[Range]| parts.iter().map(|part| part.len).sum::<u64>();
    assert_eq!((again.size, bytes(&again.parts)), (trace.size, bytes(&trace.parts)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, Random, layer, noise, open};
    use disk::{Data, WriteFlags};

    #[test]
    fn what_is_read_is_written_down_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace");
        let memory = Memory::new(noise(1, (1 << 20) + 100));
        let layer = layer::<Trace>(&[&format!("trace-file={}", path.display())], &memory).unwrap();
        layer.get_ready().unwrap();
        let disk = open(&layer);
        let ranges = [(500_000, 10), (0, 8192), (4096, 8192), (0, 100), ((1 << 20) + 1, 99), (65536, 4096)];
        disk.write(65537, Data::zeroes(10), WriteFlags::default()).wait().unwrap();
        for (start, len) in ranges {
            disk.read(Range::new(start, len)).wait().unwrap();
        }
        let told = || file::read(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(told().parts, []);
        disk.close().wait().unwrap();
        let parts = [(499_712, 4096), (0, 12288), (1 << 20, 100)].map(|(start, len)| Range::new(start, len));
        assert_eq!((told().size, told().parts), ((1 << 20) + 100, parts.to_vec()));
        layer.finish();
        assert_eq!(told().cut, None);
    }

    #[test]
    fn clients_at_once_are_written_down_whole() {
        const PARTS: u64 = 1000;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace");
        let memory = Memory::new(vec![0; 4 << 20]);
        let layer = layer::<Trace>(&[&format!("trace-file={}", path.display())], &memory).unwrap();
        layer.get_ready().unwrap();
        std::thread::scope(|scope| {
            for client in 0..4 {
                let layer = &layer;
                scope.spawn(move || {
                    let disk = open(layer);
                    // In order, every fourth unit, and all of them twice.
                    for n in (0..PARTS / 4).chain(0..PARTS / 4) {
                        disk.read(Range::new((4 * n + client) * UNIT, 10)).wait().unwrap();
                    }
                    disk.close().wait().unwrap();
                });
            }
        });
        layer.finish();
        let told = file::read(&std::fs::read(&path).unwrap()).unwrap();
        let units: Vec<u64> =
            told.parts.iter().flat_map(|part| part.start / UNIT..part.end() / UNIT).collect();
        for client in 0..4 {
            let own: Vec<u64> = units.iter().copied().filter(|unit| unit % 4 == client).collect();
            assert_eq!(own, (0..PARTS / 4).map(|n| 4 * n + client).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_disk_that_was_written_to_is_the_same_and_others_are_not() {
        let notes = Notes::new("never made".into());
        let disk = |size, identity: &str| Facts { identity: Some(identity.into()), ..Facts::read_only(size) };
        let is_of = |export, facts: Facts| notes.is_of(export, &facts).unwrap();
        assert!(is_of("a", disk(4096, "monday")));
        assert!(is_of("a", disk(4096, "tuesday")));
        assert!(is_of("", disk(4096, "monday")));
        assert!(!is_of("b", disk(4096, "tuesday")));
        assert!(!is_of("a", disk(8192, "monday")));
    }

    #[test]
    fn a_set_of_bytes_tells_what_is_new() {
        let mut random = Random(7);
        let (mut seen, mut model) = (Seen::default(), vec![false; 300]);
        for _ in 0..2000 {
            if random.below(100) == 0 {
                (seen, model) = (Seen::default(), vec![false; 300]);
            }
            let start = random.below(280);
            let range = Range::new(start, 1 + random.below(20));
            let new = seen.add(range);
            let bytes = |r: &Range| r.start as usize..r.end() as usize;
            for part in &new {
                assert!(model[bytes(part)].iter().all(|seen| !seen));
                model[bytes(part)].fill(true);
            }
            assert!(model[bytes(&range)].iter().all(|seen| *seen));
            assert!(seen.0.iter().zip(seen.0.iter().skip(1)).all(|((_, end), (start, _))| end < start));
        }
    }

    #[test]
    fn two_traces_in_one_file_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let param = format!("trace-file={}", dir.path().join("trace").display());
        let memory = Memory::new(vec![0; 512]);
        let [one, other] = [(); 2].map(|()| layer::<Trace>(&[&param], &memory).unwrap());
        one.get_ready().unwrap();
        let why = other.get_ready().unwrap_err();
        assert_eq!(why.errno(), disk::Errno::BUSY);
        assert_eq!(why.to_string(), format!("{param}: already used by this server, by the filter trace"));
        drop(one);
        other.get_ready().unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_made_is_told_before_serving() {
        let memory = Memory::new(vec![0; 512]);
        let layer = layer::<Trace>(&["trace-file=/no/such/dir/x"], &memory).unwrap();
        let why = layer.get_ready().unwrap_err().to_string();
        assert_eq!(why, "trace-file=/no/such/dir/x: No such file or directory");
    }
}
