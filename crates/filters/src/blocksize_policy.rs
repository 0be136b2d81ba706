//! `blocksize-policy`: which block sizes clients are told, and what becomes of those that do not keep to them.

use crate::common::wrap::{aligned, each, stated};
use disk::{
    Backend, Blocks, Data, Disk, Errno, Error, Extents, Facts, Filter, Io, Range, Result, Wish, WriteFlags,
    ZeroFlags, shared::Place,
};
use params::{Choice, ParamError, Params, Size};
use std::sync::Arc;

/// Tell clients which block sizes to use.
#[derive(Params)]
pub(crate) struct BlockSizePolicy {
    /// What becomes of requests that do not keep to the sizes: `allow`, they are made if the disk below can; `error`,
    /// they fail with EINVAL; `strict-error`, so do zeroes, trims and caching beyond the maximum, which else concerns
    /// reads and writes alone.
    #[param(default = "allow")]
    blocksize_error_policy: Policy,
    /// The minimum block size: a power of two up to 64K. Of all three, 0 is what the disk below says.
    blocksize_minimum: Option<Size>,
    /// The preferred block size: a power of two from 512 to 32M.
    blocksize_preferred: Option<Size>,
    /// The longest read or write: a multiple of the minimum.
    blocksize_maximum: Option<Size>,
    /// A client that writes more than this in one request is hung up on, as other servers do. 0: never.
    #[param(default = "0")]
    blocksize_write_disconnect: Size,
}

#[derive(Choice, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Allow,
    Error,
    StrictError,
}

impl Filter for BlockSizePolicy {
    const NAME: &'static str = "blocksize-policy";
    const MANUAL: &'static str = include_str!("blocksize_policy.md");

    fn start(mut self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        for size in [&mut self.blocksize_minimum, &mut self.blocksize_preferred, &mut self.blocksize_maximum]
        {
            *size = size.filter(|size| size.bytes() != 0);
        }
        self.check()?;
        Ok(each(next, move |disk, client| {
            let disk = self.hanging_up(disk, &client.hang_up);
            let sizes = self.over(disk.facts().blocks)?;
            let facts = disk.facts().clone();
            if self.blocksize_error_policy == Policy::Allow {
                return Ok(stated(Facts { told_blocks: Some(sizes), ..facts }, disk));
            }
            let size = facts.size - facts.size % u64::from(sizes.minimum);
            // Borders of other contexts may lie within blocks.
            let coarser = sizes.minimum > facts.blocks.minimum;
            let contexts = if coarser { Arc::new([]) } else { facts.contexts };
            let facts = Facts { size, blocks: sizes, told_blocks: None, contexts, ..facts };
            let all = self.blocksize_error_policy == Policy::StrictError;
            let most = if all { sizes.maximum } else { u32::MAX };
            Ok(Arc::new(Strict { facts, most: most.into(), next: disk }))
        }))
    }
}

impl BlockSizePolicy {
    fn check(&self) -> Result<()> {
        let bad = |key, size: Size, why: &str| Err(ParamError::bad(key, size.to_string(), why).into());
        let power = |size: Size, least: u64, most: u64| {
            size.bytes().is_power_of_two() && (least..=most).contains(&size.bytes())
        };
        if let Some(size) = self.blocksize_minimum
            && !power(size, 1, 64 << 10)
        {
            return bad("blocksize-minimum", size, "not a power of two up to 64K");
        }
        if let Some(size) = self.blocksize_preferred
            && !power(size, 512, 32 << 20)
        {
            return bad("blocksize-preferred", size, "not a power of two from 512 to 32M");
        }
        let minimum = self.blocksize_minimum.map_or(1, Size::bytes);
        if let Some(preferred) = self.blocksize_preferred
            && preferred.bytes() < minimum
        {
            return bad("blocksize-preferred", preferred, "less than blocksize-minimum");
        }
        let cut = self.blocksize_write_disconnect;
        if let Some(maximum) = self.blocksize_maximum
            && (1..maximum.bytes()).contains(&cut.bytes())
        {
            let why = "less than blocksize-maximum, so that clients would be cut off who keep to it";
            return bad("blocksize-write-disconnect", cut, why);
        }
        match self.blocksize_maximum {
            Some(size) if u32::try_from(size.bytes()).is_err() => {
                bad("blocksize-maximum", size, "more than 4294967295, the largest that the protocol knows")
            }
            Some(size) if size.bytes() != u64::from(u32::MAX) && size.bytes() % minimum != 0 => {
                bad("blocksize-maximum", size, "not a multiple of blocksize-minimum")
            }
            Some(size)
                if self.blocksize_preferred.is_some_and(|preferred| preferred.bytes() > size.bytes()) =>
            {
                bad("blocksize-maximum", size, "less than blocksize-preferred")
            }
            _ => Ok(()),
        }
    }

    /// The disk, guarded against writes that are too long, if that is wished.
    fn hanging_up(&self, disk: Arc<dyn Disk>, hang_up: &Wish) -> Arc<dyn Disk> {
        match self.blocksize_write_disconnect.bytes() {
            0 => disk,
            most => Arc::new(Guarded { most, hang_up: hang_up.clone(), next: disk }),
        }
    }

    /// The sizes for a disk that has these.
    fn over(&self, below: Blocks) -> Result<Blocks> {
        let given = |size: Option<Size>, below: u32| size.map_or(below, |size| size.bytes() as u32);
        let minimum = given(self.blocksize_minimum, below.minimum);
        if minimum < below.minimum {
            return Err(Error::invalid(format!(
                "blocksize-minimum={minimum}: the disk below takes only multiples of {}; put the filter blocksize behind this one",
                below.minimum
            )));
        }
        let maximum = given(self.blocksize_maximum, below.maximum).min(below.maximum);
        let maximum = if maximum == u32::MAX { maximum } else { maximum - maximum % minimum };
        if maximum == 0 {
            return Err(Error::invalid(format!(
                "blocksize-minimum={minimum}: the disk below takes no more than {} bytes at once",
                below.maximum
            )));
        }
        let preferred = given(self.blocksize_preferred, below.preferred).max(minimum);
        Ok(Blocks { minimum, preferred, maximum })
    }
}

/// A disk of larger blocks. Whoever serves it refuses what does not keep to them.
struct Strict {
    facts: Facts,
    /// The longest request of those that carry no data.
    most: u64,
    next: Arc<dyn Disk>,
}

impl Strict {
    fn checked<'a>(&'a self, r: Range, call: impl FnOnce() -> Io<'a, ()>) -> Io<'a, ()> {
        if r.len > self.most {
            let why = format!("{} bytes in one request: more than blocksize-maximum={}", r.len, self.most);
            return Error::invalid(why).into();
        }
        call()
    }
}

impl Disk for Strict {
    disk::forward!(next: next, read, write, flush, status);
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn zero(&self, r: Range, f: ZeroFlags) -> Io<'_, ()> {
        self.checked(r, || self.next.zero(r, f))
    }
    fn trim(&self, r: Range, f: WriteFlags) -> Io<'_, ()> {
        self.checked(r, || self.next.trim(r, f))
    }
    fn cache(&self, r: Range) -> Io<'_, ()> {
        self.checked(r, || self.next.cache(r))
    }
    fn extents(&self, r: Range, limit: usize) -> Io<'_, Extents> {
        let block = self.facts.blocks.minimum.into();
        self.next.extents(r, limit).map(move |found| Ok(aligned(&found, r, block)))
    }
}

/// A disk whose client is hung up on when it writes too much at once.
struct Guarded {
    most: u64,
    hang_up: Wish,
    next: Arc<dyn Disk>,
}

impl Disk for Guarded {
    disk::forward!(next: facts, read, zero, trim, flush, cache, extents, status, next, resizing);
    fn write(&self, at: u64, data: Data, f: WriteFlags) -> Io<'_, ()> {
        if data.len() > self.most {
            self.hang_up.make();
            let why =
                format!("{} bytes written at once: blocksize-write-disconnect={}", data.len(), self.most);
            return Error::new(Errno::SHUTDOWN, why).into();
        }
        self.next.write(at, data, f)
    }
    fn place(&self, r: Range) -> Option<Place<'_>> {
        // What is too long comes by `write`, and changes nothing.
        if r.len > self.most { None } else { self.next.place(r) }
    }
    fn placed(&self, r: Range, f: WriteFlags) -> Io<'_, ()> {
        self.next.placed(r, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, layer, opened};
    use disk::Client;

    #[test]
    fn sizes_are_told_and_with_a_policy_they_hold() {
        let memory = Memory::new(vec![0; 1 << 20]);
        let sizes = ["blocksize-minimum=4K", "blocksize-preferred=64K", "blocksize-maximum=1M"];
        let wanted = Blocks { minimum: 4096, preferred: 64 << 10, maximum: 1 << 20 };
        let allowing = opened::<BlockSizePolicy>(&sizes, &memory);
        assert_eq!(allowing.facts().told_blocks, Some(wanted));
        assert_eq!(allowing.facts().blocks, Blocks::default());
        let strict = [&sizes[..], &["blocksize-error-policy=error"]].concat();
        let strict = opened::<BlockSizePolicy>(&strict, &memory);
        assert_eq!((strict.facts().told_blocks, strict.facts().blocks), (None, wanted));
    }

    #[test]
    fn a_strict_policy_also_concerns_what_carries_no_data() {
        let memory = Memory::new(vec![0; 1 << 20]);
        for (policy, refused) in [("error", false), ("strict-error", true)] {
            let policy = format!("blocksize-error-policy={policy}");
            let disk = opened::<BlockSizePolicy>(&[&policy, "blocksize-maximum=64K"], &memory);
            let long = Range::new(0, 128 << 10);
            let outcomes = [
                disk.zero(long, ZeroFlags::default()).wait(),
                disk.trim(long, WriteFlags::default()).wait(),
                disk.cache(long).wait(),
            ];
            assert!(outcomes.iter().all(|outcome| outcome.is_err() == refused), "{policy}");
            disk.zero(Range::new(0, 64 << 10), ZeroFlags::default()).wait().unwrap();
        }
    }

    #[test]
    fn who_writes_too_much_at_once_is_hung_up_on() {
        use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
        let memory = Memory::new(vec![0; 1 << 20]);
        let layer = layer::<BlockSizePolicy>(&["blocksize-write-disconnect=64K"], &memory).unwrap();
        let told = Arc::new(AtomicBool::new(false));
        let hang_up = told.clone();
        let hang_up = Wish::new(move || hang_up.store(true, SeqCst));
        let disk = layer.open(&Client { hang_up, ..Client::default() }).wait().unwrap();
        disk.write(0, Data::zeroes(64 << 10), WriteFlags::default()).wait().unwrap();
        assert!(!told.load(SeqCst));
        assert!(disk.write(0, Data::zeroes((64 << 10) + 1), WriteFlags::default()).wait().is_err());
        assert!(told.load(SeqCst));
    }

    #[test]
    fn sizes_that_contradict_each_other_are_refused() {
        let memory = Memory::new(vec![]);
        let why = |params: &[&str]| layer::<BlockSizePolicy>(params, &memory).err().unwrap().to_string();
        let told = |text: &str| format!("blocksize-policy: {text}");
        assert_eq!(why(&["blocksize-minimum=3"]), told("blocksize-minimum=3: not a power of two up to 64K"));
        assert_eq!(
            why(&["blocksize-minimum=4K", "blocksize-preferred=512"]),
            told("blocksize-preferred=512: less than blocksize-minimum")
        );
        assert_eq!(
            why(&["blocksize-minimum=4K", "blocksize-maximum=5K"]),
            told("blocksize-maximum=5K: not a multiple of blocksize-minimum")
        );
        assert!(
            why(&["blocksize-maximum=1M", "blocksize-write-disconnect=64K"])
                .starts_with("blocksize-policy: blocksize-write-disconnect=64K: less than blocksize-maximum")
        );
    }

    #[test]
    fn less_than_the_disk_below_takes_is_refused() {
        let blocks = Blocks { minimum: 4096, ..Blocks::default() };
        let memory = Memory::with(vec![0; 8192], Facts { blocks, ..Facts::writable(8192) });
        let layer = layer::<BlockSizePolicy>(&["blocksize-minimum=512"], &memory).unwrap();
        assert!(layer.open(&Client::local("")).wait().is_err());
    }
}
