//! Requests to different places, from several threads or in flight on one, do not disturb each other.

use super::soon;
use crate::{
    case::{Expect, Subject},
    model::{Model, Step, same},
    random::Random,
};
use disk::{Disk, Facts, Range};
use std::sync::Arc;

const LANES: u64 = 4;

/// Parts of the first modelled area, which share pages and blocks at their edges.
fn lanes(facts: &Facts, model: &Model) -> Vec<Range> {
    let unit = u64::from(facts.blocks.minimum);
    let area = model.areas().next().map_or(0, |area| area.len);
    let lane = area / LANES / unit * unit;
    (0..LANES).map(|n| Range::new(n * lane, lane)).filter(|lane| !lane.is_empty()).collect()
}

/// What steps are allowed: writes only where they are remembered.
fn step(random: &mut Random, facts: &Facts, lane: Range, expect: Expect) -> Step {
    loop {
        let step = Step::random(random, facts, lane);
        if expect == Expect::Model || step.touches().is_none() {
            return step;
        }
    }
}

pub(super) fn threads(subject: &Subject, seed: u64) {
    let first = subject.open();
    let facts = first.facts().clone();
    let before = Model::of(&*first);
    if let Some(below) = &subject.below {
        below.wait_each_time(1);
    }
    let (lanes, expect) = (lanes(&facts, &before), subject.expect);
    let models: Vec<Model> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0u64..)
            .zip(&lanes)
            .map(|(n, lane)| {
                let disk: Arc<dyn Disk> = first.clone();
                let (facts, before) = (&facts, &before);
                scope.spawn(move || {
                    let mut random = Random::new(seed ^ n);
                    let mut model = before.clone();
                    for _ in 0..120 {
                        let step = step(&mut random, facts, *lane, expect);
                        let answer = soon(step.ask(&*disk));
                        model.check(&*disk, &step, answer);
                    }
                    model
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
            .collect()
    });
    for (lane, model) in lanes.iter().zip(&models) {
        let now = crate::model::read_all(&*first, *lane);
        same(&disk::Data::copy_from(&now), model.bytes(*lane), *lane, "a thread's part at the end");
    }
}

pub(super) fn in_flight(subject: &Subject, seed: u64) {
    let disk = subject.open();
    let facts = disk.facts().clone();
    let mut model = Model::of(&*disk);
    let mut random = Random::new(seed);
    let lanes = lanes(&facts, &model);
    for round in 0..30 {
        if let Some(below) = &subject.below {
            below.wait_each_time(round % 3);
            if round % 5 == 0 {
                below.hold();
            }
        }
        // One request per lane at once; they cannot overlap.
        let steps: Vec<Step> =
            lanes.iter().map(|lane| step(&mut random, &facts, *lane, subject.expect)).collect();
        let mut set = reactor::InFlight::new();
        for step in steps {
            let io = step.ask(&*disk);
            set.push(Box::pin(async move { (step, io.await) }));
        }
        if let Some(below) = &subject.below {
            below.release();
        }
        let done = reactor::block_on(reactor::timeout(std::time::Duration::from_secs(30), async {
            let mut done = vec![];
            while let Some(one) = set.next().await {
                done.push(one);
            }
            done
        }))
        .expect("no answer within 30 seconds");
        for (step, answer) in done {
            model.check(&*disk, &step, answer);
        }
    }
    model.compare(&*disk);
}
