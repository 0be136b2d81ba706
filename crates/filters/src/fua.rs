//! `fua`: how writes become stable.

use disk::{
    Backend, Client, Data, Disk, Errno, Error, Facts, Filter, Io, Range, Result, WriteFlags, ZeroFlags,
    shared::Place,
};
use params::{Choice, Params};
use std::sync::Arc;

/// Change how writes become stable: ignore it, force it, or do it in another way.
#[derive(Params)]
pub(crate) struct Fua {
    /// `none`, clients are not offered writes that are stable when answered (FUA), but may flush; `emulate`, this
    /// filter flushes after each such write; `native`, such writes must be the disk's own; `force`, every write is
    /// one, and flushing does nothing; `pass`, nothing is changed; `discard`, FUA and flushing do nothing, **and a
    /// crash loses data**.
    #[param(default = "none", alias = "fua-mode")]
    fuamode: Mode,
    /// When a client has left, the disk below is flushed, whether the client asked for that or not, and whatever
    /// `fuamode` says.
    #[param(default = "false")]
    flush_on_close: bool,
}

#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    None,
    Emulate,
    Native,
    Force,
    Pass,
    Discard,
}

impl Filter for Fua {
    const NAME: &'static str = "fua";
    const MANUAL: &'static str = include_str!("fua.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        Ok(Changing { mode: self.fuamode, flush_on_close: self.flush_on_close, next })
    }
}

struct Changing {
    mode: Mode,
    flush_on_close: bool,
    next: Arc<dyn Backend>,
}

impl Changing {
    fn over(&self, next: Arc<dyn Disk>) -> Result<Layer> {
        let below = next.facts();
        let (fua, flush) = match self.mode {
            // There is nothing to make stable.
            _ if !below.write => (below.fua, below.flush),
            Mode::None => (false, below.flush),
            Mode::Emulate if !below.flush => return Err(self.cannot("flush")),
            Mode::Native | Mode::Force if !below.fua => return Err(self.cannot("make single writes stable")),
            Mode::Native | Mode::Pass => (below.fua, below.flush),
            Mode::Emulate | Mode::Force | Mode::Discard => (true, true),
        };
        // Without a flush below, all that is written is stable or nothing can be done about it.
        let flush_on_close = self.flush_on_close && below.write && below.flush;
        Ok(Layer { facts: Facts { fua, flush, ..below.clone() }, mode: self.mode, flush_on_close, next })
    }

    fn cannot(&self, what: &str) -> Error {
        Error::invalid(format!("fuamode={}: the disk below cannot {what}", self.mode))
    }
}

impl Backend for Changing {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.next.open(client).map(|disk| Ok(Arc::new(self.over(disk)?) as Arc<dyn Disk>))
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

struct Layer {
    facts: Facts,
    mode: Mode,
    flush_on_close: bool,
    next: Arc<dyn Disk>,
}

impl Layer {
    /// What the disk below is asked for when a client asks for this.
    fn below(&self, fua: bool) -> bool {
        match self.mode {
            Mode::None | Mode::Emulate | Mode::Discard => false,
            Mode::Native | Mode::Pass => fua,
            Mode::Force => true,
        }
    }

    /// The change, and after it what makes it stable.
    fn stable<'a>(&'a self, fua: bool, change: Io<'a, ()>) -> Io<'a, ()> {
        if fua && self.mode == Mode::Emulate { change.and_then(|()| self.next.flush()) } else { change }
    }
}

impl Disk for Layer {
    disk::forward!(next: next, read, cache, extents, status, resizing);
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn write(&self, at: u64, data: Data, f: WriteFlags) -> Io<'_, ()> {
        self.stable(f.fua, self.next.write(at, data, WriteFlags { fua: self.below(f.fua) }))
    }
    fn zero(&self, r: Range, f: ZeroFlags) -> Io<'_, ()> {
        self.stable(f.fua, self.next.zero(r, ZeroFlags { fua: self.below(f.fua), ..f }))
    }
    fn trim(&self, r: Range, f: WriteFlags) -> Io<'_, ()> {
        self.stable(f.fua, self.next.trim(r, WriteFlags { fua: self.below(f.fua) }))
    }
    fn flush(&self) -> Io<'_, ()> {
        match self.mode {
            _ if !self.facts.flush => Error::new(Errno::NOTSUP, "the disk below cannot flush").into(),
            Mode::Force | Mode::Discard => Io::ok(()),
            _ => self.next.flush(),
        }
    }
    fn place(&self, r: Range) -> Option<Place<'_>> {
        self.next.place(r)
    }
    fn placed(&self, r: Range, f: WriteFlags) -> Io<'_, ()> {
        self.stable(f.fua, self.next.placed(r, WriteFlags { fua: self.below(f.fua) }))
    }
    fn close(&self) -> Io<'_, ()> {
        if !self.flush_on_close {
            return self.next.close();
        }
        // A failure is told, and closes all the same.
        self.next
            .flush()
            .inspect(|outcome| {
                if let Err(e) = outcome {
                    tracing::warn!(target: "diskpipe", "fua: the flush after a client failed: {e}");
                }
            })
            .or_else(|_| Io::ok(()))
            .and_then(|()| self.next.close())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, layer, opened};

    /// What is asked of the disk below by a write, a stable write (where that is offered) and a flush.
    fn asked(mode: &str) -> Vec<String> {
        let memory = Memory::new(vec![0; 512]);
        let disk = opened::<Fua>(&[mode], &memory);
        disk.write(0, Data::zeroes(1), WriteFlags::default()).wait().unwrap();
        if disk.facts().fua {
            disk.write(1, Data::zeroes(1), WriteFlags { fua: true }).wait().unwrap();
        }
        disk.flush().wait().unwrap();
        memory.asked()
    }

    #[test]
    fn each_mode_makes_writes_stable_in_its_way() {
        assert_eq!(asked("fuamode=none"), ["write 0 1", "flush"]);
        assert_eq!(asked("fuamode=emulate"), ["write 0 1", "write 1 1", "flush", "flush"]);
        assert_eq!(asked("fuamode=native"), ["write 0 1", "write 1 1 fua", "flush"]);
        assert_eq!(asked("fuamode=pass"), ["write 0 1", "write 1 1 fua", "flush"]);
        assert_eq!(asked("fuamode=force"), ["write 0 1 fua", "write 1 1 fua"]);
        assert_eq!(asked("fuamode=discard"), ["write 0 1", "write 1 1"]);
    }

    #[test]
    fn what_a_client_left_is_flushed_if_that_is_wished() {
        for mode in ["fua-mode=discard", "fuamode=none"] {
            let memory = Memory::new(vec![0; 512]);
            let disk = opened::<Fua>(&[mode, "flush-on-close=true"], &memory);
            disk.write(0, Data::zeroes(1), WriteFlags::default()).wait().unwrap();
            disk.close().wait().unwrap();
            assert_eq!(memory.asked(), ["write 0 1", "flush", "close"]);
        }
        let reading = Memory::with(vec![0; 512], Facts::read_only(512));
        opened::<Fua>(&["flush-on-close=true"], &reading).close().wait().unwrap();
        assert_eq!(reading.asked(), ["close"]);
    }

    #[test]
    fn modes_that_need_something_refuse_a_disk_without_it() {
        let plain = Memory::with(vec![0; 512], Facts { flush: false, ..Facts::writable(512) });
        let error = |mode: &str| {
            let layer = layer::<Fua>(&[mode], &plain).unwrap();
            layer.open(&Client::local("")).wait().err().map(|e| e.to_string())
        };
        assert_eq!(error("fuamode=emulate").unwrap(), "fuamode=emulate: the disk below cannot flush");
        let single = "fuamode=force: the disk below cannot make single writes stable";
        assert_eq!(error("fuamode=force").unwrap(), single);
        assert_eq!(error("fuamode=none"), None);
    }
}
