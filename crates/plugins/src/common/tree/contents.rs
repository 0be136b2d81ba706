//! The content of a tree's files, one behind the other, read from the files when somebody asks.
//!
//! A disk that was planned from a tree must not become another one because somebody changes the directory. A file that
//! grew is read as far as was planned. One that shrank, went away or is another file by now is an error, for its part of
//! the disk.

use super::Tree;
use crate::{common::regions, file::FileDisk};
use disk::{Data, Disk, Error, Extents, Facts, Io, Kind, Range, Result};
use rustix::fs::{FileType, Mode, OFlags};
use std::sync::{Arc, Mutex, PoisonError};

/// So many files stay open; processes may often have no more than a thousand.
const OPEN: usize = 64;

/// Where a file's content lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    /// Never empty.
    pub(crate) range: Range,
    /// The file.
    pub(crate) node: usize,
}

/// A disk of files. What lies between them is zero.
pub(crate) struct Contents {
    facts: Facts,
    tree: Arc<Tree>,
    /// In order, none over another.
    placed: Vec<Placed>,
    /// The last one that was used comes last.
    open: Mutex<Vec<(usize, Arc<FileDisk>)>>,
}

impl Contents {
    /// Files of this tree where they were placed, sorted, and zeroes up to `size` bytes.
    pub(crate) fn new(tree: Arc<Tree>, placed: Vec<Placed>, size: u64) -> Contents {
        debug_assert!(placed.is_sorted_by(|a, b| a.range.end() <= b.range.start));
        debug_assert!(placed.last().is_none_or(|last| last.range.end() <= size));
        let facts = Facts { extents: true, cache: true, ..Facts::read_only(size) };
        Contents { facts, tree, placed, open: Mutex::default() }
    }

    /// The file of a node, if it is still the one that the plan was made for.
    fn file(&self, node: usize) -> Result<Arc<FileDisk>> {
        let lock = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = lock();
        if let Some(at) = open.iter().rposition(|(known, _)| *known == node) {
            let found = open.remove(at);
            let file = found.1.clone();
            open.push(found);
            return Ok(file);
        }
        drop(open);
        let file = Arc::new(self.open(node).map_err(|e| {
            // What the server's directory looks like is nothing that a client could understand.
            Error::io(format!("{}: {e}", self.tree.path(node).display()))
        })?);
        let mut open = lock();
        if open.len() >= OPEN {
            open.remove(0);
        }
        open.push((node, file.clone()));
        Ok(file)
    }

    fn open(&self, node: usize) -> Result<FileDisk> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let fd = rustix::fs::open(self.tree.path(node), flags, Mode::empty())?;
        let found = rustix::fs::fstat(&fd)?;
        let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
        if !is_file || (found.st_dev, found.st_ino) != self.tree.nodes[node].attributes.identity {
            return Err(Error::io("another file than when the disk was made"));
        }
        FileDisk::open(fd, false)
    }

    /// The files and gaps that a range touches: which file, and where in it.
    fn parts(&self, range: Range) -> impl Iterator<Item = (Option<usize>, Range)> {
        let mut next = self.placed.partition_point(|placed| placed.range.end() <= range.start);
        let mut at = range.start;
        std::iter::from_fn(move || {
            if at >= range.end() {
                return None;
            }
            let here = self.placed.get(next).filter(|placed| placed.range.start < range.end());
            let part = match here {
                Some(placed) if placed.range.start <= at => {
                    next += 1;
                    let end = placed.range.end().min(range.end());
                    (Some(placed.node), Range::new(at - placed.range.start, end - at))
                }
                here => {
                    let end = here.map_or(range.end(), |placed| placed.range.start);
                    (None, Range::new(at, end - at))
                }
            };
            at += part.1.len;
            Some(part)
        })
    }

    fn read_part(&self, node: Option<usize>, range: Range) -> Io<'static, Data> {
        let Some(node) = node else { return Io::ok(Data::zeroes(range.len)) };
        match self.file(node) {
            Ok(file) => {
                let path = self.tree.path(node);
                let named = move |e: Error| Error::io(format!("{}: {e}", path.display()));
                match file.read_detached(range) {
                    Io::Ready(data) => Io::Ready(data.map_err(named)),
                    later => Io::later(async move { later.await.map_err(named) }),
                }
            }
            Err(e) => e.into(),
        }
    }
}

impl Disk for Contents {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn read(&self, range: Range) -> Io<'_, Data> {
        let mut parts = self.parts(range).map(|(node, part)| self.read_part(node, part));
        let first = parts.next().unwrap_or(Io::ok(Data::zeroes(0)));
        let rest: Vec<_> = parts.collect();
        if rest.is_empty() { first } else { regions::join(first, rest) }
    }

    /// A hint, so it is not an error when a file is not to be had.
    fn cache(&self, range: Range) -> Io<'_, ()> {
        for (node, part) in self.parts(range) {
            if let Some(file) = node.and_then(|node| self.file(node).ok()) {
                let _ = file.cache(part).wait();
            }
        }
        Io::ok(())
    }

    fn extents(&self, range: Range, limit: usize) -> Io<'_, Extents> {
        let mut extents = Extents::new();
        for (node, part) in self.parts(range) {
            if extents.len() > limit {
                break;
            }
            let Some(node) = node else {
                extents.push(part.len, Kind::HOLE);
                continue;
            };
            // Where the file does not say, reading will.
            let answer = self.file(node).and_then(|file| match file.facts().extents {
                true => file.extents(part, limit).wait(),
                false => Ok(Extents::one(part.len, Kind::DATA)),
            });
            let mut answer = answer.unwrap_or_else(|_| Extents::one(part.len, Kind::DATA));
            answer.truncate(part.len);
            extents.append(&answer);
            if answer.covered() < part.len {
                break;
            }
        }
        Io::ok(extents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::model;
    use std::fs;

    fn bench() -> (tempfile::TempDir, Contents) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), [1; 100]).unwrap();
        fs::write(dir.path().join("b"), [2; 600]).unwrap();
        let tree = Arc::new(Tree::read(&[dir.path().to_owned()]).unwrap());
        let at = |name: &[u8], start, len| Placed {
            range: Range::new(start, len),
            node: tree.find(name).unwrap(),
        };
        let placed = vec![at(b"a", 0, 100), at(b"b", 512, 600)];
        (dir, Contents::new(tree, placed, 2000))
    }

    #[test]
    fn every_range_has_the_right_bytes() {
        let (_dir, contents) = bench();
        let mut expected = vec![0; 2000];
        expected[..100].fill(1);
        expected[512..1112].fill(2);
        for start in (0..2000).step_by(37) {
            for len in [1, 100, 513, 2000] {
                let end = (start + len).min(2000);
                let found = model::bytes(&contents, start as u64, (end - start) as u64);
                assert_eq!(found, expected[start..end], "{start}..{end}");
            }
        }
        let extents = contents.extents(Range::new(50, 1950), 9).wait().unwrap();
        assert_eq!(extents.covered(), 1950);
        assert!(extents.ranges(50).all(|(r, kind)| kind.zero || model::bytes(&contents, r.start, r.len).iter().any(|b| *b != 0)));
    }

    #[test]
    fn a_directory_that_changes_gives_errors_and_no_wrong_bytes() {
        let (dir, contents) = bench();
        let read = |start, len| contents.read(Range::new(start, len)).wait();
        fs::OpenOptions::new()
            .append(true)
            .open(dir.path().join("a"))
            .and_then(|mut f| std::io::Write::write_all(&mut f, &[9; 500]))
            .unwrap();
        assert_eq!(read(0, 200).unwrap().to_vec(), [[1; 100], [0; 100]].concat(), "it grew");
        fs::File::options().write(true).open(dir.path().join("b")).and_then(|f| f.set_len(300)).unwrap();
        assert_eq!(read(512, 300).unwrap().to_vec(), [2; 300], "the part that is still there");
        let error = read(700, 200).unwrap_err();
        assert!(
            error.errno() == disk::Errno::IO && error.to_string().contains("/b: the file is shorter"),
            "{error}"
        );
        let (dir, contents) = bench();
        fs::remove_file(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("new"), [7; 600]).unwrap();
        fs::rename(dir.path().join("new"), dir.path().join("b")).unwrap();
        let read = |start, len| contents.read(Range::new(start, len)).wait();
        assert!(read(0, 1).unwrap_err().to_string().ends_with("/a: No such file or directory"));
        assert!(
            read(600, 1).unwrap_err().to_string().ends_with("/b: another file than when the disk was made")
        );
        assert!(read(100, 412).unwrap().says_zeroes());
    }

    #[test]
    fn more_files_than_may_be_open_are_read_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let count = OPEN * 3;
        for number in 0..count {
            fs::write(dir.path().join(format!("{number:04}")), [number as u8; 10]).unwrap();
        }
        let tree = Arc::new(Tree::read(&[dir.path().to_owned()]).unwrap());
        let placed =
            (0..count).map(|n| Placed { range: Range::new(n as u64 * 10, 10), node: tree.children(0)[n] });
        let contents = Contents::new(tree.clone(), placed.collect(), count as u64 * 10);
        let expected: Vec<u8> = (0..count).flat_map(|n| [n as u8; 10]).collect();
        for _ in 0..2 {
            assert_eq!(model::bytes(&contents, 0, expected.len() as u64), expected);
            assert!(contents.open.lock().unwrap().len() <= OPEN);
        }
    }
}
