//! The disks of hostile sessions: each kind offers, refuses, fails or delays something else.

use conformance::Fake;
use disk::{
    Backend, Blocks, Client, Data, Disk, Errno, Error, Export, Extents, Facts, Io, Kind, Range, Status,
    WriteFlags, ZeroFlags,
};
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

/// How the disk behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Offers everything, and answers at once.
    Everything,
    /// Offers what it must.
    Least,
    /// Wants sectors, and few of them.
    Sectors,
    /// Cannot be written.
    ReadOnly,
    /// Fails one request in three.
    Failing,
    /// Some answers come at once, some later, some from another thread.
    Slow,
    /// As large as a disk may be, and empty.
    Huge,
    /// Every request waits before and after it takes effect, and some fail.
    WaitingAndFailing,
}

pub const BEHAVIOURS: [Behaviour; 8] = [
    Behaviour::Everything,
    Behaviour::Least,
    Behaviour::Sectors,
    Behaviour::ReadOnly,
    Behaviour::Failing,
    Behaviour::Slow,
    Behaviour::Huge,
    Behaviour::WaitingAndFailing,
];

impl Behaviour {
    /// Requests are carried out one after the other, and all of them.
    pub fn is_orderly(self) -> bool {
        !matches!(self, Self::Failing | Self::Slow | Self::Huge | Self::WaitingAndFailing)
    }

    fn facts(self) -> Facts {
        let all = Facts {
            fua: true,
            trim: true,
            zero: true,
            fast_zero: true,
            cache: true,
            extents: true,
            contexts: contexts(),
            description: Some("for whoever comes".into()),
            ..Facts::writable((20 << 10) + 77)
        };
        match self {
            Self::Least => Facts::writable(4 << 10),
            Self::Sectors => {
                let blocks = Blocks { minimum: 512, preferred: 4096, maximum: 4096 };
                Facts { size: 40 << 9, blocks, name: Some("sectors".into()), ..all }
            }
            Self::ReadOnly => all.without_write(),
            Self::Huge => {
                let blocks = Blocks { maximum: 32 << 10, ..Blocks::default() };
                Facts { size: i64::MAX as u64, blocks, ..all }
            }
            _ => all,
        }
    }
}

fn contexts() -> Arc<[Box<str>]> {
    static CONTEXTS: OnceLock<Arc<[Box<str>]>> = OnceLock::new();
    CONTEXTS.get_or_init(|| ["x-test:one".into(), "qemu:dirty-bitmap:b0".into()].into()).clone()
}

/// Opens the one disk, under two names.
pub struct Exports(Arc<dyn Disk>);

impl Exports {
    /// A fresh disk of this behaviour; what is random about it follows from `seed`.
    pub fn new(behaviour: Behaviour, seed: u64) -> Exports {
        let facts = behaviour.facts();
        if behaviour == Behaviour::Huge {
            return Exports(Arc::new(Empty(facts)));
        }
        let fake = Fake::new(Facts { contexts: Arc::default(), ..facts.clone() }, 1);
        match behaviour {
            Behaviour::Failing => fake.fail_one_in(3, seed),
            Behaviour::WaitingAndFailing => {
                fake.wait_each_time(2);
                fake.fail_one_in(5, seed);
            }
            _ => {}
        }
        let next = fake.backend().open(&Client::default()).wait().expect("a fake disk opens");
        Exports(Arc::new(Told { slow: behaviour == Behaviour::Slow, facts, next }))
    }

    /// All bytes of the disk.
    pub fn content(&self) -> Vec<u8> {
        let facts = self.0.facts();
        let mut bytes = Vec::with_capacity(facts.size as usize);
        for part in facts.whole().split_at_multiples(4096) {
            bytes.extend(self.0.read(part).wait().expect("the disk can be read").to_vec());
        }
        bytes
    }
}

impl Backend for Exports {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        let disk = self.0.clone();
        match client.export {
            "" | "a" => Io::ok(disk),
            "later" => Io::later(async move {
                reactor::yield_now().await;
                Ok(disk)
            }),
            name => Error::new(Errno::NOENT, format!("there is no export {name:?}")).into(),
        }
    }
    fn exports<'a>(&'a self, _: &'a Client<'a>) -> Io<'a, Vec<Export>> {
        let export = |name: &str| Export { name: name.into(), description: Some(format!("as {name}")) };
        Io::ok(["a", "later"].map(export).into())
    }
    fn default_export<'a>(&'a self, _: &'a Client<'a>) -> Io<'a, Option<String>> {
        Io::ok(Some("a".into()))
    }
}

/// A disk with metadata contexts, and slow if wished.
struct Told {
    facts: Facts,
    slow: bool,
    next: Arc<dyn Disk>,
}

impl Disk for Told {
    disk::forward!(next: next, write, zero, trim, flush, cache, extents);
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, range: Range) -> Io<'_, Data> {
        let way = if self.slow { range.start / 512 % 4 } else { 0 };
        if way == 0 {
            return self.next.read(range);
        }
        Io::later(async move {
            match way {
                1 => reactor::sleep(Duration::from_micros(20)).await,
                2 => reactor::unblock(|| ()).await?,
                _ => reactor::yield_now().await,
            }
            self.next.read(range).await
        })
    }
    fn status(&self, context: usize, range: Range, limit: usize) -> Io<'_, Vec<Status>> {
        Io::ok(statuses(context, range, limit))
    }
}

fn statuses(context: usize, range: Range, limit: usize) -> Vec<Status> {
    let value = (context as u64) << 33 | 1;
    // The last one goes beyond what was asked for.
    let first = Status { len: range.len.div_ceil(2), value };
    [first, Status { len: range.len, value: 0 }].into_iter().take(limit).collect()
}

/// Takes all, keeps nothing.
struct Empty(Facts);

impl Disk for Empty {
    fn facts(&self) -> &Facts {
        &self.0
    }
    fn read(&self, range: Range) -> Io<'_, Data> {
        Io::ok(Data::zeroes(range.len))
    }
    fn write(&self, _: u64, _: Data, _: WriteFlags) -> Io<'_, ()> {
        Io::ok(())
    }
    fn zero(&self, _: Range, _: ZeroFlags) -> Io<'_, ()> {
        Io::ok(())
    }
    fn trim(&self, _: Range, _: WriteFlags) -> Io<'_, ()> {
        Io::ok(())
    }
    fn flush(&self) -> Io<'_, ()> {
        Io::ok(())
    }
    fn cache(&self, _: Range) -> Io<'_, ()> {
        Io::ok(())
    }
    fn extents(&self, range: Range, _: usize) -> Io<'_, Extents> {
        Io::ok(Extents::one(range.len, Kind::HOLE))
    }
    fn status(&self, context: usize, range: Range, limit: usize) -> Io<'_, Vec<Status>> {
        Io::ok(statuses(context, range, limit))
    }
}
