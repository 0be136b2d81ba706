//! A plugin with a parameter, whose disk waits: it reads a file with plain blocking calls.

use disk::{
    Backend, Client, Disk, Facts, Io, Plugin, Result,
    blocking::{Blocking, BlockingDisk},
};
use params::Params;
use std::{fs::File, os::unix::fs::FileExt, path::PathBuf, sync::Arc};

/// A file, for reading only, as an example of a plugin.
///
/// Each field is a parameter: its name, its type and its comment are all that help, manual and error messages need. It
/// must be given, since it is not an `Option` and has no default.
#[derive(Params)]
pub(crate) struct Example2 {
    /// The file to serve.
    file: PathBuf,
}

impl Plugin for Example2 {
    const NAME: &'static str = "example2";
    const MANUAL: &'static str = include_str!("example2.md");

    /// Opening the file here as well shows a mistake on the terminal rather than to the first client. `?` makes an
    /// error of the system one of ours; `context` says what was attempted.
    fn start(self) -> Result<impl Backend + 'static> {
        open(&self)?;
        Ok(self)
    }
}

/// The backend opens a disk for each client, who is described by `Client`. Here that is the file, opened anew.
impl Backend for Example2 {
    fn open<'a>(&'a self, _: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        open(self).map(|disk| Arc::new(Blocking::new(disk)) as Arc<dyn Disk>).into()
    }
}

fn open(params: &Example2) -> Result<FileDisk> {
    let open = || -> Result<FileDisk> {
        let file = File::open(&params.file)?;
        let facts = Facts::read_only(file.metadata()?.len());
        Ok(FileDisk { facts, file })
    };
    open().map_err(|e| e.context(params.file.display()))
}

struct FileDisk {
    facts: Facts,
    file: File,
}

/// Reading a file may take a while. A [`BlockingDisk`] may do that: `Blocking` runs its requests on threads of their own.
impl BlockingDisk for FileDisk {
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, at: u64, into: &mut [u8]) -> Result<()> {
        Ok(self.file.read_exact_at(into, at)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::model;

    #[test]
    fn the_file_is_served_or_its_absence_told_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let text = path.to_str().unwrap();
        let error = model::open::<Example2>(&[("file", text)]).err().unwrap();
        assert_eq!(error.to_string(), format!("{text}: No such file or directory"));
        std::fs::write(&path, "content").unwrap();
        let disk = model::open::<Example2>(&[("file", text)]).unwrap();
        assert_eq!(model::bytes(&*disk, 1, 4), b"onte");
        std::fs::write(&path, "").unwrap();
        assert!(disk.read(disk::Range::new(0, 7)).wait().is_err());
    }
}
