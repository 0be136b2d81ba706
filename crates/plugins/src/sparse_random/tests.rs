use super::*;
use crate::common::model;
use std::sync::Arc;

fn open(more: &[(&str, &str)]) -> Arc<dyn Disk> {
    model::open::<SparseRandom>(&[&[("size", "1G"), ("seed", "42")], more].concat()).unwrap()
}

/// All ranges of the disk's first `len` bytes.
fn map(disk: &dyn Disk, len: u64) -> Vec<(Range, Kind)> {
    let (mut at, mut list) = (0, Extents::new());
    while at < len {
        let some = disk.extents(Range::new(at, len - at), 7).wait().unwrap();
        at += some.covered();
        list.append(&some);
    }
    list.ranges(0).collect()
}

#[test]
fn the_same_seed_gives_the_same_disk_and_another_one_another() {
    let sample = |seed: &str| -> Vec<_> {
        let disk = model::open::<SparseRandom>(&[("size", "1T"), ("seed", seed)]).unwrap();
        let content = map(&*disk, 20 << 30)
            .into_iter()
            .map(|(range, kind)| (range, kind, model::bytes(&*disk, range.end() - 100, 100)));
        content.collect()
    };
    assert!(sample("1") == sample("1"));
    assert!(sample("1") != sample("2"));
    let unseeded = || map(&*model::open::<SparseRandom>(&[("size", "20G")]).unwrap(), 20 << 30);
    assert_ne!(unseeded(), unseeded());
}

#[test]
fn extents_tell_what_reads_find() {
    for random in ["false", "true"] {
        let disk = open(&[("runlength", "100K"), ("percent", "30"), ("random-content", random)]);
        for (range, kind) in map(&*disk, 30 << 20) {
            let data = disk.read(range).wait().unwrap();
            assert_eq!(data.says_zeroes(), kind == Kind::HOLE, "{range}");
            for part in range.split_at_multiples(4096) {
                let block = data.slice(part.start - range.start, part.len).to_vec();
                match (kind, random) {
                    (Kind::HOLE, _) => assert!(block.iter().all(|b| *b == 0)),
                    (_, "false") => assert!(block[0] != 0 && block.iter().all(|b| *b == block[0])),
                    _ => assert!(block.iter().any(|b| *b != block[0])),
                }
            }
        }
    }
}

#[test]
fn reads_of_any_place_agree() {
    for random in ["false", "true"] {
        let disk = open(&[("runlength", "20K"), ("percent", "50"), ("random-content", random)]);
        let whole = model::bytes(&*disk, 0, 1 << 20);
        let mut dice = model::Dice(1);
        for _ in 0..500 {
            let r = dice.range(1 << 20);
            assert!(model::bytes(&*disk, r.start, r.len) == whole[r.start as usize..r.end() as usize], "{r}");
        }
    }
}

#[test]
fn writing_back_what_was_read_works_and_anything_else_is_an_error() {
    for random in ["false", "true"] {
        let disk = open(&[("runlength", "50K"), ("percent", "40"), ("random-content", random)]);
        let write = |at, data| disk.write(at, data, WriteFlags::default()).wait();
        let mut dice = model::Dice(2);
        for _ in 0..300 {
            let r = dice.range(8 << 20);
            let data = disk.read(r).wait().unwrap();
            write(r.start, data.clone()).unwrap();
            write(r.start, data.contiguous()).unwrap();
            let mut wrong = data.to_vec();
            let at = dice.below(r.len) as usize;
            wrong[at] ^= 1 << dice.below(8);
            assert_eq!(write(r.start, Data::copy_from(&wrong)).unwrap_err().errno(), Errno::IO);
            let hole = data.is_zero();
            assert_eq!(write(r.start, Data::zeroes(r.len)).is_ok(), hole);
            assert_eq!(disk.zero(r, ZeroFlags::default()).wait().is_ok(), hole);
            assert_eq!(disk.trim(r, WriteFlags { fua: true }).wait().is_ok(), hole);
        }
    }
}

#[test]
fn a_disk_of_any_size_opens_at_once() {
    let disk =
        model::open::<SparseRandom>(&[("size", "9223372036854775807"), ("runlength", "4096")]).unwrap();
    let last = Range::new(disk.facts().size - 10_000, 10_000);
    let data = disk.read(last).wait().unwrap();
    disk.write(last.start, data, WriteFlags::default()).wait().unwrap();
    assert!(disk.extents(disk.facts().whole(), 8192).wait().unwrap().len() >= 8192);
}

#[test]
fn parameters_are_checked() {
    for (key, value) in [
        ("percent", "101"),
        ("percent", "-1"),
        ("percent", "x"),
        ("percent", "nan"),
        ("runlength", "0"),
        ("seed", "-1"),
    ] {
        assert!(model::open::<SparseRandom>(&[("size", "1M"), (key, value)]).is_err(), "{key}={value}");
    }
    assert_eq!(map(&*open(&[("percent", "0")]), 1 << 30), [(Range::new(0, 1 << 30), Kind::HOLE)]);
    assert_eq!(map(&*open(&[("percent", "100")]), 1 << 30), [(Range::new(0, 1 << 30), Kind::DATA)]);
    assert!(map(&*open(&[("percent", "1.5"), ("runlength", "1M")]), 1 << 30).len() > 3);
}
