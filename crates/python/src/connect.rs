//! Ways to a server. Those without `aio_` wait until the connection can be used.

use crate::{
    arguments::{Path, Text, Words},
    handle::{Nbd, calls, raise},
    memory,
};
use client::{
    Address,
    handle::{Fault, When, fault::errno},
};
use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    types::{PyBytes, PyString, PyTuple},
};

calls! {
    /// Connect to the server of an NBD URI, and choose the export and the keys that it names.
    fn connect_uri(h, uri: Text) -> () { h.aio_connect_uri(&uri).and_then(|()| h.connected()) }

    /// Connect to a unix domain socket by its path.
    fn connect_unix(h, unixsocket: Path) -> () { h.aio_connect_unix(unixsocket.0).and_then(|()| h.connected()) }

    /// Connect to a virtual machine, or from one to its host, which is 2.
    fn connect_vsock(h, cid: u32, port: u32) -> () {
        h.aio_connect(Address::Vsock { cid, port }).and_then(|()| h.connected())
    }

    /// Connect to a host and a port; both are texts, and the port may be the name of a service.
    fn connect_tcp(h, hostname: Text, port: Text) -> () {
        h.aio_connect_tcp(&hostname, &port).and_then(|()| h.connected())
    }

    /// Start a command, a list of texts, that speaks NBD on its standard input and output. The handle waits for its end.
    fn connect_command(h, argv: Words) -> () { h.aio_connect_command(&argv.0).and_then(|()| h.connected()) }

    /// Start a server by systemd's socket activation. It is told to end with the handle.
    fn connect_systemd_socket_activation(h, argv: Words) -> () {
        h.aio_connect_activated(&argv.0).and_then(|()| h.connected())
    }

    /// Begin to connect as connect_uri().
    fn aio_connect_uri(h, uri: Text) -> () { h.aio_connect_uri(&uri) }

    /// Begin to connect as connect_unix().
    fn aio_connect_unix(h, unixsocket: Path) -> () { h.aio_connect_unix(unixsocket.0) }

    /// Begin to connect as connect_vsock().
    fn aio_connect_vsock(h, cid: u32, port: u32) -> () { h.aio_connect(Address::Vsock { cid, port }) }

    /// Begin to connect as connect_tcp().
    fn aio_connect_tcp(h, hostname: Text, port: Text) -> () { h.aio_connect_tcp(&hostname, &port) }

    /// Begin to connect as connect_command().
    fn aio_connect_command(h, argv: Words) -> () { h.aio_connect_command(&argv.0) }

    /// Begin to connect as connect_systemd_socket_activation().
    fn aio_connect_systemd_socket_activation(h, argv: Words) -> () { h.aio_connect_activated(&argv.0) }
}

impl Nbd {
    fn use_socket(&self, py: Python<'_>, call: &'static str, sock: i32, wait: bool) -> PyResult<()> {
        self.with(py, call, |h| h.need(When::Created))?;
        let socket = memory::take_descriptor(sock)
            .map_err(|_| raise(py, call, &Fault::new(errno::EBADF, format!("sock={sock}: not open"))))?;
        self.with(py, call, |h| {
            h.aio_connect_socket(socket)?;
            if wait { h.connected() } else { Ok(()) }
        })
    }
}

#[pymethods]
impl Nbd {
    /// Go on with a connected socket, by its number, which belongs to the handle from now on.
    fn connect_socket(&self, py: Python<'_>, sock: i32) -> PyResult<()> {
        self.use_socket(py, "nbd_connect_socket", sock, true)
    }

    /// Begin as connect_socket().
    fn aio_connect_socket(&self, py: Python<'_>, sock: i32) -> PyResult<()> {
        self.use_socket(py, "nbd_aio_connect_socket", sock, false)
    }

    /// Begin to connect to an address as Python's sockets have it: a path, (host, port), or (cid, port) of numbers.
    fn aio_connect(&self, py: Python<'_>, addr: &Bound<'_, PyAny>) -> PyResult<()> {
        let address = if addr.is_instance_of::<PyString>() || addr.is_instance_of::<PyBytes>() {
            Address::Unix(addr.extract()?)
        } else if let Some(pair) = addr.cast::<PyTuple>().ok().filter(|pair| pair.len() >= 2) {
            let first = pair.get_item(0)?;
            match first.is_instance_of::<PyString>() {
                true => Address::Tcp { host: first.extract()?, port: pair.get_item(1)?.extract()? },
                false => Address::Vsock { cid: first.extract()?, port: pair.get_item(1)?.extract()? },
            }
        } else {
            return Err(PyTypeError::new_err("an address is a path, (host, port) or (cid, port)"));
        };
        self.with(py, "nbd_aio_connect", |h| h.aio_connect(address))
    }
}
