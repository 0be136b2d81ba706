//! Servers that say anything at all: the client must neither panic nor hang, and take no more memory than it was
//! promised data for.
//!
//! The same sessions are fuzzed; see `fuzz/README.md`. Here they run on every machine, a bounded number of them.
#![allow(missing_docs, unreachable_pub, reason = "shared with the fuzz target")]

mod seeds;
mod session;

use conformance::Random;
use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// No session here should take this much at once: a block status may be 16 MiB long, and is moved when it is grown.
const MOST: usize = 64 << 20;

struct Watching;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static WATCHING: Watching = Watching;

fn run(name: &str, input: &[u8]) -> usize {
    let succeeded = session::run(input);
    let largest = LARGEST.load(Relaxed);
    assert!(largest < MOST, "{name}: {largest} bytes were asked for at once");
    succeeded
}

#[test]
fn every_seed_runs() {
    for (name, input) in seeds::all() {
        let succeeded = run(&name, &input);
        println!("{name}: {succeeded} requests succeeded");
        // Servers as they should be get their client to succeed.
        let expected = match &*name {
            "handshake" | "plain-handshake" | "oldstyle" | "steps" => 1,
            "simple" | "simple-live" | "simple-in-pieces" => 7,
            "structured" | "structured-one-by-one" | "extended" | "extended-in-pieces" => 9,
            _ => 0,
        };
        assert!(succeeded >= expected, "{name}: {succeeded} of {expected} succeeded");
    }
}

#[test]
fn the_committed_seeds_are_what_the_generator_writes() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/client_replies");
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
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/client_replies");
    for dir in [seeds.join("found"), seeds] {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(|path| path.is_file()) {
            println!("{}", path.display());
            run(&path.display().to_string(), &fs::read(&path).unwrap());
        }
    }
}

#[test]
fn servers_with_bytes_changed_cause_neither_panic_nor_hang() {
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
        // Not caught: the message of the panic goes before it in the output.
        let outcome = std::panic::catch_unwind(|| run("a changed seed", &input));
        assert!(outcome.is_ok(), "the session was {shown:02x?}");
    }
}

/// One of the changes that break parsers.
fn change(input: &mut Vec<u8>, random: &mut Random, seeds: &[(String, Vec<u8>)]) {
    let at = random.below(input.len() as u64 + 1) as usize;
    let len = (random.below(40) as usize).min(input.len() - at);
    match random.below(7) {
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
        _ => {
            let other = &seeds[random.below(seeds.len() as u64) as usize].1;
            let from = random.below(other.len() as u64) as usize;
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
    }
}
