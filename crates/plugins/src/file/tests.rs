use super::*;
use crate::common::model;
use ::disk::{Data, Kind, Range, WriteFlags, ZeroFlags};
use std::fs;

fn serve(path: &Path, more: &[(&str, &str)]) -> Arc<dyn Disk> {
    let file = [("file", path.to_str().unwrap())];
    model::open::<File>(&[&file, more].concat()).unwrap()
}

fn sparse_file(dir: &Path, size: u64) -> PathBuf {
    let path = dir.join("disk.img");
    fs::File::create(&path).unwrap().set_len(size).unwrap();
    path
}

#[test]
fn random_requests_leave_what_a_vector_would_hold() {
    // A real file system where there is one, and one in memory that zeroes less well.
    for (seed, dir) in [std::env::temp_dir(), "/dev/shm".into()].into_iter().enumerate() {
        let Ok(dir) = tempfile::tempdir_in(&dir) else {
            eprintln!("skipped: {} cannot be written", dir.display());
            continue;
        };
        for more in [&[("cache", "none"), ("fadvise", "random")][..], &[("fadvise", "sequential")]] {
            let path = sparse_file(dir.path(), 9_999_999);
            let disk = ::disk::complete::complete(serve(&path, more));
            model::compare(&*disk, seed as u64, 800);
            disk.flush().wait().unwrap();
            let all = disk.read(disk.facts().whole()).wait().unwrap().to_vec();
            assert!(fs::read(&path).unwrap() == all);
        }
    }
}

#[test]
fn a_flush_waits_for_what_nobody_waits_for() {
    let dir = tempfile::tempdir().unwrap();
    let disk = serve(&sparse_file(dir.path(), 1 << 20), &[]);
    let fua = WriteFlags { fua: true };
    disk.write(0, Data::copy_from(&[1; 4096]), fua).wait().unwrap();
    model::flush_waits_for(&*disk, || disk.write(0, Data::copy_from(b"later"), fua));
    assert_eq!(model::bytes(&*disk, 0, 6), b"later\x01");
    let zero = ZeroFlags { fua: true, ..Default::default() };
    model::flush_waits_for(&*disk, || disk.zero(Range::new(0, 512), zero));
    assert_eq!(model::bytes(&*disk, 0, 512), [0; 512]);
}

#[test]
fn holes_are_found_and_punched() {
    let dir = tempfile::tempdir().unwrap();
    let disk = serve(&sparse_file(dir.path(), 64 << 20), &[]);
    let map = || -> Vec<_> {
        let extents = disk.extents(disk.facts().whole(), 100).wait().unwrap();
        extents.iter().map(|e| (e.len >> 20, e.kind)).collect()
    };
    assert_eq!(map(), [(64, Kind::HOLE)]);
    let data = Data::fill(4 << 20, |b| b.fill(1));
    disk.write(16 << 20, data, WriteFlags { fua: true }).wait().unwrap();
    assert_eq!(map(), [(16, Kind::HOLE), (4, Kind::DATA), (44, Kind::HOLE)]);
    // Twice, so that what is remembered is used.
    assert_eq!(disk.extents(Range::new(17 << 20, 1 << 20), 1).wait().unwrap().covered(), 1 << 20);
    let trimmed = Range::new(17 << 20, 1 << 20);
    disk.zero(trimmed, ZeroFlags { may_trim: true, ..Default::default() }).wait().unwrap();
    let holes = [(16, Kind::HOLE), (1, Kind::DATA), (1, Kind::HOLE), (2, Kind::DATA), (44, Kind::HOLE)];
    assert_eq!(map(), holes);
    disk.trim(Range::new(16 << 20, 4 << 20), WriteFlags { fua: true }).wait().unwrap();
    assert_eq!(map(), [(64, Kind::HOLE)]);
}

#[test]
fn another_process_filling_a_hole_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse_file(dir.path(), 1 << 20);
    let disk = serve(&path, &[]);
    let whole = disk.facts().whole();
    assert_eq!(disk.extents(whole, 9).wait().unwrap().iter().next().unwrap().kind, Kind::HOLE);
    fs::write(&path, vec![1; 1 << 20]).unwrap();
    assert_eq!(disk.extents(whole, 9).wait().unwrap().iter().next().unwrap().kind, Kind::DATA);
}

#[test]
fn a_file_that_shrinks_is_an_error_and_no_zeroes() {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse_file(dir.path(), 1 << 20);
    let disk = serve(&path, &[]);
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1000).unwrap();
    assert_eq!(model::bytes(&*disk, 0, 1000), [0; 1000]);
    let error = disk.read(Range::new(512, 4096)).wait().unwrap_err();
    assert_eq!(error.errno(), Errno::IO);
    assert!(error.to_string().contains("shorter"), "{error}");
}

/// Every way to open it: through rings and without, from the page cache and past it (where that can be).
fn each_way(path: &Path) -> Vec<(Cache, FileDisk)> {
    let mut ways = vec![];
    for cache in [Cache::Default, Cache::None, Cache::Direct] {
        for ring in [true, false] {
            let opened = open_file(path, false, cache == Cache::Direct).and_then(|(fd, writable)| {
                FileDisk::new(fd, writable, Manner { cache, fadvise: Fadvise::Normal })
            });
            match opened {
                Ok(disk) => ways.push((cache, if ring { disk } else { disk.without_ring() })),
                Err(e) if cache == Cache::Direct && e.errno() == Errno::NOTSUP => {}
                Err(e) => panic!("{e}"),
            }
        }
    }
    ways
}

/// Nothing of the file is in the page cache any more.
fn forget(path: &Path) {
    let file = fs::File::open(path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

#[test]
fn what_the_page_cache_does_not_have_is_the_same_however_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse_file(dir.path(), 0);
    let bytes: Vec<u8> = (0..4 << 20).map(|at| (at * 3 + (at >> 9)) as u8).collect();
    fs::write(&path, &bytes).unwrap();
    for (cache, disk) in each_way(&path) {
        // The first page is there: it must not be taken for the whole.
        forget(&path);
        let mut page = [0; 4096];
        std::io::Read::read_exact(&mut fs::File::open(&path).unwrap(), &mut page).unwrap();
        for (start, len) in [(0, 4 << 20), (4096, 4096), (512 << 10, 1 << 20), (8192, 300 << 10)] {
            let read = model::bytes(&disk, start, len);
            assert!(read == bytes[start as usize..(start + len) as usize], "{cache} {start} {len}");
            forget(&path);
        }
    }
}

#[test]
fn what_is_written_past_the_page_cache_is_read_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse_file(dir.path(), 2 << 20);
    for (round, (cache, disk)) in (1u8..).zip(each_way(&path)) {
        let step = u64::from(disk.facts().blocks.minimum).max(512);
        // At an odd address, and of several kinds.
        let odd = Data::fill((step + 1) as usize, |b| b.fill(round)).slice(1, step);
        let data = Data::join(vec![odd.clone(), Data::zeroes(300 << 10), odd]);
        let len = data.len();
        for fua in [false, true] {
            let at = if fua { 1 << 20 } else { step };
            disk.write(at, data.clone(), WriteFlags { fua }).wait().unwrap();
            let there = &fs::read(&path).unwrap()[at as usize..(at + len) as usize];
            assert!(there == data.to_vec(), "{cache} {fua}");
        }
        disk.flush().wait().unwrap();
        disk.zero(Range::new(0, 2 << 20), ZeroFlags::default()).wait().unwrap();
        assert!(fs::read(&path).unwrap().iter().all(|b| *b == 0));
    }
}

#[test]
fn a_file_that_shrinks_is_an_error_however_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse_file(dir.path(), 1 << 20);
    let ways = each_way(&path);
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(8192).unwrap();
    for (cache, disk) in ways {
        forget(&path);
        assert_eq!(model::bytes(&disk, 4096, 4096), [0; 4096]);
        for (start, len) in [(4096, 8192), (8192, 4096), (0, 1 << 20), (512 << 10, 512 << 10)] {
            let error = disk.read(Range::new(start, len)).wait().unwrap_err();
            assert!(error.errno() == Errno::IO && error.to_string().contains("shorter"), "{cache}: {error}");
        }
    }
}

#[test]
fn past_the_page_cache_only_whole_blocks_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse_file(dir.path(), 100_001);
    let file = ("file", path.to_str().unwrap());
    let refused = model::open::<File>(&[file, ("cache", "direct")]).err().unwrap();
    assert!(refused.to_string().contains("cache=direct: "), "{refused}");
    for more in ["reduce-memory-pressure", "resizable"] {
        let refused = model::open::<File>(&[file, ("cache", "direct"), (more, "true")]).err().unwrap();
        assert_eq!(refused.to_string(), format!("{more}=true: not together with cache=direct"));
    }
    let evicting = model::open::<File>(&[file, ("reduce-memory-pressure", "true")]).unwrap();
    assert_eq!(evicting.facts().size, 100_001);
}

#[test]
fn what_only_may_be_read_is_served_read_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse_file(dir.path(), 1 << 20);
    let mut args = params::Args::new([("file", path.to_str().unwrap())]);
    let backend = File::parse(&mut args).unwrap().start().unwrap();
    let client = Client { read_only: true, ..Client::default() };
    let facts = backend.open(&client).wait().unwrap().facts().clone();
    assert!(!facts.write && !facts.zero && facts.extents);
    assert!(backend.open(&Client::default()).wait().unwrap().facts().write);
}

#[test]
fn a_directory_serves_its_files_by_name_and_nothing_outside() {
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("inside");
    fs::create_dir(&inside).unwrap();
    fs::create_dir(inside.join("deeper")).unwrap();
    fs::write(dir.path().join("secret"), "s").unwrap();
    fs::write(inside.join("b"), "bb").unwrap();
    fs::write(inside.join("a"), "a").unwrap();
    std::os::unix::fs::symlink("b", inside.join("link")).unwrap();
    std::os::unix::fs::symlink("nowhere", inside.join("broken")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, inside.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let mut args = params::Args::new([("dir", inside.to_str().unwrap())]);
    let backend = File::parse(&mut args).unwrap().start().unwrap();
    let exports = backend.exports(&Client::default()).wait().unwrap();
    assert_eq!(exports.iter().map(|e| &*e.name).collect::<Vec<_>>(), ["a", "b", "link"]);
    assert_eq!(backend.open(&Client::local("link")).wait().unwrap().facts().size, 2);
    for name in ["", ".", "..", "../secret", "deeper", "pipe", "broken", "none", "/etc/passwd", "a\0"] {
        assert!(backend.open(&Client::local(name)).wait().is_err(), "{name:?}");
    }
}

#[test]
fn a_descriptor_is_served_too() {
    use std::os::fd::AsRawFd;
    let file = tempfile::tempfile().unwrap();
    file.set_len(12345).unwrap();
    let disk = model::open::<File>(&[("fd", &file.as_raw_fd().to_string())]).unwrap();
    assert_eq!(disk.facts().size, 12345);
    assert!(disk.facts().write);
    // What was opened for reading stays so.
    let dir = tempfile::tempdir().unwrap();
    let file = fs::File::open(sparse_file(dir.path(), 512)).unwrap();
    let disk = model::open::<File>(&[("fd", &file.as_raw_fd().to_string())]).unwrap();
    assert!(!disk.facts().write);
}

#[test]
fn parameters_that_contradict_each_other_are_refused() {
    let refused = |args: &[(&str, &str)]| model::open::<File>(args).err().unwrap().to_string();
    assert!(refused(&[]).contains("you must supply the file="));
    assert_eq!(refused(&[("file", "/a"), ("dir", "/b")]), "file= and dir= cannot be used at the same time");
    assert_eq!(refused(&[("file", "/nowhere/x")]), "file=/nowhere/x: No such file or directory");
    assert_eq!(refused(&[("file", "/")]), "file=/: a directory; use dir= to serve the files in it");
    assert_eq!(refused(&[("dir", "/dev/null")]), "dir=/dev/null: not a directory");
    assert!(refused(&[("file", "/dev/null")]).contains("neither a regular file nor a block device"));
    assert!(refused(&[("file", "/etc/passwd"), ("rdelay", "1")]).contains("--filter=delay"));
    // That is known at the start.
    let start = |path: &str| File::parse(&mut params::Args::new([("file", path)])).unwrap().start().unwrap();
    assert!(start("/dev/null").get_ready().is_err() && start("/etc/passwd").get_ready().is_ok());
}

#[test]
fn all_who_have_the_same_file_open_share_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let file = sparse_file(dir.path(), 4096);
    std::os::unix::fs::symlink(&file, dir.path().join("link")).unwrap();
    let arguments = [("dir", dir.path().to_str().unwrap()), ("resizable", "true")];
    let backend = File::parse(&mut params::Args::new(arguments)).unwrap().start().unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    let a = backend.open(&Client::local(name)).wait().unwrap();
    let b = backend.open(&Client { read_only: true, ..Client::local("link") }).wait().unwrap();
    let resize =
        |disk: &Arc<dyn Disk>, size| disk.resizing().unwrap().resize(size).wait().map_err(|e| e.errno());
    assert_eq!(resize(&a, 8192), Ok(8192));
    assert_eq!((b.facts().size, b.resizing().unwrap().size()), (4096, 8192));
    assert_eq!(resize(&b, 16384), Err(Errno::PERM), "it may only be read there");
    assert_eq!(resize(&a, 4096), Err(Errno::PERM), "it is open twice");
    drop(b);
    assert_eq!(resize(&a, 4096), Ok(4096));
    assert_eq!(fs::metadata(&file).unwrap().len(), 4096);
    // No file system has files as large as that.
    assert_eq!(resize(&a, i64::MAX as u64), Err(Errno::NOSPC));
}
