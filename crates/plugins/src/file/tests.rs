use super::*;
use crate::model;
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
