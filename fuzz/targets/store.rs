//! The file of overlays and caches: damaged anywhere, it opens or says why not.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = store::crash::open_damaged(input);
});
