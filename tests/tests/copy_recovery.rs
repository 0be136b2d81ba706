//! Copies whose servers or who themselves are killed, and copies of what has changed.

use e2e::{Process, Run, Server, directory, listens, needs};
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SIZE: usize = 4 << 20;

/// How often something is killed in each of the tests that do so at random moments; `E2E_KILLS=1000` makes a long run of them.
fn kills_wanted() -> u64 {
    std::env::var("E2E_KILLS").map_or(50, |number| number.parse().expect("a number"))
}

/// Where the random moments begin, which a long run may vary.
fn seed(usual: u64) -> u64 {
    std::env::var("E2E_SEED").map_or(usual, |number| number.parse().expect("a number"))
}

/// xorshift64, the same for the same seed.
struct Random(u64);

impl Random {
    /// The seed is said, so that a failure can be looked for again.
    fn new(seed: u64) -> Random {
        println!("seed {seed}");
        Random(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Islands of data, different for each number, in a disk of zeroes.
fn content(number: u64) -> Vec<u8> {
    let mut random = Random(number | 1);
    let mut bytes = vec![0; SIZE];
    for part in bytes.chunks_mut(64 << 10) {
        if random.below(4) > 0 {
            part.fill_with(|| random.below(256) as u8);
        }
    }
    bytes
}

/// A server of ours that is started again on the same socket.
struct Again {
    socket: PathBuf,
    words: String,
    process: Process,
}

impl Again {
    fn new(dir: &Path, name: &str, words: &str) -> Again {
        let socket = dir.join(name);
        let process = Again::start(&socket, words);
        Again { socket, words: words.into(), process }
    }

    fn start(socket: &Path, words: &str) -> Process {
        let process = Run::diskpipe().words("serve -f -U").arg(socket).words(words).start();
        let begun = Instant::now();
        while !listens(socket) {
            assert!(begun.elapsed() < e2e::PATIENCE, "`{words}` does not serve");
            std::thread::sleep(Duration::from_millis(1));
        }
        process
    }

    fn kill_and_start_again(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait(e2e::PATIENCE).expect("what is killed ends");
        fs::remove_file(&self.socket).unwrap();
        self.process = Again::start(&self.socket, &self.words);
    }

    fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket.display())
    }
}

/// Runs a copy that is killed at random moments until one of its runs ends. Returns how many were killed.
fn copy_through_kills(random: &mut Random, dir: &Path, from: &str, to: &str) -> u64 {
    for kills in 0.. {
        assert!(kills < 1000, "it never comes to an end");
        let mut copy = Run::diskpipe()
            .words("copy --rate=24M --checkpoint=noted --checkpoint-interval=15ms")
            .args([from, to])
            .in_directory(dir)
            .start();
        // Where a processor is shared by many it may take longer than that until anything is copied and noted.
        let longer = 1 + kills / 10;
        if let Some(status) = copy.wait(Duration::from_millis((20 + random.below(130)) * longer)) {
            assert!(status.success(), "{from} to {to}: {status}");
            return kills;
        }
        copy.signal(Signal::KILL);
        copy.wait(e2e::PATIENCE).expect("what is killed ends");
    }
    unreachable!()
}

#[test]
fn a_copy_that_is_killed_goes_on_where_it_was() {
    let mut random = Random::new(seed(7));
    let dir = directory();
    let (source, out, file) =
        (dir.path().join("source"), dir.path().join("out"), dir.path().join("served-out"));
    fs::write(&source, content(1)).unwrap();
    File::create(&file).unwrap().set_len(SIZE as u64).unwrap();
    let served = Again::new(dir.path(), "s1", &format!("-r file {}", source.display()));
    let taken = Again::new(dir.path(), "s2", &format!("file {}", file.display()));
    let (source, out_name) = (source.display().to_string(), out.display().to_string());
    let ways = [
        (source.clone(), out_name.clone(), &out),
        (served.uri(), out_name, &out),
        (source, taken.uri(), &file),
    ];
    let mut kills = 0;
    for round in 0.. {
        let (from, to, arrived) = &ways[round % ways.len()];
        if *arrived == &file {
            File::options().write(true).open(&file).unwrap().write_all_at(&vec![0x55; SIZE], 0).unwrap();
        } else {
            let _ = fs::remove_file(&out);
        }
        kills += copy_through_kills(&mut random, dir.path(), from, to);
        assert!(fs::read(arrived).unwrap() == content(1), "{from} to {to}, after {kills} kills");
        assert!(!dir.path().join("noted").exists(), "it is removed when all is done");
        if kills >= kills_wanted() {
            break;
        }
    }
}

#[test]
fn a_copy_whose_servers_are_killed_connects_again_and_loses_nothing() {
    let mut random = Random::new(seed(11));
    let dir = directory();
    let (source, out) = (dir.path().join("source"), dir.path().join("out"));
    fs::write(&source, content(2)).unwrap();
    File::create(&out).unwrap().set_len(SIZE as u64).unwrap();
    let mut served = Again::new(dir.path(), "s1", &format!("-r file {}", source.display()));
    // What was not flushed is lost when this one is killed.
    let mut taken = Again::new(dir.path(), "s2", &format!("--filter=cache file {}", out.display()));
    let mut kills = 0;
    while kills < kills_wanted() {
        let mut rest = 5;
        File::options().write(true).open(&out).unwrap().write_all_at(&vec![0x55; SIZE], 0).unwrap();
        let script =
            r#"exec diskpipe copy --retry=30 --rate=16M --checkpoint-interval=40ms "$1" "$2" 2> said"#;
        let copy = Run::sh(script).args(["sh".into(), served.uri(), taken.uri()]);
        let mut copy = copy.in_directory(dir.path()).start();
        let status = loop {
            let patience =
                if rest > 0 { Duration::from_millis(20 + random.below(150)) } else { e2e::PATIENCE };
            if let Some(status) = copy.wait(patience) {
                break status;
            }
            // Killed all the time it would never come to an end.
            assert!(rest > 0, "the copy does not end");
            rest -= 1;
            kills += 1;
            match random.below(2) {
                0 => served.kill_and_start_again(),
                _ => taken.kill_and_start_again(),
            }
        };
        let said = || fs::read_to_string(dir.path().join("said")).unwrap_or_default();
        assert!(status.success(), "after {kills} kills: {status}\n{}", said());
        // Only what was flushed counts.
        taken.process.signal(Signal::KILL);
        taken.process.wait(e2e::PATIENCE).expect("what is killed ends");
        assert!(fs::read(&out).unwrap() == content(2), "after {kills} kills");
        fs::remove_file(&taken.socket).unwrap();
        taken = Again::new(dir.path(), "s2", &taken.words);
    }
}

/// Passes on what comes from one side, up to so many bytes; then both sides are cut off.
fn pass_on(mut from: UnixStream, mut to: UnixStream, mut limit: usize) {
    let mut buffer = [0; 16 << 10];
    while limit > 0
        && let Ok(len @ 1..) = from.read(&mut buffer)
    {
        let part = len.min(limit);
        limit -= part;
        if to.write_all(&buffer[..part]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// A line to a server that breaks in the middle of the first client's writes, and leads to another server from then on.
fn breaking_line(at: &Path, first: PathBuf, then: PathBuf) {
    let listener = UnixListener::bind(at).unwrap();
    std::thread::spawn(move || {
        let servers = std::iter::once((first, 1 << 20)).chain(std::iter::repeat((then, usize::MAX)));
        for ((server, limit), client) in servers.zip(listener.incoming()) {
            let (Ok(client), Ok(server)) = (client, UnixStream::connect(server)) else { return };
            let (back, answers) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || pass_on(answers, back, usize::MAX));
            std::thread::spawn(move || pass_on(client, server, limit));
        }
    });
}

#[test]
fn what_a_server_of_a_lost_connection_writes_at_last_does_no_harm() {
    needs!("nbdkit", "dd");
    let dir = directory();
    let (source, out) = (dir.path().join("source"), dir.path().join("out"));
    fs::write(&source, content(8)).unwrap();
    fs::write(&out, vec![0x55; SIZE]).unwrap();
    // It takes writes, and carries them out when it is told to.
    let [begun, go, done] = ["begun", "go", "done"].map(|name| dir.path().join(name));
    let write = format!(
        "pwrite=echo $4 >> '{}'; cat > '{}'.$4; while ! [ -e '{}' ]; do sleep 0.05; done; \
         dd if='{1}'.$4 of='{}' oflag=seek_bytes seek=$4 bs=64K conv=notrunc status=none && echo $4 >> '{1}'",
        begun.display(),
        done.display(),
        go.display(),
        out.display()
    );
    let slow = Server::start(|socket| {
        let eval = Run::new("nbdkit").words("-f -U").arg(socket).arg("eval");
        eval.arg(format!("get_size=echo {SIZE}")).args(["thread_model=echo parallel", &write])
    });
    let quick = Server::nbdkit(&format!("file {}", out.display()));
    let line = dir.path().join("line");
    breaking_line(&line, slow.socket(), quick.socket());
    let copy = Run::diskpipe().words("copy --retry --connections=1").arg(&source);
    let ended = copy.arg(format!("nbd+unix:///?socket={}", line.display())).end().good();
    assert!(ended.stderr.contains("connecting again"), "{}", ended.stderr);
    assert!(fs::read(&out).unwrap() == content(8), "what was not answered was written again");
    // Somebody else's change shows where it writes now; as the manual says, that was too early.
    File::options().write(true).open(&out).unwrap().write_all_at(&vec![0x55; SIZE], 0).unwrap();
    fs::write(&go, "").unwrap();
    let lines = |file: &Path| -> Vec<usize> {
        fs::read_to_string(file).unwrap_or_default().lines().filter_map(|line| line.parse().ok()).collect()
    };
    let start = Instant::now();
    while lines(&done).len() < lines(&begun).len() {
        assert!(start.elapsed() < e2e::PATIENCE, "{:?} of {:?}", lines(&done), lines(&begun));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!lines(&done).is_empty(), "no write was late");
    let (found, copied) = (fs::read(&out).unwrap(), content(8));
    for at in lines(&done) {
        assert!(found[at] != 0x55 || found[at] == copied[at], "nothing was written at {at}");
    }
    assert!(found.iter().zip(&copied).all(|(found, copied)| found == copied || *found == 0x55));
}

#[test]
fn a_new_file_has_its_length_when_the_rest_is_stable() {
    needs!("strace");
    let dir = directory();
    fs::write(dir.path().join("source"), content(9)).unwrap();
    let calls = |options: &str| {
        let run = Run::new("strace").words("-f -o calls -e trace=pwrite64,ftruncate,fsync,fdatasync");
        let run =
            run.arg(e2e::diskpipe()).arg("copy").words(options).words("source out").in_directory(dir.path());
        run.end().good();
        assert!(fs::read(dir.path().join("out")).unwrap() == content(9));
        fs::read_to_string(dir.path().join("calls")).unwrap()
    };
    for (options, stable) in [("", true), ("--synchronous", true), ("--no-flush", false)] {
        let calls = calls(options);
        let (before, last) = calls.split_at(calls.rfind("pwrite64(").unwrap());
        assert_eq!(
            (before.contains("sync("), last.contains("sync(")),
            (stable, stable),
            "{options}: {calls}"
        );
    }
}

#[test]
fn an_interrupted_copy_says_so_and_goes_on() {
    for (signal, number) in [("INT", 130), ("TERM", 143)] {
        let dir = directory();
        fs::write(dir.path().join("source"), vec![5; SIZE]).unwrap();
        // The rate leaves it no way to be faster than the signal, which comes when something is noted.
        let script = format!(
            "diskpipe copy --rate=256K --checkpoint=noted --checkpoint-interval=20ms source out & copy=$!
             until [ -e noted ]; do kill -0 $copy || exit; sleep 0.01; done
             kill -{signal} $copy; wait $copy; echo $?"
        );
        let ended = Run::sh(&script).in_directory(dir.path()).end();
        let said = &ended.stderr;
        assert_eq!(ended.text(), format!("{number}\n"), "{said}");
        assert!(said.contains("interrupted: "), "{said}");
        assert!(said.contains("out is not complete; the same command goes on from noted"), "{said}");
        assert!(fs::metadata(dir.path().join("out")).unwrap().len() < SIZE as u64);
        let again = Run::diskpipe().words("copy --summary --checkpoint=noted source out");
        let ended = again.in_directory(dir.path()).end().good();
        assert!(!ended.stderr.contains("4M read"), "it goes on: {}", ended.stderr);
        assert!(fs::read(dir.path().join("out")).unwrap() == vec![5; SIZE]);
    }
}

/// A checkpoint of a copy from there to `out` in this directory, that was killed.
fn half_done(dir: &Path, source: &str) {
    let script = r#"
        diskpipe copy --rate=256K --checkpoint=noted --checkpoint-interval=20ms "$0" out & copy=$!
        until [ -e noted ]; do kill -0 $copy || exit; sleep 0.01; done
        kill -9 $copy; wait $copy; [ $? = 137 ]"#;
    Run::sh(script).arg(source).in_directory(dir).end().good();
    assert!(fs::metadata(dir.join("out")).unwrap().len() < SIZE as u64, "it does not look finished");
}

#[test]
fn a_checkpoint_is_not_believed_when_something_else_has_changed() {
    let dir = directory();
    let at = |name: &str| dir.path().join(name);
    let refused = |why: &str| {
        let copy = Run::diskpipe().words("copy --checkpoint=noted source out").in_directory(dir.path());
        let ended = copy.end().code(1);
        assert!(ended.stderr.contains(why), "{why}: {}", ended.stderr);
    };
    fs::write(at("source"), content(3)).unwrap();
    half_done(dir.path(), "source");
    let whole = fs::read(at("noted")).unwrap();
    fs::write(at("noted"), &whole[..whole.len() - 9]).unwrap();
    refused("the checkpoint is damaged");
    fs::write(at("noted"), "something else").unwrap();
    refused("not a checkpoint");
    fs::write(at("noted"), &whole).unwrap();
    fs::rename(at("out"), at("other")).unwrap();
    refused("what was copied before is not there");
    fs::copy(at("other"), at("out")).unwrap();
    refused("not the destination of the checkpoint: another file has this name now");
    fs::rename(at("other"), at("out")).unwrap();
    let was = fs::read(at("out")).unwrap();
    fs::write(at("out"), vec![9; was.len()]).unwrap();
    refused("it does not hold what was copied to it");
    fs::write(at("out"), &was).unwrap();
    fs::copy(at("source"), at("same")).unwrap();
    fs::rename(at("source"), at("first")).unwrap();
    fs::rename(at("same"), at("source")).unwrap();
    refused("source: not the source of the checkpoint: another file has this name now");
    fs::rename(at("first"), at("source")).unwrap();
    File::options().write(true).open(at("source")).unwrap().set_len(SIZE as u64 + 1).unwrap();
    refused("source: not the source of the checkpoint: its size has changed");
    fs::write(at("source"), content(3)).unwrap();
    refused("source: not the source of the checkpoint: it has been changed");
    let copy = Run::diskpipe().words("copy --assume-same-source --checkpoint=noted source out");
    copy.in_directory(dir.path()).end().good();
    assert!(fs::read(at("out")).unwrap() == content(3));
}

#[test]
fn nor_is_it_when_a_server_has_something_else_now() {
    let dir = directory();
    let source = dir.path().join("source");
    fs::write(&source, content(3)).unwrap();
    let mut served = Again::new(dir.path(), "s", &format!("-r file {}", source.display()));
    let uri = served.uri();
    half_done(dir.path(), &uri);
    let copy = |from: &str| {
        Run::diskpipe().words("copy --checkpoint=noted").args([from, "out"]).in_directory(dir.path()).end()
    };
    let mut refused = |why: &str| {
        served.kill_and_start_again();
        let ended = copy(&uri).code(1);
        let line = format!("{uri}: not the source of the checkpoint: {why}");
        assert!(ended.stderr.contains(&line), "{why}: {}", ended.stderr);
    };
    fs::write(&source, content(4)).unwrap();
    refused("its content has changed");
    fs::write(&source, vec![1; SIZE + 512]).unwrap();
    refused("its size has changed");
    fs::write(&source, content(3)).unwrap();
    served.kill_and_start_again();
    let other = uri.replace("///", "///other");
    assert!(copy(&other).code(1).stderr.contains("not the source of the checkpoint: it is another one"));
    copy(&uri).good();
    assert!(fs::read(dir.path().join("out")).unwrap() == content(3));
}

#[test]
fn what_cannot_go_on_is_refused_at_the_start() {
    let dir = directory();
    fs::write(dir.path().join("source"), content(1)).unwrap();
    for (words, why) in [
        ("cat source | diskpipe copy --checkpoint=c - out", "the source must be"),
        ("diskpipe copy --checkpoint=c - out < source", "the source must be"),
        ("diskpipe copy --checkpoint=c source - > out", "the destination must be"),
        ("diskpipe copy --checkpoint=c source null:", "the destination must be"),
        ("diskpipe copy --retry source out", "neither end is the URI of a server"),
        ("diskpipe copy --retry [ diskpipe serve pattern 1M ] out", "neither end is the URI of a server"),
        ("diskpipe copy --incremental=x source source2", "what was copied before is not there"),
    ] {
        let ended = Run::sh(words).in_directory(dir.path()).end().code(1);
        assert!(ended.stderr.contains(why), "{words}: {}", ended.stderr);
        assert!(!dir.path().join("source2").exists());
    }
}

#[test]
fn what_was_lost_of_a_stream_is_an_error() {
    let dir = directory();
    let out = dir.path().join("out");
    File::create(&out).unwrap().set_len(SIZE as u64).unwrap();
    let words = format!("--filter=cache file {}", out.display());
    let mut taken = Again::new(dir.path(), "s", &words);
    // The rest of the stream comes when the server was killed.
    let script = r#"
        (head -c 1M /dev/urandom; until [ -e go ]; do sleep 0.01; done; head -c 1M /dev/urandom) |
        diskpipe copy --synchronous --retry=30 --checkpoint-interval=100 - "$1""#;
    let (uri, here) = (taken.uri(), dir.path().to_path_buf());
    let copy = std::thread::spawn(move || Run::sh(script).args(["sh".into(), uri]).in_directory(here).end());
    let begun = Instant::now();
    // All clients share the cache: when one reads there what another wrote, it was taken. And what came before that was
    // answered: one piece after the other.
    let second = || Run::diskpipe().words("dump --offset=256K --length=16").arg(taken.uri()).text();
    while second().contains(" 00 00 00 00 00 00") {
        assert!(begun.elapsed() < e2e::PATIENCE);
    }
    taken.kill_and_start_again();
    fs::write(dir.path().join("go"), "").unwrap();
    let ended = copy.join().unwrap().code(1);
    assert!(ended.stderr.contains("a stream cannot be read again"), "{}", ended.stderr);
}

#[test]
fn without_a_server_a_copy_gives_up_at_last() {
    let dir = directory();
    let mut server = Again::new(dir.path(), "s", "--filter=rate pattern 64M rate=8M");
    let command = format!("diskpipe copy --retry=2 '{}' null: & copy=$!; echo; wait $copy", server.uri());
    let copy = std::thread::spawn(move || Run::sh(&command).end());
    // It may not even have begun, and then the socket is not there.
    std::thread::sleep(Duration::from_millis(300));
    server.process.signal(Signal::KILL);
    server.process.wait(e2e::PATIENCE).unwrap();
    fs::remove_file(&server.socket).unwrap();
    let ended = copy.join().unwrap().code(1);
    assert!(ended.stderr.contains("diskpipe copy: "), "{}", ended.stderr);
}

#[test]
fn only_what_a_bitmap_names_is_copied() {
    needs!("qemu-nbd", "qemu-img", "qemu-io", "cmp");
    let dir = directory();
    fs::write(dir.path().join("raw"), content(4)).unwrap();
    let script = r#"set -e
        qemu-img convert -f raw -O qcow2 raw disk.qcow2
        diskpipe copy [ qemu-nbd -r -f qcow2 disk.qcow2 ] backup
        qemu-img bitmap --add disk.qcow2 monday
        qemu-io -f qcow2 -c 'write -P 9 1M 128k' -c 'write -z 2M 192k' -c 'write -P 7 3M 512' disk.qcow2 > log
        # What the bitmap does not name is left alone.
        cp backup other
        printf x | dd of=other bs=1 seek=100 conv=notrunc status=none
        for to in backup other; do
            diskpipe copy --incremental=monday --summary [ qemu-nbd -r -f qcow2 -B monday disk.qcow2 ] $to
        done
        qemu-img convert -f qcow2 -O raw disk.qcow2 now
        cmp now backup
        if cmp -s now other; then echo same; fi
        diskpipe copy --incremental=tuesday [ qemu-nbd -r -f qcow2 -B monday disk.qcow2 ] backup || echo none
        truncate -s 1M short
        diskpipe copy --incremental=monday [ qemu-nbd -r -f qcow2 -B monday disk.qcow2 ] short || echo short"#;
    let ended = Run::sh(script).in_directory(dir.path()).end().good();
    assert_eq!(ended.text(), "none\nshort\n", "{}", ended.stderr);
    assert!(
        ended.stderr.contains("--incremental=qemu:dirty-bitmap:tuesday: the source has no such"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("short: it is no copy of the source"), "{}", ended.stderr);
    // Clusters of 64K: two and one with data, three with zeroes.
    assert!(ended.stderr.contains("copied 384K in"), "{}", ended.stderr);
}

#[test]
fn a_manifest_finds_what_has_changed_and_a_hash_is_the_same_everywhere() {
    let dir = directory();
    let mut bytes = content(5);
    bytes[900_000..1_200_000].fill(6);
    fs::write(dir.path().join("source"), &bytes).unwrap();
    let copy = |words: &str| {
        let script = format!("diskpipe copy {words}");
        Run::sh(&script).in_directory(dir.path()).end()
    };
    let hash = copy("--blkhash --manifest=m1 source backup").good().text();
    assert_eq!(hash.len(), 65);
    for way in ["[ diskpipe serve file source ] null:", "- null: < source", "- - < source 2>&1 > out"] {
        assert_eq!(copy(&format!("--blkhash {way}")).good().text(), hash, "{way}");
    }
    assert_eq!(Run::sh("cat source | diskpipe copy --blkhash - null:").in_directory(dir.path()).text(), hash);
    copy("--blkhash --blkhash-file=h source null:").good();
    assert_eq!(fs::read_to_string(dir.path().join("h")).unwrap(), hash);
    assert_ne!(copy("--blkhash=sha256/4k source null:").good().text(), hash);

    copy("--check=m1 backup null:").good();
    bytes[1_000_000..1_100_000].fill(0);
    bytes[3_000_000] ^= 1;
    fs::write(dir.path().join("source"), &bytes).unwrap();
    let wrong = copy("--check=m1 source null:").code(1);
    assert!(wrong.stderr.contains("it differs at 983040"), "{}", wrong.stderr);
    let brought = copy("--changed-since=m1 --manifest=m2 --summary source backup").good();
    assert!(fs::read(dir.path().join("backup")).unwrap() == bytes);
    assert!(brought.stderr.contains("copied 192K in"), "two blocks and one: {}", brought.stderr);
    copy("--check=m2 backup null:").good();
}

#[test]
fn success_is_told_when_the_destination_was_flushed() {
    let dir = directory();
    fs::write(dir.path().join("source"), content(6)).unwrap();
    for (words, flushes) in
        [("copy source", true), ("copy --no-flush source", false), ("copy - < source", true)]
    {
        let (words, rest) = words.split_once(" <").map_or((words, ""), |(words, _)| (words, "< source"));
        let script = format!(
            "rm -f log; diskpipe serve --filter=log memory 4M logfile=log --run 'diskpipe {words} \"$uri\" {rest}'"
        );
        Run::sh(&script).in_directory(dir.path()).end().good();
        let log = fs::read_to_string(dir.path().join("log")).unwrap();
        let last = log.rfind(" Flush ").zip(log.rfind(" Write "));
        assert_eq!(last.is_some_and(|(flush, write)| flush > write), flushes, "{words}: {log}");
    }
}

#[test]
fn progress_is_told_to_people_and_programs() {
    let ended =
        Run::serve("pattern 8M", r#"diskpipe copy --rate=32M --progress=json:3 "$uri" null: 3>&1"#).text();
    let lines: Vec<serde_json::Value> =
        ended.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.last().unwrap();
    assert_eq!((&last["done"], &last["finished"]), (&(8 << 20).into(), &true.into()));
    assert!(lines.iter().rev().skip(1).all(|line| line["finished"] == false));
    let ended =
        Run::serve("pattern 8M", r#"diskpipe copy --progress=bar --summary "$uri" null:"#).end().good();
    assert!(ended.stderr.contains("100.0% [") && ended.stderr.contains("copied 8M in "), "{}", ended.stderr);
    assert_eq!(Server::ours("pattern 1M").stop().0.unwrap().code(), Some(0));
}
