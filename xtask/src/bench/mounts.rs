//! A disk as a file: our `mount` beside nbdfuse, over one server.

use super::{
    Options,
    servers::{self, Kind, Server, Store, diskpipe, words},
    table::{Column, Row, head, line, short},
};
use crate::packages;
use anyhow::{Context, Result, bail};
use disk::BufMut;
use rustix::fs::OFlags;
use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What a program does with the file, one request at a time.
struct Use {
    name: &'static str,
    write: bool,
    /// In bytes.
    block: usize,
    /// Not here and there, but from the start on.
    in_order: bool,
    /// With `O_DIRECT`.
    direct: bool,
}

const fn reads(name: &'static str, block: usize, in_order: bool, direct: bool) -> Use {
    Use { name, write: false, block, in_order, direct }
}

const fn writes(name: &'static str, block: usize, in_order: bool, direct: bool) -> Use {
    Use { name, write: true, block, in_order, direct }
}

/// A server that answers reads after a while.
const FAR: &str = "nbdkit (2 ms later)";

const K: usize = 1 << 10;
const USES: &[Use] = &[
    reads("read-4k", 4 * K, false, false),
    reads("read-4k-in-order", 4 * K, true, false),
    reads("read-128k-in-order", 128 * K, true, false),
    reads("read-1m-in-order", K * K, true, false),
    writes("write-4k", 4 * K, false, false),
    writes("write-128k-in-order", 128 * K, true, false),
    reads("read-4k-direct", 4 * K, false, true),
    reads("read-128k-in-order-direct", 128 * K, true, true),
    writes("write-4k-direct", 4 * K, false, true),
    writes("write-128k-in-order-direct", 128 * K, true, true),
];

pub(super) fn compare(options: &Options) -> Result<()> {
    if !["nbdfuse", "fusermount3"].iter().all(|program| packages::is_installed(program)) {
        println!("\nSKIPPED: mounts: nbdfuse and fusermount3 are needed");
        return Ok(());
    }
    let ours = diskpipe();
    let tools =
        [words(&["nbdfuse"]), words(&[&ours, "mount"]), words(&[&ours, "mount", "-o", "kernel_cache"])];
    let mut far = Kind::plugin(words(&["--filter=delay", "memory", "256M", "rdelay=2ms"]));
    far.name = FAR.into();
    for kind in [Kind::nbdkit(Store::File), Kind::diskpipe(Store::File), far] {
        let server = Server::start(&kind)?;
        let mounts =
            tools.iter().map(|tool| Mounted::start(tool, &server.uri())).collect::<Result<Vec<_>>>()?;
        let shows = |used: &&Use| kind.name != FAR || used.shows_distance();
        let uses: Vec<_> =
            USES.iter().filter(|used| used.name.contains(&options.shape)).filter(shows).collect();
        let column = |mounted: &'_ Mounted| {
            let (file, uses, time) = (mounted.file.clone(), uses.clone(), options.time());
            Column { name: "mount".into(), measure: Box::new(move |n| uses[n].measure(&file, time)) }
        };
        let columns: Vec<Column<'_>> = mounts.iter().map(column).collect();
        let title = format!("A disk as a file, over one that {} serves; as shares of nbdfuse", kind.name);
        head(&title, ["", "nbdfuse/s", "diskpipe mount", "with -o kernel_cache"]);
        for (n, used) in uses.iter().enumerate() {
            let row = Row::measure(&columns, n, options.rounds);
            line([
                used.name.to_owned(),
                short(row.figure(0)),
                short(row.ratio(1, 0)),
                short(row.ratio(2, 0)),
            ]);
        }
    }
    Ok(())
}

impl Use {
    /// Whether reading ahead hides how far away the server is.
    fn shows_distance(&self) -> bool {
        self.in_order && !self.write && !self.direct
    }

    /// Requests in a second. The file is opened anew, also when each of its blocks had its turn, so that no tool's figure is
    /// that of the kernel's cache.
    fn measure(&self, path: &Path, time: Duration) -> Result<f64> {
        let flags = if self.direct { OFlags::DIRECT } else { OFlags::empty() };
        let flags = flags.bits().cast_signed();
        let open = || File::options().read(true).write(self.write).custom_flags(flags).open(path);
        let mut file = open()?;
        let blocks = file.metadata()?.len() / self.block as u64;
        let mut buffer = BufMut::zeroed(self.block);
        let (start, mut done) = (Instant::now(), 0u64);
        let mut order = Shuffled::new(blocks);
        while start.elapsed() < time {
            if done > 0 && done.is_multiple_of(blocks) {
                file = open()?;
            }
            let at = if self.in_order { done % blocks } else { order.next() } * self.block as u64;
            match self.write {
                true => file.write_all_at(&buffer, at)?,
                false => file.read_exact_at(&mut buffer, at)?,
            }
            done += 1;
        }
        Ok(done as f64 / start.elapsed().as_secs_f64())
    }
}

/// The numbers of blocks here and there, each once before any comes again: fio's order (its `norandommap` aside). Were some
/// drawn twice, the second time would measure the kernel's cache in those tools that use it.
struct Shuffled {
    blocks: u64,
    /// The next power of two that is not below `blocks`, less one.
    mask: u64,
    state: u64,
}

impl Shuffled {
    fn new(blocks: u64) -> Shuffled {
        Shuffled { blocks, mask: blocks.next_power_of_two() - 1, state: 1 }
    }

    fn next(&mut self) -> u64 {
        loop {
            // Each step is a bijection of the numbers up to the mask: a generator of full period, then its high bits mixed
            // into the low ones.
            self.state = self.state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
            let low = self.state & self.mask;
            let mixed = low ^ low >> (self.mask.count_ones() / 2).max(1);
            if mixed < self.blocks {
                return mixed;
            }
        }
    }
}

/// A mount, taken down when it is dropped.
struct Mounted {
    process: Child,
    file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Mounted {
    fn start(tool: &[String], uri: &str) -> Result<Mounted> {
        const PATIENCE: Duration = Duration::from_secs(30);
        let dir = servers::scratch()?;
        let (file, pidfile) = (dir.path().join("disk"), dir.path().join("pid"));
        File::create(&file)?;
        let mut command = Command::new(&tool[0]);
        command.args(&tool[1..]).arg("-P").arg(&pidfile).arg(&file).arg(uri).stdin(Stdio::null());
        let process = command.spawn().with_context(|| format!("{} does not start", tool[0]))?;
        let mut mounted = Mounted { process, file, _dir: dir };
        let start = Instant::now();
        while fs::metadata(&pidfile).is_err() {
            if let Some(status) = mounted.process.try_wait()? {
                bail!("{} ended with {status}", tool.join(" "));
            }
            if start.elapsed() > PATIENCE {
                bail!("{} does not mount", tool.join(" "));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(mounted)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("fusermount3").args(["-u", "-z"]).arg(&self.file).status();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_block_has_its_turn_before_any_comes_again() {
        for blocks in [1, 2, 3, 1000, 65536] {
            let mut order = Shuffled::new(blocks);
            for _ in 0..3 {
                let mut seen: Vec<_> = (0..blocks).map(|_| order.next()).collect();
                seen.sort_unstable();
                assert!(seen.into_iter().eq(0..blocks), "{blocks}");
            }
        }
    }
}
