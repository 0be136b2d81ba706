//! `noextents`: all of the disk looks like data.

use disk::{Backend, Client, Disk, Facts, Filter, Io, Result};
use params::Params;
use std::sync::Arc;

/// Hide holes: all of the disk counts as data.
#[derive(Params)]
pub(crate) struct NoExtents;

impl Filter for NoExtents {
    const NAME: &'static str = "noextents";
    const MANUAL: &'static str = include_str!("noextents.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        Ok(Hiding(next))
    }
}

struct Hiding(Arc<dyn Backend>);

impl Backend for Hiding {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.0.open(client).map(|next| {
            let facts = Facts { extents: false, ..next.facts().clone() };
            Ok(Arc::new(Solid { facts, next }) as Arc<dyn Disk>)
        })
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.0)
    }
}

struct Solid {
    facts: Facts,
    next: Arc<dyn Disk>,
}

impl Disk for Solid {
    disk::forward!(next: next, read, write, zero, trim, flush, cache, status, resizing);
    fn facts(&self) -> &Facts {
        &self.facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, opened};

    #[test]
    fn extents_are_not_offered_and_all_else_is_as_below() {
        let memory = Memory::new(vec![0; 512]);
        let disk = opened::<NoExtents>(&[], &memory);
        assert!(!disk.facts().extents && disk.facts().zero && disk.facts().multi_conn);
        disk.flush().wait().unwrap();
        disk.close().wait().unwrap();
        assert_eq!(memory.asked(), ["flush", "close"]);
    }
}
