//! The store against power cuts, full disks and damage: whatever happens, it opens with all that was synced, or says
//! what is wrong.

use crate::{Blocks, Header, Id, Kind, State, crash::Fake};
use conformance::Random;
use disk::{Data, Errno};
use proptest::prelude::*;
use std::sync::{Arc, OnceLock};

/// Small, so that the files are; of two sectors, so that they can be torn.
const BLOCK: u64 = 1024;

fn header(blocks: u64) -> Header {
    Header::new(Kind::Overlay, BLOCK, blocks * BLOCK).unwrap()
}

fn open(bytes: Vec<u8>) -> disk::Result<(Arc<Fake>, Blocks)> {
    let fake = Arc::new(Fake::new(bytes));
    Ok((fake.clone(), Blocks::open(fake, true)?))
}

fn create(blocks: u64) -> (Arc<Fake>, Blocks) {
    let fake = Arc::new(Fake::default());
    (fake.clone(), Blocks::create(fake, header(blocks)).unwrap())
}

/// Makes block `at` hold this byte all over.
fn write(store: &Blocks, at: u64, byte: u8) {
    let (leaf, index) = store.leaf(at);
    let place = store.place(leaf, at);
    let (state, _) = leaf.run(index, index + 1);
    let claim = leaf.claim(index, index + 1, state).unwrap();
    store.bytes().write(place, &Data::copy_from(&[byte; BLOCK as usize])).unwrap();
    claim.end(State::Copied);
}

/// Makes block `at` nothing but zeroes.
fn zero(store: &Blocks, at: u64) {
    let (leaf, index) = store.leaf(at);
    let (state, _) = leaf.run(index, index + 1);
    if let Some(claim) = leaf.claim(index, index + 1, state) {
        store.bytes().discard(store.place(leaf, at), BLOCK);
        claim.end(State::Zero);
    }
}

/// What block `at` holds: `None` if it is the base's.
fn read(store: &Blocks, at: u64) -> Option<Vec<u8>> {
    match store.map().run(at, 1).0 {
        State::Base => None,
        State::Zero => Some(vec![0; BLOCK as usize]),
        _ => {
            let (leaf, _) = store.leaf(at);
            Some(store.bytes().read(store.place(leaf, at), BLOCK).unwrap().to_vec())
        }
    }
}

#[test]
fn what_was_synced_is_there_at_the_next_opening() {
    let (fake, store) = create(5000);
    write(&store, 0, 1);
    write(&store, 4999, 2);
    zero(&store, 7);
    assert_eq!(store.map().zero_absent(1024, 2048), 1024);
    assert!(!store.is_settled());
    store.sync().unwrap();
    assert!(store.is_settled());
    let (_, again) = open(fake.bytes()).unwrap();
    assert_eq!(read(&again, 0), Some(vec![1; BLOCK as usize]));
    assert_eq!(read(&again, 4999), Some(vec![2; BLOCK as usize]));
    assert_eq!(read(&again, 7), Some(vec![0; BLOCK as usize]));
    assert_eq!(read(&again, 1), None);
    assert_eq!(again.map().run(1024, 9999), (State::Zero, 1024));
    assert_eq!(again.totals(), store.totals());
    assert_eq!(again.totals().zero, 1025);
    assert_eq!(again.id(), store.id());
}

#[test]
fn a_second_sync_without_changes_writes_nothing() {
    let (fake, store) = create(10);
    write(&store, 3, 3);
    store.sync().unwrap();
    let before = fake.moments();
    store.sync().unwrap();
    assert_eq!(fake.moments(), before + 1, "one sync of the file, for bytes overwritten in place");
}

/// What may be in a block, or a sector of it, after a crash.
#[derive(Clone)]
enum Event {
    /// From this moment on, block `.1` may hold this (`None`: the base's).
    Set(usize, u64, Option<u8>),
    /// All that was set before the moment `.0` was stable from the moment `.1` on.
    Synced(usize, usize),
}

/// Random work on a store of `blocks` blocks; every change and every sync is written down.
fn work(fake: &Fake, store: &Blocks, blocks: u64, steps: u64, seed: u64, events: &mut Vec<Event>) {
    let mut random = Random::new(seed);
    for _ in 0..steps {
        let at = random.below(blocks);
        let moment = fake.moments();
        match random.below(8) {
            0 | 1 => {
                store.sync().unwrap();
                events.push(Event::Synced(moment, fake.moments()));
            }
            2 => {
                events.push(Event::Set(moment, at, Some(0)));
                zero(store, at);
            }
            _ => {
                let byte = 1 + random.below(250) as u8;
                events.push(Event::Set(moment, at, Some(byte)));
                write(store, at, byte);
            }
        }
    }
}

/// What each block may hold if the power goes at this moment.
fn allowed(events: &[Event], moment: usize, at: u64) -> Vec<Option<u8>> {
    let synced = events.iter().filter_map(|event| match event {
        Event::Synced(from, to) if *to <= moment => Some(*from),
        _ => None,
    });
    let stable = synced.max().unwrap_or(0);
    let mut may = vec![None];
    for event in events {
        match event {
            Event::Set(when, block, value) if *block == at && *when < moment.max(1) => {
                if *when < stable {
                    may.clear();
                }
                may.push(*value);
            }
            _ => {}
        }
    }
    may
}

fn check(bytes: Vec<u8>, events: &[Event], moment: usize, blocks: u64, note: &str) {
    let (_, store) = open(bytes).unwrap_or_else(|e| panic!("{note}: {e}"));
    for at in 0..blocks {
        let may = allowed(events, moment, at);
        match read(&store, at) {
            None => assert!(may.contains(&None), "{note}: block {at} is the base's again, not of {may:?}"),
            Some(bytes) => {
                for sector in bytes.chunks(crate::crash::SECTOR) {
                    let one = sector[0];
                    assert!(sector.iter().all(|b| *b == one), "{note}: a sector of block {at} is torn");
                    assert!(may.contains(&Some(one)), "{note}: block {at} has {one}, not of {may:?}");
                }
            }
        }
    }
}

#[test]
fn power_lost_at_any_moment_leaves_all_that_was_synced() {
    // Blocks in three leaves; the log is renewed many times.
    const BLOCKS: u64 = 3000;
    for seed in 0..3 {
        let fake = Arc::new(Fake::default());
        let store = Blocks::create(fake.clone(), header(BLOCKS)).unwrap();
        let (created, mut events) = (fake.moments(), vec![]);
        let used = 20;
        work(&fake, &store, used, 80, seed, &mut events);
        let mut random = Random::new(seed);
        for moment in created..=fake.moments() {
            let note = format!("seed {seed}, moment {moment}");
            check(fake.after_power_loss(moment, || true), &events, moment, used, &note);
            check(fake.after_power_loss(moment, || false), &events, moment, used, &note);
            for _ in 0..4 {
                let bytes = fake.after_power_loss(moment, || random.once_in(2));
                check(bytes, &events, moment, used, &note);
            }
        }
    }
}

#[test]
fn power_lost_while_the_log_is_renewed_leaves_all_that_was_synced() {
    let fake = Arc::new(Fake::default());
    let store = Blocks::create(fake.clone(), header(4000)).unwrap();
    let mut events = vec![];
    let begun = fake.moments();
    // 64 batches fill a log; three logs.
    for round in 0..150u64 {
        let (at, byte) = (round % 5 * 1024 % 4000, 1 + (round % 200) as u8);
        events.push(Event::Set(fake.moments(), at, Some(byte)));
        if store.map().run(at, 1).0 == State::Base || round % 2 == 0 {
            write(&store, at, byte)
        } else {
            events.pop();
            events.push(Event::Set(fake.moments(), at, Some(0)));
            zero(&store, at);
        }
        let moment = fake.moments();
        store.sync().unwrap();
        events.push(Event::Synced(moment, fake.moments()));
    }
    assert!(Blocks::open(Arc::new(Fake::new(fake.bytes())), false).unwrap().header().unwrap().epoch > 2);
    let mut random = Random::new(1);
    for moment in begun..=fake.moments() {
        let bytes = fake.after_power_loss(moment, || random.once_in(2));
        let (_, store) = open(bytes).unwrap();
        for at in [0, 1024, 2048, 3072, 96] {
            let may = allowed(&events, moment, at);
            let now = read(&store, at).map(|bytes| bytes[0]);
            assert!(may.contains(&now), "moment {moment}: block {at} has {now:?}, not of {may:?}");
        }
    }
}

#[test]
fn work_goes_on_after_a_crash_and_another_one() {
    let mut random = Random::new(5);
    let (fake, store) = create(3000);
    let mut events = vec![];
    work(&fake, &store, 10, 60, 1, &mut events);
    for round in 0..40 {
        // Down, somewhere in the middle of the second half; up again, and some more work.
        let moment = fake.moments();
        let bytes = fake.after_power_loss(moment, || random.once_in(2));
        let (fake, store) = open(bytes).unwrap();
        let mut expected: Vec<_> = (0..10).map(|at| read(&store, at)).collect();
        write(&store, round % 10, 9);
        store.sync().unwrap();
        expected[(round % 10) as usize] = Some(vec![9; BLOCK as usize]);
        let cut = fake.after_power_loss(fake.moments(), || false);
        let (_, store) = open(cut).unwrap();
        let now: Vec<_> = (0..10).map(|at| read(&store, at)).collect();
        assert!(now == expected, "round {round}");
    }
}

#[test]
fn a_full_disk_is_said_and_all_goes_on_when_there_is_room() {
    let (fake, store) = create(5000);
    write(&store, 0, 1);
    store.sync().unwrap();
    write(&store, 2000, 2);
    fake.set_room(Some(0));
    // There is a log already, so that the states fit even now.
    store.sync().unwrap();
    let (leaf, index) = store.leaf(4000);
    let full = store.bytes().write(store.place(leaf, 4000), &Data::zeroes(BLOCK));
    assert_eq!(full.unwrap_err().errno(), Errno::NOSPC);
    assert_eq!(leaf.run(index, index + 1).0, State::Base);
    // Until a new log is needed.
    let full = (0..100).find_map(|i| {
        write(&store, 0, i);
        zero(&store, 0);
        store.sync().err()
    });
    assert_eq!(full.unwrap().errno(), Errno::NOSPC);
    fake.set_room(None);
    write(&store, 4000, 4);
    store.sync().unwrap();
    let (_, again) = open(fake.after_power_loss(fake.moments(), || false)).unwrap();
    assert_eq!([0, 2000, 4000].map(|at| read(&again, at).map(|b| b[0])), [Some(0), Some(2), Some(4)]);
}

#[test]
fn after_a_failed_sync_nothing_is_promised_any_more() {
    let (fake, store) = create(100);
    write(&store, 0, 1);
    fake.set_failing(true);
    assert_eq!(store.sync().unwrap_err().errno(), Errno::IO);
    fake.set_failing(false);
    let why = store.sync().unwrap_err().to_string();
    assert!(why.contains("start again"), "{why}");
}

#[test]
fn closed_in_good_order_it_notices_when_the_end_of_its_log_is_lost() {
    let (fake, store) = create(100);
    write(&store, 0, 1);
    store.close().unwrap();
    let mut bytes = fake.bytes();
    bytes[8192 + 100] ^= 1;
    let why = open(bytes).err().unwrap().to_string();
    assert_eq!(why, "the file is damaged: of 1 parts of its log, only 0 are whole");
}

#[test]
fn a_cleared_store_is_empty_and_a_frozen_one_is_only_read() {
    let (fake, store) = create(3000);
    (0..2000).step_by(99).for_each(|at| write(&store, at, 1));
    store.clear("new").unwrap();
    let (fake, store) = open(fake.bytes()).unwrap();
    assert_eq!(store.totals(), crate::Totals::default());
    assert_eq!(store.header().unwrap().identity, "new");
    write(&store, 5, 5);
    store.freeze().unwrap();
    let why = open(fake.bytes()).err().unwrap().to_string();
    assert_eq!(why, "others stand on it, so that it must not change");
    let reader = Blocks::open(Arc::new(Fake::new(fake.bytes())), false).unwrap();
    assert_eq!(read(&reader, 5), Some(vec![5; BLOCK as usize]));
}

#[test]
fn what_is_no_store_is_refused() {
    for bytes in [vec![], vec![0; 100], vec![0; 100_000], vec![7; 9000]] {
        let why = open(bytes).err().unwrap().to_string();
        assert_eq!(why, "not a file of diskpipe's overlays and caches");
    }
}

/// Of each block, `None` if it is the base's.
type Contents = Vec<Option<Vec<u8>>>;

/// A store that was closed in good order, with several parts in its log.
fn closed() -> (Vec<u8>, Contents) {
    static CLOSED: OnceLock<(Vec<u8>, Contents)> = OnceLock::new();
    CLOSED.get_or_init(make_closed).clone()
}

fn make_closed() -> (Vec<u8>, Contents) {
    let (fake, store) = create(2500);
    for at in [0, 3, 1030, 2499] {
        write(&store, at, at as u8 | 1);
        store.sync().unwrap();
    }
    zero(&store, 3);
    store.close().unwrap();
    (fake.bytes(), (0..2500).map(|at| read(&store, at)).collect())
}

/// Opens it; it must fail, or have the right states. (Bytes of blocks have no checksum.)
fn is_right_or_refused(bytes: Vec<u8>, expected: &[Option<Vec<u8>>]) {
    if let Ok((_, store)) = open(bytes) {
        for (at, expected) in (0..).zip(expected) {
            match (store.map().run(at, 1).0, expected) {
                (State::Base, None) => {}
                (State::Copied, Some(bytes)) => assert!(bytes[0] != 0),
                (State::Zero, Some(bytes)) => assert!(bytes[0] == 0),
                other => panic!("block {at}: {other:?}"),
            }
            if store.map().run(at, 1).0 == State::Copied {
                // Of the disk's last block it is not known how long it must be: to read it may fail, and is never wrong.
                let (leaf, _) = store.leaf(at);
                let bytes = store.bytes().read(store.place(leaf, at), BLOCK);
                assert!(bytes.is_ok() || at == 2499, "block {at}");
            }
        }
    }
}

proptest! {
    #[test]
    fn a_store_that_was_cut_short_is_right_or_refused(cut in 0usize..3 << 20) {
        let (mut bytes, expected) = closed();
        bytes.truncate(cut);
        is_right_or_refused(bytes, &expected);
    }

    #[test]
    fn nonsense_with_right_checksums_is_an_error_or_a_store(
        mut changes in proptest::collection::vec(any::<u8>(), 1..80)
    ) {
        changes[0] = 1;
        let _ = crate::crash::open_damaged(&changes);
    }

    #[test]
    fn a_damaged_store_is_right_or_refused(
        flips in proptest::collection::vec((0usize..8192 + 6 * 4096, 1u8..), 1..6)
    ) {
        let (mut bytes, expected) = closed();
        for (at, flip) in flips {
            bytes[at] ^= flip;
        }
        is_right_or_refused(bytes, &expected);
    }
}

#[test]
fn threads_that_sync_at_once_all_find_their_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = crate::file::create(&path, header(4096)).unwrap();
    std::thread::scope(|scope| {
        for me in 0..4u64 {
            let store = &store;
            scope.spawn(move || {
                for i in 0..50 {
                    write(store, me * 1000 + i, me as u8 + 1);
                    store.sync().unwrap();
                }
            });
        }
    });
    drop(store);
    let store = crate::file::open(&path, true).unwrap();
    for me in 0..4 {
        for i in 0..50 {
            assert_eq!(read(&store, me * 1000 + i), Some(vec![me as u8 + 1; BLOCK as usize]));
        }
    }
}

#[test]
fn one_writes_or_many_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let of = |why: disk::Result<Blocks>| why.err().unwrap().to_string();
    let writer = crate::file::create(&path, header(10)).unwrap();
    let shown = path.display();
    let ours = format!("{shown}: already used by this server, by the filter cow");
    assert_eq!(of(crate::file::open(&path, true)), ours);
    assert_eq!(of(crate::file::open(&path, false)), ours);
    drop(writer);
    let readers = [(); 2].map(|()| crate::file::open(&path, false).unwrap());
    assert_eq!(of(crate::file::open(&path, true)), ours);
    drop(readers);
    assert_eq!(of(crate::file::create(&path, header(10))), format!("{shown}: File exists"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    assert_eq!(
        of(crate::file::open(dir.path(), false)),
        format!("{}: not a regular file", dir.path().display())
    );
    assert!(crate::file::open(&path, true).is_ok());
    assert_ne!(Id::new().unwrap(), Id::new().unwrap());
}
