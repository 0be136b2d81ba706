//! `readonly`: a disk that may not be written, or not while a file exists.

use crate::common::wrap::each;
use disk::{
    Around, Backend, Client, Disk, Errno, Error, Facts, Filter, Io, Result,
    shapes::{Op, OpKind, around::EveryRequest},
};
use params::Params;
use std::{path::PathBuf, sync::Arc};

/// Forbid writing, for good or while a file exists.
#[derive(Params)]
pub(crate) struct ReadOnly {
    /// Writing is forbidden while this file exists, and allowed while it does not. Without it, writing is never
    /// allowed.
    readonly_file: Option<PathBuf>,
}

impl Filter for ReadOnly {
    const NAME: &'static str = "readonly";
    const MANUAL: &'static str = include_str!("readonly.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        let file = self.readonly_file.map(Arc::new);
        Ok(Guarded {
            always: file.is_none(),
            layers: each(next, move |disk, _| Ok(guarded(disk, file.clone()))),
        })
    }
}

fn guarded(disk: Arc<dyn Disk>, file: Option<Arc<PathBuf>>) -> Arc<dyn Disk> {
    match file {
        None => Arc::new(Reading { facts: disk.facts().clone().without_write(), next: disk }),
        Some(file) => Arc::new(Around::new(While(file), disk)),
    }
}

struct Guarded<B> {
    always: bool,
    layers: B,
}

impl<B: Backend> Backend for Guarded<B> {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        Io::later(async move {
            // What is below need not prepare for writes that never come.
            let below = Client { read_only: self.always || client.read_only, ..client.clone() };
            self.layers.open(&below).await
        })
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&self.layers)
    }
}

/// Refuses everything else.
struct Reading {
    facts: Facts,
    next: Arc<dyn Disk>,
}

impl Disk for Reading {
    disk::forward!(next: next, read, cache, extents, status, resizing);
    fn facts(&self) -> &Facts {
        &self.facts
    }
}

/// Forbids changes while the file exists.
struct While(Arc<PathBuf>);

impl EveryRequest for While {
    fn around<'a, T: Send + 'a>(&'a self, op: Op, call: impl FnOnce() -> Io<'a, T> + Send + 'a) -> Io<'a, T> {
        let changes = matches!(op.kind, OpKind::Write | OpKind::Zero { .. } | OpKind::Trim);
        if changes && self.0.exists() {
            return Error::new(Errno::PERM, format!("read-only, because {} exists", self.0.display())).into();
        }
        call()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, noise, opened};
    use disk::{Data, Range, WriteFlags, ZeroFlags};

    #[test]
    fn without_a_file_the_disk_cannot_be_written() {
        let facts = opened::<ReadOnly>(&[], &Memory::new(vec![0; 512])).facts().clone();
        assert!(!facts.write && !facts.trim && !facts.zero && facts.extents && facts.cache);
    }

    #[test]
    fn a_file_forbids_and_allows_writing_while_clients_are_connected() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ro");
        let memory = Memory::new(noise(1, 512));
        let disk = opened::<ReadOnly>(&[&format!("readonly-file={}", file.display())], &memory);
        let r = Range::new(0, 512);
        let write = || disk.write(0, Data::zeroes(512), WriteFlags::default()).wait().map_err(|e| e.errno());
        std::fs::write(&file, "").unwrap();
        assert!(disk.facts().write && disk.place(r).is_none());
        assert_eq!(write(), Err(Errno::PERM));
        assert!(disk.zero(r, ZeroFlags::default()).wait().is_err());
        assert!(disk.trim(r, WriteFlags::default()).wait().is_err());
        disk.flush().wait().unwrap();
        assert_eq!(memory.bytes(), noise(1, 512));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(write(), Ok(()));
        assert_eq!(memory.bytes(), [0; 512]);
    }
}
