//! `ddrescue`: a rescued disk whose bad parts fail as they did.

mod mapfile;

use crate::common::wrap::each_read_only;
use disk::{Backend, Data, Disk, Error, Extents, Facts, Filter, Io, Range, Result, Status};
use params::Params;
use std::{path::PathBuf, sync::Arc};

/// Let the parts of a disk fail that GNU ddrescue could not read.
#[derive(Params)]
pub(crate) struct DdRescue {
    /// The mapfile that ddrescue wrote.
    ddrescue_mapfile: PathBuf,
}

impl Filter for DdRescue {
    const NAME: &'static str = "ddrescue";
    const MANUAL: &'static str = include_str!("ddrescue.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        let file = self.ddrescue_mapfile.display();
        let text = std::fs::read_to_string(&self.ddrescue_mapfile)
            .map_err(|e| Error::from(e).context(format!("ddrescue-mapfile={file}")))?;
        let good = mapfile::rescued(&text)
            .map_err(|why| Error::invalid(format!("ddrescue-mapfile={file}: {why}")))?;
        let good: Arc<[Range]> = good.into();
        Ok(each_read_only(next, move |disk, _| {
            let facts = disk.facts().clone().without_write();
            Ok(Arc::new(Rescued { facts, good: good.clone(), next: disk }))
        }))
    }
}

/// See [`crate::try_list`].
pub(crate) fn try_mapfile(text: &str) {
    let Ok(good) = mapfile::rescued(text) else { return };
    assert!(good.windows(2).all(|pair| pair[0].end() < pair[1].start), "in order, apart from each other");
    assert!(good.iter().all(|range| !range.is_empty() && range.lies_within(i64::MAX as u64)));
}

struct Rescued {
    facts: Facts,
    /// What could be read, in order and joined.
    good: Arc<[Range]>,
    next: Arc<dyn Disk>,
}

impl Rescued {
    /// The first byte of a range that could not be read.
    fn first_bad(&self, r: Range) -> Option<u64> {
        let at = self.good.partition_point(|good| good.end() <= r.start);
        match self.good.get(at) {
            Some(good) if good.start <= r.start => (good.end() < r.end()).then(|| good.end()),
            _ => Some(r.start),
        }
    }

    fn check<T>(&self, r: Range) -> std::result::Result<(), Io<'_, T>> {
        match self.first_bad(r) {
            None => Ok(()),
            Some(at) => Err(Error::io(format!("byte {at} could not be rescued")).into()),
        }
    }
}

impl Disk for Rescued {
    disk::forward!(next: next, flush);
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, r: Range) -> Io<'_, Data> {
        match self.check(r) {
            Ok(()) => self.next.read(r),
            Err(failed) => failed,
        }
    }
    fn cache(&self, r: Range) -> Io<'_, ()> {
        match self.check(r) {
            Ok(()) => self.next.cache(r),
            Err(failed) => failed,
        }
    }
    fn extents(&self, r: Range, limit: usize) -> Io<'_, Extents> {
        // What could not be rescued is no hole, whatever lies there instead: it must be read, and fail.
        match self.first_bad(r) {
            None => self.next.extents(r, limit),
            Some(bad) if bad > r.start => self.next.extents(Range::new(r.start, bad - r.start), limit),
            Some(_) => {
                let at = self.good.partition_point(|good| good.end() <= r.start);
                let end = self.good.get(at).map_or(r.end(), |good| good.start.min(r.end()));
                Io::ok(Extents::one(end - r.start, disk::Kind::DATA))
            }
        }
    }
    fn status(&self, context: usize, r: Range, limit: usize) -> Io<'_, Vec<Status>> {
        self.next.status(context, r, limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, noise, opened};

    #[test]
    fn what_was_not_rescued_fails_and_is_no_hole() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("map");
        std::fs::write(&file, "# x\n0 + 1\n0 0x200 +\n0x200 0x200 -\n0x400 0x200 +\n0x600 0x200 +\n")
            .unwrap();
        let mut bytes = noise(1, 4096);
        bytes[512..1024].fill(0);
        let memory = Memory::new(bytes);
        let disk = opened::<DdRescue>(&[&format!("ddrescue-mapfile={}", file.display())], &memory);
        assert!(!disk.facts().write);
        let read = |start, len| disk.read(Range::new(start, len)).wait().map(drop).map_err(|e| e.to_string());
        assert_eq!(read(0, 512), Ok(()));
        assert_eq!(read(1024, 1024), Ok(()));
        assert_eq!(read(0, 513), Err("byte 512 could not be rescued".into()));
        assert_eq!(read(1000, 512), Err("byte 1000 could not be rescued".into()));
        assert_eq!(read(3000, 1), Err("byte 3000 could not be rescued".into()));
        let found = disk.extents(Range::new(512, 3000), 9).wait().unwrap();
        assert_eq!(found, Extents::one(512, disk::Kind::DATA));
    }
}
