//! What `-o` says: options of FUSE and of the kernel, with the names that libfuse gives them.

use fuser::MountOption;
use std::time::Duration;

/// What `-o` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fuse {
    pub(crate) allow_other: bool,
    pub(crate) allow_root: bool,
    pub(crate) auto_unmount: bool,
    pub(crate) debug: bool,
    pub(crate) direct: bool,
    pub(crate) keep_cache: bool,
    pub(crate) read_only: bool,
    pub(crate) source: Option<String>,
    pub(crate) subtype: Option<String>,
    pub(crate) user: Option<u32>,
    pub(crate) group: Option<u32>,
    /// Permission bits that file and directory have not; they have all others then.
    pub(crate) umask: Option<u32>,
    /// So long the kernel may believe what it was told of the file.
    pub(crate) believe: Option<Duration>,
    /// What goes on to the kernel as it is.
    pub(crate) kernel: Vec<MountOption>,
}

/// Words for the kernel; those in one row exclude each other.
const KERNEL: &[&[(&str, MountOption)]] = &[
    &[("atime", MountOption::Atime), ("noatime", MountOption::NoAtime)],
    &[("default_permissions", MountOption::DefaultPermissions)],
    &[("dev", MountOption::Dev), ("nodev", MountOption::NoDev)],
    &[("dirsync", MountOption::DirSync)],
    &[("exec", MountOption::Exec), ("noexec", MountOption::NoExec)],
    &[("suid", MountOption::Suid), ("nosuid", MountOption::NoSuid)],
    &[("sync", MountOption::Sync), ("async", MountOption::Async)],
];

/// The text of `--fuse-help`.
pub(crate) const HELP: &str = "\
Options of the file system:
    -o allow_other          other users see the file, too
    -o allow_root           root sees the file, too
    -o attr_timeout=T       so many seconds the kernel need not ask for the size again (1.0)
    -o auto_unmount         unmount it when this process is killed
    -o debug                as --verbose
    -o default_permissions  the kernel checks permissions
    -o direct_io            the kernel keeps nothing in its cache: as it is without kernel_cache
    -o fsname=NAME          what the table of mounts shows as the source
    -o gid=N                the group of the file
    -o kernel_cache         the kernel caches what is read, and keeps it between one open and the next
    -o ro                   as --readonly
    -o subtype=NAME         what the table of mounts shows as the type, after “fuse.”
    -o uid=N                the user of the file
    -o umask=M              permissions that file and directory do not have (octal)

Those of the kernel for every file system:
    -o [no]atime,[no]dev,[no]exec,[no]suid,[a]sync,dirsync

Taken, and without effect on a single file:
    -o [no]auto_cache,clone_fd,no_rofd_flush,noforget
    -o ac_attr_timeout=T,entry_timeout=T,negative_timeout=T,remember=T
    -o max_idle_threads=N,max_read=N,max_threads=N
";

impl Fuse {
    /// Reads the lists that the options are.
    ///
    /// # Errors
    /// A sentence.
    pub(crate) fn read(lists: &[String]) -> Result<Fuse, String> {
        let mut fuse = Fuse::default();
        for option in lists.iter().flat_map(|list| list.split(',')).filter(|word| !word.is_empty()) {
            match option.split_once('=') {
                None => fuse.word(option)?,
                Some((name, value)) => fuse.value(option, name, value)?,
            }
        }
        if fuse.allow_other && fuse.allow_root {
            return Err("-o allow_other and allow_root exclude each other".into());
        }
        Ok(fuse)
    }

    fn word(&mut self, option: &str) -> Result<(), String> {
        match option {
            "allow_other" => self.allow_other = true,
            "allow_root" => self.allow_root = true,
            "auto_unmount" => self.auto_unmount = true,
            "debug" => self.debug = true,
            "direct_io" => self.direct = true,
            "kernel_cache" => self.keep_cache = true,
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "auto_cache" | "noauto_cache" | "clone_fd" | "no_rofd_flush" | "noforget" => {}
            _ => {
                let Some((pair, (_, flag))) = KERNEL
                    .iter()
                    .enumerate()
                    .flat_map(|(pair, words)| words.iter().map(move |word| (pair, word)))
                    .find(|(_, (name, _))| *name == option)
                else {
                    return Err(unknown(option));
                };
                // Of a pair, the last one counts.
                self.kernel.retain(|known| KERNEL[pair].iter().all(|(_, flag)| flag != known));
                self.kernel.push(flag.clone());
            }
        }
        Ok(())
    }

    fn value(&mut self, option: &str, name: &str, value: &str) -> Result<(), String> {
        let number = || value.parse::<u32>().map_err(|_| format!("-o {option}: “{value}” is not a number"));
        let time = || {
            let seconds = value.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            seconds.ok_or_else(|| format!("-o {option}: “{value}” is not a number of seconds"))
        };
        match name {
            "fsname" => self.source = Some(value.to_owned()),
            "subtype" => self.subtype = Some(value.to_owned()),
            "gid" => self.group = Some(number()?),
            "uid" => self.user = Some(number()?),
            "umask" => match u32::from_str_radix(value, 8) {
                Ok(mask) if mask <= 0o777 => self.umask = Some(mask),
                _ => return Err(format!("-o {option}: “{value}” is not a mask such as 022")),
            },
            "attr_timeout" => self.believe = Some(time()?),
            "ac_attr_timeout" | "entry_timeout" | "negative_timeout" | "remember" => drop(time()?),
            "max_idle_threads" | "max_read" | "max_threads" => drop(number()?),
            _ => return Err(unknown(option)),
        }
        Ok(())
    }
}

fn unknown(option: &str) -> String {
    format!("-o {option}: there is no such option; see --fuse-help")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Fuse, String> {
        Fuse::read(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options_of_the_file_system_are_a_list() {
        let found = read(&["ro,uid=7", "kernel_cache", "fsname=x,umask=022,attr_timeout=0.5"]).unwrap();
        assert_eq!((found.read_only, found.user, found.keep_cache), (true, Some(7), true));
        assert_eq!((found.source.as_deref(), found.umask), (Some("x"), Some(0o22)));
        assert_eq!(found.believe, Some(Duration::from_millis(500)));
        for bad in [
            "nosuch",
            "no=1",
            "uid=x",
            "uid=-1",
            "ro=1",
            "allow_other,allow_root",
            "umask=8",
            "umask=1000",
            "attr_timeout=-1",
            "remember=x",
            "max_read",
        ] {
            assert!(read(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn of_two_that_exclude_each_other_the_last_counts() {
        let found = read(&["dev,sync,nosuid", "nodev,async", "dirsync,dirsync"]).unwrap();
        assert_eq!(
            found.kernel,
            [MountOption::NoSuid, MountOption::NoDev, MountOption::Async, MountOption::DirSync]
        );
    }

    #[test]
    fn what_the_help_lists_is_taken() {
        for line in HELP.lines().filter_map(|line| line.strip_prefix("    -o ")) {
            for word in line.split_whitespace().next().unwrap().split(',') {
                let (first, second) = match word.split_once(']') {
                    Some((optional, rest)) => (rest.to_owned(), format!("{}{rest}", &optional[1..])),
                    None => (word.to_owned(), word.to_owned()),
                };
                for word in [first, second] {
                    let word = word.replace("=NAME", "=x").replace("=T", "=1").replace("=N", "=1");
                    read(&[&word.replace("=M", "=7")]).unwrap();
                }
            }
        }
    }
}
