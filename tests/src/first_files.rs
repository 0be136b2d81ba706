//! What a kernel starts with: busybox, drivers, a script, and perhaps our program.

use crate::peers::find;
use std::fs;
use std::path::{Path, PathBuf};

/// A kernel, and the drivers in the order in which they must be loaded.
pub(crate) fn kernel(drivers: &[&str]) -> Option<(PathBuf, Vec<PathBuf>)> {
    let mut kernels: Vec<_> = fs::read_dir("/boot").ok()?.flatten().map(|entry| entry.path()).collect();
    kernels.sort();
    kernels.into_iter().rev().find_map(|kernel| {
        let version = kernel.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned();
        let modules = Path::new("/lib/modules").join(version);
        let dependencies = fs::read_to_string(modules.join("modules.dep")).ok()?;
        let mut all: Vec<PathBuf> = vec![];
        for driver in drivers {
            let is_it = |path: &str| {
                path.rsplit('/').next().is_some_and(|name| name.split('.').next() == Some(*driver))
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

/// A script that loads the drivers and moves to the root.
pub(crate) fn that_mount_root(modules: &[PathBuf]) -> Vec<u8> {
    let (mut archive, load) = with_drivers(modules);
    let script = format!(
        "#!/bin/busybox sh\nb=/bin/busybox\n$b mount -t devtmpfs none /dev\n$b mount -t proc none /proc\n{load}\
         for word in $($b cat /proc/cmdline); do case $word in root=*) root=${{word#root=}};; esac; done\n\
         while ! test -b $root; do $b sleep 0.1; done\n\
         $b mount -t ext2 $root /root && $b mount --move /dev /root/dev && $b umount /proc &&\n\
         exec $b switch_root /root /sbin/init\n"
    );
    archive.add("init", 0o100_755, script.as_bytes());
    archive.end()
}

/// Our program with the libraries that it wants, these files, and a script that is run where all of it is to be found.
pub(crate) fn that_run(modules: &[PathBuf], files: &[(&str, &[u8])], script: &str) -> Vec<u8> {
    let (mut archive, load) = with_drivers(modules);
    let program = crate::diskpipe();
    archive.add("bin/diskpipe", 0o100_755, &read(program));
    let libraries = crate::Run::new("ldd").arg(program).text();
    let mut made: Vec<PathBuf> = vec![];
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new) {
        let directories: Vec<&Path> =
            library.ancestors().skip(1).filter(|dir| dir.parent().is_some()).collect();
        for directory in directories.into_iter().rev() {
            if !made.iter().any(|dir| dir == directory) {
                made.push(directory.to_owned());
                archive.add(within(directory), 0o040_755, &[]);
            }
        }
        archive.add(within(library), 0o100_755, &read(library));
    }
    for (name, content) in files {
        archive.add(name, 0o100_644, content);
    }
    let script = format!(
        "#!/bin/busybox sh\nb=/bin/busybox\n$b --install -s /bin\nexport PATH=/bin HOME=/ TMPDIR=/tmp\n\
         mount -t proc none /proc\nmount -t sysfs none /sys\nmount -t devtmpfs none /dev\nip link set lo up\n\
         {load}{script}\npoweroff -f\n"
    );
    archive.add("init", 0o100_755, script.as_bytes());
    archive.end()
}

/// Without the slash, as archives have names.
fn within(path: &Path) -> &str {
    path.strip_prefix("/").unwrap_or(path).to_str().expect("libraries have plain names")
}

/// Busybox, the drivers, and the lines that load them.
fn with_drivers(modules: &[PathBuf]) -> (Archive, String) {
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "modules", "proc", "root", "sys", "tmp"] {
        archive.add(directory, 0o040_755, &[]);
    }
    archive.add("bin/busybox", 0o100_755, &read(&find("busybox").expect("tests that use this need it")));
    let mut load = String::new();
    for module in modules {
        let name = module.file_name().expect("a file").to_string_lossy();
        archive.add(&format!("modules/{name}"), 0o100_644, &read(module));
        load += &format!("$b insmod /modules/{name}\n");
    }
    (archive, load)
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
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

    fn end(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.0
    }

    fn fill_up(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}
