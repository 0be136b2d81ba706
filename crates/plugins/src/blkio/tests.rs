use super::*;

fn given(args: &[(&str, &str)]) -> Result<Settings> {
    Settings::of(Blkio::parse(&mut params::Args::new(args.iter().copied())).map_err(Error::from)?)
}

#[test]
fn parameters_that_a_driver_does_not_have_are_refused_by_name() {
    let refused = |args: &[(&str, &str)]| given(args).err().unwrap().to_string();
    let path = ("path", "/x");
    for (driver, property, value) in [
        ("io_uring", "queue-size", "128"),
        ("nvme-io_uring", "direct", "true"),
        ("virtio-blk-vfio-pci", "fd", "7"),
        ("virtio-blk-vhost-user", "num-entries", "16"),
        ("virtio-blk-vhost-vdpa", "direct", "false"),
    ] {
        let expected = format!("{property}={value}: the driver {driver} has no such property");
        assert_eq!(refused(&[("driver", driver), path, (property, value)]), expected);
    }
    let uring = ("driver", "io_uring");
    assert!(refused(&[uring]).contains("you must supply the path="));
    assert_eq!(refused(&[uring, path, ("fd", "0")]), "path= and fd= cannot be used at the same time");
    assert_eq!(refused(&[uring, path, ("num-queues", "0")]), "num-queues=0: at least one queue is needed");
    let user = ("driver", "virtio-blk-vhost-user");
    assert!(refused(&[user, path, ("queue-size", "2")]).contains("power of two from 4"));
    assert!(refused(&[("driver", "virtio"), path]).contains("virtio-blk-vhost-vdpa"));
}

#[test]
fn properties_are_set_in_the_state_that_libblkio_wants() {
    let settings = given(&[
        ("driver", "io_uring"),
        ("path", "/x"),
        ("num-entries", "8"),
        ("direct", "on"),
        ("readonly", "1"),
        ("num-queues", "2"),
    ]);
    let settings = settings.unwrap();
    assert_eq!(settings.before, [("direct", "true".to_owned())]);
    assert_eq!(settings.after, [("num-queues", "2".to_owned()), ("num-entries", "8".to_owned())]);
    assert_eq!(settings.read_only, Some(true));
}

#[cfg(not(feature = "blkio"))]
#[test]
fn without_the_drivers_their_feature_is_named() {
    let args = params::Args::new([("driver", "io_uring"), ("path", "/etc/passwd")]);
    let refused = Blkio::parse(&mut args.clone()).unwrap().start().err().unwrap();
    assert_eq!(refused.to_string(), "io_uring: this program was built without the cargo feature blkio");
}

#[cfg(feature = "blkio")]
mod with_drivers {
    use super::*;
    use crate::common::model;
    use ::disk::{Client, Data, Disk, Errno, Range, WriteFlags};
    use std::{fs, path::Path, sync::Arc};

    fn open(path: &Path, more: &[(&str, &str)]) -> Result<Arc<dyn Disk>> {
        let file = [("driver", "io_uring"), ("path", path.to_str().unwrap())];
        model::open::<Blkio>(&[&file, more].concat())
    }

    /// A file of this size in a directory of its own.
    fn file(size: u64) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        fs::File::create(&path).unwrap().set_len(size).unwrap();
        (dir, path)
    }

    /// Where io_uring is forbidden, as in many containers, nothing can be tested.
    fn is_forbidden(path: &Path) -> bool {
        let forbidden = open(path, &[]).is_err_and(|e| matches!(e.errno(), Errno::PERM | Errno::NOTSUP));
        if forbidden {
            eprintln!("SKIPPED: needs io_uring");
        }
        forbidden
    }

    #[test]
    fn random_requests_leave_what_a_vector_would_hold() {
        let (_dir, path) = file(9_999_999);
        if is_forbidden(&path) {
            return;
        }
        for (seed, more) in [&[][..], &[("num-entries", "2"), ("num-queues", "3")]].into_iter().enumerate() {
            fs::write(&path, vec![0; 9_999_999]).unwrap();
            let disk = ::disk::complete::complete(open(&path, more).unwrap());
            model::compare(&*disk, seed as u64, 500);
            disk.flush().wait().unwrap();
            assert!(fs::read(&path).unwrap() == model::bytes(&*disk, 0, 9_999_999));
        }
    }

    #[test]
    fn past_the_page_cache_there_are_only_whole_blocks() {
        let (_dir, path) = file(1 << 20);
        if is_forbidden(&path) {
            return;
        }
        // Not every file system has it.
        let Ok(disk) = open(&path, &[("direct", "true")]) else { return };
        let (_other, odd) = file(100_001);
        let refused = open(&odd, &[("direct", "true")]).err().unwrap().to_string();
        assert!(refused.contains("its size of 100001 is not a multiple of"), "{refused}");
        let blocks = disk.facts().blocks;
        assert!(blocks.minimum >= 512);
        let (at, len) = (u64::from(blocks.minimum), u64::from(blocks.minimum) * 2);
        // Memory at an odd address.
        let odd = Data::fill(len as usize + 1, |b| b.fill(9)).slice(1, len);
        disk.write(at, odd, WriteFlags { fua: true }).wait().unwrap();
        assert_eq!(model::bytes(&*disk, at, len), vec![9; len as usize]);
        assert_eq!(fs::read(&path).unwrap()[at as usize..][..len as usize], vec![9; len as usize]);
    }

    #[test]
    fn requests_that_nobody_waits_for_any_more_do_no_harm() {
        let (_dir, path) = file(64 << 20);
        if is_forbidden(&path) {
            return;
        }
        let disk = open(&path, &[("num-entries", "4")]).unwrap();
        reactor::block_on(async {
            let mut reads = reactor::InFlight::new();
            (0..64).for_each(|i| reads.push(disk.read(Range::new(i << 20, 1 << 20))));
            let first = reads.next().await;
            assert_eq!(first.unwrap().unwrap().len(), 1 << 20);
        });
        assert!(model::bytes(&*disk, 0, 1 << 20).iter().all(|b| *b == 0));
        reactor::block_on(async {
            let mut reads = reactor::InFlight::new();
            (0..64).for_each(|i| reads.push(disk.read(Range::new(i << 20, 1 << 20))));
            reads.next().await.unwrap().unwrap();
        });
        drop(disk);
    }

    #[test]
    fn what_cannot_be_opened_is_named() {
        let refused = |driver: &str, path: &str| {
            let mut args = params::Args::new([("driver", driver), ("path", path)]);
            let backend = Blkio::parse(&mut args).unwrap().start().unwrap();
            backend.get_ready().and_then(|()| backend.after_fork()).err().map(|e| e.to_string())
        };
        for driver in Driver::WORDS {
            let said = refused(driver, "/no/where").unwrap();
            assert_eq!(said, format!("blkio: {driver} path=/no/where: No such file or directory"));
        }
        assert!(refused("nvme-io_uring", "/dev/null").unwrap().contains("/dev/null: "));
        assert!(refused("virtio-blk-vhost-user", "/dev/null").is_some());
        assert!(refused("virtio-blk-vhost-vdpa", "/dev/null").is_some());
        assert!(refused("virtio-blk-vfio-pci", "/proc").is_some());
        assert!(
            refused("io_uring", "/dev/null").unwrap().contains("neither a regular file nor a block device")
        );
        assert!(
            refused("virtio-blk-vhost-user", "/proc").unwrap().ends_with("path=/proc: not a Unix socket")
        );
    }

    #[test]
    fn the_device_is_opened_for_the_first_client_and_closed_with_the_last() {
        let (_dir, path) = file(1 << 20);
        if is_forbidden(&path) {
            return;
        }
        let args = [("driver", "io_uring"), ("path", path.to_str().unwrap())];
        let backend = Blkio::parse(&mut params::Args::new(args)).unwrap().start().unwrap();
        let opened = || {
            let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
            open.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == path)).count()
        };
        backend.after_fork().unwrap();
        assert_eq!(opened(), 1);
        for _ in 0..2 {
            let a = backend.open(&Client::default()).wait().unwrap();
            let b = backend.open(&Client { read_only: true, ..Client::default() }).wait().unwrap();
            assert_eq!(opened(), 1);
            assert!(a.facts().write && !b.facts().write);
            drop(a);
            assert_eq!(b.read(Range::new(0, 512)).wait().unwrap().len(), 512);
            drop(b);
            assert_eq!(opened(), 0);
        }
    }
}
