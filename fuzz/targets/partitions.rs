//! Partition tables, and what is in the partitions: a disk in its sparse form, and a walk over all that is on it.
#![no_main]

#[path = "../../crates/inspect/tests/hostile/walk/mod.rs"]
mod walk;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut disk = walk::unpack(input);
    walk::mend(&mut disk, "partitions");
    walk::everything(disk);
});
