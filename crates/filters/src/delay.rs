//! `delay`: requests wait before they go on, as on a slow or distant disk.

use disk::{
    Around, Backend, Client, Disk, Errno, Error, Filter, Io, Result,
    shapes::{Op, OpKind, around::EveryRequest},
};
use params::{Delay as Time, Params, Placed};
use std::{path::PathBuf, sync::Arc, time::Duration};

/// Delay requests, connecting and disconnecting.
#[derive(Params)]
pub(crate) struct Delay {
    /// Delay reads.
    #[param(alias = "delay-read")]
    rdelay: Option<Time>,
    /// Delay writes, zeroing and trims. Of this and the three that are meant for one kind alone, the one further
    /// right on the command line counts.
    wdelay: Option<Placed<Time>>,
    /// Delay writes.
    delay_write: Option<Placed<Time>>,
    /// Delay zeroing.
    delay_zero: Option<Placed<Time>>,
    /// Delay trims.
    delay_trim: Option<Placed<Time>>,
    /// Delay block status requests.
    delay_extents: Option<Time>,
    /// Delay cache requests.
    delay_cache: Option<Time>,
    /// Delay fast zero requests as other zero requests. When off, fast zero requests fail at once with ENOTSUP.
    #[param(default = "on")]
    delay_fast_zero: bool,
    /// Delay the opening of the disk when a client connects.
    delay_open: Option<Time>,
    /// Delay the closing of the disk when a client disconnects in the orderly way.
    delay_close: Option<Time>,
    /// Delay only while this file exists.
    delay_trigger: Option<PathBuf>,
}

impl Filter for Delay {
    const NAME: &'static str = "delay";
    const MANUAL: &'static str = include_str!("delay.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        let one = |time: Option<Time>| time.unwrap_or_default().duration();
        let change = |own: Option<Placed<Time>>| {
            let last = [self.wdelay, own].into_iter().flatten().max_by_key(|time| time.place);
            one(last.map(|time| time.value))
        };
        let times = Times {
            read: one(self.rdelay),
            write: change(self.delay_write),
            zero: change(self.delay_zero),
            trim: change(self.delay_trim),
            extents: one(self.delay_extents),
            cache: one(self.delay_cache),
            close: one(self.delay_close),
            fast_zero: self.delay_fast_zero,
            trigger: self.delay_trigger.clone().map(Arc::new),
        };
        Ok(Slow { open: one(self.delay_open), times, next })
    }
}

struct Slow {
    open: Duration,
    times: Times,
    next: Arc<dyn Backend>,
}

impl Backend for Slow {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.times
            .after(self.open, || self.next.open(client))
            .map(|disk| Ok(Arc::new(Around::new(self.times.clone(), disk)) as Arc<dyn Disk>))
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

#[derive(Clone)]
struct Times {
    read: Duration,
    write: Duration,
    zero: Duration,
    trim: Duration,
    extents: Duration,
    cache: Duration,
    close: Duration,
    fast_zero: bool,
    trigger: Option<Arc<PathBuf>>,
}

impl Times {
    fn after<'a, T: Send + 'a>(
        &'a self,
        time: Duration,
        call: impl FnOnce() -> Io<'a, T> + Send + 'a,
    ) -> Io<'a, T> {
        if time.is_zero() || self.trigger.as_ref().is_some_and(|file| !file.exists()) {
            return call();
        }
        Io::later(async move {
            reactor::sleep(time).await;
            call().await
        })
    }
}

impl EveryRequest for Times {
    fn may_place(&self) -> bool {
        self.write.is_zero()
    }

    fn around<'a, T: Send + 'a>(&'a self, op: Op, call: impl FnOnce() -> Io<'a, T> + Send + 'a) -> Io<'a, T> {
        let time = match op.kind {
            OpKind::Zero { fast: true, .. } if !self.fast_zero => {
                return Error::new(Errno::NOTSUP, "fast zeroing is switched off by delay-fast-zero").into();
            }
            OpKind::Read => self.read,
            OpKind::Write => self.write,
            OpKind::Zero { .. } => self.zero,
            OpKind::Trim => self.trim,
            OpKind::Extents => self.extents,
            OpKind::Cache => self.cache,
            OpKind::Flush => Duration::ZERO,
        };
        self.after(time, call)
    }

    fn close<'a>(&'a self, call: impl FnOnce() -> Io<'a, ()> + Send + 'a) -> Io<'a, ()> {
        self.after(self.close, call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, layer, open, opened};
    use disk::{Data, Range, WriteFlags, ZeroFlags};
    use std::time::Instant;

    const R: Range = Range::new(0, 512);
    const F: WriteFlags = WriteFlags { fua: false };
    const FAST: ZeroFlags = ZeroFlags { fua: false, may_trim: false, fast: true };

    /// Whether the request takes its 20 ms.
    fn slow<T: Send>(request: impl FnOnce() -> Io<'static, T>) -> bool {
        let start = Instant::now();
        request().wait().ok();
        start.elapsed() >= Duration::from_millis(20)
    }

    /// Which kinds of requests are slow: read, write, zero, trim, extents, cache, flush, close.
    fn kinds(params: &[&str]) -> String {
        // Leaked, so that requests may be passed around freely.
        let disk: &'static dyn Disk =
            &**Box::leak(Box::new(opened::<Delay>(params, &Memory::new(vec![0; 512]))));
        let slow = [
            slow(|| disk.read(R)),
            slow(|| disk.write(0, Data::zeroes(512), F)),
            slow(|| disk.zero(R, ZeroFlags::default())),
            slow(|| disk.trim(R, F)),
            slow(|| disk.extents(R, 1)),
            slow(|| disk.cache(R)),
            slow(|| disk.flush()),
            slow(|| disk.close()),
        ];
        "rwztxcf/".chars().zip(slow).filter(|(_, slow)| *slow).map(|(name, _)| name).collect()
    }

    #[test]
    fn each_parameter_delays_its_kind_of_request() {
        assert_eq!(kinds(&[]), "");
        assert_eq!(kinds(&["rdelay=20ms"]), "r");
        assert_eq!(kinds(&["delay-read=20ms"]), "r");
        assert_eq!(kinds(&["wdelay=20ms"]), "wzt");
        assert_eq!(kinds(&["wdelay=20ms", "delay-write=0"]), "zt");
        assert_eq!(kinds(&["delay-write=0", "wdelay=20ms"]), "wzt");
        assert_eq!(kinds(&["delay-write=20ms"]), "w");
        assert_eq!(kinds(&["delay-zero=20ms", "delay-trim=0.02"]), "zt");
        assert_eq!(kinds(&["delay-extents=20ms", "delay-cache=20ms"]), "xc");
        assert_eq!(kinds(&["delay-close=20ms"]), "/");
    }

    #[test]
    fn only_while_a_file_exists_anything_is_slow() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("slow");
        let trigger = format!("delay-trigger={}", file.display());
        assert_eq!(kinds(&["rdelay=20ms", &trigger]), "");
        std::fs::write(&file, "").unwrap();
        assert_eq!(kinds(&["rdelay=20ms", &trigger]), "r");
    }

    #[test]
    fn opening_can_be_slow() {
        let layer = layer::<Delay>(&["delay-open=20ms"], &Memory::new(vec![0; 512])).unwrap();
        let start = Instant::now();
        open(&layer);
        assert!(start.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn fast_zero_waits_or_fails_at_once() {
        let memory = Memory::new(vec![0; 512]);
        let disk = opened::<Delay>(&["delay-zero=20ms"], &memory);
        let start = Instant::now();
        disk.zero(R, FAST).wait().unwrap();
        assert!(start.elapsed() >= Duration::from_millis(20));
        let disk = opened::<Delay>(&["delay-zero=10", "delay-fast-zero=off"], &memory);
        assert_eq!(disk.zero(R, FAST).wait().unwrap_err().errno(), Errno::NOTSUP);
        assert_eq!(memory.asked(), ["zero 0 512 fast"]);
    }

    #[test]
    fn delayed_requests_wait_together_not_one_after_the_other() {
        let disk = opened::<Delay>(&["rdelay=30ms"], &Memory::new(vec![0; 512]));
        let start = Instant::now();
        reactor::block_on(async {
            let mut set = reactor::InFlight::new();
            (0..16).for_each(|_| set.push(disk.read(R)));
            while let Some(data) = set.next().await {
                data.unwrap();
            }
        });
        assert!(start.elapsed() < Duration::from_millis(16 * 30));
    }
}
