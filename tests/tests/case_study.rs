//! What copying costs with and without efficient zeroing: a hundred megabytes, every other one a hole, into a server
//! that zeroes well, badly or not at all. The log has what the client asked for, the statistics what reached the disk.

use e2e::{Run, directory, needs};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Requests of a kind and their bytes.
#[derive(Debug, PartialEq, Eq, Clone, Copy, Default)]
struct Count {
    requests: u64,
    bytes: u64,
}

/// What a copy came to.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    /// As the client asked.
    writes: Count,
    zeroes: Count,
    /// As the disk saw it.
    written: Count,
    zeroed: Count,
}

/// Fifty times a megabyte of data and a megabyte of nothing, as qcow2.
fn alternating(directory: &Path) {
    let raw = File::create(directory.join("source.raw")).unwrap();
    raw.set_len(100 << 20).unwrap();
    for pair in 0..50_u64 {
        let data: Vec<u8> = (0..1_u64 << 20).map(|at| (at * 31 + (at >> 8) * pair + 1) as u8 | 1).collect();
        raw.write_all_at(&data, pair << 21).unwrap();
    }
    let convert = "convert -f raw -O qcow2 source.raw source.qcow2";
    Run::new("qemu-img").words(convert).in_directory(directory).end().good();
}

fn copied(tool: &str, modes: &str, directory: &Path) -> Outcome {
    let server = format!(
        "-U - --filter=log --filter=nozero --filter=delay --filter=stats memory 100M wdelay=1ms \
         logfile=log statsfile=stats {modes}"
    );
    let command = format!(
        r#"{tool} -- [ qemu-nbd -r -f qcow2 source.qcow2 ] "$uri" &&
           qemu-img compare -f qcow2 -F raw source.qcow2 "$uri""#
    );
    let said = Run::serve(&server, &command).in_directory(directory).text();
    assert_eq!(said, "Images are identical.\n", "{tool} {modes}");
    // Whoever compares only reads.
    let log = fs::read_to_string(directory.join("log")).unwrap();
    let stats = fs::read_to_string(directory.join("stats")).unwrap();
    for file in ["log", "stats"] {
        fs::remove_file(directory.join(file)).unwrap();
    }
    Outcome {
        writes: logged(&log, "Write"),
        zeroes: logged(&log, "Zero"),
        written: counted(&stats, "write"),
        zeroed: counted(&stats, "zero"),
    }
}

/// `DATE TIME connection=1 Write id=3 offset=0x0 count=0x40000 fua=0 ...`
fn logged(log: &str, kind: &str) -> Count {
    let mut found = Count::default();
    for line in log.lines().filter(|line| line.contains(&format!(" {kind} id="))) {
        let count = line.split(' ').find_map(|word| word.strip_prefix("count=0x")).unwrap();
        found.requests += 1;
        found.bytes += u64::from_str_radix(count, 16).unwrap();
    }
    found
}

/// `write: 400 ops, 0.1 s, 100.00 MiB, ...`
fn counted(stats: &str, kind: &str) -> Count {
    let Some(line) = stats.lines().find_map(|line| line.strip_prefix(&format!("{kind}: "))) else {
        return Count::default();
    };
    let mut parts = line.split(", ");
    let requests = parts.next().unwrap().strip_suffix(" ops").unwrap().parse().unwrap();
    let mebibytes: f64 = parts.nth(1).unwrap().strip_suffix(" MiB").unwrap().parse().unwrap();
    Count { requests, bytes: (mebibytes * 1048576.0) as u64 }
}

const fn count(requests: u64, mebibytes: u64) -> Count {
    Count { requests, bytes: mebibytes << 20 }
}

const NONE: Count = count(0, 0);

/// Data in pieces of 256K; a hole is one request where the server zeroes, and as data where it does not.
const CASES: &[(&str, Outcome)] = &[
    (
        "zeromode=none",
        Outcome { writes: count(400, 100), zeroes: NONE, written: count(400, 100), zeroed: NONE },
    ),
    ("zeromode=plugin", ZEROED),
    ("zeromode=plugin fastzeromode=none", ZEROED),
    ("zeromode=plugin fastzeromode=slow", ZEROED),
    ("zeromode=plugin fastzeromode=ignore", ZEROED),
    ("zeromode=notrim", ZEROED),
    ("zeromode=emulate", EMULATED),
    ("zeromode=emulate fastzeromode=none", EMULATED),
    ("zeromode=emulate fastzeromode=slow", EMULATED),
    ("zeromode=emulate fastzeromode=ignore", EMULATED),
];

const ZEROED: Outcome =
    Outcome { writes: count(200, 50), zeroes: count(50, 50), written: count(200, 50), zeroed: count(50, 50) };

const EMULATED: Outcome =
    Outcome { writes: count(200, 50), zeroes: count(50, 50), written: count(400, 100), zeroed: NONE };

#[test]
fn our_copy_makes_as_few_requests_as_the_server_allows() {
    needs!("qemu-nbd", "qemu-img");
    let dir = directory();
    alternating(dir.path());
    for (modes, expected) in CASES {
        assert_eq!(copied("diskpipe copy", modes, dir.path()), *expected, "{modes}");
    }
}

#[test]
fn our_copy_makes_the_same_requests_as_the_peers() {
    needs!("qemu-nbd", "qemu-img", "nbdcopy");
    let dir = directory();
    alternating(dir.path());
    for modes in ["zeromode=none", "zeromode=plugin", "zeromode=emulate"] {
        let (ours, theirs) =
            (copied("diskpipe copy", modes, dir.path()), copied("nbdcopy", modes, dir.path()));
        assert_eq!(ours, theirs, "{modes}");
    }
}

#[test]
fn trimming_is_allowed_except_where_space_is_to_be_kept() {
    needs!("qemu-nbd", "qemu-img");
    let dir = directory();
    alternating(dir.path());
    for (option, trim) in [("", "trim=1"), ("--allocated", "trim=0")] {
        let copy = format!(r#"diskpipe copy {option} -- [ qemu-nbd -r -f qcow2 source.qcow2 ] "$uri""#);
        Run::serve("--filter=log memory 100M logfile=log", &copy).in_directory(dir.path()).end().good();
        let log = fs::read_to_string(dir.path().join("log")).unwrap();
        fs::remove_file(dir.path().join("log")).unwrap();
        let zeroes: Vec<&str> = log.lines().filter(|line| line.contains(" Zero id=")).collect();
        assert!(!zeroes.is_empty() && zeroes.iter().all(|line| line.contains(trim)), "{option}: {zeroes:#?}");
    }
}
