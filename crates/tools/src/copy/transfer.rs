//! One piece on its way: a read that becomes writes, or zeroes.

use crate::copy::{map::Piece, watch::Watch, window::Flow};
use disk::{Data, Disk, Errno, Error, Io, Range, Result, WriteFlags, ZeroFlags, data};
use std::{
    future::Future,
    pin::Pin,
    sync::atomic::Ordering::Relaxed,
    task::{Context, Poll},
    time::Instant,
};

/// What to do with zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zeroes {
    /// Nothing: the destination is zero already.
    Skip,
    /// Make a hole where the destination can.
    Hole,
    /// Zero, but keep the space allocated.
    Allocate,
}

/// Both ends, and how to go from one to the other.
#[derive(Clone, Copy)]
pub(crate) struct Ends<'a> {
    pub(crate) from: &'a dyn Disk,
    pub(crate) to: &'a dyn Disk,
    pub(crate) zeroes: Zeroes,
    /// Blocks of zeroes of this size (a power of 2) in the data count as zeroes.
    pub(crate) sparse: Option<u64>,
    /// The longest write, in bytes.
    pub(crate) request_size: u64,
    /// Never more than one request in flight.
    pub(crate) one_by_one: bool,
    /// Hears of what is read, and counts.
    pub(crate) watch: &'a Watch,
}

/// A piece that is being copied. Finishes when all its writes have.
pub(crate) struct Transfer<'a> {
    ends: Ends<'a>,
    /// Counts the data on their way.
    flow: &'a Flow,
    range: Range,
    step: Step<'a>,
}

enum Step<'a> {
    Read(Io<'a, Data>, Instant),
    /// With how many bytes of data are written.
    Write(Write<'a>, Vec<Write<'a>>, u64),
    Done,
}

struct Write<'a> {
    /// First byte.
    at: u64,
    /// What is zeroed; `None` when data are written.
    zero: Option<Range>,
    io: Option<Io<'a, ()>>,
}

impl<'a> Ends<'a> {
    /// Starts a piece. `None`: there is nothing to wait for.
    ///
    /// # Errors
    /// The piece failed at once.
    pub(crate) fn start(self, piece: Piece, flow: &'a Flow) -> Result<Option<Transfer<'a>>> {
        let (range, step) = match piece {
            Piece::Zero(range) => {
                self.watch.has_zeroes(range);
                (range, self.write_zero(range).map(|write| Step::Write(write, Vec::new(), 0)))
            }
            Piece::Data(range) => match self.from.read(range) {
                Io::Ready(data) => {
                    let data = data.map_err(|e| reading(range.start, e))?;
                    self.has_read(range, &data);
                    (range, self.write(range, &data))
                }
                later => {
                    flow.read_began(range.len);
                    (range, Some(Step::Read(later, Instant::now())))
                }
            },
        };
        let Some(step) = step else { return Ok(None) };
        Transfer::new(self, flow, range, step)
    }

    fn has_read(self, range: Range, data: &Data) {
        self.watch.tally.read.fetch_add(range.len, Relaxed);
        // Another length is an error, which is told where it is written.
        if data.len() == range.len {
            self.watch.has_data(range.start, data);
        }
    }

    /// Starts to write data that were read elsewhere, as [`Ends::start`].
    ///
    /// # Errors
    /// It failed at once.
    pub(crate) fn start_write(
        self,
        range: Range,
        data: &Data,
        flow: &'a Flow,
    ) -> Result<Option<Transfer<'a>>> {
        let Some(step) = self.write(range, data) else { return Ok(None) };
        Transfer::new(self, flow, range, step)
    }

    /// As [`Ends::start_write`], for data that may end within a block of the destination: the rest of that block
    /// keeps its content.
    ///
    /// # Errors
    /// It failed at once; or the destination cannot be read.
    pub(crate) async fn start_padded(
        self,
        range: Range,
        data: Data,
        flow: &'a Flow,
    ) -> Result<Option<Transfer<'a>>> {
        let block = u64::from(self.to.facts().blocks.minimum);
        let missing = range.end().next_multiple_of(block) - range.end();
        if missing == 0 {
            return self.start_write(range, &data, flow);
        }
        let whole = Range::new(range.start, range.len + missing);
        let old = self
            .to
            .read(Range::new(whole.end() - block, block))
            .await
            .map_err(|e| writing(whole.start, e))?;
        self.start_write(whole, &Data::join(vec![data, old.slice(block - missing, missing)]), flow)
    }

    fn write_zero(self, range: Range) -> Option<Write<'a>> {
        let tally = &self.watch.tally;
        let count = if self.zeroes == Zeroes::Skip { &tally.skipped } else { &tally.zeroed };
        count.fetch_add(range.len, Relaxed);
        let may_trim = match self.zeroes {
            Zeroes::Skip => return None,
            Zeroes::Hole => true,
            Zeroes::Allocate => false,
        };
        let io = if self.to.facts().zero {
            self.to.zero(range, ZeroFlags { may_trim, ..ZeroFlags::default() })
        } else {
            self.write_zeroes_as_data(range)
        };
        Some(Write { at: range.start, zero: Some(range), io: Some(io) })
    }

    fn write_zeroes_as_data(self, range: Range) -> Io<'a, ()> {
        if range.len <= self.request_size {
            return self.to.write(range.start, Data::zeroes(range.len), WriteFlags::default());
        }
        Io::later(async move {
            for part in range.split_at_multiples(self.request_size) {
                self.to.write(part.start, Data::zeroes(part.len), WriteFlags::default()).await?;
            }
            Ok(())
        })
    }

    fn write_data(self, at: u64, data: Data) -> Write<'a> {
        self.watch.tally.written.fetch_add(data.len(), Relaxed);
        Write { at, zero: None, io: Some(self.to.write(at, data, WriteFlags::default())) }
    }

    fn write_in_turn(self, range: Range, data: Data, runs: Runs) -> Write<'a> {
        let io = Io::later(async move {
            let mut at = 0;
            for (len, zero) in runs.list {
                let part = Range::new(range.start + at, len);
                let write = match zero {
                    true => self.write_zero(part),
                    false => Some(self.write_data(part.start, data.slice(at, len))),
                };
                if let Some(mut write) = write {
                    std::future::poll_fn(|cx| write.poll(cx, self)).await?;
                }
                at += len;
            }
            Ok(())
        });
        Write { at: range.start, zero: None, io: Some(io) }
    }

    /// Writes data; their zeroes as such. `None`: there is nothing to write.
    fn write(self, range: Range, data: &Data) -> Option<Step<'a>> {
        if data.len() != range.len {
            // A disk that breaks its contract must not end in a short copy.
            let why = format!("{} bytes came for a read of {range}", data.len());
            let failed = Write { at: range.start, zero: None, io: Some(Error::io(why).into()) };
            return Some(Step::Write(failed, Vec::new(), 0));
        }
        let mut runs = Runs::default();
        match self.sparse {
            Some(block) => runs.find(data, range.start, block),
            None => runs.add(range.len, false),
        }
        if self.one_by_one && runs.list.len() > 1 {
            return Some(Step::Write(self.write_in_turn(range, data.clone(), runs), Vec::new(), 0));
        }
        let mut at = range.start;
        let mut writes = runs.list.into_iter().filter_map(|(len, zero)| {
            let part = Range::new(at, len);
            at += len;
            match zero {
                true => self.write_zero(part),
                false if part == range => Some(self.write_data(part.start, data.clone())),
                false => Some(self.write_data(part.start, data.slice(part.start - range.start, len))),
            }
        });
        let first = writes.next()?;
        let more = writes.collect();
        Some(Step::Write(first, more, range.len))
    }
}

fn reading(at: u64, e: Error) -> Error {
    e.context(format!("reading from the source at {at}"))
}

fn writing(at: u64, e: Error) -> Error {
    e.context(format!("writing to the destination at {at}"))
}

/// Alternating runs of data and zeroes.
#[derive(Default)]
struct Runs {
    list: Vec<(u64, bool)>,
}

impl Runs {
    fn add(&mut self, len: u64, zero: bool) {
        match self.list.last_mut() {
            Some(last) if last.1 == zero => last.0 += len,
            _ => self.list.push((len, zero)),
        }
    }

    /// Looks for zeroes in data that lie at byte `at` of the disk, block by block of the disk. What the data say
    /// themselves is believed without a look.
    fn find(&mut self, data: &Data, at: u64, block: u64) {
        if data.says_zeroes() {
            return self.add(data.len(), true);
        }
        let contiguous = data.contiguous();
        let Some(mut bytes) = contiguous.as_bytes() else { return self.add(data.len(), false) };
        let mut to_border = block - at % block;
        while !bytes.is_empty() {
            let (head, tail) = bytes.split_at((to_border as usize).min(bytes.len()));
            self.add(head.len() as u64, data::is_zero(head));
            bytes = tail;
            to_border = block;
        }
    }
}

impl<'a> Transfer<'a> {
    fn new(ends: Ends<'a>, flow: &'a Flow, range: Range, step: Step<'a>) -> Result<Option<Self>> {
        step.began(flow);
        let mut transfer = Transfer { ends, flow, range, step };
        Ok(if transfer.finished_at_once()? { None } else { Some(transfer) })
    }

    /// Which bytes it is about.
    pub(crate) fn range(&self) -> Range {
        self.range
    }

    /// Takes what is answered already; true when nothing is left.
    fn finished_at_once(&mut self) -> Result<bool> {
        let Step::Write(first, more, bytes) = &mut self.step else { return Ok(false) };
        let mut all = true;
        for write in std::iter::once(first).chain(more) {
            match write.io.take() {
                Some(Io::Ready(outcome)) => match write.outcome(outcome, self.ends)? {
                    None => {}
                    again => {
                        write.io = again;
                        all = false;
                    }
                },
                later => {
                    all &= later.is_none();
                    write.io = later;
                }
            }
        }
        if all {
            self.flow.write_ended(*bytes);
        }
        Ok(all)
    }
}

impl Step<'_> {
    fn began(&self, flow: &Flow) {
        if let Step::Write(.., bytes) = self {
            flow.write_began(*bytes);
        }
    }
}

impl<'a> Write<'a> {
    /// What an outcome means: the end, or that zeroes must be written after all.
    fn outcome(&mut self, outcome: Result<()>, ends: Ends<'a>) -> Result<Option<Io<'a, ()>>> {
        match outcome {
            Ok(()) => Ok(None),
            // Some servers offer what they do not know: an old dialect has no other word for that.
            Err(e) if matches!(e.errno(), Errno::NOTSUP | Errno::INVAL) => match self.zero.take() {
                Some(range) => Ok(Some(ends.write_zeroes_as_data(range))),
                None => Err(writing(self.at, e)),
            },
            Err(e) => Err(writing(self.at, e)),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, ends: Ends<'a>) -> Poll<Result<()>> {
        while let Some(io) = &mut self.io {
            match Pin::new(io).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(outcome) => self.io = self.outcome(outcome, ends)?,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Future for Transfer<'_> {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let me = self.get_mut();
        loop {
            match &mut me.step {
                Step::Read(io, began) => {
                    let data = match Pin::new(io).poll(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(data) => data.map_err(|e| reading(me.range.start, e))?,
                    };
                    me.flow.read_ended(me.range.len, *began);
                    me.ends.has_read(me.range, &data);
                    me.step = me.ends.write(me.range, &data).unwrap_or(Step::Done);
                    me.step.began(me.flow);
                }
                Step::Write(first, more, bytes) => {
                    let mut pending = false;
                    for write in std::iter::once(first).chain(more) {
                        pending |= write.poll(cx, me.ends)?.is_pending();
                    }
                    if pending {
                        return Poll::Pending;
                    }
                    me.flow.write_ended(*bytes);
                    me.step = Step::Done;
                }
                Step::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(data: &Data, at: u64, block: u64) -> Vec<(u64, bool)> {
        let mut runs = Runs::default();
        runs.find(data, at, block);
        runs.list
    }

    #[test]
    fn zeroes_are_found_block_by_block_of_the_disk() {
        let bytes = |list: &[(usize, u8)]| {
            let all: Vec<u8> = list.iter().flat_map(|(n, b)| std::iter::repeat_n(*b, *n)).collect();
            Data::copy_from(&all)
        };
        assert_eq!(runs(&bytes(&[(8, 0)]), 0, 4), [(8, true)]);
        assert_eq!(runs(&bytes(&[(4, 0), (1, 9), (7, 0)]), 0, 4), [(4, true), (4, false), (4, true)]);
        assert_eq!(runs(&bytes(&[(5, 0), (2, 9)]), 2, 4), [(2, true), (5, false)]);
        assert_eq!(runs(&Data::zeroes(1 << 40), 5, 4096), [(1 << 40, true)]);
        assert_eq!(
            runs(&Data::join(vec![Data::zeroes(4), Data::copy_from(b"abcd")]), 0, 4),
            [(4, true), (4, false)]
        );
    }
}
