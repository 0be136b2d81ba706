//! Tests of `cow`: against a plain vector, and with many threads at the same blocks.

use super::*;
use crate::common::testing::{Memory, Random, layer, noise, open, opened, over};
use disk::{Data, Errno, Extents, Kind as Extent, Range, WriteFlags, ZeroFlags};

mod kept;

const F: WriteFlags = WriteFlags { fua: false };
const TRIM: ZeroFlags = ZeroFlags { fua: false, may_trim: true, fast: false };

fn write(disk: &dyn Disk, at: u64, bytes: &[u8]) {
    disk.write(at, Data::copy_from(bytes), F).wait().unwrap();
}

fn read(disk: &dyn Disk, at: u64, len: u64) -> Vec<u8> {
    disk.read(Range::new(at, len)).wait().unwrap().to_vec()
}

/// Random operations on `disk` and on a vector with the same content.
fn agree(disk: &dyn Disk, mut model: Vec<u8>, seed: u64, steps: u64) {
    let size = model.len() as u64;
    let mut random = Random(seed);
    for step in 0..steps {
        let start = random.below(size);
        let most = if random.below(4) == 0 { 100_000 } else { 9_000 };
        let r = Range::new(start, 1 + random.below((size - start).min(most)));
        let part = r.start as usize..r.end() as usize;
        match random.below(10) {
            0..4 => assert!(read(disk, r.start, r.len) == model[part], "step {step}: {r} differs"),
            4..7 => {
                let bytes = noise(step, r.len as usize);
                write(disk, r.start, &bytes);
                model[part].copy_from_slice(&bytes);
            }
            7 => {
                let flags = ZeroFlags { may_trim: random.below(2) == 0, ..TRIM };
                disk.zero(r, flags).wait().unwrap();
                model[part].fill(0);
            }
            8 => {
                disk.trim(r, F).wait().unwrap();
                // What a trim leaves of blocks it does not cover is its own business; it must stay that way.
                model[part.clone()].copy_from_slice(&read(disk, r.start, r.len));
                let inner = part.start.next_multiple_of(1 << 16)..part.end & !((1 << 16) - 1);
                assert!(inner.is_empty() || model[inner].iter().all(|b| *b == 0), "step {step}");
            }
            _ => {
                let extents = disk.extents(r, 1 + random.below(5) as usize).wait().unwrap();
                for (r, _) in extents.ranges(r.start).filter(|(_, kind)| kind.zero) {
                    let zero = model[r.start as usize..r.end() as usize].iter().all(|b| *b == 0);
                    assert!(zero, "step {step}: {r} is no hole");
                }
            }
        }
    }
    assert!(read(disk, 0, size) == model, "at the end");
}

#[test]
fn random_operations_do_what_they_do_to_a_vector() {
    for (seed, params) in [&[][..], &["cow-block-size=64K"], &["cow-on-read=yes"], &["cow-on-read=/proc"]]
        .into_iter()
        .enumerate()
    {
        let mut bytes = noise(1, 5_000_001);
        bytes[100_000..3_000_000].fill(0);
        let memory = Memory::new(bytes.clone());
        agree(&*opened::<Cow>(params, &memory), bytes.clone(), seed as u64, 3000);
        assert!(memory.bytes() == bytes, "the disk below changed");
        let asked = memory.asked();
        assert!(asked.iter().all(|asked| asked.starts_with("read ") || asked.starts_with("extents ")));
    }
}

#[test]
fn it_works_over_a_disk_that_makes_requests_wait() {
    let bytes = noise(2, 200_000);
    let slow = layer::<crate::delay::Delay>(&["rdelay=100us"], &Memory::new(bytes.clone())).unwrap();
    let cow = over::<Cow>(&[], slow).unwrap();
    agree(&*open(&cow), bytes, 9, 600);
}

#[test]
fn whole_blocks_copy_nothing_and_parts_copy_one_block() {
    let memory = Memory::new(noise(1, 1 << 20));
    let disk = opened::<Cow>(&[], &memory);
    write(&*disk, 8192, &[1; 65536]);
    assert_eq!(memory.asked(), [""; 0]);
    write(&*disk, 100, &[2; 10]);
    assert_eq!(memory.asked(), ["read 0 4096"]);
    write(&*disk, 200, &[2; 10]);
    write(&*disk, 4096 + 4000, &[2; 96 + 65536 + 5]);
    assert_eq!(memory.asked(), ["read 4096 4096", "read 73728 4096"]);
    read(&*disk, 4096, 65536);
    assert_eq!(memory.asked(), [""; 0]);
    read(&*disk, 0, 1 << 20);
    assert_eq!(memory.asked(), ["read 77824 970752"]);
}

#[test]
fn the_short_block_at_the_end_is_a_whole_one() {
    let memory = Memory::new(noise(1, 10_000));
    let disk = opened::<Cow>(&[], &memory);
    write(&*disk, 8192, &[1; 1808]);
    assert_eq!(memory.asked(), [""; 0]);
    disk.trim(Range::new(8192, 1808), F).wait().unwrap();
    assert_eq!(read(&*disk, 8192, 1808), [0; 1808]);
}

#[test]
fn connections_to_one_export_share_it_and_others_do_not() {
    let cow = layer::<Cow>(&[], &Memory::new(vec![9; 8192])).unwrap();
    let as_export = |name| cow.open(&Client::local(name)).wait().unwrap();
    let (a, b, other) = (as_export("a"), as_export("a"), as_export("b"));
    write(&*a, 0, &[1; 100]);
    assert_eq!(read(&*b, 0, 100), [1; 100]);
    assert_eq!(read(&*other, 0, 100), [9; 100]);
    drop((a, b));
    assert_eq!(read(&*as_export("a"), 0, 101)[99..], [1, 9]);
}

#[test]
fn it_offers_everything_whatever_is_below() {
    let memory = Memory::with(vec![1; 8192], Facts::read_only(8192));
    let cow = layer::<Cow>(&[], &memory).unwrap();
    let facts = open(&cow).facts().clone();
    assert!(facts.write && facts.flush && facts.fua && facts.trim && facts.zero && facts.fast_zero);
    assert!(facts.extents && facts.multi_conn && !facts.cache);
    let reader = Client { read_only: true, ..Client::local("") };
    assert!(!cow.open(&reader).wait().unwrap().facts().write);
}

#[test]
fn extents_join_overlay_and_base() {
    let mut bytes = vec![0; 1 << 20];
    bytes[..65536].fill(1);
    let memory = Memory::new(bytes);
    let disk = opened::<Cow>(&[], &memory);
    write(&*disk, 131072, &[1; 4096]);
    disk.trim(Range::new(8192, 8192), F).wait().unwrap();
    let mut expected = Extents::new();
    for (len, kind) in [(8192, Extent::DATA), (8192, Extent::HOLE), (49152, Extent::DATA)] {
        expected.push(len, kind);
    }
    for (len, kind) in [(65536, Extent::HOLE), (4096, Extent::DATA), (913408, Extent::HOLE)] {
        expected.push(len, kind);
    }
    assert_eq!(disk.extents(Range::new(0, 1 << 20), 100).wait().unwrap(), expected);
    expected.truncate(8192);
    assert_eq!(disk.extents(Range::new(0, 8192), 1).wait().unwrap(), expected);
}

#[test]
fn zeroes_without_holes_take_their_room() {
    let disk = opened::<Cow>(&[], &Memory::new(noise(1, 1 << 20)));
    let r = Range::new(4096, 8192);
    disk.zero(r, ZeroFlags::default()).wait().unwrap();
    assert_eq!(disk.extents(r, 1).wait().unwrap(), Extents::one(8192, Extent::DATA));
    assert_eq!(read(&*disk, 4096, 8192), [0; 8192]);
    let fast = ZeroFlags { fast: true, ..ZeroFlags::default() };
    assert_eq!(disk.zero(r, fast).wait().unwrap_err().errno(), Errno::NOTSUP);
    disk.zero(r, ZeroFlags { may_trim: true, ..fast }).wait().unwrap();
    assert_eq!(disk.extents(r, 1).wait().unwrap(), Extents::one(8192, Extent::HOLE));
}

#[test]
fn caching_and_reading_fill_the_overlay_where_that_is_wanted() {
    let memory = Memory::new(noise(1, 1 << 20));
    let disk = opened::<Cow>(&["cow-on-cache=true"], &memory);
    disk.cache(Range::new(5000, 10_000)).wait().unwrap();
    assert_eq!(memory.asked(), ["read 4096 12288"]);
    assert_eq!(read(&*disk, 4096, 12288), noise(1, 1 << 20)[4096..16384]);
    assert_eq!(memory.asked(), [""; 0]);

    let disk = opened::<Cow>(&[], &memory);
    disk.cache(Range::new(5000, 10_000)).wait().unwrap();
    assert_eq!(memory.asked(), ["cache 5000 10000"]);

    let dir = tempfile::tempdir().unwrap();
    let flag = dir.path().join("flag");
    let disk = opened::<Cow>(&[&format!("cow-on-read={}", flag.display())], &memory);
    let twice = || {
        read(&*disk, 5000, 1000);
        read(&*disk, 5000, 1000);
        memory.asked()
    };
    assert_eq!(twice(), ["read 5000 1000", "read 5000 1000"]);
    std::fs::write(&flag, "").unwrap();
    assert_eq!(twice(), ["read 4096 4096"]);
}

/// Disks of 2^63-1 bytes.
struct Huge(Facts);
impl Backend for Huge {
    fn open<'a>(&'a self, _: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        Io::ok(Arc::new(Huge(self.0.clone())))
    }
}
impl Disk for Huge {
    fn facts(&self) -> &Facts {
        &self.0
    }
    fn read(&self, r: Range) -> Io<'_, Data> {
        Io::ok(Data::fill(r.len as usize, |b| b.fill(7)))
    }
}

#[test]
fn the_largest_disk_works_at_both_ends_and_as_a_whole() {
    let size = i64::MAX as u64;
    let cow = over::<Cow>(&[], Arc::new(Huge(Facts::read_only(size)))).unwrap();
    let disk = open(&cow);
    write(&*disk, size - 100, &[1; 100]);
    write(&*disk, 5, &[2; 5]);
    assert_eq!(read(&*disk, size - 102, 4), [7, 7, 1, 1]);
    assert_eq!(disk.extents(Range::new(0, size), 100).wait().unwrap(), Extents::one(size, Extent::DATA));
    disk.zero(Range::new(1, size - 2), TRIM).wait().unwrap();
    assert_eq!(read(&*disk, 0, 10), [7, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(read(&*disk, size - 2, 2), [0, 1]);
    assert_eq!(read(&*disk, 1 << 50, 4096), [0; 4096]);
    assert!(disk.extents(Range::new(4096, size - 8192), 100).wait().unwrap().iter().all(|e| e.kind.hole));
    write(&*disk, 1 << 50, &[3; 3]);
    assert_eq!(read(&*disk, (1 << 50) - 1, 5), [0, 3, 3, 3, 0]);
}

/// Threads write their own bytes all over blocks that they share; none may be lost.
fn disjoint_writes_survive(cow: &Arc<dyn Backend>, base: &[u8], rounds: u64) {
    const THREADS: u64 = 4;
    let size = base.len() as u64;
    std::thread::scope(|scope| {
        for me in 0..THREADS {
            scope.spawn(move || {
                let disk = open(cow);
                for round in 0..rounds {
                    // All threads come to the same block at about the same time, each to its own 64 bytes.
                    let at = round * 4096 % (size - 4096) + me * 64;
                    write(&*disk, at, &[me as u8 + 1; 64]);
                    assert_eq!(read(&*disk, at, 64), [me as u8 + 1; 64], "round {round}");
                }
            });
        }
    });
    let disk = open(cow);
    for round in 0..rounds {
        let at = round * 4096 % (size - 4096);
        let block = read(&*disk, at, 4096);
        for me in 0..THREADS as usize {
            assert!(block[me * 64..][..64].iter().all(|b| *b == me as u8 + 1), "block at {at}, thread {me}");
        }
        assert_eq!(block[256..], base[at as usize + 256..at as usize + 4096], "block at {at}");
    }
}

#[test]
fn small_writes_of_many_threads_to_one_block_are_never_lost() {
    let base = noise(3, 4 << 20);
    let cow = layer::<Cow>(&[], &Memory::new(base.clone())).unwrap();
    disjoint_writes_survive(&cow, &base, 1000);
    // With a disk below that takes its time, claims are held while others come.
    let slow = layer::<crate::delay::Delay>(&["rdelay=200us"], &Memory::new(base.clone())).unwrap();
    disjoint_writes_survive(&over::<Cow>(&[], slow).unwrap(), &base, 200);
}

#[test]
fn many_small_writes_of_one_connection_to_one_block_are_never_lost() {
    let base = noise(3, 8192);
    let slow = layer::<crate::delay::Delay>(&["rdelay=2ms"], &Memory::new(base)).unwrap();
    let cow = over::<Cow>(&[], slow).unwrap();
    let disk = open(&cow);
    reactor::block_on(async {
        let mut set = reactor::InFlight::new();
        for i in 0..64 {
            set.push(disk.write(i * 128, Data::copy_from(&[i as u8; 128]), F));
        }
        while let Some(done) = set.next().await {
            done.unwrap();
        }
    });
    let expected: Vec<u8> = (0..8192).map(|at| (at / 128) as u8).collect();
    assert_eq!(read(&*disk, 0, 8192), expected);
}

#[test]
fn whole_blocks_small_parts_and_trims_at_once_leave_nothing_torn() {
    const BLOCK: u64 = 4096;
    let cow = layer::<Cow>(&[], &Memory::new(vec![0xAA; 64 * BLOCK as usize])).unwrap();
    std::thread::scope(|scope| {
        for me in 0..4u64 {
            let cow = &cow;
            scope.spawn(move || {
                let disk = open(cow);
                let mut random = Random(me);
                for _ in 0..2000 {
                    let block = random.below(64) * BLOCK;
                    match me {
                        0 => write(&*disk, block, &[1; BLOCK as usize]),
                        1 => disk.zero(Range::new(block, BLOCK), TRIM).wait().unwrap(),
                        // The last quarter of a block has but one writer and whole-block writers.
                        2 => write(&*disk, block + 3072, &[2; 1024]),
                        _ => {
                            let bytes = read(&*disk, block, BLOCK);
                            let fine = |b: &u8| matches!(b, 0 | 1 | 0xAA);
                            assert!(bytes[..3072].iter().all(fine));
                            assert!(bytes[3072..].iter().all(|b| fine(b) || *b == 2));
                        }
                    }
                }
            });
        }
    });
}

#[test]
fn a_request_that_is_dropped_half_way_leaves_the_block_as_it_was() {
    let base = noise(4, 8192);
    let slow = layer::<crate::delay::Delay>(&["rdelay=1"], &Memory::new(base.clone())).unwrap();
    let cow = over::<Cow>(&[], slow).unwrap();
    let disk = open(&cow);
    let gone = reactor::block_on(reactor::timeout(
        std::time::Duration::from_millis(5),
        disk.write(10, Data::copy_from(b"lost"), F),
    ));
    assert!(gone.is_err());
    // Nobody waits for the claim of a request that is gone: a whole block is written at once.
    write(&*disk, 0, &[5; 4096]);
    assert_eq!(read(&*disk, 0, 4096), [5; 4096]);
}

#[test]
fn nonsense_is_refused_before_serving() {
    let memory = Memory::new(vec![0; 512]);
    let error = |param: &str| layer::<Cow>(&[param], &memory).err().unwrap().to_string();
    for size in ["2K", "5000", "4G"] {
        let why = error(&format!("cow-block-size={size}"));
        assert_eq!(why, format!("cow: cow-block-size={size}: not a power of two from 4K to 2G"));
    }
    let why = error("cow-on-read=here");
    assert_eq!(why, "cow: cow-on-read=here: neither a switch (on or off) nor an absolute path");
}
