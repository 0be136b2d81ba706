//! A whole session of a server with a client that sends anything. The first three bytes are the setting: what the server
//! allows, how the bytes come, what disk it serves.
#![no_main]

#[path = "../../crates/server/tests/hostile/session/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests of the server use the rest")]
mod session;

use libfuzzer_sys::{Corpus, fuzz_target};

/// What goes into a pipe at once, and more than any defect has needed.
const LONGEST: usize = 256 << 10;

fuzz_target!(|bytes: &[u8]| -> Corpus {
    if bytes.len() > LONGEST {
        return Corpus::Reject;
    }
    session::run(bytes);
    Corpus::Keep
});
