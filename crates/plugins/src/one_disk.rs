//! The backend of most plugins here: one disk that all clients share, whatever export they ask for.

use disk::{Backend, Client, Disk, Io};
use std::sync::Arc;

/// All clients get this disk.
pub(crate) struct OneDisk(Arc<dyn Disk>);

impl OneDisk {
    pub(crate) fn new(disk: impl Disk + 'static) -> OneDisk {
        OneDisk(Arc::new(disk))
    }
}

impl Backend for OneDisk {
    fn open<'a>(&'a self, _: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        Io::ok(self.0.clone())
    }
}
