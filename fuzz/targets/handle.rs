//! A whole session of a handle that is pumped with a server that says anything. It must end, and every request in it once.
#![no_main]

#[path = "../../crates/client/tests/handle/session.rs"]
#[allow(dead_code, reason = "the tests of the client use the rest")]
mod session;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    session::run(bytes);
});
