//! The backend of most plugins here: one disk that all clients share, whatever export they ask for.

use disk::{Backend, Client, Disk, Io, Result};
use std::sync::{Arc, Mutex, PoisonError};

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

/// All clients get the disk that this function makes, once, when the server gets ready: making it needs what is only
/// there where it is served, such as a directory that must be read through.
pub(crate) struct MadeDisk<M> {
    make: M,
    made: Mutex<Option<Arc<dyn Disk>>>,
}

impl<M: Fn() -> Result<Arc<dyn Disk>> + Send + Sync> MadeDisk<M> {
    pub(crate) fn by(make: M) -> MadeDisk<M> {
        MadeDisk { make, made: Mutex::default() }
    }

    fn disk(&self) -> Result<Arc<dyn Disk>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        match &*made {
            Some(disk) => Ok(disk.clone()),
            None => Ok(made.insert((self.make)()?).clone()),
        }
    }
}

impl<M: Fn() -> Result<Arc<dyn Disk>> + Send + Sync> Backend for MadeDisk<M> {
    fn open<'a>(&'a self, _: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.disk().into()
    }

    fn get_ready(&self) -> Result<()> {
        self.disk().map(drop)
    }
}
