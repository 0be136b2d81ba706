//! The live disk, and a state of it.

use super::history::{Lab, Shared};
use disk::{Data, Disk, Errno, Error, Facts, Io, Range, Result, WriteFlags, ZeroFlags};
use std::sync::Arc;

/// The disk as it is.
pub(super) struct Live {
    pub(super) facts: Facts,
    pub(super) lab: Arc<Lab>,
    pub(super) next: Arc<dyn Disk>,
}

impl Live {
    fn change(&self, at: u64, data: Data, fua: bool) -> Io<'_, ()> {
        if !self.facts.write {
            return read_only();
        }
        let (number, full) = self.lab.write(at, &data, fua);
        if full {
            // As if a flush had come here.
            return Io::later(self.lab.flush(&*self.next));
        }
        if fua {
            return Io::later(self.lab.settle_one(&*self.next, number, at, data));
        }
        Io::ok(())
    }
}

impl Disk for Live {
    disk::forward!(next: next);
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, r: Range) -> Io<'_, Data> {
        let mut parts = self.lab.live(r);
        if let [(_, data)] = &mut parts[..] {
            return data.take().map_or_else(|| self.next.read(r), Io::ok);
        }
        Io::later(join(&*self.next, parts))
    }
    fn write(&self, at: u64, data: Data, f: WriteFlags) -> Io<'_, ()> {
        self.change(at, data, f.fua)
    }
    fn zero(&self, r: Range, f: ZeroFlags) -> Io<'_, ()> {
        self.change(r.start, Data::zeroes(r.len), f.fua)
    }
    fn trim(&self, r: Range, f: WriteFlags) -> Io<'_, ()> {
        self.change(r.start, Data::zeroes(r.len), f.fua)
    }
    fn flush(&self) -> Io<'_, ()> {
        if !self.facts.write {
            return read_only();
        }
        Io::later(self.lab.flush(&*self.next))
    }
}

fn read_only<'a>() -> Io<'a, ()> {
    Error::new(Errno::NOTSUP, "the disk below can only be read").into()
}

/// The bytes of parts, of which some are below.
async fn join(below: &dyn Disk, parts: Vec<(Range, Option<Data>)>) -> Result<Data> {
    let mut whole = Vec::with_capacity(parts.len());
    for (part, data) in parts {
        whole.push(match data {
            Some(data) => data,
            None => below.read(part).await?,
        });
    }
    Ok(Data::join(whole))
}

/// What the disk may hold after a power cut, with what was written to that since.
pub(super) struct StateDisk {
    pub(super) facts: Facts,
    pub(super) lab: Arc<Lab>,
    pub(super) shared: Arc<Shared>,
    pub(super) next: Arc<dyn Disk>,
}

impl StateDisk {
    fn change(&self, at: u64, data: &Data) -> Io<'_, ()> {
        if !self.facts.write {
            return read_only();
        }
        let put = || {
            let mut overlay = self.shared.overlay()?;
            if overlay.bytes() + super::overlay::cost(data) > self.lab.memory() {
                return Err(Error::new(Errno::NOSPC, "crashlab-memory is used up by what this state holds"));
            }
            overlay.put(at, &super::overlay::own(data));
            Ok(())
        };
        put().into()
    }
}

impl Disk for StateDisk {
    disk::forward!(next: next);
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, r: Range) -> Io<'_, Data> {
        Io::later(async move {
            // What is not in the overlay must not change below meanwhile.
            let _still = self.lab.settling.read().await;
            let parts = self.shared.overlay()?.parts(r);
            // Owned: what is below may change when the answer is on its way.
            Ok(super::overlay::own(&join(&*self.next, parts).await?))
        })
    }
    fn write(&self, at: u64, data: Data, _: WriteFlags) -> Io<'_, ()> {
        self.change(at, &data)
    }
    fn zero(&self, r: Range, _: ZeroFlags) -> Io<'_, ()> {
        self.change(r.start, &Data::zeroes(r.len))
    }
    fn trim(&self, r: Range, _: WriteFlags) -> Io<'_, ()> {
        self.change(r.start, &Data::zeroes(r.len))
    }
    fn flush(&self) -> Io<'_, ()> {
        Io::ok(())
    }
}
