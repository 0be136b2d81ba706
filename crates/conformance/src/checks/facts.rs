//! Facts and behaviour: what is offered works, what is not is refused.

use super::soon;
use crate::{
    case::{Expect, Subject},
    model::{Model, same},
    random::Random,
};
use disk::{Data, Disk, Errno, Range, Result, WriteFlags, ZeroFlags, checked::Checked, shapes::OpKind};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

pub(super) fn advertised_requests_work(subject: &Subject, _: u64) {
    let disk = subject.open();
    let facts = disk.facts().clone();
    drop(Checked::new(disk.clone()));
    assert_eq!(facts.write, subject.expect != Expect::ReadOnly, "whether it can be written");
    assert_eq!(disk.facts(), &facts, "facts are fixed while the disk is open");
    if facts.size == 0 {
        return;
    }
    let r = Range::new(0, u64::from(facts.blocks.minimum).max(512).min(facts.size));
    works("read", disk.read(r).map(|_| Ok(())));
    if facts.cache {
        works("cache", disk.cache(r));
    }
    if facts.extents {
        works("extents", disk.extents(r, 1).map(|_| Ok(())));
    }
    for context in 0..facts.contexts.len() {
        works("a metadata context", disk.status(context, r, 1).map(|_| Ok(())));
    }
    if facts.flush {
        works("flush", disk.flush());
    }
    if subject.expect != Expect::Model {
        return;
    }
    for fua in [false, true].into_iter().filter(|fua| facts.fua || !fua) {
        works("write", disk.write(r.start, Data::zeroes(r.len), WriteFlags { fua }));
        if facts.trim {
            works("trim", disk.trim(r, WriteFlags { fua }));
        }
        for may_trim in [false, true].into_iter().filter(|_| facts.zero) {
            works("zero", disk.zero(r, ZeroFlags { fua, may_trim, fast: false }));
        }
    }
}

fn works(what: &str, io: disk::Io<'_, ()>) {
    soon(io).unwrap_or_else(|e| panic!("{what} is offered but failed: {e}"));
}

pub(super) fn others_are_refused(subject: &Subject, _: u64) {
    let disk = subject.open();
    let f = disk.facts().clone();
    if f.size == 0 {
        return;
    }
    let before = Model::of(&*disk);
    // The disk itself, without the layer that checks (and would panic).
    let inner: &dyn Disk = if cfg!(debug_assertions) { disk.next().unwrap_or(&*disk) } else { &*disk };
    let r = Range::new(0, u64::from(f.blocks.minimum).max(512).min(f.size));
    let fua = WriteFlags { fua: false };
    refused("write", f.write, || soon(inner.write(r.start, Data::zeroes(r.len), fua)));
    refused("zero", f.zero, || soon(inner.zero(r, ZeroFlags::default())));
    refused("trim", f.trim, || soon(inner.trim(r, fua)));
    refused("flush", f.flush || !f.write, || soon(inner.flush()));
    refused("cache", f.cache, || soon(inner.cache(r)));
    refused("extents", f.extents, || soon(inner.extents(r, 1)).map(drop));
    let beyond = f.contexts.len();
    refused("a further metadata context", false, || soon(inner.status(beyond, r, 1)).map(drop));
    before.compare(&*disk);
}

/// A layer may leave the refusal to the next one down, whose `Checked` panics.
fn refused(what: &str, offered: bool, ask: impl FnOnce() -> Result<()>) {
    if offered {
        return;
    }
    let outcome = catch_unwind(AssertUnwindSafe(ask));
    assert!(!matches!(outcome, Ok(Ok(()))), "{what} is not offered but succeeded");
}

pub(super) fn fast_zeroes(subject: &Subject, seed: u64) {
    let disk = subject.open();
    let facts = disk.facts().clone();
    if facts.size == 0 {
        return;
    }
    let mut random = Random::new(seed);
    let mut model = Model::of(&*disk);
    let writes_below = || subject.below.as_ref().map_or(0, |below| below.count(|kind| kind == OpKind::Write));
    for _ in 0..32 {
        let area = model.any_area(&mut random);
        let range = random.range(area, facts.blocks, area.len);
        let flags = ZeroFlags { fast: true, may_trim: random.once_in(2), fua: false };
        let (before, start) = (writes_below(), Instant::now());
        match soon(disk.zero(range, flags)) {
            Ok(()) => {
                assert!(start.elapsed() < Duration::from_secs(2), "a fast zero took {:?}", start.elapsed());
                if subject.expect == Expect::Model {
                    model.set(range, &vec![0; range.len as usize]);
                }
                // Of at most the edges of a block, a layer may have to write.
                assert!(writes_below() <= before + 2, "a fast zero wrote to the disk below");
            }
            Err(e) if e.errno() == Errno::NOTSUP => {}
            Err(_) if matches!(subject.expect, Expect::Refusing | Expect::Verifying) => {}
            Err(e) => panic!("a fast zero of {range} failed: {e}"),
        }
        let data = soon(disk.read(range)).expect("reading");
        same(&data, model.bytes(range), range, "after a fast zero");
    }
}

pub(super) fn writes_as_expected(subject: &Subject, seed: u64) {
    let disk = subject.open();
    let facts = disk.facts().clone();
    if facts.size == 0 {
        return;
    }
    let mut random = Random::new(seed);
    let mut model = Model::of(&*disk);
    for _ in 0..32 {
        let area = model.any_area(&mut random);
        let range = random.range(area, facts.blocks, 64 << 10);
        let old = model.bytes(range).to_vec();
        let mut other = random.bytes(range.len).to_vec();
        // Certainly another content, in one byte at least.
        other[0] = old[0] ^ 1;
        let write = |bytes: &[u8]| {
            soon(disk.write(range.start, Data::copy_from(bytes), WriteFlags::default()))
                .map_err(|e| e.errno())
        };
        match subject.expect {
            Expect::Model => {
                assert_eq!(write(&other), Ok(()), "writing {range}");
                model.set(range, &other);
            }
            Expect::Discarding => assert_eq!(write(&other), Ok(()), "writing {range}"),
            Expect::Verifying => {
                assert_eq!(write(&other), Err(Errno::IO), "writing other content to {range}");
                assert_eq!(write(&old), Ok(()), "writing the same content to {range}");
            }
            Expect::Refusing => assert!(write(&other).is_err(), "writing {range} succeeded"),
            Expect::ReadOnly => unreachable!("the facts offer no writing"),
        }
    }
    model.compare(&*disk);
}
