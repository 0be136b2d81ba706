//! Sockets: listening, connecting, sending and receiving, for both ends of NBD.
//!
//! Everything here is synchronous and takes `&self`, so that one thread may receive while another sends.
//! A [`Stream`] never changes its descriptor to non-blocking mode: each call says by [`Wait`] whether it may
//! sleep. All descriptors are close-on-exec. A stream may go on encrypted: see [`tls`].

#![deny(unsafe_code)]

mod activation;
mod address;
mod connect;
mod connecting;
mod listener;
#[allow(unsafe_code)]
mod raw;
#[allow(unsafe_code)]
mod room;
mod services;
mod ssh;
mod stream;
pub mod tls;

pub use activation::{Child, listen_fds, socket_activation, socket_activation_named};
pub use address::{Address, Peer, Remote, Ssh};
pub use connect::connect;
pub use connecting::{Connecting, Progress};
pub use listener::{Family, Listener, Stop, accept_any};
pub use raw::RawIoVec;
pub use room::Room;
pub use services::service_port;
pub use stream::{How, Stream, Wait};

/// What the system says, without the number that Rust puts behind it.
fn reason(e: &std::io::Error) -> String {
    let mut text = e.to_string();
    if let Some(cut) = text.find(" (os error") {
        text.truncate(cut);
    }
    text
}
