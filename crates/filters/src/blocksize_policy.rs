//! `blocksize-policy`: which block sizes clients are told, and what becomes of those that do not keep to them.

use crate::wrap::{aligned, each, stated};
use disk::{Backend, Blocks, Disk, Error, Extents, Facts, Filter, Io, Range, Result};
use params::{Choice, ParamError, Params, Size};
use std::sync::Arc;

/// Tell clients which block sizes to use.
#[derive(Params)]
pub(crate) struct BlockSizePolicy {
    /// What becomes of requests that do not keep to the sizes: `allow`, they are made if the disk below can; `error`,
    /// they fail with EINVAL.
    #[param(default = "allow")]
    blocksize_error_policy: Policy,
    /// The minimum block size: a power of two up to 64K.
    blocksize_minimum: Option<Size>,
    /// The preferred block size: a power of two from 512 to 32M.
    blocksize_preferred: Option<Size>,
    /// The longest read or write: a multiple of the minimum.
    blocksize_maximum: Option<Size>,
}

#[derive(Choice, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Allow,
    Error,
}

impl Filter for BlockSizePolicy {
    const NAME: &'static str = "blocksize-policy";
    const MANUAL: &'static str = include_str!("blocksize_policy.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        self.check()?;
        Ok(each(next, move |disk, _| {
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
            Ok(Arc::new(Strict { facts, next: disk }))
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
        match self.blocksize_maximum {
            Some(size) if u32::try_from(size.bytes()).is_err() => {
                bad("blocksize-maximum", size, "more than 4294967295, the largest that the protocol knows")
            }
            Some(size)
                if size.bytes() != u64::from(u32::MAX)
                    && (size.bytes() == 0 || size.bytes() % minimum != 0) =>
            {
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
    next: Arc<dyn Disk>,
}

impl Disk for Strict {
    disk::forward!(next: next, read, write, zero, trim, flush, cache, status);
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn extents(&self, r: Range, limit: usize) -> Io<'_, Extents> {
        let block = self.facts.blocks.minimum.into();
        self.next.extents(r, limit).map(move |found| Ok(aligned(&found, r, block)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Memory, layer, opened};
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
    }

    #[test]
    fn less_than_the_disk_below_takes_is_refused() {
        let blocks = Blocks { minimum: 4096, ..Blocks::default() };
        let memory = Memory::with(vec![0; 8192], Facts { blocks, ..Facts::writable(8192) });
        let layer = layer::<BlockSizePolicy>(&["blocksize-minimum=512"], &memory).unwrap();
        assert!(layer.open(&Client::local("")).wait().is_err());
    }
}
