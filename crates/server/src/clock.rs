//! How long a client has kept its handshake waiting: the time that the server itself needs (a backend that serves one
//! client at a time has others wait) does not count.

use disk::{Backend, Client, Disk, Export, Io, Result};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The clock of one handshake.
pub(crate) struct Clock(Mutex<State>);

enum State {
    /// The client's turn since then; it has used up so much in earlier turns.
    Runs { since: Instant, used: Duration },
    /// The server's turn.
    Stands { used: Duration },
    /// The handshake is over.
    Over,
    /// The handshake was cut off.
    RanOut,
}

impl Clock {
    /// It runs.
    pub(crate) fn new() -> Self {
        Clock(Mutex::new(State::Runs { since: Instant::now(), used: Duration::ZERO }))
    }

    /// What the client may still take out of `limit`; `None` when it is not waited for.
    pub(crate) fn left(&self, limit: Duration) -> Option<Duration> {
        match *self.state() {
            State::Runs { since, used } => Some(limit.saturating_sub(used + since.elapsed())),
            State::Stands { .. } | State::Over | State::RanOut => None,
        }
    }

    /// Whether the handshake is still under way.
    pub(crate) fn is_over(&self) -> bool {
        matches!(*self.state(), State::Over | State::RanOut)
    }

    /// The handshake took too long.
    pub(crate) fn run_out(&self) {
        *self.state() = State::RanOut;
    }

    /// Whether it did.
    pub(crate) fn has_run_out(&self) -> bool {
        matches!(*self.state(), State::RanOut)
    }

    /// The handshake has ended.
    pub(crate) fn end(&self) {
        *self.state() = State::Over;
    }

    /// The clock stands until the value is dropped.
    fn stand(&self) -> Standing<'_> {
        let mut state = self.state();
        if let State::Runs { since, used } = *state {
            *state = State::Stands { used: used + since.elapsed() };
        }
        Standing(self)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Standing<'a>(&'a Clock);

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if let State::Stands { used } = *state {
            *state = State::Runs { since: Instant::now(), used };
        }
    }
}

/// A backend whose work does not count as the client's time.
pub(crate) struct Timed<'b> {
    pub(crate) clock: &'b Clock,
    pub(crate) next: &'b dyn Backend,
}

impl Timed<'_> {
    fn stand<'a, T: Send + 'a>(&'a self, call: impl FnOnce() -> Io<'a, T> + Send + 'a) -> Io<'a, T> {
        let standing = self.clock.stand();
        match call() {
            Io::Ready(done) => done.into(),
            later => Io::later(async move {
                let _standing = standing;
                later.await
            }),
        }
    }
}

impl Backend for Timed<'_> {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.stand(move || self.next.open(client))
    }
    fn exports<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Vec<Export>> {
        self.stand(move || self.next.exports(client))
    }
    fn default_export<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Option<String>> {
        self.stand(move || self.next.default_export(client))
    }
    fn preconnect<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, ()> {
        self.stand(move || self.next.preconnect(client))
    }
    fn get_ready(&self) -> Result<()> {
        self.next.get_ready()
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_clients_time_counts() {
        let clock = Clock::new();
        let limit = Duration::from_secs(60);
        assert!(clock.left(limit).unwrap() > Duration::from_secs(50));
        assert_eq!(clock.left(Duration::ZERO), Some(Duration::ZERO));
        let standing = clock.stand();
        assert_eq!(clock.left(limit), None);
        assert!(!clock.is_over());
        drop(standing);
        assert!(clock.left(limit).is_some());
        clock.end();
        drop(clock.stand());
        assert!(clock.is_over() && clock.left(limit).is_none());
    }
}
