//! Virtual machines whose first serial line is read and typed at. They are emulated, since not every machine that has
//! KVM has one that works.

use crate::peers::find;
use crate::server::Process;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const PROGRAM: &str = "qemu-system-x86_64";
/// Emulation on a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(180);

/// A running machine, off with this value.
pub struct Machine {
    process: Process,
    keyboard: ChildStdin,
    said: Arc<Mutex<Vec<u8>>>,
    /// What comes before was expected already.
    seen: usize,
    _directory: tempfile::TempDir,
}

impl Machine {
    /// A machine with these options of QEMU; `None`, and a word about it, where there is no QEMU.
    pub fn start<S: AsRef<std::ffi::OsStr>>(options: &[S]) -> Option<Machine> {
        let directory = crate::directory();
        Machine::start_in(directory, options)
    }

    /// A machine that starts this system's kernel, which mounts `root` and goes on with `/sbin/init` there.
    pub fn with_kernel<S: AsRef<std::ffi::OsStr>>(root: &str, options: &[S]) -> Option<Machine> {
        let Some((kernel, modules)) = kernel() else {
            crate::skip("needs a kernel with its modules (of the package linux-image-cloud-amd64)");
            return None;
        };
        let directory = crate::directory();
        let first = directory.path().join("first");
        fs::write(&first, first_files(&modules)).expect("a file can be written");
        let mut all: Vec<&std::ffi::OsStr> = vec!["-kernel".as_ref(), kernel.as_os_str()];
        let words = format!("console=ttyS0 panic=-1 loglevel=7 root={root}");
        all.extend(["-initrd".as_ref(), first.as_os_str(), "-append".as_ref(), words.as_ref()]);
        all.extend(options.iter().map(AsRef::as_ref));
        Machine::start_in(directory, &all)
    }

    fn start_in<S: AsRef<std::ffi::OsStr>>(directory: tempfile::TempDir, options: &[S]) -> Option<Machine> {
        let Some(program) = find(PROGRAM) else {
            crate::skip(&format!("needs {PROGRAM}"));
            return None;
        };
        let mut command = Command::new(program);
        command.args(["-accel", "tcg", "-m", "256", "-no-reboot", "-nodefaults", "-display", "none"]);
        // What is written to a disk that is shown only for a while goes into this directory.
        command.args(["-serial", "stdio"]).args(options).env("TMPDIR", directory.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = Process::start(&mut command, PROGRAM);
        let (keyboard, mut screen) = process.pipes();
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = said.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = screen.read(&mut buffer) {
                lock(&heard).extend_from_slice(&buffer[..len]);
            }
        });
        Some(Machine { process, keyboard, said, seen: 0, _directory: directory })
    }

    /// Waits until it has said this, after all that was waited for before.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            {
                let said = lock(&self.said);
                let found = said[self.seen..].windows(text.len()).position(|part| part == text.as_bytes());
                if let Some(at) = found {
                    self.seen += at + text.len();
                    return;
                }
            }
            let ended = self.process.wait(Duration::from_millis(20));
            assert!(ended.is_none() && Instant::now() < end, "no {text:?} ({ended:?}) in\n{}", self.text());
        }
    }

    /// All that it has said.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&lock(&self.said)).into_owned()
    }

    /// Types this, and the enter key.
    ///
    /// # Panics
    /// When the machine is off.
    pub fn type_line(&mut self, line: &str) {
        writeln!(self.keyboard, "{line}").and_then(|()| self.keyboard.flush()).expect("the machine listens");
    }

    /// Waits until it is off.
    ///
    /// # Panics
    /// When it does not go off.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let ended = self.process.wait(PATIENCE);
        assert!(ended.is_some_and(|status| status.success()), "{ended:?}\n{}", self.text());
    }
}

fn lock(said: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Drivers for the disks that QEMU has unless others are asked for.
const DRIVERS: [&str; 2] = ["ata_piix", "sd_mod"];

/// A kernel, and the drivers in the order in which they must be loaded.
fn kernel() -> Option<(PathBuf, Vec<PathBuf>)> {
    let mut kernels: Vec<_> = fs::read_dir("/boot").ok()?.flatten().map(|entry| entry.path()).collect();
    kernels.sort();
    kernels.into_iter().rev().find_map(|kernel| {
        let version = kernel.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned();
        let modules = Path::new("/lib/modules").join(version);
        let dependencies = fs::read_to_string(modules.join("modules.dep")).ok()?;
        let mut all: Vec<PathBuf> = vec![];
        for driver in DRIVERS {
            let is_it = |path: &str| {
                path.rsplit('/').next().is_some_and(|name| name.split('.').next() == Some(driver))
            };
            let (path, needs) =
                dependencies.lines().filter_map(|line| line.split_once(':')).find(|(path, _)| is_it(path))?;
            // The one that needs nothing comes last.
            for path in needs.split_whitespace().rev().chain([path]).map(|path| modules.join(path)) {
                if !all.contains(&path) {
                    all.push(path);
                }
            }
        }
        Some((kernel, all))
    })
}

/// What the kernel starts with: busybox, the drivers, and a script that loads them and moves to the root.
fn first_files(modules: &[PathBuf]) -> Vec<u8> {
    let mut archive = Archive::default();
    let read = |path: &Path| fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    for directory in ["bin", "dev", "modules", "proc", "root"] {
        archive.add(directory, 0o040_755, &[]);
    }
    archive.add("bin/busybox", 0o100_755, &read(&find("busybox").expect("tests that use this need it")));
    let mut load = String::new();
    for module in modules {
        let name = module.file_name().expect("a file").to_string_lossy();
        archive.add(&format!("modules/{name}"), 0o100_644, &read(module));
        load += &format!("$b insmod /modules/{name}\n");
    }
    let script = format!(
        "#!/bin/busybox sh\nb=/bin/busybox\n$b mount -t devtmpfs none /dev\n$b mount -t proc none /proc\n{load}\
         for word in $($b cat /proc/cmdline); do case $word in root=*) root=${{word#root=}};; esac; done\n\
         while ! test -b $root; do $b sleep 0.1; done\n\
         $b mount -t ext2 $root /root && $b mount --move /dev /root/dev && $b umount /proc &&\n\
         exec $b switch_root /root /sbin/init\n"
    );
    archive.add("init", 0o100_755, script.as_bytes());
    archive.add("TRAILER!!!", 0, &[]);
    archive.0
}

/// A cpio archive in the form that kernels read ("newc").
#[derive(Default)]
struct Archive(Vec<u8>);

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        let inode = self.0.len() as u32;
        let numbers = [inode, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        self.0.extend(b"070701");
        numbers.iter().for_each(|number| self.0.extend(format!("{number:08x}").bytes()));
        self.0.extend(name.bytes().chain([0]));
        self.fill_up();
        self.0.extend(content);
        self.fill_up();
    }

    fn fill_up(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}
