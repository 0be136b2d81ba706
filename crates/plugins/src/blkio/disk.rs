//! Requests of clients, cut as the device wants them, many at a time.

use super::{
    device::Device,
    queue::{CHUNK, Handle, Request, Waiting},
};
use crate::common::parts::{aligned, each_part, is_one_part};
use ::disk::{BufMut, Data, Disk, Errno, Facts, Io, Piece, Range, Result, WriteFlags, ZeroFlags};
use std::{pin::pin, sync::Arc, time::Duration};

/// After this time a request looks whether anybody still works on it.
const LONG: Duration = Duration::from_secs(1);

/// The device as one client sees it.
pub(super) struct BlkioDisk {
    facts: Facts,
    device: Arc<Device>,
    handle: Handle,
}

impl BlkioDisk {
    pub(super) fn new(device: Arc<Device>, read_only: bool) -> BlkioDisk {
        let facts = device.facts.clone();
        let facts = if read_only { facts.without_write() } else { facts };
        BlkioDisk { facts, handle: device.queue().clone(), device }
    }

    /// Does a request, which comes back with what its memory holds then.
    async fn run(&self, request: Request) -> Result<Request> {
        let mut waiting = pin!(self.handle.run(request));
        loop {
            match reactor::timeout(LONG, waiting.as_mut()).await {
                Ok(done) => return done,
                Err(_) => self.device.look_after().await,
            }
        }
    }

    /// Waits for writes that are under way still, although nobody waits for them.
    async fn settled(&self) {
        let mut settled = pin!(self.handle.settled());
        while reactor::timeout(LONG, settled.as_mut()).await.is_err() {
            self.device.look_after().await;
        }
    }

    async fn read_whole(&self, range: Range) -> Result<Data> {
        let into = BufMut::new(range.len as usize);
        match self.run(Request::Read { at: range.start, into }).await? {
            Request::Read { into, .. } => Ok(into.into()),
            _ => Err(Errno::IO.into()),
        }
    }

    /// Through the region: into a buffer of our own, which the device does not reach.
    async fn read_chunk(&self, range: Range) -> Result<Data> {
        let len = range.len as usize;
        let chunk = self.chunk().await?.into_request();
        let done = self.run(Request::ReadChunk { at: range.start, chunk, len }).await?;
        let chunk = Waiting::chunk_of(&self.handle, done).ok_or(Errno::IO)?;
        Ok(Data::fill(len, |into| chunk.memory.read(chunk.at(), into)))
    }

    async fn chunk(&self) -> Result<super::queue::Chunk<'_>> {
        let mut chunk = pin!(self.handle.chunk());
        loop {
            match reactor::timeout(LONG, chunk.as_mut()).await {
                Ok(chunk) => return chunk,
                Err(_) => self.device.look_after().await,
            }
        }
    }

    async fn read_later(&self, range: Range) -> Result<Data> {
        let Some(step) = self.device.limits.chunk else { return self.read_whole(range).await };
        if is_one_part(range, step) {
            return self.read_chunk(range).await;
        }
        Ok(Data::join(each_part(range, step, |part| Box::pin(self.read_chunk(part))).await?))
    }

    async fn write_later(&self, at: u64, data: Data, fua: bool) -> Result<()> {
        let Some(step) = self.device.limits.chunk else {
            let from = aligned(data, self.device.limits.buffer_alignment);
            return self.run(Request::Write { at, from, fua }).await.map(drop);
        };
        let range = Range::new(at, data.len());
        // One flush at the end is better than one behind each part.
        let single = is_one_part(range, step);
        let data = &data;
        each_part(range, step, |part| {
            let data = data.slice(part.start - at, part.len);
            Box::pin(self.write_chunk(part.start, data, fua && single))
        })
        .await?;
        self.stable(fua && !single).await
    }

    async fn write_chunk(&self, at: u64, data: Data, fua: bool) -> Result<()> {
        let chunk = self.chunk().await?;
        let mut to = chunk.at();
        for piece in data.pieces() {
            let len = piece.len() as usize;
            match piece {
                Piece::Bytes(bytes) => chunk.memory.write(to, bytes),
                Piece::Zeroes(_) => chunk.memory.clear(to, len),
                Piece::Lent(_) => {
                    let mut copy = BufMut::new(len);
                    piece.copy_to(&mut copy);
                    chunk.memory.write(to, &copy);
                }
            }
            to += len;
        }
        let len = data.len() as usize;
        debug_assert!(len <= CHUNK);
        let request = Request::WriteChunk { at, chunk: chunk.into_request(), len, fua };
        let done = self.run(request).await?;
        drop(Waiting::chunk_of(&self.handle, done));
        Ok(())
    }

    /// A driver would let trims through that are not offered.
    fn may_write(&self) -> Result<()> {
        if self.facts.write { Ok(()) } else { Err(Errno::ROFS.into()) }
    }

    async fn stable(&self, fua: bool) -> Result<()> {
        if fua { self.run(Request::Flush).await.map(drop) } else { Ok(()) }
    }

    async fn zero_later(&self, range: Range, flags: ZeroFlags) -> Result<()> {
        let step = self.device.limits.zero;
        let single = range.len <= step;
        let part = |range: Range| Request::Zero {
            at: range.start,
            len: range.len,
            unmap: flags.may_trim,
            fast: flags.fast,
            fua: flags.fua && single,
        };
        if single {
            return self.run(part(range)).await.map(drop);
        }
        each_part(range, step, |range| Box::pin(self.run(part(range)))).await?;
        self.stable(flags.fua).await
    }

    async fn trim_later(&self, range: Range, fua: bool) -> Result<()> {
        let limits = self.device.limits;
        let block = limits.discard_alignment;
        if let Some(whole) = whole_blocks(range, block, limits.discard_offset) {
            let step = (limits.discard / block * block).max(block);
            let discarded = each_part(whole, step, |part| {
                Box::pin(self.run(Request::Discard { at: part.start, len: part.len }))
            })
            .await;
            match discarded {
                // A file: what is punched out of it is given up as well. (It is no more than a hint.)
                Err(e) if e.errno() == Errno::NOTSUP => {
                    let flags = ZeroFlags { may_trim: true, fast: true, fua: false };
                    match self.zero_if_fast(whole, flags).await {
                        Err(e) if e.errno() != Errno::NOTSUP => return Err(e),
                        _ => {}
                    }
                }
                outcome => drop(outcome?),
            }
        }
        self.stable(fua).await
    }

    /// Zeroes where the driver keeps its word that it is fast.
    async fn zero_if_fast(&self, range: Range, flags: ZeroFlags) -> Result<()> {
        if self.facts.fast_zero { self.zero_later(range, flags).await } else { Err(Errno::NOTSUP.into()) }
    }
}

/// The whole blocks of a range; the first block of all begins at `offset`.
fn whole_blocks(range: Range, block: u64, offset: u64) -> Option<Range> {
    let up = |at: u64| at.checked_sub(offset).map_or(0, |at| at.div_ceil(block));
    let first = up(range.start).checked_mul(block)?.checked_add(offset)?;
    let end = offset + range.end().checked_sub(offset)? / block * block;
    (first < end).then(|| Range::new(first, end - first))
}

impl Disk for BlkioDisk {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn read(&self, range: Range) -> Io<'_, Data> {
        Io::later(self.read_later(range))
    }

    fn write(&self, at: u64, data: Data, flags: WriteFlags) -> Io<'_, ()> {
        self.may_write().map_or_else(Io::from, |()| Io::later(self.write_later(at, data, flags.fua)))
    }

    fn zero(&self, range: Range, flags: ZeroFlags) -> Io<'_, ()> {
        self.may_write().map_or_else(Io::from, |()| Io::later(self.zero_later(range, flags)))
    }

    fn trim(&self, range: Range, flags: WriteFlags) -> Io<'_, ()> {
        self.may_write().map_or_else(Io::from, |()| Io::later(self.trim_later(range, flags.fua)))
    }

    fn flush(&self) -> Io<'_, ()> {
        Io::later(async move {
            self.settled().await;
            self.stable(true).await
        })
    }

    fn close(&self) -> Io<'_, ()> {
        Io::later(async move {
            self.settled().await;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_blocks_are_given_up() {
        for (block, offset) in [(4, 0), (4, 3), (1, 0), (6, 2)] {
            let is_whole = |range: Range, at: u64| {
                let Some(before) = at.checked_sub(offset) else { return false };
                let start = offset + before / block * block;
                start >= range.start && start + block <= range.end()
            };
            for range in (0..20).flat_map(|start| (1..20).map(move |len| Range::new(start, len))) {
                let whole = whole_blocks(range, block, offset);
                let there = |at| whole.is_some_and(|whole| (whole.start..whole.end()).contains(&at));
                assert!((0..50).all(|at| there(at) == is_whole(range, at)), "{range} {block} {offset}");
            }
        }
    }
}
