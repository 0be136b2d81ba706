//! Tests of `crashlab`: every state is a legal one, and stays what it is.

use super::*;
use crate::common::testing::{Memory, Random, layer, noise, open, over};
use conformance::Fake;
use disk::{Data, Range, WriteFlags, ZeroFlags};
use std::collections::{HashMap, HashSet};

const SIZE: u64 = 64 << 10;
const F: WriteFlags = WriteFlags { fua: false };

fn names(layer: &Arc<dyn Backend>) -> Vec<String> {
    let exports = layer.exports(&Client::default()).wait().unwrap();
    exports.into_iter().map(|export| export.name).filter(|name| name.starts_with("crash/")).collect()
}

fn whole(layer: &Arc<dyn Backend>, name: &str) -> Vec<u8> {
    let disk = layer.open(&Client::local(name)).wait().unwrap();
    let bytes = disk.read(disk.facts().whole()).wait().unwrap().to_vec();
    disk.close().wait().unwrap();
    bytes
}

fn put(disk: &Arc<dyn Disk>, at: u64, byte: u8) {
    disk.write(at, Data::copy_from(&[byte; 512]), F).wait().unwrap();
}

#[test]
fn of_two_writes_there_are_four_states_and_of_flushed_ones_one() {
    let memory = Memory::new(vec![0; 4096]);
    let layer = layer::<CrashLab>(&[], &memory).unwrap();
    let disk = open(&layer);
    put(&disk, 0, 1);
    assert_eq!(memory.bytes(), vec![0; 4096], "nothing is stable yet");
    disk.flush().wait().unwrap();
    assert_eq!(memory.bytes()[0], 1);
    put(&disk, 512, 2);
    put(&disk, 1024, 3);
    assert_eq!(names(&layer).iter().filter(|name| name.starts_with("crash/1.2/")).count(), 4);
    let seen: HashSet<[u8; 3]> = (0..4)
        .map(|n| whole(&layer, &format!("crash/1.2/{n}")))
        .map(|bytes| [bytes[0], bytes[512], bytes[1024]])
        .collect();
    assert_eq!(seen, HashSet::from([[1, 0, 0], [1, 2, 0], [1, 0, 3], [1, 2, 3]]));
    // After the first of the two, and before the flush.
    assert_eq!(whole(&layer, "crash/1.1/1")[512..1025], [vec![2; 512], vec![0]].concat());
    assert_eq!(whole(&layer, "crash/0.1/0"), vec![0; 4096]);
    disk.flush().wait().unwrap();
    assert_eq!(whole(&layer, "crash/1.2/0")[..1025], [vec![1; 512], vec![0; 513]].concat());
}

#[test]
fn every_state_of_random_work_is_legal_and_stays_what_it_is() {
    for seed in 0..12 {
        let fake = Fake::new(Facts::capable(SIZE), seed);
        fake.wait_each_time((seed % 2) as u32);
        let layer = over::<CrashLab>(&["crashlab-states=12", "crashlab-sector=512"], fake.backend()).unwrap();
        let disk = open(&layer);
        let mut random = Random(seed);
        let mut model = disk.read(disk.facts().whole()).wait().unwrap().to_vec();
        // Of each epoch: what was there before it, and the bytes that were written to each sector in it.
        let mut epochs = vec![(model.clone(), HashMap::<u64, Vec<Vec<u8>>>::new())];
        let mut frozen: Vec<(Arc<dyn Disk>, Vec<u8>)> = Vec::new();
        for step in 0..120 {
            match random.below(10) {
                0 => {
                    disk.flush().wait().unwrap();
                    epochs.push((model.clone(), HashMap::new()));
                }
                1 if !names(&layer).is_empty() => {
                    let names = names(&layer);
                    let name = &names[random.below(names.len() as u64) as usize];
                    let state = layer.open(&Client::local(name)).wait().unwrap();
                    let bytes = state.read(state.facts().whole()).wait().unwrap().to_vec();
                    frozen.push((state, bytes));
                }
                kind => {
                    let sector = random.below(SIZE / 512 - 8);
                    let r = Range::new(sector * 512, (1 + random.below(8)) * 512);
                    let fua = random.below(8) == 0;
                    let bytes = if kind == 2 {
                        vec![0; r.len as usize]
                    } else {
                        noise(step + seed * 1000, r.len as usize)
                    };
                    match kind {
                        2 => disk.zero(r, ZeroFlags { fua, ..ZeroFlags::default() }).wait().unwrap(),
                        _ => disk.write(r.start, Data::copy_from(&bytes), WriteFlags { fua }).wait().unwrap(),
                    }
                    model[r.start as usize..r.end() as usize].copy_from_slice(&bytes);
                    for (n, part) in bytes.chunks(512).enumerate() {
                        let written = &mut epochs.last_mut().unwrap().1;
                        written.entry(sector + n as u64).or_default().push(part.to_vec());
                    }
                }
            }
            let r = Range::new(random.below(SIZE / 2), SIZE / 2);
            assert_eq!(
                disk.read(r).wait().unwrap().to_vec(),
                model[r.start as usize..r.end() as usize],
                "seed {seed}"
            );
        }
        // A flush of nothing makes no epoch.
        epochs.retain(|(_, written)| !written.is_empty());
        for name in names(&layer) {
            let moment = Moment::of_name(&name).unwrap();
            let number: usize = moment.name()["crash/".len()..].split('.').next().unwrap().parse().unwrap();
            let Some((before, written)) = epochs.get(number) else { continue };
            for (n, sector) in whole(&layer, &name).chunks(512).enumerate() {
                let old = sector == &before[n * 512..][..512];
                let new = written.get(&(n as u64)).is_some_and(|all| all.iter().any(|bytes| bytes == sector));
                assert!(old || new, "seed {seed}: {name}: sector {n}");
            }
        }
        for (state, bytes) in frozen {
            assert_eq!(state.read(state.facts().whole()).wait().unwrap().to_vec(), bytes, "seed {seed}");
        }
        layer.finish();
        assert_eq!(open(&fake.backend()).read(Range::new(0, SIZE)).wait().unwrap().to_vec(), model);
    }
}

#[test]
fn what_is_written_to_a_state_stays_there() {
    let memory = Memory::new(vec![0; 4096]);
    let layer = layer::<CrashLab>(&[], &memory).unwrap();
    let disk = open(&layer);
    put(&disk, 0, 1);
    let state = layer.open(&Client::local("crash/0.1/1")).wait().unwrap();
    put(&state, 512, 7);
    state.flush().wait().unwrap();
    assert_eq!(whole(&layer, "crash/0.1/1")[..1024], [[1; 512], [7; 512]].concat());
    assert_eq!(whole(&layer, "crash/0.1/0"), vec![0; 4096]);
    assert_eq!(disk.read(Range::new(512, 1)).wait().unwrap().to_vec(), [0]);
    drop(state);
    assert_eq!(whole(&layer, "crash/0.1/1")[512], 0, "with its last client it is forgotten");
}

#[test]
fn a_stable_write_is_below_at_once_and_still_may_be_missing_before_it() {
    let memory = Memory::new(vec![0; 4096]);
    let layer = layer::<CrashLab>(&[], &memory).unwrap();
    let disk = open(&layer);
    disk.write(0, Data::copy_from(&[5; 512]), WriteFlags { fua: true }).wait().unwrap();
    assert_eq!(memory.bytes()[0], 5);
    put(&disk, 512, 6);
    let seen: HashSet<[u8; 2]> =
        (0..4).map(|n| whole(&layer, &format!("crash/0.2/{n}"))).map(|b| [b[0], b[512]]).collect();
    assert_eq!(seen, HashSet::from([[0, 0], [5, 0], [5, 6]]));
}

#[test]
fn a_flush_that_fails_loses_nothing_and_may_succeed_later() {
    let fake = Fake::new(Facts::capable(SIZE), 9);
    let layer = over::<CrashLab>(&[], fake.backend()).unwrap();
    let disk = open(&layer);
    fake.fail_one_in(2, 1);
    let mut random = Random(4);
    let mut model: HashMap<u64, u8> = HashMap::new();
    let mut failed = 0;
    for n in 0..60 {
        let at = random.below(100) * 512;
        disk.write(at, Data::copy_from(&[n; 512]), F).wait().unwrap();
        model.insert(at, n);
        failed += u32::from(disk.flush().wait().is_err());
    }
    assert!(failed > 10, "{failed}");
    fake.fail_one_in(0, 1);
    disk.flush().wait().unwrap();
    let plain = open(&fake.backend());
    for (at, byte) in model {
        assert_eq!(plain.read(Range::new(at, 512)).wait().unwrap().to_vec(), [byte; 512]);
        assert_eq!(disk.read(Range::new(at, 512)).wait().unwrap().to_vec(), [byte; 512]);
    }
}

#[test]
fn when_the_memory_is_used_up_the_oldest_writes_are_taken_for_stable() {
    let memory = Memory::new(vec![0; 8 << 20]);
    let layer = layer::<CrashLab>(&["crashlab-memory=1M"], &memory).unwrap();
    let disk = open(&layer);
    for n in 0..100u64 {
        disk.write(n * 65536, Data::copy_from(&noise(n, 65536)), F).wait().unwrap();
    }
    let first = layer.open(&Client::local("crash/0.1/1")).wait().err().unwrap();
    assert_eq!(first.errno(), Errno::NOENT);
    assert!(first.to_string().contains("have been forgotten"), "{first}");
    assert!(!names(&layer).is_empty());
    for n in 0..100 {
        assert_eq!(disk.read(Range::new(n * 65536, 65536)).wait().unwrap().to_vec(), noise(n, 65536));
    }
}

#[test]
fn what_there_is_not_is_told() {
    let memory = Memory::new(vec![0; 4096]);
    let layer = layer::<CrashLab>(&[], &memory).unwrap();
    let error = |name: &str| layer.open(&Client::local(name)).wait().err().map(|e| e.to_string());
    assert!(error("crash/0.0/0").unwrap().contains("nothing has been written yet"));
    let _disk = open(&layer);
    assert_eq!(error("crash/0.0/0"), None);
    assert!(error("crash/1.0/0").unwrap().contains("not so many flushes"));
    assert!(error("crash/0.1/0").unwrap().contains("not so many writes"));
    assert!(error("other").unwrap().contains("one export"));
    assert!(error("crash/00.0/0").unwrap().contains("one export"), "one name for each state");
}
