//! `count`: how many bytes were read, written, zeroed and trimmed.

use disk::{
    Around, Backend, Client, Disk, Filter, Io, Result,
    shapes::{Op, OpKind, around::EveryRequest},
};
use params::Params;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Count bytes, and tell their number when the server ends.
#[derive(Params)]
pub(crate) struct Count;

impl Filter for Count {
    const NAME: &'static str = "count";
    const MANUAL: &'static str = include_str!("count.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        Ok(Counting { all: Arc::default(), next })
    }
}

struct Counting {
    all: Arc<Sums>,
    next: Arc<dyn Backend>,
}

impl Backend for Counting {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.next.open(client).map(|disk| {
            let own = Own { sums: Sums::default(), all: self.all.clone() };
            Ok(Arc::new(Around::new(own, disk)) as Arc<dyn Disk>)
        })
    }
    fn finish(&self) {
        self.next.finish();
        eprintln!("{}", self.all.sentence());
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

/// In bytes.
#[derive(Default)]
struct Sums {
    read: AtomicU64,
    written: AtomicU64,
    zeroed: AtomicU64,
    trimmed: AtomicU64,
}

impl Sums {
    fn sentence(&self) -> String {
        let Sums { read, written, zeroed, trimmed } = self;
        let [read, written, zeroed, trimmed] = [read, written, zeroed, trimmed].map(|sum| sum.load(Relaxed));
        format!("count: {read} bytes read, {written} written, {zeroed} zeroed, {trimmed} trimmed")
    }
}

/// The sums of one connection, so that connections do not get into each other's way.
struct Own {
    sums: Sums,
    all: Arc<Sums>,
}

impl Drop for Own {
    fn drop(&mut self) {
        let add = |to: &AtomicU64, from: &AtomicU64| to.fetch_add(from.load(Relaxed), Relaxed);
        add(&self.all.read, &self.sums.read);
        add(&self.all.written, &self.sums.written);
        add(&self.all.zeroed, &self.sums.zeroed);
        add(&self.all.trimmed, &self.sums.trimmed);
    }
}

impl EveryRequest for Own {
    fn may_place(&self) -> bool {
        true
    }

    fn around<'a, T: Send + 'a>(&'a self, op: Op, call: impl FnOnce() -> Io<'a, T> + Send + 'a) -> Io<'a, T> {
        let sum = match op.kind {
            OpKind::Read => &self.sums.read,
            OpKind::Write => &self.sums.written,
            OpKind::Zero { .. } => &self.sums.zeroed,
            OpKind::Trim => &self.sums.trimmed,
            _ => return call(),
        };
        call().inspect(move |outcome| {
            if outcome.is_ok() {
                sum.fetch_add(op.range.len, Relaxed);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, Plugin};
    use disk::{Data, Range, WriteFlags, ZeroFlags};

    #[test]
    fn what_succeeded_on_all_connections_is_added_up() {
        let counting = Counting { all: Arc::default(), next: Arc::new(Plugin(Memory::new(vec![0; 4096]))) };
        for _ in 0..2 {
            let disk = counting.open(&Client::local("")).wait().unwrap();
            disk.read(Range::new(0, 100)).wait().unwrap();
            disk.write(0, Data::zeroes(10), WriteFlags::default()).wait().unwrap();
            disk.zero(Range::new(0, 4096), ZeroFlags::default()).wait().unwrap();
            disk.trim(Range::new(0, 1), WriteFlags::default()).wait().unwrap();
            disk.flush().wait().unwrap();
        }
        assert_eq!(counting.all.sentence(), "count: 200 bytes read, 20 written, 8192 zeroed, 2 trimmed");
    }
}
