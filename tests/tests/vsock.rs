//! AF_VSOCK, inside of a machine of its own: hosts seldom have the driver with which they can talk to themselves.

use e2e::{Machine, Run, directory, needs};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What the machine does: each step says what it found.
const INIT: &str = r#"#!/bin/sh
exec </dev/ttyS0 >/dev/ttyS0 2>&1
/bin/busybox --install
mount -t proc none /proc
for module in vsock vmw_vsock_virtio_transport_common vsock_loopback; do
    insmod /modules/$(uname -r)/$module.ko || echo "no $module here"
done
head -c 3000000 /dev/urandom > /tmp/there
diskpipe serve --vsock -P /tmp/pid memory 3000000
echo "step 1: $(diskpipe info --size nbd+vsock://1/)"
diskpipe copy /tmp/there nbd+vsock://1:10809/ && diskpipe copy nbd+vsock://1/ /tmp/back
cmp /tmp/there /tmp/back && echo "step 2: the same"
kill $(cat /tmp/pid)
diskpipe serve --vsock -p 4000000000 memory 2M --run 'echo "step 3: $port $(diskpipe info --size "$uri")"'
diskpipe keygen psk --user alice /tmp
diskpipe serve --vsock --tls=require --tls-psk=/tmp/keys.psk memory 1M \
    --run 'echo "step 4: $uri"; diskpipe info "nbds+vsock://alice@1/?tls-psk-file=/tmp/keys.psk"'
insmod /modules/$(uname -r)/fuse.ko
[ -e /dev/fuse ] || mknod /dev/fuse c 10 229
diskpipe serve --vsock -p 5 -P /tmp/pid5 memory 2M
mkdir /tmp/mounted
diskpipe mount -P /tmp/mount.pid /tmp/mounted --vsock 1 5 &
for tenth in $(seq 600); do [ -e /tmp/mount.pid ] && break; sleep 0.1; done
dd if=/tmp/there of=/tmp/mounted/nbd bs=1M count=2 conv=notrunc,fsync
umount /tmp/mounted && wait $! && echo "step 5: the mount ended well"
diskpipe copy nbd+vsock://1:5/ - | cmp -n 2097152 - /tmp/there && echo "step 6: the same"
kill $(cat /tmp/pid5)
echo "the last step"
poweroff -f
"#;

/// How many bytes the files in a directory have.
fn size_of(directory: &Path) -> u64 {
    let sizes = fs::read_dir(directory).unwrap().flatten().map(|entry| match entry.metadata().unwrap() {
        is if is.is_dir() => size_of(&entry.path()),
        is => is.len(),
    });
    sizes.sum()
}

/// Copies a program with the libraries that it needs.
fn install(program: &Path, root: &Path) {
    fs::copy(program, root.join("bin").join(program.file_name().unwrap())).unwrap();
    let libraries = Run::new("ldd").arg(program).text();
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let place = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(library, place).unwrap();
    }
}

/// The drivers of every kernel that is installed: which of them runs is not known here.
fn install_drivers(root: &Path) {
    for kernel in fs::read_dir("/lib/modules").into_iter().flatten().flatten() {
        let place = root.join("modules").join(kernel.file_name());
        fs::create_dir_all(&place).unwrap();
        for directory in ["kernel/net/vmw_vsock", "kernel/fs/fuse"] {
            let drivers = fs::read_dir(kernel.path().join(directory));
            for driver in drivers.into_iter().flatten().flatten() {
                fs::copy(driver.path(), place.join(driver.file_name())).unwrap();
            }
        }
    }
}

#[test]
fn a_machine_serves_itself_over_vsock_and_mounts_what_it_serves() {
    needs!("mke2fs", "busybox", "ldd");
    let dir = directory();
    let (root, disk) = (dir.path().join("root"), dir.path().join("disk"));
    for name in ["bin", "dev", "proc", "sbin", "sys", "tmp", "usr/bin", "usr/sbin"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    fs::hard_link(root.join("bin/busybox"), root.join("bin/sh")).unwrap();
    install(e2e::diskpipe(), &root);
    install_drivers(&root);
    fs::write(root.join("sbin/init"), INIT).unwrap();
    fs::set_permissions(root.join("sbin/init"), fs::Permissions::from_mode(0o755)).unwrap();
    // How large our program is depends on how it was built; what the machine writes comes on top.
    let size = format!("{}M", (size_of(&root) >> 20) * 9 / 8 + 32);
    Run::new("mke2fs").words("-q -F -t ext2 -d").arg(&root).arg(&disk).arg(size).end().good();

    let drive = format!("file={},format=raw", disk.display());
    let Some(mut machine) = Machine::with_kernel("/dev/sda", &["-drive", &drive]) else { return };
    machine.expect("step 1: 3000000");
    machine.expect("step 2: the same");
    machine.expect("step 3: 4000000000 2097152");
    machine.expect("step 4: nbds+vsock://");
    machine.expect("with TLS");
    machine.expect("step 5: the mount ended well");
    machine.expect("step 6: the same");
    machine.expect("the last step");
    machine.expect_end();
}
