//! A cache in a file, and the disk below it, after every power cut that hits both: what was flushed is in one of them.

use super::*;
use crate::{
    common::testing::Random,
    crashlab::power::{OnDisk, Power},
};
use params::Args;
use store::{Header, Kind};

/// The disk's bytes.
const ALL: u64 = 64 << 10;
const SECTORS: u64 = ALL / 512;

/// The backend of a disk that is open.
struct Only(Arc<dyn Disk>);

impl Backend for Only {
    fn open<'a>(&'a self, _: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        Io::ok(self.0.clone())
    }
    fn exports<'a>(&'a self, _: &'a Client<'a>) -> Io<'a, Vec<disk::Export>> {
        Io::ok(vec![])
    }
}

/// A server whose file is the one disk, over the other.
fn server(blocks: Blocks, base: Arc<dyn Disk>, words: &[&str]) -> Arc<dyn Backend> {
    let mut args = Args::from_cli(words, None).unwrap();
    let params = Arc::new(<CacheFilter as Params>::parse(&mut args).unwrap());
    let place = Place::File("/nonexistent/cache".into(), Box::new(std::sync::Mutex::new(Some(blocks))));
    Arc::new(Caching { params, place: Arc::new(place), caches: Mutex::default(), next: Arc::new(Only(base)) })
}

/// The first byte of each sector.
fn sectors(disk: &Arc<dyn Disk>) -> Vec<u8> {
    read(disk, 0, ALL).chunks(512).map(|sector| sector[0]).collect()
}

/// Of each sector, what was written to it; and how many of that were there for good from which moments on.
struct Model {
    written: Vec<Vec<u8>>,
    flushed: Vec<(usize, Vec<usize>)>,
}

impl Model {
    fn flushed(&mut self, power: &Power) {
        self.flushed.push((power.now(), self.written.iter().map(Vec::len).collect()));
    }

    fn check(&self, moment: usize, there: &[u8], what: &str) {
        let (_, sure) = self.flushed.iter().rfind(|(from, _)| *from <= moment).unwrap();
        for (sector, byte) in there.iter().enumerate() {
            let allowed = &self.written[sector][sure[sector] - 1..];
            assert!(allowed.contains(byte), "{what}: sector {sector}: {byte}, not of {allowed:?}");
        }
    }
}

/// Uses a cache in all sorts of ways.
fn use_it(random: &mut Random, disk: &Arc<dyn Disk>, model: &mut Model, power: &Power) {
    for step in 1..30 {
        // Half of the time, whole blocks.
        let unit = [1, 8][random.below(2) as usize];
        let start = random.below(SECTORS / unit) * unit;
        let count = ((1 + random.below(20 / unit)) * unit).min(SECTORS - start);
        let r = Range::new(start * 512, count * 512);
        let place = start as usize..(start + count) as usize;
        // The disk below is first changed later: from then on, a clean block counts for nothing after a cut.
        match random.below(if step < 10 { 9 } else { 12 }) {
            0..4 => {
                model.written[place].iter_mut().for_each(|list| list.push(step));
                write(disk, r.start, &vec![step; r.len as usize]);
            }
            4..7 => drop(read(disk, r.start, r.len)),
            7 | 8 => {
                disk.flush().wait().unwrap();
                model.flushed(power);
            }
            // What a client does that goes away: all is written back. Of what was written through it promises nothing.
            9 => {
                let before = power.now();
                disk.close().wait().unwrap();
                if power.now() > before {
                    model.flushed(power);
                }
            }
            _ => {
                model.written[place].iter_mut().for_each(|list| list.push(0));
                disk.zero(r, ZeroFlags { may_trim: true, ..Default::default() }).wait().unwrap();
            }
        }
    }
}

fn cuts(seed: u64, words: &[&str]) {
    let power = Power::over(&[Memory::new(vec![0; 8 << 20]), Memory::new(vec![255; ALL as usize])]);
    let header = Header::new(Kind::Cache, 4096, ALL).unwrap();
    let blocks = Blocks::create(Arc::new(OnDisk(power.disk(0))), header).unwrap();
    let born = power.now();
    let mut random = Random(seed);
    let mut model = Model { written: vec![vec![255]; SECTORS as usize], flushed: Vec::new() };
    model.flushed(&power);
    let layer = server(blocks, power.disk(1), words);
    use_it(&mut random, &open(&layer), &mut model, &power);
    layer.finish();
    model.flushed(&power);
    for moment in born..=power.now() {
        let whole = [0, 1].iter().all(|of| power.unflushed(moment, *of) == 0);
        for choice in 0..if whole { 1 } else { 4 } {
            let mut any = || 2 + random.below(60);
            let numbers = [[0, 0], [1, 0], [0, 1], [any(), any()]][choice];
            let what = format!("seed {seed}, {words:?}, moment {moment}, states {numbers:?}");
            let [kept, base] = [0, 1].map(|of| power.state(moment, of, numbers[of]));
            let blocks = Blocks::open(Arc::new(OnDisk(kept)), true);
            let blocks = blocks.unwrap_or_else(|e| panic!("{what}: {e}"));
            let layer = server(blocks, base.clone(), words);
            let there = sectors(&open(&layer));
            model.check(moment, &there, &what);
            if choice == 1 {
                layer.finish();
                assert!(sectors(&base) == there, "{what}: the disk below has something else in the end");
            }
        }
    }
}

#[test]
fn what_was_flushed_is_kept_or_written_back_whenever_the_power_goes() {
    for seed in 1..3 {
        cuts(seed, &["cache-on-read=true"]);
        cuts(seed, &["cache-on-read=true", "cache-max-size=32K"]);
        cuts(seed, &["cache-on-read=true", "cache=writethrough"]);
    }
}
