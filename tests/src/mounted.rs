//! Disks that are mounted as files, by our tool or the peer's.

use crate::{PATIENCE, Process, Run, directory};
use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    sync::OnceLock,
    thread::sleep,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A server to mount: 64 MiB of memory.
pub const MEMORY: &[&str] = &["[", "diskpipe", "serve", "memory", "64M", "]"];

/// A mount, ours or the peer's, taken down when it is dropped.
pub struct Mounted {
    /// The tool.
    pub process: Process,
    /// What the tool was told.
    pub at: PathBuf,
    pidfile: PathBuf,
    _directory: TempDir,
}

impl Mounted {
    /// Mounts at a place in a fresh directory: a directory, a file or a new name there.
    pub fn ours(place: &str, options: &str, server: &[&str]) -> Mounted {
        Mounted::start(Run::diskpipe().arg("mount"), place, options, server)
    }

    /// Mounts with this program, which has nbdfuse's options.
    pub fn start(program: Run, place: &str, options: &str, server: &[&str]) -> Mounted {
        let directory = directory();
        fs::create_dir(directory.path().join("dir")).unwrap();
        fs::write(directory.path().join("file"), "hidden").unwrap();
        let (at, pidfile) = (directory.path().join(place), directory.path().join("pid"));
        let mut process = program.words(options).arg("-P").arg(&pidfile).arg(&at).args(server).start();
        let start = Instant::now();
        while !pidfile.exists() {
            assert!(
                process.wait(Duration::ZERO).is_none() && start.elapsed() < PATIENCE,
                "it does not mount"
            );
            sleep(Duration::from_millis(5));
        }
        Mounted { process, at, pidfile, _directory: directory }
    }

    /// The disk.
    pub fn file(&self) -> PathBuf {
        if self.at.is_dir() { self.at.join("nbd") } else { self.at.clone() }
    }

    /// What is mounted over.
    pub fn mount_point(&self) -> &Path {
        // A new name in a directory is no mount point itself.
        if self.at.ends_with("dir/disk") { self.at.parent().unwrap() } else { &self.at }
    }

    /// The disk, to read and to write.
    pub fn open(&self) -> File {
        OpenOptions::new().read(true).write(true).open(self.file()).unwrap()
    }

    /// Unmounts it, which must end the tool well.
    pub fn unmount(mut self) {
        unmount(self.mount_point());
        let status = self.process.wait(PATIENCE).expect("the tool ends with the mount");
        assert!(status.success(), "{status}");
        assert!(!self.pidfile.exists());
    }
}

/// What a test has closed is open for a moment longer where another test was just starting a program: its child has all
/// descriptors until it becomes that program.
pub fn unmount(mount_point: &Path) {
    let start = Instant::now();
    loop {
        let ended = Run::new("fusermount3").arg("-u").arg(mount_point).end();
        if ended.status.success() || !ended.stderr.contains("busy") || start.elapsed() >= PATIENCE {
            ended.good();
            return;
        }
        sleep(Duration::from_millis(20));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        Run::new("fusermount3").words("-q -u -z").arg(self.mount_point()).end();
    }
}

/// Whether file systems can be mounted here: it is tried.
pub fn can_mount() -> bool {
    static REFUSED: OnceLock<Option<String>> = OnceLock::new();
    let refused = REFUSED.get_or_init(|| {
        let directory = directory();
        let mut process = Run::diskpipe().arg("mount").arg(directory.path()).args(MEMORY).start();
        let start = Instant::now();
        while process.wait(Duration::ZERO).is_none() {
            if directory.path().join("nbd").exists() {
                Run::new("fusermount3").arg("-u").arg(directory.path()).end();
                process.wait(PATIENCE);
                return None;
            }
            assert!(start.elapsed() < PATIENCE, "it neither mounts nor gives up");
            sleep(Duration::from_millis(5));
        }
        Some(Run::diskpipe().arg("mount").arg(directory.path()).args(MEMORY).end().stderr)
    });
    match refused {
        None => true,
        Some(why)
            if ["not permitted", "ermission denied", "/dev/fuse"].iter().any(|word| why.contains(word)) =>
        {
            crate::skip("needs FUSE, and the right to mount");
            false
        }
        Some(why) => panic!("cannot mount: {why}"),
    }
}

/// Leaves a test, loudly, unless file systems can be mounted and these programs are here.
#[macro_export]
macro_rules! mounts {
    ($($program:expr),*) => {
        $crate::needs!("fusermount3" $(, $program)*);
        if !$crate::can_mount() {
            return;
        }
    };
}
