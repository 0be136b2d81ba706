//! Reads agree with each other, and show no bytes of recycled buffers.

use super::soon;
use crate::{
    case::{Expect, Subject},
    model::{Model, no_poison, same},
    random::Random,
};
use disk::{BufMut, WriteFlags};

pub(super) fn cut_anywhere(subject: &Subject, seed: u64) {
    let disk = subject.open();
    let facts = disk.facts().clone();
    if facts.size == 0 {
        return;
    }
    let model = Model::of(&*disk);
    let mut random = Random::new(seed);
    for _ in 0..200 {
        let area = model.any_area(&mut random);
        let range = random.range(area, facts.blocks, 256 << 10);
        if facts.cache && random.once_in(4) {
            soon(disk.cache(range)).unwrap_or_else(|e| panic!("caching {range}: {e}"));
        }
        let data = soon(disk.read(range)).unwrap_or_else(|e| panic!("reading {range}: {e}"));
        same(&data, model.bytes(range), range, "a read");
    }
    // Another connection, opened later, sees the same disk.
    let second = subject.open_as(2);
    assert_eq!(second.facts().size, facts.size, "the size for a second connection");
    if facts.multi_conn {
        model.compare(&*second);
    }
    subject.backend.disconnected(2);
}

pub(super) fn nothing_recycled(subject: &Subject, seed: u64) {
    let disk = subject.open();
    let facts = disk.facts().clone();
    let mut random = Random::new(seed);
    for round in 0..3 {
        // Buffers of every size class go back to the pool with something in them.
        let used: Vec<BufMut> = [1, 4096, 16 << 10, 64 << 10, 256 << 10, 1 << 20].map(BufMut::new).into();
        drop(used);
        let model = Model::of(&*disk);
        for area in model.areas() {
            no_poison(model.bytes(area), area);
        }
        // Small writes in large blocks are where layers fill buffers in part only.
        if facts.write && subject.expect == Expect::Model && facts.size > 0 {
            for _ in 0..8 * round {
                let area = model.any_area(&mut random);
                let range = random.range(area, facts.blocks, 700);
                let data = random.bytes(range.len);
                soon(disk.write(range.start, data, WriteFlags::default()))
                    .unwrap_or_else(|e| panic!("writing {range}: {e}"));
            }
        }
    }
}
