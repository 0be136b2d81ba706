//! What is on a disk: shown by `dump`, taken away by `discard` and `zero`.

use e2e::{Run, Server, directory, needs};
use std::os::unix::fs::MetadataExt;
use std::{fs, path::Path};

/// The same command under our name and the peer's.
fn both(server: &str, peer: &str, ours: &str) -> (String, String) {
    (
        Run::sh(&format!("nbdkit -U - {server} --run '{peer}'")).text(),
        Run::sh(&format!("nbdkit -U - {server} --run '{ours}'")).text(),
    )
}

#[test]
fn dump_writes_what_the_peer_writes() {
    needs!("nbdkit", "nbddump");
    let disks = [
        r#"data "\"hello\" @1000 1 @1048576 2 @1048609 3 @^512 \"xyz\"*100""#,
        "memory 40",
        "memory 64",
        "zero",
        "pattern 100000",
        "sparse-random 300K seed=1",
    ];
    for disk in disks {
        for options in ["", "-n 20", "--length=64", "--limit 1024", "--colour -n 48"] {
            let (peer, ours) =
                both(disk, &format!("nbddump {options} $uri"), &format!("diskpipe dump {options} $uri"));
            match options.contains("colour") {
                // The colours are the same; how often they are switched on is our own matter.
                true => assert_eq!(without_colours(&peer), without_colours(&ours), "{disk} {options}"),
                false => assert_eq!(peer, ours, "{disk} {options}"),
            }
        }
    }
}

fn without_colours(text: &str) -> String {
    let mut parts = text.split('\x1b');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
}

#[test]
fn a_sparse_disk_of_any_size_is_dumped_in_one_glance() {
    let dump =
        Run::serve("memory 7E", r#"diskpipe dump "$uri"; diskpipe dump --offset=7169P -n 8 "$uri"; true"#)
            .end();
    let text = dump.text();
    assert!(text.starts_with("0000000000: 00 ") && text.contains("\n*\n6ffffffffffffff0: 00 "), "{text}");
}

#[test]
fn what_is_behind_the_end_is_not_dumped() {
    let server = Server::ours("memory 1K");
    let uri = server.uri();
    let text = Run::diskpipe().args(["dump", "--offset=1020", "-n", "1M", &uri]).text();
    assert_eq!(text, "00000003fc: 00 00 00 00                                      |....            |\n");
    Run::diskpipe().args(["dump", "--offset=1025", &uri]).end().code(1);
    Run::diskpipe().args(["dump", "--offset=1x", &uri]).end().code(1);
}

#[test]
fn what_was_read_before_an_error_is_shown() {
    let dump = r#"diskpipe dump "$uri""#;
    let end =
        Run::serve("--filter=offset --filter=error pattern 4M offset=3M error-pread-rate=100%", dump).end();
    assert!(end.text().is_empty(), "{}", end.text());
    end.code(1);
}

fn noise(file: &Path, length: usize) {
    fs::write(file, (0..length).map(|i| (i * 7 % 251) as u8 | 1).collect::<Vec<u8>>()).unwrap();
}

#[test]
fn discarding_gives_the_space_back_and_zeroing_keeps_it() {
    let directory = directory();
    let file = directory.path().join("disk");
    noise(&file, 4 << 20);
    let server = Server::ours(&format!("file {}", file.display()));
    let uri = server.uri();
    let end = |words: &str| Run::diskpipe().words(words).arg(&uri).end();
    end("discard --check -q").code(2);
    end("zero --check -q").code(2);
    end("zero -y -o 1M -l 1M").good();
    end("zero --check -o 1M -l 1M").good();
    let bytes = fs::read(&file).unwrap();
    assert!(bytes[..1 << 20].iter().all(|b| *b != 0) && bytes[2 << 20..].iter().all(|b| *b != 0));
    assert!(bytes[1 << 20..2 << 20].iter().all(|b| *b == 0));
    assert!(fs::metadata(&file).unwrap().blocks() * 512 >= 4 << 20, "zeroes are allocated");
    end("discard --yes").good();
    end("discard --check").good();
    end("discard --check --zero").good();
    assert!(fs::metadata(&file).unwrap().blocks() * 512 < 1 << 20, "the space is back");
}

#[test]
fn nothing_is_erased_without_consent() {
    let directory = directory();
    let file = directory.path().join("disk");
    noise(&file, 64 << 10);
    let server = Server::ours(&format!("file {}", file.display()));
    let uri = server.uri();
    for answer in ["n\n", "\n", "", "yep\n"] {
        let end = Run::diskpipe().args(["discard", &uri]).input(answer.as_bytes()).end();
        assert!(end.text().contains("bytes 0 to 65535"), "{}", end.text());
        end.code(1);
    }
    assert!(fs::read(&file).unwrap().iter().all(|b| *b != 0));
    Run::diskpipe().args(["zero", &uri]).input(b"y\n").end().good();
    assert!(fs::read(&file).unwrap().iter().all(|b| *b == 0));
}

#[test]
fn a_server_that_cannot_erase_is_told_from_one_that_can() {
    let run = |serve: &str, tool: &str| Run::serve(serve, &format!("diskpipe {tool} \"$uri\"")).end();
    run("-r memory 1M", "discard -y").code(1);
    run("-r memory 1M", "zero -y").code(1);
    run("memory 1M", "discard -y -o 2M").code(1);
    run("memory 1M", "zero -y -o 512K -l 1M").code(1);
    // Without zeroes of its own the server gets them as data; but then they are not fast.
    run("--filter=nozero memory 3M", "zero -y").good();
    run("--filter=nozero memory 3M", "zero -y --fast-zero").code(1);
    run("memory 3M", "zero -y --fast-zero -v").good();
    run("memory 0", "zero -y").good();
}
