//! `ls`, `cat` and `cp` find the file system that is meant: in partition tables that others wrote, by all ways to a disk,
//! and on disks that mean harm.

use e2e::{Run, Server, directory, needs};
use std::{
    fs,
    os::unix::fs::{FileExt, symlink},
    path::{Path, PathBuf},
};

const MIB: u64 = 1 << 20;

fn cat(disk: &str, path: &str) -> String {
    Run::diskpipe().arg("cat").arg(disk).arg(path).text()
}

fn cannot(words: &[&str]) -> String {
    Run::diskpipe().args(words).end().code(1).stderr
}

/// A file system of 16 MiB with a label; with `/etc/os-release` if it shall look like the root of a system.
fn ext4(dir: &Path, label: &str, is_root: bool) -> Vec<u8> {
    let files = dir.join(label);
    fs::create_dir_all(files.join(if is_root { "etc" } else { "photos" })).unwrap();
    fs::write(files.join("name"), label).unwrap();
    if is_root {
        fs::write(files.join("etc/os-release"), format!("NAME={label}\n")).unwrap();
    }
    let image = dir.join("image");
    let _ = fs::remove_file(&image);
    Run::new("mke2fs")
        .words("-q -F -t ext4 -L")
        .arg(label)
        .arg("-d")
        .arg(&files)
        .arg(&image)
        .arg("16M")
        .end()
        .good();
    fs::read(image).unwrap()
}

fn fat(dir: &Path) -> Vec<u8> {
    let image = dir.join("image");
    let _ = fs::remove_file(&image);
    fs::File::create(&image).unwrap().set_len(16 * MIB).unwrap();
    Run::new("mkfs.vfat").words("-F 16 -n ESP -i 1234abcd").arg(&image).end().good();
    fs::read(image).unwrap()
}

/// A disk that sfdisk makes of these lines, with parts in it.
fn disk(dir: &Path, lines: &str, parts: &[(u64, &[u8])]) -> PathBuf {
    let path = dir.join("disk");
    let _ = fs::remove_file(&path);
    let file = fs::File::create(&path).unwrap();
    file.set_len(100 * MIB).unwrap();
    Run::new("sfdisk").arg("-q").arg(&path).input(lines.as_bytes()).end().good();
    for (at, bytes) in parts {
        file.write_all_at(bytes, *at).unwrap();
    }
    path
}

const GPT: &str = "label: gpt\n\
    start=2048, size=32768, type=U, name=boot\n\
    start=34816, size=32768, name=\"the root\", uuid=12345678-9ABC-4DEF-8123-456789ABCDEF\n\
    start=67584, size=32768, type=S\n\
    start=100352, size=32768\n";

#[test]
fn of_several_partitions_the_root_of_a_system_is_meant() {
    needs!("mke2fs", "mkfs.vfat", "sfdisk");
    let dir = directory();
    let (root, data, esp) =
        (ext4(dir.path(), "ROOT", true), ext4(dir.path(), "data", false), fat(dir.path()));
    let mut swap = vec![0; 4096];
    swap[4086..].copy_from_slice(b"SWAPSPACE2");
    let [p1, p2, p3, p4] = [2048, 34816, 67584, 100_352].map(|sector: u64| sector * 512);
    let path = disk(dir.path(), GPT, &[(p1, &esp), (p2, &root), (p3, &swap), (p4, &data)]);
    let disk = path.to_str().unwrap();
    assert_eq!(cat(disk, "/etc/os-release"), "NAME=ROOT\n");
    let listed = Run::diskpipe().arg("ls").arg(disk).text();
    let listed: Vec<String> =
        listed.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        ":1 1048576 16777216 EFI system FAT16 ESP",
        ":2 17825792 16777216 Linux ext4 ROOT",
        ":3 34603008 16777216 Linux swap swap space",
        ":4 51380224 16777216 Linux ext4 data",
    ] {
        assert!(listed.iter().any(|l| l == line), "{listed:?}");
    }
    let listed = Run::diskpipe().words("ls --json").arg(disk).text();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["partitions"][1]["partuuid"], "12345678-9abc-4def-8123-456789abcdef");
    assert_eq!(listed["partitions"][0]["uuid"], "1234-ABCD");
    let uuid = listed["partitions"][3]["uuid"].as_str().unwrap().to_string();
    for (part, name) in [
        ("2", "ROOT"),
        ("p4", "data"),
        ("LABEL=data", "data"),
        (&*format!("UUID={}", uuid.to_uppercase()), "data"),
        ("PARTLABEL=the root", "ROOT"),
        ("PARTUUID=12345678-9ABC-4DEF-8123-456789abcdef", "ROOT"),
    ] {
        assert_eq!(cat(&format!("{disk}:{part}"), "name"), name, "{part}");
        assert_eq!(
            Run::diskpipe().words("cat --partition").arg(part).arg(disk).arg("name").text(),
            name,
            "{part}"
        );
    }
    let refused = cannot(&["cat", &format!("{disk}:3"), "x"]);
    assert!(refused.contains("partition 3: this is swap space"), "{refused}");
    let refused = cannot(&["ls", &format!("{disk}:9")]);
    assert!(refused.contains("no partition 9; there are\n  :1  16M  FAT16 \"ESP\"\n"), "{refused}");
    let filtered = format!("--filter=partition file {disk} partition=4");
    assert_eq!(Run::serve(&filtered, "diskpipe cat \"$uri\" name").text(), "data");
    assert!(cannot(&["ls", "--partition=0", disk]).contains("no file system that is known"));

    // Damage to the first copy, then to both.
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    file.write_all_at(&[1], 1024 + 40).unwrap();
    let read = Run::diskpipe().arg("cat").arg(disk).arg("/etc/os-release").end().good();
    assert_eq!(read.text(), "NAME=ROOT\n");
    assert!(read.stderr.contains("warning") && read.stderr.contains("first copy"), "{}", read.stderr);
    file.set_len(60 * MIB).unwrap();
    assert!(cannot(&["ls", disk]).contains("both copies of the GPT are damaged"));
    assert_eq!(file.metadata().unwrap().len(), 60 * MIB);
}

#[test]
fn without_a_root_or_with_two_the_choice_is_for_people() {
    needs!("mke2fs", "sfdisk");
    let dir = directory();
    let (one, two) = (ext4(dir.path(), "one", true), ext4(dir.path(), "two", true));
    let lines = "label: dos\nlabel-id: 0xabcd1234\nstart=2048, size=32768\nstart=34816, size=120000, type=5\n\
        start=36864, size=32768\nstart=71680, size=32768\n";
    let path = disk(dir.path(), lines, &[(36864 * 512, &one), (71680 * 512, &two)]);
    let disk = path.to_str().unwrap();
    let refused = cannot(&["cat", disk, "name"]);
    assert!(
        refused.contains(
            "several partitions have /etc; name one, of\n  :1  16M  unknown\n  :5  16M  ext4 \"one\"\n"
        ),
        "{refused}"
    );
    assert_eq!(cat(&format!("{disk}:5"), "name"), "one");
    assert_eq!(cat(&format!("{disk}:PARTUUID=abcd1234-06"), "name"), "two");
    // The chain is cut: the first link has no signature any more.
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0, 0], 34816 * 512 + 510).unwrap();
    let refused = cannot(&["ls", disk]);
    assert!(refused.contains("the chain of logical partitions is broken in sector 34816"), "{refused}");
}

/// Makes of a GPT on sectors of 512 bytes one with the same numbers on sectors of 4096.
const LARGER: &str = "
import struct, sys, zlib
disk = open(sys.argv[1], 'r+b')
old = disk.read(34 * 512)
disk.seek(0, 2)
last = disk.tell() // 4096 - 1
entries = old[1024:]
disk.seek(512)
disk.write(bytes(34 * 512))
disk.seek(-34 * 512, 2)
disk.write(bytes(34 * 512))
for at, other, table in ((1, last, 2), (last, 1, last - 4)):
    header = bytearray(old[512:512 + 92])
    header[24:88] = struct.pack('<QQQQ16sQII', at, other, 6, last - 5, bytes(header[56:72]), table, 128, 128)
    header[88:92] = struct.pack('<I', zlib.crc32(entries))
    header[16:20] = bytes(4)
    header[16:20] = struct.pack('<I', zlib.crc32(header))
    for place, data in ((at, header), (table, entries)):
        disk.seek(place * 4096)
        disk.write(data)
";

#[test]
fn sectors_of_4096_bytes_are_found_out() {
    needs!("mke2fs", "sfdisk", "python3");
    let dir = directory();
    let root = ext4(dir.path(), "ROOT", true);
    for label in ["gpt", "dos"] {
        let first = 2048 * 4096;
        let path = disk(dir.path(), &format!("label: {label}\nstart=2048, size=4096\n"), &[]);
        if label == "gpt" {
            Run::new("python3").args(["-c", LARGER]).arg(&path).end().good();
        }
        fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&root, first).unwrap();
        assert_eq!(cat(path.to_str().unwrap(), "/etc/os-release"), "NAME=ROOT\n", "{label}");
        let listed = Run::diskpipe().words("ls --sector-size=4096 -R").arg(&path).text();
        assert!(listed.contains("\n/etc:\nos-release\n"), "{listed}");
        let refused = cannot(&["ls", "--sector-size=512", path.to_str().unwrap(), "/"]);
        let why =
            if label == "gpt" { "tells of a GPT, of which there is no trace" } else { "no file system" };
        assert!(refused.contains(why), "{refused}");
    }
}

#[test]
fn whatever_way_leads_to_a_disk_it_is_read() {
    needs!("mke2fs", "sfdisk", "qemu-img", "qemu-nbd");
    let dir = directory();
    let (root, data) = (ext4(dir.path(), "ROOT", true), ext4(dir.path(), "data", false));
    let lines = "label: gpt\nstart=2048, size=32768\nstart=34816, size=32768\n";
    let path = disk(dir.path(), lines, &[(MIB, &root), (17 * MIB, &data)]);
    let disk = path.to_str().unwrap();
    // A file whose name ends like a partition, and one that is not there.
    let odd = dir.path().join("odd:2");
    fs::hard_link(&path, &odd).unwrap();
    assert_eq!(cat(odd.to_str().unwrap(), "/name"), "ROOT");
    assert_eq!(cat(&format!("{}:2", odd.display()), "/name"), "data");
    assert!(cannot(&["ls", "/nowhere:2"]).contains("/nowhere: No such file"));
    assert!(cannot(&["ls", dir.path().to_str().unwrap()]).to_lowercase().contains("directory"));

    let server = Server::ours(&format!("file {disk}"));
    assert_eq!(cat(&server.uri(), "/name"), "ROOT");
    assert_eq!(cat(&format!("{}:2", server.uri()), "/name"), "data");
    let script = format!(
        "diskpipe serve -p 0 file {disk} --run 'diskpipe cat nbd://localhost:$port/:LABEL=data name; diskpipe cat nbd://localhost:$port name'"
    );
    assert_eq!(Run::sh(&script).text(), "dataROOT");
    Run::diskpipe().words("keygen psk --user alice").arg(dir.path()).end().good();
    let keys = dir.path().join("keys.psk");
    let server = Server::ours(&format!("--tls=require --tls-psk={} file {disk}", keys.display()));
    let (socket, keys) = (server.socket(), keys.display());
    let uri = format!("nbds+unix://alice@/?socket={}&tls-psk-file={keys}", socket.display());
    assert_eq!(cat(&uri, "/name") + &cat(&format!("{uri}:2"), "/name"), "ROOTdata");

    // Minimum blocks that are kept to, and servers that are started for it.
    let qcow2 = dir.path().join("disk.qcow2");
    Run::new("qemu-img").words("convert -q -f raw -O qcow2").arg(&path).arg(&qcow2).end().good();
    let refused = cannot(&["ls", qcow2.to_str().unwrap()]);
    assert!(refused.contains("an image in the format qcow2") && refused.contains("[ qemu-nbd "), "{refused}");
    let brackets = |part: &[&str]| {
        let run = Run::diskpipe().arg("cat").args(part);
        run.words("-- [ qemu-nbd -r -f qcow2").arg(&qcow2).words("] /name").text()
    };
    assert_eq!(brackets(&[]), "ROOT");
    assert_eq!(brackets(&["--partition", "2"]), "data");
    let blocks = "--filter=blocksize-policy file";
    let strict = format!(
        "{blocks} {disk} blocksize-minimum=4K blocksize-preferred=4K blocksize-maximum=8K blocksize-error-policy=error"
    );
    let server = Server::ours(&strict);
    assert_eq!(cat(&format!("{}:p2", server.uri()), "/name"), "data");
}

#[test]
fn what_cannot_be_read_is_named_with_what_to_do() {
    let dir = directory();
    let path = dir.path().join("disk");
    for (at, magic, name) in [
        (0, &b"XFSB"[..], "XFS, which a kernel may know: mount "),
        (0x10040, b"_BHRfS_M", "btrfs, which a kernel may know"),
        (3, b"NTFS    ", "NTFS"),
        (0, b"LUKS\xba\xbe", "LUKS (encrypted), which can be unlocked by: cryptsetup open"),
        (512, b"LABELONE", "LVM, whose volumes a kernel finds: losetup "),
        (4086, b"SWAPSPACE2", "swap space; what can be read here are ext2"),
        (32 << 10, b"JFS1", "JFS"),
        (257, b"ustar", "a tar archive, and no disk"),
        (0, b"KDMV", "[ qemu-nbd -r -f vmdk FILE ]"),
        (64, b"\x7f\x10\xda\xbe", "[ qemu-nbd -r -f vdi FILE ]"),
        (0, b"\x1f\x8b", "compressed by gzip, and can be read through [ nbdkit -r --filter=gzip file FILE ]"),
        (0, b"BZh", "compressed by bzip2, and is to be unpacked first"),
    ] {
        let file = fs::File::create(&path).unwrap();
        file.set_len(MIB).unwrap();
        file.write_all_at(magic, at).unwrap();
        let refused = cannot(&["ls", path.to_str().unwrap()]);
        assert!(refused.contains(name), "{name}: {refused}");
    }
    fs::write(&path, "").unwrap();
    assert!(cannot(&["ls", path.to_str().unwrap()]).contains("no file system that is known"));
}

#[test]
fn a_hostile_disk_writes_nowhere_but_to_the_destination() {
    needs!("mke2fs");
    let dir = directory();
    let files = dir.path().join("files");
    let outside = dir.path().join("outside");
    fs::create_dir_all(files.join("linkB")).unwrap();
    fs::create_dir_all(&outside).unwrap();
    for name in ["evil1", "evil2", "linkB/stolen", "good"] {
        fs::write(files.join(name), "x").unwrap();
    }
    symlink(&outside, files.join("linkA")).unwrap();
    let image = dir.path().join("disk");
    Run::new("mke2fs").words("-q -F -t ext2 -O ^dir_index -d").arg(&files).arg(&image).arg("1M").end().good();
    // A name that leads upwards, one that is absolute, and a link and a directory of one name.
    let mut bytes = fs::read(&image).unwrap();
    for (old, new) in [(b"evil1", b"../up"), (b"evil2", b"/tmp\0"), (b"linkB", b"linkA")] {
        let at = bytes.windows(5).position(|w| w == old).unwrap();
        bytes[at..at + 5].copy_from_slice(new);
    }
    fs::write(&image, &bytes).unwrap();
    let out = dir.path().join("deep/out");
    fs::create_dir_all(&out).unwrap();
    let copy =
        |options: &str| Run::diskpipe().arg("cp").words(options).arg(&image).arg("/").arg(&out).end().code(1);
    for options in ["-a", "-r", "-rL", "-a"] {
        let copied = copy(options);
        assert!(copied.stderr.contains("no name for a file"), "{}", copied.stderr);
        assert!(out.join("good").exists());
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(fs::read_dir(dir.path().join("deep")).unwrap().count(), 1);
    // Links that were there before are not written through either.
    fs::remove_file(out.join("good")).unwrap();
    fs::write(outside.join("mine"), "mine").unwrap();
    symlink(outside.join("mine"), out.join("good")).unwrap();
    let copied = copy("-r");
    assert!(copied.stderr.contains("symbolic link under this name"), "{}", copied.stderr);
    let one = Run::diskpipe().arg("cp").arg(&image).arg("good").arg(out.join("good")).end().code(1);
    assert!(one.stderr.contains("not followed"), "{}", one.stderr);
    assert_eq!(fs::read_to_string(outside.join("mine")).unwrap(), "mine");
    // And the names do no harm to a listing.
    let listed = Run::diskpipe().words("ls --json -R").arg(&image).end();
    serde_json::from_slice::<serde_json::Value>(&listed.stdout).unwrap();
}

#[test]
fn a_copy_goes_where_cp_would_put_it() {
    needs!("mke2fs");
    let dir = directory();
    let files = dir.path().join("files");
    fs::create_dir_all(files.join("a/b")).unwrap();
    fs::write(files.join("a/b/c"), "content").unwrap();
    symlink("b/c", files.join("a/link")).unwrap();
    let image = dir.path().join("disk");
    Run::new("mke2fs").words("-q -F -t ext4 -d").arg(&files).arg(&image).arg("1M").end().good();
    let cp = |words: &str| Run::diskpipe().arg("cp").words(words).in_directory(dir.path()).end();
    fs::create_dir(dir.path().join("into")).unwrap();
    for (words, made) in [
        ("disk a/b/c one", "one"),
        ("disk /a/b/c ./two", "two"),
        ("disk a/link followed", "followed"),
        ("disk a/b/c a/link into", "into/link"),
        ("-r disk /a into", "into/a/b/c"),
        ("-r disk /a new", "new/b/c"),
        ("-r disk a/b/.. into", "into/a/link"),
        ("-r disk / all", "all/a/b/c"),
        ("-rL disk /a through", "through/link"),
    ] {
        cp(words).good();
        assert_eq!(fs::read_to_string(dir.path().join(made)).unwrap(), "content", "{words}");
    }
    assert!(fs::symlink_metadata(dir.path().join("new/link")).unwrap().is_symlink());
    assert!(fs::symlink_metadata(dir.path().join("through/link")).unwrap().is_file());
    for (words, why) in [
        ("disk /a nothing", "is a directory, which is copied with -r"),
        ("disk /a/b/c /a/link one", "one: not a directory"),
        ("disk /a/b/c none/", "none/: not a directory"),
        ("disk /a/b/c none/x", "none: No such file"),
        ("disk /none one", "/none: no such file"),
        ("-r disk /a one", "something else under this name"),
    ] {
        let refused = cp(words).code(1);
        assert!(refused.stderr.contains(why), "{words}: {}", refused.stderr);
    }
}
