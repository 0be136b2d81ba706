//! `exitwhen`: the server ends after an event outside of it.

mod event;

use disk::{Backend, Client, Disk, Errno, Error, Filter, Io, Result, Wish};
use event::Event;
use params::{Delay, Params};
use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Looks are no closer to each other, whatever is asked for.
const SOONEST: Duration = Duration::from_millis(1);

/// End the server after an event: a file comes or goes, a process or a pipe ends, a script says so.
///
/// Each of the events may be given many times; the first one counts.
#[derive(Default, Params)]
pub(crate) struct ExitWhen {
    /// End when this file exists.
    exit_when_file_created: Vec<PathBuf>,
    /// End when this file does not exist.
    exit_when_file_deleted: Vec<PathBuf>,
    /// End when the other end of this inherited pipe (or socket) has been closed: the number of a descriptor.
    #[param(alias = "exit-when-fd-closed", placeholder = "FD")]
    exit_when_pipe_closed: Vec<i32>,
    /// End when the process with this number has ended.
    #[param(placeholder = "PID")]
    exit_when_process_exits: Vec<i32>,
    /// End when this shell command ends with exit code 88. With 0 it says that it is too early.
    #[param(placeholder = "COMMAND")]
    exit_when_script: Vec<String>,
    /// How often to look for events while no client is connected.
    #[param(default = "60")]
    exit_when_poll: Delay,
}

impl Filter for ExitWhen {
    const NAME: &'static str = "exitwhen";
    const MANUAL: &'static str = include_str!("exitwhen.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        if let Some(pid) = self.exit_when_process_exits.iter().find(|pid| **pid < 1) {
            return Err(Error::invalid(format!("exit-when-process-exits={pid}: no process has that number")));
        }
        Ok(Watching { shared: Arc::new(Shared { params: self, ..Shared::default() }), next })
    }
}

struct Watching {
    shared: Arc<Shared>,
    next: Arc<dyn Backend>,
}

#[derive(Default)]
struct Shared {
    params: ExitWhen,
    state: Mutex<State>,
    /// The last client has gone, or the server ends.
    idle: Condvar,
    /// One look at a time: scripts are not made to run beside themselves.
    events: Mutex<Vec<Event>>,
}

#[derive(Default)]
struct State {
    end: Wish,
    here: HashSet<u64>,
    /// An event has happened: nobody is let in any more.
    happened: bool,
    finished: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an event has happened, now or before. May take as long as a script does.
    fn look(&self) -> bool {
        if self.state().happened {
            return true;
        }
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let happened = events.iter_mut().any(Event::has_happened);
        self.state().happened |= happened;
        happened
    }

    /// Looks, and ends the server if nobody is connected.
    fn look_and_end(&self) {
        let happened = self.look();
        let state = self.state();
        if happened && state.here.is_empty() {
            state.end.make();
        }
    }

    /// Looks now and then while nobody is connected: who comes and goes looks as well.
    fn watch(&self) {
        loop {
            let idle = self.state().here.is_empty();
            if idle {
                self.look_and_end();
            }
            let state = self.state();
            if state.finished || (state.happened && state.here.is_empty()) {
                return;
            }
            let pause = self.params.exit_when_poll.duration().max(SOONEST);
            drop(self.idle.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl Backend for Watching {
    fn hosted(&self, end: &Wish) {
        self.shared.state().end = end.clone();
        self.next.hosted(end);
    }
    fn get_ready(&self) -> Result<()> {
        self.next.get_ready()?;
        // Inherited descriptors can be taken only once.
        let mut events = self.shared.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.is_empty() {
            *events = event::all(&self.shared.params)?;
        }
        Ok(())
    }
    fn after_fork(&self) -> Result<()> {
        self.next.after_fork()?;
        if self.shared.events.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            return Ok(());
        }
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().name("exitwhen".into()).spawn(move || shared.watch());
        thread.map(drop).map_err(|e| Error::from(e).context("starting a thread"))
    }
    fn preconnect<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, ()> {
        Io::later(async move {
            let shared = self.shared.clone();
            if reactor::unblock(move || shared.look()).await? {
                return Err(Error::new(Errno::SHUTDOWN, "the server is about to end (filter exitwhen)"));
            }
            self.shared.state().here.insert(client.connection);
            self.next.preconnect(client).await
        })
    }
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.next.open(client)
    }
    fn disconnected(&self, connection: u64) {
        self.next.disconnected(connection);
        self.shared.state().here.remove(&connection);
        self.shared.look_and_end();
        self.shared.idle.notify_all();
    }
    fn finish(&self) {
        self.shared.state().finished = true;
        self.shared.idle.notify_all();
        self.next.finish();
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

#[cfg(test)]
mod tests;
