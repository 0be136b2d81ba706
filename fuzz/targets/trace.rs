//! The file that the filter trace writes and prefetch reads.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    filters::try_trace(bytes);
});
