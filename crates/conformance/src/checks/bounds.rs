//! The first and the last byte, and all of the disk at once.

use super::soon;
use crate::{
    case::{Expect, Subject},
    model::{read_all, same},
    random::Random,
};
use disk::{Data, Range, WriteFlags, ZeroFlags};

pub(super) fn edges(subject: &Subject, seed: u64) {
    let disk = subject.open();
    let facts = disk.facts().clone();
    if facts.size == 0 {
        return;
    }
    let unit = u64::from(facts.blocks.minimum);
    assert!(facts.size.is_multiple_of(unit), "a size of {} bytes in blocks of {unit}", facts.size);
    let edges = [Range::new(0, unit), Range::new(facts.size - unit, unit)];
    for edge in edges {
        let data = soon(disk.read(edge)).unwrap_or_else(|e| panic!("reading {edge}: {e}"));
        assert_eq!(data.len(), edge.len);
        if facts.extents {
            let extents = soon(disk.extents(edge, 1)).unwrap_or_else(|e| panic!("extents of {edge}: {e}"));
            assert_eq!(extents.covered(), edge.len);
        }
        if facts.cache {
            soon(disk.cache(edge)).unwrap_or_else(|e| panic!("caching {edge}: {e}"));
        }
    }
    // As much as one request may have, up to the last byte.
    let most = u64::from(facts.blocks.maximum).min(32 << 20).min(facts.size) / unit * unit;
    let tail = Range::new(facts.size - most, most);
    let data = soon(disk.read(tail)).unwrap_or_else(|e| panic!("reading {tail}: {e}"));
    assert_eq!(data.len(), tail.len);
    if !facts.write || subject.expect != Expect::Model {
        return;
    }
    let mut random = Random::new(seed);
    let last = edges[1];
    let bytes = random.bytes(last.len);
    soon(disk.write(last.start, bytes.clone(), WriteFlags::default()))
        .unwrap_or_else(|e| panic!("writing {last}: {e}"));
    same(&Data::copy_from(&read_all(&*disk, last)), &bytes.to_vec(), last, "after a write");
    if facts.zero {
        // In one request, however large the disk: zeroing has no maximum.
        let whole = if facts.size <= 1 << 30 { facts.whole() } else { tail };
        let flags = ZeroFlags { may_trim: true, ..ZeroFlags::default() };
        soon(disk.zero(whole, flags)).unwrap_or_else(|e| panic!("zeroing {whole}: {e}"));
        for edge in edges.iter().filter(|edge| edge.start >= whole.start) {
            let read = read_all(&*disk, *edge);
            assert!(read.iter().all(|b| *b == 0), "{edge} after the disk was zeroed");
        }
    }
}
