//! The disk of a program that goes on writing, as it was at one moment: QEMU keeps what is overwritten, and shows the
//! disk of before to whoever copies it.

use e2e::{Machine, Process, Qmp, Run, directory, needs};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

const SIZE: usize = 4 << 20;
/// The first so many bytes are overwritten after the moment.
const WRITTEN: usize = 1 << 20;

/// The files of one test: the disk, and what collects its overwritten blocks.
struct Files {
    active: PathBuf,
    target: PathBuf,
    copy: PathBuf,
    monitor: PathBuf,
    export: PathBuf,
}

impl Files {
    fn make(dir: &Path) -> Files {
        let files = Files {
            active: dir.join("active.raw"),
            target: dir.join("target.qcow2"),
            copy: dir.join("copy.raw"),
            monitor: dir.join("monitor"),
            export: dir.join("export"),
        };
        fs::write(&files.active, vec![0xaa; SIZE]).unwrap();
        let create = Run::new("qemu-img").words("create -q -f qcow2 -F raw -b").arg(&files.active);
        create.arg(&files.target).end().good();
        files
    }

    /// From now on the export `Target` is the disk as it is now: it holds the blocks that are overwritten in `Active`,
    /// and reads all others there.
    fn keep_this_moment(&self, qmp: &mut Qmp) {
        let file = json!({ "driver": "file", "filename": self.target });
        let target = json!({ "driver": "qcow2", "node-name": "Target", "file": file, "backing": "Active" });
        qmp.execute("blockdev-add", target);
        let backup = json!({ "job-id": "job0", "device": "Active", "target": "Target", "sync": "none" });
        qmp.execute("blockdev-backup", backup);
    }

    fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.export.display())
    }

    /// Copies the disk of that moment.
    fn copy(&self) -> Vec<u8> {
        Run::diskpipe().arg("copy").arg(self.uri("Target")).arg(&self.copy).end().good();
        fs::read(&self.copy).unwrap()
    }
}

/// The disk itself has what was written to it.
#[track_caller]
fn check_active(active: &Path) {
    let mut live = vec![0xaa; SIZE];
    live[..WRITTEN].fill(0xbb);
    assert!(fs::read(active).unwrap() == live);
}

#[test]
fn the_disk_of_a_machine_is_copied_as_it_was_before_a_write() {
    needs!("qemu-img");
    let dir = directory();
    let files = Files::make(dir.path());
    let monitor = format!("unix:{},server=on,wait=off", files.monitor.display());
    let active = format!("driver=file,node-name=Active,filename={}", files.active.display());
    let options = ["-S", "-qmp", &monitor, "-blockdev", &active];
    let device = ["-device", "virtio-blk-pci,drive=Active,id=virtio"];
    let Some(_machine) = Machine::start(&[&options[..], &device].concat()) else { return };
    let mut qmp = Qmp::connect(&files.monitor);
    files.keep_this_moment(&mut qmp);
    let address = json!({ "type": "unix", "data": { "path": files.export } });
    qmp.execute("nbd-server-start", json!({ "addr": address }));
    qmp.execute("nbd-server-add", json!({ "device": "Target" }));

    // As the guest does it: by the way of its device.
    let said = qmp.monitor("qemu-io -d /machine/peripheral/virtio/virtio-backend \"write -P 0xbb 0 1M\"");
    assert!(said.is_empty() || said.contains("wrote 1048576/1048576"), "{said}");
    assert!(files.copy() == vec![0xaa; SIZE], "it is not the disk of that moment");
    check_active(&files.active);
}

#[test]
fn the_disk_of_a_storage_daemon_is_copied_as_it_was_before_a_write() {
    needs!("qemu-img", "qemu-storage-daemon");
    let dir = directory();
    let files = Files::make(dir.path());
    let _daemon: Process = Run::new("qemu-storage-daemon")
        .arg("--blockdev")
        .arg(format!("driver=file,node-name=Active,filename={}", files.active.display()))
        .arg("--nbd-server")
        .arg(format!("addr.type=unix,addr.path={}", files.export.display()))
        .words("--export type=nbd,id=active,node-name=Active,name=Active,writable=on --chardev")
        .arg(format!("socket,id=monitor,path={},server=on,wait=off", files.monitor.display()))
        .words("--monitor chardev=monitor")
        .start();
    let mut qmp = Qmp::connect(&files.monitor);
    files.keep_this_moment(&mut qmp);
    let export = json!({ "type": "nbd", "id": "target", "node-name": "Target", "name": "Target" });
    qmp.execute("block-export-add", export);

    let written = vec![0xbb; WRITTEN];
    Run::diskpipe().args(["copy", "-"]).arg(files.uri("Active")).input(&written).end().good();
    assert!(files.copy() == vec![0xaa; SIZE], "it is not the disk of that moment");
    check_active(&files.active);
}
