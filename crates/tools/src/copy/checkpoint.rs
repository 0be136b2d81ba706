//! Where a copy has come to, in a file, so that another run can go on from there.
//!
//! One line of JSON behind one line with its checksum. It only names what the destination has made stable, and it
//! appears under its name when it is whole.

pub(crate) mod identity;

use crate::copy::{
    aside::Aside,
    hash::{Algorithm, hex},
    ranges::Ranges,
};
use anyhow::{Context, Result, bail};
use disk::Range;
use identity::Identity;
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

const MAGIC: &str = "diskpipe-checkpoint";
const VERSION: u32 = 1;
/// No more ranges are recorded. What is left out is copied once more.
const MOST_RANGES: usize = 4096;
/// No checkpoint is larger, in bytes.
const LARGEST: u64 = 1 << 20;

/// What another run must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Checkpoint {
    version: u32,
    /// What is copied, and what it was like.
    pub(crate) source: Identity,
    /// What it is copied to.
    pub(crate) destination: Identity,
    /// Which changes are copied, if not all of it.
    pub(crate) changes: Option<String>,
    /// What is copied and stable: start and length, in bytes, in order.
    done: Vec<(u64, u64)>,
}

impl Checkpoint {
    /// Nothing is copied yet.
    pub(crate) fn new(source: Identity, destination: Identity, changes: Option<String>) -> Checkpoint {
        Checkpoint { version: VERSION, source, destination, changes, done: Vec::new() }
    }

    /// What is copied and stable.
    pub(crate) fn done(&self) -> Ranges {
        self.done.iter().map(|(start, len)| Range::new(*start, *len)).collect()
    }

    /// These are copied and stable; no others.
    pub(crate) fn set_done(&mut self, done: &Ranges) {
        let few;
        let list = if done.count() > MOST_RANGES {
            few = done.thinned(MOST_RANGES);
            &few
        } else {
            done
        };
        self.done = list.iter().map(|range| (range.start, range.len)).collect();
    }

    /// As it is written.
    fn text(&self) -> Result<String> {
        let body = serde_json::to_string(self).context("the checkpoint has no text")?;
        Ok(signed(&body))
    }

    /// Reads one.
    ///
    /// # Errors
    /// It is damaged, of another version, or no checkpoint.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Checkpoint> {
        let text = std::str::from_utf8(bytes).ok().context("not a checkpoint")?;
        let (head, body) = text.split_once('\n').context("not a checkpoint")?;
        let sum =
            head.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(' ')).context("not a checkpoint")?;
        let body = body.strip_suffix('\n').context("the checkpoint is damaged: its end is missing")?;
        if sum != hex(&Algorithm::Sha256.digest(body.as_bytes())) {
            bail!("the checkpoint is damaged: its checksum is wrong");
        }
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let damaged = "the checkpoint is damaged";
        match serde_json::from_str(body).context(damaged)? {
            Versioned { version: VERSION } => {}
            Versioned { version } => {
                bail!("the checkpoint is of version {version}, and this is version {VERSION}")
            }
        }
        let checkpoint: Checkpoint = serde_json::from_str(body).context(damaged)?;
        let mut before = 0;
        for (start, len) in &checkpoint.done {
            let end = start.checked_add(*len).filter(|end| *end <= checkpoint.source.size);
            match end {
                Some(end) if *start >= before && *len > 0 => before = end,
                _ => bail!("{damaged}: it names what is not on the disk"),
            }
        }
        Ok(checkpoint)
    }

    /// Reads one from a file, if there is one.
    ///
    /// # Errors
    /// As [`Checkpoint::parse`]; or it cannot be read.
    pub(crate) fn load(path: &Path) -> Result<Option<Checkpoint>> {
        let why = || path.display().to_string();
        let file = match File::open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.with_context(why)?,
        };
        let mut bytes = Vec::new();
        file.take(LARGEST + 1).read_to_end(&mut bytes).with_context(why)?;
        if bytes.len() as u64 > LARGEST {
            bail!("{}: not a checkpoint", why());
        }
        Checkpoint::parse(&bytes).with_context(why).map(Some)
    }

    /// Writes it, so that after a loss of power there is this one or the one before.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let why = || path.display().to_string();
        let mut file = Aside::new(path).with_context(why)?;
        file.write_all(self.text()?.as_bytes()).and_then(|()| file.finish()).with_context(why)
    }
}

/// A text with its checksum before it.
fn signed(body: &str) -> String {
    format!("{MAGIC} {}\n{body}\n", hex(&Algorithm::Sha256.digest(body.as_bytes())))
}

/// Reads a checkpoint with any body, and what was read as it is written again. For the fuzzer.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let _ = Checkpoint::parse(bytes);
    if let Ok(checkpoint) = Checkpoint::parse(signed(&String::from_utf8_lossy(bytes)).as_bytes()) {
        let text = checkpoint.text().unwrap_or_default();
        assert!(Checkpoint::parse(text.as_bytes()).is_ok_and(|again| again == checkpoint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn checkpoint(done: &Ranges) -> Checkpoint {
        let mut checkpoint = Checkpoint::new(Identity::example(1 << 40), Identity::example(5), None);
        checkpoint.set_done(done);
        checkpoint
    }

    #[test]
    fn a_checkpoint_is_found_as_it_was_saved() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        assert_eq!(Checkpoint::load(&path).unwrap(), None);
        let done: Ranges = [Range::new(0, 4096), Range::new(1 << 30, 77)].into_iter().collect();
        for _ in 0..2 {
            checkpoint(&done).save(&path).unwrap();
            assert_eq!(Checkpoint::load(&path).unwrap().unwrap().done(), done);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
        std::fs::write(&path, vec![b'x'; 2 << 20]).unwrap();
        assert!(Checkpoint::load(&path).is_err());
    }

    #[test]
    fn it_stays_small_whatever_was_copied() {
        let done: Ranges = (0..100_000).map(|n| Range::new(n * 10_000_000, 1 + n)).collect();
        let checkpoint = checkpoint(&done);
        assert!(checkpoint.text().unwrap().len() < (LARGEST / 4) as usize);
        assert_eq!(checkpoint.done().count(), MOST_RANGES);
        assert!(checkpoint.done().iter().all(|range| range.len > 90_000), "the longest are kept");
    }

    #[test]
    fn what_was_touched_is_refused() {
        let text = checkpoint(&Range::new(5, 6).into()).text().unwrap();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 4;
            assert!(Checkpoint::parse(&bytes).is_err(), "{at}");
            assert!(Checkpoint::parse(&text.as_bytes()[..at]).is_err(), "{at}");
        }
    }

    #[test]
    fn what_lies_off_the_disk_or_is_of_another_version_is_refused() {
        let with = |change: fn(&mut Checkpoint)| {
            let mut checkpoint = checkpoint(&Range::new(0, 5).into());
            change(&mut checkpoint);
            Checkpoint::parse(checkpoint.text().unwrap().as_bytes()).unwrap_err().to_string()
        };
        assert!(with(|c| c.version = 2).contains("version 2"));
        assert!(with(|c| c.done = vec![(1 << 40, 1)]).contains("not on the disk"));
        assert!(with(|c| c.done = vec![(u64::MAX, 2)]).contains("not on the disk"));
        assert!(with(|c| c.done = vec![(5, 5), (0, 1)]).contains("not on the disk"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_fail(body: Vec<u8>, done: Vec<(u64, u64)>) {
            fuzz(&body);
            let mut checkpoint = checkpoint(&Ranges::new());
            checkpoint.done = done;
            fuzz(serde_json::to_string(&checkpoint).unwrap().as_bytes());
        }
    }
}
