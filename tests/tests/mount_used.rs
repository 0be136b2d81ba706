//! What programs that know nothing of NBD make of a disk that is mounted as a file.

use e2e::{MEMORY, Mounted, RealDisk, Run, Server, directory, mounts};
use std::{fs, os::unix::fs::FileExt};

#[test]
fn a_qcow2_image_is_partitioned_as_a_file() {
    mounts!("qemu-img", "qemu-nbd", "sgdisk");
    let directory = directory();
    let image = directory.path().join("disk.qcow2");
    Run::new("qemu-img").words("create -q -f qcow2").arg(&image).arg("1G").end().good();
    let server = ["[", "qemu-nbd", "-f", "qcow2", image.to_str().unwrap(), "]"];
    let mounted = Mounted::ours("file", "", &server);
    Run::new("sgdisk").args(["-n", "1"]).arg(mounted.file()).end().good();
    let table = Run::new("sgdisk").arg("-p").arg(mounted.file()).text();
    assert!(table.contains(" 8300 "), "{table}");
    mounted.unmount();
    // The server is gone, and the table is in the image.
    let map = Run::new("qemu-img").words("map --output=json -f qcow2").arg(&image).text();
    assert!(map.contains(r#""data": true"#), "{map}");
    Run::new("qemu-img").words("check -q -f qcow2").arg(&image).end().good();
}

#[test]
fn programs_that_truncate_what_they_fill_fill_the_disk() {
    mounts!("cp", "dd", "sh");
    let directory = directory();
    let image = directory.path().join("image");
    fs::write(&image, [7; 100_000]).unwrap();
    let resizable = Server::ours("--resize memory 1M max-size=16M");
    for server in [MEMORY, &[resizable.uri().as_str()][..]] {
        for options in ["", "-o kernel_cache"] {
            let mounted = Mounted::ours("dir", &["-C 1", options].join(" "), server);
            let file = mounted.file();
            let size = fs::metadata(&file).unwrap().len();
            let fills = |program: Run| {
                mounted.open().write_all_at(&[1; 200_000], 0).unwrap();
                program.end().good();
                assert_eq!(fs::metadata(&file).unwrap().len(), size, "{server:?} {options}");
                let read = fs::read(&file).unwrap();
                assert_eq!(read.len() as u64, size);
                assert!(read[..100_000].iter().all(|byte| *byte == 7));
                assert!(read[100_000..200_000].iter().all(|byte| *byte == 1), "what follows stays");
            };
            fills(Run::new("cp").arg(&image).arg(&file));
            fills(Run::sh(r#"cat "$0" > "$1""#).arg(&image).arg(&file));
            let [from, to] = [&image, &file].map(|path| path.display());
            fills(Run::new("dd").args([format!("if={from}"), format!("of={to}"), "status=none".into()]));
            mounted.unmount();
        }
    }
}

#[test]
fn a_file_system_is_made_and_checked_in_it() {
    mounts!("mke2fs", "e2fsck");
    let server = Server::ours("memory 64M");
    let mounted = Mounted::ours("dir", "", &[server.uri().as_str()]);
    Run::new("mke2fs").words("-q -F -t ext4").arg(mounted.file()).end().good();
    Run::new("e2fsck").arg("-fn").arg(mounted.file()).end().good();
    mounted.unmount();
    // And it is all at the server.
    let mounted = Mounted::ours("file", "-r", &[server.uri().as_str()]);
    Run::new("e2fsck").arg("-fn").arg(mounted.file()).end().good();
    mounted.unmount();
}

#[test]
fn fio_verifies_what_it_wrote_in_it() {
    mounts!("fio");
    let mounted = Mounted::ours("dir", "", MEMORY);
    Run::new("fio")
        .words("--name=x --rw=randwrite --bs=4k --size=16M --verify=crc32c --verify_state_save=0 --numjobs=1 --ioengine=psync --filename")
        .arg(mounted.file())
        .seconds(120)
        .end()
        .good();
    mounted.unmount();
}

#[test]
fn a_loop_device_over_it_holds_a_file_system() {
    mounts!("losetup", "mke2fs", "mount", "umount");
    let disk = RealDisk::get();
    let copy = disk.beside("copy");
    fs::copy(&disk.raw, &copy).unwrap();
    let server = ["[", "diskpipe", "serve", "file", copy.to_str().unwrap(), "]"];
    let mounted = Mounted::ours("dir", "", &server);
    let tree = disk.beside("tree");
    fs::create_dir(&tree).unwrap();
    let ended = Run::new("mount")
        .args(["-o", &format!("loop,offset={}", e2e::PARTITION)])
        .arg(mounted.file())
        .arg(&tree)
        .end();
    if !ended.status.success() {
        e2e::skip("needs loop devices, and root");
        return;
    }
    let read = fs::read(tree.join("00/00/file 0.bin"));
    let written = fs::write(tree.join("new"), vec![9; 100_000]);
    Run::new("umount").arg(&tree).end().good();
    read.unwrap();
    written.unwrap();
    mounted.unmount();
    e2e::check_file_system(&copy);
}

#[test]
fn a_disk_of_seven_exbibytes_is_a_file_of_that_size() {
    mounts!();
    let mounted = Mounted::ours("file", "", &["[", "diskpipe", "serve", "memory", "7E", "]"]);
    let listed = Run::new("ls").arg("-lh").arg(mounted.file()).text();
    assert!(listed.contains(" 7.0E "), "{listed}");
    let file = mounted.open();
    file.write_all_at(b"x", 6 << 60).unwrap();
    drop(file);
    mounted.unmount();
}
