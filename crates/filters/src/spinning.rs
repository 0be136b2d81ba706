//! `spinning`: the delays of a disk whose heads must move.

use async_lock::Mutex;
use disk::{
    Around, Backend, Client, Disk, Error, Facts, Filter, Io, Range, Result,
    shapes::{Op, OpKind, around::EveryRequest},
};
use params::{Delay, Params};
use std::{sync::Arc, time::Duration};

/// Be as slow as a disk whose heads must move.
#[derive(Params)]
pub(crate) struct Spinning {
    /// How many heads share the disk, each with a part of the same length.
    #[param(default = "1")]
    heads: u32,
    /// Whether each head moves by itself, or all on one arm.
    #[param(default = "false")]
    separate_heads: bool,
    /// How long the shortest move takes.
    #[param(default = "1ms")]
    min_seek_time: Delay,
    /// How long a move over half of a head's part takes.
    #[param(default = "8ms")]
    half_seek_time: Delay,
    /// How long a move over all of a head's part takes.
    #[param(default = "15ms")]
    max_seek_time: Delay,
}

impl Filter for Spinning {
    const NAME: &'static str = "spinning";
    const MANUAL: &'static str = include_str!("spinning.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        if !(1..=1024).contains(&self.heads) {
            return Err(Error::invalid(format!("heads={}: not from 1 to 1024", self.heads)));
        }
        let [min, half, max] =
            [self.min_seek_time, self.half_seek_time, self.max_seek_time].map(Delay::duration);
        if !(min <= half && half <= max) {
            return Err(Error::invalid(format!(
                "min-seek-time={min:?} half-seek-time={half:?} max-seek-time={max:?}: a longer way cannot take less time"
            )));
        }
        let arms = if self.separate_heads { self.heads } else { 1 };
        let arms: Arc<[Arm]> = (0..arms).map(|_| Arm::default()).collect();
        Ok(crate::common::wrap::each(next, move |disk, _: &Client<'_>| {
            let facts = Facts { rotational: true, ..disk.facts().clone() };
            let part = facts.size.div_ceil(self.heads.into()).max(1);
            let mechanics = Mechanics { part, times: [min, half, max], arms: arms.clone() };
            Ok(Arc::new(Around::with_facts(mechanics, facts, disk)) as Arc<dyn Disk>)
        }))
    }
}

/// Where an arm stands, within the part of each of its heads. Locked while it moves: one move at a time.
type Arm = Mutex<u64>;

struct Mechanics {
    /// So many bytes belong to a head.
    part: u64,
    /// The shortest move, half the way, all of it.
    times: [Duration; 3],
    arms: Arc<[Arm]>,
}

impl Mechanics {
    /// How long a move takes.
    fn time(&self, from: u64, to: u64) -> Duration {
        let [min, half, max] = self.times;
        let way = from.abs_diff(to) as f64 / self.part as f64;
        let between = |low: Duration, high: Duration, at: f64| low + (high - low).mul_f64(at.clamp(0.0, 1.0));
        match way {
            0.0 => Duration::ZERO,
            way if way < 0.5 => between(min, half, way * 2.0),
            way => between(half, max, way * 2.0 - 1.0),
        }
    }

    /// Moves a head to a range, and to its end.
    async fn seek(&self, r: Range) {
        let head = (r.start / self.part) as usize;
        let mut arm = self.arms[head % self.arms.len()].lock().await;
        let time = self.time(*arm, r.start % self.part);
        if !time.is_zero() {
            reactor::sleep(time).await;
        }
        *arm = r.end() % self.part;
    }
}

impl EveryRequest for Mechanics {
    fn around<'a, T: Send + 'a>(&'a self, op: Op, call: impl FnOnce() -> Io<'a, T> + Send + 'a) -> Io<'a, T> {
        // The medium is not touched to say what it holds, and a flush has its own way.
        if matches!(op.kind, OpKind::Flush | OpKind::Extents) {
            return call();
        }
        Io::later(async move {
            self.seek(op.range).await;
            call().await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, layer, opened};
    use std::time::Instant;

    fn mechanics(part: u64, arms: usize) -> Mechanics {
        let times = [1, 8, 15].map(Duration::from_millis);
        Mechanics { part, times, arms: (0..arms).map(|_| Arm::default()).collect() }
    }

    #[test]
    fn longer_ways_take_longer() {
        let m = mechanics(1000, 1);
        let ms = |from, to| m.time(from, to).as_secs_f64() * 1000.0;
        assert_eq!((ms(5, 5), ms(0, 500), ms(1000, 0)), (0.0, 8.0, 15.0));
        assert!(ms(0, 1) > 1.0 && ms(0, 1) < 1.1);
        assert_eq!(ms(0, 250), 4.5);
        assert_eq!(ms(750, 0), 11.5);
    }

    #[test]
    fn heads_on_one_arm_move_together_and_separate_ones_do_not() {
        for (arms, expected) in [(1, vec![600]), (2, vec![100, 600])] {
            let m = mechanics(1000, arms);
            reactor::block_on(async {
                m.seek(Range::new(0, 100)).await;
                m.seek(Range::new(1500, 100)).await;
            });
            let stands: Vec<u64> = m.arms.iter().map(|arm| *arm.lock_blocking()).collect();
            assert_eq!(stands, expected);
        }
    }

    #[test]
    fn jumping_about_is_slow_and_going_on_is_not() {
        let params = ["min-seek-time=20ms", "half-seek-time=20ms", "max-seek-time=20ms"];
        let disk = opened::<Spinning>(&params, &Memory::new(vec![0; 4096]));
        assert!(disk.facts().rotational);
        let read = |start| drop(disk.read(Range::new(start, 512)).wait().unwrap());
        let start = Instant::now();
        [2048, 0, 3072].into_iter().for_each(read);
        assert!(start.elapsed() >= Duration::from_millis(60));
    }

    #[test]
    fn impossible_mechanics_are_refused() {
        let why = |param: &str| layer::<Spinning>(&[param], &Memory::new(vec![])).err().unwrap().to_string();
        assert_eq!(why("heads=0"), "spinning: heads=0: not from 1 to 1024");
        assert!(why("half-seek-time=1s").ends_with("a longer way cannot take less time"));
    }
}
