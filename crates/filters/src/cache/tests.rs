//! What is kept, what is written back and when, and what becomes of it when something fails.

mod outliving;
mod power;

use super::*;
use crate::common::testing::{Memory, layer, noise, open, opened, over};
use disk::{Data, Errno, Range, WriteFlags, ZeroFlags};

const SIZE: usize = 1 << 20;
const F: WriteFlags = WriteFlags { fua: false };

fn read(disk: &Arc<dyn Disk>, start: u64, len: u64) -> Vec<u8> {
    disk.read(Range::new(start, len)).wait().unwrap().to_vec()
}

fn write(disk: &Arc<dyn Disk>, at: u64, bytes: &[u8]) {
    disk.write(at, Data::copy_from(bytes), F).wait().unwrap();
}

#[test]
fn writes_stay_until_somebody_flushes() {
    let memory = Memory::new(noise(1, SIZE));
    let disk = opened::<CacheFilter>(&[], &memory);
    write(&disk, 100, b"hello");
    assert_eq!(memory.asked(), ["read 0 65536"]);
    assert_eq!(read(&disk, 100, 5), b"hello");
    assert_eq!(read(&disk, 0, 65536).len(), 65536);
    assert_eq!(memory.asked(), [""; 0], "the block is in the cache");
    assert_eq!(memory.bytes(), noise(1, SIZE));
    disk.flush().wait().unwrap();
    assert_eq!(memory.asked(), ["write 0 65536", "flush"]);
    assert_eq!(&memory.bytes()[100..105], b"hello");
    disk.flush().wait().unwrap();
    assert_eq!(memory.asked(), ["flush"], "nothing is dirty");
}

#[test]
fn writethrough_writes_at_once_and_keeps_whole_blocks() {
    let memory = Memory::new(noise(1, SIZE));
    let disk = opened::<CacheFilter>(&["cache=writethrough", "cache-min-block-size=4K"], &memory);
    write(&disk, 0, &[7; 4100]);
    assert_eq!(memory.asked(), ["write 0 4100"]);
    assert_eq!(read(&disk, 0, 4096), [7; 4096]);
    assert_eq!(memory.asked(), [""; 0]);
    assert_eq!(read(&disk, 4096, 4), [7; 4]);
    assert_eq!(memory.asked(), ["read 4096 4"]);
}

#[test]
fn unsafe_never_writes() {
    let memory = Memory::new(noise(1, SIZE));
    let layer = layer::<CacheFilter>(&["cache=unsafe"], &memory).unwrap();
    let disk = open(&layer);
    disk.write(0, Data::zeroes(65536), WriteFlags { fua: true }).wait().unwrap();
    disk.flush().wait().unwrap();
    disk.close().wait().unwrap();
    assert_eq!(read(&open(&layer), 0, 65536), [0; 65536], "another connection sees it");
    layer.finish();
    assert_eq!(memory.bytes(), noise(1, SIZE));
}

#[test]
fn what_is_read_is_kept_if_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("on");
    let memory = Memory::new(noise(1, SIZE));
    let disk = opened::<CacheFilter>(&[&format!("cache-on-read={}", file.display())], &memory);
    let asked = || {
        assert_eq!(read(&disk, 70_000, 1000), noise(1, SIZE)[70_000..71_000]);
        memory.asked()
    };
    assert_eq!((asked(), asked()), (vec!["read 70000 1000".into()], vec!["read 70000 1000".into()]));
    std::fs::write(&file, "").unwrap();
    assert_eq!((asked(), asked()), (vec!["read 65536 65536".to_owned()], vec![]));
    disk.cache(Range::new(200_000, 1)).wait().unwrap();
    assert_eq!(memory.asked(), ["read 196608 65536"]);
    read(&disk, 200_000, 4096);
    assert_eq!(memory.asked(), [""; 0]);
}

#[test]
fn a_limited_cache_gives_up_what_is_oldest_and_writes_it_back_first() {
    let memory = Memory::new(noise(1, SIZE));
    let params = [
        "cache-min-block-size=4K",
        "cache-max-size=40K",
        "cache-high-threshold=90",
        "cache-low-threshold=50",
    ];
    let disk = opened::<CacheFilter>(&params, &memory);
    for block in 0..9u64 {
        write(&disk, block * 4096, &[block as u8; 4096]);
    }
    assert_eq!(memory.asked(), [""; 0]);
    write(&disk, 9 * 4096, &[9; 4096]);
    let back: Vec<String> = (0..4).map(|block| format!("write {} 4096", block * 4096)).collect();
    assert_eq!(memory.asked(), back);
    for block in 0..10u64 {
        assert_eq!(read(&disk, block * 4096, 4096), [block as u8; 4096]);
    }
}

#[test]
fn zeroes_and_trims_go_below_and_leave_the_rest_of_a_block() {
    let memory = Memory::new(noise(1, SIZE));
    let disk = opened::<CacheFilter>(&["cache-min-block-size=4K"], &memory);
    write(&disk, 0, &[5; 16384]);
    disk.zero(Range::new(1000, 10_000), ZeroFlags::default()).wait().unwrap();
    let expected = [vec![5; 1000], vec![0; 10_000], vec![5; 5384]].concat();
    assert_eq!(read(&disk, 0, 16384), expected);
    disk.flush().wait().unwrap();
    assert_eq!(memory.bytes()[..16384], expected);
}

#[test]
fn dirty_blocks_are_data_whatever_lies_below() {
    let memory = Memory::new(vec![0; SIZE]);
    let disk = opened::<CacheFilter>(&["cache-min-block-size=4K"], &memory);
    write(&disk, 8192, &[1; 10]);
    let found = disk.extents(disk.facts().whole(), 10).wait().unwrap();
    let list: Vec<(u64, bool)> = found.iter().map(|e| (e.len, e.kind.zero)).collect();
    assert_eq!(list, [(8192, true), (4096, false), (SIZE as u64 - 12288, true)]);
}

#[test]
fn what_cannot_be_written_back_stays_and_is_written_later() {
    let dir = tempfile::tempdir().unwrap();
    let fail = dir.path().join("fail");
    let memory = Memory::new(noise(1, SIZE));
    let errors = ["error-rate=100%", "error=ENOSPC", &format!("error-file={}", fail.display())];
    let failing = layer::<crate::error::Error>(&errors, &memory).unwrap();
    let disk = open(&over::<CacheFilter>(&[], failing).unwrap());
    write(&disk, 0, &[3; 65536]);
    std::fs::write(&fail, "").unwrap();
    assert_eq!(disk.flush().wait().unwrap_err().errno(), Errno::NOSPC);
    assert_eq!(read(&disk, 0, 10), [3; 10]);
    std::fs::remove_file(&fail).unwrap();
    disk.flush().wait().unwrap();
    assert_eq!(memory.bytes()[..65536], [3; 65536]);
}

#[test]
fn what_is_left_is_written_at_the_end() {
    let memory = Memory::new(noise(1, SIZE));
    let layer = layer::<CacheFilter>(&[], &memory).unwrap();
    let disk = open(&layer);
    write(&disk, 0, &[4; 10]);
    drop(disk);
    layer.finish();
    assert_eq!(memory.bytes()[..10], [4; 10]);
    assert_eq!(memory.asked().last().unwrap(), "close");
}

#[test]
fn parameters_that_contradict_each_other_are_refused() {
    let why = |params: &[&str]| layer::<CacheFilter>(params, &Memory::new(vec![])).err().unwrap().to_string();
    assert!(why(&["cache-low-threshold=95"]).contains("the lower must be above 0 and below the higher"));
    assert_eq!(
        why(&["cache-min-block-size=1000"]),
        "cache: cache-min-block-size=1000: not a power of two from 4K to 1G"
    );
    assert_eq!(
        why(&["cache-max-size=100K"]),
        "cache: cache-max-size=100K: less than two blocks of cache-min-block-size=64K"
    );
}
