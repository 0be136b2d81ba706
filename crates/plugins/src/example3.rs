//! A plugin whose disks can be written, and are different for each client.

use disk::{
    Backend, Client, Data, Disk, Extents, Facts, Io, Kind, Plugin, Range, Result, WriteFlags, ZeroFlags,
};
use params::{Params, Size};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// An empty disk in memory for each client, as an example of a plugin.
///
/// `magic` lets people write the value without its key, and `default` is written as they would write it.
#[derive(Params)]
pub(crate) struct Example3 {
    /// The size of the disk.
    #[param(magic, default = "100M")]
    size: Size,
}

impl Plugin for Example3 {
    const NAME: &'static str = "example3";
    const MANUAL: &'static str = include_str!("example3.md");

    fn start(self) -> Result<impl Backend + 'static> {
        Ok(self)
    }
}

/// A new disk for each client: what one writes, no other sees. Facts promise that several connections see the same
/// (`multi_conn`) unless they are told not to.
impl Backend for Example3 {
    fn open<'a>(&'a self, _: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        let facts = Facts {
            multi_conn: false,
            fua: true,
            trim: true,
            zero: true,
            fast_zero: true,
            extents: true,
            ..Facts::writable(self.size.bytes())
        };
        Io::ok(Arc::new(RamDisk { facts, pages: Mutex::default() }))
    }
}

/// In bytes.
const PAGE: u64 = 4096;

/// The pages that were written, by their number; all others are zero. Requests come from several threads at once, so
/// there is a lock.
type Pages = HashMap<u64, Box<[u8; PAGE as usize]>>;

struct RamDisk {
    facts: Facts,
    pages: Mutex<Pages>,
}

impl RamDisk {
    /// A panic of one request must not spoil the disk for all others.
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pages that are zeroed as a whole are forgotten.
    fn clear(&self, range: Range) {
        let mut pages = self.pages();
        // Going through those that exist is bounded by what was written, whatever the range.
        pages.retain(|number, page| {
            let Some(part) = Range::new(number * PAGE, PAGE).intersect(range) else { return true };
            page[(part.start % PAGE) as usize..][..part.len as usize].fill(0);
            part.len < PAGE
        });
    }
}

impl Disk for RamDisk {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn read(&self, range: Range) -> Io<'_, Data> {
        let pages = self.pages();
        let parts = range.split_at_multiples(PAGE).map(|part| match pages.get(&(part.start / PAGE)) {
            Some(page) => Data::copy_from(&page[(part.start % PAGE) as usize..][..part.len as usize]),
            None => Data::zeroes(part.len),
        });
        Io::ok(Data::join(parts.collect()))
    }

    /// The data may lie in several pieces; `slice` and `copy_to` do not mind.
    fn write(&self, at: u64, data: Data, _: WriteFlags) -> Io<'_, ()> {
        let mut pages = self.pages();
        for part in Range::new(at, data.len()).split_at_multiples(PAGE) {
            let page = pages.entry(part.start / PAGE).or_insert_with(|| Box::new([0; PAGE as usize]));
            let into = &mut page[(part.start % PAGE) as usize..][..part.len as usize];
            data.slice(part.start - at, part.len).copy_to(into);
        }
        Io::ok(())
    }

    fn zero(&self, range: Range, _: ZeroFlags) -> Io<'_, ()> {
        self.clear(range);
        Io::ok(())
    }

    fn trim(&self, range: Range, _: WriteFlags) -> Io<'_, ()> {
        self.clear(range);
        Io::ok(())
    }

    /// What was answered is as stable as it will ever be.
    fn flush(&self) -> Io<'_, ()> {
        Io::ok(())
    }

    /// The kinds of ranges from the start of this one on. It need not be all of it: who wants more asks again.
    fn extents(&self, range: Range, limit: usize) -> Io<'_, Extents> {
        let pages = self.pages();
        let mut extents = Extents::new();
        // A disk may have more pages than anybody wants to look at.
        for part in range.split_at_multiples(PAGE).take(100_000) {
            let is_there = pages.contains_key(&(part.start / PAGE));
            extents.push(part.len, if is_there { Kind::DATA } else { Kind::HOLE });
            if extents.len() > limit {
                break;
            }
        }
        Io::ok(extents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::model;

    #[test]
    fn a_disk_keeps_what_is_written_and_each_client_has_its_own() {
        let disk = model::open::<Example3>(&[("size", "5000001")]).unwrap();
        model::compare(&*disk, 4, 800);
        let backend = Example3 { size: Size::new(10).unwrap() }.start().unwrap();
        let [one, two] = [1, 2].map(|_| backend.open(&Client::local("")).wait().unwrap());
        one.write(0, Data::copy_from(b"mine"), WriteFlags::default()).wait().unwrap();
        assert_eq!((model::bytes(&*one, 0, 5), model::bytes(&*two, 0, 5)), (b"mine\0".to_vec(), vec![0; 5]));
    }

    #[test]
    fn the_largest_disk_is_trimmed_at_once() {
        let disk = model::open::<Example3>(&[("size", "9223372036854775807")]).unwrap();
        disk.write(1 << 62, Data::copy_from(b"x"), WriteFlags::default()).wait().unwrap();
        disk.trim(disk.facts().whole(), WriteFlags::default()).wait().unwrap();
        assert_eq!(model::bytes(&*disk, 1 << 62, 1), [0]);
    }
}
