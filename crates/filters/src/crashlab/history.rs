//! What was written when, and how a moment is put together again.

use super::{
    Guard,
    overlay::{Overlay, cost, own},
    states::{self, Rules, Write},
};
use async_lock::RwLock;
use disk::{Data, Disk, Errno, Error, Range, Result, WriteFlags, ZeroFlags};
use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// Old bytes are read in pieces of this length.
const PIECE: u64 = 1 << 20;
/// What a write costs beside its bytes.
const OVERHEAD: u64 = 96;

/// A state that can be served: in which epoch, after how many writes of it, and which of the states then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    epoch: u64,
    writes: u64,
    state: u64,
}

impl Moment {
    /// `crash/EPOCH.WRITES/STATE`.
    pub(super) fn of_name(name: &str) -> Option<Moment> {
        let (epoch, rest) = name.strip_prefix("crash/")?.split_once('.')?;
        let (writes, state) = rest.split_once('/')?;
        let moment =
            Moment { epoch: epoch.parse().ok()?, writes: writes.parse().ok()?, state: state.parse().ok()? };
        // One name for each.
        (moment.name() == name).then_some(moment)
    }

    #[cfg(test)]
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn name(&self) -> String {
        format!("crash/{}.{}/{}", self.epoch, self.writes, self.state)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Moment { epoch, writes, state } = self;
        let which = match state {
            0 => "none".to_owned(),
            1 => "all".to_owned(),
            n => format!("choice {n}"),
        };
        write!(f, "after {epoch} flushes and {writes} more writes, of which it has {which}")
    }
}

/// One disk and its history.
pub(super) struct Lab {
    memory: u64,
    rules: Rules,
    /// Locked by every request of every client: that gives their writes the one order which is what this filter is
    /// about. It is held while something is noted or looked up, never while the disk below works.
    history: Mutex<History>,
    /// Held for writing while the disk below changes, for reading while a state is read or put together.
    pub(super) settling: RwLock<()>,
}

#[derive(Default)]
pub(super) struct History {
    /// The number of the oldest epoch that is kept.
    first: u64,
    /// Epochs that a flush has closed: they are below.
    closed: VecDeque<Epoch>,
    /// The present one.
    open: Epoch,
    /// What is not below yet.
    pending: Overlay,
    /// What is on its way there.
    flushing: Overlay,
    /// How many writes there were, and how many of them are below.
    written: u64,
    settled: u64,
    /// States that clients have open, by name.
    states: HashMap<String, Weak<Shared>>,
    warned: bool,
}

/// What was written between two flushes, in order.
#[derive(Default)]
struct Epoch {
    writes: Vec<Write>,
    bytes: u64,
    /// What was below before, where it has been written to below.
    undo: Overlay,
    /// That was too much to be kept: no state of this epoch or an earlier one can be put together.
    lost: bool,
}

impl Epoch {
    fn memory(&self) -> u64 {
        self.bytes + self.undo.bytes()
    }
}

/// A state that clients have open, with what they write to it.
pub(super) struct Shared(Mutex<Overlay>, std::sync::atomic::AtomicBool);

impl Shared {
    pub(super) fn overlay(&self) -> Result<std::sync::MutexGuard<'_, Overlay>> {
        if self.1.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Error::io("crashlab-memory does not suffice for this state any more"));
        }
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn give_up(&self) {
        self.1.store(true, std::sync::atomic::Ordering::Relaxed);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Overlay::default();
    }
}

impl History {
    fn present(&self) -> u64 {
        self.first + self.closed.len() as u64
    }

    fn memory(&self) -> u64 {
        self.closed.iter().map(Epoch::memory).sum::<u64>() + self.open.memory()
    }

    /// An epoch is below now.
    fn close(&mut self, epoch: Epoch) {
        let lost = epoch.lost;
        self.closed.push_back(epoch);
        if lost {
            self.first += self.closed.len() as u64;
            self.closed.clear();
            self.warn();
        }
    }

    fn warn(&mut self) {
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(target: "diskpipe", "crashlab: the oldest writes are forgotten, for crashlab-memory is used up");
        }
    }

    /// Forgets the oldest epochs until the rest fits.
    fn fit(&mut self, most: u64) {
        let mut memory = self.memory();
        while memory > most
            && let Some(oldest) = self.closed.pop_front()
        {
            memory -= oldest.memory();
            self.first += 1;
            self.warn();
        }
    }

    fn opened(&mut self) -> Vec<Arc<Shared>> {
        self.states.retain(|_, state| state.strong_count() > 0);
        self.states.values().filter_map(Weak::upgrade).collect()
    }
}

impl Lab {
    pub(super) fn new(memory: u64, rules: Rules) -> Lab {
        Lab { memory, rules, history: Mutex::default(), settling: RwLock::new(()) }
    }

    fn history(&self) -> Guard<'_> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most that a client may write to a state.
    pub(super) fn memory(&self) -> u64 {
        self.memory
    }

    /// All states that are worth looking at, the oldest first.
    pub(super) fn moments(&self) -> Vec<Moment> {
        let history = self.history();
        let epochs = history.closed.iter().chain([&history.open]).zip(history.first..);
        let present = history.present();
        let written = epochs.filter(|(epoch, number)| {
            !epoch.lost && !history.open.lost && (!epoch.writes.is_empty() || *number == present)
        });
        written
            .flat_map(|(epoch, number)| {
                let writes = epoch.writes.len() as u64;
                let moment = move |state| Moment { epoch: number, writes, state };
                (0..states::count(&epoch.writes, self.rules)).map(moment)
            })
            .collect()
    }

    /// Puts a state together, or finds it.
    pub(super) async fn state(&self, name: &str, moment: Moment) -> Result<Arc<Shared>> {
        let _still = self.settling.read().await;
        let mut history = self.history();
        if let Some(state) = history.states.get(name).and_then(Weak::upgrade) {
            return Ok(state);
        }
        let absent = |why: &str| Error::new(Errno::NOENT, format!("{name}: {why}"));
        let Some(index) = moment.epoch.checked_sub(history.first).filter(|_| !history.open.lost) else {
            return Err(absent("these writes have been forgotten; give crashlab-memory more"));
        };
        let epochs: Vec<&Epoch> = history.closed.iter().chain([&history.open]).collect();
        let epoch = usize::try_from(index).ok().and_then(|index| epochs.get(index));
        let epoch = epoch.ok_or_else(|| absent("there were not so many flushes yet"))?;
        let writes = usize::try_from(moment.writes).ok().and_then(|writes| epoch.writes.get(..writes));
        let writes = writes.ok_or_else(|| absent("there were not so many writes between these flushes"))?;
        let mut overlay = Overlay::default();
        for (at, data) in states::state(writes, moment.state, self.rules) {
            overlay.put(at, &data);
        }
        // What the epochs since have changed below, the oldest change first.
        for later in &epochs[index as usize..] {
            overlay.put_all_under(&later.undo);
        }
        let state = Arc::new(Shared(Mutex::new(overlay), false.into()));
        history.states.insert(name.to_owned(), Arc::downgrade(&state));
        Ok(state)
    }

    /// A range of the live disk: parts, each with its data unless that is below.
    pub(super) fn live(&self, r: Range) -> Vec<(Range, Option<Data>)> {
        let history = self.history();
        let parts = history.pending.parts(r).into_iter();
        parts
            .flat_map(|(part, data)| match data {
                Some(data) => vec![(part, Some(data))],
                None => history.flushing.parts(part),
            })
            .collect()
    }

    /// Notes a write; returns which one it is, and whether there is more than may be kept.
    pub(super) fn write(&self, at: u64, data: &Data, fua: bool) -> (u64, bool) {
        let data = own(data);
        let mut history = self.history();
        history.pending.put(at, &data);
        history.open.bytes += cost(&data) + OVERHEAD;
        history.open.writes.push(Write { at, data, fua });
        if history.open.memory() > self.memory / 2 {
            history.fit(self.memory);
        }
        history.written += 1;
        (history.written, history.open.memory() > self.memory)
    }

    /// Whether something is not stable yet.
    pub(super) fn is_dirty(&self) -> bool {
        !self.history().open.writes.is_empty()
    }

    /// Makes a single write stable.
    pub(super) async fn settle_one(&self, disk: &dyn Disk, number: u64, at: u64, data: Data) -> Result<()> {
        let _alone = self.settling.write().await;
        if self.history().settled >= number {
            // A flush was faster.
            return Ok(());
        }
        let old = self.old(disk, Range::new(at, data.len())).await?;
        self.keep_for_states(&old);
        self.history().open.undo.put_all_under(&old);
        change(disk, at, data, disk.facts().fua).await?;
        if disk.facts().fua { Ok(()) } else { disk.flush().await }
    }

    /// Makes everything stable that was written, and closes the epoch.
    pub(super) async fn flush(&self, disk: &dyn Disk) -> Result<()> {
        let _alone = self.settling.write().await;
        let taken = {
            let mut history = self.history();
            let history = &mut *history;
            (!history.open.writes.is_empty()).then(|| {
                history.flushing = std::mem::take(&mut history.pending);
                (std::mem::take(&mut history.open), history.flushing.clone(), history.written)
            })
        };
        let Some((epoch, pending, written)) = taken else { return disk.flush().await };
        // Put back when this fails, or is given up half-way.
        let mut leaving = Leaving { lab: self, epoch, pending, done: false };
        self.settle(disk, &mut leaving.epoch, &leaving.pending).await?;
        self.history().settled = written;
        leaving.done = true;
        Ok(())
    }

    async fn settle(&self, disk: &dyn Disk, epoch: &mut Epoch, pending: &Overlay) -> Result<()> {
        for (at, data) in pending.iter() {
            for part in Range::new(at, data.len()).split_at_multiples(64 << 20) {
                let old = self.old(disk, part).await?;
                self.keep_for_states(&old);
                epoch.undo.put_all_under(&old);
                if epoch.undo.bytes() > self.memory {
                    epoch.lost = true;
                    epoch.undo = Overlay::default();
                }
            }
        }
        for (at, data) in pending.iter() {
            change(disk, at, data.clone(), false).await?;
        }
        disk.flush().await
    }

    /// Keeps what is about to be overwritten below for the states that are open.
    fn keep_for_states(&self, old: &Overlay) {
        for state in self.history().opened() {
            let Ok(mut overlay) = state.overlay() else { continue };
            overlay.put_all_under(old);
            if overlay.bytes() > self.memory.saturating_mul(2) {
                drop(overlay);
                state.give_up();
            }
        }
    }

    /// What is below now.
    async fn old(&self, disk: &dyn Disk, range: Range) -> Result<Overlay> {
        let mut old = Overlay::default();
        let facts = disk.facts();
        let longest = PIECE.min(facts.blocks.maximum.into());
        let mut at = range.start;
        while at < range.end() {
            let rest = Range::new(at, range.end() - at);
            if facts.extents && rest.len > longest {
                let found = disk.extents(rest, 1).await?;
                let zeroes = found.iter().next().filter(|first| first.kind.zero).map_or(0, |first| first.len);
                let zeroes =
                    zeroes.min(rest.len) / u64::from(facts.blocks.minimum) * u64::from(facts.blocks.minimum);
                if zeroes > 0 {
                    old.put(at, &Data::zeroes(zeroes));
                    at += zeroes;
                    continue;
                }
            }
            let part = Range::new(at, rest.len.min(longest));
            let data = disk.read(part).await?;
            let zero = data.is_zero();
            old.put(at, &if zero { Data::zeroes(part.len) } else { own(&data) });
            at = part.end();
        }
        Ok(old)
    }
}

/// An epoch on its way to the disk below.
struct Leaving<'a> {
    lab: &'a Lab,
    epoch: Epoch,
    pending: Overlay,
    done: bool,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let (epoch, pending) = (std::mem::take(&mut self.epoch), std::mem::take(&mut self.pending));
        let mut history = self.lab.history();
        let history = &mut *history;
        history.flushing = Overlay::default();
        if self.done {
            history.close(epoch);
        } else {
            // Nothing of it is sure to be stable: it goes on as the present epoch.
            let since = std::mem::replace(&mut history.open, epoch);
            history.open.writes.extend(since.writes);
            history.open.bytes += since.bytes;
            history.open.undo.put_all_under(&since.undo);
            let newer = std::mem::replace(&mut history.pending, pending);
            history.pending.put_all(&newer);
        }
        history.fit(self.lab.memory);
    }
}

/// Changes the disk below.
async fn change(disk: &dyn Disk, at: u64, data: Data, fua: bool) -> Result<()> {
    let facts = disk.facts();
    let r = Range::new(at, data.len());
    if data.says_zeroes() && facts.zero {
        return disk.zero(r, ZeroFlags { fua, may_trim: true, fast: false }).await;
    }
    let longest = PIECE.min(facts.blocks.maximum.into());
    for part in r.split_at_multiples(longest) {
        disk.write(part.start, data.slice(part.start - at, part.len), WriteFlags { fua }).await?;
    }
    Ok(())
}
