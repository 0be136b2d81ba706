//! One stack of filters and a sequence of requests to it, against a model.
//!
//! The first bytes of an input choose the disk below and the filters, the next ones the requests. The same code runs
//! under a fuzzer (`fuzz/targets/stack.rs`, over the memory plugin too) and in the tests here.

mod layers;
mod requests;

pub use layers::{LAYERS, Layer, OTHERS};
pub use requests::Request;

use conformance::{Answer, Fake, Model, Step};
use disk::{Backend, Blocks, Client, Disk, Errno, Error, Facts, Io, Range, ThreadModel};
use reactor::InFlight;
use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

/// How many filters at most.
const HIGHEST: usize = 6;
/// A larger disk on top is not modelled whole, and takes long.
const LARGEST: u64 = 128 << 10;

/// The disks below that the conformance kit has, by number.
pub fn fake(number: u8) -> Arc<dyn Backend> {
    fake_disk(number).backend()
}

/// The same, before it is opened.
pub fn fake_disk(number: u8) -> Fake {
    let all = Facts::capable((24 << 10) + 123);
    let facts = match number % 4 {
        0 => all,
        1 => Facts { multi_conn: false, ..Facts::writable(20 << 10) },
        2 => {
            let blocks = Blocks { minimum: 512, preferred: 4096, maximum: 8 << 10 };
            Facts { size: 50 << 9, blocks, ..all }
        }
        _ => all.without_write(),
    };
    let fake = Fake::new(facts, number.into());
    fake.wait_each_time((number >> 2 & 3).into());
    fake
}

/// Builds a stack over the disk that `below` makes of the first byte, and makes requests of it. Returns how many
/// requests were made.
///
/// # Panics
/// When a filter does, or an answer is not what the model says.
pub fn run(input: &[u8], below: impl Fn(u8) -> Arc<dyn Backend>) -> usize {
    make(input, below, &Trouble::default())
}

/// As [`run`], over a disk of which one in `n` requests fails.
pub fn run_over_failures(input: &[u8], n: u64) -> usize {
    let disk = fake_disk(input.first().copied().unwrap_or(0));
    make(input, |_| disk.backend(), &Trouble { of: Some(disk.clone()), n })
}

/// What fails below.
#[derive(Default)]
struct Trouble {
    of: Option<Fake>,
    n: u64,
}

impl Trouble {
    fn begin(&self, seed: u64) {
        if let Some(disk) = &self.of {
            disk.fail_one_in(self.n, seed);
        }
    }

    fn may_have_caused(&self, e: &Error) -> bool {
        self.of.is_some() && e.errno() == Errno::IO
    }

    /// Nothing fails while answers are checked.
    fn end(&self) {
        if let Some(disk) = &self.of {
            disk.fail_one_in(0, 0);
        }
    }
}

fn make(input: &[u8], below: impl Fn(u8) -> Arc<dyn Backend>, trouble: &Trouble) -> usize {
    let Some(([first, count], rest)) = input.split_first_chunk() else { return 0 };
    let count = usize::from(*count) % (HIGHEST + 1);
    let Some((filters, rest)) = rest.split_at_checked(count * Layer::LEN) else { return 0 };
    let layers: Vec<Layer> = filters.chunks_exact(Layer::LEN).map(Layer::decode).collect();
    // What cannot be written at the end of a grown disk is refused at once, or no model knows what is there.
    let grown = layers.iter().position(|layer| layer.grows()).unwrap_or(layers.len());
    if layers[grown..].iter().any(|layer| layer.writes_late()) {
        return 0;
    }
    let mut stack = below(*first);
    for layer in &layers {
        // A filter may refuse its parameters, or the disk; not less is asked than that it says so.
        match layer.over(stack) {
            Ok(higher) => stack = higher,
            Err(e) => {
                assert!(!e.to_string().is_empty());
                return 0;
            }
        }
    }
    if stack.get_ready().is_err() || stack.after_fork().is_err() {
        return 0;
    }
    // As a server does.
    let stack = disk::serialized::backend(stack);
    let alone = stack.thread_model() == ThreadModel::SerializeConnections;
    let made = reactor::block_on(async {
        let [one, other] = [1, 2].map(|connection| Client { connection, ..Client::default() });
        let Ok(disk) = soon(stack.open(&one)).await else { return 0 };
        let facts = disk.facts().clone();
        if facts.size == 0 || facts.size > LARGEST {
            return 0;
        }
        let mut disks = vec![disk];
        if facts.multi_conn && !alone {
            disks.push(soon(stack.open(&other)).await.expect("many may share it"));
        }
        let requests = rest.chunks_exact(Request::LEN).map(Request::decode);
        let made = ask(&disks, &facts, requests, trouble).await;
        for disk in disks {
            match soon(disk.close()).await {
                Err(e) if !trouble.may_have_caused(&e) => panic!("no orderly end: {e}"),
                _ => {}
            }
        }
        made
    });
    stack.disconnected(1);
    stack.disconnected(2);
    stack.finish();
    made
}

/// Requests under way beside each other.
struct Air<'a> {
    trouble: &'a Trouble,
    flying: InFlight<Flying<'a>>,
    /// Answered, not yet checked.
    landed: Vec<(Step, Outcome)>,
    claimed: Vec<Range>,
}

type Outcome = Result<Answer, Error>;
type Flying<'a> = Pin<Box<dyn Future<Output = (Step, Outcome)> + Send + 'a>>;

impl<'a> Air<'a> {
    /// Waits for `future` while the others go on: it may need what they hold.
    async fn beside<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        soon(poll_fn(|cx| {
            while let Poll::Ready(Some(done)) = self.flying.poll_next(cx) {
                self.landed.push(done);
            }
            future.as_mut().poll(cx)
        }))
        .await
    }

    /// Waits for all. None is checked before all are done: a check may read beside what is still being written.
    async fn land(&mut self, model: &mut Model, disk: &dyn Disk) {
        while let Some(done) = soon(self.flying.next()).await {
            self.landed.push(done);
        }
        self.trouble.end();
        for (step, outcome) in self.landed.drain(..) {
            check(model, disk, &step, outcome, self.trouble);
        }
        self.claimed.clear();
    }
}

async fn ask(
    disks: &[Arc<dyn Disk>],
    facts: &Facts,
    requests: impl Iterator<Item = Request>,
    trouble: &Trouble,
) -> usize {
    let mut model = Model::of(&*disks[0]);
    let mut made = 0;
    let mut air = Air { trouble, flying: InFlight::default(), landed: vec![], claimed: vec![] };
    for request in requests {
        let Some(step) = request.step(facts) else { continue };
        made += 1;
        let disk = &*disks[request.disk() % disks.len()];
        let range = range_of(&step);
        let apart = range.filter(|range| air.claimed.iter().all(|other| other.intersect(*range).is_none()));
        if apart.is_none() {
            // What overlaps comes one after the other; a flush, after all before it.
            air.land(&mut model, disk).await;
        }
        trouble.begin(made as u64);
        let io = step.ask(disk);
        match request.care() {
            0 => {
                let outcome = look_and_drop(&mut air, io, request.polls()).await;
                air.land(&mut model, disk).await;
                match outcome {
                    Some(outcome) => check(&mut model, disk, &step, outcome, trouble),
                    None => forget(&mut model, disk, &step, trouble).await,
                }
            }
            1 | 2 if range.is_some() => {
                air.claimed.extend(range);
                air.flying.push(Box::pin(async move {
                    let outcome = io.await;
                    (step, outcome)
                }));
            }
            _ => {
                let outcome = air.beside(io).await;
                air.claimed.extend(range);
                air.landed.push((step, outcome));
            }
        }
    }
    air.land(&mut model, &*disks[0]).await;
    model.compare(&*disks[0]);
    made
}

/// Looks at a request so many times, and drops it.
async fn look_and_drop(air: &mut Air<'_>, mut io: Io<'_, Answer>, polls: u8) -> Option<Outcome> {
    for _ in 0..polls {
        let look = poll_fn(|cx| match Pin::new(&mut io).poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => Poll::Ready(None),
        });
        let outcome = air.beside(look).await;
        if outcome.is_some() {
            return outcome;
        }
        air.beside(reactor::yield_now()).await;
    }
    None
}

/// After a request that nobody waited for: its bytes are old or new.
async fn forget(model: &mut Model, disk: &dyn Disk, step: &Step, trouble: &Trouble) {
    // A flush waits for writes in flight, also for those that nobody waits for. Then each layer may tell once of what
    // failed when nobody was there to hear it.
    if disk.facts().flush {
        let mut flushed = soon(disk.flush()).await;
        for _ in 0..HIGHEST {
            if flushed.as_ref().is_err_and(|e| trouble.may_have_caused(e)) {
                flushed = soon(disk.flush()).await;
            }
        }
        flushed.expect("a flush");
    }
    if let Some(range) = step.touches() {
        model.adopt(disk, range, step.becomes().as_deref());
    }
}

fn check(model: &mut Model, disk: &dyn Disk, step: &Step, outcome: Outcome, trouble: &Trouble) {
    match (step.touches(), outcome) {
        // Nothing but zeroes can be written where a filter made the disk larger; a filter above may write others for
        // zeroes. A layer above may have cut the request in pieces, of which some were done.
        (Some(range), Err(e)) if e.errno() == Errno::NOSPC => {
            model.adopt(disk, range, step.becomes().as_deref());
        }
        (touched, Err(e)) if trouble.may_have_caused(&e) => {
            if let Some(range) = touched {
                model.adopt(disk, range, step.becomes().as_deref());
            }
        }
        (_, outcome) => model.check(disk, step, outcome),
    }
}

/// The bytes that an answer depends on, or that it changes; `None`: all.
fn range_of(step: &Step) -> Option<Range> {
    match step {
        Step::Read(range) | Step::Cache(range) | Step::Extents(range, _) => Some(*range),
        step => step.touches(),
    }
}

async fn soon<F: Future>(future: F) -> F::Output {
    reactor::timeout(Duration::from_secs(10), future).await.expect("an answer within 10 seconds")
}
