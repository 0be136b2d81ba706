//! The blocks of a disk: their states, where their bytes are, and how both become stable.

use crate::{
    changes::Changes,
    format::{Header, Id, LONGEST},
    journal::{self, Journal},
    leaf::{LEAF_BLOCKS, Leaf, State},
    map::{Map, Spot},
    medium::Medium,
    temporary::Store,
};
use disk::{Error, Result};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// The blocks of one disk.
pub struct Blocks {
    medium: Arc<dyn Medium>,
    map: Map,
    /// Bytes of the disk that a leaf stands for.
    leaf_bytes: u64,
    /// Where the medium has no use yet.
    next: Arc<AtomicU64>,
    kept: Option<Kept>,
}

/// What a store has that outlives the server.
struct Kept {
    header: Header,
    changes: Arc<Changes>,
    /// Counts calls of `sync`.
    asked: AtomicU64,
    /// `None`: opened for reading.
    log: Option<Mutex<Log>>,
}

struct Log {
    journal: Journal,
    /// Calls of `sync` up to this one are answered.
    done: u64,
}

/// How many blocks are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Here.
    pub copied: u64,
    /// Here, and not yet below.
    pub dirty: u64,
    /// Nowhere.
    pub zero: u64,
}

impl Blocks {
    /// Blocks of so many bytes (a power of two), `blocks` of them, none of which is here; in a temporary file.
    pub fn temporary(store: &Arc<Store>, block: u64, blocks: u64) -> Blocks {
        Blocks {
            medium: store.clone(),
            map: Map::new(blocks.max(1), None),
            leaf_bytes: block * LEAF_BLOCKS as u64,
            next: store.places(),
            kept: None,
        }
    }

    /// Makes a store of an empty medium. Of the header, the log's fields do not count.
    ///
    /// # Errors
    /// A text of the header is too long; those of the medium.
    pub fn create(medium: Arc<dyn Medium>, mut header: Header) -> Result<Blocks> {
        let parent = header.parent.as_ref().map_or("", |parent| &parent.path);
        for (text, what) in [(&*header.identity, "what the disk below says of itself"), (parent, "the path")]
        {
            if text.len() > LONGEST {
                let why = format!("{what} has {} bytes, and {LONGEST} are the most", text.len());
                return Err(Error::invalid(why));
            }
        }
        journal::begin(&mut header);
        // So that states can be kept even when there is no more room for bytes.
        medium.reserve(header.log.start, header.log.len);
        journal::write_headers(&*medium, &header, [0, crate::format::HEADER])?;
        Blocks::open(medium, true)
    }

    /// Opens a store, for writing or only for reading.
    ///
    /// # Errors
    /// It is none, or damaged, or frozen and to be written.
    pub fn open(medium: Arc<dyn Medium>, write: bool) -> Result<Blocks> {
        let (header, same) = journal::read_header(&*medium)?;
        if write && header.frozen {
            return Err(Error::invalid("others stand on it, so that it must not change"));
        }
        let changes = Arc::<Changes>::default();
        let map = Map::new(header.blocks(), Some(changes.clone()));
        let (journal, next) = journal::replay(&*medium, header.clone(), &map)?;
        drop(changes.take());
        if write && !same {
            journal::repair(&*medium, &header)?;
        }
        let log = write.then(|| Mutex::new(Log { journal, done: 0 }));
        Ok(Blocks {
            medium,
            map,
            leaf_bytes: header.leaf_bytes(),
            next: Arc::new(next.into()),
            kept: Some(Kept { header, changes, asked: AtomicU64::new(0), log }),
        })
    }

    /// The states.
    #[inline]
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// The bytes, by their places.
    #[inline]
    pub fn bytes(&self) -> &dyn Medium {
        &*self.medium
    }

    /// The leaf of a block, made if there is none, and the block's number in it.
    #[inline]
    pub fn leaf(&self, block: u64) -> (&Leaf, usize) {
        self.map.leaf(block, || self.next.fetch_add(self.leaf_bytes, Ordering::Relaxed))
    }

    /// Where the bytes of a block have their place, of which this is the leaf.
    #[inline]
    pub fn place(&self, leaf: &Leaf, block: u64) -> u64 {
        leaf.place + block % LEAF_BLOCKS as u64 * (self.leaf_bytes / LEAF_BLOCKS as u64)
    }

    /// What the file said of itself when it was opened; `None` if it is temporary.
    pub fn header(&self) -> Option<&Header> {
        self.kept.as_ref().map(|kept| &kept.header)
    }

    /// Whether it outlives the server, and may be written.
    pub fn is_kept(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.log.is_some())
    }

    /// How many blocks are here.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.map.walk(|block, spot| {
            let rest = self.map.blocks() - block;
            match spot {
                Spot::Absent { zero, blocks } => totals.zero += if zero { blocks.min(rest) } else { 0 },
                Spot::Leaf(leaf, _) => {
                    let end = LEAF_BLOCKS.min(usize::try_from(rest).unwrap_or(usize::MAX));
                    let mut at = 0;
                    while at < end {
                        let (state, same) = leaf.run(at, end);
                        match state.settled() {
                            State::Copied => totals.copied += same as u64,
                            State::Dirty => totals.dirty += same as u64,
                            State::Zero => totals.zero += same as u64,
                            _ => {}
                        }
                        at += same;
                    }
                }
            }
        });
        totals
    }

    fn log(kept: &Kept) -> Option<MutexGuard<'_, Log>> {
        kept.log.as_ref().map(|log| log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes all bytes and states stable that are as they are now. Takes its time: not for a thread that has others
    /// to serve. Those who call it at once share the work. What is temporary needs none.
    ///
    /// # Errors
    /// `ENOSPC`: not now, but all stays as it is, and later it may succeed. Others are for good.
    pub fn sync(&self) -> Result<()> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let turn = kept.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let Some(mut log) = Blocks::log(kept) else { return Ok(()) };
        if log.done >= turn {
            return Ok(());
        }
        let upto = kept.asked.load(Ordering::SeqCst);
        let taken = kept.changes.take();
        let outcome = log.journal.commit(&*self.medium, &self.map, &taken, &self.next);
        match &outcome {
            Ok(()) => log.done = upto,
            Err(_) => {
                for &(block, blocks) in &taken.zeroed {
                    kept.changes.zeroed(block, blocks);
                }
                for &index in &taken.leaves {
                    if let Spot::Leaf(leaf, _) = self.map.find(index * LEAF_BLOCKS as u64) {
                        leaf.put_back();
                    }
                }
            }
        }
        outcome
    }

    /// Whether nothing has changed since the last `sync`, as far as states go.
    pub fn is_settled(&self) -> bool {
        self.kept.as_ref().is_none_or(|kept| kept.changes.is_empty())
    }

    /// Syncs, and notes in the header what must be there at the next opening: the end in good order.
    ///
    /// # Errors
    /// As of `sync`.
    pub fn close(&self) -> Result<()> {
        self.sync()?;
        match self.kept.as_ref().and_then(Blocks::log) {
            Some(mut log) => log.journal.seal(&*self.medium),
            None => Ok(()),
        }
    }

    /// Syncs, and says that others stand on it from now on: it cannot be opened for writing any more.
    ///
    /// # Errors
    /// As of `sync`.
    pub fn freeze(self) -> Result<()> {
        self.close()?;
        match self.kept.as_ref().and_then(Blocks::log) {
            Some(mut log) => log.journal.write_header(&*self.medium, |header| header.frozen = true),
            None => Ok(()),
        }
    }

    /// Forgets all blocks, and what it stood on, and gives their room back: the disk below, of this identity, has them
    /// now.
    ///
    /// # Errors
    /// The identity is too long; those of the medium. Then all blocks are still there.
    pub fn clear(self, identity: &str) -> Result<()> {
        fits(identity)?;
        if let Some(mut log) = self.kept.as_ref().and_then(Blocks::log) {
            log.journal.empty(&*self.medium, &self.next, identity)?;
        }
        // Only now: until then, the log says that they are here.
        self.map.walk(|_, spot| {
            if let Spot::Leaf(leaf, _) = spot {
                self.medium.discard(leaf.place, self.leaf_bytes);
            }
        });
        self.medium.sync()
    }

    /// Writes a different identity of the disk below into the header.
    ///
    /// # Errors
    /// It is too long; those of the medium.
    pub fn set_identity(&self, identity: &str) -> Result<()> {
        fits(identity)?;
        match self.kept.as_ref().and_then(Blocks::log) {
            Some(mut log) => {
                log.journal.write_header(&*self.medium, |header| header.identity = identity.to_owned())
            }
            None => Ok(()),
        }
    }

    /// Which store it is; `None` if it is temporary.
    pub fn id(&self) -> Option<Id> {
        self.header().map(|header| header.id)
    }
}

fn fits(identity: &str) -> Result<()> {
    match identity.len() {
        ..=LONGEST => Ok(()),
        len => Err(Error::invalid(format!("an identity of {len} bytes is too long"))),
    }
}
