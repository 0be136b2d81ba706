//! Sees to it, while a copy goes on, that little of it can be lost: flushes the destination from time to time, and notes
//! in a checkpoint what is safe.

use crate::copy::{checkpoint::Checkpoint, engine::Lane, ranges::Ranges, watch::Watch};
use anyhow::{Context, Result};
use disk::Error;
use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// One copy's.
pub(crate) struct Keeper<'a> {
    lanes: &'a [Lane],
    watch: &'a Watch,
    interval: Duration,
    /// Where to note it, and what besides.
    checkpoint: Option<(PathBuf, Checkpoint)>,
    /// What was noted last.
    safe: Mutex<Ranges>,
    /// Whether nothing is to be noted any more. Locked while something is: that goes on when its future is dropped.
    closed: Arc<Mutex<bool>>,
}

impl<'a> Keeper<'a> {
    pub(crate) fn new(
        lanes: &'a [Lane],
        watch: &'a Watch,
        interval: Duration,
        checkpoint: Option<(PathBuf, Checkpoint)>,
    ) -> Keeper<'a> {
        let safe = checkpoint.as_ref().map(|(_, checkpoint)| checkpoint.done()).unwrap_or_default();
        Keeper { lanes, watch, interval, checkpoint, safe: Mutex::new(safe), closed: Arc::default() }
    }

    /// Does so from time to time. Ends only when it fails.
    pub(crate) async fn keep(&self) -> Error {
        loop {
            reactor::sleep(self.interval).await;
            if self.watch.so_far() == *self.safe.lock().unwrap_or_else(PoisonError::into_inner) {
                continue;
            }
            if let Err(e) = self.save().await {
                return Error::io(format!("{e:#}"));
            }
        }
    }

    /// Does so now, even if nothing is new.
    ///
    /// # Errors
    /// The destination cannot be flushed, or the checkpoint not be written.
    pub(crate) async fn save(&self) -> Result<()> {
        // In this order: what is copied after the flush began is not safe yet.
        let mut done = self.watch.so_far();
        for lane in self.lanes.iter().filter(|lane| lane.to.facts().flush) {
            lane.to.flush().await.context("flushing the destination")?;
        }
        for link in self.lanes.iter().filter_map(|lane| lane.server.as_ref()) {
            done.remove_all(&link.lost());
        }
        if let Some((path, checkpoint)) = &self.checkpoint {
            let (path, mut checkpoint) = (path.clone(), checkpoint.clone());
            checkpoint.set_done(&done);
            let closed = self.closed.clone();
            let save = move || {
                let closed = closed.lock().unwrap_or_else(PoisonError::into_inner);
                if *closed { Ok(()) } else { checkpoint.save(&path) }
            };
            reactor::unblock(save).await.map_err(Error::from)??;
        }
        *self.safe.lock().unwrap_or_else(PoisonError::into_inner) = done;
        Ok(())
    }

    /// All is done: the checkpoint is removed, and does not come back.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(crate) fn remove(&self) -> Result<()> {
        let Some((path, _)) = &self.checkpoint else { return Ok(()) };
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(e).with_context(|| path.display().to_string())
            }
            _ => Ok(()),
        }
    }

    /// The copy ends early: what is safe now is safe, and there is a checkpoint even if that is nothing.
    ///
    /// # Errors
    /// As [`Keeper::save`].
    pub(crate) fn save_at_the_end(&self) -> Result<()> {
        reactor::block_on(self.save())
    }
}
