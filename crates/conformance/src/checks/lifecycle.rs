//! Connections come, read what others wrote, list exports and leave.

use super::soon;
use crate::{
    case::Subject,
    model::{Model, Step},
    random::Random,
};
use disk::Client;

pub(super) fn multi_conn(subject: &Subject, seed: u64) {
    let (one, two) = (subject.open(), subject.open_as(2));
    let mut random = Random::new(seed);
    let mut model = Model::of(&*one);
    for turn in 0..10 {
        let (writer, reader) = if turn % 2 == 0 { (&one, &two) } else { (&two, &one) };
        for _ in 0..20 {
            let area = model.any_area(&mut random);
            let step = Step::random(&mut random, writer.facts(), area);
            let answer = soon(step.ask(&**writer));
            model.check(&**writer, &step, answer);
        }
        if writer.facts().flush {
            soon(writer.flush()).unwrap_or_else(|e| panic!("flushing: {e}"));
        }
        model.compare(&**reader);
    }
    soon(two.close()).unwrap_or_else(|e| panic!("closing: {e}"));
    drop(two);
    subject.backend.disconnected(2);
    model.compare(&*one);
}

pub(super) fn reading_client(subject: &Subject, _: u64) {
    let model = Model::of(&*subject.open());
    let client = Client { read_only: true, ..Client::local("") };
    let disk = soon(subject.backend.open(&client)).unwrap_or_else(|e| panic!("opening to read: {e}"));
    model.compare(&*disk);
    soon(disk.close()).unwrap_or_else(|e| panic!("closing: {e}"));
}

pub(super) fn exports(subject: &Subject, _: u64) {
    let client = Client::default();
    let exports = soon(subject.backend.exports(&client)).unwrap_or_else(|e| panic!("listing exports: {e}"));
    let default = soon(subject.backend.default_export(&client)).unwrap_or_else(|e| panic!("default: {e}"));
    let named = exports.iter().map(|export| export.name.clone()).chain(default);
    for name in named.take(16) {
        assert!(name.len() <= 4096, "an export name of {} bytes", name.len());
        let client = Client::local(&name);
        let disk = soon(subject.backend.open(&client)).unwrap_or_else(|e| panic!("opening {name:?}: {e}"));
        soon(disk.close()).unwrap_or_else(|e| panic!("closing {name:?}: {e}"));
    }
    for export in &exports {
        let len = export.description.as_ref().map_or(0, String::len);
        assert!(len <= 4096, "a description of {len} bytes");
    }
}

pub(super) fn closing(subject: &Subject, _: u64) {
    for connection in 1..=8 {
        let disk = subject.open_as(connection);
        if disk.facts().size > 0 {
            let unit = u64::from(disk.facts().blocks.minimum);
            soon(disk.read(disk::Range::new(0, unit))).unwrap_or_else(|e| panic!("reading: {e}"));
        }
        soon(disk.close()).unwrap_or_else(|e| panic!("closing: {e}"));
        drop(disk);
        subject.backend.disconnected(connection);
    }
    // Others hang up without closing.
    drop(subject.open_as(9));
    // With the last client goes what a filter has opened for itself.
    subject.backend.finish();
    if let Some(below) = &subject.below {
        let (opened, closed) = below.opened_and_closed();
        assert!(closed + 1 >= opened, "of {opened} disks below only {closed} were closed");
    }
}
