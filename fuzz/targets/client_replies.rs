//! A whole session of a client with a server that says anything: the handshake, and replies to requests. The first bytes
//! are how it begins, how the server's bytes come, and what is asked.
#![no_main]

#[path = "../../crates/client/tests/hostile/session/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests of the client use the rest")]
mod session;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    session::run(bytes);
});
