//! Disks in compressed memory.

use e2e::{Run, Server, directory, needs};
use std::fs;

/// Bytes that a process takes for itself, without what it shares with files.
fn taken(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("the kernel tells");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

#[test]
fn sixty_four_megabytes_of_text_take_a_tenth_and_come_back() {
    needs!("nbdcopy", "qemu-img");
    let dir = directory();
    let text = dir.path().join("text");
    let line = "It was a dark and stormy night; the rain fell in torrents, except at occasional intervals.\n";
    fs::write(&text, &line.repeat((64 << 20) / line.len())[..]).unwrap();
    let size = fs::metadata(&text).unwrap().len();
    let server = Server::ours("memory 1T allocator=zstd");
    let before = taken(&server);
    Run::new("nbdcopy").arg(&text).arg(server.uri()).end().good();
    let after = taken(&server);
    assert!((after - before) * 10 < size, "{before} bytes, then {after}");
    let script = format!("nbdcopy '{}' - | head -c {size} | cmp - '{}'", server.uri(), text.display());
    // The rest of the terabyte is a hole; whoever stops reading is not told of an error.
    Run::sh(&script).seconds(120).end().good();
    // A file system's way of writing.
    Run::new("qemu-io")
        .args(["-f", "raw", "-c", "write -P 7 12345 54321", "-c", "read -P 7 12345 54321"])
        .arg(server.uri())
        .end()
        .good();
}

#[test]
fn the_largest_compressed_disk_is_told_by_its_size() {
    needs!("nbdinfo");
    let said = Run::serve("memory 7E allocator=zstd", r#"nbdinfo --size "$uri""#).text();
    assert_eq!(said, "8070450532247928832\n");
}
