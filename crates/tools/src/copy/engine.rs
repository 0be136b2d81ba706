//! The copy between two disks: workers that keep many pieces in flight.
//!
//! A worker drives one pair of opened disks. It has no thread of its own: it waits for its requests, and whoever
//! waits, drives. With several threads each drives some of the workers; they share the regions of the disk.

use crate::copy::{
    map::{Cut, Map, Next, Piece, Regions, ZERO_STEP},
    nbd::Link,
    ranges::Ranges,
    transfer::{Ends, Transfer, Zeroes},
    watch::Watch,
    window::Flow,
};
use disk::{Disk, Error, Extents, Io, Range, Result};
use reactor::InFlight;
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

/// How many extents are asked for at once: as many as come cheaply.
const EXTENTS: usize = 64 << 10;

/// How to copy. Sizes in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// The longest read and write: a power of 2.
    pub(crate) request_size: u64,
    /// Pieces in flight per worker, at least 1.
    pub(crate) requests: usize,
    /// Bytes of reads in flight per worker at first; one piece is always allowed.
    pub(crate) window: u64,
    /// Bytes of reads in flight per worker where that is of use, and of writes.
    pub(crate) queue: u64,
    /// Blocks of zeroes of this size in the data become zeroes; a power of 2.
    pub(crate) sparse: Option<u64>,
    /// Use the extents of the source.
    pub(crate) extents: bool,
    /// What to do with zeroes.
    pub(crate) zeroes: Zeroes,
    /// How many threads drive the workers, at least 1.
    pub(crate) threads: usize,
    /// Pieces begin and end at multiples of this, too (a power of 2), except at the end of the disk.
    pub(crate) unit: u64,
}

/// What goes on beside a copy. It ends only when it fails, and then the copy has failed.
pub(crate) type Beside<'a> = Pin<Box<dyn Future<Output = Error> + Send + 'a>>;

/// An opened source and an opened destination, for one worker.
pub(crate) struct Lane {
    pub(crate) from: Arc<dyn Disk>,
    pub(crate) to: Arc<dyn Disk>,
    /// The destination again, if it is a server.
    pub(crate) server: Option<Link>,
}

impl Plan {
    /// How to go from one to the other.
    pub(crate) fn ends<'a>(&self, from: &'a dyn Disk, to: &'a dyn Disk, watch: &'a Watch) -> Ends<'a> {
        let longest = u64::from(from.facts().blocks.maximum.min(to.facts().blocks.maximum));
        // A maximum need not be a power of 2, but is a multiple of the minimum.
        let longest = if longest >= self.unit { longest - longest % self.unit } else { longest };
        let request_size = self.request_size.min(longest).max(block(from, to)).max(self.unit);
        Ends {
            from,
            to,
            zeroes: self.zeroes,
            sparse: self.sparse,
            request_size,
            one_by_one: self.requests == 1,
            watch,
        }
    }

    /// What is on its way over a lane.
    pub(crate) fn flow(&self, server: Option<Link>) -> Flow {
        Flow::new(self.window, self.queue, server)
    }

    /// How the source is cut for these ends.
    pub(crate) fn cut(&self, ends: &Ends<'_>) -> Cut {
        let by_writing = self.zeroes != Zeroes::Skip && !ends.to.facts().zero;
        let zero = (!by_writing).then_some(ZERO_STEP);
        Cut { data: ends.request_size, zero, align: self.align(ends.from, ends.to) }
    }

    /// Where pieces may begin and end, in bytes.
    pub(crate) fn align(&self, from: &dyn Disk, to: &dyn Disk) -> u64 {
        block(from, to).max(self.unit)
    }
}

/// What both ends can read and write at the least, in bytes.
fn block(from: &dyn Disk, to: &dyn Disk) -> u64 {
    from.facts().blocks.minimum.max(to.facts().blocks.minimum).into()
}

/// Copies what is wanted of `range` (of the source, and to the same place) over all lanes. It ends early, and well, when
/// somebody has asked to stop.
///
/// # Errors
/// The first failure; nothing is begun after it.
pub(crate) fn copy(
    plan: &Plan,
    wanted: Option<&Ranges>,
    range: Range,
    lanes: &[Lane],
    watch: &Watch,
    beside: Option<Beside<'_>>,
) -> Result<()> {
    let regions = Regions::of(wanted, range, lanes.len());
    let failed = AtomicBool::new(false);
    let workers = |lanes: &[Lane]| {
        let flows: Vec<Flow> = lanes.iter().map(|lane| plan.flow(lane.server.clone())).collect();
        let mut workers = InFlight::new();
        for (lane, flow) in lanes.iter().zip(&flows) {
            let ends = plan.ends(&*lane.from, &*lane.to, watch);
            let worker = Worker::new(plan, ends, flow, &regions, watch, &failed);
            workers.push(Box::pin(worker.work()));
        }
        reactor::block_on(async {
            while let Some(outcome) = workers.next().await {
                outcome?;
            }
            Ok(())
        })
    };
    let per_thread = lanes.len().div_ceil(plan.threads.max(1));
    let mut groups = lanes.chunks(per_thread.max(1));
    let own = groups.next().unwrap_or_default();
    let over = Over::default();
    std::thread::scope(|scope| {
        // Workers need not ever wait, and those of one thread may end long before the others: it gets its own.
        let beside = beside.map(|beside| {
            scope.spawn(|| {
                let failure = over.unless(beside);
                failed.fetch_or(failure.is_some(), Relaxed);
                failure
            })
        });
        let others: Vec<_> = groups.map(|lanes| scope.spawn(|| workers(lanes))).collect();
        let mut outcome = workers(own);
        for other in others {
            let theirs = other.join().unwrap_or_else(|_| Err(Error::io("a copying thread panicked")));
            outcome = outcome.and(theirs);
        }
        over.tell();
        let beside = beside.and_then(|beside| {
            beside.join().unwrap_or_else(|_| Some(Error::io("what went on beside the copy panicked")))
        });
        outcome.and(beside.map_or(Ok(()), Err))
    })
}

/// Whether a copy is over.
#[derive(Default)]
struct Over(Mutex<(bool, Option<Waker>)>);

impl Over {
    fn tell(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = true;
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }

    /// Runs `future` until the copy is over. `None`: it has not ended by then.
    fn unless<T>(&self, mut future: impl Future<Output = T> + Unpin) -> Option<T> {
        reactor::block_on(poll_fn(|cx| {
            {
                let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                if state.0 {
                    return Poll::Ready(None);
                }
                state.1 = Some(cx.waker().clone());
            }
            Pin::new(&mut future).poll(cx).map(Some)
        }))
    }
}

/// Copies what it gets of the regions over one lane.
struct Worker<'a> {
    plan: &'a Plan,
    ends: Ends<'a>,
    flow: &'a Flow,
    map: Map<'a>,
    watch: &'a Watch,
    failed: &'a AtomicBool,
    flight: InFlight<Task<'a>>,
    /// It waits until more may be begun.
    resting: bool,
}

/// What a worker waits for.
enum Task<'a> {
    Transfer(Transfer<'a>),
    Extents(Io<'a, Extents>),
    Rest(reactor::Sleep),
}

enum Done {
    Transfer(Range, Result<()>),
    Extents(Result<Extents>),
    Rest,
}

impl Future for Task<'_> {
    type Output = Done;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Done> {
        match self.get_mut() {
            Task::Transfer(transfer) => {
                let outcome = Pin::new(&mut *transfer).poll(cx);
                outcome.map(|outcome| Done::Transfer(transfer.range(), outcome))
            }
            Task::Extents(io) => Pin::new(io).poll(cx).map(Done::Extents),
            Task::Rest(sleep) => Pin::new(sleep).poll(cx).map(|()| Done::Rest),
        }
    }
}

impl<'a> Worker<'a> {
    fn new(
        plan: &'a Plan,
        ends: Ends<'a>,
        flow: &'a Flow,
        regions: &'a Regions<'a>,
        watch: &'a Watch,
        failed: &'a AtomicBool,
    ) -> Self {
        let map = Map::new(regions, plan.cut(&ends), plan.extents && ends.from.facts().extents);
        Worker { plan, ends, flow, map, watch, failed, flight: InFlight::new(), resting: false }
    }

    async fn work(mut self) -> Result<()> {
        let outcome = self.copy().await;
        if outcome.is_err() {
            self.failed.store(true, Relaxed);
        }
        outcome
    }

    async fn copy(&mut self) -> Result<()> {
        loop {
            // Another worker's failure fails the copy; its error is the one that is told.
            if self.failed.load(Relaxed) {
                return Ok(());
            }
            self.begin()?;
            if self.flight.is_empty() {
                return Ok(());
            }
            match poll_fn(|cx| self.poll(cx)).await {
                None => {}
                Some(Done::Extents(answer)) => self.map.learn(answer.as_ref().ok()),
                Some(Done::Rest) => self.resting = false,
                Some(Done::Transfer(range, outcome)) => {
                    outcome?;
                    self.watch.copied(range);
                }
            }
        }
    }

    /// What has finished; `None` when nothing has, but there is room for more: what was read is being written now.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Done>> {
        let was_full = self.flow.is_full();
        match self.flight.poll_next(cx) {
            Poll::Pending if was_full && !self.flow.is_full() => Poll::Ready(None),
            other => other,
        }
    }

    /// Begins as much as may be in flight.
    fn begin(&mut self) -> Result<()> {
        loop {
            if self.watch.stop.asked() || self.failed.load(Relaxed) {
                return Ok(());
            }
            let may_ask = self.plan.requests > 1 || self.flight.is_empty();
            while may_ask && let Some(range) = self.map.ask() {
                match self.ends.from.extents(range, EXTENTS) {
                    Io::Ready(answer) => self.map.learn(answer.as_ref().ok()),
                    later => self.flight.push(Task::Extents(later)),
                }
            }
            if self.flight.len() >= self.plan.requests || self.flow.is_full() {
                return Ok(());
            }
            if let Some(pace) = &self.watch.pace {
                if self.resting {
                    return Ok(());
                }
                if let Some(wait) = pace.wait(Instant::now()) {
                    self.resting = true;
                    self.flight.push(Task::Rest(reactor::sleep(wait)));
                    return Ok(());
                }
            }
            let Next::Piece(piece) = self.map.next() else { return Ok(()) };
            let (Piece::Data(range) | Piece::Zero(range)) = piece;
            if let (Some(pace), Piece::Data(range)) = (&self.watch.pace, piece) {
                pace.begun(range.len, Instant::now());
            }
            match self.ends.start(piece, self.flow)? {
                None => self.watch.copied(range),
                Some(transfer) => self.flight.push(Task::Transfer(transfer)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::{
        fake::{Fake, Seen, islands},
        progress::{Progress, Style},
    };
    use disk::Errno;

    fn plan() -> Plan {
        Plan {
            request_size: 4096,
            requests: 8,
            window: 16 << 10,
            queue: 64 << 10,
            sparse: Some(4096),
            extents: true,
            zeroes: Zeroes::Hole,
            threads: 1,
            unit: 1,
        }
    }

    fn copy_all(plan: &Plan, from: Fake, to: Fake) -> (Result<()>, Arc<Fake>, Arc<Fake>) {
        let ((from, source), (to, destination)) = (from.open(), to.open());
        let watch = Watch::new(Progress::new(Style::Silent, Some(from.facts().size)));
        let range = from.facts().whole();
        (copy(plan, None, range, &[Lane { from, to, server: None }], &watch, None), source, destination)
    }

    #[test]
    fn what_arrives_is_what_was_sent_whatever_the_options() {
        let bytes = islands(300_001, 7);
        for extents in [true, false] {
            for sparse in [None, Some(512), Some(4096)] {
                for requests in [1, 8] {
                    for late in [true, false] {
                        let plan = Plan { extents, sparse, requests, ..plan() };
                        let (from, to) = (Fake::new(bytes.clone()), Fake::new(vec![9; 400_000]));
                        let (from, to) = if late { (from, to) } else { (from.at_once(), to.at_once()) };
                        let (outcome, _, to) = copy_all(&plan, from, to);
                        outcome.unwrap();
                        assert!(to.bytes()[..bytes.len()] == bytes, "{plan:?}");
                        assert!(
                            to.bytes()[bytes.len()..].iter().all(|b| *b == 9),
                            "beyond the source: {plan:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn holes_are_neither_read_nor_written() {
        let mut bytes = vec![0; 1 << 20];
        bytes[512 << 10..(512 << 10) + 10_000].fill(3);
        let (outcome, from, to) = copy_all(&plan(), Fake::new(bytes.clone()), Fake::new(vec![1; 1 << 20]));
        outcome.unwrap();
        assert!(to.bytes() == bytes);
        let read: u64 = from.seen().iter().map(|s| if let Seen::Read(r) = s { r.len } else { 0 }).sum();
        assert_eq!(read, 10_240, "whole blocks of data");
        let zeroed = to.seen().iter().filter(|s| matches!(s, Seen::Zero(_, true))).count();
        assert_eq!(zeroed, 2, "{:?}", to.seen());
    }

    #[test]
    fn a_destination_that_is_zero_is_not_zeroed() {
        let bytes = islands(100_000, 3);
        let plan = Plan { zeroes: Zeroes::Skip, ..plan() };
        let (outcome, _, to) = copy_all(&plan, Fake::new(bytes.clone()), Fake::new(vec![0; 100_000]));
        outcome.unwrap();
        assert!(to.bytes() == bytes);
        assert!(!to.seen().iter().any(|s| matches!(s, Seen::Zero(..))));
    }

    #[test]
    fn allocated_zeroes_are_no_holes() {
        let plan = Plan { zeroes: Zeroes::Allocate, ..plan() };
        let (outcome, _, to) = copy_all(&plan, Fake::new(vec![0; 50_000]), Fake::new(vec![1; 50_000]));
        outcome.unwrap();
        assert_eq!(to.seen(), [Seen::Zero(Range::new(0, 50_000), false)]);
    }

    #[test]
    fn without_zeroing_zeroes_are_written_in_requests() {
        let to = Fake::new(vec![1; 20_000]).with_facts(|f| f.zero = false);
        let (outcome, _, to) = copy_all(&plan(), Fake::new(vec![0; 20_000]), to);
        outcome.unwrap();
        assert!(to.bytes().iter().all(|b| *b == 0));
        assert_eq!(to.seen().len(), 5);
        assert!(to.seen().iter().all(|s| matches!(s, Seen::Write(r) if r.len <= 4096)));
    }

    #[test]
    fn zeroing_that_is_not_supported_after_all_becomes_writes_and_other_failures_are_fatal() {
        let bytes = islands(100_000, 5);
        for (errno, works) in [(Errno::NOTSUP, true), (Errno::INVAL, true), (Errno::IO, false)] {
            let fails: fn(Seen) -> Option<Errno> = match errno {
                Errno::NOTSUP => |s| matches!(s, Seen::Zero(..)).then_some(Errno::NOTSUP),
                Errno::INVAL => |s| matches!(s, Seen::Zero(..)).then_some(Errno::INVAL),
                _ => |s| matches!(s, Seen::Zero(..)).then_some(Errno::IO),
            };
            let to = Fake::new(vec![1; 100_000]).failing(fails);
            let (outcome, _, to) = copy_all(&plan(), Fake::new(bytes.clone()), to);
            match outcome {
                Ok(()) => assert!(works && to.bytes() == bytes),
                Err(e) => assert!(!works && e.errno() == errno, "{e}"),
            }
        }
    }

    #[test]
    fn a_failed_read_or_write_fails_the_copy_and_says_which() {
        let bytes = islands(200_000, 11);
        let failing: fn(Seen) -> Option<Errno> = |s| match s {
            Seen::Read(r) | Seen::Write(r) => (r.end() > 100_000).then_some(Errno::NOSPC),
            _ => None,
        };
        let (outcome, ..) =
            copy_all(&plan(), Fake::new(bytes.clone()).failing(failing), Fake::new(vec![0; 200_000]));
        assert!(outcome.unwrap_err().to_string().starts_with("reading from the source at "));
        let (outcome, ..) = copy_all(&plan(), Fake::new(bytes), Fake::new(vec![0; 200_000]).failing(failing));
        assert!(outcome.unwrap_err().to_string().starts_with("writing to the destination at "));
    }

    #[test]
    fn failing_extents_mean_that_everything_is_read() {
        let bytes = islands(100_000, 2);
        let from =
            Fake::new(bytes.clone()).failing(|s| matches!(s, Seen::Extents(_)).then_some(Errno::INVAL));
        let (outcome, from, to) = copy_all(&plan(), from, Fake::new(vec![1; 100_000]));
        outcome.unwrap();
        assert!(to.bytes() == bytes);
        assert_eq!(from.seen().iter().filter(|s| matches!(s, Seen::Read(_))).count(), 25);
    }

    #[test]
    fn large_blocks_are_kept_to() {
        let bytes = islands(256 << 10, 13);
        // The checked layer below asserts the alignment of every request.
        let (outcome, _, to) =
            copy_all(&plan(), Fake::new(bytes.clone()), Fake::new(vec![1; 256 << 10]).with_block(4096));
        outcome.unwrap();
        assert!(to.bytes() == bytes);
    }

    #[test]
    fn requests_are_no_shorter_than_blocks() {
        let bytes = islands(100_000, 19);
        let from = Fake::new([&bytes[..], &[0; 31_072]].concat()).with_block(32 << 10);
        let (outcome, _, to) = copy_all(&plan(), from, Fake::new(vec![1; 131_072]));
        outcome.unwrap();
        assert!(to.bytes()[..bytes.len()] == bytes);
    }

    #[test]
    fn several_lanes_and_threads_copy_each_byte_once() {
        let bytes = islands(1 << 20, 17);
        let (from, _) = Fake::new(bytes.clone()).open();
        let (to, destination) = Fake::new(vec![1; 1 << 20]).open();
        let lanes: Vec<Lane> =
            (0..4).map(|_| Lane { from: from.clone(), to: to.clone(), server: None }).collect();
        let watch = Watch::new(Progress::new(Style::Silent, Some(1 << 20)));
        copy(&Plan { threads: 3, ..plan() }, None, from.facts().whole(), &lanes, &watch, None).unwrap();
        assert!(destination.bytes() == bytes);
    }

    #[test]
    fn what_goes_on_beside_does_so_until_the_last_byte_whoever_copies_it() {
        // One region, and several threads: one of them copies, and never waits while it does.
        let bytes = islands(1 << 20, 23);
        let (from, to) = (Fake::new(bytes.clone()).at_once(), Fake::new(vec![1; 1 << 20]).at_once());
        let ((from, _), (to, destination)) = (from.open(), to.open());
        let watch = Watch::new(Progress::new(Style::Silent, Some(1 << 20)));
        for threads in [1, 4] {
            let (tell, told) = std::sync::mpsc::channel();
            let from = Arc::new(Held { disk: from.clone(), until: Mutex::new(Some(told)) });
            let lanes: Vec<Lane> =
                (0..threads).map(|_| Lane { from: from.clone(), to: to.clone(), server: None }).collect();
            let beside = async move {
                reactor::sleep(std::time::Duration::from_millis(20)).await;
                tell.send(()).unwrap();
                std::future::pending().await
            };
            let plan = Plan { threads, ..plan() };
            copy(&plan, None, from.facts().whole(), &lanes, &watch, Some(Box::pin(beside))).unwrap();
            assert!(destination.bytes() == bytes);
        }
    }

    #[test]
    fn when_what_goes_on_beside_fails_the_copy_fails() {
        let (from, _) = Fake::new(islands(1 << 20, 29)).at_once().open();
        let (to, _) = Fake::new(vec![1; 1 << 20]).at_once().open();
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let from = Arc::new(Held { disk: from, until: Mutex::new(Some(told)) });
        let lanes = [Lane { from: from.clone(), to, server: None }];
        let watch = Watch::new(Progress::new(Style::Silent, Some(1 << 20)));
        let beside = async move {
            drop(tell);
            Error::io("it failed")
        };
        let outcome = copy(&plan(), None, from.facts().whole(), &lanes, &watch, Some(Box::pin(beside)));
        assert_eq!(outcome.unwrap_err().to_string(), "it failed");
    }

    /// A disk whose first read takes until the other side of the channel has said something, or is gone.
    struct Held {
        disk: Arc<dyn Disk>,
        until: Mutex<Option<std::sync::mpsc::Receiver<()>>>,
    }

    impl Disk for Held {
        fn facts(&self) -> &disk::Facts {
            self.disk.facts()
        }
        fn read(&self, range: Range) -> Io<'_, disk::Data> {
            if let Some(until) = self.until.lock().unwrap().take() {
                let outcome = until.recv_timeout(std::time::Duration::from_secs(30));
                assert_ne!(outcome, Err(std::sync::mpsc::RecvTimeoutError::Timeout));
            }
            self.disk.read(range)
        }
        fn extents(&self, range: Range, limit: usize) -> Io<'_, Extents> {
            self.disk.extents(range, limit)
        }
    }
}
