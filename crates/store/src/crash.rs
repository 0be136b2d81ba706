//! A file that loses power, fills up and fails: for tests of what must outlive that.
//!
//! It writes down what is done to it. Afterwards it can say what a disk holds when the power went at any moment: what
//! was synced, and of the rest any part, by sectors of 512 bytes.

use crate::{Blocks, Header, Kind, Medium, State, format};
use disk::{Data, Errno, Error, Result};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// What a disk writes whole or not at all, in bytes.
pub const SECTOR: usize = 512;

/// A fake file.
#[derive(Default)]
pub struct Fake(Mutex<Content>);

#[derive(Default)]
struct Content {
    begin: Vec<u8>,
    now: Vec<u8>,
    done: Vec<Op>,
    /// So many more bytes have room behind those that were written before.
    room: Option<u64>,
    /// Syncs fail.
    fails: bool,
}

enum Op {
    Write(u64, Vec<u8>),
    Discard(u64, u64),
    Sync,
}

impl Fake {
    /// A file with this content, all of it stable.
    pub fn new(bytes: Vec<u8>) -> Fake {
        Fake(Mutex::new(Content { begin: bytes.clone(), now: bytes, ..Content::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its content now.
    pub fn bytes(&self) -> Vec<u8> {
        self.lock().now.clone()
    }

    /// How many things were done to it: the moments at which power can be lost are 0 to this.
    pub fn moments(&self) -> usize {
        self.lock().done.len()
    }

    /// The file may grow by so many bytes only, or without limit.
    pub fn set_room(&self, room: Option<u64>) {
        self.lock().room = room;
    }

    /// Syncs fail with `EIO`, or do not.
    pub fn set_failing(&self, fails: bool) {
        self.lock().fails = fails;
    }

    /// What is left when the power goes after `moment` things were done: `survives` is asked of each sector of each
    /// write that was not synced.
    pub fn after_power_loss(&self, moment: usize, mut survives: impl FnMut() -> bool) -> Vec<u8> {
        let state = self.lock();
        let done = &state.done[..moment];
        let synced = done.iter().rposition(|op| matches!(op, Op::Sync)).unwrap_or(0);
        let mut bytes = state.begin.clone();
        for (i, op) in done.iter().enumerate() {
            let mut keeps = || i < synced || survives();
            match op {
                Op::Sync => {}
                Op::Write(at, new) => {
                    let mut from = 0;
                    while from < new.len() {
                        let start = *at as usize + from;
                        let len = (SECTOR - start % SECTOR).min(new.len() - from);
                        if keeps() {
                            put(&mut bytes, start, &new[from..from + len]);
                        }
                        from += len;
                    }
                }
                Op::Discard(at, len) => {
                    if keeps() {
                        clear(&mut bytes, *at, *len);
                    }
                }
            }
        }
        bytes
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    let end = at + new.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[at..end].copy_from_slice(new);
}

fn clear(bytes: &mut [u8], at: u64, len: u64) {
    let end = ((at + len) as usize).min(bytes.len());
    if let Some(part) = bytes.get_mut(at as usize..end) {
        part.fill(0);
    }
}

impl Medium for Fake {
    fn read(&self, at: u64, len: u64) -> Result<Data> {
        let state = self.lock();
        let end = at.checked_add(len).filter(|end| *end <= state.now.len() as u64);
        let end = end.ok_or_else(|| Error::io("the fake file ends before that"))?;
        Ok(Data::copy_from(&state.now[at as usize..end as usize]))
    }

    fn write(&self, at: u64, data: &Data) -> Result<()> {
        let mut state = self.lock();
        let grows = (at + data.len()).saturating_sub(state.now.len() as u64);
        if let Some(room) = &mut state.room {
            if grows > *room {
                return Err(Error::new(Errno::NOSPC, "the fake file is full"));
            }
            *room -= grows;
        }
        let bytes = data.to_vec();
        put(&mut state.now, at as usize, &bytes);
        state.done.push(Op::Write(at, bytes));
        Ok(())
    }

    fn discard(&self, at: u64, len: u64) {
        let mut state = self.lock();
        clear(&mut state.now, at, len);
        state.done.push(Op::Discard(at, len));
    }

    fn sync(&self) -> Result<()> {
        let mut state = self.lock();
        if state.fails {
            return Err(Error::io("the fake file was told to fail"));
        }
        state.done.push(Op::Sync);
        Ok(())
    }

    fn end(&self) -> Result<u64> {
        Ok(self.lock().now.len() as u64)
    }
}

/// A small store, damaged as `input` says, is opened and looked through: what fuzzers and property tests ask for.
/// The first byte of `input` says whether the checksums are made right again, so that what lies behind them is
/// reached; then follow places (of three bytes) and the byte that is put there.
///
/// # Errors
/// What the store says of the damage.
pub fn open_damaged(input: &[u8]) -> Result<()> {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    let mut bytes = WHOLE.get_or_init(|| whole().unwrap_or_default()).clone();
    let Some((mend, changes)) = input.split_first() else { return Ok(()) };
    for change in changes.chunks_exact(4) {
        let at = usize::from(change[0] % 2) << 16 | usize::from(change[1]) << 8 | usize::from(change[2]);
        // Headers, and the part of the log that is used.
        if let Some(byte) = bytes.get_mut(at % (6 * 4096)) {
            *byte = change[3];
        }
    }
    if mend % 2 == 1 {
        format::mend(&mut bytes);
    }
    let store = Blocks::open(Arc::new(Fake::new(bytes)), true)?;
    let totals = store.totals();
    for block in [0, 1, 1024, 2999] {
        if store.map().run(block % store.map().blocks(), 9).0 == State::Copied {
            let (leaf, _) = store.leaf(block % store.map().blocks());
            let _ = store.bytes().read(store.place(leaf, block), SECTOR as u64);
        }
    }
    store.close()?;
    assert_eq!(store.totals(), totals);
    Ok(())
}

/// A store of 3000 blocks, some of which are here.
fn whole() -> Result<Vec<u8>> {
    let fake = Arc::new(Fake::default());
    let store = Blocks::create(fake.clone(), Header::new(Kind::Overlay, SECTOR as u64, 3000 * 512)?)?;
    for block in [0, 1500, 1] {
        let (leaf, index) = store.leaf(block);
        store.bytes().write(store.place(leaf, block), &Data::zeroes(SECTOR as u64))?;
        leaf.change(index, index + 1, State::Base, State::Copied);
        store.sync()?;
    }
    store.map().zero_absent(2048, 952);
    store.sync()?;
    Ok(fake.bytes())
}
