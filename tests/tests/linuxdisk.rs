//! A directory as a Linux disk: what e2fsprogs finds on it, and a machine that boots from it.

use e2e::{Machine, PARTITION, Run, Server, directory, needs};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// Files of all kinds, as far as this user can make them.
fn tree(at: &Path) {
    for number in 0..200_usize {
        let directory = at.join(format!("{}/{}", number % 7, number % 3));
        fs::create_dir_all(&directory).unwrap();
        let content: Vec<u8> = (0..number * number % 30_000).map(|at| (at * 31 + number) as u8).collect();
        fs::write(directory.join(format!("täglich {number}")), content).unwrap();
    }
    fs::write(at.join("first name"), "one file").unwrap();
    fs::hard_link(at.join("first name"), at.join("0/second name")).unwrap();
    fs::set_permissions(at.join("first name"), fs::Permissions::from_mode(0o751)).unwrap();
    symlink("../first name", at.join("0/link")).unwrap();
    symlink("x".repeat(200), at.join("long link")).unwrap();
    symlink(".", at.join("loop")).unwrap();
}

fn image(dir: &Path, arguments: &str, to: &Path) {
    let copy = format!("nbdcopy \"$uri\" '{}'", to.display());
    let serve = Run::diskpipe().words("serve linuxdisk").arg(dir).words(arguments).args(["--run", &copy]);
    serve.end().good();
}

#[test]
fn what_is_in_the_directory_is_in_a_sound_file_system() {
    needs!("mke2fs", "e2fsck", "debugfs", "sgdisk", "sfdisk", "nbdcopy", "diff");
    let dir = directory();
    let (files, disk) = (dir.path().join("files"), dir.path().join("disk"));
    fs::create_dir(&files).unwrap();
    tree(&files);
    for kind in ["ext2", "ext3", "ext4"] {
        image(&files, &format!("type={kind} label=E2E size=+3M"), &disk);
        let verified = Run::new("sgdisk").arg("-v").arg(&disk).text();
        assert!(verified.contains("No problems found"), "{verified}");
        let table = Run::new("sfdisk").arg("--json").arg(&disk).text();
        assert!(table.contains("0FC63DAF-8483-4772-8E79-3D69D8477DE4"), "{table}");
        let partition = format!("{}?offset={PARTITION}", disk.display());
        let checked = Run::new("e2fsck").args(["-fn", &partition]).end().code(0).text();
        assert!(checked.contains("E2E: "), "{checked}");
        let debugfs = |command: &str| Run::new("debugfs").args(["-R", command, &partition]).text();
        let features = debugfs("features");
        let has = |feature| features.split_whitespace().any(|word| word == feature);
        assert_eq!((has("has_journal"), has("extent")), (kind != "ext2", kind == "ext4"), "{features}");
        let back = dir.path().join(kind);
        fs::create_dir(&back).unwrap();
        debugfs(&format!("rdump / \"{}\"", back.display()));
        fs::remove_dir(back.join("lost+found")).unwrap();
        Run::new("diff").words("-r --no-dereference").args([&files, &back]).end().good();
        let stat = debugfs("stat \"/first name\"");
        assert!(stat.contains("Mode:  0751") && stat.contains("Links: 2"), "{stat}");
    }
}

#[test]
fn a_file_system_that_is_too_small_ends_the_server_with_a_sentence() {
    needs!("mke2fs");
    let dir = directory();
    fs::write(dir.path().join("file"), vec![7; 2 << 20]).unwrap();
    let serve = |arguments: &str| {
        Run::diskpipe().words("serve linuxdisk").arg(dir.path()).words(arguments).args(["--run", "true"])
    };
    let refused = serve("size=1M").end().code(1);
    assert!(refused.stderr.contains("size=1M: mke2fs: "), "{}", refused.stderr);
    let refused = serve("label=seventeen-letters").end().code(1);
    assert!(refused.stderr.contains("longer than 16 bytes"), "{}", refused.stderr);
}

/// A root directory of busybox alone, whose machine runs this.
fn tiny_root(root: &Path, runs: &str) {
    for name in ["bin", "dev", "proc", "sbin", "sys", "usr/bin", "usr/sbin"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    fs::hard_link(root.join("bin/busybox"), root.join("bin/sh")).unwrap();
    let init = format!(
        "#!/bin/sh\n/bin/busybox --install\nmount -t proc none /proc\nexec {runs} </dev/ttyS0 >/dev/ttyS0 2>&1\n"
    );
    fs::write(root.join("sbin/init"), init).unwrap();
    fs::set_permissions(root.join("sbin/init"), fs::Permissions::from_mode(0o755)).unwrap();
}

/// The tiny machine: a root directory of busybox alone, on a disk that nobody ever wrote.
#[test]
fn a_machine_boots_from_a_directory_to_a_shell() {
    needs!("mke2fs", "busybox");
    let dir = directory();
    let root = dir.path().join("root");
    tiny_root(&root, "sh -i");
    let server = Server::ours(&format!("linuxdisk {} size=+2M", root.display()));
    let drive = format!("file=nbd:unix:{},format=raw,snapshot=on", server.socket().display());
    let Some(mut machine) = Machine::with_kernel("/dev/sda1", &["-drive", &drive]) else { return };
    machine.expect("mounting ext2 file system");
    machine.expect("# ");
    machine.type_line("ls -1 /sbin");
    // Some of the applets that busybox has there.
    for applet in ["getty", "ifconfig", "losetup", "swapon"] {
        machine.expect(applet);
    }
    machine.type_line("cat /proc/version; poweroff -f");
    machine.expect("Linux version");
    machine.expect_end();
}

/// An image is unpacked into memory, and a machine lives there: what it writes is gone with the server.
#[test]
fn a_machine_boots_from_a_disk_in_memory_that_an_image_was_converted_to() {
    needs!("mke2fs", "busybox", "qemu-img", "qemu-nbd");
    let dir = directory();
    let (root, cloud) = (dir.path().join("root"), dir.path().join("cloud.qcow2"));
    let runs = "sh -c 'mount -o remount,rw / && date > /written && sync && mount -o remount,ro / && \
                echo written; poweroff -f'";
    tiny_root(&root, runs);
    let make = format!(
        "qemu-img create -q -f qcow2 '{0}' 32M && diskpipe copy \"$uri\" [ qemu-nbd -f qcow2 '{0}' ]",
        cloud.display()
    );
    Run::diskpipe().words("serve linuxdisk size=16M").arg(&root).args(["--run", &make]).end().good();
    let before = fs::read(&cloud).unwrap();

    let server = Server::ours("memory 10G");
    let convert = Run::new("qemu-img").words("convert -n -f qcow2 -O raw").arg(&cloud);
    convert.arg(server.uri()).end().good();
    let drive = format!("file={},format=raw", server.uri());
    let Some(mut machine) = Machine::with_kernel("/dev/sda1", &["-drive", &drive]) else { return };
    machine.expect("written");
    machine.expect_end();
    let written =
        Run::diskpipe().words("cat").args([format!("{}:1", server.uri()), "/written".into()]).text();
    assert!(written.contains("UTC"), "{written}");
    assert!(fs::read(&cloud).unwrap() == before, "the image is as it was");
}
