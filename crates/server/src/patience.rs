//! How long a silent client keeps its connection, and the memory of it.

use crate::transmit::Broken;
use net::Stream;
use std::{
    io,
    time::{Duration, Instant},
};

/// A client that says nothing for so long is resting.
const REST: Duration = Duration::from_secs(1);

/// Receives that wait fail with `WouldBlock` after a tick without a byte; this counts the ticks.
pub(crate) struct Patience {
    /// How long a client may be silent.
    limit: Option<Duration>,
    tick: Duration,
    silent_since: Option<Instant>,
}

impl Patience {
    pub(crate) fn new(stream: &Stream, limit: Option<Duration>) -> io::Result<Self> {
        let tick = limit.unwrap_or(REST).min(REST);
        stream.set_recv_timeout(Some(tick))?;
        if limit.is_some() {
            stream.set_send_timeout(limit)?;
        }
        Ok(Patience { limit, tick, silent_since: None })
    }

    /// How long a client may be silent.
    pub(crate) fn limit(&self) -> Option<Duration> {
        self.limit
    }

    /// Something came.
    #[inline]
    pub(crate) fn heard(&mut self) {
        self.silent_since = None;
    }

    /// A tick has passed in silence.
    pub(crate) fn silence(&mut self) -> Result<(), Broken> {
        let now = Instant::now();
        let since = *self.silent_since.get_or_insert(now - self.tick);
        match self.limit {
            Some(limit) if now - since >= limit => Err(Broken::Idle),
            _ => Ok(()),
        }
    }

    /// Receives without ticks, so that a thousand resting clients cost no time.
    pub(crate) fn while_resting(
        &self,
        stream: &Stream,
        receive: impl FnOnce() -> io::Result<usize>,
    ) -> io::Result<usize> {
        stream.set_recv_timeout(self.limit.map(|limit| (limit - self.tick).max(Duration::from_millis(1))))?;
        let received = receive();
        stream.set_recv_timeout(Some(self.tick))?;
        received
    }
}
