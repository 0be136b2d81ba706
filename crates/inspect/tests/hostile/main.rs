//! Disks that were made to do harm, or were damaged: an error is fine, a panic or a hang is not.
//!
//! The same walk is fuzzed; see `fuzz/README.md`. Here the seeds are changed a bounded number of times, on every machine.
#![allow(missing_docs, unreachable_pub, reason = "shared with the fuzz targets")]

mod walk;

use conformance::Random;
use std::{fs, path::Path, process::Command};

const KINDS: [&str; 4] = ["partitions", "ext", "fat", "iso"];

fn seeds(kind: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(kind);
    let files = fs::read_dir(&dir).into_iter().flatten().flatten().filter(|entry| entry.path().is_file());
    let mut seeds: Vec<(String, Vec<u8>)> = files
        .map(|entry| {
            (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("a seed"))
        })
        .collect();
    seeds.sort();
    seeds
}

#[test]
fn a_disk_is_the_same_after_packing() {
    let mut bytes = vec![0; 5 * 512];
    bytes[700] = 7;
    assert!(walk::unpack(&walk::pack(&bytes)) == bytes);
}

#[test]
fn what_seeds_hold_is_found() {
    for kind in KINDS {
        let seeds = seeds(kind);
        assert!(seeds.len() >= 3, "{kind}: {}", seeds.len());
        let files: usize = seeds.iter().map(|(_, seed)| walk::everything(walk::unpack(seed))).sum();
        assert!(files > seeds.len(), "{kind}: {files}");
    }
}

#[test]
fn damaged_disks_never_do_harm() {
    let mut random = Random::new(7);
    for kind in KINDS {
        for (name, seed) in seeds(kind) {
            let disk = walk::unpack(&seed);
            // What is not zero is where damage matters.
            let places: Vec<usize> = (0..disk.len()).filter(|at| disk[*at] != 0).collect();
            for round in 0..60 {
                let mut changed = disk.clone();
                for _ in 0..=random.below(8) {
                    let at =
                        places[random.below(places.len() as u64) as usize] / 4 * 4 + random.below(4) as usize;
                    changed[at] = [0, 1, 0x7f, 0xff, random.any() as u8][random.below(5) as usize];
                }
                walk::mend(&mut changed, kind);
                let outcome = std::panic::catch_unwind(|| walk::everything(changed));
                assert!(outcome.is_ok(), "the panic above came of {kind}/{name}, round {round}");
            }
        }
    }
}

/// Writes the seeds anew, with the programs of others: `WRITE_SEEDS=1`.
#[test]
fn seeds_are_written_when_that_is_asked_for() {
    if std::env::var_os("WRITE_SEEDS").is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/seeds.sh");
    assert!(Command::new("sh").arg(script).current_dir(dir.path()).status().expect("a shell").success());
    for kind in KINDS {
        let to = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(kind);
        fs::create_dir_all(&to).expect("a directory for seeds");
        for entry in fs::read_dir(dir.path().join(kind)).expect("what the script made").flatten() {
            let packed = walk::pack(&fs::read(entry.path()).expect("an image"));
            fs::write(to.join(entry.file_name()), packed).expect("a seed");
        }
    }
}

#[test]
fn inputs_that_fuzzers_found_do_no_harm() {
    for kind in KINDS {
        for (_, input) in seeds(&format!("{kind}/found")) {
            let mut disk = walk::unpack(&input);
            walk::mend(&mut disk, kind);
            walk::everything(disk);
        }
    }
}
