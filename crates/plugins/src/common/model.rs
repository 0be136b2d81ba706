//! For tests: random requests to a disk, and the same to a `Vec<u8>`.

use disk::{Backend, Client, Data, Disk, Io, Plugin, Range, WriteFlags, ZeroFlags};
use params::Args;
use std::{
    sync::{Arc, Condvar, Mutex, mpsc},
    thread,
    time::Duration,
};

/// Opens the disk of a plugin with these arguments.
pub(crate) fn open<P: Plugin>(args: &[(&str, &str)]) -> disk::Result<Arc<dyn Disk>> {
    let mut args = Args::new(args.iter().copied());
    let backend = P::parse(&mut args)?.start()?;
    assert!(args.is_empty(), "{args:?} left over");
    let disk = backend.open(&Client::local("")).wait()?;
    Ok(Arc::new(disk::checked::Checked::new(disk)))
}

/// Reads as bytes.
pub(crate) fn bytes(disk: &dyn Disk, start: u64, len: u64) -> Vec<u8> {
    disk.read(Range::new(start, len)).wait().unwrap().to_vec()
}

/// Asks for something that the pool does, drops it before it can begin, and flushes: that must not end before it is done.
pub(crate) fn flush_waits_for<'a>(disk: &'a dyn Disk, request: impl FnOnce() -> Io<'a, ()> + Send) {
    // More than the pool does at once for one thread.
    const MANY: usize = 500;
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let stuck = gate.clone();
    let ask = move || {
        for _ in 0..MANY {
            let gate = stuck.clone();
            drop(reactor::unblock(move || drop(gate.1.wait_while(gate.0.lock().unwrap(), |open| !*open))));
        }
        drop(request());
    };
    thread::scope(|scope| {
        scope.spawn(ask).join().unwrap();
        let (ended, end) = mpsc::channel();
        scope.spawn(move || ended.send(disk.flush().wait()));
        let early = end.recv_timeout(Duration::from_millis(200)).is_ok();
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        assert!(!early, "the flush was over before the write");
        end.recv_timeout(Duration::from_secs(60)).expect("it ends").unwrap();
    });
}

/// A small generator of numbers, good enough for tests.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// Below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((u128::from(self.0 ^ (self.0 >> 29)) * u128::from(limit)) >> 64) as u64
    }

    /// A range within `size` bytes: often small, sometimes large, aligned now and then.
    pub(crate) fn range(&mut self, size: u64) -> Range {
        let most = [100, 5000, 70_000, 3 << 20][self.below(4) as usize].min(size);
        let mut len = 1 + self.below(most);
        let mut start = self.below(size - len + 1);
        if self.below(2) == 0 {
            let align = [512, 4096, 32768, 65536][self.below(4) as usize];
            start = start / align * align;
            len = len.next_multiple_of(align).min(size - start);
        }
        Range::new(start, len)
    }
}

/// Does `steps` random requests to both and compares; the disk holds zeroes at first.
pub(crate) fn compare(disk: &dyn Disk, seed: u64, steps: usize) {
    let mut dice = Dice(seed);
    let size = disk.facts().size;
    let mut model = vec![0u8; size as usize];
    for step in 0..steps {
        let r = dice.range(size);
        let there = r.start as usize..r.end() as usize;
        let what = dice.below(6);
        match what {
            0 | 1 => {
                let fill =
                    |into: &mut [u8]| into.iter_mut().enumerate().for_each(|(i, b)| *b = (i + step) as u8);
                fill(&mut model[there.clone()]);
                let flags = WriteFlags { fua: dice.below(20) == 0 && disk.facts().fua };
                match disk.place(r) {
                    Some(place) if dice.below(2) == 0 => {
                        place.copy_from(0, &model[there]);
                        disk.placed(r, flags).wait().unwrap();
                    }
                    _ => {
                        let data = Data::copy_from(&model[there]);
                        let (a, b) = (data.slice(0, r.len / 2), data.slice(r.len / 2, r.len - r.len / 2));
                        disk.write(r.start, Data::join(vec![a, b]), flags).wait().unwrap();
                    }
                }
            }
            2 if disk.facts().zero => {
                model[there].fill(0);
                let flags = ZeroFlags { may_trim: dice.below(2) == 0, ..Default::default() };
                disk.zero(r, flags).wait().unwrap();
            }
            3 if disk.facts().trim => {
                disk.trim(r, WriteFlags::default()).wait().unwrap();
                // What reads back is the disk's choice, within the range.
                disk.read(r).wait().unwrap().copy_to(&mut model[there]);
            }
            4 if disk.facts().extents => {
                let extents = disk.extents(r, 1 + dice.below(5) as usize).wait().unwrap();
                for (part, kind) in extents.ranges(r.start) {
                    let zero = model[part.start as usize..part.end() as usize].iter().all(|b| *b == 0);
                    assert!(zero || !kind.zero, "step {step}: {part} is not zero, though an extent says so");
                }
            }
            _ => {
                let data = disk.read(r).wait().unwrap();
                assert!(data.to_vec() == model[there], "seed {seed}, step {step}: another content at {r}");
            }
        }
    }
    let all = disk.read(disk.facts().whole()).wait().unwrap();
    assert!(all.to_vec() == model, "seed {seed}: another content in the end");
}
