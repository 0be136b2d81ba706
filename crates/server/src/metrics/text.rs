//! Prometheus's text format.

use super::{
    Metrics,
    count::{CLASSES, Counts, Kind, NAMES, bound},
};
use std::{
    fmt::{Display, Write},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// Everything.
pub(super) fn of(metrics: &Metrics) -> String {
    let mut text = Text(String::new());
    text.family("diskpipe_info", "gauge", "The program.");
    text.line("diskpipe_info", &format!("version=\"{}\"", env!("CARGO_PKG_VERSION")), 1);
    text.family("diskpipe_start_time_seconds", "gauge", "When the server began, in seconds since 1970.");
    text.line("diskpipe_start_time_seconds", "", metrics.started);
    text.family("diskpipe_connections_total", "counter", "Connections that were accepted.");
    text.line("diskpipe_connections_total", "", metrics.connections.load(Relaxed));
    text.family("diskpipe_connections", "gauge", "Connections at this moment.");
    text.line("diskpipe_connections", "", metrics.connected.load(Relaxed));

    let exports: Vec<_> = {
        let exports = metrics.exports.lock().unwrap_or_else(PoisonError::into_inner);
        exports.iter().map(|(name, export)| (escaped(name), export.clone())).collect()
    };
    text.family("diskpipe_opens_total", "counter", "How often an export was opened.");
    for (name, export) in &exports {
        text.line("diskpipe_opens_total", &format!("export=\"{name}\""), export.opened.load(Relaxed));
    }
    let mut kinds = Vec::new();
    for (name, export) in &exports {
        for (index, operation) in NAMES.iter().enumerate() {
            let sums = Sums::of(&export.counts, index);
            if sums.operations > 0 {
                kinds.push((format!("export=\"{name}\",operation=\"{operation}\""), sums));
            }
        }
    }
    type Get = fn(&Sums) -> u64;
    let families: [(&str, &str, Get); 3] = [
        ("diskpipe_operations_total", "Operations that were answered.", |sums| sums.operations),
        ("diskpipe_errors_total", "Operations that failed.", |sums| sums.errors),
        ("diskpipe_bytes_total", "Bytes of operations that succeeded.", |sums| sums.bytes),
    ];
    for (family, help, get) in families {
        text.family(family, "counter", help);
        kinds.iter().for_each(|(labels, sums)| text.line(family, labels, get(sums)));
    }
    text.family(
        "diskpipe_operation_seconds",
        "histogram",
        "How long operations took, until they were answered.",
    );
    kinds.iter().for_each(|(labels, sums)| text.histogram("diskpipe_operation_seconds", labels, sums));
    text.0
}

/// The counters of one operation over all sets.
#[derive(Default)]
struct Sums {
    operations: u64,
    errors: u64,
    bytes: u64,
    nanoseconds: u64,
    classes: [u64; CLASSES],
}

impl Sums {
    fn of(counts: &[Arc<Counts>], index: usize) -> Sums {
        let kinds = || counts.iter().map(|counts| &counts.0[index]);
        let sum = |get: &dyn Fn(&Kind) -> &AtomicU64| kinds().map(|kind| get(kind).load(Relaxed)).sum();
        Sums {
            // First: an operation that ends meanwhile may be in the classes already, but never only here.
            classes: std::array::from_fn(|class| sum(&|kind| &kind.classes[class])),
            operations: sum(&|kind| &kind.operations),
            errors: sum(&|kind| &kind.errors),
            bytes: sum(&|kind| &kind.bytes),
            nanoseconds: sum(&|kind| &kind.nanoseconds),
        }
    }
}

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    fn histogram(&mut self, name: &str, labels: &str, sums: &Sums) {
        let mut so_far = 0;
        for (class, count) in sums.classes.iter().enumerate() {
            so_far += count;
            self.line(&format!("{name}_bucket"), &format!("{labels},le=\"{}\"", bound(class)), so_far);
        }
        let all = sums.operations.max(so_far);
        self.line(&format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), all);
        self.line(&format!("{name}_sum"), labels, sums.nanoseconds as f64 / 1e9);
        self.line(&format!("{name}_count"), labels, all);
    }
}

/// A label's value.
fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
