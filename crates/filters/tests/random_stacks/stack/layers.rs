//! The filters of a random stack and their parameters, none of which change what a disk holds.

use disk::{Backend, Result};
use params::Args;
use std::sync::Arc;

/// A filter, by its name, and its parameters, of which each number is made.
type Make = fn(u64) -> Vec<String>;

/// Filters with parameters that a number chooses.
pub const LAYERS: &[(&str, Make)] = &[
    ("offset", |n| vec![format!("offset={}", n * 512)]),
    ("offset", |n| vec![format!("offset={}", n % 16 * 512), format!("range={}", (n / 16 + 1) * 512)]),
    // A wild one: it may not fit.
    ("offset", |n| vec![format!("offset={}", n * 77), format!("range={}", n * 33)]),
    ("truncate", |n| vec![format!("truncate={}", n * 512)]),
    ("truncate", |n| vec![format!("round-down={}", 1 << (n % 16))]),
    ("truncate", |n| vec![format!("round-up={}", 1 << (n % 17))]),
    ("nozero", |n| {
        let zero = ["none", "emulate", "notrim", "plugin"][n as usize % 4];
        let fast = ["default", "none", "slow", "ignore"][n as usize / 4 % 4];
        vec![format!("zeromode={zero}"), format!("fastzeromode={fast}")]
    }),
    ("noextents", |_| vec![]),
    ("cow", |n| {
        let size = ["4K", "8K", "64K"][n as usize % 3];
        vec![
            format!("cow-block-size={size}"),
            format!("cow-on-read={}", n & 4 != 0),
            format!("cow-on-cache={}", n & 8 != 0),
        ]
    }),
    ("log", |_| vec!["logfile=/dev/null".into()]),
    ("crashlab", |_| vec!["crashlab-memory=1M".into()]),
    ("trace", |_| vec!["trace-file=/dev/null".into()]),
    ("stats", |n| vec!["statsfile=/dev/null".into(), format!("statsthreshold={}", n % 101)]),
    ("delay", |n| vec!["rdelay=0".into(), "wdelay=0".into(), format!("delay-fast-zero={}", n & 1 != 0)]),
    ("error", |_| vec!["error=ENOMEM".into(), "error-rate=0".into()]),
    ("blocksize", |n| vec![format!("minblock={}", 1 << (n % 14)), format!("maxdata={}", 1 << (13 + n % 3))]),
    ("fua", |n| {
        let mode = ["none", "emulate", "native", "force", "pass", "discard"][n as usize % 6];
        vec![format!("fuamode={mode}")]
    }),
    ("nocache", |n| vec![format!("cachemode={}", ["none", "emulate", "nop"][n as usize % 3])]),
    ("noparallel", |n| {
        vec![format!("serialize={}", ["requests", "all-requests", "connections"][n as usize % 3])]
    }),
    ("rate", |n| vec![format!("rate={}T", n + 1), "connection-rate=1T".into()]),
    ("blocksize-policy", |n| {
        let policy = ["allow", "error"][n as usize % 2];
        vec![format!("blocksize-error-policy={policy}"), format!("blocksize-minimum={}", 1 << (n / 2 % 14))]
    }),
    ("cache", |n| {
        let mode = ["writeback", "writethrough", "unsafe"][n as usize % 3];
        let size = ["8K", "16K", "1M"][n as usize / 3 % 3];
        let params = [format!("cache={mode}"), format!("cache-on-read={}", n & 1 != 0)];
        let sizes = ["cache-min-block-size=4K".into(), format!("cache-max-size={size}")];
        params.into_iter().chain(sizes).collect()
    }),
    ("cacheextents", |_| vec![]),
    ("count", |_| vec![]),
    ("exportname", |n| vec!["exportdesc=fixed:x".into(), format!("default-export={}", n % 3)]),
    ("ip", |_| vec!["deny=10.0.0.0/8".into()]),
    ("multi-conn", |n| {
        let mode = ["auto", "emulate", "plugin", "disable"][n as usize % 4];
        let track = ["connection", "fast", "off"][n as usize / 4 % 3];
        vec![format!("multi-conn-mode={mode}"), format!("multi-conn-track-dirty={track}")]
    }),
    ("limit", |_| vec!["limit=0".into()]),
    // Cut into pieces that stay where they are: elsewhere they might not fit.
    ("map", |n| {
        let piece = |start: u64, len: u64| format!("map={start}-{}:{start}", start + len - 1);
        vec![piece(n % 8 * 512, 512 * (n % 3 + 1)), piece(n % 5 * 1024, 4096), piece(n / 8 * 512, 512)]
    }),
    ("nofilter", |_| vec![]),
    ("openonce", |_| vec![]),
    ("protect", |n| vec![format!("protect={}-", (n + 1) << 20)]),
    ("readahead", |_| vec![]),
    ("scan", |n| vec![format!("scan-size={}", 512 << (n % 6)), format!("scan-ahead={}", n & 1 != 0)]),
    ("readonly", |_| vec![]),
    ("readonly", |_| vec!["readonly-file=/nonexistent/file".into()]),
    ("rotational", |n| vec![format!("rotational={}", n & 1 != 0)]),
    ("swab", |n| vec![format!("swab-bits={}", 8 << (n % 4))]),
    ("evil", |_| vec!["evil-probability=0".into()]),
    ("exitlast", |_| vec![]),
    ("exitwhen", |_| vec!["exit-when-poll=1".into()]),
    ("retry", |n| vec![format!("retries={}", n % 2), "retry-delay=0".into()]),
    ("retry-request", |n| vec![format!("retry-request-retries={}", n % 3), "retry-request-delay=0".into()]),
    ("spinning", |n| {
        let none = ["min", "half", "max"].map(|time| format!("{time}-seek-time=0"));
        none.into_iter()
            .chain([format!("heads={}", n % 5 + 1), format!("separate-heads={}", n & 8 != 0)])
            .collect()
    }),
    ("time-limit", |_| vec!["time-limit=1000".into()]),
    ("tls-fallback", |_| vec![]),
    ("xor", |n| vec![format!("xor={}", n * 0x1234_5678), format!("xorlen={}", n % 8 + 1)]),
];

/// Filters that let requests fail, say of a disk what is not so, or need a file of their own.
pub const OTHERS: &[&str] =
    &["cbt", "checkwrite", "ddrescue", "extentlist", "partition", "pause", "prefetch"];

/// One filter of a stack: which one, and the number that chooses its parameters.
#[derive(Clone, Copy, Debug)]
pub struct Layer([u8; Layer::LEN]);

impl Layer {
    pub const LEN: usize = 2;

    pub fn decode(bytes: &[u8]) -> Layer {
        Layer(bytes.try_into().expect("two bytes"))
    }

    /// Whether this may make a disk larger, whose end takes zeroes only.
    pub fn grows(self) -> bool {
        LAYERS[usize::from(self.0[0]) % LAYERS.len()].0 == "truncate"
    }

    /// Whether this answers a write before it is done, and tells of a lack of space when it is flushed.
    pub fn writes_late(self) -> bool {
        let (name, parameters) = LAYERS[usize::from(self.0[0]) % LAYERS.len()];
        name == "crashlab" || name == "cache" && parameters(self.0[1].into())[0] != "cache=writethrough"
    }

    /// The filter over `next`.
    pub fn over(self, next: Arc<dyn Backend>) -> Result<Arc<dyn Backend>> {
        let (name, parameters) = LAYERS[usize::from(self.0[0]) % LAYERS.len()];
        let entry = filters::find(name).expect("every layer is a filter");
        let parameters = parameters(self.0[1].into());
        let words: Vec<&str> = parameters.iter().map(String::as_str).collect();
        let mut args = Args::from_cli(&words, None)?;
        let filter = entry.start(&mut args, next)?;
        args.finish(&[(name, entry.about.params)])?;
        Ok(filter)
    }
}
