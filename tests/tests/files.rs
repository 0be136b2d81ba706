//! The plugin `file` as its clients see it: directories, inherited descriptors, files that change or go, and what each
//! file system can do about holes.

use e2e::{Run, Server, directory, needs};
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

fn sparse(path: &Path, size: u64) {
    File::create(path).and_then(|file| file.set_len(size)).unwrap();
}

#[test]
fn every_file_of_a_directory_is_an_export() {
    needs!("nbdinfo", "nbdsh");
    let dir = directory();
    let images = dir.path().join("images");
    fs::create_dir_all(images.join("deeper")).unwrap();
    sparse(&images.join("a"), 1 << 20);
    sparse(&images.join("b c"), 2 << 20);
    sparse(&dir.path().join("outside"), 1 << 20);
    std::os::unix::fs::symlink(images.join("a"), images.join("link")).unwrap();
    let looks = r#"
for name, size in [("a", 1 << 20), ("b c", 2 << 20), ("link", 1 << 20)]:
    h = nbd.NBD()
    h.set_export_name(name)
    h.connect_unix(os.environ["unixsocket"])
    assert h.get_size() == size, name
    h.shutdown()
for name in ["", "deeper", "none", "../outside", "/etc/passwd", "."]:
    h = nbd.NBD()
    h.set_export_name(name)
    try:
        h.connect_unix(os.environ["unixsocket"])
    except nbd.Error as e:
        continue
    raise SystemExit(name)
"#;
    let script = dir.path().join("looks.py");
    fs::write(&script, format!("import os\n{looks}")).unwrap();
    let command = format!(
        r#"nbdinfo --list "$uri" | grep '^export=' && unixsocket=$unixsocket nbdsh -c "$(cat '{}')""#,
        script.display()
    );
    let shell = |how: &str| {
        let serve = format!(r#"exec "$0" serve -U - file {how} --run "$1" 5<"$2""#);
        let serve = Run::new("sh").args(["-c", &serve]).arg(e2e::diskpipe()).arg(&command).arg(&images);
        assert_eq!(serve.text(), "export=\"a\":\nexport=\"b c\":\nexport=\"link\":\n", "{how}");
    };
    shell(r#"dir="$2""#);
    shell(r#"directory="$2""#);
    shell("dirfd=5");
}

#[test]
fn a_descriptor_is_served_as_it_was_opened() {
    needs!("nbdsh", "nbdinfo");
    let dir = directory();
    let file = dir.path().join("file");
    sparse(&file, 1 << 20);
    let serve = |redirection: &str, command: &str| {
        let serve = format!(r#"exec "$0" serve -U - file fd=7 --run "$1" 7{redirection}"$2""#);
        Run::new("sh").args(["-c", &serve]).arg(e2e::diskpipe()).arg(command).arg(&file).text()
    };
    serve("<>", r#"nbdsh -u "$uri" -c 'h.pwrite(b"x" * 512, 512); h.flush()'"#);
    assert_eq!(fs::read(&file).unwrap()[512..1024], [b'x'; 512]);
    assert_eq!(serve("<", r#"nbdinfo --is read-only "$uri" && echo so"#), "so\n");
}

#[test]
fn a_file_that_shrinks_or_goes_is_an_error_and_the_server_goes_on() {
    needs!("nbdsh");
    let dir = directory();
    let (shrinks, goes, stays) =
        (dir.path().join("shrinks"), dir.path().join("goes"), dir.path().join("stays"));
    [&shrinks, &goes, &stays].iter().for_each(|path| sparse(path, 4 << 20));
    let served = Server::ours(&format!("file dir={}", dir.path().display()));
    let script = format!(
        r#"
import os
h.set_export_name("shrinks")
h.connect_unix("{socket}")
os.truncate("{shrinks}", 4096)
assert h.pread(4096, 0) == bytes(4096)
for at in [4096, 1 << 20]:
    try:
        h.pread(4096, at)
        raise SystemExit("there is nothing to be read")
    except nbd.Error as e:
        assert e.errno == "EIO", e
assert h.pread(4096, 0) == bytes(4096)
there = nbd.NBD()
there.set_export_name("goes")
there.connect_unix("{socket}")
os.unlink("{goes}")
there.pwrite(b"x" * 512, 0)
assert there.pread(512, 0) == b"x" * 512
gone = nbd.NBD()
gone.set_export_name("goes")
try:
    gone.connect_unix("{socket}")
    raise SystemExit("it is gone")
except nbd.Error as e:
    assert e.errno == "ENOENT", e
stays = nbd.NBD()
stays.set_export_name("stays")
stays.connect_unix("{socket}")
stays.pwrite(b"y" * 512, 0)
"#,
        socket = served.socket().display(),
        shrinks = shrinks.display(),
        goes = goes.display()
    );
    Run::new("nbdsh").args(["-c", &script]).end().good();
}

#[test]
fn what_cannot_be_opened_is_told_at_the_start() {
    needs!("setpriv");
    let dir = directory();
    let refused = |what: &str, why: &str| {
        let said = Run::serve(&format!("file {what}"), "true").end().code(1).stderr;
        assert!(said.contains(why), "{what}: {said}");
    };
    refused("/no/where", "file=/no/where: No such file or directory");
    refused("/", "use dir= to serve the files in it");
    refused("/dev/null", "neither a regular file nor a block device");
    refused("dir=/etc/passwd", "dir=/etc/passwd: not a directory");
    refused("/etc/passwd rdelay=1", "--filter=delay");
    let file = dir.path().join("file");
    sparse(&file, 512);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // As root everything can be read, so as somebody else.
    let user = Run::new("setpriv").words("--reuid 65534 --clear-groups true").end();
    if !user.status.success() {
        e2e::skip("needs root, to be somebody else");
        return;
    }
    let ours = dir.path().join("diskpipe");
    fs::copy(e2e::diskpipe(), &ours).unwrap();
    let serve = Run::new("setpriv")
        .words("--reuid 65534 --clear-groups")
        .arg(&ours)
        .words("serve -U - file")
        .arg(&file);
    let said = serve.args(["--run", "true"]).env("TMPDIR", "/tmp").end().code(1).stderr;
    assert!(said.contains("Permission denied"), "{said}");
}

/// A file system of its own, gone with this value.
struct Mounted(PathBuf);

impl Mounted {
    fn new(place: &Path, options: &[&str]) -> Option<Mounted> {
        fs::create_dir_all(place).unwrap();
        let ended = Run::new("mount").args(options).arg(place).end();
        if !ended.status.success() {
            e2e::skip("needs root, and to mount");
            return None;
        }
        Some(Mounted(place.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        Run::new("umount").arg(&self.0).end();
    }
}

/// Writes, zeroes and trims; fast zeroes either succeed or change nothing.
const HOLES: &str = r#"
import os
M = 1 << 20
h.pwrite(b"\x77" * (8 * M), 0)
h.trim(M, 1 * M, nbd.CMD_FLAG_FUA)
h.zero(M, 2 * M)
h.zero(M, 3 * M, nbd.CMD_FLAG_NO_HOLE)
fast = {}
for at, flags in [(4 * M, 0), (5 * M, nbd.CMD_FLAG_NO_HOLE)]:
    try:
        h.zero(M, at, flags | nbd.CMD_FLAG_FAST_ZERO)
        fast[at] = True
        assert h.pread(M, at) == bytes(M)
    except nbd.Error as e:
        assert e.errno == "ENOTSUP", e
        fast[at] = False
        assert h.pread(M, at) == b"\x77" * M
h.flush()
assert h.pread(M, 0) == b"\x77" * M and h.pread(2 * M, 6 * M) == b"\x77" * 2 * M
assert h.pread(3 * M, M) == bytes(3 * M)
print(fast[4 * M], fast[5 * M])
"#;

/// Whether fast zeroes with holes and without worked, and how many bytes are allocated in the end.
fn holes(dir: &Path) -> (String, u64) {
    let file = dir.join("disk");
    sparse(&file, 8 << 20);
    let command = format!(r#"nbdsh -u "$uri" -c '{HOLES}' && nbdinfo --map --totals "$uri" >/dev/null"#);
    let said = Run::diskpipe().words("serve -U - file").arg(&file).args(["--run", &command]).text();
    (said.trim().to_owned(), fs::metadata(&file).unwrap().blocks() * 512)
}

#[test]
fn holes_are_made_where_the_file_system_can() {
    needs!("mke2fs", "mount", "nbdsh", "nbdinfo");
    let dir = directory();
    let image = dir.path().join("ext4.img");
    sparse(&image, 64 << 20);
    Run::new("mke2fs").words("-q -F -t ext4").arg(&image).end().good();
    let place = dir.path().join("ext4");
    if let Some(ext4) = Mounted::new(&place, &["-o", "loop", image.to_str().unwrap()]) {
        let (fast, allocated) = holes(&ext4.0);
        assert_eq!(fast, "True True", "it has both ways");
        // Three are holes; what was zeroed without holes stays allocated.
        assert_eq!(allocated >> 20, 5);
    }
    let place = dir.path().join("tmpfs");
    if let Some(tmpfs) = Mounted::new(&place, &["-t", "tmpfs", "-o", "size=32m", "none"]) {
        let (fast, allocated) = holes(&tmpfs.0);
        // No file in memory can be zeroed without holes but by writing.
        assert_eq!(fast, "True False");
        assert_eq!(allocated >> 20, 5);
    }
}
