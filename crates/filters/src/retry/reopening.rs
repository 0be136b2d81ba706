//! The disk that one connection has, whichever disk below it is now.

use super::Retry;
use async_lock::Mutex as Turn;
use disk::{
    Backend, Client, Data, Disk, Errno, Error, Extents, Facts, Io, Range, Result, Status, WriteFlags,
    ZeroFlags,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who opens, kept for opening again.
pub(super) struct Asker {
    export: String,
    client: Client<'static>,
    next: Arc<dyn Backend>,
}

impl Asker {
    pub(super) fn new(client: &Client<'_>, next: Arc<dyn Backend>) -> Asker {
        Asker { export: client.export.to_owned(), client: client.asking_for(""), next }
    }

    /// Opens the disk below, or only to read it.
    pub(super) async fn open(&self, read_only: bool) -> Result<Arc<dyn Disk>> {
        let read_only = read_only || self.client.read_only;
        let client = Client { read_only, ..self.client.asking_for(&self.export) };
        self.next.open(&client).await
    }
}

/// The disk below that is used now.
#[derive(Clone)]
struct Current {
    disk: Option<Arc<dyn Disk>>,
    /// Counts how often it was opened.
    number: u64,
    read_only: bool,
}

pub(super) struct Reopening {
    params: Arc<Retry>,
    facts: Facts,
    asker: Asker,
    /// Locked for a moment by the requests of this connection.
    current: Mutex<Current>,
    /// Whoever opens it again; others that failed at the same time wait for that.
    opening: Turn<()>,
}

impl Reopening {
    pub(super) fn new(params: Arc<Retry>, asker: Asker, disk: Arc<dyn Disk>) -> Reopening {
        let facts = disk.facts().clone();
        let current = Mutex::new(Current { disk: Some(disk), number: 0, read_only: false });
        Reopening { params, facts, asker, current, opening: Turn::new(()) }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a request of the disk below, whichever it is, as often as it takes.
    async fn attempt<T: Send>(
        &self,
        changes: bool,
        call: impl for<'d> Fn(&'d dyn Disk) -> Io<'d, T> + Send + Sync,
    ) -> Result<T> {
        let mut attempts = 0;
        loop {
            let now = self.current().clone();
            let failed = match &now.disk {
                _ if changes && now.read_only => {
                    return Err(Error::new(
                        Errno::ROFS,
                        "the disk was opened again for reading only (retry-readonly)",
                    ));
                }
                Some(disk) => match call(&**disk).await {
                    Ok(answer) => return Ok(answer),
                    Err(e) => e,
                },
                None => Error::io("the disk could not be opened again"),
            };
            attempts += 1;
            let Some(pause) = self.params.pause(attempts) else { return Err(failed) };
            tracing::warn!(target: "diskpipe", "retry: opening the disk in {pause:?} again: {failed}");
            reactor::sleep(pause).await;
            self.reopen(now.number).await;
        }
    }

    /// Opens the disk below again, unless that was done since it had this number.
    async fn reopen(&self, number: u64) {
        let _turn = self.opening.lock().await;
        let old = {
            let mut current = self.current();
            if current.number != number {
                return;
            }
            current.number += 1;
            current.disk.take()
        };
        if let Some(old) = old {
            // What it has to say is known already.
            let _ = old.close().await;
        }
        let read_only = self.params.retry_readonly;
        match self.asker.open(read_only).await.and_then(|disk| self.same(disk, read_only)) {
            Ok(disk) => {
                let mut current = self.current();
                current.disk = Some(disk);
                current.read_only = read_only;
            }
            Err(e) => tracing::warn!(target: "diskpipe", "retry: the disk could not be opened again: {e}"),
        }
    }

    /// Clients know what the first one could: another one must do no less.
    fn same(&self, disk: Arc<dyn Disk>, read_only: bool) -> Result<Arc<dyn Disk>> {
        let (was, is) = (&self.facts, disk.facts());
        if was.size != is.size {
            return Err(Error::io(format!("it has {} bytes now, and had {}", is.size, was.size)));
        }
        let less = |was: bool, is: bool| was && !is;
        let writing = less(was.write, is.write)
            || less(was.flush, is.flush)
            || less(was.fua, is.fua)
            || less(was.trim, is.trim)
            || less(was.zero, is.zero)
            || less(was.fast_zero, is.fast_zero);
        let reading = less(was.cache, is.cache)
            || less(was.extents, is.extents)
            || was.contexts != is.contexts
            || is.blocks.minimum > was.blocks.minimum
            || is.blocks.maximum < was.blocks.maximum;
        if (writing && !read_only) || reading {
            return Err(Error::io("it can do less than it could"));
        }
        Ok(disk)
    }
}

impl Disk for Reopening {
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, r: Range) -> Io<'_, Data> {
        Io::later(self.attempt(false, move |disk| disk.read(r)))
    }
    fn write(&self, at: u64, data: Data, flags: WriteFlags) -> Io<'_, ()> {
        Io::later(self.attempt(true, move |disk| disk.write(at, data.clone(), flags)))
    }
    fn zero(&self, r: Range, flags: ZeroFlags) -> Io<'_, ()> {
        if !flags.fast {
            return Io::later(self.attempt(true, move |disk| disk.zero(r, flags)));
        }
        // That zeroing would be slow is an answer, not a failure.
        fn answered(io: Io<'_, ()>) -> Io<'_, Result<()>> {
            Io::later(async move {
                match io.await {
                    Err(e) if e.errno() == Errno::NOTSUP => Ok(Err(e)),
                    outcome => outcome.map(Ok),
                }
            })
        }
        let asked = self.attempt(true, move |disk| answered(disk.zero(r, flags)));
        Io::later(async move { asked.await? })
    }
    fn trim(&self, r: Range, flags: WriteFlags) -> Io<'_, ()> {
        Io::later(self.attempt(true, move |disk| disk.trim(r, flags)))
    }
    fn flush(&self) -> Io<'_, ()> {
        Io::later(self.attempt(true, move |disk| disk.flush()))
    }
    fn cache(&self, r: Range) -> Io<'_, ()> {
        Io::later(self.attempt(false, move |disk| disk.cache(r)))
    }
    fn extents(&self, r: Range, limit: usize) -> Io<'_, Extents> {
        Io::later(self.attempt(false, move |disk| disk.extents(r, limit)))
    }
    fn status(&self, context: usize, r: Range, limit: usize) -> Io<'_, Vec<Status>> {
        Io::later(self.attempt(false, move |disk| disk.status(context, r, limit)))
    }
    fn close(&self) -> Io<'_, ()> {
        let disk = self.current().disk.clone();
        Io::later(async move {
            match disk {
                Some(disk) => disk.close().await,
                None => Ok(()),
            }
        })
    }
}
