//! Files one behind the other, as one disk.

use crate::{common::regions::Regions, file};
use disk::{Backend, Client, Disk, Error, Io, Plugin, Result};
use params::Params;
use std::{path::PathBuf, sync::Arc};

/// Serve files, one behind the other, as one disk.
#[derive(Params)]
pub(crate) struct Split {
    /// A file or block device; repeat it for the next.
    #[param(magic, placeholder = "FILENAME")]
    file: Vec<PathBuf>,
}

impl Plugin for Split {
    const NAME: &'static str = "split";
    const MANUAL: &'static str = include_str!("split.md");

    fn start(self) -> Result<impl Backend + 'static> {
        if self.file.is_empty() {
            return Err(Error::invalid("you must supply the file= parameter, once for each file"));
        }
        // Faults show now rather than when somebody comes.
        let sizes = joined(&self.file, true, None)?.1;
        Ok(SplitBackend { files: self.file, sizes })
    }
}

struct SplitBackend {
    files: Vec<PathBuf>,
    /// What they were at the start: later files must not move when an earlier one grows.
    sizes: Vec<u64>,
}

/// The files as regions, and their sizes, which must be those `expected`.
fn joined(files: &[PathBuf], read_only: bool, expected: Option<&[u64]>) -> Result<(Regions, Vec<u64>)> {
    let (mut regions, mut sizes) = (Regions::new(), Vec::new());
    for (number, path) in files.iter().enumerate() {
        let disk = file::open_path(path, read_only)?;
        let size = disk.facts().size;
        if let Some(expected) = expected {
            file::same_size(path, size, expected[number])?;
        }
        sizes.push(size);
        regions.disk(disk).map_err(|e| e.context(path.display()))?;
    }
    Ok((regions, sizes))
}

impl Backend for SplitBackend {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        let regions = joined(&self.files, client.read_only, Some(&self.sizes));
        regions.map(|(regions, _)| Arc::new(regions.into_disk()) as Arc<dyn Disk>).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::model;
    use disk::{Data, WriteFlags};
    use std::fs;

    #[test]
    fn what_crosses_a_border_reaches_both_files() {
        let dir = tempfile::tempdir().unwrap();
        let sizes = [1000, 0, 70_001, 1, 4096];
        let paths = sizes.iter().enumerate().map(|(n, size)| {
            let path = dir.path().join(n.to_string());
            fs::File::create(&path).unwrap().set_len(*size).unwrap();
            path.display().to_string()
        });
        let paths: Vec<String> = paths.collect();
        let args: Vec<_> = paths.iter().map(|path| ("file", path.as_str())).collect();
        let disk = model::open::<Split>(&args).unwrap();
        assert_eq!(disk.facts().size, sizes.iter().sum::<u64>());
        model::compare(&*disk, 3, 800);
        disk.write(998, Data::copy_from(b"border"), WriteFlags { fua: true }).wait().unwrap();
        assert!(fs::read(&paths[0]).unwrap().ends_with(b"bo"));
        assert!(fs::read(&paths[2]).unwrap().starts_with(b"rder"));
        let all: Vec<u8> = paths.iter().flat_map(|path| fs::read(path).unwrap()).collect();
        assert!(model::bytes(&*disk, 0, disk.facts().size) == all);
    }

    #[test]
    fn a_file_that_changed_its_size_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "abc").unwrap();
        let backend = Split { file: vec![path.clone(), path.clone()] }.start().unwrap();
        assert_eq!(backend.open(&Client::local("")).wait().unwrap().facts().size, 6);
        fs::write(&path, "abcd").unwrap();
        let error = backend.open(&Client::local("")).wait().err().unwrap().to_string();
        assert!(error.ends_with("a: 4 bytes now, but 3 when the server was started"), "{error}");
        assert!(Split { file: vec![dir.path().join("b")] }.start().is_err());
        assert!(Split { file: vec![] }.start().is_err());
    }
}
