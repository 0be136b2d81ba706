//! What is answered to block status requests.

use crate::to_wire;
use disk::{Disk, Facts, Io, Range};
use proto::Extent;

/// A metadata context that was negotiated.
#[derive(Clone, Copy)]
pub(crate) enum Metadata {
    Allocation,
    Other(usize),
}

/// What a context says of a range.
pub(crate) fn one_status<'d>(
    disk: &'d dyn Disk,
    facts: &'d Facts,
    context: Metadata,
    range: Range,
    limit: usize,
) -> Io<'d, Vec<Extent>> {
    match context {
        Metadata::Allocation if facts.extents => disk.extents(range, limit).map(|e| {
            if e.is_empty() {
                return Err(disk::Error::io("the disk gave no extent"));
            }
            Ok(to_wire::allocation(&e))
        }),
        Metadata::Allocation => Io::ok(vec![Extent { length: range.len, status: 0 }]),
        Metadata::Other(index) => disk.status(index, range, limit).map(to_wire::statuses),
    }
}

/// No more than `limit` of them.
pub(crate) fn shorten(mut list: Vec<Extent>, limit: usize) -> Vec<Extent> {
    list.truncate(limit);
    list
}
