//! Every filter passes the conformance kit, over several kinds of disks.

use conformance::{Case, Expect::Model};
use filters::FILTERS;
use std::{any::Any, process::ExitCode};

fn main() -> ExitCode {
    conformance::filters(
        FILTERS,
        vec![
            Case::new("blocksize", &[], Model),
            Case::new("blocksize", &[("minblock", "4K"), ("maxdata", "8K"), ("maxlen", "64K")], Model),
            Case::new("cow", &[], Model).with_own_storage(),
            Case::new("cow", &[("cow-block-size", "64K"), ("cow-on-cache", "true")], Model)
                .with_own_storage(),
            Case::new("cow", &[("cow-on-read", "true")], Model).with_own_storage(),
            Case::new("delay", &[("rdelay", "1ms"), ("wdelay", "1ms")], Model),
            Case::new("error", &[("error", "EIO"), ("error-rate", "0%")], Model),
            Case::new("fua", &[], Model),
            Case::new("fua", &[("fuamode", "emulate")], Model),
            Case::new("fua", &[("fuamode", "pass")], Model),
            Case::new("log", &[], Model).with(|| file("logfile")),
            Case::new("nocache", &[], Model),
            Case::new("nocache", &[("cachemode", "emulate")], Model),
            Case::new("nocache", &[("cachemode", "nop")], Model),
            Case::new("noextents", &[], Model),
            Case::new("noparallel", &[], Model),
            Case::new("nozero", &[], Model),
            Case::new("nozero", &[("zeromode", "emulate")], Model),
            Case::new("nozero", &[("zeromode", "notrim"), ("fastzeromode", "slow")], Model),
            Case::new("offset", &[("offset", "4096"), ("range", "200K")], Model),
            Case::new("offset", &[("offset", "512")], Model),
            Case::new("rate", &[("rate", "1T"), ("connection-rate", "1T")], Model),
            Case::new("stats", &[], Model).with(|| file("statsfile")),
            // Only smaller: a larger disk refuses what a model takes, and is checked against one of its own.
            Case::new("truncate", &[("truncate", "100K")], Model),
            Case::new("truncate", &[("round-down", "64K")], Model),
        ],
    )
}

/// A parameter that names a file in a directory of its own.
fn file(key: &str) -> (Vec<(String, String)>, Box<dyn Any + Send>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("file").display().to_string();
    (vec![(key.to_owned(), path)], Box::new(dir))
}
