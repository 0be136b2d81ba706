//! A failure below is a failure above; what failed leaves old or new bytes, and everything works again afterwards.

use super::soon;
use crate::{
    case::{Expect, Subject},
    model::{Model, Step},
    random::Random,
};

pub(super) fn below(subject: &Subject, seed: u64) {
    let below = subject.below.as_ref().expect("only for filters");
    let disk = subject.open();
    let facts = disk.facts().clone();
    if facts.size == 0 {
        return;
    }
    let mut random = Random::new(seed);
    let mut model = Model::of(&*disk);
    let mut failed = 0;
    for turn in 0..300 {
        let area = model.any_area(&mut random);
        let step = Step::random(&mut random, &facts, area);
        if step.touches().is_some() && subject.expect != Expect::Model {
            continue;
        }
        below.wait_each_time(turn % 2);
        below.fail_one_in(3, random.any());
        let answer = soon(step.ask(&*disk));
        below.fail_one_in(0, 0);
        match answer {
            Ok(answer) => model.check(&*disk, &step, Ok(answer)),
            Err(_) => {
                failed += 1;
                if let Some(range) = step.touches() {
                    model.adopt(&*disk, range, step.becomes().as_deref());
                }
            }
        }
    }
    model.compare(&*disk);
    assert!(failed > 0 || subject.own_storage, "a third of all requests below failed and nobody was told");
}
