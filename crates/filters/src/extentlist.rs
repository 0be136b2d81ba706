//! `extentlist`: what a file says about holes, over a disk that cannot say it.

use crate::common::wrap::each;
use disk::{Backend, Disk, Error, Extents, Facts, Filter, Io, Kind, Range, Result};
use params::{Params, Size, Value};
use std::{path::PathBuf, sync::Arc};

/// Say where the holes of a disk are, from a list.
#[derive(Params)]
pub(crate) struct ExtentList {
    /// The file with the list.
    extentlist: PathBuf,
}

impl Filter for ExtentList {
    const NAME: &'static str = "extentlist";
    const MANUAL: &'static str = include_str!("extentlist.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        let file = self.extentlist.display();
        let text = std::fs::read_to_string(&self.extentlist)
            .map_err(|e| Error::from(e).context(format!("extentlist={file}")))?;
        let list: Arc<[Listed]> =
            parse(&text).map_err(|why| Error::invalid(format!("extentlist={file}: {why}")))?.into();
        Ok(each(next, move |disk, _| {
            let facts = Facts { extents: true, ..disk.facts().clone() };
            Ok(Arc::new(Told { facts, list: list.clone(), next: disk }))
        }))
    }
}

/// One line of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listed {
    range: Range,
    kind: Kind,
}

/// The lines of a list in the order of the disk, which do not overlap.
fn parse(text: &str) -> std::result::Result<Vec<Listed>, String> {
    let mut list = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let at = |why: String| format!("line {}: {why}", number + 1);
        let words: Vec<&str> = line.split_whitespace().collect();
        let (start, len, kind) = match words[..] {
            [] => continue,
            [start, len] => (start, len, Kind::DATA),
            [start, len, kind] => (start, len, kind_of(kind).map_err(at)?),
            _ => return Err(at(format!("'{}' is not OFFSET LENGTH [TYPE]", line.trim()))),
        };
        let size =
            |text: &str| Size::from_text(text).map(Size::bytes).map_err(|e| at(format!("{text}: {}", e.0)));
        let range = Range::new(size(start)?, size(len)?);
        if range.start.checked_add(range.len).is_none_or(|end| end > i64::MAX as u64) {
            return Err(at("the extent ends beyond the largest disk".into()));
        }
        if !range.is_empty() {
            list.push((number + 1, Listed { range, kind }));
        }
    }
    list.sort_by_key(|(_, listed)| listed.range.start);
    for pair in list.windows(2) {
        let [(first, a), (second, b)] = pair else { continue };
        if b.range.start < a.range.end() {
            return Err(format!("the extents of lines {first} and {second} overlap"));
        }
    }
    Ok(list.into_iter().map(|(_, listed)| listed).collect())
}

/// See [`crate::try_list`].
pub(crate) fn try_list(text: &str) {
    let Ok(list) = parse(text) else { return };
    assert!(list.windows(2).all(|pair| pair[0].range.end() <= pair[1].range.start), "in order");
    assert!(list.iter().all(|listed| !listed.range.is_empty() && listed.range.lies_within(i64::MAX as u64)));
}

/// `hole,zero`, `2`, and so on.
fn kind_of(text: &str) -> std::result::Result<Kind, String> {
    let bits = match u32::from_text(text) {
        Ok(bits) if bits <= 3 => bits,
        Ok(_) => return Err(format!("'{text}' is no type: those are from 0 to 3")),
        Err(_) => text.split(',').try_fold(0, |bits, word| match word {
            "hole" => Ok(bits | 1),
            "zero" => Ok(bits | 2),
            // As `nbdinfo --map` names what is neither.
            "data" => Ok(bits),
            _ => Err(format!("'{word}' is neither hole nor zero nor data")),
        })?,
    };
    Ok(Kind { hole: bits & 1 != 0, zero: bits & 2 != 0 })
}

struct Told {
    facts: Facts,
    list: Arc<[Listed]>,
    next: Arc<dyn Disk>,
}

impl Disk for Told {
    disk::forward!(next: next, read, write, zero, trim, flush, cache, status);
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn extents(&self, r: Range, limit: usize) -> Io<'_, Extents> {
        let mut extents = Extents::new();
        let mut at = r.start;
        let first = self.list.partition_point(|listed| listed.range.end() <= r.start);
        for listed in &self.list[first..] {
            if extents.len() > limit {
                break;
            }
            let Some(part) = listed.range.intersect(r) else { break };
            // What the list leaves out is a hole.
            extents.push(part.start - at, Kind::HOLE);
            extents.push(part.len, listed.kind);
            at = part.end();
        }
        if extents.len() <= limit {
            extents.push(r.end() - at, Kind::HOLE);
        }
        Io::ok(extents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, noise, opened};
    use proptest::prelude::*;

    #[test]
    fn lines_are_offset_length_and_type() {
        let text = "1M 9M hole,zero\n\n 0  1M data\n10M 4K 1\n11M 1 zero\n12M 0 3\n";
        let list = parse(text).unwrap();
        let shown: Vec<(u64, u64, bool, bool)> =
            list.iter().map(|l| (l.range.start, l.range.len, l.kind.hole, l.kind.zero)).collect();
        let m = 1 << 20;
        assert_eq!(
            shown,
            [
                (0, m, false, false),
                (m, 9 * m, true, true),
                (10 * m, 4096, true, false),
                (11 * m, 1, false, true)
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let why = |text| parse(text).unwrap_err();
        assert_eq!(why("0 1M\n2M"), "line 2: '2M' is not OFFSET LENGTH [TYPE]");
        assert_eq!(why("0 1M full"), "line 1: 'full' is neither hole nor zero nor data");
        assert_eq!(why("0 1M 4"), "line 1: '4' is no type: those are from 0 to 3");
        assert_eq!(why("5 5\n0 6"), "the extents of lines 2 and 1 overlap");
        assert_eq!(why("7E 7E"), "line 1: the extent ends beyond the largest disk");
        assert!(why("x 1M").starts_with("line 1: x: "));
    }

    #[test]
    fn what_is_not_listed_is_a_hole() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("list");
        std::fs::write(&file, "512 512\n2048 1024 zero\n1M 1M\n").unwrap();
        let memory = Memory::new(noise(1, 4096));
        let disk = opened::<ExtentList>(&[&format!("extentlist={}", file.display())], &memory);
        let found = disk.extents(disk.facts().whole(), 100).wait().unwrap();
        let list: Vec<(u64, Kind)> = found.iter().map(|e| (e.len, e.kind)).collect();
        assert_eq!(
            list,
            [
                (512, Kind::HOLE),
                (512, Kind::DATA),
                (1024, Kind::HOLE),
                (1024, Kind::ZERO),
                (1024, Kind::HOLE)
            ]
        );
        let found = disk.extents(Range::new(600, 3000), 1).wait().unwrap();
        assert_eq!(found.iter().next().unwrap().len, 424);
    }

    proptest! {
        #[test]
        fn any_text_is_a_list_or_an_error(text in "([0-9a-zA-Z,\\- ]{0,12}\n){0,6}") {
            if let Ok(list) = parse(&text) {
                prop_assert!(list.is_sorted_by(|a, b| a.range.end() <= b.range.start));
            }
        }
    }
}
