//! Every plugin passes the conformance kit.

use conformance::{
    Case,
    Expect::{Discarding, Model, ReadOnly, Refusing, Verifying},
};
use plugins::PLUGINS;
use std::{
    any::Any,
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

/// Parameters that are made anew for each check, and what they name.
type Made = (Vec<(String, String)>, Box<dyn Any + Send>);

fn main() -> ExitCode {
    let nbdkit = (!installed("nbdkit")).then_some("nbdkit");
    let administrators = ["/usr/sbin/mke2fs", "/sbin/mke2fs"];
    let mke2fs = (!administrators.iter().any(|path| Path::new(path).exists())).then_some("mke2fs");
    let qemu = (!installed("qemu-nbd")).then_some("qemu-nbd");
    let python = (!installed("python3")).then_some("python3");
    let daemon = (!installed("qemu-storage-daemon")).then_some("qemu-storage-daemon");
    let no_zstd = (!cfg!(feature = "zstd")).then_some("the cargo feature zstd");
    let no_blkio = (!cfg!(feature = "blkio")).then_some("the cargo feature blkio");
    let uring = no_blkio.or((!has_uring()).then_some("io_uring"));
    conformance::plugins(
        PLUGINS,
        vec![
            Case::new("blkio", &[("driver", "io_uring")], Model).with(file_by_path).needing(uring),
            Case::new("blkio", &[("driver", "io_uring"), ("direct", "true")], Model)
                .with(file_by_path)
                .needing(uring),
            Case::new("blkio", &[("driver", "io_uring")], ReadOnly)
                .with(|| file(1 << 20, true))
                .needing(uring),
            Case::new("blkio", &[("driver", "virtio-blk-vhost-user")], Model)
                .with(vhost_user)
                .needing(daemon.or(no_blkio)),
            Case::new("cdi", &[], ReadOnly).with(image),
            Case::new("data", &[("data", "@40000 ( 1 \"abc\" @^512 )*1000 @+5")], Model),
            Case::new("data", &[("raw", "hello"), ("size", "1M"), ("allocator", "malloc")], Model),
            Case::new("eval", &[], Model).with(file_by_shell),
            Case::new("example1", &[], ReadOnly),
            Case::new("example2", &[], ReadOnly).with(|| file(100_001, false)),
            Case::new("example3", &[("size", "1M")], Model),
            Case::new("example4", &[("size", "100001"), ("text", "hello")], Model),
            Case::new("file", &[], Model).with(|| file(1 << 20, false)),
            Case::new("file", &[], Model).with(|| file(100_001, false)),
            Case::new("file", &[("cache", "direct")], Model)
                .with(|| file(1 << 20, false))
                .needing((!has_direct()).then_some("a file system with direct I/O for temporary files")),
            Case::new("file", &[], ReadOnly).with(|| file(1 << 20, true)),
            Case::new("floppy", &[], ReadOnly).with(files),
            Case::new("full", &[("size", "1M")], Refusing),
            Case::new("iso", &[], ReadOnly).with(files),
            Case::new(
                "iso",
                &[("params", "-JrT -no-pad -b sub/large -no-emul-boot -boot-info-table")],
                ReadOnly,
            )
            .with(files),
            Case::new("linuxdisk", &[], ReadOnly).with(files).needing(mke2fs),
            Case::new("info", &[("mode", "version")], ReadOnly),
            Case::new("memory", &[("size", "1M")], Model),
            Case::new("memory", &[("size", "100001")], Model),
            // The largest disk that there can be.
            Case::new("memory", &[("size", "9223372036854775807")], Model),
            Case::new("memory", &[("size", "1M"), ("allocator", "malloc")], Model),
            Case::new("memory", &[("size", "100001"), ("allocator", "zstd")], Model).needing(no_zstd),
            Case::new("memory", &[("size", "4M"), ("allocator", "zstd,hot=1")], Model).needing(no_zstd),
            Case::new("memory", &[("size", "7E"), ("allocator", "zstd")], Model).needing(no_zstd),
            Case::new("nbd", &[], Model).with(|| served_memory(&[])).needing(nbdkit),
            Case::new("nbd", &[("shared", "true")], Model).with(slow_memory).needing(nbdkit),
            Case::new("nbd", &[("export", "file")], Model).with(served_file).needing(qemu),
            Case::new("null", &[("size", "1M")], Discarding),
            Case::new("null", &[("size", "9223372036854775807")], Discarding),
            Case::new("ondemand", &[("size", "1M"), ("share", "true"), ("command", MAKE)], Model)
                .with(directory),
            Case::new("ones", &[("size", "1M")], Discarding),
            Case::new("partitioning", &[], ReadOnly).with(parts).for_readers(),
            Case::new("partitioning", &[("partition-type", "gpt")], ReadOnly).with(parts).for_readers(),
            Case::new("pattern", &[("size", "1M"), ("stride", "512"), ("upper", "0x1234")], Verifying),
            Case::new("pattern", &[("size", "9223372036854775807")], Verifying),
            Case::new("random", &[("size", "100001"), ("seed", "7")], Verifying),
            Case::new("random", &[("size", "1T")], Verifying),
            Case::new("sh", &[], Model).with(memory_by_python).needing(python),
            Case::new("sparse-random", &[("size", "4M"), ("seed", "7")], Verifying),
            Case::new("sparse-random", &[("size", "1T"), ("seed", "8"), ("blocksize", "1M")], Verifying),
            Case::new("split", &[], Model).with(parts),
            Case::new("split", &[], Model).with(parts).for_readers(),
            // What can be read once only cannot be compared with anything.
            Case::new("streaming", &[("read", "/dev/null"), ("size", "0")], ReadOnly),
            Case::new("tmpdisk", &[("size", "1M"), ("command", MAKE)], Model),
            Case::new("zero", &[], ReadOnly),
        ],
    )
}

/// A disk with nothing on it, in the words of the shell.
const MAKE: &str = "truncate -s $size \"$disk\"";

/// A directory with some files.
fn files() -> Made {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(dir.path().join("sub")).expect("a directory in it");
    for (name, size) in [("empty", 0), ("small", 700), ("sub/large", 300_001), ("sub/Long name.text", 4096)] {
        std::fs::write(dir.path().join(name), vec![b'x'; size]).expect("a file");
    }
    (vec![("dir".to_owned(), dir.path().display().to_string())], Box::new(dir))
}

/// A container image with one layer, which is 1000 times the letter x.
fn image() -> Made {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let digest = "44f8354494a5ba03ba1792a8d3e9c534c47a9181980fde7a3f44b06ef2ae7c7f";
    std::fs::write(dir.path().join(digest), [b'x'; 1000]).expect("a file");
    let manifest = format!(r#"{{"layers": [{{"digest": "sha256:{digest}", "size": 1000}}]}}"#);
    std::fs::write(dir.path().join("manifest.json"), manifest).expect("a file");
    (vec![("layout".to_owned(), dir.path().display().to_string())], Box::new(dir))
}

/// An empty directory.
fn directory() -> Made {
    let dir = tempfile::tempdir().expect("a temporary directory");
    (vec![("dir".to_owned(), dir.path().display().to_string())], Box::new(dir))
}

/// A file of this size with some data and some holes.
fn file(size: u64, read_only: bool) -> Made {
    use std::os::{fd::AsRawFd, unix::fs::FileExt};
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("disk");
    let file = std::fs::File::create(&path).expect("a file");
    file.set_len(size).expect("a file of this size");
    for at in [0, 10_000, size / 2, size - 700] {
        file.write_all_at(&[b'x'; 700], at).expect("room in it");
    }
    if !read_only {
        return (vec![("file".to_owned(), path.display().to_string())], Box::new(dir));
    }
    // Root may write to a file that nobody may write to, but not through a descriptor that is for reading.
    let file = std::fs::File::open(&path).expect("the file");
    (vec![("fd".to_owned(), file.as_raw_fd().to_string())], Box::new((file, dir)))
}

/// The same for who calls it `path`.
fn file_by_path() -> Made {
    let (mut args, keep) = file(1 << 20, false);
    args[0].0 = "path".to_owned();
    (args, keep)
}

/// Whether rings can be set up: in many containers they are forbidden.
fn has_uring() -> bool {
    let (args, _keep) = file_by_path();
    let mut args = params::Args::new([("driver".to_owned(), "io_uring".to_owned()), args[0].clone()]);
    let backend = plugins::find("blkio").and_then(|entry| entry.start(&mut args).ok());
    backend.is_some_and(|backend| backend.open(&disk::Client::default()).wait().is_ok())
}

/// Whether temporary files can be used past the page cache.
fn has_direct() -> bool {
    let (args, _keep) = file(1 << 20, false);
    let mut args = params::Args::new([args[0].clone(), ("cache".to_owned(), "direct".to_owned())]);
    let backend = plugins::find("file").and_then(|entry| entry.start(&mut args).ok());
    backend.is_some_and(|backend| backend.get_ready().is_ok())
}

/// A qcow2 image behind QEMU's storage daemon.
fn vhost_user() -> Made {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let created = Command::new("qemu-img").args(["create", "-q", "-f", "qcow2", &at("disk"), "1M"]).status();
    assert!(created.expect("qemu-img runs").success());
    let file = format!("driver=file,node-name=file,filename={},discard=unmap", at("disk"));
    let qcow2 = "driver=qcow2,node-name=disk,file=file,discard=unmap";
    let export = format!(
        "type=vhost-user-blk,id=export,addr.type=unix,addr.path={},node-name=disk,writable=on",
        at("sock")
    );
    let options = ["--blockdev", &file, "--blockdev", qcow2, "--export", &export, "--pidfile", &at("pid")];
    let server = started(Command::new("qemu-storage-daemon").args(options), dir.path());
    (vec![("path".to_owned(), at("sock"))], Box::new((server, dir)))
}

/// Two files with some data and some holes.
fn parts() -> Made {
    let ((mut args, keep), (more, also)) = (file(70_001, false), file(100_001, false));
    args.extend(more);
    (args, Box::new((keep, also)))
}

/// A file, each of whose requests is a fragment of shell script.
fn file_by_shell() -> Made {
    let (args, keep) = file(1 << 20, false);
    let scripts = [
        ("config", r#"echo "$3" > "$tmpdir/name""#),
        ("get_size", r#"stat -c %s "$(cat "$tmpdir/name")""#),
        (
            "pread",
            r#"dd if="$(cat "$tmpdir/name")" skip="$4" count="$3" iflag=count_bytes,skip_bytes status=none"#,
        ),
        ("pwrite", r#"dd of="$(cat "$tmpdir/name")" seek="$4" conv=notrunc oflag=seek_bytes status=none"#),
        ("flush", "exit 0"),
        ("can_multi_conn", "exit 0"),
        ("thread_model", "echo parallel"),
    ];
    let scripts = scripts.map(|(method, script)| (method.to_owned(), script.to_owned()));
    (scripts.into_iter().chain(args).collect(), keep)
}

/// A persistent script with a disk in its memory.
fn memory_by_python() -> Made {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let script = dir.path().join("ram.py");
    std::fs::write(&script, include_str!("ram.py")).expect("a file");
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("an executable file");
    let args = [("persistent", "true"), ("script", &script.display().to_string()), ("size", "1M")];
    (args.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(), Box::new(dir))
}

/// As [`served_memory`]; writes take their time, and a flush of that server waits for none.
fn slow_memory() -> Made {
    served_memory(&["--filter=delay", "wdelay=3ms"])
}

/// A memory disk served by another project's server.
fn served_memory(more: &[&str]) -> Made {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| dir.path().join(name).display().to_string();
    // The process file is written once clients can connect.
    let options = ["--foreground", "--exit-with-parent", "--unix", &at("sock"), "--pidfile", &at("pid")];
    let server = started(Command::new("nbdkit").args(options).args(["memory", "1M"]).args(more), dir.path());
    (vec![("socket".to_owned(), at("sock"))], Box::new((server, dir)))
}

/// A file served by another project's server.
fn served_file() -> Made {
    let (args, keep) = file(1 << 20, false);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let options = ["--format=raw", "--persistent", "--shared=8", "--discard=unmap", "--export-name=file"];
    let places = ["--socket", &at("sock"), "--pid-file", &at("pid"), &args[0].1];
    let server = started(Command::new("qemu-nbd").args(options).args(places), dir.path());
    (vec![("socket".to_owned(), at("sock"))], Box::new((server, dir, keep)))
}

/// A server that writes the file `pid` there once clients can connect.
fn started(command: &mut Command, dir: &Path) -> Server {
    let server = Server(command.stdin(Stdio::null()).spawn().expect("it starts"));
    wait_for(&dir.join("pid"));
    server
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for(file: &Path) {
    let start = Instant::now();
    while !file.exists() {
        assert!(start.elapsed() < Duration::from_secs(10), "the server does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn installed(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}
