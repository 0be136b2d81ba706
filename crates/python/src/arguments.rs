//! Arguments with the manners of Python, and of the peer's module.

use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
    types::{PyBytes, PyList},
};
use std::{ffi::OsStr, ops::Deref, os::unix::ffi::OsStrExt, path::PathBuf};

/// The bits of 32 flags. A negative number, such as `~FLAG`, wraps, as in C, and is found to have unknown flags later.
pub(crate) fn bits(object: &Bound<'_, PyAny>) -> PyResult<u32> {
    match object.extract::<u32>() {
        Ok(number) => Ok(number),
        Err(e) => object.extract::<i32>().map(i32::cast_unsigned).map_err(|_| e),
    }
}

/// Texts end at a zero byte where they go.
fn whole(bytes: &[u8]) -> PyResult<()> {
    match bytes.contains(&0) {
        true => Err(PyValueError::new_err("a text cannot have a null character in it")),
        false => Ok(()),
    }
}

/// A text for the handle.
pub(crate) struct Text(pub(crate) String);

impl<'py> FromPyObject<'_, 'py> for Text {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let text: String = object.extract()?;
        whole(text.as_bytes())?;
        Ok(Text(text))
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// A list (and nothing else) of texts.
pub(crate) struct Words(pub(crate) Vec<String>);

impl<'py> FromPyObject<'_, 'py> for Words {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let Ok(list) = object.cast::<PyList>() else {
            return Err(PyTypeError::new_err(format!("not a list of texts: {object:?}")));
        };
        list.iter().map(|text| text.extract().map(|Text(text)| text)).collect::<PyResult<_>>().map(Words)
    }
}

/// A 64-bit number. A negative one wraps, as in C, and is found to be out of bounds later.
pub(crate) struct Number(pub(crate) u64);

impl<'py> FromPyObject<'_, 'py> for Number {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match object.extract::<u64>() {
            Ok(number) => Ok(Number(number)),
            Err(e) => object.extract::<i64>().map(|number| Number(number as u64)).map_err(|_| e),
        }
    }
}

/// Whatever is true or false.
pub(crate) struct Truth(pub(crate) bool);

impl<'py> FromPyObject<'_, 'py> for Truth {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        object.is_truthy().map(Truth)
    }
}

/// The path of a file, as text, bytes, or whatever `os.fspath()` takes.
pub(crate) struct Path(pub(crate) PathBuf);

impl<'py> FromPyObject<'_, 'py> for Path {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let path = match object.cast::<PyBytes>() {
            Ok(bytes) => OsStr::from_bytes(bytes.as_bytes()).into(),
            Err(_) => object.extract::<PathBuf>()?,
        };
        whole(path.as_os_str().as_bytes())?;
        Ok(Path(path))
    }
}
