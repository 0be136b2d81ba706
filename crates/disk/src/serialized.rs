//! Holds a backend to its thread model: one connection, or one request, at a time. A request that is dropped keeps its turn
//! as long as blocking work that it began goes on.

use crate::{
    Backend, Client, Disk, Facts, Io, ThreadModel,
    backend::Export,
    shapes::{
        Op,
        around::{Around, EveryRequest},
    },
};
use async_lock::{Mutex, MutexGuardArc};
use std::sync::Arc;

/// `backend`, asked for no more at once than its thread model allows.
pub fn backend(backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
    match backend.thread_model() {
        ThreadModel::Parallel => backend,
        model => Arc::new(Serialized { model, all: Arc::default(), next: backend }),
    }
}

struct Serialized {
    model: ThreadModel,
    all: Arc<Mutex<()>>,
    next: Arc<dyn Backend>,
}

impl Backend for Serialized {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        Io::later(async move {
            let disk: Arc<dyn Disk> = match self.model {
                ThreadModel::SerializeConnections => {
                    let turn = Arc::new(self.all.lock_arc().await);
                    let disk = self.next.open(client).await?;
                    // Another connection sees nothing until this one has gone.
                    let facts = Facts { multi_conn: false, ..disk.facts().clone() };
                    let one = OneAtATime { turns: Arc::default(), connection: Some(turn.clone()) };
                    let next = Arc::new(Around::with_facts(one, facts, disk));
                    Arc::new(Holding { next, _turn: turn })
                }
                ThreadModel::SerializeAllRequests => {
                    let disk = {
                        let _turn = self.all.lock().await;
                        self.next.open(client).await?
                    };
                    Arc::new(Around::new(OneAtATime { turns: self.all.clone(), connection: None }, disk))
                }
                ThreadModel::SerializeRequests => {
                    let disk = self.next.open(client).await?;
                    Arc::new(Around::new(OneAtATime { turns: Arc::default(), connection: None }, disk))
                }
                ThreadModel::Parallel => self.next.open(client).await?,
            };
            Ok(disk)
        })
    }
    fn exports<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Vec<Export>> {
        self.next.exports(client)
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

struct OneAtATime {
    turns: Arc<Mutex<()>>,
    /// The turn of its connection, where only one may be open at a time.
    connection: Option<Arc<MutexGuardArc<()>>>,
}

impl EveryRequest for OneAtATime {
    fn around<'a, T: Send + 'a>(&'a self, _: Op, call: impl FnOnce() -> Io<'a, T> + Send + 'a) -> Io<'a, T> {
        Io::later(async move {
            let turn = (self.turns.lock_arc().await, self.connection.clone());
            reactor::holding(Arc::new(turn), async move { call().await }).await
        })
    }
}

/// Holds the turn of its connection until the disk is gone.
struct Holding {
    next: Arc<dyn Disk>,
    _turn: Arc<MutexGuardArc<()>>,
}

impl Disk for Holding {
    crate::forward!(next: next, facts, read, write, zero, trim, flush, cache, extents, status, resizing);
    fn close(&self) -> Io<'_, ()> {
        self.next.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Data, Range,
        blocking::{Blocking, BlockingDisk},
    };
    use std::{
        future::Future,
        pin::Pin,
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
        task::Poll,
        time::Duration,
    };

    struct Counting(ThreadModel, Arc<(AtomicUsize, AtomicUsize)>);
    impl Backend for Counting {
        fn open<'a>(&'a self, _: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
            Io::ok(Arc::new(Slow(Facts::read_only(512), self.1.clone())))
        }
        fn thread_model(&self) -> ThreadModel {
            self.0
        }
    }
    struct Slow(Facts, Arc<(AtomicUsize, AtomicUsize)>);
    impl Disk for Slow {
        fn facts(&self) -> &Facts {
            &self.0
        }
        fn read(&self, r: Range) -> Io<'_, Data> {
            Io::later(async move {
                let now = self.1.0.fetch_add(1, SeqCst) + 1;
                self.1.1.fetch_max(now, SeqCst);
                reactor::sleep(Duration::from_millis(20)).await;
                self.1.0.fetch_sub(1, SeqCst);
                Ok(Data::zeroes(r.len))
            })
        }
    }

    /// The most requests at once when two clients with four requests each want them.
    fn most_at_once(model: ThreadModel) -> usize {
        let count = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
        let backend = backend(Arc::new(Counting(model, count.clone())));
        let client = || {
            reactor::block_on(async {
                let client = Client::local("");
                let disk = backend.open(&client).await.unwrap();
                let mut set = reactor::InFlight::new();
                (0..4).for_each(|_| set.push(disk.read(Range::new(0, 512))));
                while let Some(done) = set.next().await {
                    done.unwrap();
                }
            })
        };
        std::thread::scope(|s| (0..2).for_each(|_| drop(s.spawn(client))));
        count.1.load(SeqCst)
    }

    /// Its reads block, and say how many of them there are.
    struct Blocks(Facts, Arc<(AtomicUsize, AtomicUsize)>);
    impl BlockingDisk for Blocks {
        fn facts(&self) -> &Facts {
            &self.0
        }
        fn read(&self, _: u64, _: &mut [u8]) -> crate::Result<()> {
            let now = self.1.0.fetch_add(1, SeqCst) + 1;
            self.1.1.fetch_max(now, SeqCst);
            std::thread::sleep(Duration::from_millis(30));
            self.1.0.fetch_sub(1, SeqCst);
            Ok(())
        }
    }
    struct OfBlocks(ThreadModel, Arc<(AtomicUsize, AtomicUsize)>);
    impl Backend for OfBlocks {
        fn open<'a>(&'a self, _: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
            Io::ok(Arc::new(Blocking::new(Blocks(Facts::read_only(512), self.1.clone()))))
        }
        fn thread_model(&self) -> ThreadModel {
            self.0
        }
    }

    #[test]
    fn a_dropped_request_keeps_its_turn_until_its_work_is_done() {
        use ThreadModel::{SerializeAllRequests, SerializeConnections, SerializeRequests};
        for model in [SerializeAllRequests, SerializeConnections, SerializeRequests] {
            let count = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
            let backend = backend(Arc::new(OfBlocks(model, count.clone())));
            let client = Client::local("");
            reactor::block_on(async {
                let first = backend.open(&client).await.unwrap();
                let mut dropped = first.read(Range::new(0, 512));
                assert!(
                    std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut dropped).poll(cx).is_pending()))
                        .await
                );
                drop(dropped);
                if model != SerializeRequests {
                    drop(first);
                    let second = backend.open(&client).await.unwrap();
                    second.read(Range::new(0, 512)).await.unwrap();
                } else {
                    first.read(Range::new(0, 512)).await.unwrap();
                }
            });
            assert_eq!(count.1.load(SeqCst), 1, "{model:?}");
        }
    }

    #[test]
    fn every_thread_model_holds() {
        assert_eq!(most_at_once(ThreadModel::SerializeConnections), 1);
        assert_eq!(most_at_once(ThreadModel::SerializeAllRequests), 1);
        assert!((1..=2).contains(&most_at_once(ThreadModel::SerializeRequests)));
        assert!(most_at_once(ThreadModel::Parallel) >= 4);
    }
}
