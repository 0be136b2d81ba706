//! `prefetch`: reads ahead in the order in which a trace says that a disk will be read.

mod pieces;

use crate::trace::file::{self, Trace};
use async_lock::Mutex;
use disk::{
    Backend, Client, Data, Disk, Error, Facts, Filter, Io, Range, Result, ThreadModel, WriteFlags, ZeroFlags,
};
use params::{Params, Size};
use pieces::{Answer, Pieces};
use reactor::InFlight;
use std::{
    path::PathBuf,
    sync::{Arc, PoisonError},
    thread::JoinHandle,
};

/// Read ahead as a trace says.
#[derive(Params)]
pub(crate) struct Prefetch {
    /// The file that the filter trace wrote.
    prefetch_file: PathBuf,
    /// At most so much is read ahead and held in memory until it is asked for.
    #[param(default = "64M")]
    prefetch_window: Size,
    /// So many reads are under way at once, at most.
    #[param(default = "16", placeholder = "N")]
    prefetch_parallel: u16,
}

impl Filter for Prefetch {
    const NAME: &'static str = "prefetch";
    const MANUAL: &'static str = include_str!("prefetch.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        if self.prefetch_parallel == 0 {
            return Err(Error::invalid(
                "prefetch-parallel=0: at least one read must be under way to read ahead",
            ));
        }
        if self.prefetch_window.bytes() < pieces::LONGEST {
            let (given, least) = (self.prefetch_window, pieces::LONGEST >> 20);
            return Err(Error::invalid(format!(
                "prefetch-window={given}: less than {least}M, the longest piece"
            )));
        }
        let told = |e: Error| e.context(format!("prefetch-file={}", self.prefetch_file.display()));
        let bytes = std::fs::read(&self.prefetch_file).map_err(|e| told(e.into()))?;
        let trace = file::read(&bytes).map_err(told)?;
        if let Some(why) = trace.cut {
            tracing::warn!(target: "diskpipe", "prefetch: the end of the trace is left out: {why}");
        }
        Ok(Replaying { trace: Arc::new(trace), params: self, ahead: Mutex::default(), next })
    }
}

struct Replaying {
    trace: Arc<Trace>,
    params: Prefetch,
    /// What is read ahead, once an export is open that the trace is of.
    ahead: Mutex<Option<Arc<Ahead>>>,
    next: Arc<dyn Backend>,
}

/// The thread that reads ahead, over a disk of its own.
struct Ahead {
    export: String,
    pieces: Arc<Pieces>,
    thread: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Replaying {
    /// Why nothing can be read ahead on this disk, if so.
    fn obstacle(&self, facts: &Facts) -> Option<String> {
        let Trace { size, identity, .. } = &*self.trace;
        if self.next.thread_model() < ThreadModel::Parallel {
            return Some("what is below takes one request at a time".into());
        }
        if facts.size != *size {
            return Some(format!("the trace is of a disk of {size} bytes, and this one has {}", facts.size));
        }
        if !facts.multi_conn {
            return Some("what is below may show each client another disk (it has no multi-conn)".into());
        }
        match (identity.as_deref(), facts.identity.as_deref()) {
            (Some(then), Some(now)) if then != now => {
                Some(format!("the disk has changed since the trace was made: it was {then:?} and is {now:?}"))
            }
            _ => None,
        }
    }

    /// Begins to read ahead, or finds what has begun.
    async fn ahead(&self, client: &Client<'_>, facts: &Facts) -> Result<Option<Arc<Ahead>>> {
        let mut begun = self.ahead.lock().await;
        if let Some(ahead) = &*begun {
            return Ok(Some(ahead.clone()));
        }
        if let Some(why) = self.obstacle(facts) {
            let file = self.params.prefetch_file.display();
            tracing::warn!(target: "diskpipe", "prefetch-file={file} is not used: {why}");
            return Ok(None);
        }
        let mut own = client.asking_for(client.export);
        own.read_only = true;
        let disk = self.next.open(&own).await?;
        let blocks = disk.facts().blocks;
        let pieces = Arc::new(Pieces::new(&self.trace.parts, blocks, self.params.prefetch_window.bytes()));
        let at_once = usize::from(self.params.prefetch_parallel);
        let shared = pieces.clone();
        let thread = std::thread::Builder::new()
            .name("prefetch".into())
            .spawn(move || replay(&*disk, &shared, at_once));
        let thread = match thread {
            Ok(thread) => Some(thread),
            Err(e) => {
                tracing::warn!(target: "diskpipe", "prefetch: no thread for it: {e}");
                pieces.end();
                None
            }
        };
        let (export, thread) = (client.export.to_owned(), std::sync::Mutex::new(thread));
        Ok(Some(begun.insert(Arc::new(Ahead { export, pieces, thread })).clone()))
    }
}

/// Reads all pieces, as long as there is room for them, and closes the disk.
fn replay(disk: &dyn Disk, pieces: &Pieces, at_once: usize) {
    reactor::block_on(async {
        let mut under_way = InFlight::new();
        loop {
            while under_way.len() < at_once
                && let Some((number, range)) = pieces.next()
            {
                under_way.push(Box::pin(async move { (number, disk.read(range).await) }));
            }
            match under_way.next().await {
                Some((number, outcome)) => pieces.came(number, outcome),
                None if !pieces.wait_for_room() => break,
                None => {}
            }
        }
    });
    if let Err(e) = disk.close().wait() {
        tracing::warn!(target: "diskpipe", "prefetch: closing its disk: {e}");
    }
}

impl Backend for Replaying {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        Io::later(async move {
            let disk = self.next.open(client).await?;
            let facts = disk.facts();
            // Nobody could be told that the disk has become another.
            if disk.resizing().is_some() || client.looks {
                return Ok(disk);
            }
            Ok(match self.ahead(client, facts).await? {
                Some(ahead) => {
                    let reads = ahead.export == client.export;
                    Arc::new(Replayed { pieces: ahead.pieces.clone(), reads, next: disk })
                }
                None => disk,
            })
        })
    }
    fn finish(&self) {
        if let Some(ahead) = self.ahead.lock_blocking().take() {
            ahead.pieces.end();
            let thread = ahead.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(thread) = thread {
                // A panic of that thread has been told already.
                let _ = thread.join();
            }
            let (hits, misses) = ahead.pieces.counts();
            tracing::debug!(target: "diskpipe", "prefetch: {hits} reads were answered from memory, {misses} were not");
        }
        self.next.finish();
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

struct Replayed {
    pieces: Arc<Pieces>,
    /// Not so, another name has been opened: then it may be the same disk, or not, and only what is written counts.
    reads: bool,
    next: Arc<dyn Disk>,
}

impl Disk for Replayed {
    disk::forward!(next: next, facts, flush, cache, extents, status);
    fn read(&self, r: Range) -> Io<'_, Data> {
        if !self.reads {
            return self.next.read(r);
        }
        match self.pieces.read(r) {
            Answer::Here(data) => Io::ok(data),
            Answer::Absent => self.next.read(r),
            Answer::Coming(waiting) => Io::later(async move {
                match waiting.await {
                    Some(data) => Ok(data),
                    None => self.next.read(r).await,
                }
            }),
        }
    }
    fn write(&self, at: u64, data: Data, f: WriteFlags) -> Io<'_, ()> {
        self.pieces.forget(Range::new(at, data.len()));
        self.next.write(at, data, f)
    }
    fn zero(&self, r: Range, f: ZeroFlags) -> Io<'_, ()> {
        self.pieces.forget(r);
        self.next.zero(r, f)
    }
    fn trim(&self, r: Range, f: WriteFlags) -> Io<'_, ()> {
        self.pieces.forget(r);
        self.next.trim(r, f)
    }
    fn place(&self, r: Range) -> Option<disk::shared::Place<'_>> {
        // The bytes may come from now on.
        self.pieces.forget(r);
        self.next.place(r)
    }
    fn placed(&self, r: Range, f: WriteFlags) -> Io<'_, ()> {
        self.next.placed(r, f)
    }
}

#[cfg(test)]
mod tests;
