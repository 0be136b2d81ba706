//! What the disks cost without a server around them: `cargo bench -p diskpipe-plugins [WORD]`.
//!
//! No statistics, one line per case: the best of five short rounds, which is what repeats on a busy machine.

use disk::{Client, Data, Disk, Range, WriteFlags};
use params::Args;
use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

fn open(plugin: &str, args: &[(&str, &str)]) -> Arc<dyn Disk> {
    let entry = plugins::find(plugin).expect("a plugin of the list");
    let backend = entry.start(&mut Args::new(args.iter().copied())).expect("good arguments");
    backend.open(&Client::local("")).wait().expect("a disk")
}

/// Runs `work` on one number after another and prints the time of each.
fn measure(name: &str, bytes: u64, mut work: impl FnMut(u64)) {
    let only = std::env::args().nth(1).unwrap_or_default();
    if !only.starts_with('-') && !name.contains(&only) {
        return;
    }
    let (mut best, mut n) = (f64::INFINITY, 0);
    for _ in 0..5 {
        let (start, from) = (Instant::now(), n);
        while start.elapsed() < Duration::from_millis(80) {
            for _ in 0..16 {
                work(n);
                n += 1;
            }
        }
        best = best.min(start.elapsed().as_nanos() as f64 / (n - from) as f64);
    }
    println!("{name:<44} {best:>10.0} ns {:>10.2} GB/s", bytes as f64 / best);
}

/// Numbers without order.
fn scatter(n: u64) -> u64 {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31).wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 16
}

fn read(name: &str, disk: &dyn Disk, len: u64) {
    let blocks = disk.facts().size / len;
    measure(&format!("{name}: read {len} at random"), len, |n| {
        drop(black_box(disk.read(Range::new(scatter(n) % blocks * len, len)).wait().expect("a read")));
    });
}

fn write(name: &str, disk: &dyn Disk, len: u64) {
    let blocks = disk.facts().size / len;
    let data = Data::fill(len as usize, |b| b.fill(1));
    measure(&format!("{name}: write {len} at random"), len, |n| {
        disk.write(scatter(n) % blocks * len, data.clone(), WriteFlags::default()).wait().expect("a write");
    });
}

fn extents(name: &str, disk: &dyn Disk, len: u64) {
    let size = disk.facts().size;
    let mut at = 0;
    measure(&format!("{name}: extents of {len}, in order"), len, |_| {
        let range = Range::new(at, len.min(size - at));
        at = (at + disk.extents(range, 8192).wait().expect("extents").covered()) % size;
    });
}

fn main() {
    let memory = open("memory", &[("size", "512M")]);
    read("memory, empty", &*memory, 4096);
    let mib = Data::fill(1 << 20, |b| b.fill(1));
    for at in (0..512 << 20).step_by(1 << 20) {
        memory.write(at, mib.clone(), WriteFlags::default()).wait().expect("a write");
    }
    for len in [4096, 16384, 65536, 262_144] {
        read("memory", &*memory, len);
        write("memory", &*memory, len);
    }
    extents("memory", &*memory, 32 << 20);
    let huge = open("memory", &[("size", "7E")]);
    read("memory 7E, empty", &*huge, 4096);
    extents("memory 7E, empty", &*huge, 1 << 62);

    let islands = open("sparse-random", &[("size", "1T"), ("seed", "1")]);
    extents("sparse-random", &*islands, 128 << 20);
    let solid = open("sparse-random", &[("size", "1T"), ("seed", "1"), ("percent", "100")]);
    let noise = [("size", "1T"), ("seed", "1"), ("percent", "100"), ("random-content", "true")];
    let noise = open("sparse-random", &noise);
    for (name, disk) in [("sparse-random", &solid), ("sparse-random, random", &noise)] {
        read(name, &**disk, 4096);
        read(name, &**disk, 262_144);
        let blocks = disk.facts().size / 262_144;
        let data: Vec<_> = (0..64)
            .map(|n| disk.read(Range::new(n % blocks * 262_144, 262_144)).wait().expect("a read"))
            .collect();
        measure(&format!("{name}: write 262144, verified"), 262_144, |n| {
            let at = n % 64;
            disk.write(at * 262_144, data[at as usize].clone(), WriteFlags::default())
                .wait()
                .expect("a write");
        });
    }

    for (name, program) in [
        ("two bytes repeated", "( 0x55 0xAA )*1T"),
        ("a byte repeated", "0x55*1T"),
        ("sectors with holes", "( \"Hello\" @^512 )*1T"),
        ("20k repeated", "( \"Hello\" 7*20000 )*1G"),
    ] {
        let disk = open("data", &[("data", program)]);
        read(&format!("data, {name}"), &*disk, 4096);
        read(&format!("data, {name}"), &*disk, 262_144);
    }
    programs();
}

/// Reading programs: bytes of text per second.
fn programs() {
    let numbers: String = (0..3_000_000u64).map(|n| format!("{} ", scatter(n) % 256)).collect();
    let text = format!("\"{}\"", "some text ".repeat(1_000_000));
    let groups = "(1 2 @^16 \"abc\")*9 @+100 0x55*1000 # comment\n".repeat(200_000);
    for (name, program) in [("numbers", numbers), ("a string", text), ("groups", groups)] {
        measure(&format!("data: {} bytes of {name}", program.len()), program.len() as u64 / 16, |n| {
            // `measure` takes sixteen steps at a time, and one of these takes long.
            if n.is_multiple_of(16) {
                drop(black_box(open("data", &[("data", &program)])));
            }
        });
    }
}
