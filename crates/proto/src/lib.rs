//! NBD as bytes and pure state machines: no I/O, no async.
