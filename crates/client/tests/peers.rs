//! The client against real servers: nbdkit and qemu-nbd. Without them these tests say so and pass.

use client::{Connector, RemoteDisk, blocking::Client};
use disk::{Data, Disk, Errno, Kind, Range, WriteFlags, ZeroFlags};
use std::{path::Path, process::Command};

/// Whether all these programs are installed; says which one is not.
fn have(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    programs.iter().all(|program| {
        let found = std::env::split_paths(&path).any(|dir| dir.join(program).exists());
        if !found {
            eprintln!("SKIPPED: needs {program}");
        }
        found
    })
}

fn server(command: &[&str]) -> Connector {
    Connector::command(&command.iter().map(|w| w.to_string()).collect::<Vec<_>>()).unwrap()
}

#[test]
fn nbdkit_memory_keeps_what_is_written() {
    if !have(&["nbdkit"]) {
        return;
    }
    let mut connector = server(&["nbdkit", "-f", "memory", "64M"]);
    for (structured, connections) in [(true, 1), (false, 1), (true, 4)] {
        connector.options.structured_replies = structured;
        connector.options.connections = connections;
        let client = Client::open(&connector).unwrap();
        assert_eq!((client.size(), client.disk().connections()), (64 << 20, connections));
        assert_eq!(client.facts().extents, structured);
        assert!(client.facts().write && client.facts().zero && client.facts().fua);
        let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i >> 3) as u8 ^ i as u8).collect();
        client.write(&bytes, 1_000_001).unwrap();
        client.write_with(&[9; 512], 0, WriteFlags { fua: true }).unwrap();
        let mut back = vec![0; bytes.len()];
        client.read(&mut back, 1_000_001).unwrap();
        assert!(back == bytes);
        client.zero(1_000_001, 1_000_000, ZeroFlags::default()).unwrap();
        client.trim(2_000_001, 100).unwrap();
        client.read(&mut back, 1_000_001).unwrap();
        assert!(back[..1_000_100].iter().all(|b| *b == 0) && back[1_000_100..] == bytes[1_000_100..]);
        client.flush().unwrap();
        let outside = client.read(&mut [0; 2], (64 << 20) - 1).unwrap_err();
        assert_eq!(outside.errno(), Errno::INVAL);
        client.close().unwrap();
    }
}

#[test]
fn nbdkit_pattern_reads_right_at_depth() {
    if !have(&["nbdkit"]) {
        return;
    }
    let disk = server(&["nbdkit", "-f", "pattern", "1G"]).open().unwrap();
    let mut set = reactor::InFlight::new();
    reactor::block_on(async {
        let mut checked = 0;
        for i in 0..2000u64 {
            let at = (i * 7919 * 4096) % (1 << 30);
            let len = if i % 40 == 0 { (1u64 << 20).min((1 << 30) - at) } else { 4096 };
            let disk = &disk;
            set.push(Box::pin(async move { (at, disk.read(Range::new(at, len)).await) }));
            if set.len() == 64 {
                checked += check(set.next().await.unwrap());
            }
        }
        while let Some(read) = set.next().await {
            checked += check(read);
        }
        assert_eq!(checked, 2000);
    });
}

/// The pattern is each 64-bit word's own offset, big-endian.
fn check((at, data): (u64, disk::Result<Data>)) -> usize {
    let bytes = data.unwrap().to_vec();
    for (i, word) in bytes.chunks(8).enumerate() {
        assert_eq!(word, (at + 8 * i as u64).to_be_bytes());
    }
    1
}

fn run(command: &[&str], dir: &Path) {
    let out = Command::new(command[0]).args(&command[1..]).current_dir(dir).output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}

fn qcow2(dir: &Path) -> String {
    run(&["qemu-img", "create", "-q", "-f", "qcow2", "d.qcow2", "1G"], dir);
    run(&["qemu-io", "-f", "qcow2", "d.qcow2", "-c", "write -P 7 1M 64k", "-c", "write -P 8 512M 64k"], dir);
    dir.join("d.qcow2").to_str().unwrap().to_string()
}

fn extents(disk: &RemoteDisk) -> Vec<(u64, u64, Kind)> {
    let (size, mut at, mut all) = (disk.facts().size, 0, Vec::new());
    while at < size {
        let some = disk.extents(Range::new(at, size - at), 100).wait().unwrap();
        all.extend(some.ranges(at).map(|(range, kind)| (range.start, range.len, kind)));
        at += some.covered();
    }
    all
}

#[test]
fn qemu_nbd_tells_its_extents_and_sends_holes() {
    if !have(&["qemu-nbd", "qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = qcow2(dir.path());
    let mut connector = server(&["qemu-nbd", "-r", "-f", "qcow2", "-A", "-D", "described", &image]);
    connector.options.contexts.push("qemu:allocation-depth".into());
    let disk = connector.open().unwrap();
    assert!(!disk.facts().write && disk.facts().extents);
    assert_eq!(disk.facts().description.as_deref(), Some("described"));
    assert_eq!(&*disk.facts().contexts, ["qemu:allocation-depth".into()]);
    let (m, k) = (1 << 20, 1 << 10);
    let expected = [
        (0, m, Kind::HOLE),
        (m, 64 * k, Kind::DATA),
        (m + 64 * k, 511 * m - 64 * k, Kind::HOLE),
        (512 * m, 64 * k, Kind::DATA),
        (512 * m + 64 * k, 512 * m - 64 * k, Kind::HOLE),
    ];
    assert_eq!(extents(&disk), expected);
    let depth = disk.status(0, Range::new(m, m), 10).wait().unwrap();
    assert_eq!((depth[0].len, depth[0].value), (64 * k, 1));
    let hole = disk.read(Range::new(100 * m, 4 * m)).wait().unwrap();
    assert!(hole.says_zeroes());
    let mixed = disk.read(Range::new(m, m)).wait().unwrap();
    assert!(mixed.slice(0, 64 * k).to_vec().iter().all(|b| *b == 7));
    assert!(mixed.slice(64 * k, m - 64 * k).is_zero());
}

#[test]
fn qemu_nbd_zeroes_and_trims() {
    if !have(&["qemu-nbd", "qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = qcow2(dir.path());
    let connector = server(&["qemu-nbd", "-f", "qcow2", "--discard=unmap", &image]);
    let disk = connector.open().unwrap();
    disk.write(3 << 20, Data::copy_from(&[1; 70_000]), WriteFlags::default()).wait().unwrap();
    disk.zero(Range::new(3 << 20, 65_536), ZeroFlags { may_trim: true, ..Default::default() })
        .wait()
        .unwrap();
    disk.zero(Range::new(5 << 20, 65_536), ZeroFlags::default()).wait().unwrap();
    disk.flush().wait().unwrap();
    let kinds: Vec<_> = extents(&disk).into_iter().map(|(at, _, kind)| (at, kind)).collect();
    assert!(kinds.contains(&((3 << 20) + 65_536, Kind::DATA)), "{kinds:?}");
    let one = disk.extents(Range::new(3 << 20, 1 << 20), 1).wait().unwrap();
    assert!(one.len() == 1 && one.iter().next().unwrap().kind.zero);
}

#[test]
fn exports_are_listed_and_asked_about_without_opening_them() {
    if !have(&["nbdkit"]) {
        return;
    }
    let connector = server(&["nbdkit", "-f", "file", "dir=/usr/share/common-licenses"]);
    let exports = connector.list_exports().unwrap();
    assert!(exports.iter().any(|e| e.name == "GPL-3"), "{exports:?}");
    let mut negotiation = connector.negotiate().unwrap();
    let info = negotiation.info("GPL-3").unwrap();
    assert_eq!(info.size, std::fs::metadata("/usr/share/common-licenses/GPL-3").unwrap().len());
    assert!(negotiation.info("no such licence").is_err());
    assert_eq!(negotiation.list_meta_context("GPL-3", &[]).unwrap()[0].name, "base:allocation");
    negotiation.abort();
    let mut missing = connector.clone();
    missing.options.export = "no such licence".into();
    assert!(missing.open().is_err());
}

#[test]
fn an_oldstyle_server_has_one_export() {
    if !have(&["nbdkit"]) {
        return;
    }
    let disk = server(&["nbdkit", "-f", "-o", "pattern", "1M"]).open().unwrap();
    assert_eq!((disk.facts().size, disk.negotiated().protocol.name()), (1 << 20, "oldstyle"));
    check((4096, disk.read(Range::new(4096, 4096)).wait()));
}

#[test]
fn a_server_that_dies_fails_the_request_with_a_sentence() {
    if !have(&["nbdkit"]) {
        return;
    }
    let connector = server(&["nbdkit", "-f", "--filter=delay", "memory", "1M", "rdelay=60"]);
    let disk = connector.open().unwrap();
    let pid = connector.child_id().unwrap();
    let killer = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    });
    let error = disk.read(Range::new(0, 512)).wait().unwrap_err();
    assert!(error.to_string().contains("the server"), "{error}");
    killer.join().unwrap();
}

#[test]
fn what_tls_lacks_is_told_before_anybody_is_called() {
    let error = |uri| Connector::uri(uri).unwrap().open().map(drop).unwrap_err().to_string();
    let missing = error("nbds://localhost:1/?tls-psk-file=/nonexistent/keys.psk");
    if net::tls::BUILT {
        assert_eq!(missing, "/nonexistent/keys.psk: No such file or directory");
        let missing = error("nbds://localhost:1/?tls-certificates=/nonexistent");
        assert_eq!(missing, "/nonexistent: there is no such directory of certificates");
    } else {
        assert!(missing.ends_with("build it with the cargo feature `tls`"), "{missing}");
    }
    assert!(Connector::uri("http://localhost").is_err());
}
