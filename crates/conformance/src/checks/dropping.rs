//! A request's future may be dropped wherever it waits: nothing panics, wedges or harms later requests, and a write is
//! over when a later flush is.

use super::soon;
use crate::{
    case::{Expect, Subject},
    model::{Model, Step},
    random::Random,
};
use disk::{Disk, Io, Range, WriteFlags};
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
    time::Duration,
};

/// Polls up to `times` times; `None` when it was still not done, and is dropped.
fn poll_and_drop<T>(mut io: Io<'_, T>, times: u32) -> Option<disk::Result<T>> {
    if times == 0 {
        return None;
    }
    let mut polls = 0;
    let bounded = poll_fn(|cx| {
        polls += 1;
        match Pin::new(&mut io).poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending if polls >= times => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    });
    reactor::block_on(reactor::timeout(Duration::from_secs(30), bounded))
        .expect("no answer within 30 seconds")
}

/// Writes right behind a range, or right before it: there nothing else may come about any more.
fn write_beside(disk: &dyn Disk, range: Range, model: &mut Model, random: &mut Random) {
    let minimum = u64::from(disk.facts().blocks.minimum);
    let len = minimum * (1 + random.below(1 + 700 / minimum));
    let behind = Range::new(range.end(), len);
    let before = range.start.checked_sub(len).map(|start| Range::new(start, len));
    let beside = [Some(behind), before].into_iter().flatten().find(|beside| {
        model.areas().any(|area| area.intersect(*beside) == Some(*beside)) //
    });
    let Some(beside) = beside else { return };
    let data = random.bytes(beside.len);
    soon(disk.write(beside.start, data.clone(), WriteFlags::default()))
        .unwrap_or_else(|e| panic!("writing {beside}: {e}"));
    model.set(beside, &data.to_vec());
}

pub(super) fn everywhere(subject: &Subject, seed: u64) {
    let disk = subject.open();
    let facts = disk.facts().clone();
    if facts.size == 0 {
        return;
    }
    if let Some(below) = &subject.below {
        below.wait_each_time(2);
        below.change_late();
    }
    let mut random = Random::new(seed);
    let mut model = Model::of(&*disk);
    for turn in 0..80 {
        let area = model.any_area(&mut random);
        let step = Step::random(&mut random, &facts, area);
        // Without flush nobody can know when a write that was dropped is over.
        if step.touches().is_some() && (subject.expect != Expect::Model || !facts.flush) {
            continue;
        }
        let answer = poll_and_drop(step.ask(&*disk), turn % 16);
        match answer {
            Some(answer) => model.check(&*disk, &step, answer),
            None => {
                if let Some(range) = step.touches()
                    && random.once_in(2)
                {
                    // Old or new, and what is read now must not be kept.
                    let _ = crate::model::read_all(&*disk, range);
                }
                if let Some(range) = step.touches()
                    && random.once_in(2)
                {
                    write_beside(&*disk, range, &mut model, &mut random);
                }
                if facts.flush {
                    soon(disk.flush()).unwrap_or_else(|e| panic!("flushing: {e}"));
                }
                if let Some(range) = step.touches() {
                    model.adopt(&*disk, range, step.becomes().as_deref());
                }
            }
        }
        if turn % 16 == 15 {
            model.compare(&*disk);
        }
    }
    // Dropped while another request is under way on the same disk.
    for times in 0..8 {
        let area = model.any_area(&mut random);
        let range = random.range(area, facts.blocks, 8192);
        let kept = disk.read(range);
        drop(poll_and_drop(disk.read(range), times));
        let data = soon(kept).unwrap_or_else(|e| panic!("reading {range}: {e}"));
        crate::model::same(&data, model.bytes(range), range, "a read beside a dropped one");
    }
    model.compare(&*disk);
}
