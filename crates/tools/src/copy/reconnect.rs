//! A server that is connected to again when the connection is lost.
//!
//! Requests that were not answered are made again. What was written since the last flush may be lost with the server,
//! so it is remembered, and after a loss it is to be copied once more.

use crate::copy::{pace::NAP, ranges::Ranges, stop::Stop};
use async_lock::Mutex as Turn;
use client::{Connector, RemoteDisk};
use disk::{Data, Disk, Errno, Error, Extents, Facts, Io, Range, Result, Status, WriteFlags, ZeroFlags};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Before the first attempt to connect again; each further one waits twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How often to try again, and whom to ask whether to go on.
#[derive(Clone)]
pub(crate) struct Patience {
    /// Attempts for each request.
    pub(crate) attempts: u32,
    pub(crate) stop: Stop,
    /// What errors and news call the program.
    pub(crate) program: String,
}

impl Patience {
    fn pause(number: u32) -> Duration {
        FIRST_PAUSE.saturating_mul(1u32.checked_shl(number - 1).unwrap_or(u32::MAX)).min(LONGEST_PAUSE)
    }

    /// Opens an export, as often as it takes.
    ///
    /// # Errors
    /// What the last attempt failed for.
    pub(crate) fn open(&self, connector: &Connector) -> Result<RemoteDisk> {
        let mut attempts = 0;
        loop {
            let failed = match connector.open() {
                Ok(disk) => return Ok(disk),
                Err(e) => e,
            };
            attempts += 1;
            if attempts > self.attempts {
                return Err(failed);
            }
            if attempts == 1 {
                eprintln!("{}: {failed}; connecting again", self.program);
            }
            reactor::block_on(self.wait(attempts))?;
        }
    }

    /// Waits for the time that attempt `number`, from 1, is due.
    async fn wait(&self, number: u32) -> Result<()> {
        let mut left = Patience::pause(number);
        while !left.is_zero() {
            if self.stop.asked() {
                return Err(Error::io("interrupted while the server was away"));
            }
            let nap = left.min(NAP);
            reactor::sleep(nap).await;
            left -= nap;
        }
        Ok(())
    }
}

/// An export over one connection after the other.
pub(crate) struct Reconnecting {
    connector: Connector,
    patience: Patience,
    facts: Facts,
    /// Locked for a moment by each request.
    current: Mutex<Current>,
    /// Whoever connects; others that failed at the same time wait for that.
    connecting: Turn<()>,
}

struct Current {
    /// `None` while there is none.
    disk: Option<Arc<RemoteDisk>>,
    /// Counts connections.
    number: u64,
    /// Written over this connection, and not flushed since.
    unflushed: Ranges,
    /// Written over earlier ones, and perhaps lost with them.
    lost: Ranges,
}

impl Reconnecting {
    pub(crate) fn new(connector: Connector, disk: RemoteDisk, patience: Patience) -> Reconnecting {
        let facts = disk.facts().clone();
        let (unflushed, lost) = (Ranges::new(), Ranges::new());
        let current = Mutex::new(Current { disk: Some(Arc::new(disk)), number: 0, unflushed, lost });
        Reconnecting { connector, patience, facts, current, connecting: Turn::new(()) }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What must be written again.
    pub(crate) fn lost(&self) -> Ranges {
        self.current().lost.clone()
    }

    /// These are going to be written again.
    pub(crate) fn take_lost(&self) -> Ranges {
        std::mem::take(&mut self.current().lost)
    }

    /// Makes a request, over as many connections as it takes. Returns also over which it was answered.
    async fn attempt<T: Send>(
        &self,
        call: impl for<'d> Fn(&'d RemoteDisk) -> Io<'d, T> + Send + Sync,
    ) -> Result<(T, u64)> {
        let mut attempts = 0;
        loop {
            let (disk, number) = {
                let current = self.current();
                (current.disk.clone(), current.number)
            };
            let failed = match disk {
                Some(disk) => match call(&disk).await {
                    Ok(answer) => return Ok((answer, number)),
                    Err(e) => match disk.error() {
                        Some(lost) => lost,
                        // It is about to leave, and says so.
                        None if e.errno() == Errno::SHUTDOWN => e,
                        None => return Err(e),
                    },
                },
                None => Error::io("the server has gone away"),
            };
            attempts += 1;
            if attempts > self.patience.attempts || self.patience.stop.asked() {
                return Err(failed);
            }
            self.lose(number, &failed);
            self.patience.wait(attempts).await?;
            self.connect(number).await?;
        }
    }

    /// The connection of this number is no more.
    fn lose(&self, number: u64, why: &Error) {
        let mut current = self.current();
        if current.number != number || current.disk.is_none() {
            return;
        }
        current.disk = None;
        let unflushed = std::mem::take(&mut current.unflushed);
        current.lost.add_all(&unflushed);
        let name = self.connector.address().map(ToString::to_string).unwrap_or_default();
        eprintln!("{}: {name}: {why}; connecting again", self.patience.program);
    }

    /// Connects again, unless that was done since the connection had this number.
    ///
    /// # Errors
    /// What is there now is another disk. (That nothing is there is no error: it may come.)
    async fn connect(&self, number: u64) -> Result<()> {
        let _turn = self.connecting.lock().await;
        {
            let current = self.current();
            if current.number != number || current.disk.is_some() {
                return Ok(());
            }
        }
        let Ok(disk) = self.connector.connect().await else { return Ok(()) };
        let disk = self.same(disk)?;
        let mut current = self.current();
        current.disk = Some(Arc::new(disk));
        current.number += 1;
        Ok(())
    }

    /// What was decided in view of the first connection must hold for the others.
    fn same(&self, disk: RemoteDisk) -> Result<RemoteDisk> {
        let (was, is) = (&self.facts, disk.facts());
        let wrong = if was.size != is.size {
            format!("has {} bytes now, and had {}", is.size, was.size)
        } else if was.blocks != is.blocks || was.contexts != is.contexts || was.extents && !is.extents {
            "describes itself in another way now".into()
        } else if was.write && !is.write || was.zero && !is.zero || was.flush && !is.flush {
            "can do less than it could".into()
        } else {
            return Ok(disk);
        };
        Err(Error::io(format!("the server came back with another disk: it {wrong}")))
    }

    /// A write, and what it leaves to be flushed.
    async fn change(
        &self,
        range: Range,
        call: impl for<'d> Fn(&'d RemoteDisk) -> Io<'d, ()> + Send + Sync,
    ) -> Result<()> {
        let ((), number) = self.attempt(call).await?;
        let mut current = self.current();
        // An answer may have waited here while the connection that it came over ended.
        match current.number == number && current.disk.is_some() {
            true => current.unflushed.add(range),
            false => current.lost.add(range),
        }
        Ok(())
    }

    async fn flush_all(&self) -> Result<()> {
        loop {
            let (before, number) = {
                let current = self.current();
                (current.unflushed.clone(), current.number)
            };
            let ((), answered) = self.attempt(|disk| disk.flush()).await?;
            let mut current = self.current();
            if current.number == answered && answered == number {
                current.unflushed.remove_all(&before);
                return Ok(());
            }
            // What had been written is known to be lost by now. The rest is flushed over the new connection.
        }
    }
}

impl Disk for Reconnecting {
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, range: Range) -> Io<'_, Data> {
        Io::later(async move { Ok(self.attempt(move |disk| disk.read(range)).await?.0) })
    }
    fn write(&self, at: u64, data: Data, flags: WriteFlags) -> Io<'_, ()> {
        let range = Range::new(at, data.len());
        Io::later(self.change(range, move |disk| disk.write(at, data.clone(), flags)))
    }
    fn zero(&self, range: Range, flags: ZeroFlags) -> Io<'_, ()> {
        Io::later(self.change(range, move |disk| disk.zero(range, flags)))
    }
    fn trim(&self, range: Range, flags: WriteFlags) -> Io<'_, ()> {
        Io::later(self.change(range, move |disk| disk.trim(range, flags)))
    }
    fn flush(&self) -> Io<'_, ()> {
        Io::later(self.flush_all())
    }
    fn extents(&self, range: Range, limit: usize) -> Io<'_, Extents> {
        Io::later(async move { Ok(self.attempt(move |disk| disk.extents(range, limit)).await?.0) })
    }
    fn status(&self, context: usize, range: Range, limit: usize) -> Io<'_, Vec<Status>> {
        Io::later(async move { Ok(self.attempt(move |disk| disk.status(context, range, limit)).await?.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_stay_bearable() {
        assert_eq!(Patience::pause(1), Duration::from_millis(100));
        assert_eq!(Patience::pause(4), Duration::from_millis(800));
        assert_eq!(Patience::pause(40), Duration::from_secs(10));
    }
}
