//! An NBD client: many requests in flight over one connection or several, batched, from any thread.
//!
//! A [`Connector`] says where a server is and what to agree on with it; it opens a [`RemoteDisk`], which is a
//! [`disk::Disk`] like any other. [`blocking::Client`] is the same without futures. [`Negotiation`] goes
//! through the handshake step by step, and a [`Connection`] takes single requests. A [`handle::Handle`] is pumped by its
//! owner and hides nothing, as users of libnbd know it.
//!
//! Read the first sector of a server:
//!
//! ```no_run
//! # fn main() -> disk::Result<()> {
//! let server = client::blocking::Client::connect("nbd://localhost")?;
//! let mut sector = [0; 512];
//! server.read(&mut sector, 0)?;
//! println!("{} bytes; the first are {:02x?}", server.size(), &sector[..16]);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod blocking;
mod connect;
pub mod connection;
pub mod handle;
mod negotiate;
mod remote_disk;

pub use connect::{ConnectOptions, Connector};
pub use connection::Connection;
pub use negotiate::{Encryption, Failure, Negotiation, Step};
pub use net::{Address, service_port, tls::ClientSettings as TlsSettings};
/// The words of the protocol: URIs, flags, metadata contexts.
pub use proto;
pub use proto::{ExportEntry, handshake::Tls};
pub use remote_disk::{RemoteDisk, SizeNews};
