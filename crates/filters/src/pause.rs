//! `pause`: requests wait while somebody says so on a control socket.

mod control;

use crate::common::{
    control::Control,
    gate::{Gate, Passing},
};
use control::State;
use disk::{
    Around, Backend, Client, Disk, Error, Filter, Io, Result,
    shapes::{Op, around::EveryRequest},
};
use params::Params;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
        self.next
            .open(client)
            .map(|disk| Ok(Arc::new(Around::new(self.gate.passing(), disk)) as Arc<dyn Disk>))
    }
    fn get_ready(&self) -> Result<()> {
        self.next.get_ready()?;
        let mut control = self.control();
        if control.is_none() {
            let made = Control::open("pause", &self.path);
            *control = Some(
                made.map_err(|e| Error::from(e).context(format!("pause-control={}", self.path.display())))?,
            );
        }
        Ok(())
    }
    fn after_fork(&self) -> Result<()> {
        self.next.after_fork()?;
        match &mut *self.control() {
            Some(control) => {
                let (gate, state) = (self.gate.clone(), State::default());
                let start = control.start(move |stream| control::converse(stream, &gate, &state));
                start.map_err(|e| Error::from(e).context("starting a thread"))
            }
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
                let _way = self.wait().await;
                call().await
            }),
        }
    }
}

#[cfg(test)]
mod tests;
