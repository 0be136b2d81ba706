//! What the tests need of the system, in one list, and its installation on Debian.

use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A program that tests run or a file that builds need, and the Debian package that has it.
pub(crate) struct Needed {
    /// As found in `PATH` (or in `/usr/sbin` and `/sbin`, which users often have not in theirs); a file by its path.
    pub(crate) program: &'static str,
    /// Of Debian 12.
    pub(crate) package: &'static str,
}

const fn needed(program: &'static str, package: &'static str) -> Needed {
    Needed { program, package }
}

/// Everything, in the order of packages.
pub(crate) const NEEDED: &[Needed] = &[
    needed("bash", "bash"),
    needed("hexdump", "bsdextrautils"),
    needed("cp", "coreutils"),
    needed("dd", "coreutils"),
    needed("mkfifo", "coreutils"),
    needed("sha256sum", "coreutils"),
    needed("ldd", "libc-bin"),
    needed("curl", "curl"),
    needed("sh", "dash"),
    needed("cmp", "diffutils"),
    needed("diff", "diffutils"),
    needed("fsck.vfat", "dosfstools"),
    needed("mkfs.vfat", "dosfstools"),
    needed("busybox", "busybox-static"),
    needed("debugfs", "e2fsprogs"),
    needed("mke2fs", "e2fsprogs"),
    needed("mkfs.ext4", "e2fsprogs"),
    needed("e2fsck", "e2fsprogs"),
    needed("filefrag", "e2fsprogs"),
    needed("sfdisk", "fdisk"),
    needed("file", "file"),
    needed("fio", "fio"),
    needed("fusermount3", "fuse3"),
    needed("c++", "g++"),
    needed("cc", "gcc"),
    needed("sgdisk", "gdisk"),
    needed("genisoimage", "genisoimage"),
    needed("isoinfo", "genisoimage"),
    needed("certtool", "gnutls-bin"),
    needed("psktool", "gnutls-bin"),
    needed("nbdcopy", "libnbd-bin"),
    needed("nbddump", "libnbd-bin"),
    needed("nbdfuse", "libnbd-bin"),
    needed("nbdinfo", "libnbd-bin"),
    needed("make", "make"), // for OpenSSL, as perl
    needed("losetup", "mount"),
    needed("mount", "mount"),
    needed("umount", "mount"),
    needed("mattrib", "mtools"),
    needed("mcopy", "mtools"),
    needed("mdir", "mtools"),
    needed("nbd-client", "nbd-client"),
    needed("nbd-server", "nbd-server"),
    needed("nbdkit", "nbdkit"),
    needed("nc", "netcat-openbsd"),
    needed("ssh", "openssh-client"),
    needed("ssh-keygen", "openssh-client"),
    needed("sshd", "openssh-server"),
    needed("prove", "perl"), // a part that the always present perl-base has not
    needed("python3", "python3"),
    needed("nbdsh", "python3-libnbd"),
    needed("pkg-config", "pkg-config"),
    // In later Debians it is in qemu-utils; who has that has it already.
    needed("qemu-storage-daemon", "qemu-system-common"),
    needed("qemu-img", "qemu-utils"),
    needed("qemu-io", "qemu-utils"),
    needed("qemu-nbd", "qemu-utils"),
    needed("strace", "strace"),
    needed("systemd-socket-activate", "systemd"),
    needed("partx", "util-linux"),
    needed("fallocate", "util-linux"),
    needed("mountpoint", "util-linux"),
    needed("prlimit", "util-linux"),
    needed("setpriv", "util-linux"),
    needed("tar", "tar"),
    needed("unshare", "util-linux"),
    needed("taskset", "util-linux"),
    needed("xorriso", "xorriso"),
];

/// Programs of large packages, or of such as are at odds with other ones. They are not installed: tests of them run where somebody has
/// them, and say elsewhere that they are skipped.
#[cfg(test)]
const LARGE: &[&str] = &["go", "guestfish", "virt-df", "virt-v2v"];

/// Packages of which tests need some files only, while to install them would bring dozens of others along. Each is unpacked
/// into a directory of its name.
const UNPACKED: &[&str] = &["virtnbdbackup"];

/// Where.
fn unpacked() -> PathBuf {
    crate::run::target_dir().join("unpacked")
}

/// Fetches and unpacks what is not there yet. Where that fails, tests say that they are skipped.
fn unpack() -> Result<()> {
    for package in UNPACKED {
        let place = unpacked().join(package);
        if place.is_dir() {
            continue;
        }
        std::fs::create_dir_all(unpacked())?;
        let fresh = tempfile::tempdir_in(unpacked())?;
        let script = "apt-get -q download \"$1\" && dpkg-deb -x \"$1\"_*.deb content";
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "unpack", package]).current_dir(fresh.path()).stdin(Stdio::null());
        match shell.status().is_ok_and(|status| status.success()) {
            true => std::fs::rename(fresh.path().join("content"), &place)?,
            false => println!("{package} could not be fetched"),
        }
    }
    Ok(())
}

/// Sees to it that all is there.
pub(crate) fn provide() -> Result<()> {
    install()?;
    unpack()
}

/// Installs the packages of programs that are missing. What is there already stays, whatever its version.
fn install() -> Result<()> {
    let mut packages: Vec<&str> =
        NEEDED.iter().filter(|needed| !is_installed(needed.program)).map(|needed| needed.package).collect();
    packages.dedup();
    if packages.is_empty() {
        println!("everything that builds and tests need is installed");
        return Ok(());
    }
    println!("to be installed: {}", packages.join(" "));
    if !is_installed("apt-get") {
        bail!("there is no apt-get here; install what has these Debian packages: {}", packages.join(" "));
    }
    let mut shell = as_root()?;
    let status = shell
        .arg("-c")
        .arg(SCRIPT)
        .arg("install")
        .args(&packages)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .status()
        .context("apt-get cannot be run")?;
    if !status.success() {
        bail!(
            "apt-get could not install {} ({status}); install them by hand and try again",
            packages.join(" ")
        );
    }
    match NEEDED.iter().find(|needed| !is_installed(needed.program)) {
        Some(absent) => bail!("{} was installed but {} is not to be found", absent.package, absent.program),
        None => Ok(()),
    }
}

/// Nothing that is installed may start to serve: `policy-rc.d` is Debian's way to say so.
const SCRIPT: &str = r#"
set -eu
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi
apt-get update
apt-get install -y --no-install-recommends --no-remove "$@"
"#;

/// A shell with the rights to install.
fn as_root() -> Result<Command> {
    if rustix::process::geteuid().is_root() {
        return Ok(Command::new("sh"));
    }
    let may = Command::new("sudo").args(["-n", "true"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !may.is_ok_and(|status| status.success()) {
        bail!(
            "installing packages needs root, or sudo without a password; run `cargo xtask packages` as root once"
        );
    }
    let mut sudo = Command::new("sudo");
    sudo.args(["-n", "sh"]);
    Ok(sudo)
}

/// Whether the program is in `PATH` or where administrators' programs are, or the file exists.
pub(crate) fn is_installed(program: &str) -> bool {
    if program.starts_with('/') {
        return Path::new(program).is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let admin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(admin).any(|dir| is_executable(&dir.join(program)))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// The programs in `needs!("a", "b")` and `mounts!("c")`.
    fn needed_by(source: &str) -> Vec<&str> {
        let calls = ["needs!(", "mounts!("].into_iter().flat_map(|call| source.split(call).skip(1));
        let calls = calls.filter_map(|rest| rest.split(')').next());
        calls.flat_map(|call| call.split('"').skip(1).step_by(2)).collect()
    }

    #[test]
    fn what_tests_need_is_on_the_list() {
        assert_eq!(needed_by(r#"needs!("a", "b"); x("c") needs!("d")"#), ["a", "b", "d"]);
        let mut absent = vec![];
        for entry in fs::read_dir(crate::run::root().join("tests/tests")).unwrap().flatten() {
            let source = fs::read_to_string(entry.path()).unwrap_or_default();
            let unknown = |program: &&str| {
                !LARGE.contains(program) && NEEDED.iter().all(|needed| needed.program != *program)
            };
            absent.extend(needed_by(&source).into_iter().filter(unknown).map(str::to_owned));
        }
        assert_eq!(absent, [""; 0]);
    }

    #[test]
    fn what_is_nowhere_is_not_installed() {
        assert!(is_installed("sh") && !is_installed("no-such-program") && !is_installed("."));
    }
}
