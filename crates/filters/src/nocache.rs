//! `nocache`: what becomes of clients' wishes to have bytes cached.

use disk::{Backend, Client, Disk, Errno, Error, Facts, Filter, Io, Range, Result};
use params::{Choice, Params};
use std::sync::Arc;

/// What is read at once to emulate caching.
const READ_AT_ONCE: u64 = 1 << 20;

/// Take caching on demand away, to compare clients and servers with and without it.
#[derive(Params)]
pub(crate) struct NoCache {
    /// `none`, clients are not offered to have bytes cached; `emulate`, this filter reads the bytes and drops them;
    /// `nop`, requests are accepted and nothing happens.
    #[param(default = "none")]
    cachemode: CacheMode,
}

#[derive(Choice, Clone, Copy, PartialEq, Eq)]
enum CacheMode {
    None,
    Emulate,
    Nop,
}

impl Filter for NoCache {
    const NAME: &'static str = "nocache";
    const MANUAL: &'static str = include_str!("nocache.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        Ok(Without { mode: self.cachemode, next })
    }
}

struct Without {
    mode: CacheMode,
    next: Arc<dyn Backend>,
}

impl Backend for Without {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.next.open(client).map(|next| {
            let facts = Facts { cache: self.mode != CacheMode::None, ..next.facts().clone() };
            Ok(Arc::new(Layer { facts, mode: self.mode, next }) as Arc<dyn Disk>)
        })
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

struct Layer {
    facts: Facts,
    mode: CacheMode,
    next: Arc<dyn Disk>,
}

impl Disk for Layer {
    disk::forward!(next: next, read, write, zero, trim, flush, extents, status, resizing);
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn cache(&self, range: Range) -> Io<'_, ()> {
        match self.mode {
            CacheMode::None => Error::new(Errno::NOTSUP, "caching is switched off by cachemode").into(),
            CacheMode::Nop => Io::ok(()),
            CacheMode::Emulate => Io::later(async move {
                let step = READ_AT_ONCE.min(self.facts.blocks.maximum.into());
                for part in range.split_at_multiples(step) {
                    self.next.read(part).await?;
                }
                Ok(())
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, opened};

    #[test]
    fn each_mode_does_what_it_says() {
        let asked = |mode: &str| {
            let memory = Memory::new(vec![0; 3 << 20]);
            let disk = opened::<NoCache>(&[mode], &memory);
            if !disk.facts().cache {
                return None;
            }
            disk.cache(Range::new(512, 2 << 20)).wait().unwrap();
            Some(memory.asked())
        };
        assert_eq!(asked("cachemode=none"), None);
        assert_eq!(asked("cachemode=nop"), Some(vec![]));
        let reads = ["read 512 1048064", "read 1048576 1048576", "read 2097152 512"];
        assert_eq!(asked("cachemode=emulate"), Some(reads.map(str::to_owned).to_vec()));
    }
}
