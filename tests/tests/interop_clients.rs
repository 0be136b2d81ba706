//! Our `info` and `copy` with every server that people have. What the peers' own tools print of a server, ours print too.

use e2e::{RealDisk, Run, Server, directory, needs, same_content};
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What can be asked of any server.
const QUESTIONS: [&str; 9] = [
    "",
    "--json",
    "--list",
    "--list --json",
    "--size",
    "--map",
    "--map --json",
    "--map --totals",
    "--map --totals --json",
];

/// Asks both tools the same. `edit` takes out of what the peer prints and ours does, in that order, what may differ.
#[track_caller]
fn same_answers(uri: &str, questions: &[&str], edit: impl Fn(String) -> String) {
    for question in questions {
        let theirs = Run::new("nbdinfo").words(question).arg(uri).end();
        let ours = Run::diskpipe().arg("info").words(question).arg(uri).end();
        assert_eq!(ours.status.code(), theirs.status.code(), "info {question}: {}", ours.stderr);
        if theirs.status.success() {
            assert_eq!(edit(ours.text()), edit(theirs.text()), "info {question}");
        } else {
            assert_eq!(ours.text(), "", "info {question}");
            assert!(!ours.stderr.is_empty(), "info {question}: no word of what went wrong");
        }
    }
}

/// Copies a server's disk with both tools.
#[track_caller]
fn same_copies(uri: &str) {
    let dir = directory();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    Run::new("nbdcopy").arg(uri).arg(&theirs).end().good();
    Run::diskpipe().arg("copy").arg(uri).arg(&ours).end().good();
    Run::new("cmp").args([&ours, &theirs]).end().good();
}

/// Writes to a server, and reads that with the peer's tool.
#[track_caller]
fn writes_arrive(options: &str, uri: &str, size: usize) {
    let dir = directory();
    let (new, back) = (dir.path().join("new"), dir.path().join("back"));
    fs::write(&new, content(size)).unwrap();
    Run::diskpipe().arg("copy").words(options).arg(&new).arg(uri).end().good();
    Run::new("nbdcopy").arg(uri).arg(&back).end().good();
    Run::new("cmp").args([&new, &back]).end().good();
}

/// Data, zeroes, data and a tail.
fn content(size: usize) -> Vec<u8> {
    let byte = |at: usize| if (at >> 16) % 3 == 1 { 0 } else { (at * 7 + (at >> 9)) as u8 };
    (0..size).map(byte).collect()
}

fn unchanged(text: String) -> String {
    text
}

#[test]
fn nbdkit_with_every_kind_of_disk() {
    needs!("nbdkit", "nbdinfo", "nbdcopy", "cmp");
    for plugin in
        ["memory 3M", "pattern 5000001", "sparse-random 300M seed=5", "full 64K", "null 1M", "memory 0"]
    {
        let server = Server::nbdkit(plugin);
        same_answers(&server.uri(), &QUESTIONS, unchanged);
        same_copies(&server.uri());
    }
    let server = Server::nbdkit("memory 3M");
    writes_arrive("", &server.uri(), 3 << 20);
}

#[test]
fn nbdkit_with_a_disk_image_in_a_file() {
    needs!("nbdkit", "nbdinfo", "nbdcopy", "cmp", "qemu-img", "sfdisk", "mke2fs");
    let disk = RealDisk::get();
    let server = Server::nbdkit(&format!("-r file {}", disk.raw.display()));
    same_answers(&server.uri(), &QUESTIONS, unchanged);
    same_copies(&server.uri());
    let refused = Run::diskpipe().arg("copy").arg(&disk.raw).arg(server.uri()).end().code(1);
    assert!(refused.stderr.contains("read-only"), "{}", refused.stderr);
}

#[test]
fn nbdkit_in_every_dialect() {
    needs!("nbdkit", "nbdinfo", "nbdcopy", "cmp");
    for dialect in [
        "-o",
        "--no-sr",
        "--mask-handshake=0",
        "--mask-handshake=1",
        "--mask-handshake=2",
        "--filter=noextents",
    ] {
        let server = Server::nbdkit(&format!("{dialect} memory 2M"));
        // The oldstyle server offers to write zeroes and to flush, and then refuses both.
        writes_arrive("", &server.uri(), 2 << 20);
        same_answers(&server.uri(), &QUESTIONS, unchanged);
        same_copies(&server.uri());
    }
}

#[test]
fn nbdkit_on_tcp() {
    needs!("nbdkit", "nbdinfo", "nbdcopy", "cmp");
    let dir = directory();
    let script = r#"
        nbdinfo "$uri" > theirs; diskpipe info "$uri" > ours; cmp ours theirs
        nbdcopy "$uri" theirs; diskpipe copy "$uri" ours; cmp ours theirs"#;
    let ended = free_ports()
        .iter()
        .map(|port| {
            let command = format!("set -e; {script}");
            let run = Run::new("nbdkit").words("-i 127.0.0.1 -p").arg(port).words("pattern 1M");
            run.args(["--run", &command]).in_directory(dir.path()).end()
        })
        .find(|ended| !ended.stderr.contains("in use"));
    ended.expect("one port of three is free").good();
}

/// Ports that were free a moment ago: nbdkit chooses none by itself.
fn free_ports() -> Vec<String> {
    let listeners: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port().to_string()).collect()
}

#[test]
fn every_combination_of_options_is_answered_as_the_peers_tool_does() {
    needs!("nbdkit", "nbdinfo");
    let dir = directory();
    let list = dir.path().join("list");
    fs::write(&list, "0 64K hole,zero\n64K 64K hole\n128K 1M\n").unwrap();
    let extents = format!("-r --filter=extentlist pattern 1M extentlist={}", list.display());
    for server in ["memory 1M", &extents, "--no-sr memory 1M"] {
        let server = Server::nbdkit(server);
        let shown = [
            "--list --content",
            "-L --json --content",
            "--no-content",
            "--no-content --json",
            "--json --size",
            "--color",
            "--colour --list",
            "--colors --map",
            "--map --totals --colours",
            "--map --json --color",
            "--no-colour",
            "--map --map",
            "--map=base:allocation --map=absent:x",
            "--map=",
            "--totals",
            "--list --map",
            "--list --size",
            "--size --can read",
            "--content --list --no-content",
        ];
        same_answers(&server.uri(), &shown, unchanged);
        for name in [
            "cache",
            "connect",
            "df",
            "fast-zero",
            "fast_zero",
            "flush",
            "FUA",
            "multi-conn",
            "read",
            "read-only",
            "readonly",
            "rotational",
            "structured",
            "structured-reply",
            "tls",
            "trim",
            "Write",
            "zero",
            "nonsense",
        ] {
            let codes = |how: &str| {
                let run = |tool: Run| tool.words(how).arg(name).arg(server.uri()).end().status.code();
                (run(Run::diskpipe().arg("info")), run(Run::new("nbdinfo")))
            };
            for (ours, theirs) in [codes("--can"), codes("--json --is")] {
                assert_eq!(ours, theirs, "{name}");
            }
        }
    }
}

#[test]
fn a_beginning_that_cannot_be_read_is_left_out() {
    needs!("nbdkit", "nbdinfo");
    let server = Server::nbdkit("--filter=error memory 1M error-pread-rate=100%");
    same_answers(&server.uri(), &["", "--json", "--list --content"], unchanged);
    let remark = "diskpipe info: the default export: reading the beginning: input/output error\n";
    assert_eq!(Run::diskpipe().arg("info").arg(server.uri()).end().good().stderr, remark);
}

#[test]
fn a_server_with_room_for_one_client_shows_the_content_of_all_exports() {
    needs!("nbdkit", "nbdinfo");
    let exports = "--filter=noparallel --filter=exportname memory 1M serialize=connections exportname=a exportname=b \
                   exportname-list=explicit";
    for server in [Server::nbdkit(exports), Server::ours(exports)] {
        same_answers(&server.uri(), &["--list", "--list --content", "--list --content --json"], unchanged);
    }
}

#[test]
fn a_dump_in_colours_is_the_peers_to_the_byte() {
    needs!("nbdkit", "nbddump");
    let dir = directory();
    let file = dir.path().join("bytes");
    for length in [0, 1, 7, 8, 9, 15, 16, 256, 300] {
        fs::write(&file, (0..length).map(|at| at as u8).collect::<Vec<_>>()).unwrap();
        let server = Server::nbdkit(&format!("-r file {}", file.display()));
        let theirs = Run::new("nbddump").arg("--color").arg(server.uri()).text();
        assert_eq!(Run::diskpipe().words("dump --color").arg(server.uri()).text(), theirs, "{length} bytes");
    }
}

#[test]
fn a_part_of_a_map_is_cut_to_the_byte() {
    needs!("nbdkit");
    let dir = directory();
    let list = dir.path().join("list");
    fs::write(&list, "0 64K hole,zero\n64K 64K hole\n128K 1M\n").unwrap();
    // The second takes requests for whole blocks of 4 KiB only.
    for blocks in ["", "--filter=blocksize-policy blocksize-minimum=4K blocksize-error-policy=error"] {
        let (filter, parameters) = blocks.split_once(' ').unwrap_or_default();
        let filters =
            format!("{filter} --filter=extentlist pattern 1M extentlist={} {parameters}", list.display());
        let server = Server::nbdkit(&filters);
        let info = |options: &str| Run::diskpipe().words("info --map").words(options).arg(server.uri());
        for (options, lines) in [
            ("--offset=100001 --length=7", "    100001           7    1  hole\n"),
            (
                "--offset=1 --length=100K",
                "         1       65535    3  hole,zero\n     65536       36865    1  hole\n",
            ),
            ("--offset=1M", ""),
            ("--offset=1048575 --length=1T", "   1048575           1    0  data\n"),
            (
                "--totals --offset=64K --length=128K",
                "     65536  50.0%   0 data\n     65536  50.0%   1 hole\n",
            ),
        ] {
            assert_eq!(info(options).text(), lines, "{blocks} {options}");
        }
        let behind = info("--offset=1048577").end().code(1);
        assert!(behind.stderr.contains("behind the end of the export"), "{}", behind.stderr);
    }
}

/// Newer servers than the peer's tools speak extended headers with ours, which says so.
fn but_for_the_framing(text: String) -> String {
    text.replace("extended packets", "structured packets")
}

#[test]
fn qemu_nbd_with_a_qcow2_image() {
    needs!("qemu-nbd", "nbdinfo", "nbdcopy", "cmp", "qemu-img", "sfdisk", "mke2fs");
    let disk = RealDisk::get();
    let server = Server::qemu(&format!("-r -f qcow2 {}", disk.qcow2.display()));
    same_answers(&server.uri(), &QUESTIONS, but_for_the_framing);
    let out = disk.beside("out.raw");
    Run::diskpipe().arg("copy").arg(server.uri()).arg(&out).end().good();
    same_content(("raw", &disk.raw), ("raw", &out));
}

#[test]
fn qemu_nbd_is_written_to() {
    needs!("qemu-nbd", "nbdcopy", "cmp", "qemu-img", "sfdisk", "mke2fs");
    let disk = RealDisk::get();
    let new = disk.beside("new.qcow2");
    Run::new("qemu-img").words("create -q -f qcow2").arg(&new).arg(disk.size.to_string()).end().good();
    let server = Server::qemu(&format!("-f qcow2 --discard=unmap {}", new.display()));
    Run::diskpipe().words("copy --flush").arg(&disk.raw).arg(server.uri()).end().good();
    same_copies(&server.uri());
    server.stop();
    same_content(("raw", &disk.raw), ("qcow2", &new));
    let allocated = |path: &Path| fs::metadata(path).unwrap().blocks() * 512;
    assert!(allocated(&new) < allocated(&disk.qcow2) + (4 << 20), "holes took no clusters");
}

#[test]
fn qemu_nbd_with_a_dirty_bitmap_and_allocation_depth() {
    needs!("qemu-nbd", "nbdinfo", "qemu-img", "qemu-io");
    let dir = directory();
    let (base, image) = (dir.path().join("base.qcow2"), dir.path().join("image.qcow2"));
    let run = |script: &str| {
        Run::new("bash").args(["-ec", script, "bash"]).args([&base, &image]).end().good();
    };
    run("qemu-img create -q -f qcow2 $1 16M; qemu-io -f qcow2 -c 'write -P 1 0 4M' $1
         qemu-img create -q -f qcow2 -b $1 -F qcow2 $2; qemu-io -f qcow2 -c 'write -P 2 2M 4M' $2
         qemu-img bitmap --add $2 changes; qemu-io -f qcow2 -c 'write -P 3 8M 64k' -c 'write -P 4 3M 1M' $2");
    let server = Server::qemu(&format!("-r -f qcow2 -A -B changes {}", image.display()));
    let questions = [
        "",
        "--json",
        "--map",
        "--map=qemu:allocation-depth",
        "--map=qemu:allocation-depth --json",
        "--map=qemu:allocation-depth --totals",
        "--map=qemu:allocation-depth --color",
        "--map=qemu:dirty-bitmap:changes",
        "--map=qemu:dirty-bitmap:changes --json",
        "--map=qemu:dirty-bitmap:changes --totals",
        "--map=qemu:dirty-bitmap:absent",
    ];
    same_answers(&server.uri(), &questions, but_for_the_framing);
    let map = Run::diskpipe().words("info --map=qemu:dirty-bitmap:changes").arg(server.uri()).text();
    let words: Vec<Vec<&str>> = map.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(words.contains(&vec!["3145728", "1048576", "1", "dirty"]), "{map}");
    assert!(words.contains(&vec!["8388608", "65536", "1", "dirty"]), "{map}");
    let depth = Run::diskpipe().words("info --map=qemu:allocation-depth").arg(server.uri()).text();
    for line in ["local", "backing depth 2", "absent"] {
        assert!(depth.lines().any(|l| l.ends_with(line)), "{depth}");
    }
}

#[test]
fn qemu_nbd_speaks_extended_headers_with_us() {
    needs!("qemu-nbd", "qemu-img");
    let version = Run::new("qemu-nbd").arg("--version").text();
    let major = version.split_whitespace().find_map(|word| word.split_once('.')?.0.parse::<u32>().ok());
    if major < Some(8) {
        return e2e::skip("needs qemu-nbd 8.2 or newer");
    }
    let dir = directory();
    let image = dir.path().join("large.qcow2");
    Run::new("qemu-img").words("create -q -f qcow2").arg(&image).arg("9T").end().good();
    let server = Server::qemu(&format!("-f qcow2 --discard=unmap {}", image.display()));
    Run::diskpipe().words("info --can extended-headers").arg(server.uri()).end().good();
    // An extent of more than 4 GiB in one piece, which only these headers can say.
    let map = Run::diskpipe().words("info --map").arg(server.uri()).text();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "9895604649984", "3", "hole,zero"]);
    // And so can zeroes be written.
    let dir = directory();
    let sparse = dir.path().join("sparse");
    File::create(&sparse).and_then(|file| file.set_len(64 << 30)).unwrap();
    Run::diskpipe().arg("copy").arg(&sparse).arg(server.uri()).end().good();
}

#[test]
fn qemu_nbd_with_named_exports_and_descriptions() {
    needs!("qemu-nbd", "nbdinfo", "qemu-img");
    let dir = directory();
    let image = dir.path().join("disk.raw");
    fs::write(&image, content(1 << 20)).unwrap();
    let server = Server::start(|socket| {
        Run::new("qemu-nbd")
            .words("--persistent --shared=16 -f raw -x")
            .arg("a disk/of ours")
            .words("-D")
            .arg("the description")
            .arg("--socket")
            .arg(socket)
            .arg(&image)
    });
    let uri = server.uri_of("a%20disk%2Fof%20ours");
    same_answers(&uri, &QUESTIONS, but_for_the_framing);
    // Without the name there is no such export, for either.
    same_answers(&server.uri(), &["", "--json", "--size", "--list"], but_for_the_framing);
}

#[test]
fn qemu_storage_daemon_with_two_exports() {
    needs!("qemu-storage-daemon", "nbdinfo", "nbdcopy", "cmp", "qemu-img", "sfdisk", "mke2fs");
    let disk = RealDisk::get();
    let new = disk.beside("new.raw");
    fs::write(&new, vec![9; 4 << 20]).unwrap();
    let server = Server::start(|socket| {
        Run::new("qemu-storage-daemon")
            .arg("--blockdev")
            .arg(format!("driver=qcow2,node-name=one,read-only=on,file.driver=file,file.filename={}", disk.qcow2.display()))
            .arg("--blockdev")
            .arg(format!("driver=file,node-name=two,discard=unmap,filename={}", new.display()))
            .arg("--nbd-server")
            .arg(format!("addr.type=unix,addr.path={},max-connections=32", socket.display()))
            .words("--export type=nbd,id=e1,node-name=one,name=one --export type=nbd,id=e2,node-name=two,name=two,writable=on")
    });
    same_answers(&server.uri_of("one"), &QUESTIONS, but_for_the_framing);
    same_answers(&server.uri_of("two"), &QUESTIONS, but_for_the_framing);
    same_copies(&server.uri_of("one"));
    writes_arrive("", &server.uri_of("two"), 4 << 20);
}

/// The peer's tool says nothing true of an export's size and content here, save with `--size`.
fn but_for_the_size(text: String) -> String {
    let doubtful = ["export-size", "content", "\"content"];
    text.lines()
        .filter(|line| !doubtful.iter().any(|word| line.trim_start_matches(['\t', '"']).starts_with(word)))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn nbd_server_with_two_exports() {
    needs!("nbd-server", "unshare", "nbdinfo", "nbdcopy", "cmp");
    let dir = directory();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    fs::write(&one, content(5 << 20)).unwrap();
    fs::write(&two, vec![1; 3 << 20]).unwrap();
    let exports = format!(
        "[one]\nexportname = {}\nreadonly = true\n[two]\nexportname = {}\nflush = true\nfua = true\ntrim = true\n",
        one.display(),
        two.display()
    );
    let Some(server) = Server::nbd_server(&exports) else { return };
    same_answers(&server.uri_of("one"), &["", "--json", "--map"], but_for_the_size);
    same_answers(&server.uri_of("two"), &["", "--json", "--map"], but_for_the_size);
    for export in ["one", "two", "none"] {
        same_answers(&server.uri_of(export), &["--size"], unchanged);
    }
    same_copies(&server.uri_of("one"));
    writes_arrive("", &server.uri_of("two"), 3 << 20);
    assert_eq!(fs::read(&two).unwrap(), content(3 << 20));
}
