//! The size of a disk that another server changes (the proposed RESIZE), shared by all who have the connection open.
//!
//! What [`disk::resize::Size`] is for data that lies here. The truth is elsewhere: a resize is passed on, and the other
//! server tells of every change, whoever made it. Its news come on the connection of the disk, so whoever waits for a
//! change receives them, for all.

use client::{RemoteDisk, SizeNews};
use disk::{Disk, Errno, Error, Facts, Io, Result, resize::Resizing};
use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

/// The disk of a connection to a server that offers RESIZE.
pub(super) struct Shared {
    disk: Arc<RemoteDisk>,
    bytes: AtomicU64,
    /// One opens or resizes at a time, so that nothing shrinks under one who is just opening it.
    turn: async_lock::Mutex<()>,
    state: Mutex<State>,
    waiting: Arc<Waiting>,
}

struct State {
    /// So many have the disk open through this connection.
    users: usize,
    /// Counts the changes, from 1 on.
    changes: u64,
    last_number: u64,
    news: News,
}

enum News {
    NotAsked,
    Asked(SizeNews),
    /// There will be no more, because of this.
    Ended(Error),
}

/// Who waits for the next change; each has a number of its own. The connection wakes all of them.
#[derive(Default)]
struct Waiting(Mutex<Vec<(u64, Waker)>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Waiting {
    fn add(&self, number: u64, waker: &Waker) {
        let mut list = lock(&self.0);
        match list.iter_mut().find(|(n, _)| *n == number) {
            Some((_, old)) => old.clone_from(waker),
            None => list.push((number, waker.clone())),
        }
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        let list = std::mem::take(&mut *lock(&self.0));
        list.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

impl Shared {
    /// Of a connection that nobody uses yet.
    pub(super) fn new(disk: Arc<RemoteDisk>) -> Arc<Shared> {
        let state = State { users: 0, changes: 1, last_number: 0, news: News::NotAsked };
        Arc::new(Shared {
            bytes: AtomicU64::new(disk.size()),
            disk,
            turn: async_lock::Mutex::new(()),
            state: Mutex::new(state),
            waiting: Arc::default(),
        })
    }

    /// Somebody opens it.
    pub(super) async fn open(self: &Arc<Self>) -> Resizable {
        let _turn = self.turn.lock().await;
        if lock(&self.state).users == 0 {
            // While nobody had it open, nobody received the news.
            let _ = poll_fn(|cx| Poll::Ready(self.poll(0, u64::MAX, cx))).await;
            reactor::sleep(Duration::from_millis(1)).await;
            let _ = poll_fn(|cx| Poll::Ready(self.poll(0, u64::MAX, cx))).await;
        }
        lock(&self.state).users += 1;
        let facts = Facts { size: self.bytes.load(Relaxed), ..self.disk.facts().clone() };
        Resizable { facts, next: self.disk.clone(), shared: self.clone() }
    }

    /// The disk has this size now.
    fn note(&self, state: &mut State, size: u64) {
        if self.bytes.swap(size, Relaxed) != size {
            state.changes += 1;
            self.waiting.clone().wake();
        }
    }

    fn poll(&self, number: u64, seen: u64, cx: &mut Context<'_>) -> Poll<Result<(u64, u64)>> {
        // Before looking, so that nothing slips through.
        self.waiting.add(number, cx.waker());
        let mut state = lock(&self.state);
        if let News::NotAsked = state.news {
            state.news = match self.disk.listen_to_size() {
                Ok(news) => News::Asked(news),
                Err(e) => News::Ended(e),
            };
        }
        let all = Waker::from(self.waiting.clone());
        let mut all = Context::from_waker(&all);
        while let News::Asked(news) = &state.news
            && let Poll::Ready(told) = self.disk.poll_size(news, &mut all)
        {
            match told {
                Ok(size) => self.note(&mut state, size),
                Err(e) => {
                    state.news = News::Ended(e);
                    self.waiting.clone().wake();
                }
            }
        }
        match &state.news {
            _ if seen < state.changes => Poll::Ready(Ok((self.bytes.load(Relaxed), state.changes))),
            News::Ended(e) => Poll::Ready(Err(e.duplicate())),
            _ => Poll::Pending,
        }
    }
}

/// A disk whose size another server changes, as somebody opened it.
pub(super) struct Resizable {
    /// With the size as it was when this was made.
    facts: Facts,
    next: Arc<RemoteDisk>,
    shared: Arc<Shared>,
}

impl Drop for Resizable {
    fn drop(&mut self) {
        lock(&self.shared.state).users -= 1;
    }
}

/// Who waits for a change is forgotten when it waits no longer.
struct Turn<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.shared.waiting.0).retain(|(number, _)| *number != self.number);
    }
}

impl Resizing for Resizable {
    fn size(&self) -> u64 {
        self.shared.bytes.load(Relaxed)
    }

    fn resize(&self, to: u64) -> Io<'_, u64> {
        if !self.facts.write {
            return Error::new(Errno::PERM, "a disk that is only read cannot be resized").into();
        }
        let shared = &self.shared;
        Io::later(async move {
            let _turn = shared.turn.lock().await;
            // The other server takes all who share a connection for one.
            if to < self.size() && lock(&shared.state).users > 1 {
                let why = "the disk cannot shrink while another client has it open";
                return Err(Error::new(Errno::PERM, why));
            }
            let size = self.next.resize(to).await?;
            shared.note(&mut lock(&shared.state), size);
            Ok(size)
        })
    }

    fn changed(&self, seen: u64) -> Io<'_, (u64, u64)> {
        let mut state = lock(&self.shared.state);
        state.last_number += 1;
        let turn = Turn { shared: &self.shared, number: state.last_number };
        drop(state);
        Io::later(poll_fn(move |cx| turn.shared.poll(turn.number, seen, cx)))
    }

    fn is_followed(&self) -> bool {
        true
    }
}

impl Disk for Resizable {
    disk::forward!(next: next, read, write, zero, trim, flush, cache, extents, status);
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn resizing(&self) -> Option<&dyn Resizing> {
        Some(self)
    }
}
