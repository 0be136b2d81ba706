//! Callbacks: Python functions that the handle calls while it is pumped.

use client::handle::{ChunkFn, CommandFn, ContextFn, DebugFn, ExtentFn, ListFn};
use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    sync::PyOnceLock,
    types::{PyBool, PyBytes, PyInt, PyList, PyMemoryView, PyTuple, PyType},
};

/// Something to be called.
pub(crate) struct Callback(Py<PyAny>);

impl<'py> FromPyObject<'_, 'py> for Callback {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match object.is_callable() {
            true => Ok(Callback(object.to_owned().unbind())),
            false => Err(PyTypeError::new_err(format!("a callback is not callable: {object:?}"))),
        }
    }
}

/// An `int` of C that both sides see: what it holds is `.value`.
fn c_int<'py>(py: Python<'py>, number: i32) -> PyResult<Bound<'py, PyAny>> {
    static C_INT: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    C_INT.import(py, "ctypes", "c_int")?.call1((number,))
}

impl Callback {
    /// Calls it. A number that it returns counts, anything else is 0; an exception is shown, and is -1.
    fn call<'py>(&self, py: Python<'py>, arguments: PyResult<Bound<'py, PyTuple>>) -> i32 {
        let result = arguments.and_then(|arguments| self.0.bind(py).call1(arguments));
        match result {
            Ok(result) if result.is_instance_of::<PyBool>() || result.is_instance_of::<PyInt>() => {
                result.extract().unwrap_or(0)
            }
            Ok(_) => 0,
            Err(e) => {
                e.print(py);
                -1
            }
        }
    }

    /// Calls it with an error number as its last argument, which it may change.
    fn call_with_errno<'py>(
        &self,
        py: Python<'py>,
        errno: &mut i32,
        arguments: impl FnOnce(Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>>,
    ) -> i32 {
        let number = match c_int(py, *errno) {
            Ok(number) => number,
            Err(e) => {
                e.print(py);
                return -1;
            }
        };
        let outcome = self.call(py, arguments(number.clone()));
        *errno = number.getattr("value").and_then(|value| value.extract()).unwrap_or(*errno);
        outcome
    }

    pub(crate) fn chunk(self) -> ChunkFn {
        Box::new(move |bytes, offset, status, errno| {
            Python::attach(|py| {
                self.call_with_errno(py, errno, |number| {
                    // A copy: it stays as it is, however long somebody keeps it.
                    let view = PyMemoryView::from(&PyBytes::new(py, bytes))?;
                    (view, offset, status, number).into_pyobject(py)
                })
            })
        })
    }

    /// For extents as one flat list: length, status, length, status ...
    pub(crate) fn extent(self) -> ExtentFn {
        Box::new(move |context, offset, extents, errno| {
            Python::attach(|py| {
                self.call_with_errno(py, errno, |number| {
                    let flat = extents.iter().flat_map(|extent| [extent.length, extent.status]);
                    let flat = PyList::new(py, flat.collect::<Vec<u64>>())?;
                    (context, offset, flat, number).into_pyobject(py)
                })
            })
        })
    }

    /// For extents as pairs of length and status.
    pub(crate) fn extent_64(self) -> ExtentFn {
        Box::new(move |context, offset, extents, errno| {
            Python::attach(|py| {
                self.call_with_errno(py, errno, |number| {
                    let pairs = extents.iter().map(|extent| (extent.length, extent.status));
                    let pairs = PyList::new(py, pairs.collect::<Vec<(u64, u64)>>())?;
                    (context, offset, pairs, number).into_pyobject(py)
                })
            })
        })
    }

    pub(crate) fn completion(self) -> CommandFn {
        Box::new(move |errno| {
            Python::attach(|py| self.call_with_errno(py, errno, |number| (number,).into_pyobject(py)))
        })
    }

    pub(crate) fn list(self) -> ListFn {
        Box::new(move |name, description| {
            Python::attach(|py| self.call(py, (name, description).into_pyobject(py)))
        })
    }

    pub(crate) fn context(self) -> ContextFn {
        Box::new(move |name| Python::attach(|py| self.call(py, (name,).into_pyobject(py))))
    }

    pub(crate) fn debug(self) -> DebugFn {
        Box::new(move |context, message| {
            Python::attach(|py| self.call(py, (context, message).into_pyobject(py)));
        })
    }
}

/// The completion, if there is one.
pub(crate) fn completion(callback: Option<Callback>) -> Option<CommandFn> {
    callback.map(Callback::completion)
}
