//! Random stacks of filters hold what a model holds: no filter harms another, in whatever order they stand.
//!
//! The same stacks are fuzzed; see `fuzz/README.md`. Here they run on every machine, a bounded number of them.
#![allow(missing_docs, unreachable_pub, reason = "shared with the fuzz target")]

mod stack;

use conformance::Random;
use stack::{LAYERS, Layer, OTHERS, Request};
use std::{fs, path::Path};

/// A stack of `count` filters over disk `below`, and as many requests.
fn input(below: u8, filters: &[(u8, u8)], requests: usize, random: &mut Random) -> Vec<u8> {
    let mut input = vec![below, filters.len() as u8];
    input.extend(filters.iter().flat_map(|(which, number)| [*which, *number]));
    input.extend((0..requests * Request::LEN).map(|_| random.any() as u8));
    input
}

fn run(input: &[u8]) -> usize {
    told(input, || stack::run(input, stack::fake))
}

fn told(input: &[u8], run: impl FnOnce() -> usize + std::panic::UnwindSafe) -> usize {
    // Not caught: the message of the panic goes before it in the output.
    let outcome = std::panic::catch_unwind(run);
    match outcome {
        Ok(made) => made,
        Err(_) => panic!("the stack was {:?} in {input:02x?}", names(input)),
    }
}

fn names(input: &[u8]) -> Vec<&'static str> {
    let layers = input[2..].chunks_exact(Layer::LEN).take(input[1].into());
    layers.map(|layer| LAYERS[usize::from(layer[0]) % LAYERS.len()].0).collect()
}

#[test]
fn every_filter_is_in_random_stacks() {
    for name in filters::FILTERS.iter().map(|filter| filter.about.name) {
        let known = LAYERS.iter().map(|(known, _)| *known).chain(OTHERS.iter().copied());
        assert!(known.into_iter().any(|known| known == name), "{name} has no line in stack/layers.rs");
    }
}

#[test]
fn every_pair_of_filters_holds_what_a_model_holds() {
    let mut random = Random::new(2);
    for upper in 0..LAYERS.len() as u8 {
        for lower in 0..LAYERS.len() as u8 {
            for below in 0..4 {
                let numbers = [random.any() as u8 % 24, random.any() as u8 % 24];
                let layers = [(lower, numbers[0]), (upper, numbers[1])];
                run(&input(below | 4, &layers, 12, &mut random));
            }
        }
    }
}

/// Filters that keep something of a disk, or make of one request several.
const WITH_STATE: &[&str] = &[
    "blocksize",
    "cache",
    "count",
    "cow",
    "crashlab",
    "fua",
    "map",
    "multi-conn",
    "nozero",
    "openonce",
    "readahead",
    "retry",
    "retry-request",
    "scan",
    "trace",
    "truncate",
];

#[test]
fn each_filter_with_state_holds_what_a_model_holds_over_a_disk_that_fails() {
    let mut random = Random::new(seed());
    let with_state = (0..LAYERS.len() as u8).filter(|n| WITH_STATE.contains(&LAYERS[usize::from(*n)].0));
    for layer in with_state.collect::<Vec<_>>() {
        for turn in 0..40 {
            let input = input(turn, &[(layer, random.any() as u8 % 24)], 40, &mut random);
            told(&input, || stack::run_over_failures(&input, 1 + u64::from(turn) % 5));
        }
    }
}

#[test]
fn random_stacks_hold_what_a_model_holds_over_a_disk_that_fails() {
    let mut random = Random::new(seed());
    let mut made = 0;
    for turn in 0..600 {
        let filters: Vec<(u8, u8)> = (0..random.below(5))
            .map(|_| (random.any() as u8, random.any() as u8 >> random.below(6)))
            .collect();
        let input = input(random.any() as u8, &filters, 1 + random.below(40) as usize, &mut random);
        made += told(&input, || stack::run_over_failures(&input, 2 + turn % 7));
    }
    assert!(made > 2000, "only {made} requests came to be made");
}

fn seed() -> u64 {
    let seed = std::env::var("STACK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("STACK_SEED={seed}");
    seed
}

#[test]
fn random_stacks_hold_what_a_model_holds() {
    let mut random = Random::new(seed());
    let mut made = 0;
    for _ in 0..600 {
        let filters: Vec<(u8, u8)> = (0..random.below(7))
            // Numbers are mostly small, so that disks remain.
            .map(|_| (random.any() as u8, random.any() as u8 >> random.below(6)))
            .collect();
        let requests = 1 + random.below(40) as usize;
        made += run(&input(random.any() as u8, &filters, requests, &mut random));
    }
    assert!(made > 2000, "only {made} requests came to be made");
}

/// What fuzzers and people have found.
#[test]
fn every_committed_input_runs() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/stack");
    for dir in [seeds.join("found"), seeds] {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(|path| path.is_file()) {
            println!("{}", path.display());
            run(&fs::read(path).unwrap());
        }
    }
}
