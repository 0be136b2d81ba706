//! `pause`: requests wait while somebody says so on a control socket.

mod control;

use async_lock::{RwLock, RwLockWriteGuardArc};
use control::Control;
use disk::{
    Around, Backend, Client, Disk, Error, Filter, Io, Result,
    shapes::{Op, around::EveryRequest},
};
use params::Params;
use std::{
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

/// Pause requests, and let them go on, by a control socket.
#[derive(Params)]
pub(crate) struct Pause {
    /// The control socket, which is made when the server starts and removed when it ends.
    pause_control: PathBuf,
}

impl Filter for Pause {
    const NAME: &'static str = "pause";
    const MANUAL: &'static str = include_str!("pause.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        Ok(Pausing { path: self.pause_control, gate: Arc::default(), control: Mutex::default(), next })
    }
}

struct Pausing {
    path: PathBuf,
    gate: Arc<Gate>,
    control: Mutex<Option<Control>>,
    next: Arc<dyn Backend>,
}

impl Pausing {
    fn control(&self) -> MutexGuard<'_, Option<Control>> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Pausing {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.next.open(client).map(|disk| {
            let traffic = Arc::<AtomicUsize>::default();
            self.gate.members().push(Arc::downgrade(&traffic));
            Ok(Arc::new(Around::new(Passing { traffic, gate: self.gate.clone() }, disk)) as Arc<dyn Disk>)
        })
    }
    fn get_ready(&self) -> Result<()> {
        self.next.get_ready()?;
        let mut control = self.control();
        if control.is_none() {
            let made = Control::open(&self.path, self.gate.clone());
            *control = Some(
                made.map_err(|e| Error::from(e).context(format!("pause-control={}", self.path.display())))?,
            );
        }
        Ok(())
    }
    fn after_fork(&self) -> Result<()> {
        self.next.after_fork()?;
        match &mut *self.control() {
            Some(control) => control.start().map_err(|e| Error::from(e).context("starting a thread")),
            None => Ok(()),
        }
    }
    fn finish(&self) {
        // Its drop removes the socket.
        self.control().take();
        self.next.finish();
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

/// What requests pass.
#[derive(Default)]
struct Gate {
    closed: AtomicBool,
    /// Held for writing while the gate is closed; requests that wait for it to open want it for reading.
    lock: Arc<RwLock<()>>,
    /// Counts of the requests under way, one per connection: so they do not get into each other's way.
    members: Mutex<Vec<Weak<AtomicUsize>>>,
    /// Behind a closed gate, a request has come to its end.
    one_less: Condvar,
}

/// Keeps the gate closed.
struct Closed {
    gate: Arc<Gate>,
    _held: RwLockWriteGuardArc<()>,
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.gate.closed.store(false, SeqCst);
    }
}

impl Gate {
    fn members(&self) -> MutexGuard<'_, Vec<Weak<AtomicUsize>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets no more requests through, and waits for those that are.
    fn close(self: &Arc<Gate>) -> Closed {
        let held = self.lock.write_arc_blocking();
        // From here on, whoever comes sees it closed, or is seen in the counts.
        self.closed.store(true, SeqCst);
        let closed = Closed { gate: self.clone(), _held: held };
        let mut members = self.members();
        loop {
            members.retain(|member| member.strong_count() > 0);
            let busy = members.iter().filter_map(Weak::upgrade).any(|traffic| traffic.load(SeqCst) > 0);
            if !busy {
                return closed;
            }
            members = self.one_less.wait(members).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A connection's way through the gate.
struct Passing {
    traffic: Arc<AtomicUsize>,
    gate: Arc<Gate>,
}

/// Counts a request as long as it is under way.
struct OnItsWay<'a>(&'a Passing);

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        self.0.traffic.fetch_sub(1, SeqCst);
        if self.0.gate.closed.load(SeqCst) {
            // With the lock, so that it is not missed between the look and the wait.
            let _members = self.0.gate.members();
            self.0.gate.one_less.notify_all();
        }
    }
}

impl Passing {
    /// `None`: the gate is closed.
    fn enter(&self) -> Option<OnItsWay<'_>> {
        self.traffic.fetch_add(1, SeqCst);
        let way = OnItsWay(self);
        (!self.gate.closed.load(SeqCst)).then_some(way)
    }
}

impl EveryRequest for Passing {
    fn around<'a, T: Send + 'a>(&'a self, _: Op, call: impl FnOnce() -> Io<'a, T> + Send + 'a) -> Io<'a, T> {
        match self.enter() {
            Some(way) => match call() {
                Io::Later(io) => Io::later(async move {
                    let _way = way;
                    io.await
                }),
                ready => ready,
            },
            None => Io::later(async move {
                let _way = loop {
                    drop(self.gate.lock.read().await);
                    if let Some(way) = self.enter() {
                        break way;
                    }
                };
                call().await
            }),
        }
    }
}

#[cfg(test)]
mod tests;
