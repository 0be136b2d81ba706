//! The content of a file, from its beginning to its end, with several requests under way.

use crate::{File, FileSystem, Kind, Place};
use disk::{Data, Error, Range, Result};
use reactor::InFlight;
use std::{collections::BTreeMap, pin::Pin};

/// So many requests are under way at once.
const AHEAD: usize = 16;
/// The content of larger files is not worth expecting, as several pieces of it are read at once anyway.
const SMALL: u64 = 64 << 10;

/// The contents of these files will soon be asked for: what is in one piece of small files and directories is read at
/// once, and kept for a while. Some dozens of files at once are right.
pub fn expect(file_system: &dyn FileSystem, files: &[&File]) {
    let small = files.iter().filter(|file| matches!(file.kind, Kind::Regular | Kind::Directory));
    let pieces = small.filter(|file| (1..=SMALL).contains(&file.size)).filter_map(|file| {
        let run = file_system.run(file, 0).ok()?;
        match run.place {
            Place::At(at) => Some(Range::new(at, run.len.min(file.size))),
            Place::Zeroes | Place::Here(_) => None,
        }
    });
    file_system.source().expect(pieces);
}

/// Hands out the content piece by piece, with where each begins. Holes of any size are single pieces.
///
/// # Errors
/// It is no file with bytes, it is damaged, or the disk failed; or those of `each`.
pub fn read(
    file_system: &dyn FileSystem,
    file: &File,
    each: &mut dyn FnMut(u64, Data) -> Result<()>,
) -> Result<()> {
    match file.kind {
        Kind::Regular => {}
        Kind::Directory => return Err(Error::new(disk::Errno::from_raw(21), "is a directory")),
        other => return Err(Error::invalid(format!("is a {}, and has no content", other.word()))),
    }
    let source = file_system.source();
    let mut pieces = pieces(file_system, file, source.step());
    reactor::block_on(async {
        type Reading<'a> = Pin<Box<dyn Future<Output = (u64, Result<Data>)> + 'a>>;
        let mut flying: InFlight<Reading<'_>> = InFlight::new();
        let mut come: BTreeMap<u64, Data> = BTreeMap::new();
        let (mut asked, mut written) = (0, 0);
        loop {
            while flying.len() + come.len() < AHEAD
                && let Some(piece) = pieces.next()
            {
                let (len, place) = piece?;
                match place {
                    Place::At(at) => {
                        let (start, range) = (asked, Range::new(at, len));
                        match (file.size <= SMALL).then(|| source.kept(range)).flatten() {
                            Some(data) => drop(come.insert(start, data)),
                            None => {
                                flying.push(Box::pin(async move { (start, source.fetch(range).await) }));
                            }
                        }
                    }
                    Place::Zeroes => drop(come.insert(asked, Data::zeroes(len))),
                    Place::Here(data) => drop(come.insert(asked, data)),
                }
                asked += len;
            }
            while let Some(data) = come.remove(&written) {
                let len = data.len();
                each(written, data)?;
                written += len;
            }
            if written == file.size {
                return Ok(());
            }
            if flying.len() + come.len() < AHEAD && asked < file.size {
                continue;
            }
            match flying.next().await {
                Some((start, data)) => drop(come.insert(start, data?)),
                None => return Err(Error::io("the content ends before the file does")),
            }
        }
    })
}

/// The content of a file that is not large.
///
/// # Errors
/// It has more than `most` bytes; or as [`read`].
pub fn whole(file_system: &dyn FileSystem, file: &File, most: u64) -> Result<Vec<u8>> {
    if file.size > most {
        return Err(Error::invalid(format!("has {} bytes, which is more than {most}", file.size)));
    }
    let mut bytes = Vec::new();
    read(file_system, file, &mut |_, data| {
        bytes.extend(data.to_vec());
        Ok(())
    })?;
    Ok(bytes)
}

/// The stretches of a file, in pieces of at most `step` bytes where there is anything to read.
fn pieces<'a>(
    file_system: &'a dyn FileSystem,
    file: &'a File,
    step: u64,
) -> impl Iterator<Item = Result<(u64, Place)>> + 'a {
    let mut at = 0;
    let mut rest: Option<(u64, u64)> = None;
    std::iter::from_fn(move || {
        if let Some((start, len)) = rest.take() {
            let here = len.min(step);
            rest = (here < len).then(|| (start + here, len - here));
            return Some(Ok((here, Place::At(start))));
        }
        if at >= file.size {
            return None;
        }
        let run = file_system.run(file, at).and_then(|run| match run.len {
            0 => Err(Error::io("the content is damaged")),
            _ => Ok(run),
        });
        let run = match run {
            Ok(run) => run,
            Err(e) => {
                at = u64::MAX;
                return Some(Err(e));
            }
        };
        let len = run.len.min(file.size - at);
        at += len;
        Some(Ok(match run.place {
            Place::At(start) => {
                let here = len.min(step);
                rest = (here < len).then(|| (start + here, len - here));
                (here, Place::At(start))
            }
            Place::Here(data) => (len, Place::Here(data.slice(0, len))),
            Place::Zeroes => (len, Place::Zeroes),
        }))
    })
}
