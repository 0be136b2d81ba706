//! `rate`: a limit to the bandwidth of clients, each for itself and all together.

mod bucket;

use bucket::Bucket;
use disk::{
    Around, Backend, Client, Disk, Error, Filter, Io, Result,
    shapes::{Op, OpKind, around::EveryRequest},
};
use params::{Delay as Time, Params, Size};
use std::{path::PathBuf, sync::Arc, time::Instant};

/// Limit the bandwidth of reads and writes.
#[derive(Params)]
pub(crate) struct Rate {
    /// The limit of all connections together, in bits per second: `100K`, `8M`.
    #[param(placeholder = "BITSPERSECOND")]
    rate: Option<Size>,
    /// The limit of each connection, in bits per second.
    #[param(placeholder = "BITSPERSECOND")]
    connection_rate: Option<Size>,
    /// A file with the limit of all connections together, which may change while the server runs.
    rate_file: Option<PathBuf>,
    /// A file with the limit of each connection, which may change while the server runs.
    connection_rate_file: Option<PathBuf>,
    /// After a pause, a client may send or receive at once what the limit allows in so many seconds.
    #[param(default = "2")]
    burstiness: Time,
}

impl Filter for Rate {
    const NAME: &'static str = "rate";
    const MANUAL: &'static str = include_str!("rate.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        for (key, rate) in [("rate", self.rate), ("connection-rate", self.connection_rate)] {
            if rate.is_some_and(|rate| rate.bytes() == 0) {
                return Err(Error::invalid(format!("{key}=0: nothing would ever get through")));
            }
        }
        let all = self.both_ways(self.rate, &self.rate_file);
        Ok(Limiting { all: Arc::new(all), params: self, next })
    }
}

impl Rate {
    fn both_ways(&self, rate: Option<Size>, file: &Option<PathBuf>) -> BothWays {
        let bucket = || Bucket::new(rate.map(Size::bytes), file.clone(), self.burstiness.duration());
        BothWays { reads: bucket(), writes: bucket() }
    }
}

struct Limiting {
    all: Arc<BothWays>,
    params: Rate,
    next: Arc<dyn Backend>,
}

impl Backend for Limiting {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.next.open(client).map(|disk| {
            let own = self.params.both_ways(self.params.connection_rate, &self.params.connection_rate_file);
            Ok(Arc::new(Around::new(Limits { own, all: self.all.clone() }, disk)) as Arc<dyn Disk>)
        })
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

/// The two directions do not share their bandwidth.
struct BothWays {
    reads: Bucket,
    writes: Bucket,
}

struct Limits {
    own: BothWays,
    all: Arc<BothWays>,
}

impl EveryRequest for Limits {
    fn may_place(&self) -> bool {
        // The payload is already here when the limit is asked; that the disk waits is all that can be done.
        false
    }

    fn around<'a, T: Send + 'a>(&'a self, op: Op, call: impl FnOnce() -> Io<'a, T> + Send + 'a) -> Io<'a, T> {
        let buckets = match op.kind {
            OpKind::Read => [&self.own.reads, &self.all.reads],
            OpKind::Write => [&self.own.writes, &self.all.writes],
            // The rest are a few bytes on the wire, whatever they do.
            _ => return call(),
        };
        let now = Instant::now();
        let free = buckets.iter().filter_map(|bucket| bucket.take(op.range.len, now)).max();
        match free {
            Some(free) if free > now => Io::later(async move {
                reactor::sleep_until(free).await;
                call().await
            }),
            _ => call(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, layer, open, opened};
    use disk::{Range, ZeroFlags};
    use std::time::Duration;

    /// How long these requests take.
    fn time(work: impl FnOnce()) -> Duration {
        let start = Instant::now();
        work();
        start.elapsed()
    }

    fn read(disk: &Arc<dyn Disk>, len: u64) {
        disk.read(Range::new(0, len)).wait().unwrap();
    }

    #[test]
    fn reads_wait_for_their_turn_and_zeroing_is_free() {
        // 1 MiB/s, and 100 ms of it at once.
        let params = ["rate=8M", "burstiness=100ms"];
        let disk = opened::<Rate>(&params, &Memory::new(vec![0; 1 << 20]));
        assert!(time(|| read(&disk, 100 << 10)) < Duration::from_millis(50), "the burst");
        let took = time(|| read(&disk, 100 << 10));
        assert!((60..300).contains(&took.as_millis()), "{took:?}");
        let free = time(|| disk.zero(Range::new(0, 1 << 20), ZeroFlags::default()).wait().unwrap());
        assert!(free < Duration::from_millis(50));
    }

    #[test]
    fn a_limit_of_all_is_shared_and_one_of_each_is_not() {
        let memory = Memory::new(vec![0; 1 << 20]);
        for (param, shared) in [("rate=8M", true), ("connection-rate=8M", false)] {
            let layer = layer::<Rate>(&[param, "burstiness=100ms"], &memory).unwrap();
            let (one, two) = (open(&layer), open(&layer));
            read(&one, 100 << 10);
            assert_eq!(time(|| read(&two, 100 << 10)) > Duration::from_millis(60), shared, "{param}");
        }
    }

    #[test]
    fn nothing_is_limited_without_a_rate() {
        let disk = opened::<Rate>(&[], &Memory::new(vec![0; 1 << 20]));
        assert!(time(|| (0..100).for_each(|_| read(&disk, 1 << 20))) < Duration::from_secs(2));
        let error = layer::<Rate>(&["rate=0"], &Memory::new(vec![])).err().unwrap();
        assert_eq!(error.to_string(), "rate: rate=0: nothing would ever get through");
    }
}
