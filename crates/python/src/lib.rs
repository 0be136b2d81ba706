//! The Python module `nbd`, drop-in for libnbd's: its native half.
//!
//! The class here is [`client::handle::Handle`] call by call: arguments in, errors out, and nothing else. What is
//! pythonic (buffers, contexts, `await`) is Python, in `python/nbd`. Calls wait without the interpreter's lock, and take
//! it back for callbacks.
#![deny(unsafe_code)]

mod aio;
mod arguments;
mod callback;
mod connect;
mod constants;
mod facts;
mod handle;
#[allow(unsafe_code)]
mod memory;
mod options;
mod requests;
mod settings;

use pyo3::prelude::*;

#[pymodule]
fn _nbd(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<handle::Nbd>()?;
    module.add_function(wrap_pyfunction!(memory::is_zero, module)?)?;
    constants::add(module)
}
