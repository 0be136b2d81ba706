//! Extents cover the range, respect the limit, and agree with what is read.

use super::soon;
use crate::{
    case::{Expect, Subject},
    model::{Model, Step},
    random::Random,
};
use disk::{Disk, Extents, Range};

/// More extents than asked for are allowed "where that is cheap"; this many more are not.
const SLACK: usize = 64;

pub(super) fn agree_with_reads(subject: &Subject, seed: u64) {
    let disk = subject.open();
    let mut random = Random::new(seed);
    let mut model = Model::of(&*disk);
    walk_all(&*disk, &model);
    if disk.facts().write && subject.expect == Expect::Model {
        for _ in 0..64 {
            let area = model.any_area(&mut random);
            let step = Step::random(&mut random, disk.facts(), area);
            let answer = soon(step.ask(&*disk));
            model.check(&*disk, &step, answer);
        }
        walk_all(&*disk, &model);
    }
    // From the first to the last byte of a disk of any size, as far as a few thousand questions reach.
    let size = disk.facts().size;
    let (mut at, unit) = (0, u64::from(disk.facts().blocks.minimum));
    for _ in 0..2000 {
        if at >= size {
            break;
        }
        let rest = Range::new(at, size - at);
        let extents = soon(disk.extents(rest, 32)).unwrap_or_else(|e| panic!("extents of {rest}: {e}"));
        check(&extents, rest, 32, |_| true);
        at += extents.covered();
        assert!(at.is_multiple_of(unit) || at == size, "extents end at {at}, which no request can begin at");
    }
}

/// Every area, in pieces as the disk answers them, with a limit of one and of many.
fn walk_all(disk: &dyn Disk, model: &Model) {
    for limit in [1, 1000] {
        for area in model.areas() {
            let mut at = area.start;
            while at < area.end() {
                let rest = Range::new(at, area.end() - at);
                let extents =
                    soon(disk.extents(rest, limit)).unwrap_or_else(|e| panic!("extents of {rest}: {e}"));
                check(&extents, rest, limit, |zero| model.bytes(zero).iter().all(|b| *b == 0));
                at += extents.covered();
            }
        }
    }
}

/// Holds an answer for `range` against the contract; `is_zero` knows what ranges hold.
pub(crate) fn check(extents: &Extents, range: Range, limit: usize, is_zero: impl Fn(Range) -> bool) {
    let covered = extents.covered();
    assert!(covered > 0, "no extent for {range}");
    assert!(covered <= range.len, "extents of {covered} bytes for {range}");
    assert!(extents.len() <= limit + SLACK, "{} extents for {range}, asked for {limit}", extents.len());
    for (part, kind) in extents.ranges(range.start) {
        assert!(!kind.zero || is_zero(part), "{part} are said to be zeroes and are not ({kind:?})");
    }
}
