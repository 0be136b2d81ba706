//! Which requests a copy makes of a server, counted by the server itself (nbdkit with its log filter).

use std::{
    ffi::OsString,
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::Duration,
};
use tempfile::TempDir;

/// An nbdkit that logs what it is asked.
struct Server {
    child: Child,
    dir: TempDir,
}

impl Server {
    /// `None`, after saying so, where there is no nbdkit.
    fn start(args: &[&str]) -> Option<Server> {
        let dir = tempfile::tempdir().unwrap();
        let child = Command::new("nbdkit")
            .args(["-f", "--exit-with-parent", "--filter=log", "-U"])
            .arg(dir.path().join("socket"))
            .arg("-P")
            .arg(dir.path().join("pid"))
            .args(args)
            .arg(format!("logfile={}", dir.path().join("log").display()))
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            let name = thread::current().name().unwrap_or("a test").to_string();
            // Not by `println!`, whose output the test runner keeps.
            std::io::stdout().write_all(format!("SKIPPED: needs nbdkit: {name}\n").as_bytes()).unwrap();
            return None;
        };
        let server = Server { child, dir };
        // The socket is there before the server listens; the file with its process id is not.
        for _ in 0..3000 {
            if server.dir.path().join("pid").exists() {
                return Some(server);
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("nbdkit {args:?} does not start");
    }

    fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.dir.path().join("socket").display())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The requests of one kind in the order of their arrival, as the log words them: `offset=0x0 count=0x200 ...`.
    fn seen(&self, kind: &str) -> Vec<String> {
        let request = format!(" {kind} id=");
        let log = self.log();
        let of_kind = log.lines().filter_map(|line| line.split_once(&request));
        of_kind
            .filter_map(|(_, rest)| Some(rest.split_once(' ')?.1.trim_end_matches(" ...").to_string()))
            .collect()
    }

    /// How many connections were opened.
    fn connections(&self) -> usize {
        self.log().matches(" Connect ").count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn copy(options: &[&str], from: &str, to: &str) -> bool {
    let args: Vec<OsString> = [&["copy"], options, &[from, to]].concat().iter().map(Into::into).collect();
    diskpipe_tools::copy::main(args) == ExitCode::SUCCESS
}

/// Ten MiB: data in the even ones, holes in the odd ones.
fn alternating(dir: &Path) -> PathBuf {
    let path = dir.join("alternating");
    let file = File::create(&path).unwrap();
    file.set_len(10 << 20).unwrap();
    for megabyte in (0..10).step_by(2) {
        file.write_all_at(&vec![megabyte as u8 + 1; 1 << 20], megabyte << 20).unwrap();
    }
    path
}

#[test]
fn holes_become_one_zero_request_each_and_data_whole_requests() {
    let dir = tempfile::tempdir().unwrap();
    let source = alternating(dir.path());
    for (options, trim) in [(&[][..], 1), (&["--allocated", "--no-flush"], 0), (&["-S", "0"], 1)] {
        let Some(server) = Server::start(&["memory", "10M"]) else { return };
        assert!(copy(options, source.to_str().unwrap(), &server.uri()));
        let (zeroes, writes) = (server.seen("Zero"), server.seen("Write"));
        assert_eq!((zeroes.len(), writes.len()), (5, 20), "{options:?}: {zeroes:?} {writes:?}");
        let zero = format!("count=0x100000 trim={trim} fua=0 fast=0");
        assert!(zeroes.iter().all(|z| z.contains(&zero)), "{zeroes:?}");
        assert!(writes.iter().all(|w| w.contains("count=0x40000 ")), "{writes:?}");
        assert_eq!(server.seen("Flush").is_empty(), options.contains(&"--no-flush"), "{options:?}");
    }
}

#[test]
fn a_large_hole_is_zeroed_in_steps() {
    let Some(server) = Server::start(&["memory", "300M"]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let hole = dir.path().join("hole");
    File::create(&hole).unwrap().set_len(300 << 20).unwrap();
    assert!(copy(&["--flush"], hole.to_str().unwrap(), &server.uri()));
    let mut zeroes = server.seen("Zero");
    zeroes.sort();
    assert_eq!(zeroes.len(), 3, "{zeroes:?}");
    assert!(zeroes[1].starts_with("offset=0x10000000 count=0x2c00000 trim=1"), "{zeroes:?}");
    assert!(!server.seen("Flush").is_empty());
    assert!(copy(&["--destination-is-zero"], hole.to_str().unwrap(), &server.uri()));
    assert_eq!(server.seen("Zero").len(), 3, "no more than before");
}

#[test]
fn a_server_without_zeroing_gets_zeroes() {
    let dir = tempfile::tempdir().unwrap();
    let source = alternating(dir.path());
    let Some(server) = Server::start(&["--filter=nozero", "memory", "10M"]) else { return };
    assert!(copy(&[], source.to_str().unwrap(), &server.uri()));
    assert_eq!((server.seen("Zero").len(), server.seen("Write").len()), (0, 40));
    assert!(copy(&["--destination-is-zero"], source.to_str().unwrap(), &server.uri()));
    assert_eq!(server.seen("Write").len(), 60);
}

#[test]
fn zeroes_in_data_are_found_unless_nobody_wants_that() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("zeroes in data");
    let mut bytes = vec![1; 109_192];
    bytes[8192..108_192].fill(0);
    fs::write(&source, bytes).unwrap();
    for (options, want) in [
        (&[][..], &["offset=0x0 count=0x2000", "offset=0x1a000 count=0xa88"][..]),
        (&["--allocated"], &["offset=0x0 count=0x1aa88"]),
        (&["--sparse=0"], &["offset=0x0 count=0x1aa88"]),
        (&["--destination-is-zero"], &["offset=0x0 count=0x2000", "offset=0x1a000 count=0xa88"]),
    ] {
        let Some(server) = Server::start(&["memory", "10M"]) else { return };
        assert!(copy(options, source.to_str().unwrap(), &server.uri()));
        let mut writes = server.seen("Write");
        writes.sort();
        assert_eq!(writes.len(), want.len(), "{options:?}: {writes:?}");
        assert!(writes.iter().zip(want).all(|(w, want)| w.starts_with(want)), "{options:?}: {writes:?}");
    }
}

#[test]
fn one_connection_reads_and_asks_only_where_data_are() {
    let Some(server) = Server::start(&["memory", "300M"]) else { return };
    assert!(copy(&["-C1", "-T1"], &server.uri(), "null:"));
    assert_eq!(server.connections(), 1);
    assert!(server.seen("Read").is_empty());
    assert_eq!(server.seen("Extents").len(), 1, "{:?}", server.seen("Extents"));
    assert!(copy(&["--no-extents", "-S0", "-C3", "-T1"], &server.uri(), "null:"));
    assert_eq!(server.connections(), 4);
    assert_eq!((server.seen("Read").len(), server.seen("Extents").len()), (1200, 1));
}

#[test]
fn a_synchronous_copy_has_one_request_in_flight_and_keeps_the_order() {
    let dir = tempfile::tempdir().unwrap();
    let source = alternating(dir.path());
    let Some(server) = Server::start(&["memory", "10M"]) else { return };
    assert!(copy(&["--synchronous"], source.to_str().unwrap(), &server.uri()));
    let mut under_way = 0;
    let log = server.log();
    for line in log.lines().filter(|line| line.contains("Write id=") || line.contains("Zero id=")) {
        under_way += if line.contains(" ...") && line.contains("return=") { -1 } else { 1 };
        assert!((0..=1).contains(&under_way), "{line}");
    }
    let offset =
        |text: &String| u64::from_str_radix(text.split([' ', 'x']).nth(1).unwrap_or(""), 16).unwrap_or(0);
    let writes = server.seen("Write");
    assert!(writes.len() == 20 && writes.is_sorted_by_key(offset), "{writes:?}");
}

#[test]
fn a_source_that_fails_fails_the_copy() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let Some(server) = Server::start(&["--filter=error", "pattern", "10M", "error-pread-rate=20%"]) else {
        return;
    };
    assert!(!copy(&[], &server.uri(), out.to_str().unwrap()));
    let copied = fs::metadata(&out).map_or(0, |m| m.len());
    assert!(copied < 10 << 20, "an interrupted copy has {copied} bytes");
    assert!(!copy(&[], &server.uri(), "/nonexistent/directory/file"));
}

#[test]
fn destinations_that_cannot_take_the_source_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let source = alternating(dir.path());
    for args in [&["memory", "5M"][..], &["-r", "memory", "10M"]] {
        let Some(server) = Server::start(args) else { return };
        assert!(!copy(&[], source.to_str().unwrap(), &server.uri()));
        assert!(server.seen("Write").is_empty() && server.seen("Zero").is_empty());
    }
    let before = fs::read(&source).unwrap();
    assert!(!copy(&[], source.to_str().unwrap(), source.to_str().unwrap()));
    assert!(fs::read(&source).unwrap() == before, "a file is not copied onto itself");
}

#[test]
fn a_source_that_ends_within_a_block_of_the_destination_is_copied_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (dir.path().join("odd"), dir.path().join("out"));
    let bytes: Vec<u8> = (0..1_000_003u32).map(|n| (n / 7) as u8).collect();
    fs::write(&source, &bytes).unwrap();
    let blocks = [
        "--filter=blocksize-policy",
        "memory",
        "1M",
        "blocksize-minimum=4096",
        "blocksize-preferred=4096",
        "blocksize-maximum=64K",
        "blocksize-error-policy=error",
    ];
    let Some(server) = Server::start(&blocks) else { return };
    assert!(copy(&[], source.to_str().unwrap(), &server.uri()));
    assert!(copy(&[], &server.uri(), out.to_str().unwrap()));
    let arrived = fs::read(&out).unwrap();
    assert_eq!(arrived.len(), 1 << 20);
    assert!(arrived[..bytes.len()] == bytes && arrived[bytes.len()..].iter().all(|b| *b == 0));
}
