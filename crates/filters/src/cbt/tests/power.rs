//! The account after every power cut: it opens, has each checkpoint that was acknowledged, and each change that was
//! passed on.

use super::*;
use crate::crashlab::power::Power;
use rustix::fs::{MemfdFlags, memfd_create};
use std::{fs::File, os::fd::AsRawFd, os::unix::fs::FileExt};

/// What was promised of a checkpoint, and from which moment on.
#[derive(Clone)]
struct Promised {
    name: String,
    from: usize,
    /// The granules that changed since.
    changed: Vec<(usize, u64)>,
}

/// A file of these bytes, where the last server did not write it. It is there as long as the first is.
fn file(bytes: &[u8]) -> (File, Store) {
    let file = File::from(memfd_create("cbt", MemfdFlags::CLOEXEC).unwrap());
    file.write_all_at(bytes, 0).unwrap();
    let store = Store::open(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())));
    (file, store.unwrap().unwrap())
}

/// The bytes of an account without checkpoints.
fn new() -> Vec<u8> {
    let place = Place::new();
    let header = Header {
        turn: 0,
        granule: GRANULE,
        size: SIZE as u64,
        becoming: None,
        epoch: 1,
        in_use: None,
        export: String::new(),
        checkpoints: Vec::new(),
    };
    drop(Store::create(&place.file(), &header).unwrap());
    fs::read(place.file()).unwrap()
}

/// A server over the file with these bytes does all sorts of things; every state is looked at that the file may have
/// meanwhile. Returns one of the states, and what was promised of it.
fn server(
    random: &mut Random,
    bytes: &[u8],
    mut promised: Vec<Promised>,
    life: &str,
) -> (Vec<u8>, Vec<Promised>) {
    let mut kept = bytes.to_vec();
    kept.resize(kept.len().next_multiple_of(512), 0);
    let power = Power::over(&[Memory::new(kept), memory()]);
    let (_file, store) = file(bytes);
    store.copy.set(power.disk(0)).ok().unwrap();
    let header = store.header().unwrap();
    let mut args = params::Args::from_cli(&["cbt-file=unused"], None).unwrap();
    let params = <Cbt as Params>::parse(&mut args).unwrap();
    let state = Mutex::new(State::Opened(store, header));
    let follow = Follow { params, gate: Arc::default(), state };
    let tracker = follow.tracker("", SIZE as u64).unwrap();
    let next = power.disk(1);
    let (facts, passing) = (next.facts().clone(), follow.gate.passing());
    let disk: Arc<dyn Disk> =
        Arc::new(Layer { facts, since: vec![], passing, tracker: tracker.clone(), next });
    for step in 0..30 {
        match random.below(8) {
            0 => {
                let name = format!("{life}.{step}");
                tracker.change_checkpoints(|header| control::begin(header, &name, false)).unwrap();
                promised.push(Promised { name, from: power.now(), changed: Vec::new() });
            }
            1 => tracker.close_regions(random.below(2) == 0).unwrap(),
            _ => {
                let granule = random.below(SIZE as u64 / GRANULE - 1);
                let before = power.unflushed(power.now(), 1);
                let asked = power.now();
                write(&disk, granule * GRANULE + 4000, 200);
                // From when the disk below had it, which is never flushed here.
                let passed = (asked..).find(|moment| power.unflushed(*moment, 1) > before).unwrap();
                let changed = [(passed, granule), (passed, granule + 1)];
                promised.iter_mut().for_each(|promised| promised.changed.extend(changed));
            }
        }
    }
    if random.below(2) == 0 {
        tracker.finish().unwrap();
    }
    let (chosen, mut choice) = (random.below(power.now() as u64 + 1) as usize, None);
    for moment in 0..=power.now() {
        let states = if power.unflushed(moment, 0) == 0 { 1 } else { 6 };
        for state in 0..states {
            let number = if state < 2 { state } else { 2 + random.below([14, 60][state as usize % 2]) };
            let disk = power.state(moment, 0, number);
            let now = disk.read(Range::new(0, bytes.len() as u64)).wait().unwrap().to_vec();
            check(&now, &promised, moment, &format!("life {life}, moment {moment}, state {number}"));
            if moment == chosen && (choice.is_none() || random.below(4) == 0) {
                choice = Some(now);
            }
        }
    }
    promised.retain(|promised| promised.from <= chosen);
    for promised in &mut promised {
        promised.from = 0;
        promised.changed.retain(|(from, _)| *from <= chosen);
        promised.changed.iter_mut().for_each(|(from, _)| *from = 0);
    }
    (choice.unwrap(), promised)
}

fn check(bytes: &[u8], promised: &[Promised], moment: usize, what: &str) {
    let (_file, store) = file(bytes);
    let header = store.header().unwrap_or_else(|e| panic!("{what}: {e}"));
    let found = store.load(header).unwrap_or_else(|e| panic!("{what}: {e}"));
    for Promised { name, changed, .. } in promised.iter().filter(|promised| promised.from <= moment) {
        let checkpoint = found.header.find(name);
        let epoch = checkpoint.unwrap_or_else(|| panic!("{what}: checkpoint {name} is lost")).epoch;
        for (_, granule) in changed.iter().filter(|(from, _)| *from <= moment) {
            let (region, inside) = (granule / 256, (granule % 256) as usize);
            let numbers = found.regions.iter().find(|(number, _)| *number == region);
            let marked = numbers.is_some_and(|(_, numbers)| numbers[inside] >= epoch);
            assert!(marked, "{what}: granule {granule} changed since {name}, and is said to be clean");
        }
    }
}

#[test]
fn what_was_passed_on_is_changed_since_every_checkpoint_whenever_the_power_goes() {
    for seed in 1..4 {
        let mut random = Random(seed);
        let (mut bytes, mut promised) = (new(), Vec::new());
        for life in 0..3 {
            (bytes, promised) = server(&mut random, &bytes, promised, &format!("{seed}.{life}"));
        }
    }
}
