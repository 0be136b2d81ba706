//! What a server does, in numbers that Prometheus reads: connections, and per export operations, bytes, errors and how
//! long operations took.
//!
//! Nothing is counted unless somebody puts a [`Metrics`] over the backend. Counting then costs three or four additions
//! per request, to counters that few connections share.

mod count;
mod http;
mod text;

pub use http::{Endpoint, Page};

use count::Counts;
use disk::{
    Around, Backend, Client, Disk, Io,
    shapes::{Op, around::EveryRequest},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// So many exports are told apart: their names come from clients, who could name any number.
const EXPORTS_MAX: usize = 500;
/// What all others are counted as.
const OTHERS: &str = "(others)";

/// The counters of one server.
pub struct Metrics {
    /// Seconds since 1970.
    started: f64,
    connections: AtomicU64,
    connected: AtomicU64,
    exports: Mutex<BTreeMap<String, Arc<Export>>>,
}

/// The counters of one export.
#[derive(Default)]
struct Export {
    opened: AtomicU64,
    /// Connections are spread over a few sets of counters, so that they do not fight for cache lines.
    counts: [Arc<Counts>; 4],
}

impl Metrics {
    /// Counters at zero.
    #[expect(clippy::new_without_default, reason = "it notes the time")]
    pub fn new() -> Metrics {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        Metrics {
            started,
            connections: AtomicU64::new(0),
            connected: AtomicU64::new(0),
            exports: Mutex::default(),
        }
    }

    /// `backend`, held to its thread model, with everything that is asked of it counted.
    pub fn over(self: &Arc<Self>, backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
        // Waiting for one's turn is part of how long a request takes.
        Arc::new(Metered { metrics: self.clone(), next: disk::serialized::backend(backend) })
    }

    /// Everything, in Prometheus's text format.
    pub fn text(&self) -> String {
        text::of(self)
    }

    fn export(&self, name: &str) -> Arc<Export> {
        let mut exports = self.exports.lock().unwrap_or_else(PoisonError::into_inner);
        let name = if exports.len() < EXPORTS_MAX || exports.contains_key(name) { name } else { OTHERS };
        if let Some(export) = exports.get(name) {
            return export.clone();
        }
        let export = Arc::new(Export::default());
        exports.insert(name.to_owned(), export.clone());
        export
    }
}

struct Metered {
    metrics: Arc<Metrics>,
    next: Arc<dyn Backend>,
}

impl Backend for Metered {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.next.open(client).map(move |disk| {
            let export = self.metrics.export(client.export);
            export.opened.fetch_add(1, Relaxed);
            let counts = export.counts[client.connection as usize % export.counts.len()].clone();
            Ok(Arc::new(Around::new(Meter(counts), disk)) as Arc<dyn Disk>)
        })
    }

    fn preconnect<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, ()> {
        self.metrics.connections.fetch_add(1, Relaxed);
        self.metrics.connected.fetch_add(1, Relaxed);
        self.next.preconnect(client)
    }

    fn disconnected(&self, connection: u64) {
        self.metrics.connected.fetch_sub(1, Relaxed);
        self.next.disconnected(connection);
    }

    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

struct Meter(Arc<Counts>);

impl EveryRequest for Meter {
    fn may_place(&self) -> bool {
        true
    }

    fn around<'a, T: Send + 'a>(&'a self, op: Op, call: impl FnOnce() -> Io<'a, T> + Send + 'a) -> Io<'a, T> {
        let start = Instant::now();
        call().inspect(move |outcome| self.0.add(op, outcome.is_ok(), start.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk::{Data, Errno, Facts, Range, WriteFlags};

    struct Half(Facts);
    impl Disk for Half {
        fn facts(&self) -> &Facts {
            &self.0
        }
        fn read(&self, r: Range) -> Io<'_, Data> {
            if r.start < 4096 { Io::ok(Data::zeroes(r.len)) } else { Errno::IO.into() }
        }
        fn write(&self, _: u64, _: Data, _: WriteFlags) -> Io<'_, ()> {
            Io::ok(())
        }
    }
    struct Halves;
    impl Backend for Halves {
        fn open<'a>(&'a self, _: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
            Io::ok(Arc::new(Half(Facts::writable(8192))))
        }
    }

    #[test]
    fn what_is_done_is_counted_by_export() {
        let metrics = Arc::new(Metrics::new());
        let backend = metrics.over(Arc::new(Halves));
        for connection in 1..=2 {
            let client = Client { connection, export: "a\"b", ..Client::default() };
            backend.preconnect(&client).wait().unwrap();
            let disk = backend.open(&client).wait().unwrap();
            disk.read(Range::new(0, 512)).wait().unwrap();
            disk.read(Range::new(4096, 512)).wait().unwrap_err();
            disk.write(0, Data::zeroes(1000), WriteFlags::default()).wait().unwrap();
        }
        backend.disconnected(1);
        let text = metrics.text();
        for line in [
            "diskpipe_connections_total 2",
            "diskpipe_connections 1",
            "diskpipe_opens_total{export=\"a\\\"b\"} 2",
            "diskpipe_operations_total{export=\"a\\\"b\",operation=\"read\"} 4",
            "diskpipe_errors_total{export=\"a\\\"b\",operation=\"read\"} 2",
            "diskpipe_bytes_total{export=\"a\\\"b\",operation=\"read\"} 1024",
            "diskpipe_bytes_total{export=\"a\\\"b\",operation=\"write\"} 2000",
            "diskpipe_operation_seconds_bucket{export=\"a\\\"b\",operation=\"write\",le=\"+Inf\"} 2",
            "diskpipe_operation_seconds_count{export=\"a\\\"b\",operation=\"write\"} 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(!text.contains("operation=\"trim\""), "what was never asked is left out\n{text}");
    }

    #[test]
    fn clients_cannot_make_any_number_of_exports() {
        let metrics = Metrics::new();
        (0..EXPORTS_MAX + 50).for_each(|i| drop(metrics.export(&i.to_string())));
        assert_eq!(metrics.exports.lock().unwrap().len(), EXPORTS_MAX + 1);
        assert!(metrics.text().contains("export=\"(others)\""));
    }
}
