//! `time-limit`: no connection lasts longer.

use disk::{
    Around, Backend, Client, Disk, Errno, Error, Filter, Io, Result, Wish,
    shapes::{Op, around::EveryRequest},
};
use params::{Delay, Params};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Limit how long each connection may last.
#[derive(Params)]
pub(crate) struct TimeLimit {
    /// The limit, from the opening of the disk on. 0: none.
    #[param(default = "60")]
    time_limit: Delay,
}

impl Filter for TimeLimit {
    const NAME: &'static str = "time-limit";
    const MANUAL: &'static str = include_str!("time_limit.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        let limit = self.time_limit.duration();
        Ok(crate::common::wrap::each(next, move |disk, client: &Client<'_>| {
            if limit.is_zero() {
                return Ok(disk);
            }
            let until = Until { end: Instant::now() + limit, limit, hang_up: client.hang_up.clone() };
            Ok(Arc::new(Around::new(until, disk)) as Arc<dyn Disk>)
        }))
    }
}

struct Until {
    end: Instant,
    limit: Duration,
    hang_up: Wish,
}

impl EveryRequest for Until {
    fn around<'a, T: Send + 'a>(&'a self, _: Op, call: impl FnOnce() -> Io<'a, T> + Send + 'a) -> Io<'a, T> {
        if Instant::now() < self.end {
            return call();
        }
        self.hang_up.make();
        let limit = self.limit;
        Error::new(
            Errno::SHUTDOWN,
            format!("the connection has lasted {limit:?}, and time-limit allows no more"),
        )
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, layer};
    use disk::Range;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    #[test]
    fn after_the_limit_requests_fail_and_the_client_is_cut_off() {
        let layer = layer::<TimeLimit>(&["time-limit=50ms"], &Memory::new(vec![0; 512])).unwrap();
        let cut = Arc::new(AtomicBool::new(false));
        let told = cut.clone();
        let client = Client { hang_up: Wish::new(move || told.store(true, SeqCst)), ..Client::default() };
        let start = Instant::now();
        let disk = layer.open(&client).wait().unwrap();
        let read = || disk.read(Range::new(0, 512)).wait().map(drop).map_err(|e| e.errno());
        if start.elapsed() < Duration::from_millis(40) {
            assert_eq!((read(), cut.load(SeqCst)), (Ok(()), false));
        }
        std::thread::sleep(Duration::from_millis(60));
        assert_eq!((read(), cut.load(SeqCst)), (Err(Errno::SHUTDOWN), true));
    }
}
