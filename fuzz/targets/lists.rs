//! The lists that filters are given: extents, ddrescue's mapfile, who may connect, moved and protected ranges. The first
//! letter says which.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    filters::try_list(text);
});
