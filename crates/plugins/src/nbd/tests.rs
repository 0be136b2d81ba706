//! The proxy in front of real servers. Without them these tests say so and pass.

use super::*;
use crate::common::model;
use disk::{Data, Kind, Range, WriteFlags, ZeroFlags};
use params::Args;
use std::{fs, path::Path, process::Command};

fn start(args: &[(&str, &str)]) -> Result<Arc<dyn Backend>> {
    let mut args = Args::new(args.iter().copied());
    Ok(Arc::new(Nbd::parse(&mut args)?.start()?))
}

#[track_caller]
fn refused(args: &[(&str, &str)], sentence: &str) {
    let error = start(args).map(drop).unwrap_err().to_string();
    assert!(error.contains(sentence), "{error}");
}

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

fn run(command: &[&str], dir: &Path) {
    let out = Command::new(command[0]).args(&command[1..]).current_dir(dir).output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Parameters that start this server.
fn command<'a>(words: &[&'a str]) -> Vec<(&'a str, &'a str)> {
    let arguments = words[1..].iter().map(|word| ("arg", *word));
    std::iter::once(("command", words[0])).chain(arguments).collect()
}

#[test]
fn exactly_one_server_is_named() {
    let one = "exactly one of";
    refused(&[], one);
    refused(&[("uri", "nbd://a"), ("socket", "/s")], one);
    refused(&[("uri", "ftp://a")], "ftp://a");
    refused(&[("socket", "/s"), ("port", "12")], "port: only together");
    refused(&[("socket", "/s"), ("arg", "x")], "arg: only together");
    refused(&[("hostname", "h"), ("port", "no-such-service")], "nor the name of a service");
    refused(&[("hostname", "h"), ("port", "99999")], "port=99999");
    refused(&[("vsock", "2"), ("port", "nbd")], "port=nbd");
    refused(&[("socket-fd", "999")], "socket-fd=999: descriptor 999");
    refused(&[("command", "c"), ("dynamic-export", "true")], "dynamic-export");
    refused(&[("socket", "/s"), ("dynamic-export", "true"), ("export", "e")], "dynamic-export");
    refused(&[("socket", "/s"), ("dynamic-export", "true"), ("shared", "true")], "dynamic-export");
    start(&[("hostname", "h"), ("port", "1234"), ("export", "e"), ("retry", "3")]).unwrap();
}

#[test]
fn what_tls_needs_is_looked_for_when_connecting() {
    let opened = |params: &[(&str, &str)]| {
        let backend = start(params).unwrap();
        backend.open(&Client::local("")).wait().map(drop).unwrap_err().to_string()
    };
    let missing = opened(&[("socket", "/nonexistent/s"), ("tls-psk", "/nonexistent/keys.psk")]);
    // Without TLS in this build, that is what is missing.
    let expected = ["/nonexistent/keys.psk: No such file or directory", "cargo feature `tls`"];
    assert!(expected.iter().any(|end| missing.ends_with(end)), "{missing}");
    let off = opened(&[("socket", "/nonexistent/s"), ("tls", "off"), ("tls-psk", "/nonexistent/keys.psk")]);
    assert!(off.starts_with("/nonexistent/s: cannot connect"), "{off}");
    let demanded = opened(&[("uri", "nbds+unix://?socket=/nonexistent/s&tls-psk-file=/k"), ("tls", "off")]);
    assert!(!demanded.contains("cannot connect"), "{demanded}");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let backend = start(&[("socket", "/nonexistent/s")]).unwrap();
    let error = backend.open(&Client::local("")).wait().map(drop).unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/s: cannot connect"), "{error}");
    let shared = start(&[("socket", "/nonexistent/s"), ("shared", "true")]).unwrap();
    assert!(shared.after_fork().is_err());
}

#[test]
fn a_memory_server_behaves_like_memory() {
    if !have(&["nbdkit"]) {
        return;
    }
    let disk = model::open::<Nbd>(&command(&["nbdkit", "-f", "memory", "5M"])).unwrap();
    assert!(disk.facts().extents && disk.facts().zero && disk.facts().fua && disk.facts().multi_conn);
    model::compare(&*disk, 42, 400);
}

#[test]
fn extents_zeroes_and_read_only_pass_through_from_a_sparse_qcow2() {
    if !have(&["qemu-nbd", "qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    run(&["qemu-img", "create", "-q", "-f", "qcow2", "d.qcow2", "1G"], dir.path());
    run(&["qemu-io", "-f", "qcow2", "d.qcow2", "-c", "write -P 7 1M 1M"], dir.path());
    let image = dir.path().join("d.qcow2");
    let image = image.to_str().unwrap();
    let (m, kinds) = (1 << 20, |disk: &dyn Disk, start, len| {
        let extents = disk.extents(Range::new(start, len), 100).wait().unwrap();
        extents.iter().map(|e| (e.len, e.kind)).collect::<Vec<_>>()
    });

    let disk = model::open::<Nbd>(&command(&["qemu-nbd", "-r", "-f", "qcow2", image])).unwrap();
    assert!(!disk.facts().write && disk.facts().size == 1 << 30);
    let expected = [(m, Kind::HOLE), (m, Kind::DATA), (1022 * m, Kind::HOLE)];
    assert_eq!(kinds(&*disk, 0, 1 << 30), expected);
    assert!(disk.read(Range::new(500 * m, 8 * m)).wait().unwrap().says_zeroes());
    assert_eq!(model::bytes(&*disk, m, 16), [7; 16]);
    drop(disk);

    let unmap = ["qemu-nbd", "-f", "qcow2", "--discard=unmap", image];
    let disk = model::open::<Nbd>(&command(&unmap)).unwrap();
    assert!(disk.facts().write);
    let holes = ZeroFlags { may_trim: true, ..Default::default() };
    disk.zero(Range::new(m, m / 4), holes).wait().unwrap();
    disk.zero(Range::new(m + m / 2, m / 4), ZeroFlags { may_trim: false, ..holes }).wait().unwrap();
    disk.flush().wait().unwrap();
    let there = kinds(&*disk, m, m);
    assert_eq!(there[0], (m / 4, Kind::HOLE), "{there:?}");
    assert_eq!(there[1], (m / 4, Kind::DATA), "{there:?}");
    // Whether zero clusters without a hole count as allocated is up to qemu; that NO_HOLE arrives is tested below.
    assert!(there[2].0 == m / 4 && there[2].1.zero, "{there:?}");
}

#[test]
fn flags_arrive_as_they_were_given() {
    if !have(&["nbdkit"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let logfile = format!("logfile={}", dir.path().join("log").display());
    let words = ["nbdkit", "-f", "--filter=log", "memory", "1M", &logfile];
    let disk = model::open::<Nbd>(&command(&words)).unwrap();
    let zero = |start, fua, may_trim, fast| {
        disk.zero(Range::new(start, 4096), ZeroFlags { fua, may_trim, fast }).wait()
    };
    zero(0x1000, true, false, false).unwrap();
    zero(0x2000, false, true, false).unwrap();
    let _ = zero(0x3000, false, true, true); // a server may answer that it would not be fast
    disk.write(0x4000, Data::copy_from(&[1; 512]), WriteFlags { fua: true }).wait().unwrap();
    disk.trim(Range::new(0x5000, 512), WriteFlags::default()).wait().unwrap();
    drop(disk);
    let log = fs::read_to_string(dir.path().join("log")).unwrap();
    let line = |what: &str| {
        log.lines().find(|l| l.contains(what)).unwrap_or_else(|| panic!("no {what} in\n{log}")).to_string()
    };
    let flags = |at: &str, flags: &str| {
        let line = line(&format!("Zero id={at}"));
        assert!(line.contains(flags), "{line}");
    };
    flags("1 offset=0x1000", "trim=0 fua=1 fast=0");
    flags("2 offset=0x2000", "trim=1 fua=0 fast=0");
    flags("3 offset=0x3000", "trim=1 fua=0 fast=1");
    assert!(line("Write id=4 offset=0x4000").contains("fua=1"));
    assert!(line("Trim id=5 offset=0x5000").contains("fua=0"));
}

#[test]
fn clients_choose_their_export_when_they_may() {
    if !have(&["nbdkit"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let path = socket.to_str().unwrap();
    let mut server = Command::new("nbdkit")
        .args(["-f", "-U", path, "file", "dir=/usr/share/common-licenses"])
        .spawn()
        .unwrap();
    let dynamic = [("socket", path), ("dynamic-export", "true"), ("retry", "10")];
    let backend = start(&dynamic).unwrap();
    let size = |name: &str| fs::metadata(format!("/usr/share/common-licenses/{name}")).unwrap().len();
    let disk = backend.open(&Client::local("GPL-3")).wait().unwrap();
    assert_eq!(disk.facts().size, size("GPL-3"));
    let exports = backend.exports(&Client::local("")).wait().unwrap();
    assert!(exports.iter().any(|e| e.name == "GPL-2"));
    let fixed = start(&[("socket", path), ("export", "GPL-2")]).unwrap();
    assert_eq!(fixed.open(&Client::local("ignored")).wait().unwrap().facts().size, size("GPL-2"));
    assert_eq!(fixed.exports(&Client::local("")).wait().unwrap(), [Export::default()]);
    server.kill().unwrap();
    server.wait().unwrap();
}
