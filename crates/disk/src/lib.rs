//! The one abstraction of diskpipe: a [`Disk`] somebody opened, made by a [`Backend`].
//!
//! Plugins make disks; filters wrap them; servers, copiers and inspectors use them. Reads return [`Data`], which
//! shares its bytes or only says "zeroes"; every request returns an [`Io`], which is ready or a future, so that
//! passing a request through any number of filters costs nothing.
//!
//! Unsafe code lives in `buf.rs` (pooled buffers), `shared.rs` (memory that disks lend) and `ticks.rs` (the processor's
//! count) alone.
#![deny(unsafe_code)]

pub mod backend;
pub mod blocking;
#[allow(unsafe_code)]
mod buf;
pub mod checked;
pub mod complete;
pub mod data;
mod disk;
pub mod error;
pub mod exports;
pub mod extents;
mod io;
mod range;
pub mod registry;
pub mod resize;
pub mod serialized;
pub mod shapes;
#[allow(unsafe_code)]
pub mod shared;
#[allow(unsafe_code)]
pub mod ticks;
mod wish;
mod writes;

pub use backend::{Backend, Certificate, Client, Export, Peer, ThreadModel};
pub use buf::{BufMut, release_idle_buffers};
pub use data::{Data, Piece};
pub use disk::{Blocks, Disk, Facts, WriteFlags, ZeroFlags};
pub use error::{Errno, Error, Result};
pub use extents::{Extent, Extents, Kind, Status};
pub use io::Io;
pub use range::Range;
pub use registry::{Filter, FilterEntry, Plugin, PluginEntry};
pub use shapes::{again::Again, around::Around, window::Window};
pub use wish::Wish;
pub use writes::Writes;
