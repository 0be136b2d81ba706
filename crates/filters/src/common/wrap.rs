//! What many filters need besides their shape: the backend that puts each disk below into a layer, and the layer that
//! only says something else about the disk.

use disk::{Backend, Client, Data, Disk, Extents, Facts, Io, Kind, Range, Result};
use std::sync::Arc;

/// A backend whose disks are those below, each in what `wrap` makes of it.
pub(crate) fn each<F>(next: Arc<dyn Backend>, wrap: F) -> Each<F>
where
    F: Fn(Arc<dyn Disk>, &Client<'_>) -> Result<Arc<dyn Disk>> + Send + Sync,
{
    Each { wrap, read_only: false, next }
}

/// As [`each`], with the disks below opened for reading only.
pub(crate) fn each_read_only<F>(next: Arc<dyn Backend>, wrap: F) -> Each<F>
where
    F: Fn(Arc<dyn Disk>, &Client<'_>) -> Result<Arc<dyn Disk>> + Send + Sync,
{
    Each { wrap, read_only: true, next }
}

pub(crate) struct Each<F> {
    wrap: F,
    read_only: bool,
    next: Arc<dyn Backend>,
}

impl<F> Backend for Each<F>
where
    F: Fn(Arc<dyn Disk>, &Client<'_>) -> Result<Arc<dyn Disk>> + Send + Sync,
{
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        if !self.read_only {
            return self.next.open(client).map(|disk| (self.wrap)(disk, client));
        }
        Io::later(async move {
            let below = Client { read_only: true, ..client.clone() };
            (self.wrap)(self.next.open(&below).await?, client)
        })
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

/// `next`, with other facts; they promise no more than it does.
pub(crate) fn stated(facts: Facts, next: Arc<dyn Disk>) -> Arc<dyn Disk> {
    Arc::new(Stated { facts, next })
}

/// As [`stated`], of a size that does not follow that of the disk below.
pub(crate) fn stated_with_its_size(facts: Facts, next: Arc<dyn Disk>) -> Arc<dyn Disk> {
    Arc::new(StatedSize { facts, next })
}

struct StatedSize {
    facts: Facts,
    next: Arc<dyn Disk>,
}

impl Disk for StatedSize {
    disk::forward!(next: next, read, write, zero, trim, flush, cache, extents, status);
    fn facts(&self) -> &Facts {
        &self.facts
    }
}

struct Stated {
    facts: Facts,
    next: Arc<dyn Disk>,
}

impl Disk for Stated {
    disk::forward!(next: next, read, write, zero, trim, flush, cache, extents, status, resizing);
    fn facts(&self) -> &Facts {
        &self.facts
    }
}

/// The name of the export that a client opens, where the empty one stands for the default below.
pub(crate) async fn export_name(next: &dyn Backend, client: &Client<'_>) -> Result<String> {
    if client.export.is_empty()
        && let Some(default) = next.default_export(client).await?
    {
        return Ok(default);
    }
    Ok(client.export.to_owned())
}

/// The most that is looked at in one go when content is compared.
const LOOK_AT_ONCE: u64 = 1 << 20;

/// Where a range of `disk` first differs from `data` (`None`: from zeroes), or that it does not. The range must be
/// aligned to the disk's minimum block size.
pub(crate) async fn difference(disk: &dyn Disk, range: Range, data: Option<&Data>) -> Result<Option<u64>> {
    let facts = disk.facts();
    let step = LOOK_AT_ONCE.min(facts.blocks.maximum.into());
    let minimum = u64::from(facts.blocks.minimum);
    let mut at = range.start;
    while at < range.end() {
        let rest = Range::new(at, range.end() - at);
        if data.is_none() && facts.extents {
            let found = disk.extents(rest, 1).await?;
            let zeroes = found.iter().next().filter(|first| first.kind.zero).map_or(0, |first| first.len);
            if zeroes >= minimum {
                at += zeroes - zeroes % minimum;
                continue;
            }
        }
        let part = Range::new(at, (step - at % step).min(rest.len));
        let there = disk.read(part).await?.contiguous();
        let there = there.as_bytes().expect("contiguous data has bytes");
        let differs = match data {
            None => there.iter().position(|byte| *byte != 0),
            Some(data) => {
                let wanted = data.slice(part.start - range.start, part.len).contiguous();
                let wanted = wanted.as_bytes().expect("contiguous data has bytes");
                if wanted == there { None } else { wanted.iter().zip(there).position(|(a, b)| a != b) }
            }
        };
        if let Some(offset) = differs {
            return Ok(Some(part.start + offset as u64));
        }
        at = part.end();
    }
    Ok(None)
}

/// Extents of a range with borders that are multiples of `unit` (a power of 2), as those of the range are. A unit that is
/// partly something else is data.
pub(crate) fn aligned(found: &Extents, r: Range, unit: u64) -> Extents {
    let mut extents = Extents::new();
    let mut at = r.start;
    for (range, kind) in found.ranges(r.start) {
        let (first, last) = (range.start.next_multiple_of(unit), range.end() & !(unit - 1));
        extents.push(first.saturating_sub(at), Kind::DATA);
        at = at.max(first);
        extents.push(last.saturating_sub(at), kind);
        at = at.max(last);
    }
    if at < r.start + found.covered() {
        extents.push(unit, Kind::DATA);
    }
    extents.truncate(r.len);
    extents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_that_are_partly_zero_are_data() {
        let mut found = Extents::one(5, Kind::HOLE);
        found.push(6, Kind::DATA);
        found.push(5, Kind::HOLE);
        let rounded = aligned(&found, Range::new(8, 16), 4);
        let list: Vec<(u64, Kind)> = rounded.iter().map(|e| (e.len, e.kind)).collect();
        assert_eq!(list, [(4, Kind::HOLE), (8, Kind::DATA), (4, Kind::HOLE)]);
        assert_eq!(aligned(&Extents::one(3, Kind::HOLE), Range::new(0, 8), 8), Extents::one(8, Kind::DATA));
    }
}
