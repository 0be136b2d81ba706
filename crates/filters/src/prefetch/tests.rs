//! Tests of `prefetch`, over the fake disk that waits: what is read ahead is there without waiting, nothing else is,
//! and nothing is ever wrong.

use super::*;
use crate::common::testing::{Random, noise, open, over};
use conformance::Fake;
use disk::{Blocks, Errno};
use std::time::{Duration, Instant};

const SIZE: u64 = 4 << 20;

fn trace(dir: &tempfile::TempDir, size: u64, identity: Option<&str>, parts: &[Range]) -> String {
    let path = dir.path().join("trace");
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = file::Writer::new(file, size, identity).unwrap();
    for part in parts {
        writer.add(*part).unwrap();
    }
    writer.flush().unwrap();
    format!("prefetch-file={}", path.display())
}

/// 100 blocks all over the disk.
fn boot() -> Vec<Range> {
    (0..100).map(|n| Range::new((n * 37 % 100) * 40960, 4096)).collect()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn reads(fake: &Fake) -> u64 {
    fake.count(|op| op == disk::shapes::OpKind::Read)
}

#[test]
fn what_is_traced_is_read_ahead_and_then_answered_without_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::new(Facts::capable(SIZE), 1);
    fake.wait_each_time(1);
    let layer = over::<Prefetch>(&[&trace(&dir, SIZE, None, &boot())], fake.backend()).unwrap();
    let disk = open(&layer);
    until("everything is read ahead", || reads(&fake) == 100);
    let plain = open(&fake.backend());
    for (n, part) in boot().into_iter().enumerate() {
        // The last ones may still be on their way.
        let answer = disk.read(part);
        assert!(n > 80 || matches!(answer, Io::Ready(Ok(_))), "{part}");
        let answer = answer.wait().unwrap().to_vec();
        assert_eq!(answer, plain.read(part).wait().unwrap().to_vec());
    }
    assert_eq!(reads(&fake), 200, "none was read below for the client");
    // Once read, it is let go.
    assert!(matches!(disk.read(boot()[0]), Io::Later(_)));
    disk.close().wait().unwrap();
    layer.finish();
}

#[test]
fn no_more_is_held_than_the_window_allows_and_what_was_passed_by_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::new(Facts::capable(SIZE), 2);
    let all: Vec<Range> = Range::new(0, SIZE).split_at_multiples(65536).collect();
    let scattered: Vec<Range> = (0..64).map(|n| all[n * 37 % 64]).collect();
    let params = [trace(&dir, SIZE, None, &scattered), "prefetch-window=1M".into()];
    let layer = over::<Prefetch>(&[&params[0], &params[1]], fake.backend()).unwrap();
    let disk = open(&layer);
    until("the window is full", || reads(&fake) == 16);
    // The client is farther than the trace: it skips the first ones, which make room.
    disk.read(scattered[15]).wait().unwrap();
    until("the rest is read ahead", || reads(&fake) >= 31);
    for part in &scattered[20..] {
        disk.read(*part).wait().unwrap();
    }
    disk.close().wait().unwrap();
    layer.finish();
}

#[test]
fn what_is_written_is_never_answered_from_before() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 0..20 {
        let fake = Fake::new(Facts::capable(SIZE), 3);
        fake.wait_each_time((seed % 3) as u32);
        let layer = over::<Prefetch>(&[&trace(&dir, SIZE, None, &boot())], fake.backend()).unwrap();
        let disk = open(&layer);
        let other = layer.open(&Client::local("another name")).wait().unwrap();
        let mut random = Random(seed);
        for _ in 0..100 {
            let part = boot()[random.below(100) as usize];
            let writer = if random.below(2) == 0 { &disk } else { &other };
            let at = part.start + random.below(3000);
            let bytes = noise(random.below(99), 500);
            writer.write(at, Data::copy_from(&bytes), WriteFlags::default()).wait().unwrap();
            let back = disk.read(Range::new(part.start, 4096)).wait().unwrap().to_vec();
            let at = (at - part.start) as usize;
            assert_eq!(back[at..at + 500], bytes, "seed {seed}");
        }
        layer.finish();
    }
}

#[test]
fn a_trace_of_another_disk_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let is_used = |param: &str, facts: Facts| {
        let fake = Fake::new(facts, 4);
        let layer = over::<Prefetch>(&[param], fake.backend()).unwrap();
        let disk = open(&layer);
        let used = fake.opened_and_closed().0 > 1;
        drop(disk);
        layer.finish();
        used
    };
    let named = |name: &str| Facts { identity: Some(name.into()), ..Facts::capable(SIZE) };
    let param = trace(&dir, SIZE, Some("of today"), &boot());
    assert!(is_used(&param, named("of today")) && is_used(&param, Facts::capable(SIZE)));
    assert!(!is_used(&param, named("of yesterday")));
    assert!(!is_used(&param, Facts { multi_conn: false, ..Facts::capable(SIZE) }));
    assert!(!is_used(&param, Facts::capable(SIZE - 512)));
}

#[test]
fn a_read_ahead_that_fails_is_nobodys_error_until_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::new(Facts::capable(SIZE), 5);
    let failing =
        over::<crate::error::Error>(&["error-pread=EIO", "error-pread-rate=1"], fake.backend()).unwrap();
    let layer = over::<Prefetch>(&[&trace(&dir, SIZE, None, &boot())], failing).unwrap();
    let disk = open(&layer);
    for part in boot() {
        assert_eq!(disk.read(part).wait().unwrap_err().errno(), Errno::IO);
    }
    disk.close().wait().unwrap();
    layer.finish();
}

#[test]
fn larger_blocks_than_the_traces_are_kept_to() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = Blocks { minimum: 65536, preferred: 65536, maximum: 65536 };
    // The fake disk refuses what does not keep to them.
    let fake = Fake::new(Facts { blocks, ..Facts::capable(SIZE) }, 6);
    let parts = [Range::new(4096, 8192), Range::new(131_072, 400_000 / 4096 * 4096)];
    let layer = over::<Prefetch>(&[&trace(&dir, SIZE, None, &parts)], fake.backend()).unwrap();
    let disk = open(&layer);
    until("whole blocks are read ahead", || reads(&fake) == 6);
    disk.read(Range::new(131_072, 65536)).wait().unwrap();
    layer.finish();
}

#[test]
fn parameters_and_files_that_make_no_sense_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let why = |params: &[&str]| {
        over::<Prefetch>(params, Fake::new(Facts::capable(SIZE), 7).backend()).err().unwrap().to_string()
    };
    let good = trace(&dir, SIZE, None, &[]);
    assert!(why(&[&good, "prefetch-parallel=0"]).contains("prefetch-parallel=0: at least one"));
    assert!(why(&[&good, "prefetch-window=4K"]).contains("prefetch-window=4K: less than 1M"));
    let missing = why(&["prefetch-file=/no/such/file"]);
    assert_eq!(missing, "prefetch: prefetch-file=/no/such/file: No such file or directory");
    let other = dir.path().join("other");
    std::fs::write(&other, "#!/bin/sh").unwrap();
    assert!(
        why(&[&format!("prefetch-file={}", other.display())]).ends_with("this is not the file of a trace")
    );
}
