//! What is on a disk: shown by `dump`, taken away by `discard` and `zero`.

use e2e::{Run, Server, directory, needs};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
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
        "memory 32",
        "memory 40",
        "memory 64",
        r#"data "\"0123456789abcdef\"*2""#,
        r#"data "\"0123456789abcdef\"*3""#,
        r#"data "\"0123456789abcdef\"*2 \"0123\"""#,
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

#[test]
fn looking_takes_any_part_whatever_blocks_the_server_has() {
    needs!("nbdkit");
    let directory = directory();
    let file = directory.path().join("disk");
    fs::write(&file, [vec![0; 8192], vec![1]].concat()).unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_len(64 << 10).unwrap();
    let server = Server::nbdkit(&format!(
        "--filter=blocksize-policy file {} blocksize-minimum=4K blocksize-error-policy=error",
        file.display()
    ));
    for (tool, part, code) in [
        ("zero", "-o 8193 -l 100", 0),
        ("zero", "-o 8192 -l 1", 2),
        ("zero", "-o 100 -l 8092", 0),
        ("zero", "-o 100 -l 8093", 2),
        ("zero", "-o 8193", 0),
        ("discard", "-o 65535 -l 1", 0),
        ("discard", "-o 8192 -l 1", 2),
        ("discard", "-o 65536", 0),
    ] {
        let run = Run::diskpipe().words(tool).words("--check").words(part).arg(server.uri());
        assert_eq!(run.end().status.code(), Some(code), "{tool} {part}");
    }
    let line = "0000002001: 00 00                                            |..              |\n";
    assert_eq!(Run::diskpipe().words("dump --offset=8193 -n 2").arg(server.uri()).text(), line);
    let refused = Run::diskpipe().words("zero -y -o 1").arg(server.uri()).end().code(1);
    assert!(refused.stderr.contains("the offset 1 is no multiple of the server's smallest block"));
}

#[test]
fn differences_are_listed_counted_and_drawn() {
    let directory = directory();
    let file = |name: &str| directory.path().join(name);
    noise(&file("a"), 1 << 20);
    let mut bytes = fs::read(file("a")).unwrap();
    fs::write(file("same"), &bytes).unwrap();
    bytes[5000] ^= 1;
    bytes[8192..16384].fill(0);
    bytes.extend([7; 1000]);
    fs::write(file("b"), &bytes).unwrap();
    let diff = |words: &str, a: &str, b: &str| {
        Run::diskpipe().words("diff").words(words).args([a, b]).in_directory(directory.path()).end()
    };
    assert_eq!(diff("", "a", "same").code(0).text(), "");
    let expected =
        "      4096        4096  changed\n      8192        8192  removed\n   1048576        1000  added\n";
    assert_eq!(diff("", "a", "b").code(1).text(), expected);
    assert_eq!(diff("-q", "a", "b").code(1).text(), "");
    assert_eq!(
        diff("--totals", "a", "b").code(1).text(),
        "      4096  changed\n      1000  added\n      8192  removed\n"
    );
    let json: serde_json::Value = serde_json::from_str(&diff("--json", "b", "a").code(1).text()).unwrap();
    assert_eq!(json[1]["type"], "added");
    assert_eq!(json.as_array().unwrap().len(), 3);
    assert_eq!(diff("--json", "a", "a").code(0).text(), "[\n]\n");
    assert!(diff("--picture --svg x.svg", "a", "b").code(1).text().contains("▓ changed"));
    assert!(fs::read_to_string(file("x.svg")).unwrap().contains("#d1495b"));
    diff("", "a", "nosuch").code(2);
    diff("--block-size=1000", "a", "b").code(2);
}

#[test]
fn what_cannot_be_read_does_not_end_a_comparison() {
    needs!("nbdkit");
    let directory = directory();
    let script = directory.path().join("script");
    // Bytes x, and a bad place of one block at 2 MiB.
    let bad = r#"#!/bin/sh
        case "$1" in
        get_size) echo 4M ;;
        pread)
            if [ $4 -lt 2101248 ] && [ $(($4 + $3)) -gt 2097152 ]; then echo EIO bad >&2; exit 1; fi
            head -c $3 /dev/zero | tr '\0' x ;;
        *) exit 2 ;;
        esac"#;
    fs::write(&script, bad).unwrap();
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let server = Server::nbdkit(&format!("-r sh {}", script.display()));
    let same = directory.path().join("same");
    fs::write(&same, vec![b'x'; 4 << 20]).unwrap();
    let diff = |words: &str| Run::diskpipe().words("diff").words(words).arg(server.uri()).arg(&same).end();
    let list = diff("").code(2);
    assert_eq!(list.text(), "   2097152        4096  unreadable\n");
    assert!(list.stderr.ends_with("reading at 2097152: input/output error\n"), "{}", list.stderr);
    diff("-q").code(2);
    let drawn = diff("--picture").code(2).text();
    assert!(drawn.contains("? unreadable") && !drawn.contains("changed"), "{drawn}");
    let mut bytes = vec![b'x'; 5 << 20];
    bytes[4 << 20..].fill(0);
    bytes[3 << 20] = b'y';
    fs::write(&same, bytes).unwrap();
    diff("-q").code(1);
    let sums: serde_json::Value = serde_json::from_str(&diff("--totals --json").code(2).text()).unwrap();
    let expected = r#"{ "changed": 4096, "added": 1048576, "removed": 0, "unreadable": 4096 }"#;
    assert_eq!(sums, serde_json::from_str::<serde_json::Value>(expected).unwrap());
    let list: serde_json::Value = serde_json::from_str(&diff("--json").code(2).text()).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 3);
}

#[test]
fn the_parts_of_a_file_are_those_that_a_server_tells() {
    needs!("nbdkit", "nbdinfo");
    let directory = directory();
    let file = directory.path().join("disk");
    fs::write(&file, [vec![0; 1 << 20], vec![1; 1 << 20]].concat()).unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_len(5 << 20).unwrap();
    let json = |run: Run| serde_json::from_str::<serde_json::Value>(&run.text()).unwrap();
    let server = Server::nbdkit(&format!("file {}", file.display()));
    assert_eq!(
        json(Run::diskpipe().words("map --json").arg(&file)),
        json(Run::new("nbdinfo").words("--map --json").arg(server.uri()))
    );
    assert_eq!(json(Run::diskpipe().words("map --json [ nbdkit memory 0 ]")), serde_json::json!([]));
    Run::diskpipe().words("map --json").args([&file, &file]).end().code(1);
}

#[test]
fn servers_are_compared_and_terabytes_of_nothing_take_no_time() {
    needs!("qemu-nbd", "qemu-img");
    let disk = e2e::RealDisk::get();
    let image = ["[", "qemu-nbd", "-r", "-f", "qcow2", disk.qcow2.to_str().unwrap(), "]"];
    Run::diskpipe().arg("diff").args(image).arg(&disk.raw).end().code(0);
    let two = r#"diskpipe diff "$uri" [ diskpipe serve memory 2T ] && diskpipe map "$uri""#;
    let text = Run::serve("memory 2T", two).end().code(0).text();
    assert!(text.contains("· hole"), "{text}");
}

#[test]
fn a_copy_is_read_back_and_a_server_that_lies_is_found_out() {
    let directory = directory();
    let place = |name: &str| directory.path().join(name).display().to_string();
    noise(&directory.path().join("a"), 1_000_000);
    let copy = |from: &str, to: &str| {
        Run::diskpipe().args(["copy", "--verify", from, to]).in_directory(directory.path()).end()
    };
    let server = Server::ours("memory 4M");
    copy("a", &server.uri()).good();
    copy(&server.uri(), "b").good();
    copy("a", "c").good();
    assert_eq!(fs::read(place("a")).unwrap(), fs::read(place("c")).unwrap());
    copy("a", "null:").code(1);
    copy("a", "-").code(1);
    let liar = Server::ours("--filter=evil memory 4M evil=stuck-bits evil-probability=1:100000 evil-seed=7");
    let ended = copy("a", &liar.uri()).code(1);
    assert!(
        ended.stderr.contains("is not what was written to it: it differs from a at "),
        "{}",
        ended.stderr
    );
}
