//! A random stack of filters over a disk, and a sequence of requests to it, against a model. The first bytes are the
//! disk and the filters, then eight for each request.
#![no_main]

#[path = "../../crates/filters/tests/random_stacks/stack/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests of the filters use the rest")]
mod stack;

use disk::Backend;
use libfuzzer_sys::fuzz_target;
use params::Args;
use std::sync::Arc;

/// The memory plugin, or a disk that waits and offers less.
fn below(number: u8) -> Arc<dyn Backend> {
    let Some(size) = number.checked_sub(128) else { return stack::fake(number) };
    let size = format!("size={}", u32::from(size) * 777 + 512);
    let mut args = Args::from_cli(&[&size], None).expect("a size");
    plugins::find("memory").expect("it is among the plugins").start(&mut args).expect("little memory")
}

fuzz_target!(|bytes: &[u8]| {
    stack::run(bytes, below);
});
