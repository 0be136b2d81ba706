//! The header of a file of the filter cbt, as it is and with its sum made right, so that what lies behind it is reached.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    filters::try_cbt_header(bytes);
});
