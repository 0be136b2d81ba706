//! `nozero`: takes away what a disk can do about zeroes, in whole or in part.

use disk::{
    Backend, Client, Disk, Errno, Error, Facts, Filter, Io, Range, Result, WriteFlags, ZeroFlags,
    complete::zero_by_writing,
};
use params::{Choice, Params};
use std::sync::Arc;

/// Take efficient zeroing away, to compare clients and servers with and without it.
#[derive(Params)]
pub(crate) struct NoZero {
    /// What clients may ask for: `none`, no zeroing at all; `emulate`, zeroing, which this filter does by writing
    /// zeroes; `notrim`, zeroing by the disk below, which may never leave a hole; `plugin`, zeroing by the disk below.
    #[param(default = "none")]
    zeromode: ZeroMode,
    /// What happens with fast zeroing: `default`, what the disk below does, but with `zeromode=emulate` as `slow`;
    /// `none`, it is not offered; `slow`, it is offered and fails with ENOTSUP at once; `ignore`, it is offered and
    /// done as any other zeroing, however slow, which the protocol forbids.
    #[param(default = "default")]
    fastzeromode: FastZeroMode,
}

#[derive(Choice, Clone, Copy, PartialEq, Eq)]
enum ZeroMode {
    None,
    Emulate,
    #[choice(name = "notrim")]
    NoTrim,
    Plugin,
}

#[derive(Choice, Clone, Copy, PartialEq, Eq)]
enum FastZeroMode {
    Default,
    None,
    Slow,
    Ignore,
}

impl Filter for NoZero {
    const NAME: &'static str = "nozero";
    const MANUAL: &'static str = include_str!("nozero.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        let fast = match (self.fastzeromode, self.zeromode) {
            (FastZeroMode::Default, ZeroMode::Emulate) => FastZeroMode::Slow,
            (fast, _) => fast,
        };
        Ok(Without { zero: self.zeromode, fast, next })
    }
}

struct Without {
    zero: ZeroMode,
    fast: FastZeroMode,
    next: Arc<dyn Backend>,
}

impl Without {
    fn over(&self, next: Arc<dyn Disk>) -> Naive {
        let below = next.facts();
        let zero = match self.zero {
            ZeroMode::None => false,
            ZeroMode::Emulate => below.write,
            ZeroMode::NoTrim | ZeroMode::Plugin => below.zero,
        };
        let fast_zero = match self.fast {
            FastZeroMode::Default => below.fast_zero,
            FastZeroMode::None => false,
            FastZeroMode::Slow | FastZeroMode::Ignore => true,
        };
        let facts = Facts { zero, fast_zero: zero && fast_zero, ..below.clone() };
        Naive { facts, zero: self.zero, fast: self.fast, next }
    }
}

impl Backend for Without {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.next.open(client).map(|disk| Ok(Arc::new(self.over(disk)) as Arc<dyn Disk>))
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

struct Naive {
    facts: Facts,
    zero: ZeroMode,
    fast: FastZeroMode,
    next: Arc<dyn Disk>,
}

/// Copying tools write data in pieces of this length. Emulated zeroes come in the same, so that they cost as much.
const PIECE: u64 = 256 << 10;

impl Naive {
    fn written(&self, range: Range, flags: WriteFlags) -> Io<'_, ()> {
        if range.len <= PIECE {
            return zero_by_writing(&*self.next, range, flags);
        }
        Io::later(async move {
            for piece in range.split_at_multiples(PIECE) {
                zero_by_writing(&*self.next, piece, flags).await?;
            }
            Ok(())
        })
    }
}

impl Disk for Naive {
    disk::forward!(next: next, read, write, trim, flush, cache, extents, status, resizing);
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn zero(&self, range: Range, flags: ZeroFlags) -> Io<'_, ()> {
        let fast = match self.fast {
            FastZeroMode::Slow if flags.fast => {
                return Error::new(Errno::NOTSUP, "fast zeroing is switched off by fastzeromode").into();
            }
            FastZeroMode::Ignore => false,
            _ => flags.fast,
        };
        match self.zero {
            ZeroMode::Emulate => self.written(range, WriteFlags { fua: flags.fua }),
            ZeroMode::NoTrim => self.next.zero(range, ZeroFlags { may_trim: false, fast, ..flags }),
            ZeroMode::None => Error::new(Errno::NOTSUP, "zeroing is switched off by zeromode").into(),
            ZeroMode::Plugin => self.next.zero(range, ZeroFlags { fast, ..flags }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, noise, opened};

    /// What is offered (`z`ero, `f`ast zero), and what the disk below was asked for a zero and a fast zero request.
    fn with(params: &[&str]) -> (String, Vec<String>) {
        let memory = Memory::new(noise(1, 1024));
        let disk = opened::<NoZero>(params, &memory);
        let facts = disk.facts();
        let offered = format!("{}{}", ["", "z"][facts.zero as usize], ["", "f"][facts.fast_zero as usize]);
        if facts.zero {
            let flags = ZeroFlags { may_trim: true, ..ZeroFlags::default() };
            disk.zero(Range::new(0, 512), flags).wait().unwrap();
            if facts.fast_zero
                && let Err(e) = disk.zero(Range::new(512, 512), ZeroFlags { fast: true, ..flags }).wait()
            {
                assert_eq!(e.errno(), Errno::NOTSUP);
            }
            assert_eq!(memory.bytes()[..512], [0; 512]);
        }
        (offered, memory.asked())
    }

    #[test]
    fn every_pair_of_modes_offers_and_does_what_the_manual_says() {
        let expect = |params: &str, offered: &str, asked: &[&str]| {
            let params: Vec<&str> = params.split_whitespace().collect();
            let (o, a) = with(&params);
            assert_eq!(
                (o.as_str(), a),
                (offered, asked.iter().map(|s| (*s).to_owned()).collect()),
                "{params:?}"
            );
        };
        expect("", "", &[]);
        expect("zeromode=none fastzeromode=slow", "", &[]);
        expect("zeromode=emulate", "zf", &["write 0 512"]);
        expect("zeromode=emulate fastzeromode=none", "z", &["write 0 512"]);
        expect("zeromode=emulate fastzeromode=ignore", "zf", &["write 0 512", "write 512 512"]);
        expect("zeromode=notrim", "zf", &["zero 0 512", "zero 512 512 fast"]);
        expect("zeromode=notrim fastzeromode=slow", "zf", &["zero 0 512"]);
        expect("zeromode=plugin", "zf", &["zero 0 512 may_trim", "zero 512 512 may_trim fast"]);
        expect("zeromode=plugin fastzeromode=none", "z", &["zero 0 512 may_trim"]);
        expect(
            "zeromode=plugin fastzeromode=ignore",
            "zf",
            &["zero 0 512 may_trim", "zero 512 512 may_trim"],
        );
    }

    #[test]
    fn emulated_zeroes_are_written_in_pieces_as_data_is() {
        let memory = Memory::new(noise(1, 1 << 20));
        let disk = opened::<NoZero>(&["zeromode=emulate"], &memory);
        disk.zero(Range::new(512, 600 << 10), ZeroFlags::default()).wait().unwrap();
        assert_eq!(memory.asked(), ["write 512 261632", "write 262144 262144", "write 524288 90624"]);
        assert!(memory.bytes()[512..512 + (600 << 10)].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn over_a_disk_that_cannot_zero_only_emulation_can() {
        let memory = Memory::with(vec![0; 512], Facts::writable(512));
        for (mode, zero) in [("none", false), ("emulate", true), ("notrim", false), ("plugin", false)] {
            let disk = opened::<NoZero>(&[&format!("zeromode={mode}")], &memory);
            assert_eq!(disk.facts().zero, zero, "{mode}");
        }
    }

    #[test]
    fn a_read_only_disk_stays_one() {
        let memory = Memory::with(vec![0; 512], Facts::read_only(512));
        for mode in ["none", "emulate", "notrim", "plugin"] {
            let params = format!("zeromode={mode}");
            assert!(!opened::<NoZero>(&[&params, "fastzeromode=ignore"], &memory).facts().fast_zero);
        }
    }
}
