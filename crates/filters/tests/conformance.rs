//! Every filter passes the conformance kit, over several kinds of disks.

use conformance::{
    Case, Content,
    Expect::{Model, ReadOnly, Verifying},
};
use disk::Facts;
use filters::FILTERS;
use std::{any::Any, process::ExitCode};

fn main() -> ExitCode {
    conformance::filters(
        FILTERS,
        vec![
            Case::new("blocksize", &[], Model),
            Case::new("blocksize", &[("minblock", "4K"), ("maxdata", "8K"), ("maxlen", "64K")], Model),
            Case::new(
                "blocksize-policy",
                &[("blocksize-minimum", "4K"), ("blocksize-maximum", "32K")],
                Model,
            ),
            Case::new(
                "blocksize-policy",
                &[
                    ("blocksize-minimum", "4K"),
                    ("blocksize-error-policy", "error"),
                    ("blocksize-write-disconnect", "32M"),
                ],
                Model,
            ),
            Case::new("cache", &[], Model),
            Case::new(
                "cache",
                &[("cache", "writethrough"), ("cache-min-block-size", "4K"), ("cache-on-read", "true")],
                Model,
            ),
            Case::new(
                "cache",
                &[("cache-min-block-size", "4K"), ("cache-max-size", "32K"), ("cache-on-read", "true")],
                Model,
            ),
            Case::new("cache", &[("cache-on-read", "true"), ("cache-max-size", "128K")], Model)
                .with(|| file("cache-file")),
            Case::new("cache", &[("cache-min-block-size", "4K"), ("cache-max-size", "64K")], Model)
                .with(|| file("cache-file")),
            Case::new("cache", &[("cache", "writethrough"), ("cache-on-read", "true")], Model)
                .with(|| file("cache-file")),
            Case::new("cacheextents", &[], Model),
            Case::new("cbt", &[("cbt-name", "a"), ("cbt-name", "b")], Model).with(|| file("cbt-file")),
            Case::new("cbt", &[("cbt-name", "a"), ("cbt-granularity", "512")], Model)
                .with(|| file("cbt-file")),
            Case::new("checkwrite", &[], Verifying).with_own_storage(),
            Case::new("count", &[], Model),
            Case::new("cow", &[], Model).with_own_storage(),
            Case::new("cow", &[("cow-block-size", "64K"), ("cow-on-cache", "true")], Model)
                .with_own_storage(),
            Case::new("cow", &[("cow-on-read", "true")], Model).with_own_storage(),
            Case::new("cow", &[], Model).with(|| file("cow-file")).with_own_storage(),
            Case::new("cow", &[], Model).with(|| directory("cow-per-client")).with_own_storage(),
            Case::new("crashlab", &[], Model),
            Case::new("crashlab", &[("crashlab-memory", "1M"), ("crashlab-sector", "0")], Model),
            Case::new("ddrescue", &[], ReadOnly).with(|| list("ddrescue-mapfile", "0 + 1\n0 0x200000 +\n")),
            Case::new("delay", &[("rdelay", "1ms"), ("wdelay", "1ms")], Model),
            Case::new("error", &[("error", "EIO"), ("error-rate", "0%")], Model),
            Case::new("evil", &[("evil-probability", "0")], Model),
            Case::new("exitlast", &[], Model),
            Case::new("exitwhen", &[("exit-when-file-created", "/nonexistent/file")], Model),
            Case::new("exportname", &[("exportdesc", "fixed:a disk")], Model),
            Case::new("exportname", &[("exportname-list", "explicit"), ("exportname", "a")], Model),
            Case::new("extentlist", &[], Model).with(|| list("extentlist", "0 1M\n")),
            Case::new("fua", &[], Model),
            Case::new("fua", &[("fuamode", "emulate")], Model),
            Case::new("fua", &[("fuamode", "pass")], Model),
            Case::new("fua", &[("fuamode", "none"), ("flush-on-close", "true")], Model),
            Case::new("ip", &[("allow", "all"), ("deny", "127.0.0.1")], Model),
            Case::new("limit", &[("limit", "100")], Model),
            Case::new("log", &[], Model).with(|| file("logfile")),
            Case::new(
                "map",
                &[
                    ("map", "0-511:512"),
                    ("map", "512-1023:0"),
                    ("map", "65536-66559:131072"),
                    ("map", "131072-132095:65536"),
                ],
                Model,
            ),
            Case::new("multi-conn", &[], Model),
            Case::new("multi-conn", &[("multi-conn-mode", "emulate")], Model),
            Case::new("multi-conn", &[("multi-conn-track-dirty", "fast")], Model),
            Case::new("nocache", &[], Model),
            Case::new("nocache", &[("cachemode", "emulate")], Model),
            Case::new("nocache", &[("cachemode", "nop")], Model),
            Case::new("noextents", &[], Model),
            Case::new("nofilter", &[], Model),
            Case::new("noparallel", &[], Model),
            Case::new("nozero", &[], Model),
            Case::new("nozero", &[("zeromode", "emulate")], Model),
            Case::new("nozero", &[("zeromode", "notrim"), ("fastzeromode", "slow")], Model),
            Case::new("offset", &[("offset", "4096"), ("range", "200K")], Model),
            Case::new("offset", &[("offset", "512")], Model),
            Case::new("openonce", &[], Model),
            Case::new("partition", &[("partition", "1")], Model).over_content(one_partition),
            Case::new("partition", &[("partition", "5"), ("partition-sectorsize", "512")], Model)
                .over_content(a_logical_partition),
            Case::new("pause", &[], Model).with(|| file("pause-control")),
            // Of the first disk below; over the others it is not used.
            Case::new("prefetch", &[("prefetch-parallel", "2")], Model).with(|| boot((300 << 10) + 123)),
            Case::new("prefetch", &[], Model).with(|| boot(600 << 9)),
            Case::new("protect", &[("protect", "0x7000000-")], Model),
            Case::new("rate", &[("rate", "1T"), ("connection-rate", "1T")], Model),
            Case::new("readahead", &[], Model),
            Case::new("readonly", &[], ReadOnly),
            Case::new("readonly", &[("readonly-file", "/nonexistent/file")], Model),
            Case::new("retry", &[("retries", "0")], Model),
            Case::new(
                "retry-request",
                &[("retry-request-retries", "1"), ("retry-request-delay", "0")],
                Model,
            ),
            Case::new("rotational", &[], Model),
            Case::new("scan", &[("scan-size", "16K")], Model),
            Case::new(
                "spinning",
                &[("max-seek-time", "0"), ("half-seek-time", "0"), ("min-seek-time", "0")],
                Model,
            ),
            Case::new("stats", &[], Model).with(|| file("statsfile")),
            Case::new("swab", &[], Model),
            Case::new("swab", &[("swab-bits", "64")], Model),
            Case::new("swab", &[("swab-bits", "8")], Model),
            Case::new("time-limit", &[("time-limit", "1000")], Model),
            Case::new("tls-fallback", &[], ReadOnly).with_own_storage(),
            Case::new("trace", &[], Model).with(|| file("trace-file")),
            // Only smaller: a larger disk refuses what a model takes, and is checked against one of its own.
            Case::new("truncate", &[("truncate", "100K")], Model),
            Case::new("truncate", &[("round-down", "64K")], Model),
            Case::new("xor", &[("xor", "0xDEADBEEF"), ("xorlen", "4")], Model),
        ],
    )
}

/// A parameter that names a file in a directory of its own.
fn file(key: &str) -> (Vec<(String, String)>, Box<dyn Any + Send>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("file").display().to_string();
    (vec![(key.to_owned(), path)], Box::new(dir))
}

/// A parameter that names an empty directory.
fn directory(key: &str) -> (Vec<(String, String)>, Box<dyn Any + Send>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    (vec![(key.to_owned(), dir.path().display().to_string())], Box::new(dir))
}

/// A parameter that names a file with this text.
fn list(key: &str, text: &str) -> (Vec<(String, String)>, Box<dyn Any + Send>) {
    let (params, dir) = file(key);
    std::fs::write(&params[0].1, text).expect("the file can be written");
    (params, dir)
}

/// An MBR with a partition from sector 8 to nearly the end, as a disk has it that was partitioned long ago.
fn one_partition(facts: &Facts) -> Content {
    vec![(0, table(&[(0x83, 8, facts.size / 512 - 9)]))]
}

/// An MBR whose extended partition holds one of the odd size of 399 sectors.
fn a_logical_partition(_: &Facts) -> Content {
    vec![(0, table(&[(5, 63, 420)])), (63 * 512, table(&[(0x83, 3, 399)]))]
}

/// A sector with a partition table of these kinds, beginnings and lengths.
fn table(partitions: &[(u8, u32, u64)]) -> Vec<u8> {
    let mut sector = vec![0; 512];
    for (entry, (kind, start, count)) in sector[446..510].chunks_exact_mut(16).zip(partitions) {
        entry[4] = *kind;
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12..].copy_from_slice(&(*count as u32).to_le_bytes());
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// A trace of a disk of this size: every block, from the last to the first.
fn boot(size: u64) -> (Vec<(String, String)>, Box<dyn Any + Send>) {
    let (params, dir) = file("prefetch-file");
    let mut bytes = [&b"DPTRACE\x01"[..], &size.to_le_bytes(), &[0, 0]].concat();
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    let last = (size.div_ceil(4096) - 1) as i64;
    let number = |n: i64| match ((n << 1) ^ (n >> 63)) as u64 {
        n if n < 128 => vec![n as u8],
        n => vec![n as u8 | 0x80, (n >> 7) as u8],
    };
    let chunk: Vec<u8> =
        (0..=last).flat_map(|n| [number(if n == 0 { last } else { -2 }), vec![1]].concat()).collect();
    bytes.extend((chunk.len() as u32).to_le_bytes());
    bytes.extend(crc32fast::hash(&chunk).to_le_bytes());
    bytes.extend(chunk);
    std::fs::write(&params[0].1, bytes).expect("the file can be written");
    (params, dir)
}
