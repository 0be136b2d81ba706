//! The kernel's own client, in a machine: what is served there is a block device, with file systems that it mounts.

use e2e::{Machine, Run, needs};
use std::fs;

/// What is written to the device: 192 KiB.
fn content() -> Vec<u8> {
    (0..192 << 10).map(|at: u32| (at * 7 + (at >> 9)) as u8 | 1).collect()
}

const SCRIPT: &str = r#"
chmod 755 /bin/nbd-client
serve() { diskpipe serve -P /tmp/pid "$@" && [ -s /tmp/pid ]; }
echo "bytes of a directory" > /files/hello

serve -U /tmp/s memory 32M
nbd-client -C 2 -unix /tmp/s /dev/nbd0
echo "step 1: $(blockdev --getsize64 /dev/nbd0)"
dd if=/content of=/dev/nbd0 bs=64k seek=100 conv=fsync
diskpipe copy "nbd+unix:///?socket=/tmp/s" - | dd bs=64k skip=100 count=3 iflag=fullblock | cmp - /content && echo "step 2: written"
mke2fs -F /dev/nbd0 > /tmp/log && mount -t ext2 /dev/nbd0 /root && cp /content /root/kept && umount /root
nbd-client -d /dev/nbd0
nbd-client -c /dev/nbd0 || echo "step 3: disconnected"
diskpipe copy "nbd+unix:///?socket=/tmp/s" /tmp/copy
mount -o loop,ro -t ext2 /tmp/copy /root && cmp /root/kept /content && umount /root && echo "step 4: kept"
rm /tmp/copy; kill $(cat /tmp/pid)

serve -r iso /files
nbd-client -b 2048 127.0.0.1 10809 /dev/nbd1
mount -o ro -t iso9660 /dev/nbd1 /root
echo "step 5: $(blockdev --getbsz /dev/nbd1) $(blockdev --getro /dev/nbd1) $(cat /root/hello)"
umount /root; nbd-client -d /dev/nbd1
diskpipe copy nbd://127.0.0.1 /tmp/cd && mount -o loop,ro -t iso9660 /tmp/cd /root && echo "step 6: $(cat /root/hello)"
umount /root; kill $(cat /tmp/pid)

serve -r -p 10810 floppy /files
nbd-client 127.0.0.1 10810 /dev/nbd2 -N ""
blockdev --rereadpt /dev/nbd2; while ! [ -e /dev/nbd2p1 ]; do sleep 0.1; done
mount -o ro -t vfat /dev/nbd2p1 /root && echo "step 7: $(cat /root/hello)"
umount /root; nbd-client -d /dev/nbd2
diskpipe copy nbd://127.0.0.1:10810 /tmp/disk
mount -o loop,ro,offset=$((2048 * 512)) -t vfat /tmp/disk /root && echo "step 8: $(cat /root/hello)"
umount /root; kill $(cat /tmp/pid)

serve -r -p 10811 file /linux
nbd-client 127.0.0.1 10811 /dev/nbd3
blockdev --rereadpt /dev/nbd3; while ! [ -e /dev/nbd3p1 ]; do sleep 0.1; done
mount -o ro -t ext2 /dev/nbd3p1 /root && echo "step 9: $(cat /root/hello)"
umount /root; nbd-client -d /dev/nbd3; kill $(cat /tmp/pid)
echo "the last step"
"#;

#[test]
fn what_we_serve_is_a_block_device_of_the_kernels_that_it_mounts() {
    needs!("busybox", "ldd", "nbd-client", "mke2fs");
    let directory = e2e::directory();
    let (tree, disk) = (directory.path().join("tree"), directory.path().join("disk"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("hello"), "a tree of files\n").unwrap();
    let copy = format!("diskpipe copy \"$uri\" '{}'", disk.display());
    Run::diskpipe().words("serve linuxdisk").arg(&tree).args(["--run", &copy]).end().good();

    let client = Run::sh("command -v nbd-client").text();
    let client = client.trim_end();
    let libraries = Run::new("ldd").arg(client).text();
    let libraries: Vec<&str> =
        libraries.split_whitespace().filter(|word| word.starts_with("/lib/")).collect();
    let mut files: Vec<(String, Vec<u8>)> = vec![
        ("bin/nbd-client".into(), fs::read(client).unwrap()),
        ("content".into(), content()),
        ("linux".into(), fs::read(&disk).unwrap()),
    ];
    files.extend(libraries.iter().map(|path| (path[1..].to_owned(), fs::read(path).unwrap())));
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();

    let drivers = ["nbd", "loop", "isofs", "vfat", "nls_cp437", "nls_ascii"];
    let script = format!("mkdir /files\n{SCRIPT}");
    let Some(mut machine) = Machine::with_program(&drivers, &files, &script, &[] as &[&str]) else { return };
    machine.expect("step 1: 33554432");
    machine.expect("step 2: written");
    machine.expect("step 3: disconnected");
    machine.expect("step 4: kept");
    machine.expect("step 5: 2048 1 bytes of a directory");
    machine.expect("step 6: bytes of a directory");
    machine.expect("step 7: bytes of a directory");
    machine.expect("step 8: bytes of a directory");
    machine.expect("step 9: a tree of files");
    machine.expect("the last step");
    machine.expect_end();
}
