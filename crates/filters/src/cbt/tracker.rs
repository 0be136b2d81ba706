//! What changed, in memory and in the file.
//!
//! Each granule has the number of the epoch in which it was last changed, so that a checkpoint costs nothing but a higher
//! number, and what changed since it is marked with its number or a later one.
//!
//! The rule that nothing rests on but this: **before a write is passed on, its granules are marked, and either the marks
//! or the fact that their region is open have reached the medium.** A region is opened by a synced write; from then on
//! its marks are ordinary writes to the file. It is closed, after a sync, when nothing was marked in it for a while. A
//! mark is seen in memory only once it is in the file of an open region, so that whoever finds a granule marked need not
//! look further.

use super::{
    file::{Found, GRANULES, Store, regions},
    header::Header,
};
use disk::{Range, Result, Status};
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicU32, AtomicU64,
            Ordering::{Acquire, Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

/// Regions that were not marked for so long are closed by the next flush.
const OPEN_FOR: Duration = Duration::from_secs(5);
/// Who writes in order has so many regions opened at once.
const AHEAD: u64 = 8;

/// One region.
#[derive(Default)]
struct Region {
    /// How it is (`STATE`), whether something was marked since the last look (`TOUCHED`), and how many are marking just
    /// now, in units of `PIN`.
    word: AtomicU32,
    /// Those of a region in which nothing was ever marked are not there.
    numbers: OnceLock<Box<[AtomicU32; GRANULES]>>,
}

const STATE: u32 = 3;
const CLOSED: u32 = 0;
const OPEN: u32 = 1;
const CLOSING: u32 = 2;
const TOUCHED: u32 = 4;
const PIN: u32 = 8;

/// Tables of regions, each twice as large as the one before: so that a disk can grow while it is written.
type Tables = [OnceLock<Box<[Region]>>; 56];

/// The changes to one disk.
pub(super) struct Tracker {
    store: Store,
    granule: u64,
    /// Of the disk, in bytes.
    size: AtomicU64,
    epoch: AtomicU32,
    tables: Tables,
    /// Regions that somebody waits for to be opened.
    wanted: Mutex<BTreeSet<u64>>,
    /// Only ever locked by threads that may wait for the medium.
    books: Mutex<Books>,
    /// One after the other.
    resizing: async_lock::Mutex<()>,
    /// Changes whose outcome nobody waited for: they may still come about.
    abandoned: Mutex<Vec<Range>>,
    started: Instant,
    /// When regions are to be closed again, in milliseconds since `started`.
    next_look: AtomicU64,
}

/// What only one changes at a time.
pub(super) struct Books {
    pub(super) header: Header,
    open: BTreeSet<u64>,
    /// A sync failed: what it was for may be lost, though later ones succeed. Open regions stay open.
    never_close: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tracker {
    /// Begins to use a file: from now on it is in use.
    ///
    /// # Errors
    /// When that cannot be written into it.
    pub(super) fn new(store: Store, found: Found) -> Result<Arc<Tracker>> {
        let mut header = found.header;
        header.turn += 1;
        header.in_use = Some(store.witness());
        store.write_header(&header)?;
        let tracker = Tracker {
            granule: header.granule,
            size: AtomicU64::new(0),
            epoch: AtomicU32::new(header.epoch),
            tables: [const { OnceLock::new() }; 56],
            wanted: Mutex::default(),
            abandoned: Mutex::default(),
            started: Instant::now(),
            next_look: AtomicU64::new(OPEN_FOR.as_millis() as u64),
            store,
            resizing: async_lock::Mutex::default(),
            books: Mutex::new(Books { open: BTreeSet::new(), never_close: false, header }),
        };
        let size = tracker.books().header.size;
        tracker.make_tables(size);
        tracker.size.store(size, SeqCst);
        for (region, numbers) in found.regions {
            if let Some(region) = tracker.region_if_any(region) {
                let _ = region.numbers.set(Box::new(numbers.map(AtomicU32::new)));
            }
        }
        Ok(Arc::new(tracker))
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn size(&self) -> u64 {
        self.size.load(Acquire)
    }

    /// May wait for the medium.
    pub(super) fn books(&self) -> MutexGuard<'_, Books> {
        locked(&self.books)
    }

    /// Has tables for a disk of so many bytes.
    fn make_tables(&self, size: u64) {
        let mut region = 0;
        while region < regions(size, self.granule) {
            let (table, inside) = place(region);
            let len = 1u64 << table;
            self.tables[table].get_or_init(|| (0..len).map(|_| Region::default()).collect());
            region += len - inside;
        }
    }

    fn region_if_any(&self, region: u64) -> Option<&Region> {
        let (table, inside) = place(region);
        self.tables[table].get()?.get(inside as usize)
    }

    /// Of a granule that lies on the disk.
    fn region(&self, region: u64) -> &Region {
        self.region_if_any(region).expect("the tables hold the whole disk")
    }

    /// The granules that a range touches, region by region.
    fn granules(&self, r: Range) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> + '_ {
        let (first, last) = (r.start / self.granule, (r.end() - 1) / self.granule);
        let granules = Range::new(first, last - first + 1);
        granules.split_at_multiples(GRANULES as u64).map(|part| {
            let from = (part.start % GRANULES as u64) as usize;
            (part.start / GRANULES as u64, from..from + part.len as usize)
        })
    }

    /// Marks what a change will touch. Whoever asks is behind the gate, so that the epoch stays what it is.
    ///
    /// `Ok(false)`: a region must be opened first ([`Tracker::open_and_mark`]).
    ///
    /// # Errors
    /// When the file cannot be written; then the change must not be made.
    #[inline]
    pub(super) fn mark(&self, r: Range) -> Result<bool> {
        let epoch = self.epoch.load(Acquire);
        for (region, granules) in self.granules(r) {
            if !self.region(region).is_marked(&granules, epoch) && !self.mark_in(region, granules, epoch)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    #[cold]
    fn mark_in(&self, number: u64, granules: std::ops::Range<usize>, epoch: u32) -> Result<bool> {
        let region = self.region(number);
        let pin = |word: u32| (word & STATE == OPEN).then(|| (word | TOUCHED) + PIN);
        if region.word.fetch_update(SeqCst, SeqCst, pin).is_err() {
            return Ok(false);
        }
        let written = self.store.mark(number, granules.clone(), epoch);
        if written.is_ok() {
            for own in &region.numbers()[granules] {
                own.store(epoch, SeqCst);
            }
        }
        region.word.fetch_sub(PIN, SeqCst);
        written.map(|()| true)
    }

    /// As [`Tracker::mark`], with the time that it takes.
    ///
    /// # Errors
    /// As of `mark`.
    pub(super) async fn open_and_mark(self: &Arc<Self>, r: Range) -> Result<()> {
        while !self.mark(r)? {
            let epoch = self.epoch.load(Acquire);
            let missing = self.granules(r).filter(|(region, granules)| {
                let region = self.region(*region);
                !region.is_marked(granules, epoch) && region.word.load(SeqCst) & STATE != OPEN
            });
            let missing: Vec<u64> = missing.map(|(region, _)| region).collect();
            locked(&self.wanted).extend(missing);
            let me = self.clone();
            reactor::unblock(move || me.open_wanted()).await??;
        }
        Ok(())
    }

    /// Opens what is wanted, for all who came meanwhile; they find it done.
    fn open_wanted(&self) -> Result<()> {
        let mut books = self.books();
        let mut wanted = std::mem::take(&mut *locked(&self.wanted));
        let end = regions(self.size(), self.granule);
        for region in wanted.clone() {
            if region > 0 && books.open.contains(&(region - 1)) {
                wanted.extend((region..end).take(AHEAD as usize));
            }
        }
        let list: Vec<u64> = wanted.difference(&books.open).copied().collect();
        if list.is_empty() {
            return Ok(());
        }
        let done = self.store.flag(&list, true).and_then(|()| self.store.sync());
        books.never_close |= done.is_err();
        done?;
        for region in list {
            books.open.insert(region);
            self.region(region).word.store(OPEN | TOUCHED, SeqCst);
        }
        Ok(())
    }

    /// Whether it is time to close regions.
    pub(super) fn wants_a_look(&self) -> bool {
        let now = self.started.elapsed().as_millis() as u64;
        let due = self.next_look.load(Relaxed);
        now >= due
            && self
                .next_look
                .compare_exchange(due, now + OPEN_FOR.as_millis() as u64, Relaxed, Relaxed)
                .is_ok()
    }

    /// Closes the regions in which nothing was marked since the last time; or all of them. Waits for the medium.
    ///
    /// # Errors
    /// When it fails; what is open then stays so.
    pub(super) fn close_regions(&self, all: bool) -> Result<()> {
        let mut books = self.books();
        if books.never_close {
            return Ok(());
        }
        let mut list = Vec::new();
        for region in &books.open {
            let word = &self.region(*region).word;
            let idle = |was: u32| (was == OPEN || (all && was == OPEN | TOUCHED)).then_some(CLOSING);
            if word.fetch_update(SeqCst, SeqCst, idle).is_ok() {
                list.push(*region);
            } else {
                word.fetch_and(!TOUCHED, SeqCst);
            }
        }
        if list.is_empty() {
            return Ok(());
        }
        // Their marks first: what says that they are open may go at any time after that.
        let done = self.store.sync().and_then(|()| self.store.flag(&list, false));
        books.never_close |= done.is_err();
        for region in list {
            if done.is_ok() {
                books.open.remove(&region);
            }
            self.region(region).word.store(if done.is_ok() { CLOSED } else { OPEN }, SeqCst);
        }
        done
    }

    /// Notes a change that nobody waits for any more.
    pub(super) fn abandon(&self, r: Range) {
        locked(&self.abandoned).push(r);
    }

    /// Changes the checkpoints, for good, as `change` says. Nothing is under way. Waits for the medium.
    ///
    /// # Errors
    /// What `change` says, or when it cannot be written; then all is as before.
    pub(super) fn change_checkpoints<T>(&self, change: impl FnOnce(&mut Header) -> Result<T>) -> Result<T> {
        let mut books = self.books();
        let mut header = books.header.clone();
        let outcome = change(&mut header)?;
        // Also when it fails: the new header may be in the file all the same.
        self.epoch.store(header.epoch, SeqCst);
        books.header.epoch = header.epoch;
        self.write_header(&mut books, header)?;
        Ok(outcome)
    }

    fn write_header(&self, books: &mut Books, mut header: Header) -> Result<()> {
        // After a failure, the same place again: the other one holds what is good.
        books.header.turn += 2;
        header.turn = books.header.turn - 1;
        self.store.write_header(&header)?;
        books.header = header;
        Ok(())
    }

    /// What was abandoned before an epoch began may come about in it.
    ///
    /// # Errors
    /// As of `mark`.
    pub(super) async fn mark_abandoned(self: &Arc<Self>) -> Result<()> {
        let ranges = std::mem::take(&mut *locked(&self.abandoned));
        for r in ranges {
            self.open_and_mark(r).await?;
        }
        Ok(())
    }

    /// One resizes at a time.
    pub(super) async fn resizing(&self) -> async_lock::MutexGuard<'_, ()> {
        self.resizing.lock().await
    }

    /// The disk is about to be resized: whether that happens will be seen.
    ///
    /// # Errors
    /// When there is no room for what is to be kept of it.
    pub(super) async fn before_resize(self: &Arc<Self>, to: u64) -> Result<()> {
        let me = self.clone();
        reactor::unblock(move || {
            let mut books = me.books();
            let largest = to.max(me.size());
            me.store.make_room(largest, me.granule)?;
            // Who sees the new size first may write there at once.
            me.make_tables(largest);
            let header = Header { becoming: Some(to), ..books.header.clone() };
            me.write_header(&mut books, header)
        })
        .await?
    }

    /// The disk has this size now. What was not there before has changed, and the granule that it begins or ends in.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) async fn after_resize(self: &Arc<Self>, size: u64) -> Result<()> {
        let before = self.size.fetch_max(size, SeqCst);
        self.make_tables(size.max(before));
        let (low, high) = (before.min(size), before.max(size));
        if low < high {
            self.open_and_mark(Range::new(low, high - low)).await?;
        }
        let me = self.clone();
        reactor::unblock(move || {
            let mut books = me.books();
            let header = Header { size, becoming: None, ..books.header.clone() };
            me.write_header(&mut books, header)?;
            me.size.store(size, SeqCst);
            Ok(())
        })
        .await?
    }

    /// What changed since an epoch began, from the start of a range on: bit 0 of a status says that it did.
    pub(super) fn status(&self, since: u32, r: Range, limit: usize) -> Vec<Status> {
        let mut list: Vec<Status> = Vec::new();
        for (region, granules) in self.granules(r) {
            let numbers = self.region_if_any(region).and_then(|region| region.numbers.get());
            let mut at = granules.start;
            while at < granules.end {
                let dirty = |at: usize| numbers.is_some_and(|numbers| numbers[at].load(SeqCst) >= since);
                let value = dirty(at);
                let end = match numbers {
                    None => granules.end,
                    Some(_) => (at..granules.end).find(|at| dirty(*at) != value).unwrap_or(granules.end),
                };
                let byte =
                    |granule: usize| (region * GRANULES as u64 + granule as u64).saturating_mul(self.granule);
                let (from, to) = (byte(at).max(r.start), byte(end).min(r.end()));
                let full = list.len() == limit;
                match list.last_mut() {
                    Some(last) if last.value == u64::from(value) => last.len += to - from,
                    Some(_) if full => return list,
                    _ => list.push(Status { len: to - from, value: value.into() }),
                }
                at = end;
            }
        }
        list
    }

    /// The end of use: all marks are stable, and the file says so.
    ///
    /// # Errors
    /// When that cannot be written; the next server finds an end without order.
    pub(super) fn finish(self: &Arc<Self>) -> Result<()> {
        reactor::block_on(self.mark_abandoned())?;
        self.close_regions(true)?;
        let mut books = self.books();
        if !books.open.is_empty() {
            return Ok(());
        }
        self.store.sync()?;
        let header = Header { in_use: None, ..books.header.clone() };
        self.write_header(&mut books, header)
    }
}

impl Region {
    fn numbers(&self) -> &[AtomicU32; GRANULES] {
        self.numbers.get_or_init(|| Box::new([const { AtomicU32::new(0) }; GRANULES]))
    }

    #[inline]
    fn is_marked(&self, granules: &std::ops::Range<usize>, epoch: u32) -> bool {
        let numbers = self.numbers.get();
        numbers.is_some_and(|numbers| numbers[granules.clone()].iter().all(|own| own.load(SeqCst) == epoch))
    }
}

/// The table that a region is in, and where in it.
fn place(region: u64) -> (usize, u64) {
    let table = (region + 1).ilog2();
    (table as usize, region + 1 - (1 << table))
}
