//! Random requests, one after the other, agree with a model.

use super::soon;
use crate::{
    case::Subject,
    model::{Model, Step},
    random::Random,
};

pub(super) fn random(subject: &Subject, seed: u64) {
    let disk = subject.open();
    let mut random = Random::new(seed);
    let mut model = Model::of(&*disk);
    for round in 0..6 {
        // Ready answers and waiting ones take different ways through a layer.
        if let Some(below) = &subject.below {
            below.wait_each_time(round % 2);
        }
        for _ in 0..80 {
            let area = model.any_area(&mut random);
            let step = Step::random(&mut random, disk.facts(), area);
            let answer = soon(step.ask(&*disk));
            model.check(&*disk, &step, answer);
        }
        model.compare(&*disk);
    }
}
