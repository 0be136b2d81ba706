//! Virtual machines whose first serial line is read and typed at. They are emulated, since not every machine that has
//! KVM has one that works.

use crate::first_files::{self, kernel};
use crate::peers::find;
use crate::server::Process;
use std::fs;
use std::io::{Read, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PROGRAM: &str = "qemu-system-x86_64";
/// Emulation on a busy machine takes its time. So long it may say nothing, and four times as long not what is expected.
const PATIENCE: Duration = Duration::from_secs(180);
/// What every kernel is told. Where the emulator does not get its turn, the kernel would find that the timer does not work.
const WORDS: &str = "console=ttyS0 panic=-1 no_timer_check";

/// A running machine, off with this value.
pub struct Machine {
    process: Process,
    keyboard: ChildStdin,
    said: Arc<Mutex<Vec<u8>>>,
    /// Ends when the machine says no more.
    listener: Option<JoinHandle<()>>,
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
        let (kernel, modules) = kernel(&DRIVERS).or_else(without_kernel)?;
        let directory = crate::directory();
        let first = directory.path().join("first");
        fs::write(&first, first_files::that_mount_root(&modules)).expect("a file can be written");
        let mut all: Vec<&std::ffi::OsStr> = vec!["-kernel".as_ref(), kernel.as_os_str()];
        let words = format!("{WORDS} loglevel=7 root={root}");
        all.extend(["-initrd".as_ref(), first.as_os_str(), "-append".as_ref(), words.as_ref()]);
        all.extend(options.iter().map(AsRef::as_ref));
        Machine::start_in(directory, &all)
    }

    /// A machine that starts this system's kernel with these drivers, has our program and these files (without a slash
    /// before their names), runs this script with all of busybox, and is off then.
    pub fn with_program<S: AsRef<std::ffi::OsStr>>(
        drivers: &[&str],
        files: &[(&str, &[u8])],
        script: &str,
        options: &[S],
    ) -> Option<Machine> {
        let (kernel, modules) = kernel(drivers).or_else(without_kernel)?;
        let directory = crate::directory();
        let first = directory.path().join("first");
        fs::write(&first, first_files::that_run(&modules, files, script)).expect("a file can be written");
        let mut all: Vec<&std::ffi::OsStr> =
            vec!["-kernel".as_ref(), kernel.as_os_str(), "-m".as_ref(), "768".as_ref()];
        let words = format!("{WORDS} quiet intel_iommu=on");
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
        let listener = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = screen.read(&mut buffer) {
                lock(&heard).extend_from_slice(&buffer[..len]);
            }
        });
        Some(Machine { process, keyboard, said, listener: Some(listener), seen: 0, _directory: directory })
    }

    /// Waits until it has said this, after all that was waited for before.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let begin = Instant::now();
        let (mut heard, mut last) = (0, begin);
        while !self.has_said(text) {
            let more = lock(&self.said).len();
            if more > heard {
                (heard, last) = (more, Instant::now());
            }
            let ended = self.process.wait(Duration::from_millis(20));
            if ended.is_some() {
                // Its last words may have come after the look above.
                let _ = self.listener.take().map(JoinHandle::join);
                assert!(self.has_said(text), "no {text:?} ({ended:?}) in\n{}", self.text());
                return;
            }
            let is_late = last.elapsed() > PATIENCE || begin.elapsed() > PATIENCE * 4;
            assert!(!is_late, "no {text:?} in\n{}", self.text());
        }
    }

    /// Whether it has said this, after all that was waited for before.
    fn has_said(&mut self, text: &str) -> bool {
        let said = lock(&self.said);
        let found = said[self.seen..].windows(text.len()).position(|part| part == text.as_bytes());
        self.seen += found.map_or(0, |at| at + text.len());
        found.is_some()
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

fn without_kernel<T>() -> Option<T> {
    crate::skip("needs a kernel with its modules (of the package linux-image-cloud-amd64)");
    None
}
