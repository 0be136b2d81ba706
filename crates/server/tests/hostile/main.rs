//! Clients that send anything at all: the server must neither panic nor hang, and answer what was asked.
//!
//! The same sessions are fuzzed; see `fuzz/README.md`. Here they run on every machine, a bounded number of them.
#![allow(missing_docs, unreachable_pub, reason = "shared with the fuzz target")]

mod seeds;
mod session;

use conformance::Random;
use std::{fs, path::Path};

#[test]
fn every_seed_runs() {
    for (name, input) in seeds::all() {
        let answers = session::run(&input);
        println!("{name}: {answers} answers");
        // What a client means as it should be is answered in full.
        let whole = [
            "oldstyle",
            "simple",
            "structured",
            "extended",
            "huge",
            "export-name",
            "no-contexts",
            "many-options",
        ];
        assert!(answers >= 3 || !whole.contains(&&*name), "{name}: only {answers} answers");
    }
}

#[test]
fn the_committed_seeds_are_what_the_generator_writes() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/session");
    if !dir.parent().is_some_and(Path::exists) {
        println!("SKIPPED: needs the fuzz directory");
        return;
    }
    let write = std::env::var_os("WRITE_SEEDS").is_some();
    for (name, input) in seeds::all() {
        let path = dir.join(&name);
        if write {
            fs::create_dir_all(&dir).unwrap();
            fs::write(&path, &input).unwrap();
        }
        let found = fs::read(&path).unwrap_or_default();
        assert!(found == input, "{} is not what it was: WRITE_SEEDS=1 writes it anew", path.display());
    }
}

/// What fuzzers and people have found.
#[test]
fn every_committed_input_runs() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/session");
    for dir in [seeds.join("found"), seeds] {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(|path| path.is_file()) {
            println!("{}", path.display());
            session::run(&fs::read(path).unwrap());
        }
    }
}

#[test]
fn sessions_with_bytes_changed_neither_panic_nor_hang() {
    let seed = std::env::var("HOSTILE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("HOSTILE_SEED={seed}");
    let seeds = seeds::all();
    let mut random = Random::new(seed);
    for _ in 0..3000 {
        let mut input = seeds[random.below(seeds.len() as u64) as usize].1.clone();
        for _ in 0..=random.below(4) {
            change(&mut input, &mut random, &seeds);
        }
        let shown = input.clone();
        // Not caught: the message of the panic follows it in the output.
        let outcome = std::panic::catch_unwind(|| session::run(&input));
        assert!(outcome.is_ok(), "the session was {shown:02x?}");
    }
}

/// One of the changes that break parsers.
fn change(input: &mut Vec<u8>, random: &mut Random, seeds: &[(String, Vec<u8>)]) {
    let at = random.below(input.len() as u64 + 1) as usize;
    let len = (random.below(40) as usize).min(input.len() - at);
    match random.below(8) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5) as usize],
        2 => drop(input.drain(at..at + len)),
        3 => input.truncate(at),
        4 => {
            let copy = input[at..at + len].to_vec();
            let to = random.below(input.len() as u64 + 1) as usize;
            input.splice(to..to, copy);
        }
        5 => {
            // Numbers are what lengths and offsets are made of.
            let number = random.any() >> random.below(64);
            for (byte, new) in input[at..].iter_mut().zip(number.to_be_bytes()) {
                *byte = new;
            }
        }
        6 => {
            let other = &seeds[random.below(seeds.len() as u64) as usize].1;
            let from = random.below(other.len() as u64) as usize;
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => {
            // Another setting for the same client.
            let setting = random.any().to_be_bytes();
            for (byte, new) in input.iter_mut().zip(&setting[..3]) {
                *byte = *new;
            }
        }
    }
}
