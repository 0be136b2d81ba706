//! Filters that keep bytes nearer to clients: cache, readahead, scan.

use e2e::{Run, Server, directory, needs};
use rustix::process::Signal;
use std::fs;

#[track_caller]
fn nbdsh(uri: &str, script: &str) -> String {
    Run::new("nbdsh").arg("-u").arg(uri).args(["-c", script]).text()
}

#[test]
fn writes_reach_the_file_with_a_flush_and_survive_the_servers_death() {
    needs!("nbdsh");
    let dir = directory();
    let disk = dir.path().join("disk");
    for (mode, before, after) in
        [("writeback", false, true), ("writethrough", true, true), ("unsafe", false, false)]
    {
        fs::write(&disk, vec![b'.'; 1 << 20]).unwrap();
        let server = Server::ours(&format!("--filter=cache file {} cache={mode}", disk.display()));
        let there = || fs::read(&disk).unwrap()[5000..5005] == *b"hello";
        let go = dir.path().join("go");
        let script = "import os, time
h.pwrite(b\"hello\", 5000)
open(os.environ[\"go\"], \"w\").close()
while os.path.exists(os.environ[\"go\"]): time.sleep(0.01)
h.flush(); open(os.environ[\"go\"], \"w\").close(); time.sleep(60)";
        let client =
            Run::new("nbdsh").env("go", &go).arg("-u").arg(server.uri()).args(["-c", script]).start();
        let until_there = |wanted: bool| {
            let start = std::time::Instant::now();
            while go.exists() != wanted {
                assert!(start.elapsed() < std::time::Duration::from_secs(60));
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        };
        until_there(true);
        assert_eq!(there(), before, "{mode}, written");
        fs::remove_file(&go).unwrap();
        until_there(true);
        server.process.signal(Signal::KILL);
        drop((server, client));
        assert_eq!(there(), after, "{mode}, flushed");
        fs::remove_file(&go).unwrap();
    }
}

#[test]
fn a_copy_through_every_kind_of_cache_is_right() {
    needs!("nbdcopy", "cmp");
    let dir = directory();
    let command = "diskpipe serve pattern 8M --run 'nbdcopy \"$uri\" source' && nbdcopy --flush source \"$uri\" \
        && nbdcopy \"$uri\" copy && cmp source copy && nbdcopy \"$uri\" again && cmp source again";
    for options in [
        "",
        "cache=writethrough cache-on-read=true",
        "cache=unsafe",
        "cache-on-read=true cache-max-size=1M",
        "cache-min-block-size=4K cache-max-size=256K cache-high-threshold=60 cache-low-threshold=30",
    ] {
        let arguments = format!("--filter=cache memory 8M {options}");
        Run::serve(&arguments, command).in_directory(dir.path()).end().good();
    }
}

#[test]
fn what_was_read_once_is_not_read_again() {
    needs!("nbdcopy");
    let dir = directory();
    let reads = |options: &str| {
        let arguments = format!("--filter=cache --filter=log pattern 4M logfile=log {options}");
        let command = "nbdcopy \"$uri\" null: && nbdcopy \"$uri\" null:";
        Run::serve(&arguments, command).in_directory(dir.path()).end().good();
        let log = fs::read_to_string(dir.path().join("log")).unwrap();
        let counts = log.lines().filter(|line| line.contains(" Read "));
        let bytes = counts.filter_map(|line| line.split_once("count=0x")?.1.split_whitespace().next());
        bytes.map(|hex| u64::from_str_radix(hex, 16).unwrap()).sum::<u64>()
    };
    assert_eq!(reads("cache-on-read=true"), 4 << 20);
    assert_eq!(reads("cache-on-read=false"), 8 << 20);
    let limited = reads("cache-on-read=true cache-max-size=512K");
    assert!(limited > 7 << 20, "{limited}");
}

#[test]
fn who_reads_in_order_is_read_ahead_for() {
    needs!("nbdsh");
    let dir = directory();
    let log = dir.path().join("log");
    let mut server = Server::ours(&format!(
        "--filter=readahead --filter=cache --filter=log pattern 64M logfile={}",
        log.display()
    ));
    nbdsh(
        &server.uri(),
        "for at in range(0, 1 << 20, 65536): h.pread(65536, at)\nimport time; time.sleep(0.2)",
    );
    server.until("bytes were read that nobody has asked for", |_| {
        let log = fs::read_to_string(&log).unwrap_or_default();
        log.lines()
            .filter_map(|line| {
                line.split_once("Read id=")?.1.split_once("offset=0x")?.1.split_whitespace().next()
            })
            .filter_map(|hex| u64::from_str_radix(hex, 16).ok())
            .any(|at| at >= 1 << 20)
    });
}

#[test]
fn all_of_a_disk_is_scanned_while_a_client_is_there() {
    needs!("nbdsh");
    let dir = directory();
    let arguments = "--filter=scan --filter=cache --filter=log pattern 8M logfile=log scan-size=1M";
    let script = "import os, time
end = time.time() + 30
while \"offset=0x7f0000\" not in open(\"log\").read() and \"offset=0x700000\" not in open(\"log\").read():
  assert time.time() < end
  time.sleep(0.01)";
    Run::serve(arguments, &format!("nbdsh -u \"$uri\" -c '{script}'")).in_directory(dir.path()).end().good();
}

#[test]
fn what_cannot_cache_is_told() {
    needs!("nbdinfo");
    for name in ["readahead", "scan"] {
        let ended =
            Run::serve(&format!("--filter={name} --filter=nocache memory 1M"), "nbdinfo --size \"$uri\"")
                .end()
                .good();
        assert!(
            ended.stderr.contains(&format!("{name} does nothing: what is below cannot cache")),
            "{}",
            ended.stderr
        );
    }
    let ended = Run::serve("--filter=cacheextents memory 1M", "nbdinfo --size \"$uri\"").end().good();
    assert!(ended.stderr.contains("cacheextents is no longer needed"), "{}", ended.stderr);
}

#[test]
fn a_traced_boot_from_a_distant_disk_is_more_than_twice_as_fast_the_next_time() {
    needs!("nbdsh");
    let dir = directory();
    // A guest reads here and there, and waits for every answer.
    let boot = "import time
start = time.monotonic()
for n in range(150): h.pread(4096, n * 7919 % 997 * 65536)
print(time.monotonic() - start)";
    let seconds = |filters: &str, parameters: &str| -> f64 {
        let arguments =
            format!("{filters} --filter=delay --filter=log pattern 64M rdelay=20ms logfile=log {parameters}");
        let run = Run::serve(&arguments, &format!("nbdsh -u \"$uri\" -c '{boot}'")).in_directory(dir.path());
        run.text().trim().parse().unwrap()
    };
    let reads = || fs::read_to_string(dir.path().join("log")).unwrap().matches(" ...Read ").count();
    let first = seconds("--filter=trace", "trace-file=boot.trace");
    assert!(first > 150.0 * 0.02, "each read waits for its answer: {first}");
    assert_eq!(reads(), 150);
    let second = seconds("--filter=prefetch", "prefetch-file=boot.trace");
    assert!(second * 2.0 < first, "{first}, then {second}");
    // Whatever came from below was asked for once.
    assert!((150..=160).contains(&reads()), "{}", reads());
    // A trace that was cut off, as by a kill, is good up to there.
    let trace = fs::read(dir.path().join("boot.trace")).unwrap();
    fs::write(dir.path().join("boot.trace"), &trace[..trace.len() - 3]).unwrap();
    let third = seconds("--filter=prefetch", "prefetch-file=boot.trace");
    assert!(third < first, "{first}, then {third}");
}

#[test]
fn a_trace_of_another_disk_is_left_aside_with_a_message() {
    needs!("nbdsh");
    let dir = directory();
    let read = "nbdsh -u \"$uri\" -c 'h.pread(4096, 65536)'";
    Run::serve("--filter=trace pattern 1M trace-file=boot.trace", read).in_directory(dir.path()).end().good();
    let end = Run::serve("--filter=prefetch pattern 2M prefetch-file=boot.trace", read)
        .in_directory(dir.path())
        .end();
    assert!(end.good().stderr.contains("the trace is of a disk of 1048576 bytes, and this one has 2097152"));
    fs::write(dir.path().join("boot.trace"), "not a trace").unwrap();
    let end = Run::serve("--filter=prefetch pattern 2M prefetch-file=boot.trace", read)
        .in_directory(dir.path())
        .end();
    assert!(end.code(1).stderr.contains("boot.trace: this is not the file of a trace"));
}

#[test]
fn a_kept_cache_reads_a_slow_disk_once_until_that_changes() {
    needs!("nbdcopy");
    let dir = directory();
    let source = dir.path().join("disk");
    fs::write(&source, vec![7; 4 << 20]).unwrap();
    let reads = || {
        let arguments =
            "--filter=cache --filter=log file disk logfile=log cache-file=kept cache-on-read=true";
        Run::serve(arguments, "nbdcopy \"$uri\" copy").in_directory(dir.path()).end().good();
        let copy = fs::read(dir.path().join("copy")).unwrap();
        assert!(copy == fs::read(&source).unwrap(), "the copies differ");
        fs::remove_file(dir.path().join("copy")).unwrap();
        let log = fs::read_to_string(dir.path().join("log")).unwrap();
        log.lines().filter(|line| line.contains(" Read ")).count()
    };
    assert!(reads() > 0);
    assert_eq!(reads(), 0);
    fs::write(&source, vec![8; 4 << 20]).unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(10);
    fs::File::options().write(true).open(&source).unwrap().set_modified(later).unwrap();
    assert!(reads() > 0);
    assert_eq!(reads(), 0);
}

#[test]
fn a_killed_server_with_a_kept_cache_loses_nothing_that_was_flushed() {
    needs!("nbdsh");
    let dir = directory();
    let disk = dir.path().join("disk");
    fs::write(&disk, vec![0; 4 << 20]).unwrap();
    let serve = || {
        let file = dir.path().join("kept");
        let options = "cache-min-block-size=4K cache-max-size=2M cache-on-read=true";
        Server::ours(&format!(
            "--filter=cache file {} cache-file={} {options}",
            disk.display(),
            file.display()
        ))
    };
    // Each number goes into all of its slot, is flushed, and is told.
    let script = "
import os
start = int(os.environ['first'])
for n in range(start, start + 100000):
    h.pwrite(n.to_bytes(8, 'big') * 512, n % 1024 * 4096)
    if n % 7 == 0:
        h.flush()
        with open(os.environ['told'] + '.new', 'w') as f: f.write(str(n))
        os.rename(os.environ['told'] + '.new', os.environ['told'])";
    let told = dir.path().join("told");
    let (mut first, mut flushed) = (1u64, 0u64);
    let mut expected = vec![0; 1024];
    for round in 0..5 {
        let server = serve();
        let run = Run::new("nbdsh").env("first", first.to_string()).env("told", &told);
        let writer = run.arg("-u").arg(server.uri()).args(["-c", script]).start();
        let started = std::time::Instant::now();
        while flushed < first + 300 * (round + 1) {
            assert!(started.elapsed() < std::time::Duration::from_secs(120), "{flushed} flushed");
            flushed = fs::read_to_string(&told).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        server.process.signal(Signal::KILL);
        drop((server, writer));
        flushed = fs::read_to_string(&told).unwrap().parse().unwrap();
        (first..=flushed).for_each(|n| expected[n as usize % 1024] = n);
        let server = serve();
        let copy = dir.path().join("copy");
        Run::diskpipe().args(["copy", "--no-extents"]).arg(server.uri()).arg(&copy).end().good();
        let bytes = fs::read(&copy).unwrap();
        for slot in 0..1024u64 {
            let newest = expected[slot as usize];
            let slot_bytes = &bytes[slot as usize * 4096..][..4096];
            let found = u64::from_be_bytes(slot_bytes[..8].try_into().unwrap());
            assert!(found >= newest, "slot {slot} has {found}, and {newest} was flushed");
        }
        fs::remove_file(copy).unwrap();
        if round == 2 {
            // An orderly end brings all of it below.
            server.stop();
            let bytes = fs::read(&disk).unwrap();
            assert_eq!(bytes[(flushed % 1024 * 4096) as usize..][..8], flushed.to_be_bytes());
        }
        first = flushed + 1024;
        first -= first % 1024;
        flushed = 0;
    }
}

#[test]
fn a_kept_cache_without_room_passes_writes_on() {
    needs!("nbdsh");
    let dir = directory();
    // In blocks of 512 bytes: room for about half of it.
    let serve =
        "ulimit -f 9000; diskpipe serve --filter=cache memory 8M cache-file=kept cache-on-read=true --run";
    let script = format!(
        "{serve} 'nbdsh -u \"$uri\" -c \"
for at in range(0, 8 << 20, 65536): h.pwrite(bytes([at // 65536 % 251]) * 65536, at)
h.flush()
for at in range(0, 8 << 20, 65536): assert h.pread(65536, at) == bytes([at // 65536 % 251]) * 65536
\"'"
    );
    Run::sh(&script).in_directory(dir.path()).end().good();
    assert!(fs::metadata(dir.path().join("kept")).unwrap().len() <= 9000 * 512);
}
