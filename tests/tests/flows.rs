//! Whole ways that disks go, as people send them: through copies, pipes, file systems and servers in a row.

use e2e::{RealDisk, Run, Server, check_file_system, directory, needs, same_content};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

fn allocated(file: &Path) -> u64 {
    fs::metadata(file).unwrap().blocks() * 512
}

#[test]
fn a_large_sparse_disk_is_copied_and_verified() {
    let ended = Run::serve("sparse-random 20G", r#"diskpipe copy --progress "$uri" "$uri""#).end().good();
    assert!(ended.stderr.contains('\r') && ended.stderr.contains("100%"), "{:?}", ended.stderr);
    assert_eq!(ended.text(), "");
}

#[test]
fn progress_goes_to_a_descriptor_in_lines() {
    let copy = r#"diskpipe copy --progress=3 "$uri" null: 3>&1"#;
    let said = Run::serve("sparse-random 2G", copy).text();
    let percents: Vec<u32> =
        said.lines().map(|line| line.strip_suffix("/100").unwrap().parse().unwrap()).collect();
    assert!(percents.is_sorted() && percents.last() == Some(&100), "{said}");
}

#[test]
fn a_copy_that_meets_an_error_fails() {
    for error in ["error-pread-rate=10%", "error-pwrite-rate=10%"] {
        let parameters = format!("--filter=error sparse-random 4G {error}");
        let ended = Run::serve(&parameters, r#"diskpipe copy "$uri" "$uri""#).end().code(1);
        assert!(ended.stderr.contains("diskpipe copy: "), "{error}: {}", ended.stderr);
    }
}

#[test]
fn what_failed_does_not_look_finished() {
    let dir = directory();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("image"), vec![7; 8 << 20]).unwrap();
    let copies = [
        // The source fails towards its end, or goes away.
        (
            "--filter=error file image error-pread-rate=100% error-file=fail",
            "--rate=256K \"$uri\" out",
            "touch fail",
            "EIO",
        ),
        ("--filter=rate file image rate=2M", "\"$uri\" out", "kill -9 $(cat pid)", ""),
        // The destination is full.
        ("full 8M", "image \"$uri\"", "true", "o space left on device"),
    ];
    for (server, words, meanwhile, why) in copies {
        let _ = fs::remove_file(at("out"));
        let script = format!(
            r#"rm -f pid; diskpipe serve -f -P pid -U sock {server} & server=$!
            until [ -e pid ]; do kill -0 $server || exit; sleep 0.01; done
            uri=nbd+unix:///?socket=sock
            diskpipe copy --connections=1 --progress=json:3 {words} 3> told & copy=$!
            until [ -s out ] || ! kill -0 $copy 2> gone; do sleep 0.01; done
            {meanwhile}
            wait $copy; echo $?
            kill -9 $server 2> gone; rm -f sock"#
        );
        let ended = Run::sh(&script).in_directory(dir.path()).end();
        assert_eq!(ended.text(), "1\n", "{server}: {}", ended.stderr);
        assert!(ended.stderr.contains("diskpipe copy: ") && ended.stderr.contains(why), "{}", ended.stderr);
        let told = fs::read_to_string(at("told")).unwrap();
        assert!(told.contains("\"finished\": false") && !told.contains("\"finished\": true"), "{told}");
        assert!(!told.contains("\"percent\": 100"), "{told}");
        assert!(!at("out").exists() || fs::metadata(at("out")).unwrap().len() < 8 << 20, "{server}");
    }
}

#[test]
fn a_copy_onto_another_disk_is_found_out() {
    let destination = Server::ours("sparse-random 1G seed=2");
    let copy = format!(r#"diskpipe copy "$uri" '{}'"#, destination.uri());
    let ended = Run::serve("sparse-random 1G seed=1", &copy).end().code(1);
    assert!(ended.stderr.contains("diskpipe copy: writing to the destination at "), "{}", ended.stderr);
}

#[test]
fn a_disk_image_goes_through_memory_and_comes_out_whole() {
    needs!("qemu-img", "sfdisk", "mke2fs", "e2fsck");
    let disk = RealDisk::get();
    let out = disk.beside("out.raw");
    let command = format!(
        r#"qemu-img convert -f qcow2 -O raw '{}' "$uri" && diskpipe copy -- "$uri" '{}'"#,
        disk.qcow2.display(),
        out.display()
    );
    Run::serve("memory 1G", &command).end().good();
    same_content(("raw", &out), ("qcow2", &disk.qcow2));
    check_file_system(&out);
    assert!(allocated(&out) <= allocated(&disk.raw) + (1 << 20), "holes stay holes");
}

#[test]
fn a_disk_image_is_read_through_a_command() {
    needs!("qemu-nbd", "qemu-img", "sfdisk", "mke2fs", "e2fsck");
    let disk = RealDisk::get();
    let out = disk.beside("out.raw");
    let copy = Run::diskpipe().words("copy -- [ qemu-nbd -r -f qcow2").arg(&disk.qcow2);
    copy.arg("]").arg(&out).end().good();
    let (converted, convert) = (disk.beside("converted.raw"), "convert -f qcow2 -O raw");
    Run::new("qemu-img").words(convert).args([&disk.qcow2, &converted]).end().good();
    Run::new("cmp").args([&out, &converted]).end().good();
    check_file_system(&out);
    assert!(allocated(&out) <= allocated(&disk.raw) + (1 << 20), "sparse where the source is");
}

#[test]
fn the_first_sector_of_an_image_is_piped_out() {
    needs!("qemu-nbd", "qemu-img", "sfdisk", "mke2fs", "hexdump");
    let disk = RealDisk::get();
    let script = |source: &str| format!("{source} | hexdump -C -n 512");
    let copy = format!("diskpipe copy -- [ qemu-nbd -r -f qcow2 {} ] -", disk.qcow2.display());
    let ours = Run::sh(&script(&copy)).end().good();
    let theirs = Run::sh(&script(&format!("cat {}", disk.raw.display()))).text();
    assert_eq!(ours.text(), theirs);
    assert!(ours.text().contains("55 aa"), "{theirs}");
    assert_eq!(ours.stderr, "", "a reader that had enough is no failure to speak of");
}

#[test]
fn a_pipe_is_copied_into_a_server_and_out_again() {
    needs!("cmp");
    let dir = directory();
    let content: Vec<u8> = (0..5_000_000_u32).map(|at| (at * 7 / 3) as u8).collect();
    fs::write(dir.path().join("in"), &content).unwrap();
    let command = r#"set -e; cat in | diskpipe copy - "$uri"; diskpipe copy "$uri" - | cat > out; cmp -n 5000000 in out"#;
    Run::serve("memory 6M", command).in_directory(dir.path()).end().good();
    assert_eq!(fs::metadata(dir.path().join("out")).unwrap().len(), 6 << 20);
}

#[test]
fn a_disk_of_seven_exbibytes_is_used_at_its_end() {
    needs!("nbdsh");
    let command = r#"diskpipe info --size "$uri" && nbdsh -u "$uri" -c '
end = 8070450532247928832
assert h.get_size() == end
h.pwrite(b"at the very end.", end - 16)
assert h.pread(32, end - 32) == bytes(16) + b"at the very end."
h.zero(1 << 20, end - (1 << 20))
assert h.pread(16, end - 16) == bytes(16)
h.pwrite(b"x", end - 1)
try:
    h.set_strict_mode(0)
    h.pwrite(b"xx", end - 1)
    raise SystemExit("a write past the end was accepted")
except nbd.Error as error:
    assert error.errno in ("ENOSPC", "EINVAL"), error
' && diskpipe info --map --totals "$uri""#;
    let said = Run::serve("memory 7E", command).text();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "8070450532247928832");
    assert!(said.contains("data") && said.contains("hole,zero"), "{said}");
}

#[test]
fn a_server_in_front_of_another_passes_all_through() {
    needs!("qemu-nbd", "nbdinfo", "nbdsh", "qemu-img", "sfdisk", "mke2fs");
    let disk = RealDisk::get();
    let back = Server::qemu(&format!("-r -f qcow2 {}", disk.qcow2.display()));
    let front = Server::ours(&format!("nbd uri={}", back.uri()));
    let ask = |server: &Server, question: &str| Run::new("nbdinfo").words(question).arg(server.uri()).text();
    assert_eq!(ask(&front, "--map"), ask(&back, "--map"));
    assert_eq!(ask(&front, "--size"), ask(&back, "--size"));
    Run::new("nbdinfo").words("--is read-only").arg(front.uri()).end().good();
    let out = disk.beside("out.raw");
    Run::diskpipe().arg("copy").arg(front.uri()).arg(&out).end().good();
    same_content(("raw", &disk.raw), ("raw", &out));
    assert!(allocated(&out) <= allocated(&disk.raw) + (1 << 20), "holes stay holes");
}

#[test]
fn zeroes_and_trims_reach_the_server_behind() {
    needs!("qemu-nbd", "qemu-img", "nbdinfo", "nbdsh");
    let dir = directory();
    let image = dir.path().join("image.qcow2");
    Run::new("qemu-img").words("create -q -f qcow2").arg(&image).arg("64M").end().good();
    let back = Server::qemu(&format!("-f qcow2 --discard=unmap {}", image.display()));
    let front = Server::ours(&format!("nbd uri={}", back.uri()));
    let script = r#"
h.pwrite(b"a" * (8 << 20), 0)
h.zero(2 << 20, 0)
h.trim(2 << 20, 4 << 20)
h.zero(1 << 20, 2 << 20, nbd.CMD_FLAG_NO_HOLE)
h.flush()
"#;
    Run::new("nbdsh").arg("-u").arg(front.uri()).args(["-c", script]).end().good();
    let map = Run::new("nbdinfo").arg("--map").arg(back.uri()).text();
    assert_eq!(map, Run::new("nbdinfo").arg("--map").arg(front.uri()).text());
    let words: Vec<Vec<&str>> = map.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[1], ["3145728", "1048576", "0", "data"], "{map}");
    assert!(words.contains(&vec!["4194304", "2097152", "3", "hole,zero"]), "{map}");
    // The second way in sees what the first wrote.
    let script = r#"assert h.pread(4, 3 << 20) == b"aaaa" and h.pread(4, 0) == bytes(4)"#;
    Run::new("nbdsh").arg("-u").arg(back.uri()).args(["-c", script]).end().good();
}

#[test]
fn flags_of_requests_reach_the_server_behind() {
    needs!("nbdsh");
    let back = Server::ours("--filter=log memory 64M logfile=/dev/stderr");
    let script = r#"
h.pwrite(b"a" * 4096, 0, nbd.CMD_FLAG_FUA)
h.zero(4096, 0x1000, nbd.CMD_FLAG_NO_HOLE)
h.zero(4096, 0x2000, nbd.CMD_FLAG_FAST_ZERO)
h.zero(4096, 0x3000, nbd.CMD_FLAG_FUA)
h.trim(4096, 0x4000)
h.cache(4096, 0x5000)
"#;
    let front = Server::ours(&format!("nbd uri={}", back.uri()));
    Run::new("nbdsh").arg("-u").arg(front.uri()).args(["-c", script]).end().good();
    let (_, log) = back.stop();
    for request in [
        "Write id=1 offset=0x0 count=0x1000 fua=1 ",
        "Zero id=2 offset=0x1000 count=0x1000 trim=0 fua=0 fast=0 ",
        "Zero id=3 offset=0x2000 count=0x1000 trim=1 fua=0 fast=1 ",
        "Zero id=4 offset=0x3000 count=0x1000 trim=1 fua=1 fast=0 ",
        "Trim id=5 offset=0x4000 count=0x1000 fua=0 ",
        "Cache id=6 offset=0x5000 count=0x1000 ",
    ] {
        assert!(log.contains(request), "{request}\n{log}");
    }
}

#[test]
fn three_servers_in_a_row_keep_the_content() {
    needs!("qemu-img", "sfdisk", "mke2fs");
    let disk = RealDisk::get();
    let first = Server::ours(&format!("-r file {}", disk.raw.display()));
    let second = Server::ours(&format!("nbd uri={}", first.uri()));
    let third = Server::ours(&format!("--filter=cow nbd uri={}", second.uri()));
    same_content(("raw", third.uri()), ("raw", &disk.raw));
}

#[test]
fn a_copy_between_two_servers_uses_four_connections_to_each() {
    needs!("nbdkit");
    let source = Server::nbdkit("-v sparse-random 64M seed=1 percent=100");
    let destination = Server::nbdkit("-v memory 64M");
    let copy = || Run::diskpipe().words("copy -C 4");
    copy().args([source.uri(), destination.uri()]).end().good();
    for server in [&source, &destination] {
        assert_eq!(server.log().matches("debug: accepted connection").count(), 4);
    }
    // The source refuses to be given other bytes than its own.
    copy().args([destination.uri(), source.uri()]).end().good();
}

#[test]
// (Go is large, and not among the packages that are installed for the tests: who has it sees this run.)
fn a_program_in_go_reads_and_writes_through_the_peers_library() {
    needs!("go", "cc", "pkg-config");
    if !Run::new("pkg-config").words("--exists libnbd").end().status.success() {
        return e2e::skip("needs libnbd-dev");
    }
    let dir = directory();
    fs::write(dir.path().join("go.mod"), "module client\n\ngo 1.19\n").unwrap();
    let program = r#"package main

// #cgo pkg-config: libnbd
// #include <stdlib.h>
// #include <libnbd.h>
import "C"

import (
	"bytes"
	"fmt"
	"os"
	"unsafe"
)

func must(result C.int) {
	if result == -1 {
		fmt.Println(C.GoString(C.nbd_get_error()))
		os.Exit(1)
	}
}

func main() {
	h := C.nbd_create()
	must(C.nbd_connect_uri(h, C.CString(os.Args[1])))
	written, read := bytes.Repeat([]byte{7}, 5000), make([]byte, 5000)
	must(C.nbd_pwrite(h, unsafe.Pointer(&written[0]), 5000, 4096, 0))
	must(C.nbd_pread(h, unsafe.Pointer(&read[0]), 5000, 4096, 0))
	fmt.Println(C.nbd_get_size(h), bytes.Equal(written, read))
	must(C.nbd_shutdown(h, 0))
	C.nbd_close(h)
}
"#;
    fs::write(dir.path().join("main.go"), program).unwrap();
    let build = Run::new("go").words("build -o client .").in_directory(dir.path());
    let build =
        build.env("GOCACHE", dir.path().join("cache")).env("GOFLAGS", "-mod=mod").env("GOPROXY", "off");
    build.seconds(900).end().good();
    let server = Server::ours("memory 1M");
    let told = Run::new(dir.path().join("client").to_str().unwrap()).arg(server.uri()).text();
    assert_eq!(told, "1048576 true\n");
}
