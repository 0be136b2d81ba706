//! Changed-block tracking: what backup tools see of it, and what is left of it whatever ends the server.

use e2e::{Run, Server, directory, needs};
use rustix::process::Signal;
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

const GRANULE: usize = 64 << 10;

#[track_caller]
fn nbdsh(uri: &str, script: &str) -> String {
    Run::new("nbdsh").arg("-u").arg(uri).args(["-c", script]).text()
}

/// Says a line on a control socket; the answer without its last line, which must be `ok`.
#[track_caller]
fn say(socket: &Path, line: &str) -> Vec<String> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    writeln!(stream, "{line}").unwrap();
    let mut answer = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line.unwrap();
        assert!(!line.starts_with("error: "), "{line}");
        if line == "ok" {
            return answer;
        }
        answer.push(line);
    }
    panic!("the answer has no end: {answer:?}");
}

/// Writes, zeroes and trims the same on any disk of 10 MiB.
const CHANGES: &str =
    "h.pwrite(b'x' * 10240, 102400); h.zero(1 << 20, 2 << 20); h.pwrite(b'y', (10 << 20) - 512); h.flush()";

#[test]
fn tools_see_the_same_as_of_qemu_nbd() {
    needs!("nbdsh", "nbdinfo", "qemu-img", "qemu-nbd");
    let dir = directory();
    let image = dir.path().join("image.qcow2");
    let make = "qemu-img create -q -f qcow2 image.qcow2 10M && qemu-img bitmap --add -g 64K image.qcow2 bk";
    Run::sh(make).in_directory(dir.path()).end().good();
    let theirs = Server::qemu(&format!("-f qcow2 -B bk {}", image.display()));
    let file = dir.path().join("changes");
    let ours = Server::ours(&format!("--filter=cbt memory 10M cbt-file={} cbt-name=bk", file.display()));
    let maps = [theirs, ours].map(|server| {
        nbdsh(&server.uri(), CHANGES);
        let uri = server.uri();
        let infos = ["--map", "--map=qemu:dirty-bitmap:bk", "--json --map=qemu:dirty-bitmap:bk"][1..].iter();
        let mut all: Vec<String> = infos.map(|how| Run::new("nbdinfo").words(how).arg(&uri).text()).collect();
        let image = format!(
            "driver=nbd,server.type=unix,server.path={},x-dirty-bitmap=qemu:dirty-bitmap:bk",
            server.socket().display()
        );
        let map = Run::new("qemu-img").words("map --output=json --image-opts").arg(image).text();
        // Where the bytes lie is qemu's own affair.
        all.push(map.split(", ").filter(|part| !part.contains("offset")).collect());
        all
    });
    let [theirs, ours] = &maps;
    assert_eq!(theirs, ours);
    assert!(ours[0].contains("dirty"), "{ours:?}");
}

/// What a backup tool does: reads what a context says, and copies what changed over a copy that it has.
const INCREMENTAL: &str = "
import os
name = 'qemu:dirty-bitmap:' + os.environ['name']
h.add_meta_context(name)
h.connect_uri(os.environ['uri'])
at, size, copied = 0, h.get_size(), 0
with open(os.environ['copy'], 'r+b') as copy:
    while at < size:
        found = []
        def status(context, offset, entries, error):
            if context == name: found.extend(entries)
        h.block_status(min(size - at, 1 << 30), at, status)
        for length, dirty in zip(found[::2], found[1::2]):
            length = min(length, size - at)
            if dirty & 1:
                copy.seek(at); copy.write(h.pread(length, at)); copied += length
            at += length
print(copied)";

#[test]
fn an_incremental_backup_while_the_disk_is_written_misses_nothing() {
    needs!("nbdsh", "nbdcopy");
    let dir = directory();
    let [file, copy, control] = ["changes", "copy", "control"].map(|name| dir.path().join(name));
    let server = Server::ours(&format!(
        "--filter=cbt memory 32M cbt-file={} cbt-name=0 cbt-granularity=4K cbt-control={}",
        file.display(),
        control.display()
    ));
    let uri = server.uri();
    nbdsh(&uri, "h.pwrite(b'first' * 1000, 12345)");
    Run::new("nbdcopy").arg(&uri).arg(&copy).end().good();
    let write = "
import random, sys, time
end = time.time() + 2
while time.time() < end:
    h.pwrite(bytes([random.randrange(256)]) * random.randrange(1, 30000), random.randrange(32 << 20) - 30000 & (32 << 20) - 32768)";
    let mut writer = Run::new("nbdsh").arg("-u").arg(&uri).args(["-c", write]).start();
    let incremental = |name: &str| {
        let run = Run::new("nbdsh").env("name", name).env("uri", &uri).env("copy", &copy);
        run.args(["-c", INCREMENTAL]).text().trim().parse::<u64>().unwrap()
    };
    for round in 1..5 {
        say(&control, &format!("start {round} since {}", round - 1));
        incremental(&(round - 1).to_string());
        say(&control, &format!("drop {}", round - 1));
    }
    assert!(writer.wait(Duration::from_secs(60)).unwrap().success());
    let copied = incremental("4");
    assert!(copied < 32 << 20);
    let whole = dir.path().join("whole");
    Run::new("nbdcopy").arg(&uri).arg(&whole).end().good();
    assert!(fs::read(&copy).unwrap() == fs::read(&whole).unwrap(), "the copies differ");
}

#[test]
fn a_killed_server_has_forgotten_nothing() {
    needs!("nbdsh");
    let dir = directory();
    let [disk, file] = ["disk", "changes"].map(|name| dir.path().join(name));
    let serve = || {
        Server::ours(&format!("--filter=cbt file {} cbt-file={} cbt-name=a", disk.display(), file.display()))
    };
    fs::write(&disk, vec![0; 32 << 20]).unwrap();
    for round in 0..4 {
        let server = serve();
        let script = "
import random
while True: h.pwrite(b'x' * random.randrange(1, 100000), random.randrange(31 << 20))";
        let writer = Run::new("nbdsh").arg("-u").arg(server.uri()).args(["-c", script]).start();
        let started = std::time::Instant::now();
        while fs::read(&disk).unwrap().iter().filter(|byte| **byte == b'x').count() < (round + 1) * 1_000_000
        {
            assert!(started.elapsed() < Duration::from_secs(60));
        }
        server.process.signal(Signal::KILL);
        drop((server, writer));
    }
    let server = serve();
    let map = Run::diskpipe().args(["info", "--map=qemu:dirty-bitmap:a"]).arg(server.uri()).text();
    let mut dirty = BTreeSet::new();
    for line in map.lines().filter(|line| line.ends_with("dirty")) {
        let mut words = line.split_whitespace().map(|word| word.parse::<usize>());
        let (start, len) = (words.next().unwrap().unwrap(), words.next().unwrap().unwrap());
        dirty.extend(start / GRANULE..(start + len) / GRANULE);
    }
    let bytes = fs::read(&disk).unwrap();
    for (number, granule) in bytes.chunks(GRANULE).enumerate() {
        assert!(dirty.contains(&number) || granule.iter().all(|byte| *byte == 0), "granule {number}");
    }
}

#[test]
fn a_resized_disk_has_changed_where_it_grew() {
    needs!("nbdsh");
    let dir = directory();
    let [disk, file] = ["disk", "changes"].map(|name| dir.path().join(name));
    fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let arguments = format!(
        "--resize --filter=cbt file {} resizable=true cbt-file={} cbt-name=a",
        disk.display(),
        file.display()
    );
    let command = "diskpipe resize \"$uri\" 3M && diskpipe info --map=qemu:dirty-bitmap:a \"$uri\"";
    let map = Run::serve(&arguments, command).text();
    let lines: Vec<Vec<&str>> = map.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines, [["0", "1048576", "0", "clean"], ["1048576", "2097152", "1", "dirty"]]);
    Run::serve(&arguments, "nbdsh -u \"$uri\" -c 'h.pwrite(b\"x\", 0)'").end().good();
    fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let refused = Run::serve(&arguments, "diskpipe info \"$uri\"").end();
    assert!(
        refused.stderr.contains("it follows a disk of 3145728 bytes, and this one has 1048576"),
        "{}",
        refused.stderr
    );
}

#[test]
fn without_room_for_the_account_nothing_is_written() {
    let dir = directory();
    let arguments = format!("--filter=cbt memory 1T cbt-file={}/changes cbt-name=a", dir.path().display());
    let script = format!("ulimit -f 1000; diskpipe serve {arguments} --run 'diskpipe info \"$uri\"'");
    let refused = Run::sh(&script).end();
    assert!(refused.stderr.contains("making room for"), "{}", refused.stderr);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
}
