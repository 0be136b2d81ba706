//! Manifests of disks.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| tools::copy::manifest::fuzz(bytes));
