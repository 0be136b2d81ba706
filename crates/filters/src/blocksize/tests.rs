//! Tests of `blocksize`.

use super::*;
use crate::common::testing::{Memory, Random, layer, noise, open, opened, over};

const F: WriteFlags = WriteFlags { fua: false };

fn write(disk: &dyn Disk, at: u64, bytes: &[u8]) {
    disk.write(at, Data::copy_from(bytes), F).wait().unwrap();
}

#[test]
fn requests_are_aligned_and_cut() {
    let memory = Memory::new(noise(1, 20_000));
    let disk = opened::<BlockSize>(&["minblock=4K", "maxdata=8K", "maxlen=12K"], &memory);
    assert_eq!((disk.facts().size, disk.facts().blocks.minimum), (16_384, 1));
    let bytes = disk.read(Range::new(100, 13_000)).wait().unwrap().to_vec();
    assert_eq!(bytes, noise(1, 20_000)[100..13_100]);
    assert_eq!(memory.asked(), ["read 0 8192", "read 8192 8192"]);
    write(&*disk, 0, &[1; 16384]);
    assert_eq!(memory.asked(), ["write 0 8192", "write 8192 8192"]);
    write(&*disk, 4000, &[2; 4200]);
    let parts = ["read 0 4096", "write 0 4096", "read 8192 4096", "write 8192 4096", "write 4096 4096"];
    assert_eq!(memory.asked(), parts);
    disk.zero(Range::new(0, 16384), ZeroFlags::default()).wait().unwrap();
    assert_eq!(memory.asked(), ["zero 0 12288", "zero 12288 4096"]);
    disk.zero(Range::new(5000, 100), ZeroFlags { fua: true, ..ZeroFlags::default() }).wait().unwrap();
    assert_eq!(memory.asked(), ["read 4096 4096", "write 4096 4096 fua"]);
    disk.trim(Range::new(1, 4096), F).wait().unwrap();
    assert_eq!(memory.asked(), [""; 0]);
    disk.trim(Range::new(1, 10_000), F).wait().unwrap();
    disk.cache(Range::new(1, 4096)).wait().unwrap();
    assert_eq!(memory.asked(), ["trim 4096 4096", "cache 0 8192"]);
}

#[test]
fn extents_begin_where_they_were_asked_for() {
    let mut bytes = vec![0; 16_384];
    bytes[4096..8192].fill(1);
    let disk = opened::<BlockSize>(&["minblock=4K"], &Memory::new(bytes));
    let mut expected = Extents::one(96, Kind::HOLE);
    expected.push(4096, Kind::DATA);
    expected.push(8, Kind::HOLE);
    assert_eq!(disk.extents(Range::new(4000, 4200), 9).wait().unwrap(), expected);
}

#[test]
fn random_operations_do_what_they_do_to_a_vector() {
    let mut model = noise(5, 50_000);
    let blocks = Blocks { minimum: 512, preferred: 4096, maximum: 4096 };
    let facts = Facts { zero: true, trim: true, extents: true, blocks, ..Facts::writable(50_000) };
    for params in [&[][..], &["minblock=4K"], &["minblock=2K", "maxdata=2K", "maxlen=6K"]] {
        let disk = opened::<BlockSize>(params, &Memory::with(model.clone(), facts.clone()));
        let size = disk.facts().size;
        let mut random = Random(7);
        for step in 0..1500 {
            let start = random.below(size);
            let r = Range::new(start, 1 + random.below((size - start).min(10_000)));
            let part = r.start as usize..r.end() as usize;
            match random.below(4) {
                0 => assert!(disk.read(r).wait().unwrap().to_vec() == model[part], "step {step}"),
                1 => {
                    disk.zero(r, ZeroFlags::default()).wait().unwrap();
                    model[part].fill(0);
                }
                _ => {
                    let bytes = noise(step, r.len as usize);
                    write(&*disk, r.start, &bytes);
                    model[part].copy_from_slice(&bytes);
                }
            }
        }
        assert!(disk.read(Range::new(0, size)).wait().unwrap().to_vec() == model[..size as usize]);
    }
}

#[test]
fn writes_to_parts_of_one_block_are_never_lost() {
    let slow = layer::<crate::delay::Delay>(&["rdelay=200us"], &Memory::new(vec![0; 8192])).unwrap();
    let cut = over::<BlockSize>(&["minblock=4K"], slow).unwrap();
    std::thread::scope(|scope| {
        for me in 0..4u64 {
            let cut = &cut;
            scope.spawn(move || {
                let disk = open(cut);
                for i in 0..8 {
                    write(&*disk, i * 1024 + me * 256, &[me as u8 + 1; 256]);
                }
            });
        }
    });
    let bytes = open(&cut).read(Range::new(0, 8192)).wait().unwrap().to_vec();
    for (at, byte) in bytes.iter().enumerate() {
        assert_eq!(usize::from(*byte), at / 256 % 4 + 1, "byte {at}");
    }
}

#[test]
fn nonsense_is_refused() {
    let memory = Memory::with(vec![0; 8192], Facts::writable(8192));
    let error = |params: &[&str]| layer::<BlockSize>(params, &memory).err().unwrap().to_string();
    assert_eq!(error(&["minblock=3"]), "blocksize: minblock=3: not a power of two up to 64K");
    assert_eq!(error(&["minblock=128K"]), "blocksize: minblock=128K: not a power of two up to 64K");
    assert_eq!(error(&["maxlen=0"]), "blocksize: maxlen=0: must be at least 1");
    let why = error(&["minblock=4K", "maxdata=5000"]);
    assert_eq!(why, "blocksize: maxdata=5000: not a multiple of minblock=4096");
    let blocks = Blocks { minimum: 4096, ..Blocks::default() };
    let memory = Memory::with(vec![0; 8192], Facts { blocks, ..Facts::writable(8192) });
    let layer = layer::<BlockSize>(&["maxdata=512"], &memory).unwrap();
    let why = layer.open(&Client::local("")).wait().err().unwrap();
    assert_eq!(why.errno(), Errno::INVAL);
    assert_eq!(why.to_string(), "maxdata=512: the disk below takes only multiples of 4096");
}
