//! Overlays that outlive their server: with real clients, file systems, full disks and servers that are killed.

use e2e::{Run, Server, directory, needs, skip};
use rustix::process::Signal;
use std::{fs, path::Path};

/// Our server over a file, with its overlay in `changes`.
fn serve(dir: &Path, more: &str) -> Server {
    let (base, changes) = (dir.join("base"), dir.join("changes"));
    Server::ours(&format!("--filter=cow file {} cow-file={} {more}", base.display(), changes.display()))
}

/// Ends a server as if its machine had lost interest.
fn kill(server: Server) {
    server.process.signal(Signal::KILL);
    drop(server);
}

#[test]
fn peers_find_what_they_wrote_after_a_restart() {
    needs!("qemu-io", "qemu-img", "nbdcopy", "cmp");
    let dir = directory();
    let at = |name: &str| dir.path().join(name);
    let base: Vec<u8> = (0..8 << 20).map(|i: u32| (i / 512) as u8 | 1).collect();
    fs::write(at("base"), &base).unwrap();
    let qemu = |server: &Server, commands: &[&str]| {
        let uri = server.uri();
        let args = commands.iter().flat_map(|command| ["-c", command]);
        Run::new("qemu-io").words("-f raw").args(args).arg(&uri).end().good();
    };
    let server = serve(dir.path(), "");
    qemu(&server, &["write -P 0x11 10k 100k", "write -z -u 4M 1M", "discard 6M 1M", "flush"]);
    kill(server);
    let server = serve(dir.path(), "");
    qemu(
        &server,
        &["read -P 0x11 10k 100k", "read -P 0 4M 1M", "read -P 0 6M 1M", "write -f -P 0x22 7M 64k"],
    );
    kill(server);
    let server = serve(dir.path(), "");
    qemu(&server, &["read -P 0x22 7M 64k", "read -P 0x11 10k 100k"]);
    Run::new("nbdcopy").arg(server.uri()).arg(at("copy")).end().good();
    Run::new("qemu-img").words("compare -f raw -F raw").arg(at("copy")).arg(server.uri()).end().good();
    let mut expected = base.clone();
    expected[10 << 10..110 << 10].fill(0x11);
    expected[4 << 20..5 << 20].fill(0);
    expected[6 << 20..7 << 20].fill(0);
    expected[7 << 20..(7 << 20) + (64 << 10)].fill(0x22);
    assert!(fs::read(at("copy")).unwrap() == expected);
    assert!(fs::read(at("base")).unwrap() == base, "the disk below changed");
}

#[test]
fn a_file_system_is_sound_after_a_restart() {
    needs!("mkfs.ext4", "e2fsck", "debugfs", "nbdcopy");
    let dir = directory();
    let at = |name: &str| dir.path().join(name);
    fs::File::create(at("base")).unwrap().set_len(32 << 20).unwrap();
    fs::File::create(at("image")).unwrap().set_len(32 << 20).unwrap();
    Run::new("mkfs.ext4").words("-q -F").arg(at("image")).end().good();
    let server = serve(dir.path(), "cow-block-size=64K");
    Run::new("nbdcopy").arg("--flush").arg(at("image")).arg(server.uri()).end().good();
    kill(server);
    fs::write(at("file"), "still there").unwrap();
    // A file is put into it, by way of a copy; what changes is copied back.
    let server = serve(dir.path(), "");
    Run::new("nbdcopy").arg(server.uri()).arg(at("changed")).end().good();
    let write = format!("write {} file", at("file").display());
    Run::new("debugfs").args(["-w", "-R", &write]).arg(at("changed")).end().good();
    Run::new("nbdcopy").arg("--flush").arg(at("changed")).arg(server.uri()).end().good();
    kill(server);
    let server = serve(dir.path(), "");
    Run::new("nbdcopy").arg(server.uri()).arg(at("again")).end().good();
    Run::new("e2fsck").words("-f -n").arg(at("again")).end().good();
    assert_eq!(Run::new("debugfs").args(["-R", "cat file"]).arg(at("again")).text(), "still there");
}

/// Writes blocks of which each says how often it was written, flushes now and then, and notes what is stable.
const WRITER: &str = r#"
import os, random, struct
random.seed(int(os.environ["seed"]))
start = int(os.environ["start"])
out = open(os.environ["stable"], "a")
sizes = [4096] * 6 + [512, 12288]
pending = {}
n = start
try:
    while True:
        n += 1
        at = random.randrange(0, 256) * 4096
        size = random.choice(sizes)
        if random.randrange(8) == 0:
            h.trim(4096, at)
            pending[at] = 0
        else:
            # What is on a line of 512 bytes is what was written last, or was trimmed.
            h.pwrite(struct.pack("<Q", n) * (size // 8), at)
            for line in range(at, at + size, 512):
                pending[line] = n
        if random.randrange(20) == 0:
            h.flush()
            out.write("".join("%d %d\n" % (at, n) for at, n in pending.items()) + "flushed %d\n" % n)
            out.flush()
            pending = {}
except Exception as e:
    pass
out.write("last %d\n" % n)
"#;

#[test]
fn a_server_that_is_killed_at_any_moment_keeps_what_was_flushed() {
    needs!("nbdsh", "nbdcopy");
    let dir = directory();
    let at = |name: &str| dir.path().join(name);
    let size = 264 * 4096;
    fs::write(at("base"), vec![0; size]).unwrap();
    let mut last = 0u64;
    // By line of 512 bytes: the number that was stable, after which others may have come.
    let mut stable = vec![0u64; size / 512];
    for round in 0..20u64 {
        let server = serve(dir.path(), "");
        let _ = fs::remove_file(at("stable"));
        let mut writer = Run::new("nbdsh")
            .env("seed", round.to_string())
            .env("start", last.to_string())
            .env("stable", at("stable"))
            .arg("-u")
            .arg(server.uri())
            .args(["-c", WRITER])
            .start();
        // At a random moment after the first flush.
        let begun = std::time::Instant::now();
        while !fs::read_to_string(at("stable")).is_ok_and(|text| text.contains("flushed")) {
            assert!(begun.elapsed() < e2e::PATIENCE, "the writer flushes");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        std::thread::sleep(std::time::Duration::from_micros(round * 7919 % 40_000));
        kill(server);
        assert!(writer.wait(e2e::PATIENCE).is_some());
        for line in fs::read_to_string(at("stable")).unwrap().lines() {
            let (word, number) = line.split_once(' ').unwrap();
            let number: u64 = number.parse().unwrap();
            match word {
                "flushed" => {}
                "last" => last = number,
                at => stable_line(&mut stable, at.parse::<usize>().unwrap() / 512, number),
            }
        }
        let server = serve(dir.path(), "");
        Run::new("nbdcopy").arg(server.uri()).arg(at("copy")).end().good();
        drop(server);
        let now = fs::read(at("copy")).unwrap();
        for (line, bytes) in now.chunks(512).enumerate() {
            let numbers: Vec<u64> =
                bytes.chunks(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap())).collect();
            assert!(numbers.iter().all(|n| *n == numbers[0]), "round {round}: line {line} is torn");
            // Trimmed since, or as it was, or written since.
            let n = numbers[0];
            assert!(
                n == 0 || n >= stable[line],
                "round {round}: line {line}: {n}, but {} was flushed",
                stable[line]
            );
            assert!(n <= last, "round {round}: line {line}: {n} was never written");
            stable[line] = n;
        }
    }
    assert!(stable.iter().filter(|n| **n > 0).count() > 200);
}

fn stable_line(stable: &mut [u64], line: usize, number: u64) {
    match number {
        // A trim is of a whole block.
        0 => stable[line..line + 8].fill(0),
        _ => stable[line] = number,
    }
}

#[test]
fn a_full_disk_is_told_to_the_client_and_all_goes_on_when_there_is_room() {
    needs!("qemu-io", "prlimit");
    let dir = directory();
    fs::write(dir.path().join("base"), vec![7; 16 << 20]).unwrap();
    let server = serve(dir.path(), "");
    let limit = |bytes: &str| {
        let pid = server.process.id().to_string();
        Run::new("prlimit")
            .arg(format!("--pid={pid}"))
            .arg(format!("--fsize={bytes}:unlimited"))
            .end()
            .good();
    };
    let io = |command: &str| {
        let script = format!("qemu-io -f raw -c '{command}' -c flush \"$uri\" 2>&1; true");
        Run::sh(&script).env("uri", server.uri()).text()
    };
    assert!(io("write -P 1 0 2M").contains("wrote 2097152/2097152"));
    limit("4194304");
    let full = io("write -P 2 2M 6M");
    assert!(full.contains("No space left on device"), "{full}");
    assert!(!io("read -P 1 0 2M").contains("Pattern verification failed"));
    limit("unlimited");
    assert!(io("write -P 3 2M 6M").contains("wrote 6291456/6291456"));
    kill(server);
    let server = serve(dir.path(), "");
    let read = |what: &str| {
        let read = Run::new("qemu-io").words("-f raw -c").arg(what).arg(server.uri()).text();
        assert!(read.contains("read") && !read.contains("failed"), "{what}: {read}");
    };
    ["read -P 1 0 2M", "read -P 3 2M 6M", "read -P 7 8M 8M"].into_iter().for_each(read);
}

#[test]
fn a_temporary_overlay_or_cache_without_room_tells_the_client_and_recovers() {
    needs!("qemu-io", "prlimit");
    let dir = directory();
    fs::write(dir.path().join("base"), vec![7; 16 << 20]).unwrap();
    let steps = [
        ("unlimited", "write -P 1 0 2M", "wrote 2097152/2097152"),
        ("4194304", "write -P 2 2M 6M", "No space left on device"),
        ("4194304", "read -P 1 0 2M", "read 2097152/2097152"),
        ("unlimited", "write -P 3 2M 6M", "wrote 6291456/6291456"),
        ("unlimited", "read -P 3 2M 6M", "read 6291456/6291456"),
        ("unlimited", "read -P 1 0 2M", "read 2097152/2097152"),
        ("unlimited", "read -P 7 8M 8M", "read 8388608/8388608"),
    ];
    // Below the cache, the limit is that of the file of the disk as well.
    for filter in ["cow BASE cow-memory=0", "cache BASE", "cache BASE cache-on-read=true"] {
        let base = format!("file {}", dir.path().join("base").display());
        let server = Server::ours(&format!("--filter={}", filter.replace("BASE", &base)));
        for (limit, command, expected) in steps {
            let pid = format!("--pid={}", server.process.id());
            Run::new("prlimit").arg(pid).arg(format!("--fsize={limit}:unlimited")).end().good();
            let script = format!("qemu-io -f raw -c '{command}' -c flush \"$uri\" 2>&1; true");
            let said = Run::sh(&script).env("uri", server.uri()).text();
            assert!(
                said.contains(expected) && !said.contains("verification failed"),
                "{filter}: {command}: {said}"
            );
        }
        kill(server);
        fs::write(dir.path().join("base"), vec![7; 16 << 20]).unwrap();
    }
}

#[test]
fn a_full_file_system_loses_nothing_and_all_goes_on_when_there_is_room() {
    needs!("qemu-io", "unshare", "mount");
    if !Run::sh("unshare -m mount -t tmpfs none /mnt").end().status.success() {
        return skip("needs the right to mount");
    }
    // Of an overlay the client is told; a cache passes on what it has no room for.
    let steps = r#"
export uri
io() { qemu-io -f raw "$@" "$uri" 2>&1 || true; }
io -c 'write -P 1 0 1M' -c flush
io -c 'write -P 2 1M 6M' -c flush | grep -q "$1"
io -c 'read -P 1 0 1M' -c 'read -P 7 8M 1M'
mount -o remount,size=32M small
io -c 'write -P 3 1M 6M' -c flush -c 'read -P 3 1M 6M' -c 'read -P 1 0 1M'"#;
    let (full, passed_on) = ("No space left on device", "wrote 6291456/6291456");
    for (filter, parameters, said) in [
        ("cow", "cow-memory=0", full),
        ("cow", "cow-file=small/kept", full),
        ("cache", "cache-on-read=true", passed_on),
        ("cache", "cache=unsafe", passed_on),
        ("cache", "cache-file=small/kept", passed_on),
        ("cbt", "cbt-file=small/kept cbt-name=a", passed_on),
        ("trace", "trace-file=small/kept", passed_on),
    ] {
        let dir = directory();
        fs::write(dir.path().join("base"), vec![7; 16 << 20]).unwrap();
        fs::create_dir(dir.path().join("small")).unwrap();
        fs::write(dir.path().join("steps"), steps).unwrap();
        // What was not for this server alone is there again.
        let (kept, again) = match parameters {
            "cow-memory=0" | "cache=unsafe" => (3, "true"),
            _ => (4, "qemu-io -f raw -c \"read -P 1 0 1M\" \"$uri\""),
        };
        let script = format!(
            "mount -t tmpfs -o size=4M none small; export TMPDIR=$PWD/small
            diskpipe serve --filter={filter} file base {parameters} --run 'set -- \"{said}\"; set -e; . ./steps'
            diskpipe serve --filter={filter} file base {parameters} --run '{again}'"
        );
        fs::write(dir.path().join("script"), script).unwrap();
        let ended = Run::sh("unshare -m sh -eu script").in_directory(dir.path()).seconds(120).end().good();
        let told = ended.text();
        assert!(!told.contains("verification failed"), "{filter} {parameters}: {told}");
        assert_eq!(told.matches("read 1048576/1048576").count(), kept, "{filter} {parameters}: {told}");
        assert!(told.contains("read 6291456/6291456"), "{filter} {parameters}: {told}");
    }
}

#[test]
fn every_client_has_a_disk_of_its_own_and_finds_it_again() {
    needs!("nbdsh");
    let dir = directory();
    fs::write(dir.path().join("base"), vec![b'.'; 1 << 20]).unwrap();
    fs::create_dir(dir.path().join("vms")).unwrap();
    let start = || {
        let (base, vms) = (dir.path().join("base"), dir.path().join("vms"));
        Server::ours(&format!("--filter=cow file {} cow-per-client={}", base.display(), vms.display()))
    };
    let say = |server: &Server, export: &str, script: &str| {
        Run::new("nbdsh").arg("-u").arg(server.uri_of(export)).args(["-c", script]).text()
    };
    let server = start();
    for vm in ["vm1", "vm2", "vm3"] {
        say(&server, vm, &format!("h.pwrite(b\"I am {vm}\", 1000); h.flush()"));
    }
    kill(server);
    let server = start();
    for vm in ["vm1", "vm2", "vm3"] {
        assert_eq!(say(&server, vm, "print(h.pread(8, 1000).decode())").trim(), format!("I am {vm}"));
    }
    assert_eq!(say(&server, "vm4", "print(h.pread(3, 1000).decode())").trim(), "...");
    let mut files: Vec<_> = fs::read_dir(dir.path().join("vms"))
        .unwrap()
        .map(|f| f.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["vm1.cow", "vm2.cow", "vm3.cow", "vm4.cow"]);
}

#[test]
fn forks_of_forks_are_served_and_committed() {
    needs!("qemu-io");
    let dir = directory();
    let at = |name: &str| dir.path().join(name);
    let base = vec![7u8; 4 << 20];
    fs::write(at("base"), &base).unwrap();
    let overlay = |words: &str| Run::diskpipe().words("overlay").words(words).in_directory(dir.path()).text();
    let write = |server: &Server, command: &str| {
        Run::new("qemu-io")
            .words("-f raw")
            .args(["-c", command, "-c", "flush"])
            .arg(server.uri())
            .end()
            .good();
    };
    let read = |server: &Server| {
        Run::diskpipe().words("copy").arg(server.uri()).arg(at("copy")).end().good();
        fs::read(at("copy")).unwrap()
    };
    let mut expected = base.clone();
    for i in 0..4 {
        let server = serve(dir.path(), "");
        write(&server, &format!("write -P {i} {}k 100k", i * 60));
        expected[(i * 60) << 10..(i * 60 + 100) << 10].fill(i as u8);
        kill(server);
        overlay(&format!("fork changes fork{i}"));
    }
    let server = serve(dir.path(), "");
    assert!(read(&server) == expected);
    write(&server, "write -z -u 1M 1M");
    kill(server);
    assert_eq!(overlay("diff changes fork3"), "   1048576     1048576  changed\n");
    expected[1 << 20..2 << 20].fill(0);
    // Written to a disk of its own, over NBD: the forks keep theirs.
    fs::write(at("other"), &base).unwrap();
    let other = Server::ours(&format!("file {}", at("other").display()));
    let before = overlay("info --json changes");
    Run::diskpipe()
        .words("overlay commit --force changes")
        .arg(other.uri())
        .in_directory(dir.path())
        .end()
        .good();
    drop(other);
    assert!(fs::read(at("other")).unwrap() == expected);
    assert!(before.contains("\"zero-blocks\": 256,") && before.matches("\"file\"").count() == 5, "{before}");
    assert!(overlay("info changes").contains("zero: 0 blocks"));
    fs::rename(at("fork3"), at("changes")).unwrap();
    expected[1 << 20..2 << 20].fill(7);
    assert!(read(&serve(dir.path(), "")) == expected);
}

#[test]
fn a_commit_that_was_killed_is_begun_again() {
    needs!("qemu-io");
    let dir = directory();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("base"), vec![7u8; 4 << 20]).unwrap();
    let server = serve(dir.path(), "");
    Run::new("qemu-io")
        .words("-f raw")
        .args(["-c", "write -P 1 0 3M", "-c", "flush"])
        .arg(server.uri())
        .end()
        .good();
    drop(server);
    // The disk below takes its time, and goes away in the middle.
    let slow = Server::ours(&format!("--filter=delay file {} wdelay=200ms", at("base").display()));
    let mut commit =
        Run::diskpipe().words("overlay commit changes").arg(slow.uri()).in_directory(dir.path()).start();
    let begun = std::time::Instant::now();
    while fs::read(at("base")).unwrap()[0] == 7 {
        assert!(begun.elapsed() < e2e::PATIENCE);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    commit.signal(Signal::KILL);
    assert!(commit.wait(e2e::PATIENCE).is_some());
    drop(slow);
    let commit = Run::diskpipe().words("overlay commit changes base").in_directory(dir.path()).end();
    assert!(commit.good().text().contains("3145728 bytes of data"));
    let bytes = fs::read(at("base")).unwrap();
    assert!(bytes[..3 << 20].iter().all(|b| *b == 1) && bytes[3 << 20..].iter().all(|b| *b == 7));
    // It goes on from there.
    let server = serve(dir.path(), "");
    Run::new("qemu-io").words("-f raw").args(["-c", "read -P 1 0 3M"]).arg(server.uri()).end().good();
}
