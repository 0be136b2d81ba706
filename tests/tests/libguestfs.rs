//! What libguestfs and its tools make of our mounts and of our server, in machines of their own.
//!
//! Those are emulated, and take a minute where little else runs; the packages are large. So they are not among those that
//! `cargo xtask packages` installs: who has them (libguestfs-tools, virt-v2v) sees these tests run.

use e2e::{Ended, Mounted, Run, directory, diskpipe, mounts, needs, path};
use std::{ffi::OsString, fs, os::unix::fs::symlink};

/// A program that starts a machine.
fn guest(program: &str) -> Run {
    Run::new(program)
        .env("LIBGUESTFS_BACKEND", "direct")
        .env("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg")
        .seconds(1500)
}

/// Whether the machine did not even start, for want of a kernel that can be read or a part of the packages.
fn starts_none(ended: &Ended) -> bool {
    let none = ["supermin exited", "supermin failed", "guestfs_launch failed"]
        .iter()
        .any(|word| ended.stderr.contains(word))
        && !ended.status.success();
    if none {
        e2e::skip("needs a libguestfs that can start its machine");
    }
    none
}

#[test]
fn a_guest_makes_a_file_system_in_a_mounted_image_that_only_qemu_understands() {
    mounts!("qemu-img", "qemu-nbd", "sgdisk", "guestfish", "virt-df");
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    let image = at("disk.qcow2");
    Run::new("qemu-img").words("create -q -f qcow2").arg(&image).arg("200M").end().good();
    let mounted = Mounted::ours("file", "", &["[", "qemu-nbd", "-f", "qcow2", image.to_str().unwrap(), "]"]);
    Run::new("sgdisk").args(["-n", "1"]).arg(mounted.file()).end().good();
    fs::create_dir(at("tree")).unwrap();
    fs::write(at("tree/hello"), "hello, world\n").unwrap();
    let commands = "run : mkfs ext2 /dev/sda1 : mount /dev/sda1 / : copy-in tree / : cat /tree/hello";
    let ended = guest("guestfish")
        .words("--format=raw -a")
        .arg(mounted.file())
        .words(commands)
        .in_directory(directory.path())
        .end();
    if starts_none(&ended) {
        return mounted.unmount();
    }
    assert_eq!(ended.text().trim_end(), "hello, world", "{}", ended.stderr);
    mounted.unmount();
    // In the image, too, and as a machine and as we see it.
    let cat = "diskpipe cat \"$uri\":1 /tree/hello";
    let server = Run::diskpipe()
        .words("serve -r nbd command=qemu-nbd arg=-r arg=-f arg=qcow2")
        .arg(format!("arg={}", image.display()));
    assert_eq!(server.args(["--run", cat]).text(), "hello, world\n");
    let used = guest("virt-df").arg("--csv").arg("-a").arg(&image).text();
    let line = used.lines().find(|line| line.contains("/dev/sda1")).unwrap_or_else(|| panic!("{used}"));
    let blocks: Vec<u64> = line.split(',').filter_map(|word| word.parse().ok()).collect();
    assert!(blocks.len() >= 2 && blocks[1] > 0, "{line}");
}

#[test]
fn guestfish_looks_into_a_disk_that_we_serve_and_writes_to_it() {
    needs!("guestfish", "mke2fs");
    let directory = directory();
    fs::create_dir(directory.path().join("tree")).unwrap();
    fs::write(directory.path().join("tree/hello"), "hello, world\n").unwrap();
    // As it is in the manuals of libguestfs; what is written goes into memory.
    let fish = r#"
        guestfish --ro --format=raw -a "nbd://?socket=$unixsocket" run : list-filesystems : part-list /dev/sda &&
        guestfish --format=raw -a "nbd://?socket=$unixsocket" -m /dev/sda1 write /new "from the guest" : cat /hello &&
        diskpipe cat "$uri":1 /new"#;
    let serve = guest(diskpipe().to_str().unwrap()).words("serve -U - --filter=cow linuxdisk");
    let ended = serve.arg(directory.path().join("tree")).args(["size=+4M", "--run", fish]).end();
    if starts_none(&ended) {
        return;
    }
    let said = ended.good().text();
    assert!(said.starts_with("/dev/sda1: ext2\n") && said.contains("part_start: 1048576\n"), "{said}");
    assert!(said.ends_with("hello, world\n\nfrom the guest"), "{said}");
}

#[test]
fn virt_v2v_finds_our_server_under_the_peers_name_and_reads_its_input_through_it() {
    needs!("virt-v2v", "sfdisk");
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    fs::File::create(at("in.raw")).unwrap().set_len(100 << 20).unwrap();
    Run::sh("echo 2048,,83 | sfdisk -q -X dos in.raw").in_directory(directory.path()).end().good();
    fs::create_dir(at("bin")).unwrap();
    for name in ["nbdkit", "nbdcopy", "nbdinfo"] {
        symlink(diskpipe(), at("bin").join(name)).unwrap();
    }
    let mut places = OsString::from(at("bin"));
    places.push(":");
    places.push(path());
    let ended = guest("virt-v2v")
        .words("-v -x -i disk in.raw -o null")
        .env("PATH", places)
        .in_directory(directory.path())
        .end();
    if starts_none(&ended) {
        return;
    }
    // There is no system on the disk to be converted. That this is known, after a look at it, took everything before that.
    assert!(ended.stderr.contains("could not detect the source guest"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("nbdkit: error"), "{}", ended.stderr);
}
