//! The class `NBD`: a handle that threads share, and what every call has in common.

use client::handle::{Fault, Handle, LastState, Outcome, State, fault::errno};
use pyo3::{prelude::*, sync::PyOnceLock, types::PyType};
use std::{
    cell::Cell,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// A connection to an NBD server, to be made with one of the calls `connect_...`. Settings come before.
///
/// Every call of libnbd is a method here; those that begin with `aio_` return at once, and the handle is then pumped:
/// with poll(), or with aio_get_fd() and aio_notify_read() or aio_notify_write() in a loop of one's own.
#[pyclass(subclass, weakref, dict, name = "NBD", module = "nbd")]
pub(crate) struct Nbd {
    handle: Option<Mutex<Handle>>,
    last_state: LastState,
    /// The thread that uses the handle now; 0 is none.
    owner: AtomicU64,
    private_data: AtomicU64,
    /// What a signal's handler has raised while the handle waited.
    raised: Arc<Mutex<Option<PyErr>>>,
}

/// A number for this thread, never 0.
fn this_thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static NUMBER: Cell<u64> = Cell::new(NEXT.fetch_add(1, Relaxed));
    }
    NUMBER.with(Cell::get)
}

/// Gives the handle up again, also when a call panics.
struct Owned<'a>(&'a AtomicU64);

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        self.0.store(0, Relaxed);
    }
}

impl Nbd {
    pub(crate) fn new() -> Nbd {
        let raised = Arc::<Mutex<Option<PyErr>>>::default();
        let mut handle = Handle::new();
        let keep = raised.clone();
        // Handlers of signals run when they come, as in all calls of Python that wait; if one raises, the wait is over.
        handle.set_interrupt(Box::new(move || match Python::attach(|py| py.check_signals()) {
            Ok(()) => false,
            Err(e) => {
                *keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                true
            }
        }));
        let (owner, private_data) = Default::default();
        let last_state = handle.last_state();
        Nbd { handle: Some(Mutex::new(handle)), last_state, owner, private_data, raised }
    }

    /// Do something with the handle, without the interpreter's lock. A failure is raised as `nbd.Error`.
    pub(crate) fn with<T: Send>(
        &self,
        py: Python<'_>,
        call: &'static str,
        work: impl FnOnce(&mut Handle) -> Outcome<T> + Send,
    ) -> PyResult<T> {
        let Some(handle) = &self.handle else { return Err(raise(py, call, &Fault::invalid("it is gone"))) };
        let outcome = py.detach(|| {
            let me = this_thread();
            if self.owner.load(Relaxed) == me {
                return Err(Fault::new(errno::EDEADLK, "a callback cannot use the handle that calls it"));
            }
            let mut handle = handle.lock().unwrap_or_else(PoisonError::into_inner);
            self.owner.store(me, Relaxed);
            let _owned = Owned(&self.owner);
            handle.say(call, || "enter".into());
            let outcome = work(&mut handle);
            handle.say(call, || match &outcome {
                Ok(_) => "leave".into(),
                Err(fault) => format!("leave: {fault}"),
            });
            outcome
        });
        outcome.map_err(|fault| {
            let raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner).take();
            raised.unwrap_or_else(|| raise(py, call, &fault))
        })
    }

    /// The state, also for callbacks and while another thread waits in a call.
    pub(crate) fn state(&self) -> State {
        match self.handle.as_ref().map(Mutex::try_lock) {
            Some(Ok(handle)) => handle.state(),
            _ => self.last_state.get(),
        }
    }

    pub(crate) fn swap_private_data(&self, data: u64) -> u64 {
        self.private_data.swap(data, Relaxed)
    }

    pub(crate) fn private_data(&self) -> u64 {
        self.private_data.load(Relaxed)
    }
}

impl Drop for Nbd {
    /// A server that was started may take its time to end: others go on meanwhile.
    fn drop(&mut self) {
        let mut handle = self.handle.take();
        // While Python itself ends, there are no others.
        let _ = Python::try_attach(|py| py.detach(|| drop(handle.take())));
    }
}

/// The exception `nbd.Error`.
pub(crate) fn raise(py: Python<'_>, call: &str, fault: &Fault) -> PyErr {
    static ERROR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    match ERROR.import(py, "nbd._error", "Error") {
        Ok(class) => PyErr::from_type(class.clone(), (format!("{call}: {fault}"), fault.errno)),
        Err(e) => e,
    }
}

/// Methods that are a call to the handle each. Their names are libnbd's without its prefix.
macro_rules! calls {
    ($(
        $(#[$meta:meta])*
        fn $name:ident($handle:ident $(, $(#[$how:meta])* $arg:ident: $type:ty)* $(,)?) -> $result:ty { $($body:tt)* }
    )*) => {
        #[pyo3::pymethods]
        impl $crate::handle::Nbd {
            $(
                $(#[$meta])*
                #[allow(clippy::too_many_arguments)] // libnbd's
                fn $name(&self, py: pyo3::Python<'_> $(, $(#[$how])* $arg: $type)*) -> pyo3::PyResult<$result> {
                    let call = concat!("nbd_", stringify!($name));
                    self.with(
                        py,
                        call,
                        move |$handle: &mut client::handle::Handle| -> client::handle::Outcome<$result> { $($body)* },
                    )
                }
            )*
        }
    };
}
pub(crate) use calls;
