//! What a flush or FUA promised is there after a loss of power.

use super::soon;
use crate::{
    case::Subject,
    model::{Model, Step, read_all},
    random::Random,
};
use disk::{Client, Disk, Range, WriteFlags, ZeroFlags};
use std::collections::{HashMap, HashSet};

/// Which values each byte may have after a loss of power: the stable one, or any that was written since.
struct Possible {
    stable: Model,
    since: HashMap<u64, Vec<u8>>,
    /// Where a write failed: no flush says which of its values a byte has.
    unsure: HashSet<u64>,
}

impl Possible {
    fn wrote(&mut self, range: Range, bytes: &[u8], stable: bool) {
        for (at, byte) in (range.start..).zip(bytes) {
            self.unsure.remove(&at);
            if stable {
                self.stable.set(Range::new(at, 1), &[*byte]);
                self.since.remove(&at);
            } else {
                self.since.entry(at).or_default().push(*byte);
            }
        }
    }

    fn failed(&mut self, range: Range, bytes: &[u8]) {
        for (at, byte) in (range.start..).zip(bytes) {
            self.unsure.insert(at);
            self.since.entry(at).or_default().push(*byte);
        }
    }

    fn flushed(&mut self) {
        let unsure = &self.unsure;
        for (at, values) in self.since.extract_if(|at, _| !unsure.contains(at)) {
            self.stable.set(Range::new(at, 1), &values[values.len() - 1..]);
        }
    }

    fn check(&self, disk: &dyn Disk) {
        for area in self.stable.areas() {
            for (at, is) in (area.start..).zip(read_all(disk, area)) {
                let stable = self.stable.bytes(Range::new(at, 1))[0];
                let possible = is == stable || self.since.get(&at).is_some_and(|v| v.contains(&is));
                assert!(possible, "after a loss of power byte {at} is {is:#04x}; flushed was {stable:#04x}");
            }
        }
    }
}

pub(super) fn power_loss(subject: &Subject, seed: u64) {
    among_failures(0, 120, subject, seed);
}

pub(super) fn power_loss_and_failures(subject: &Subject, seed: u64) {
    among_failures(4, 60, subject, seed);
}

/// So many turns, of which below one request in `n` fails.
fn among_failures(n: u64, turns: u32, subject: &Subject, seed: u64) {
    let below = subject.below.as_ref().expect("only for filters");
    let disk = subject.open();
    let facts = disk.facts().clone();
    let mut random = Random::new(seed);
    let mut possible = Possible { stable: Model::of(&*disk), since: HashMap::new(), unsure: HashSet::new() };
    for turn in 0..turns {
        below.wait_each_time((turn % 3 == 0).into());
        let area = possible.stable.any_area(&mut random);
        let range = random.range(area, facts.blocks, 2048);
        let fua = facts.fua && random.once_in(3);
        let step = match random.below(6) {
            0 => Step::Flush,
            1 if facts.zero => Step::Zero(range, ZeroFlags { fua, may_trim: random.once_in(2), fast: false }),
            2 if facts.trim => Step::Trim(range, WriteFlags { fua }),
            n => Step::Write { at: range.start, data: random.bytes(range.len), fua, placed: n == 3 },
        };
        let flushes = matches!(step, Step::Flush);
        below.fail_one_in(if flushes { n.min(2) } else { n }, random.any());
        let answer = soon(step.ask(&*disk));
        let mut cut = random.once_in(8);
        below.fail_one_in(0, 0);
        match &step {
            step if answer.is_err() => {
                assert!(n > 0, "{step:?} failed: {}", answer.unwrap_err());
                if flushes {
                    // What is not stable must not be forgotten over that.
                    soon(disk.flush()).unwrap_or_else(|e| panic!("flushing again: {e}"));
                    possible.flushed();
                    cut = true;
                }
                if let Some(range) = step.touches() {
                    possible.failed(range, &step.becomes().unwrap_or_default());
                    possible.failed(range, &read_all(&*disk, range));
                }
            }
            Step::Flush => possible.flushed(),
            Step::Trim(r, _) => {
                // Whatever it reads as now.
                let now = read_all(&*disk, *r);
                possible.wrote(*r, &now, false);
            }
            step => {
                let bytes = step.becomes().expect("a write");
                possible.wrote(step.touches().expect("a write"), &bytes, fua);
            }
        }
        if cut {
            let (after, _files) = subject.over(below.after_power_loss());
            let client = Client::default();
            possible.check(&*soon(after.open(&client)).expect("opens after a loss of power"));
        }
    }
}
