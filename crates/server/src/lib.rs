//! Serves one [`disk::Backend`] over NBD, whatever it is.
//!
//! Every connection has a thread of its own (measured fastest): it blocks in `recv` while nothing is pending, decodes
//! all requests that came, and sends all replies that are ready in one call. Requests that must wait are futures in
//! the connection's set; while there are any, the thread drives them and its socket together. A connection that moves large
//! payloads gets a second thread, while other cores are idle.
//!
//! # Your own NBD server
//!
//! ```
//! # use diskpipe_server as server;
//! use disk::{Backend, Client, Data, Disk, Facts, Io, Range, WriteFlags};
//! use std::sync::{Arc, Mutex};
//!
//! struct Ram(Facts, Mutex<Vec<u8>>);
//! impl Disk for Ram {
//!     fn facts(&self) -> &Facts { &self.0 }
//!     fn read(&self, r: Range) -> Io<'_, Data> {
//!         Io::ok(Data::copy_from(&self.1.lock().unwrap()[r.start as usize..r.end() as usize]))
//!     }
//!     fn write(&self, at: u64, data: Data, _: WriteFlags) -> Io<'_, ()> {
//!         let end = at as usize + data.len() as usize;
//!         Io::ok(data.copy_to(&mut self.1.lock().unwrap()[at as usize..end]))
//!     }
//!     fn flush(&self) -> Io<'_, ()> { Io::ok(()) }
//! }
//! struct OneRam(Arc<Ram>);
//! impl Backend for OneRam {
//!     fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
//!         if client.export != "test" { return disk::Errno::NOENT.into(); }
//!         Io::ok(self.0.clone())
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let description = Some("500 MB of memory".into());
//! let facts = Facts { description, ..Facts::writable(500 << 20) };
//! let ram = Arc::new(Ram(facts, Mutex::new(vec![0; 500 << 20])));
//! let server = server::Server::new(disk::complete::backend(Arc::new(OneRam(ram))));
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("sock");
//! let listeners = [net::Listener::unix(&path, true)?]; // or Listener::tcp(Some("localhost"), 10809, ..)
//! # server.stop();
//! server.serve(&listeners)?; // until server.stop()
//! # Ok(()) }
//! ```
#![deny(unsafe_code)]

mod clock;
mod connection;
mod helper;
mod input;
mod metadata;
pub mod metrics;
mod negotiate;
mod output;
mod patience;
mod pending;
#[allow(unsafe_code)]
mod raw;
mod resize;
mod serve;
mod spares;
#[allow(unsafe_code)]
mod stack;
mod to_wire;
mod transmit;

pub use proto::handshake::server::Policy;
pub use serve::{Log, Options, Server};
