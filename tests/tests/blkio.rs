//! Disks behind libblkio's drivers: files through io_uring, qcow2 images behind a vhost-user back end, and in a virtual
//! machine NVMe and what VFIO drives.

use e2e::{Machine, Process, RealDisk, Run, Server, directory, needs, same_content};
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// QEMU's storage daemon with a qcow2 image behind vhost-user.
struct BackEnd {
    process: Process,
    socket: PathBuf,
}

impl BackEnd {
    fn over(image: &Path, place: &Path, writable: bool) -> BackEnd {
        let (socket, pid) = (place.join("vhost.sock"), place.join("pid"));
        let _ = fs::remove_file(&pid);
        let writable = if writable { "on" } else { "off" };
        let process = Run::new("qemu-storage-daemon")
            .arg("--blockdev")
            .arg(format!("driver=file,node-name=file,filename={},discard=unmap", image.display()))
            .args(["--blockdev", "driver=qcow2,node-name=disk,file=file,discard=unmap", "--export"])
            .arg(format!(
                "type=vhost-user-blk,id=export,addr.type=unix,addr.path={},node-name=disk,writable={writable}",
                socket.display()
            ))
            .arg("--pidfile")
            .arg(&pid)
            .start();
        let start = Instant::now();
        // It writes the file once clients can connect.
        while fs::read_to_string(&pid).unwrap_or_default().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(30), "the storage daemon does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        BackEnd { process, socket }
    }

    /// Our server in front of it.
    fn served(&self) -> Server {
        Server::ours(&format!("blkio virtio-blk-vhost-user path={}", self.socket.display()))
    }

    /// Ends it in order, so that the image is whole.
    fn end(mut self) {
        self.process.signal(Signal::TERM);
        assert!(self.process.wait(Duration::from_secs(30)).is_some(), "the storage daemon does not end");
    }
}

fn image(dir: &Path, size: &str) -> PathBuf {
    let image = dir.join("disk.qcow2");
    Run::new("qemu-img").words("create -q -f qcow2").arg(&image).arg(size).end().good();
    image
}

/// Where io_uring is forbidden, as in many containers, only its refusal can be seen.
fn has_uring() -> bool {
    let dir = directory();
    let file = dir.path().join("file");
    fs::write(&file, [0; 512]).unwrap();
    let serve = format!("blkio io_uring path={}", file.display());
    let works = Run::serve(&serve, r#"diskpipe info --size "$uri""#).end().status.success();
    if !works {
        e2e::skip("needs io_uring");
    }
    works
}

#[test]
fn a_file_is_copied_through_io_uring() {
    needs!("nbdcopy", "cmp", "strace");
    if !has_uring() {
        return;
    }
    let dir = directory();
    let (file, trace) = (dir.path().join("file"), dir.path().join("trace"));
    fs::write(&file, (0..3 << 20).map(|at| (at * 7 + (at >> 10)) as u8).collect::<Vec<u8>>()).unwrap();
    for more in ["", "direct=true num-queues=2 num-entries=64"] {
        let serve =
            Run::new("strace").words("-f -e trace=io_uring_enter -o").arg(&trace).arg(e2e::diskpipe());
        let serve = serve.words("serve blkio io_uring").arg(format!("path={}", file.display())).words(more);
        let command = format!("nbdcopy \"$uri\" - | cmp - '{}'", file.display());
        serve.args(["--run", &command]).end().good();
        assert!(fs::read_to_string(&trace).unwrap().contains("io_uring_enter("));
    }
}

#[test]
fn a_qcow2_image_is_read_behind_vhost_user() {
    needs!("qemu-storage-daemon", "qemu-img", "qemu-io", "nbdsh");
    let dir = directory();
    let image = image(dir.path(), "16M");
    Run::new("qemu-io").args(["-f", "qcow2", "-c", "write -P 0x55 0 512"]).arg(&image).end().good();
    let back = BackEnd::over(&image, dir.path(), false);
    let serve = format!("blkio virtio-blk-vhost-user path={}", back.socket.display());
    let print = r#"nbdsh -u "$uri" -c 'print("%r" % h.pread(512, 0)); assert h.is_read_only()'"#;
    assert_eq!(Run::serve(&serve, print).text(), format!("bytearray(b'{}')\n", "U".repeat(512)));
}

#[test]
fn a_qcow2_image_is_written_behind_vhost_user() {
    needs!("qemu-storage-daemon", "qemu-img", "qemu-io", "nbdcopy", "sfdisk", "mke2fs");
    let disk = RealDisk::get();
    let image = image(disk.directory(), &disk.size.to_string());
    let back = BackEnd::over(&image, disk.directory(), true);
    let served = back.served();
    // More requests than fit into the ring or the shared memory.
    let copy = Run::new("nbdcopy").words("--flush --connections=4 --requests=128");
    copy.arg(&disk.raw).arg(served.uri()).end().good();
    let there = disk.beside("there.raw");
    let copy = Run::new("nbdcopy").words("--connections=4 --requests=128 --request-size=1048576");
    copy.arg(served.uri()).arg(&there).end().good();
    same_content(("raw", &disk.raw), ("raw", &there));
    let requests = "write -z 1M 1M;write -zu 3M 1M;discard 5M 2M;write -f -P 7 10M 1536;read -P 0 1M 1M;read -P 0 3M 1M;\
                    read -P 7 10M 1536;flush";
    let requests = requests.split(';').flat_map(|request| ["-c", request]);
    let said = Run::new("qemu-io").words("-f raw").args(requests).arg(served.uri()).text();
    assert!(!said.contains("failed") && !said.contains("error"), "{said}");
    drop(served);
    back.end();
    Run::new("qemu-img").words("check -q -f qcow2").arg(&image).end().good();
    let requests =
        ["read -P 0 1M 1M", "read -P 0 3M 1M", "read -P 7 10M 1536"].map(|request| ["-c", request]);
    let said = Run::new("qemu-io").words("-r -f qcow2").args(requests.concat()).arg(&image).text();
    assert!(!said.contains("failed"), "{said}");
    let map = Run::new("qemu-img").words("map --output=json -f qcow2").arg(&image).text();
    let map: serde_json::Value = serde_json::from_str(&map).unwrap();
    let covers = |entry: &&serde_json::Value| {
        let start = entry["start"].as_u64().unwrap();
        (start..start + entry["length"].as_u64().unwrap()).contains(&(5 << 20))
    };
    let discarded = map.as_array().unwrap().iter().find(covers).unwrap();
    assert_eq!(discarded["data"], false, "what was discarded is not allocated any more: {discarded}");
}

#[test]
fn requests_fail_when_the_back_end_goes_and_work_when_it_is_back() {
    needs!("qemu-storage-daemon", "qemu-img", "nbdsh");
    let dir = directory();
    let image = image(dir.path(), "16M");
    let back = BackEnd::over(&image, dir.path(), true);
    let served = back.served();
    let pid = back.process.id();
    let script = format!(
        "import os\n\
         h.pwrite(b'a' * 512, 0)\n\
         h.flush()\n\
         os.kill({pid}, 9)\n\
         try:\n    h.pread(512, 0)\nexcept nbd.Error as e:\n    assert e.errno == 'EIO', e\n\
         else:\n    raise SystemExit('it still answers')\n"
    );
    Run::new("nbdsh").arg("-u").arg(served.uri()).args(["-c", &script]).end().good();
    let said = served.log();
    drop(back);
    let again = BackEnd::over(&image, dir.path(), true);
    let script = "assert h.pread(512, 0) == b'a' * 512";
    Run::new("nbdsh").arg("-u").arg(served.uri()).args(["-c", script]).end().good();
    drop(served);
    again.end();
    Run::new("qemu-img").words("check -q -f qcow2").arg(&image).end().good();
    assert!(said.contains("the vhost-user back end has gone away"), "{said}");
}

#[test]
fn a_device_that_is_not_there_is_named_at_the_start() {
    for (driver, path) in [
        ("nvme-io_uring", "/dev/no-such-nvme"),
        ("virtio-blk-vfio-pci", "/sys/bus/pci/devices/no-such-device"),
        ("virtio-blk-vhost-vdpa", "/dev/no-such-vdpa"),
        ("virtio-blk-vhost-user", "/no/such/socket"),
    ] {
        let refused = Run::serve(&format!("blkio {driver} path={path}"), "true").end().code(1);
        let expected = format!("blkio: {driver} path={path}: No such file or directory");
        assert!(refused.stderr.contains(&expected), "{}", refused.stderr);
    }
    e2e::skip("needs a vDPA device beyond its errors");
}

/// Copies a file to the device and back.
const THERE_AND_BACK: &str = r#"
there_and_back() {
    diskpipe serve -U - blkio "$@" num-queues=1 --run '
        diskpipe info --size "$uri" && diskpipe copy --flush /content "$uri" && diskpipe copy "$uri" /tmp/back' &&
        head -c $(stat -c %s /content) /tmp/back | cmp - /content && echo "$1 has it"
}
"#;

#[test]
fn nvme_and_vfio_devices_work_in_a_virtual_machine() {
    needs!("busybox");
    let dir = directory();
    const DISK: usize = 16 << 20;
    let content: Vec<u8> =
        (0..3 << 20).map(|at| if (at >> 17) % 3 == 1 { 0 } else { (at * 11 + (at >> 8)) as u8 }).collect();
    let disks = ["nvme", "vfio"].map(|name| dir.path().join(name));
    // What was there before must go where the content is, and stay behind it.
    disks.iter().for_each(|disk| fs::write(disk, vec![0x77; DISK]).unwrap());
    let drive = |disk: &Path, id: &str| format!("file={},format=raw,if=none,id={id}", disk.display());
    let (nvme, vfio) = (drive(&disks[0], "nvme"), drive(&disks[1], "vfio"));
    let mut options = vec!["-machine", "q35,kernel-irqchip=split", "-cpu", "max,la57=off"];
    options.extend(["-device", "intel-iommu,intremap=on,caching-mode=on"]);
    options.extend(["-drive", &nvme, "-device", "nvme,drive=nvme,serial=1"]);
    options.extend(["-drive", &vfio, "-device"]);
    options.push("virtio-blk-pci,drive=vfio,addr=5,disable-legacy=on,iommu_platform=on");
    let script = format!(
        "{THERE_AND_BACK}\
         there_and_back nvme-io_uring path=/dev/ng0n1 num-entries=8\n\
         device=/sys/bus/pci/devices/0000:00:05.0\n\
         echo vfio-pci > $device/driver_override\n\
         echo 0000:00:05.0 > /sys/bus/pci/drivers_probe\n\
         there_and_back virtio-blk-vfio-pci path=$device queue-size=16\n"
    );
    let drivers = ["vfio-pci", "vfio_iommu_type1"];
    let Some(mut machine) = Machine::with_program(&drivers, &[("content", &content)], &script, &options)
    else {
        return;
    };
    machine.expect("16777216");
    machine.expect("nvme-io_uring has it");
    machine.expect("16777216");
    machine.expect("virtio-blk-vfio-pci has it");
    machine.expect_end();
    for disk in &disks {
        let there = fs::read(disk).unwrap();
        assert!(there[..content.len()] == content, "{}", disk.display());
        assert!(there.len() == DISK && there[content.len()..].iter().all(|byte| *byte == 0x77));
    }
}
