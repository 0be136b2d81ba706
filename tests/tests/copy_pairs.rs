//! Copies between everything that can stand at an end of one: each server, files, block devices and streams, in all pairs.

use e2e::{Loop, Run, Server, directory, needs};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

const SIZE: usize = 1 << 20;
/// Where the hole is, in bytes.
const HOLE: std::ops::Range<usize> = 256 << 10..768 << 10;

/// Data, a hole, data.
fn content() -> Vec<u8> {
    let byte = |at| if HOLE.contains(&at) { 0 } else { (at * 7 + (at >> 11)) as u8 | 1 };
    (0..SIZE).map(byte).collect()
}

/// One end: what it is called here, and what stands for it on a command line of the shell. Streams are redirections.
struct End {
    name: &'static str,
    word: String,
    redirect: String,
    /// It takes zeroes as such, and frees their space.
    sparse: bool,
    /// The file behind it, if it is not the one of the pair.
    _keep: Option<Box<dyn Send>>,
}

impl End {
    fn new(name: &'static str, word: String) -> End {
        End { name, word, redirect: String::new(), sparse: true, _keep: None }
    }

    fn server(name: &'static str, server: Server, export: &str) -> End {
        let word = format!("'{}'", server.uri_of(export));
        End { _keep: Some(Box::new(server)), ..End::new(name, word) }
    }

    fn stream(name: &'static str, word: &str, redirect: String) -> End {
        End { redirect, sparse: false, ..End::new(name, word.into()) }
    }
}

/// Servers and devices over files of their own, in this directory. Each is named like its end.
fn ends(dir: &Path, fill: impl Fn(&Path)) -> Vec<End> {
    let file = |name: &str| -> PathBuf {
        let path = dir.join(name);
        fill(&path);
        path
    };
    let quoted = |path: &Path| path.display().to_string();
    let mut ends = vec![
        End::server("nbdkit", Server::nbdkit(&format!("file {}", quoted(&file("nbdkit")))), ""),
        End::server(
            "qemu-nbd",
            Server::qemu(&format!("-f raw --discard=unmap {}", quoted(&file("qemu-nbd")))),
            "",
        ),
        End::server("storage-daemon", Server::storage_daemon(&file("storage-daemon")), "disk"),
        End::server("diskpipe", Server::ours(&format!("file {}", quoted(&file("diskpipe")))), ""),
        End::new("file", format!("'{}'", quoted(&file("file")))),
    ];
    let export = format!("[x]\nexportname = {}\nflush = true\ntrim = true\n", quoted(&file("nbd-server")));
    if let Some(server) = Server::nbd_server(&export) {
        // It cannot zero.
        ends.push(End { sparse: false, ..End::server("nbd-server", server, "x") });
    }
    if let Some(device) = Loop::over(&file("loop")) {
        let word = quoted(device.path());
        // Not every kernel frees the space below a device.
        ends.push(End { sparse: false, _keep: Some(Box::new(device)), ..End::new("loop", word) });
    }
    ends
}

fn image(path: &Path) {
    let (file, bytes) = (File::create(path).unwrap(), content());
    file.set_len(SIZE as u64).unwrap();
    file.write_all_at(&bytes[..HOLE.start], 0).unwrap();
    file.write_all_at(&bytes[HOLE.end..], HOLE.end as u64).unwrap();
}

/// What was there before: all of it, and longer than a regular file should be when it is written.
fn rubbish(path: &Path) {
    let file = File::options().write(true).create(true).truncate(false).open(path).unwrap();
    file.write_all_at(&[0x77; SIZE], 0).unwrap();
}

#[test]
fn whatever_stands_at_the_ends_the_copy_is_the_same() {
    needs!("nbdkit", "qemu-nbd", "qemu-storage-daemon", "nbd-server", "unshare", "losetup", "mkfifo");
    let dir = directory();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).and_then(|()| fs::create_dir(&to)).unwrap();
    let mut sources = ends(&from, image);
    let image_there = from.join("file").display().to_string();
    sources.push(End::stream("pipe", &format!("'{}'", from.join("pipe").display()), String::new()));
    sources.push(End::stream("stdin", "-", format!("cat '{image_there}' |")));
    sources.push(End::stream("stdin that is a file", "-", format!("< '{image_there}'")));
    let mut destinations = ends(&to, rubbish);
    destinations.push(End::stream("pipe", &format!("'{}'", to.join("fifo").display()), String::new()));
    destinations.push(End::stream("stdout", "-", format!("| cat > '{}'", to.join("stdout").display())));
    for pipe in [from.join("pipe"), to.join("fifo")] {
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    }
    let expected = content();
    let mut pairs = 0;
    for destination in &destinations {
        for source in &sources {
            let arrived = to.join(destination.name);
            rubbish(&arrived);
            let (before, after) = match source.redirect.strip_suffix('|') {
                Some(producer) => (format!("{producer} |"), ""),
                None => (String::new(), source.redirect.as_str()),
            };
            // The other ends of named pipes.
            let writer = (source.name == "pipe").then(|| format!("cat '{image_there}' > {} &", source.word));
            let reader = (destination.name == "pipe")
                .then(|| format!("cat {} > '{}' &", destination.word, arrived.display()));
            let script = format!(
                "{} {}\n{before} diskpipe copy {} {} {after} {}\ncode=$?; wait; exit $code",
                writer.unwrap_or_default(),
                reader.unwrap_or_default(),
                source.word,
                destination.word,
                destination.redirect,
            );
            let pair = format!("{} to {}", source.name, destination.name);
            let ended = Run::sh(&script).end();
            assert!(ended.status.success(), "{pair}: {}", ended.stderr);
            if destination.name == "loop" {
                Run::new("sync").arg("--").arg(&arrived).end().good();
            }
            assert!(fs::read(&arrived).unwrap() == expected, "{pair}");
            let allocated = fs::metadata(&arrived).unwrap().blocks() * 512;
            let data = (SIZE - HOLE.len()) as u64;
            assert!(!destination.sparse || allocated <= data + (64 << 10), "{pair}: {allocated} bytes");
            pairs += 1;
        }
    }
    assert!(pairs >= 80 || sources.len() < 10, "{pairs}");
}

#[test]
fn a_served_image_flows_into_a_qcow2_image_that_is_made_in_advance() {
    needs!("qemu-nbd", "qemu-img", "cmp");
    let dir = directory();
    image(&dir.path().join("disk.raw"));
    let script = r#"
        qemu-img create -q -f qcow2 -o preallocation=metadata out.qcow2 1M
        diskpipe serve -r file disk.raw --run 'diskpipe copy -p -- "$uri" [ qemu-nbd -f qcow2 out.qcow2 ]'
        qemu-img compare -f raw -F qcow2 disk.raw out.qcow2"#;
    let ended = Run::sh(script).in_directory(dir.path()).end().good();
    assert!(ended.text().contains("Images are identical."), "{}", ended.text());
    assert!(ended.stderr.contains("100% ["), "{:?}", ended.stderr);
}
