//! Our server with every client that people have: a real disk in a file, read and written by each of them.

use e2e::{RealDisk, Run, Server, directory, needs, same_content};
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

macro_rules! real_disk {
    ($($program:expr),*) => {{
        needs!("qemu-img", "sfdisk", "mke2fs" $(, $program)*);
        RealDisk::get()
    }};
}

/// `diskpipe serve file FILE` while a shell command runs.
fn serve_file(file: &Path, options: &str, command: &str) -> Run {
    Run::diskpipe().arg("serve").words(options).arg("file").arg(file).args(["--run", command])
}

fn blank(file: &Path, size: u64) {
    File::create(file).and_then(|file| file.set_len(size)).unwrap();
}

/// Bytes that a file takes on its disk.
fn allocated(file: &Path) -> u64 {
    fs::metadata(file).unwrap().blocks() * 512
}

#[test]
fn nbdinfo_describes_a_disk_image() {
    let disk = real_disk!("nbdinfo");
    let said = serve_file(&disk.raw, "-r", r#"nbdinfo "$uri""#).text();
    for line in [
        "protocol: newstyle-fixed without TLS, using structured packets",
        "\texport-size: 201326592 (192M)",
        "\tis_read_only: true",
        "\tcan_multi_conn: true",
        "\tcan_zero: false",
    ] {
        assert!(said.lines().any(|l| l == line), "{line}\n{said}");
    }
    assert!(said.contains("\tcontent: DOS/MBR boot sector"), "{said}");
    assert_eq!(serve_file(&disk.raw, "", r#"nbdinfo --size "$uri""#).text(), "201326592\n");
    serve_file(&disk.raw, "", r#"nbdinfo --can zero "$uri" && nbdinfo --can fast-zero "$uri""#).end().good();
    serve_file(&disk.raw, "-r", r#"nbdinfo --can zero "$uri""#).end().code(2);
}

#[test]
fn nbdinfo_prints_json_of_a_disk_image() {
    let disk = real_disk!("nbdinfo");
    let json: Value =
        serde_json::from_str(&serve_file(&disk.raw, "", r#"nbdinfo --json "$uri""#).text()).unwrap();
    let export = &json["exports"][0];
    assert_eq!(export["export-size"], disk.size);
    assert_eq!(export["is_read_only"], false);
    assert_eq!(export["contexts"][0], "base:allocation");
}

#[test]
fn nbdinfo_maps_the_same_holes_as_in_the_peers_server() {
    let disk = real_disk!("nbdinfo", "nbdkit");
    let ours = serve_file(&disk.raw, "", r#"nbdinfo --map "$uri""#).text();
    let command = r#"nbdinfo --map "$uri""#;
    let theirs = Run::new("nbdkit").words("-U - file").arg(&disk.raw).args(["--run", command]).text();
    assert_eq!(ours, theirs);
    assert!(ours.contains("hole,zero") && ours.contains("data"), "{ours}");
    let totals = serve_file(&disk.raw, "", r#"nbdinfo --map --totals "$uri""#).text();
    assert!(totals.contains("% ") && totals.contains("hole,zero"), "{totals}");
}

#[test]
fn nbdcopy_takes_a_disk_image_out_sparse() {
    let disk = real_disk!("nbdcopy");
    let out = disk.beside("out.raw");
    serve_file(&disk.raw, "-r", &format!(r#"nbdcopy "$uri" '{}'"#, out.display())).end().good();
    same_content(("raw", &disk.raw), ("raw", &out));
    assert!(allocated(&out) <= allocated(&disk.raw) + (1 << 20), "holes stay holes");
}

#[test]
fn nbdcopy_brings_a_disk_image_in_sparse() {
    let disk = real_disk!("nbdcopy");
    let blank_file = disk.beside("blank.raw");
    blank(&blank_file, disk.size);
    serve_file(&blank_file, "", &format!(r#"nbdcopy --flush '{}' "$uri""#, disk.raw.display())).end().good();
    same_content(("raw", &disk.raw), ("raw", &blank_file));
    assert!(allocated(&blank_file) <= allocated(&disk.raw) + (1 << 20), "holes stay holes");
}

#[test]
fn nbdcopy_overwrites_old_data_with_zeroes() {
    let disk = real_disk!("nbdcopy");
    let old = disk.beside("old.raw");
    fs::write(&old, vec![0xa5; disk.size as usize]).unwrap();
    serve_file(&old, "", &format!(r#"nbdcopy '{}' "$uri""#, disk.raw.display())).end().good();
    same_content(("raw", &disk.raw), ("raw", &old));
    assert!(allocated(&old) < disk.size, "zeroes became holes");
}

/// Every request that a client can make, checked in the client.
const EVERY_REQUEST: &str = r#"
import errno
h.connect_uri(uri)
size = h.get_size()
assert size == 8 << 20, size
h.pwrite(b"A" * 65536, 0)
h.pwrite(b"B" * 512, 65536 - 256, nbd.CMD_FLAG_FUA)
assert h.pread(65536 + 256, 0) == b"A" * (65536 - 256) + b"B" * 512
h.flush()
h.zero(8192, 4096)
assert h.pread(16384, 0) == b"A" * 4096 + bytes(8192) + b"A" * 4096
h.zero(4096, 32768, nbd.CMD_FLAG_NO_HOLE)
assert h.pread(4096, 32768) == bytes(4096)
h.zero(4096, 40960, nbd.CMD_FLAG_FAST_ZERO)
assert h.pread(4096, 40960) == bytes(4096)
h.trim(4096, 49152)
h.cache(65536, 0)
found = []
def extent(context, offset, entries, err):
    assert context == "base:allocation" and err.value == 0
    found.extend(zip(entries[0::2], entries[1::2]))
h.block_status(size, 0, extent)
assert sum(length for length, _ in found) <= size and found[0][1] == 0, found
assert any(flags == 3 for _, flags in found), found
chunks = []
def chunk(data, offset, status, err):
    chunks.append((offset, len(data), status))
h.pread_structured(131072, 0, chunk)
assert sum(length for _, length, _ in chunks) == 131072
h.pread_structured(131072, 0, chunk, nbd.CMD_FLAG_DF)
# A hundred at once, answered in any order.
buffers = [nbd.Buffer.from_bytearray(bytearray([n]) * 4096) for n in range(100)]
for n, buffer in enumerate(buffers):
    h.aio_pwrite(buffer, (1 << 20) + n * 4096)
while h.aio_in_flight() > 0:
    h.poll(-1)
back = h.pread(100 * 4096, 1 << 20)
assert all(back[n * 4096:(n + 1) * 4096] == bytes([n]) * 4096 for n in range(100))
h.set_strict_mode(0)
for wrong in (lambda: h.pread(512, size), lambda: h.pwrite(b"x" * 512, size - 256)):
    try:
        wrong()
        raise SystemExit("a request past the end was accepted")
    except nbd.Error as error:
        assert error.errno in ("EINVAL", "ENOSPC"), error
h.shutdown()
print("all as it should be")
"#;

#[test]
fn nbdsh_makes_every_kind_of_request() {
    needs!("nbdsh");
    let dir = directory();
    let (file, script) = (dir.path().join("disk"), dir.path().join("script.py"));
    blank(&file, 8 << 20);
    fs::write(&script, EVERY_REQUEST).unwrap();
    let command =
        format!(r#"nbdsh --base-allocation -c "uri='$uri'" -c "exec(open('{}').read())""#, script.display());
    assert_eq!(serve_file(&file, "", &command).text(), "all as it should be\n");
    assert_eq!(Run::serve("memory 8M", &command).text(), "all as it should be\n");
    let content = fs::read(&file).unwrap();
    assert_eq!(&content[..4096], [b'A'; 4096], "what clients wrote is in the file");
    assert_eq!(content[4096..12288], [0; 8192]);
}

#[test]
fn nbdsh_sees_export_names_descriptions_and_errors() {
    needs!("nbdsh");
    let server = Server::ours("--filter=error memory 1M error=ENOSPC error-pwrite-rate=100%");
    let script = r#"
h.connect_uri(uri)
assert h.get_size() == 1 << 20 and not h.is_read_only()
try:
    h.pwrite(b"x", 0)
    raise SystemExit("the write did not fail")
except nbd.Error as error:
    assert error.errno == "ENOSPC", error
assert h.pread(1, 0) == b"\0"
"#;
    Run::new("nbdsh").args(["-c", &format!("uri='{}'", server.uri()), "-c", script]).end().good();
}

#[test]
fn qemu_img_reads_our_server() {
    let disk = real_disk!();
    let out = disk.beside("out.qcow2");
    let info = serve_file(&disk.raw, "", r#"qemu-img info "$uri""#).text();
    assert!(info.contains("virtual size: 192 MiB (201326592 bytes)"), "{info}");
    let convert = format!(r#"qemu-img convert -f raw -O qcow2 "$uri" '{}'"#, out.display());
    serve_file(&disk.raw, "-r", &convert).end().good();
    same_content(("raw", &disk.raw), ("qcow2", &out));
    let compare = format!(r#"qemu-img compare -f raw -F qcow2 "$uri" '{}'"#, disk.qcow2.display());
    assert_eq!(serve_file(&disk.raw, "-r", &compare).text(), "Images are identical.\n");
}

#[test]
fn qemu_img_writes_to_our_server() {
    let disk = real_disk!();
    let new = disk.beside("new.raw");
    fs::write(&new, vec![0x5a; disk.size as usize]).unwrap();
    let convert = format!(r#"qemu-img convert -n -f qcow2 -O raw '{}' "$uri""#, disk.qcow2.display());
    serve_file(&new, "", &convert).end().good();
    same_content(("raw", &disk.raw), ("raw", &new));
}

#[test]
fn qemu_img_maps_the_same_as_in_the_file() {
    let disk = real_disk!();
    /// Where data is; the number of the pieces and other facts are the driver's own matter.
    fn data(json: &str) -> Vec<(u64, u64)> {
        let mut found: Vec<(u64, u64)> = Vec::new();
        for piece in serde_json::from_str::<Value>(json).unwrap().as_array().unwrap() {
            let (start, length) = (piece["start"].as_u64().unwrap(), piece["length"].as_u64().unwrap());
            if piece["data"] == true {
                match found.last_mut() {
                    Some(last) if last.0 + last.1 == start => last.1 += length,
                    _ => found.push((start, length)),
                }
            }
        }
        found
    }
    let map = |place: &str| format!("qemu-img map -f raw --output=json {place}");
    let ours = serve_file(&disk.raw, "-r", &map(r#""$uri""#)).text();
    let direct = Run::sh(&map(&disk.raw.display().to_string())).text();
    assert_eq!(data(&ours), data(&direct));
}

#[test]
fn qemu_img_bench_ends_in_both_directions() {
    needs!("qemu-img");
    let bench = r#"qemu-img bench -f raw -c 20000 -d 64 -s 4096 "$uri" &&
                   qemu-img bench -f raw -w -c 2000 -d 16 -s 65536 --flush-interval=100 "$uri""#;
    let dir = directory();
    let file = dir.path().join("disk");
    blank(&file, 64 << 20);
    assert_eq!(serve_file(&file, "", bench).text().matches("Run completed").count(), 2);
    assert_eq!(Run::serve("memory 64M", bench).text().matches("Run completed").count(), 2);
}

#[test]
fn qemu_io_reads_back_what_it_wrote() {
    needs!("qemu-io");
    let io = r#"qemu-io -f raw \
        -c "write -P 17 0 1M" -c "read -P 17 0 1M" \
        -c "write -z 64k 128k" -c "read -P 0 64k 128k" -c "read -P 17 192k 64k" \
        -c "write -zu 512k 64k" -c "read -P 0 512k 64k" \
        -c "discard 256k 64k" -c "flush" \
        -c "aio_write -P 5 3M 5M" -c "aio_flush" -c "read -P 5 3M 5M" \
        -c "write -f -P 9 1000 24" -c "read -P 9 1000 24" -c "read -P 17 1024 512" "$uri""#;
    let dir = directory();
    let file = dir.path().join("disk");
    blank(&file, 16 << 20);
    for said in [serve_file(&file, "", io).text(), Run::serve("memory 16M", io).text()] {
        assert!(!said.contains("failed") && !said.contains("error"), "{said}");
    }
    let content = fs::read(&file).unwrap();
    assert!(content[3 << 20..8 << 20].iter().all(|byte| *byte == 5));
    let command = r#"qemu-io -r -f raw -c "read 0 512" "$uri" && ! qemu-io -f raw -c "write 0 512" "$uri""#;
    serve_file(&file, "-r", command).end().good();
}

#[test]
fn fio_verifies_what_it_wrote() {
    needs!("fio");
    let fio = r#"fio --name=verify --ioengine=nbd --uri="$uri" --rw=randrw --bsrange=4k-128k --size=48M \
        --iodepth=32 --verify=crc32c --verify_fatal=1 --output-format=json"#;
    let dir = directory();
    let file = dir.path().join("disk");
    blank(&file, 48 << 20);
    for said in [
        serve_file(&file, "", fio).in_directory(dir.path()).text(),
        Run::serve("memory 48M", fio).in_directory(dir.path()).text(),
        Run::serve("-p 0 -i 127.0.0.1 memory 48M", fio).in_directory(dir.path()).text(),
    ] {
        let json: Value = serde_json::from_str(&said[said.find('{').unwrap()..]).unwrap();
        let job = &json["jobs"][0];
        assert_eq!(job["error"], 0);
        assert!(job["write"]["total_ios"].as_u64().unwrap() > 100, "{job}");
    }
}

#[test]
fn four_fio_jobs_share_one_disk() {
    needs!("fio");
    let fio = r#"fio --name=many --ioengine=nbd --uri="$uri" --rw=randwrite --bs=16k --size=8M \
        --offset_increment=8M --numjobs=4 --thread --iodepth=16 --verify=xxhash --verify_fatal=1"#;
    let dir = directory();
    Run::serve("memory 32M", fio).in_directory(dir.path()).end().good();
}

#[test]
fn memory_is_as_large_as_asked_and_empty() {
    needs!("nbdinfo", "qemu-img");
    let map = Run::serve("memory 1T", r#"nbdinfo --map "$uri""#).text();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "1099511627776", "3", "hole,zero"]);
    assert_eq!(
        Run::serve("memory 9223372036854775807", r#"nbdinfo --size "$uri""#).text(),
        "9223372036854775807\n"
    );
}

#[test]
fn sparse_random_is_the_same_disk_at_every_start_and_as_full_as_asked() {
    needs!("qemu-img", "nbdinfo");
    for (parameters, percent) in
        [("2G seed=7", 4..20), ("200M seed=42 percent=25 runlength=64K random-content=true", 20..30)]
    {
        let parameters = format!("sparse-random {parameters}");
        let first = Server::ours(&parameters);
        let compare = format!(r#"qemu-img compare -f raw -F raw "$uri" '{}'"#, first.uri());
        assert_eq!(Run::serve(&parameters, &compare).text(), "Images are identical.\n", "{parameters}");
        let totals = Run::new("nbdinfo").words("--map --totals --json").arg(first.uri()).text();
        let totals: Value = serde_json::from_str(&totals).unwrap();
        let data = totals.as_array().unwrap().iter().find(|kind| kind["description"] == "data");
        let found = data.unwrap()["percent"].as_f64().unwrap() as i32;
        assert!(percent.contains(&found), "{parameters}: {found} percent");
    }
}

#[test]
fn sparse_random_verifies_what_nbdcopy_writes() {
    needs!("nbdcopy", "nbdsh");
    Run::serve("sparse-random 4G", r#"nbdcopy "$uri" "$uri""#).end().good();
    let wrong = r#"nbdsh -u "$uri" -c '
data = bytearray(h.pread(1 << 20, 0))
data[-1] ^= 1
try:
    h.pwrite(data, 0)
    raise SystemExit("a wrong write was accepted")
except nbd.Error as error:
    assert error.errno == "EIO", error
'"#;
    Run::serve("sparse-random 4G", wrong).end().good();
}

#[test]
fn pattern_has_the_same_content_as_the_peers() {
    needs!("nbdkit", "qemu-img");
    let peer = Server::nbdkit("pattern 10M");
    let command = format!(r#"qemu-img compare -f raw -F raw "$uri" '{}'"#, peer.uri());
    assert_eq!(Run::serve("pattern 10M", &command).text(), "Images are identical.\n");
}

#[test]
fn the_simplest_plugins_are_what_their_names_say() {
    needs!("nbdkit", "qemu-img", "qemu-io", "nbdsh");
    for plugin in ["full 1M", "null 1M"] {
        let peer = Server::nbdkit(plugin);
        let compare = format!(r#"qemu-img compare -f raw -F raw "$uri" '{}'"#, peer.uri());
        assert_eq!(Run::serve(plugin, &compare).text(), "Images are identical.\n", "{plugin}");
    }
    for (plugin, command) in [
        ("zero", r#"test "$(nbdinfo --size "$uri")" = 0"#),
        ("ones 1M", r#"qemu-io -r -f raw -c "read -P 0xff 0 1M" "$uri""#),
        ("ones 1M byte=0x5a", r#"qemu-io -r -f raw -c "read -P 0x5a 0 1M" "$uri""#),
        ("null 1M", r#"qemu-io -f raw -c "write -P 1 0 1M" -c "read -P 0 0 1M" "$uri""#),
        (
            "random 1M seed=3",
            r#"nbdsh -u "$uri" -c 'assert h.pread(4096, 0) == h.pread(4096, 0) != h.pread(4096, 4096)'"#,
        ),
    ] {
        let said = Run::serve(plugin, command).text();
        assert!(!said.contains("failed"), "{plugin}: {said}");
    }
    let full = r#"nbdsh -u "$uri" -c '
try:
    h.pwrite(b"x", 0)
    raise SystemExit("there was room")
except nbd.Error as error:
    assert error.errno == "ENOSPC", error
'"#;
    Run::serve("full 1M", full).end().good();
}

/// Each filter once: what stands before and after `memory 4M`, and what a client of somebody else's sees.
const FILTERS: &[(&str, &str, &str)] = &[
    (
        "cow",
        "",
        r#"qemu-io -f raw -c "write -P 3 100 5000" -c "read -P 3 100 5000" -c "read -P 0 8k 64k" "$uri""#,
    ),
    (
        "delay",
        "rdelay=100ms",
        r#"nbdsh -u "$uri" -c 'import time; t = time.time(); h.pread(1, 0)
assert 0.1 <= time.time() - t < 2'"#,
    ),
    (
        "error",
        "error=EPERM error-pread-rate=1",
        r#"nbdsh -u "$uri" -c '
try:
    h.pread(1, 0)
    raise SystemExit("no error")
except nbd.Error as error:
    assert error.errno == "EPERM", error'"#,
    ),
    ("log", "logfile=/dev/stderr", r#"nbdsh -u "$uri" -c 'h.pread(512, 1024)'"#),
    ("noextents", "", r#"nbdinfo --map "$uri" | grep -E '^ *0 +4194304 +0 +data$'"#),
    ("nozero", "zeromode=none", r#"! nbdinfo --can zero "$uri""#),
    ("offset", "offset=1M range=64K", r#"test "$(nbdinfo --size "$uri")" = 65536"#),
    ("stats", "statsfile=/dev/stderr", r#"nbdsh -u "$uri" -c 'h.pread(512, 1024)'"#),
    (
        "truncate",
        "round-up=3M",
        r#"test "$(nbdinfo --size "$uri")" = 6291456 &&
        qemu-io -f raw -c "read -P 0 4M 2M" "$uri""#,
    ),
];

#[test]
fn every_filter_works_for_somebody_elses_client() {
    needs!("nbdsh", "nbdinfo", "qemu-io");
    for (filter, parameters, command) in FILTERS {
        let ended = Run::serve(&format!("--filter={filter} memory 4M {parameters}"), command).end().good();
        match *filter {
            "log" => assert!(ended.stderr.contains("Read id=1 offset=0x400 count=0x200"), "{}", ended.stderr),
            "stats" => assert!(ended.stderr.contains("read: 1 ops"), "{}", ended.stderr),
            _ => {}
        }
    }
}

#[test]
fn all_filters_together_leave_the_content_alone() {
    let disk = real_disk!();
    let filters: String = ["log", "stats", "cow", "delay", "error", "nozero", "offset", "truncate"]
        .map(|f| format!(" --filter={f}"))
        .concat();
    let convert = format!(
        r#"qemu-img convert -n -f qcow2 -O raw '{0}' "$uri" &&
        qemu-img compare -f qcow2 -F raw '{0}' "$uri""#,
        disk.qcow2.display()
    );
    let parameters =
        format!("memory 256M offset=1M range={} logfile=/dev/null statsfile=/dev/null", disk.size);
    let said = Run::serve(&format!("{filters} {parameters}"), &convert).text();
    assert_eq!(said, "Images are identical.\n");
}

#[test]
fn peers_start_our_server_themselves() {
    let disk = real_disk!("nbdinfo", "nbdcopy", "nbdsh");
    let out = disk.beside("out.raw");
    let (ours, raw) = (e2e::diskpipe(), &disk.raw);
    let info = Run::new("nbdinfo").words("--size -- [").arg(ours).words("serve memory 10M ]").text();
    assert_eq!(info, "10485760\n");
    let copy = Run::new("nbdcopy").words("-- [").arg(ours).words("serve -r file").arg(raw).arg("]").arg(&out);
    copy.end().good();
    same_content(("raw", raw), ("raw", &out));
    let script = format!(
        r#"h.connect_command(["{}", "serve", "-s", "memory", "1M"])
h.pwrite(b"abc", 5)
assert h.pread(5, 4) == b"\0abc\0"
h.shutdown()"#,
        ours.display()
    );
    Run::new("nbdsh").args(["-c", &script]).end().good();
}

#[test]
fn peers_understand_every_dialect_of_our_server() {
    let disk = real_disk!("nbdinfo", "nbdcopy", "qemu-io", "cmp");
    for (dialect, protocol) in [
        ("-o", "oldstyle without TLS, using simple packets"),
        ("--no-sr", "newstyle-fixed without TLS, using simple packets"),
        ("--mask-handshake=0", "newstyle without TLS, using simple packets"),
        ("--mask-handshake=1", "newstyle-fixed without TLS, using structured packets"),
        ("--mask-handshake=2", "newstyle without TLS, using simple packets"),
    ] {
        let command = format!(
            r#"nbdinfo "$uri" | head -1 && nbdcopy "$uri" - | cmp - '{0}' &&
               qemu-img compare -f raw -F raw "$uri" '{0}' && qemu-io -r -f raw -c 'read 1000 3000' "$uri""#,
            disk.raw.display()
        );
        let said = serve_file(&disk.raw, &format!("-r {dialect}"), &command).text();
        assert!(
            said.starts_with(&format!("protocol: {protocol}\nImages are identical.\nread 3000")),
            "{said}"
        );
    }
}

#[test]
fn peers_come_by_both_families_of_addresses() {
    needs!("nbdinfo", "nbdcopy", "nbd-client");
    let command = r#"set -e
        nbdinfo --size "nbd://127.0.0.1:$port/"
        nbdcopy "nbd://127.0.0.1:$port" - | md5sum > a; nbdcopy "$uri" - | md5sum | cmp - a
        if test -e /proc/net/if_inet6; then nbdcopy "nbd://[::1]:$port" - | md5sum | cmp - a; fi
        nbd-client -l 127.0.0.1 $port"#;
    let dir = directory();
    let said = Run::serve("-p 0 pattern 20M", command).in_directory(dir.path()).text();
    assert!(said.starts_with("20971520\nNegotiation: .."), "{said}");
}
