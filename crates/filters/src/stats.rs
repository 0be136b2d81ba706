//! `stats`: how many requests of which size took how long, written to a file when the server ends.

mod count;
mod json;
mod report;

use count::Counts;
use disk::{
    Around, Backend, Client, Disk, Error, Filter, Io, Result,
    shapes::{Op, around::EveryRequest},
    ticks::{self, Moment},
};
use params::{Choice, Params};
use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};
use thread_local::ThreadLocal;

/// Count requests, bytes and time, and write them to a file at the end.
#[derive(Params)]
pub(crate) struct Stats {
    /// The file to write; it is made when the server starts and written when it ends.
    statsfile: PathBuf,
    /// Append to the file instead of replacing it.
    #[param(default = "false")]
    statsappend: bool,
    /// Show the distribution of request sizes and alignments until this percentage of the requests is covered. 0
    /// leaves the distribution out.
    #[param(default = "95", placeholder = "PERCENTAGE")]
    statsthreshold: u8,
    /// `text` for people, or `json` for programs: one object in one line, with all sizes and alignments.
    #[param(default = "text")]
    statsformat: Format,
}

#[derive(Choice, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

impl Filter for Stats {
    const NAME: &'static str = "stats";
    const MANUAL: &'static str = include_str!("stats.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        if self.statsthreshold > 100 {
            let given = self.statsthreshold;
            return Err(Error::invalid(format!("statsthreshold={given}: not a percentage from 0 to 100")));
        }
        Ok(Counting {
            counts: Arc::default(),
            started: OnceLock::new(),
            file: Mutex::new(None),
            params: self,
            next,
        })
    }
}

struct Counting {
    counts: Arc<ThreadLocal<Counts>>,
    started: OnceLock<Moment>,
    file: Mutex<Option<File>>,
    params: Stats,
    next: Arc<dyn Backend>,
}

impl Counting {
    fn open_file(&self) -> Result<File> {
        let append = self.params.statsappend;
        OpenOptions::new()
            .create(true)
            .write(true)
            .append(append)
            .truncate(!append)
            .open(&self.params.statsfile)
            .map_err(|e| self.file_error(e))
    }

    fn file_error(&self, e: std::io::Error) -> Error {
        Error::from(e).context(format!("statsfile={}", self.params.statsfile.display()))
    }
}

impl Backend for Counting {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        let counts = self.counts.clone();
        self.next.open(client).map(|disk| Ok(Arc::new(Around::new(Meter(counts), disk)) as Arc<dyn Disk>))
    }
    fn get_ready(&self) -> Result<()> {
        self.next.get_ready()?;
        self.started.get_or_init(Moment::now);
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.open_file()?);
        Ok(())
    }
    fn finish(&self) {
        self.next.finish();
        let Some(mut file) = self.file.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let now = Moment::now();
        let started = *self.started.get_or_init(|| now);
        let elapsed = Duration::from_nanos(now.nanos - started.nanos);
        let counts: Vec<&Counts> = self.counts.iter().collect();
        let sums = count::sums(&counts, started.nanos_per_tick(now));
        let text = match self.params.statsformat {
            Format::Text => report::text(&sums, elapsed, self.params.statsthreshold),
            Format::Json => json::text(&sums, elapsed),
        };
        if let Err(e) = file.write_all(text.as_bytes()) {
            // Nobody is left to return it to.
            eprintln!("stats: {}", self.file_error(e));
        }
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

struct Meter(Arc<ThreadLocal<Counts>>);

impl EveryRequest for Meter {
    fn may_place(&self) -> bool {
        true
    }

    fn around<'a, T: Send + 'a>(&'a self, op: Op, call: impl FnOnce() -> Io<'a, T> + Send + 'a) -> Io<'a, T> {
        let counts = self.0.get_or_default();
        let weight = counts.weight(op.kind);
        let came = if weight > 0 { ticks::now() } else { 0 };
        match call() {
            Io::Ready(Ok(value)) => {
                let took = if weight > 0 { ticks::now().saturating_sub(came) } else { 0 };
                counts.add(op, took.saturating_mul(weight));
                Io::Ready(Ok(value))
            }
            io => self.later(op, came, io),
        }
    }
}

impl Meter {
    /// Counts a request when it is done, if it does not fail. It came at this tick, or (0) just now.
    #[cold]
    fn later<'a, T: Send + 'a>(&'a self, op: Op, came: u64, io: Io<'a, T>) -> Io<'a, T> {
        let came = if came > 0 { came } else { ticks::now() };
        io.inspect(move |outcome| {
            if outcome.is_ok() {
                self.0.get_or_default().add(op, ticks::now().saturating_sub(came));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, layer, open};
    use disk::{Data, Range, WriteFlags};

    #[test]
    fn the_file_tells_what_was_done() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("stats");
        let param = format!("statsfile={}", file.display());
        for append in ["statsappend=false", "statsappend=true"] {
            let memory = Memory::new(vec![0; 1 << 20]);
            let layer = layer::<Stats>(&[&param, append], &memory).unwrap();
            layer.get_ready().unwrap();
            let disk = open(&layer);
            for at in 0..3 {
                disk.write(at * 4096, Data::zeroes(4096), WriteFlags::default()).wait().unwrap();
            }
            disk.extents(Range::new(0, 8192), 1).wait().unwrap();
            disk.flush().wait().unwrap();
            drop(disk);
            layer.finish();
        }
        let text = std::fs::read_to_string(file).unwrap();
        assert_eq!(text.matches("total: 5 ops, ").count(), 2, "{text}");
        assert_eq!(text.matches("write: 3 ops, ").count(), 2, "{text}");
        assert_eq!(text.matches("flush: 1 ops, ").count(), 2, "{text}");
        assert!(!text.contains("read:") && !text.contains("trim:"), "{text}");
    }

    #[test]
    fn nonsense_is_refused_before_serving() {
        let memory = Memory::new(vec![0; 512]);
        let error = |params: &[&str]| layer::<Stats>(params, &memory).err().unwrap().to_string();
        assert!(error(&[]).contains("statsfile"));
        let threshold = error(&["statsfile=x", "statsthreshold=101"]);
        assert_eq!(threshold, "stats: statsthreshold=101: not a percentage from 0 to 100");
        let layer = layer::<Stats>(&["statsfile=/no/such/dir/x"], &memory).unwrap();
        let why = layer.get_ready().unwrap_err().to_string();
        assert_eq!(why, "statsfile=/no/such/dir/x: No such file or directory");
    }
}
