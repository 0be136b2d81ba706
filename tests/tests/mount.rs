//! Disks as files: `mount` and the files that it makes.

use e2e::{MEMORY, Mounted, PATIENCE, Run, Server, directory, mounts, needs, unmount};
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

#[test]
fn a_disk_appears_in_a_directory_under_a_name_and_over_a_file() {
    mounts!();
    for (place, expected) in [("dir", "dir/nbd"), ("dir/disk", "dir/disk"), ("file", "file")] {
        let mounted = Mounted::ours(place, "", MEMORY);
        let file = mounted.file();
        assert!(file.ends_with(expected), "{}", file.display());
        let facts = fs::metadata(&file).unwrap();
        assert_eq!((facts.len(), facts.permissions().mode() & 0o777), (64 << 20, 0o666));
        if place != "file" {
            let names: Vec<_> =
                fs::read_dir(mounted.mount_point()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(names, [file.file_name().unwrap()]);
        }
        let opened = mounted.open();
        opened.write_all_at(b"hello, world", 1_000_000).unwrap();
        opened.sync_all().unwrap();
        let mut read = [0; 14];
        opened.read_exact_at(&mut read, 999_999).unwrap();
        assert_eq!(&read, b"\0hello, world\0");
        assert_eq!(opened.read_at(&mut read, (64 << 20) - 4).unwrap(), 4, "a file ends where it ends");
        assert!(opened.write_at(b"hello", 64 << 20).is_err());
        drop(opened);
        mounted.unmount();
    }
}

#[test]
fn servers_are_reached_in_every_way() {
    mounts!("nbdkit");
    let server = Server::ours("memory 1M");
    let socket = server.socket();
    let (uri, socket) = (server.uri(), socket.to_str().unwrap());
    for words in [
        &[uri.as_str()][..],
        &["--unix", socket],
        &["--command", "nbdkit", "-s", "memory", "1M"],
        &["--command", "diskpipe", "serve", "-s", "memory", "1M"],
        &["[", "nbdkit", "memory", "1M", "]"],
    ] {
        let mounted = Mounted::ours("dir", "", words);
        assert_eq!(fs::metadata(mounted.file()).unwrap().len(), 1 << 20, "{words:?}");
        mounted.unmount();
    }
}

#[test]
fn a_server_is_reached_by_tcp_and_by_a_socket_that_is_open_already() {
    mounts!("bash");
    let directory = directory();
    let said = directory.path().join("said");
    let script = r#"exec diskpipe serve -f -p 0 -i 127.0.0.1 --print-uri memory 1M > "$0""#;
    let _server = Run::sh(script).arg(&said).start();
    let start = Instant::now();
    let port = loop {
        let uri = fs::read_to_string(&said).unwrap_or_default();
        if let Some((_, port)) = uri.strip_suffix('\n').and_then(|uri| uri.rsplit_once(':')) {
            break port.to_owned();
        }
        assert!(start.elapsed() < PATIENCE, "it does not say where it serves: {uri:?}");
        sleep(Duration::from_millis(5));
    };
    let mounted = Mounted::ours("dir", "", &["--tcp", "127.0.0.1", &port]);
    mounted.open().write_all_at(b"by tcp", 4096).unwrap();
    mounted.unmount();
    let inherit = r#"exec 3<>/dev/tcp/127.0.0.1/$0; exec diskpipe mount "$@""#;
    let program = Run::new("bash").args(["-c", inherit, &port]);
    let mounted = Mounted::start(program, "file", "-r", &["--fd", "3"]);
    assert_eq!(&fs::read(mounted.file()).unwrap()[4096..4103], b"by tcp\0");
    mounted.unmount();
}

#[test]
fn what_cannot_be_written_to_says_so() {
    mounts!();
    let server = Server::ours("-r memory 1M");
    for (options, server) in [("-r", MEMORY), ("-o ro", MEMORY), ("", &[server.uri().as_str()][..])] {
        let mounted = Mounted::ours("dir", options, server);
        let mode = fs::metadata(mounted.file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o444, "{options}");
        assert!(OpenOptions::new().write(true).open(mounted.file()).is_err());
        fs::read(mounted.file()).unwrap();
        mounted.unmount();
    }
}

/// The type of a mount and its options, out of the kernel's table.
fn in_the_table(mount_point: &Path) -> Option<(String, String)> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    let mount_point = mount_point.canonicalize().unwrap();
    table.lines().find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        [_, at, kind, options, ..] if Path::new(at) == mount_point => {
            Some((kind.to_owned(), options.to_owned()))
        }
        _ => None,
    })
}

#[test]
fn options_of_the_file_system_mean_what_they_mean_to_the_peer() {
    mounts!("nbdfuse", "nbdkit");
    let server = Server::nbdkit("memory 1M");
    let uri = server.uri();
    // (Lists with commas are taken by newer ones only.)
    for options in [
        "-o uid=7 -o gid=8",
        "-o umask=027",
        "-o noatime -o noexec -o dev -o suid",
        "-o sync -o dirsync",
        "-o subtype=thing -o attr_timeout=0.5",
        "-o default_permissions -o kernel_cache",
        "-o entry_timeout=3 -o negative_timeout=0 -o ac_attr_timeout=1 -o remember=5",
        "-o noforget -o no_rofd_flush -o noauto_cache",
    ] {
        use std::os::unix::fs::MetadataExt;
        let seen = |program: Run| {
            let mut mounted = Mounted::start(program, "dir", options, &[&uri]);
            let file = fs::metadata(mounted.file()).unwrap();
            let (kind, words) = in_the_table(mounted.mount_point()).unwrap();
            let kind = kind.replace("fuse.diskpipe", "fuse");
            unmount(mounted.mount_point()); // the peer leaves its pidfile behind
            assert!(mounted.process.wait(PATIENCE).expect("it ends with the mount").success());
            (file.mode(), file.uid(), file.gid(), kind, words)
        };
        let (ours, theirs) = (seen(Run::diskpipe().arg("mount")), seen(Run::new("nbdfuse")));
        assert_eq!(ours, theirs, "{options}");
    }
}

#[test]
fn a_tool_that_is_killed_leaves_no_mount_where_that_was_asked_for() {
    mounts!();
    let mut mounted = Mounted::ours("dir", "-o auto_unmount", MEMORY);
    fs::metadata(mounted.file()).unwrap();
    mounted.process.signal(rustix::process::Signal::KILL);
    mounted.process.wait(PATIENCE).expect("it is killed");
    let start = Instant::now();
    while in_the_table(mounted.mount_point()).is_some() {
        assert!(start.elapsed() < PATIENCE, "it stays mounted");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn as_many_connections_are_made_as_asked_for() {
    mounts!("python3");
    for (options, most) in [("-C 3", 3), ("", 4), ("-C 1", 1)] {
        let directory = directory();
        let log = directory.path().join("log");
        let words = format!("--filter=log memory 1M logfile={}", log.display());
        let server = Server::ours(&words);
        let mounted = Mounted::ours("dir", options, &[&server.uri()]);
        python(
            &mounted.file(),
            "from concurrent.futures import ThreadPoolExecutor
f = os.open(path, os.O_RDWR)
list(ThreadPoolExecutor(8).map(lambda n: os.pwrite(f, bytes(65536), n << 16), range(16)))",
        );
        mounted.unmount();
        drop(server);
        let log = fs::read_to_string(&log).unwrap();
        let connections = log.lines().filter(|line| line.contains(" Connect ")).count();
        assert_eq!(connections, most, "{options}: {log}");
    }
}

#[test]
fn holes_are_punched_found_and_filled() {
    mounts!("fallocate", "qemu-img");
    let mounted = Mounted::ours("dir", "", MEMORY);
    let path = mounted.file();
    let fallocate = |words: &str| Run::new("fallocate").words(words).arg(&path).end();
    mounted.open().write_all_at(&[7; 1 << 20], 0).unwrap();
    fallocate("-p -o 65537 -l 100000").good();
    let mut expected = vec![7; 1 << 20];
    expected[65537..165_537].fill(0);
    let file = mounted.open();
    let check = |expected: &[u8], what: &str| {
        let mut bytes = vec![1; 1 << 20];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes == expected, "{what}");
    };
    check(&expected, "punched");
    fallocate("-z -o 500000 -l 1234").good();
    expected[500_000..501_234].fill(0);
    check(&expected, "zeroed");
    fallocate("-l 128M").code(1);
    // Data, and then a hole up to the end.
    use rustix::fs::{SeekFrom, seek};
    assert_eq!(seek(&file, SeekFrom::Hole(500_500)).unwrap() as usize, 1 << 20);
    assert_eq!(seek(&file, SeekFrom::Data(0)).unwrap(), 0);
    assert!(seek(&file, SeekFrom::Data(2 << 20)).is_err());
    drop(file);
    // What looks for data does not read 63 MiB of zeroes.
    let map = Run::new("qemu-img").words("map --output=json -f raw").arg(&path).text();
    assert!(map.contains(r#""start": 1048576, "length": 66060288"#), "{map}");
    mounted.unmount();
}

#[test]
fn a_small_write_leaves_the_rest_of_a_block_alone() {
    mounts!("nbdkit");
    let server = Server::nbdkit(
        "--filter=blocksize-policy --filter=nozero memory 1M blocksize-minimum=4096 blocksize-error-policy=error",
    );
    let mounted = Mounted::ours("dir", "-o direct_io", &[server.uri().as_str()]);
    let file = mounted.open();
    file.write_all_at(&[5; 3 * 4096], 0).unwrap();
    file.write_all_at(&[6; 5000], 3000).unwrap();
    let mut bytes = vec![0; 3 * 4096];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let mut expected = vec![5; 3 * 4096];
    expected[3000..8000].fill(6);
    assert!(bytes == expected);
    file.read_exact_at(&mut bytes[..7], 4093).unwrap();
    drop(file);
    mounted.unmount();
}

#[test]
fn a_server_that_is_gone_is_an_error_and_the_mount_goes_away() {
    mounts!();
    let server = Server::ours("memory 1M");
    let mounted = Mounted::ours("dir", "", &[server.uri().as_str()]);
    let file = OpenOptions::new().read(true).custom_flags(libc_direct()).open(mounted.file()).unwrap();
    let mut block = vec![0; 4096];
    drop(server);
    let error = file.read_at(&mut block, 8192).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5), "{error}");
    drop(file);
    unmount(mounted.mount_point());
    let mut mounted = mounted;
    let status = mounted.process.wait(PATIENCE).expect("the tool ends with the mount");
    assert_eq!(status.code(), Some(1), "the last flush failed");
}

/// `O_DIRECT`, so that the kernel asks the server.
fn libc_direct() -> i32 {
    rustix::fs::OFlags::DIRECT.bits() as i32
}

#[test]
fn an_error_stays_where_it_is() {
    mounts!();
    let script = "case $1 in
        get_size) echo 1M ;;
        pread) if [ $(($4 / 65536)) -eq 3 ]; then echo EIO bad block >&2; exit 1; fi
               dd if=/dev/zero count=$3 iflag=count_bytes 2>/dev/null ;;
        *) exit 2 ;;
        esac";
    needs!("nbdkit");
    let directory = directory();
    let path = directory.path().join("bad.sh");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let server = Server::nbdkit(&format!("sh {}", path.display()));
    let mounted = Mounted::ours("dir", "-o direct_io", &[server.uri().as_str()]);
    let file = File::open(mounted.file()).unwrap();
    let mut block = vec![0; 4096];
    for at in [0, 2 << 16, 4 << 16, 15 << 16] {
        file.read_exact_at(&mut block, at).unwrap();
    }
    assert_eq!(file.read_exact_at(&mut block, 3 << 16).unwrap_err().raw_os_error(), Some(5));
    drop(file);
    mounted.unmount();
}

/// Runs a few lines of Python on the mounted file, whose path they have as `path`.
fn python(file: &Path, lines: &str) {
    let text = format!("import mmap, os, sys\npath = sys.argv[1]\n{lines}");
    Run::new("python3").args(["-c", &text]).arg(file).end().good();
}

#[test]
fn the_file_can_be_mapped() {
    mounts!("python3");
    let server = Server::ours("memory 1M");
    for options in ["", "-o kernel_cache"] {
        let mounted = Mounted::ours("dir", options, &[server.uri().as_str()]);
        python(
            &mounted.file(),
            "f = open(path, 'r+b')
m = mmap.mmap(f.fileno(), 0)
m[5000:5005] = b'hello'
m.flush()
os.fsync(f.fileno())
assert os.pread(f.fileno(), 5, 5000) == b'hello'
os.pwrite(f.fileno(), b'there', 5000)
assert m[4999:5006] == b'\\0there\\0'
m.close()",
        );
        mounted.unmount();
        let read = Run::diskpipe().args(["dump", "--length=5", "--offset=5000", &server.uri()]).text();
        assert!(read.contains("there"), "{read}");
    }
}

#[test]
fn what_is_written_is_read_at_once_by_all() {
    mounts!("python3");
    let server = Server::ours("memory 1M");
    let mounted = Mounted::ours("dir", "", &[server.uri().as_str()]);
    // Reads in a row are read ahead; a write between two of them is seen, through whichever descriptor.
    python(
        &mounted.file(),
        "f, g = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
for at in range(0, 1 << 20, 512):
    if at % 4096 == 2048:
        os.pwrite(g, b'%08d' % at, at)
        os.pwrite(g, b'%08d' % at, at + 512)
    expected = b'%08d' % at if at % 4096 == 2048 else b'%08d' % (at - 512) if at % 4096 == 2560 else bytes(8)
    assert os.pread(f, 512, at)[:8] == expected, at",
    );
    mounted.unmount();
}

#[test]
fn what_others_write_to_the_server_is_read_by_who_opens_the_file_then() {
    mounts!("python3");
    let server = Server::ours("memory 1M");
    let mounted = Mounted::ours("dir", "", &[server.uri().as_str()]);
    let path = mounted.file();
    // Small reads in a row, which are read ahead.
    let read = "f = open(path, 'rb', buffering=0)
assert all(f.read(512) == bytes([FILL]) * 512 for _ in range(100))";
    for fill in 0..5u8 {
        python(&path, &read.replace("FILL", &fill.to_string()));
        let script = r#"head -c 100000 /dev/zero | tr '\0' "\\$0" | diskpipe copy - "$1""#;
        Run::sh(script).arg(format!("{:o}", fill + 1)).arg(server.uri()).end().good();
    }
    mounted.unmount();
}

#[test]
fn a_server_far_away_is_read_rightly_by_several_who_read_in_a_row() {
    mounts!();
    let server = Server::ours("--filter=delay pattern 24M rdelay=3ms");
    let mounted = Mounted::ours("file", "", &[server.uri().as_str()]);
    let file = mounted.open();
    std::thread::scope(|scope| {
        for (start, length) in [(0, 4096), (1 << 20, 128 << 10), (5_000_000, 100_000), (3 << 20, 1 << 20)] {
            let file = &file;
            scope.spawn(move || {
                let mut read = vec![0; length];
                for n in 0..(4 << 20) / length as u64 {
                    let at = start + n * length as u64;
                    file.read_exact_at(&mut read, at).unwrap();
                    // Each eight bytes are their own offset.
                    let first = at.next_multiple_of(8);
                    for (at, bytes) in (first..).step_by(8).zip(read[(first - at) as usize..].chunks_exact(8))
                    {
                        assert_eq!(bytes, at.to_be_bytes());
                    }
                }
            });
        }
    });
    drop(file);
    mounted.unmount();
}

#[test]
fn many_threads_read_and_write_at_once() {
    mounts!("python3");
    for options in ["-C 4", "-C 1", "-s", "-o kernel_cache"] {
        let mounted = Mounted::ours("dir", options, MEMORY);
        python(
            &mounted.file(),
            "from concurrent.futures import ThreadPoolExecutor
f = os.open(path, os.O_RDWR)
def work(n):
    for round in range(20):
        data = bytes([n + round]) * ((300 << 10) + n)
        os.pwrite(f, data, n << 20)
        assert os.pread(f, len(data), n << 20) == data
list(ThreadPoolExecutor(40).map(work, range(40)))",
        );
        mounted.unmount();
    }
}

#[test]
fn a_server_that_resizes_follows_the_file() {
    mounts!();
    let server = Server::ours("--resize memory 1M max-size=16M");
    let mounted = Mounted::ours("dir", "-C 1", &[server.uri().as_str()]);
    mounted.open().set_len(2 << 20).unwrap();
    assert_eq!(fs::metadata(mounted.file()).unwrap().len(), 2 << 20);
    mounted.open().write_all_at(b"x", (2 << 20) - 1).unwrap();
    let info = Run::diskpipe().args(["info", "--size", &server.uri()]).text();
    assert_eq!(info, "2097152\n");
    mounted.unmount();
    let mounted = Mounted::ours("dir", "", MEMORY);
    let refused = mounted.open().set_len(1).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
    mounted.unmount();
}

#[test]
fn signals_unmount_it() {
    mounts!();
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM, rustix::process::Signal::HUP]
    {
        let mut mounted = Mounted::ours("dir", "-s", MEMORY);
        mounted.process.signal(signal);
        assert!(mounted.process.wait(PATIENCE).expect("it ends").success());
        assert!(!mounted.at.join("nbd").exists());
    }
}

#[test]
fn what_cannot_be_mounted_fails_at_once() {
    mounts!();
    let directory = directory();
    let place = directory.path().to_str().unwrap();
    for words in [
        &["/no/such/place", "nbd+unix:///?socket=/none"][..],
        &[place, "nbd+unix:///?socket=/none"],
        &[place],
        &[place, "a", "b"],
        &["-o", "nosuch", place, "nbd://x"],
        &[place, "--command", "/no/such/program"],
        &[place, "--command", "false"],
        &["/dev/null", "[", "diskpipe", "serve", "memory", "1M", "]"],
    ] {
        let ended = Run::diskpipe().arg("mount").args(words).end().code(1);
        assert!(!ended.stderr.is_empty(), "{words:?}");
    }
    assert!(Run::diskpipe().words("mount --fuse-help").text().contains("allow_other"));
}
