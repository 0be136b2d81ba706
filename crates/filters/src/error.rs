//! `error`: lets requests fail, at random or while a file exists, to test what clients do about it.

use disk::{
    Around, Backend, Client, Disk, Errno, Error as DiskError, Filter, Io, Result,
    shapes::{Op, OpKind, around::EveryRequest},
};
use params::{Choice, Params, Placed, Probability};
use std::{
    hash::{BuildHasher, Hasher, RandomState},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// Let requests fail, to test clients. Without a rate, none does.
///
/// Of a parameter for all kinds of requests and its sibling for one kind, the one further right counts.
#[derive(Params)]
pub(crate) struct Error {
    /// The error that clients see.
    #[param(default = "EIO")]
    error: Placed<Which>,
    /// How likely a request fails: `10%`, `0.1` or `1:10`.
    #[param(default = "0")]
    error_rate: Placed<Probability>,
    /// Requests fail only while this file exists.
    error_file: Option<Placed<PathBuf>>,
    /// The error of reads.
    error_pread: Option<Placed<Which>>,
    /// How likely a read fails.
    error_pread_rate: Option<Placed<Probability>>,
    /// Reads fail only while this file exists.
    error_pread_file: Option<Placed<PathBuf>>,
    /// The error of writes.
    error_pwrite: Option<Placed<Which>>,
    /// How likely a write fails.
    error_pwrite_rate: Option<Placed<Probability>>,
    /// Writes fail only while this file exists.
    error_pwrite_file: Option<Placed<PathBuf>>,
    /// The error of trims.
    error_trim: Option<Placed<Which>>,
    /// How likely a trim fails.
    error_trim_rate: Option<Placed<Probability>>,
    /// Trims fail only while this file exists.
    error_trim_file: Option<Placed<PathBuf>>,
    /// The error of zeroing.
    error_zero: Option<Placed<Which>>,
    /// How likely zeroing fails.
    error_zero_rate: Option<Placed<Probability>>,
    /// Zeroing fails only while this file exists.
    error_zero_file: Option<Placed<PathBuf>>,
    /// The error of block status requests.
    error_extents: Option<Placed<Which>>,
    /// How likely a block status request fails.
    error_extents_rate: Option<Placed<Probability>>,
    /// Block status requests fail only while this file exists.
    error_extents_file: Option<Placed<PathBuf>>,
    /// The error of cache requests.
    error_cache: Option<Placed<Which>>,
    /// How likely a cache request fails.
    error_cache_rate: Option<Placed<Probability>>,
    /// Cache requests fail only while this file exists.
    error_cache_file: Option<Placed<PathBuf>>,
    /// With the same number, a client that makes the same requests one after the other sees the same of them fail.
    /// Without it, others fail each time.
    error_seed: Option<u64>,
}

/// The errors that NBD can tell.
#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    #[choice(name = "EPERM")]
    Perm,
    #[choice(name = "EIO")]
    Io,
    #[choice(name = "ENOMEM")]
    NoMem,
    #[choice(name = "EINVAL")]
    Inval,
    #[choice(name = "ENOSPC")]
    NoSpc,
    #[choice(name = "EOVERFLOW")]
    Overflow,
    #[choice(name = "ENOTSUP")]
    NotSup,
    #[choice(name = "ESHUTDOWN")]
    Shutdown,
}

impl Filter for Error {
    const NAME: &'static str = "error";
    const MANUAL: &'static str = include_str!("error.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        let Error { error, error_rate, ref error_file, .. } = self;
        let rule = |own: Option<Placed<Which>>,
                    rate: Option<Placed<Probability>>,
                    file: Option<Placed<PathBuf>>| Rule {
            error: last(Some(error), own).unwrap_or(Which::Io),
            rate: last(Some(error_rate), rate).unwrap_or_default().chance(),
            file: last(error_file.clone(), file),
        };
        let rules = Rules {
            read: rule(self.error_pread, self.error_pread_rate, self.error_pread_file),
            write: rule(self.error_pwrite, self.error_pwrite_rate, self.error_pwrite_file),
            trim: rule(self.error_trim, self.error_trim_rate, self.error_trim_file),
            zero: rule(self.error_zero, self.error_zero_rate, self.error_zero_file),
            extents: rule(self.error_extents, self.error_extents_rate, self.error_extents_file),
            cache: rule(self.error_cache, self.error_cache_rate, self.error_cache_file),
            dice: Dice::new(self.error_seed),
        };
        Ok(Failing { rules: Arc::new(rules), next })
    }
}

/// The one that stood further right.
fn last<T>(all: Option<Placed<T>>, own: Option<Placed<T>>) -> Option<T> {
    [all, own].into_iter().flatten().max_by_key(|given| given.place).map(|given| given.value)
}

struct Failing {
    rules: Arc<Rules>,
    next: Arc<dyn Backend>,
}

impl Backend for Failing {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.next
            .open(client)
            .map(|disk| Ok(Arc::new(Around::new(Injector(self.rules.clone()), disk)) as Arc<dyn Disk>))
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

/// When requests of one kind fail, and how.
struct Rule {
    error: Which,
    rate: f64,
    file: Option<PathBuf>,
}

struct Rules {
    read: Rule,
    write: Rule,
    trim: Rule,
    zero: Rule,
    extents: Rule,
    cache: Rule,
    dice: Dice,
}

struct Injector(Arc<Rules>);

impl EveryRequest for Injector {
    fn may_place(&self) -> bool {
        self.0.write.rate <= 0.0
    }

    fn around<'a, T: Send + 'a>(&'a self, op: Op, call: impl FnOnce() -> Io<'a, T> + Send + 'a) -> Io<'a, T> {
        let rules = &self.0;
        let (rule, into) = match op.kind {
            OpKind::Read => (&rules.read, "pread"),
            OpKind::Write => (&rules.write, "pwrite"),
            OpKind::Trim => (&rules.trim, "trim"),
            OpKind::Zero { .. } => (&rules.zero, "zero"),
            OpKind::Extents => (&rules.extents, "extents"),
            OpKind::Cache => (&rules.cache, "cache"),
            OpKind::Flush => return call(),
        };
        let file_there = || rule.file.as_ref().is_none_or(|file| file.exists());
        if rule.rate <= 0.0 || rules.dice.throw() >= rule.rate || !file_there() {
            return call();
        }
        let errno = match rule.error {
            Which::Perm => Errno::PERM,
            Which::Io => Errno::IO,
            Which::NoMem => Errno::NOMEM,
            Which::Inval => Errno::INVAL,
            Which::NoSpc => Errno::NOSPC,
            Which::Overflow => Errno::OVERFLOW,
            Which::NotSup => Errno::NOTSUP,
            Which::Shutdown => Errno::SHUTDOWN,
        };
        DiskError::new(errno, format!("injecting {} error into {into}", rule.error)).into()
    }
}

/// Random numbers for many threads at once: a counter, its bits well mixed.
struct Dice(AtomicU64);

impl Dice {
    fn new(seed: Option<u64>) -> Dice {
        // The standard library's hash maps are seeded by the system; here that is random enough.
        Dice(AtomicU64::new(seed.unwrap_or_else(|| RandomState::new().build_hasher().finish())))
    }

    /// From 0 to below 1.
    fn throw(&self) -> f64 {
        let mut x = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Relaxed);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^= x >> 31;
        // The 53 bits that a float holds.
        (x >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, layer, noise, opened};
    use disk::{Data, Range, WriteFlags, ZeroFlags};

    const R: Range = Range::new(0, 512);
    const F: WriteFlags = WriteFlags { fua: false };

    /// What becomes of read, write, trim, zero, extents, cache and flush.
    fn outcome(params: &[&str]) -> String {
        let disk = opened::<Error>(params, &Memory::new(vec![0; 512]));
        let name = |r: Result<()>| r.map_or_else(|e| e.errno().name().unwrap(), |()| "-");
        [
            disk.read(R).wait().map(drop),
            disk.write(0, Data::zeroes(512), F).wait(),
            disk.trim(R, F).wait(),
            disk.zero(R, ZeroFlags::default()).wait(),
            disk.extents(R, 1).wait().map(drop),
            disk.cache(R).wait(),
            disk.flush().wait(),
        ]
        .map(name)
        .join(" ")
    }

    #[test]
    fn each_parameter_fails_its_kind_of_request() {
        assert_eq!(outcome(&[]), "- - - - - - -");
        assert_eq!(outcome(&["error-rate=100%"]), "EIO EIO EIO EIO EIO EIO -");
        assert_eq!(outcome(&["error-rate=1:1", "error=EPERM"]), "EPERM EPERM EPERM EPERM EPERM EPERM -");
        let some = ["error=ENOSPC", "error-pwrite-rate=1", "error-zero-rate=1", "error-zero=EINVAL"];
        assert_eq!(outcome(&some), "- ENOSPC - EINVAL - - -");
        assert_eq!(outcome(&["error-extents-rate=1", "error-cache-rate=1"]), "- - - - EIO EIO -");
        assert_eq!(outcome(&["error-pread-rate=1", "error-trim-rate=1"]), "EIO - EIO - - - -");
    }

    #[test]
    fn the_parameter_further_right_counts() {
        assert_eq!(outcome(&["error-pread-rate=1", "error-rate=0"]), "- - - - - - -");
        assert_eq!(outcome(&["error-rate=0", "error-pread-rate=1"]), "EIO - - - - - -");
    }

    #[test]
    fn a_file_switches_errors_on_and_off() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("inject");
        let param = format!("error-file={}", file.display());
        let memory = Memory::new(vec![0; 512]);
        let disk = opened::<Error>(&["error-rate=1", &param], &memory);
        disk.read(R).wait().unwrap();
        std::fs::write(&file, "").unwrap();
        let why = disk.read(R).wait().unwrap_err().to_string();
        assert_eq!(why, "injecting EIO error into pread");
        std::fs::remove_file(&file).unwrap();
        disk.read(R).wait().unwrap();
    }

    #[test]
    fn a_refused_write_leaves_the_old_bytes() {
        let memory = Memory::new(noise(1, 512));
        let disk = opened::<Error>(&["error-rate=1"], &memory);
        assert!(disk.place(R).is_none());
        disk.write(0, Data::zeroes(512), F).wait().unwrap_err();
        assert_eq!(memory.bytes(), noise(1, 512));
    }

    #[test]
    fn a_rate_is_kept_within_reason() {
        let disk = opened::<Error>(&["error-rate=25%"], &Memory::new(vec![0; 512]));
        let failed = (0..4000).filter(|_| disk.read(R).wait().is_err()).count();
        assert!((800..1200).contains(&failed), "{failed} of 4000 failed");
    }

    #[test]
    fn with_a_seed_the_same_requests_fail_again() {
        let fails = |seed: &str| -> Vec<bool> {
            let disk = opened::<Error>(&["error-rate=50%", seed], &Memory::new(vec![0; 512]));
            (0..64).map(|_| disk.read(R).wait().is_err()).collect()
        };
        assert_eq!(fails("error-seed=5"), fails("error-seed=5"));
        assert_ne!(fails("error-seed=5"), fails("error-seed=6"));
    }

    #[test]
    fn unknown_errors_are_refused() {
        let memory = Memory::new(vec![0; 512]);
        let why = layer::<Error>(&["error=EFOO"], &memory).err().unwrap().to_string();
        assert!(why.starts_with("error: error=EFOO: not one of EPERM, EIO, "), "{why}");
    }
}
