//! Caches that outlive the server: what is found again, what is dropped, and what no crash may do.

use super::*;
use crate::common::testing::{Memory, Random};
use conformance::Fake;
use disk::{Facts, Range, WriteFlags};
use params::Args;
use store::crash;

fn params(file: &std::path::Path, more: &[&str]) -> Vec<String> {
    let file = format!("cache-file={}", file.display());
    more.iter().map(|text| (*text).to_owned()).chain([file]).collect()
}

/// A cache in this file over `memory`, which says that it is `identity`.
fn over_memory(file: &std::path::Path, more: &[&str], memory: &Arc<Memory>) -> Result<Arc<dyn Backend>> {
    let params = params(file, more);
    let params: Vec<&str> = params.iter().map(String::as_str).collect();
    let layer = layer::<CacheFilter>(&params, memory)?;
    layer.get_ready()?;
    Ok(layer)
}

fn identified(bytes: Vec<u8>, identity: &str) -> Arc<Memory> {
    let facts = Facts { identity: Some(identity.into()), ..Facts::capable(bytes.len() as u64) };
    Memory::with(bytes, facts)
}

fn why(opened: Result<Arc<dyn Backend>>) -> String {
    let error = opened.and_then(|layer| layer.open(&Client::local("")).wait()).err().unwrap();
    error.to_string()
}

#[test]
fn what_was_read_once_is_not_read_again_by_the_next_server() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cache");
    let memory = identified(noise(1, SIZE), "one");
    for expected in [vec!["read 0 1048576", "close"], vec!["close"]] {
        let layer = over_memory(&file, &["cache-on-read=true"], &memory).unwrap();
        let disk = open(&layer);
        assert!(read(&disk, 0, SIZE as u64) == noise(1, SIZE));
        drop(disk);
        layer.finish();
        assert_eq!(memory.asked(), expected);
    }
    // Another content: what is known of the old one is of no use.
    let memory = identified(noise(2, SIZE), "two");
    let layer = over_memory(&file, &["cache-on-read=true"], &memory).unwrap();
    assert!(read(&open(&layer), 0, SIZE as u64) == noise(2, SIZE));
}

#[test]
fn flushed_writes_outlive_the_server_and_are_written_back_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cache");
    let memory = identified(noise(1, SIZE), "one");
    let layer = over_memory(&file, &[], &memory).unwrap();
    let disk = open(&layer);
    write(&disk, 100, b"hello");
    disk.flush().wait().unwrap();
    assert_eq!(memory.asked(), ["read 0 65536"], "the file is stable, and the disk below can wait");
    // It is killed.
    drop((disk, layer));
    let other = why(over_memory(&file, &[], &identified(noise(3, SIZE), "two")));
    let expected = "the disk below is not as it was: it was one, and is two; and 65536 bytes that clients wrote have \
        not reached it: bring it back as it was, or remove the file and lose them";
    assert!(other.ends_with(expected), "{other}");
    let layer = over_memory(&file, &[], &memory).unwrap();
    let disk = open(&layer);
    assert_eq!(read(&disk, 100, 5), b"hello");
    assert_eq!(memory.asked(), [""; 0]);
    drop(disk);
    layer.finish();
    assert_eq!(&memory.bytes()[100..105], b"hello");
    let asked = memory.asked();
    assert_eq!(asked[..2], ["write 0 65536", "flush"]);
    // Its identity after its own writes is asked for: the next server finds all as it was left.
    let layer = over_memory(&file, &[], &memory).unwrap();
    assert_eq!(read(&open(&layer), 0, 65536), &memory.bytes()[..65536]);
    assert_eq!(memory.asked(), [""; 0]);
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cache");
    let memory = Memory::new(noise(1, SIZE));
    let layer = over_memory(&file, &[], &memory).unwrap();
    let _disk = open(&layer);
    let busy = why(over_memory(&file, &[], &memory));
    assert!(busy.contains("cache-file: ") && busy.contains("use"), "{busy}");
    let other = layer.open(&Client::local("other")).wait().err().unwrap().to_string();
    assert!(other.ends_with("it is of export \"\", and cannot be of \"other\" as well"), "{other}");
    let both = why(over_memory(&dir.path().join("other"), &["cache=unsafe"], &memory));
    assert!(both.contains("they cannot be used together"), "{both}");
    std::fs::write(dir.path().join("text"), "not a cache at all").unwrap();
    let text = why(over_memory(&dir.path().join("text"), &[], &memory));
    assert!(text.contains("not a file of diskpipe's overlays and caches"), "{text}");
}

const SMALL: u64 = 64 << 10;

/// A cache in a file that can lose power, over a disk that can as well.
struct Life {
    medium: Arc<crash::Fake>,
    base: Fake,
    layer: Layer,
}

impl Life {
    fn new(file: Option<Vec<u8>>, base: Fake, words: &[&str]) -> Life {
        let mut args = Args::from_cli(words, None).unwrap();
        let params = <CacheFilter as Params>::parse(&mut args).unwrap();
        let disk = base.backend().open(&Client::local("")).wait().unwrap();
        let fresh = file.is_none();
        let medium = Arc::new(crash::Fake::new(file.unwrap_or_default()));
        let blocks = if fresh {
            let mut header = store::Header::new(store::Kind::Cache, 4096, SMALL).unwrap();
            header.identity = "the fake".into();
            Blocks::create(medium.clone(), header).unwrap()
        } else {
            Blocks::open(medium.clone(), true).unwrap()
        };
        if blocks.header().unwrap().identity == kept::CHANGING {
            kept::forget_clean(&blocks, 4096).unwrap();
        }
        let recent = params.cache_max_size.map(|size| Recent::new(size.bytes() / 4096, 90, 50));
        let cache = Cache::new(&params, disk, true, Arc::new(Shared::new(blocks, recent))).unwrap();
        Life { medium, base, layer: Layer { facts: cache.facts.clone(), cache: Arc::new(cache) } }
    }

    fn all(&self) -> Vec<u8> {
        self.layer.read(Range::new(0, SMALL)).wait().unwrap().to_vec()
    }
}

/// What each byte may be after a loss of power.
struct Possible {
    stable: Vec<u8>,
    since: Vec<Vec<u8>>,
}

impl Possible {
    fn changed(&mut self, r: Range, now: &[u8], stable: bool) {
        for (at, byte) in (r.start as usize..).zip(now) {
            if stable {
                self.stable[at] = *byte;
                self.since[at].clear();
            } else {
                self.since[at].push(*byte);
            }
        }
    }
}

fn lives(seed: u64, words: &[&str]) {
    let mut random = Random(seed);
    let mut life = Life::new(None, Fake::new(Facts::capable(SMALL), seed), words);
    let mut possible = Possible { stable: life.all(), since: vec![vec![]; SMALL as usize] };
    for number in 0..5 {
        for _ in 0..random.below(40) {
            let at = random.below(SMALL / 512) * 512;
            let len = match random.below(3) {
                0 => 512,
                1 => 4096,
                _ => (1 + random.below(64)) * 512,
            };
            let r = Range::new(at, len.min(SMALL - at));
            let fua = random.below(4) == 0;
            let byte = random.below(256) as u8;
            match random.below(12) {
                0..6 => {
                    let data = vec![byte; r.len as usize];
                    life.layer.write(r.start, Data::copy_from(&data), WriteFlags { fua }).wait().unwrap();
                    possible.changed(r, &data, fua);
                }
                6 => {
                    let flags = disk::ZeroFlags { fua, may_trim: true, fast: false };
                    life.layer.zero(r, flags).wait().unwrap();
                    possible.changed(r, &vec![0; r.len as usize], fua);
                }
                7 => {
                    life.layer.trim(r, WriteFlags { fua: false }).wait().unwrap();
                    let now = life.layer.read(r).wait().unwrap().to_vec();
                    possible.changed(r, &now, false);
                }
                8 | 9 => {
                    life.layer.flush().wait().unwrap();
                    let now = life.all();
                    possible.changed(Range::new(0, SMALL), &now, true);
                }
                10 => life.layer.close().wait().unwrap(),
                _ => drop(life.all()),
            }
            // What failed is told, or does no harm.
            if random.below(10) == 0 {
                life.base.fail_one_in(2, random.below(1000));
                let _ = life.layer.close().wait();
                let _ = life.layer.cache(r).wait();
                life.base.fail_one_in(0, 0);
            }
        }
        let killed = random.below(3) == 0;
        let (file, base) = if killed {
            (life.medium.bytes(), life.base.clone())
        } else {
            let file = life.medium.after_power_loss(life.medium.moments(), || random.below(2) == 0);
            (file, life.base.after_power_loss())
        };
        drop(life);
        life = Life::new(Some(file), base, words);
        let now = life.all();
        for (at, byte) in now.iter().enumerate() {
            let allowed = *byte == possible.stable[at] || possible.since[at].contains(byte);
            assert!(allowed, "seed {seed}, life {number}: byte {at} is {byte}, was {}", possible.stable[at]);
        }
        // Nothing is there that the disk below will contradict one day.
        if random.below(2) == 0 {
            life.layer.cache.write_all_back().wait_for().unwrap();
            kept::forget_clean(&life.layer.cache.blocks, 4096).unwrap();
            assert!(life.all() == now, "seed {seed}, life {number}: what was read first was not so");
        }
        // What the disk below had not flushed when only the server was killed, it can still lose.
        if !killed {
            possible = Possible { stable: now, since: vec![vec![]; SMALL as usize] };
        }
    }
}

trait WaitFor: Future + Sized {
    fn wait_for(self) -> Self::Output {
        reactor::block_on(self)
    }
}
impl<F: Future> WaitFor for F {}

#[test]
fn no_crash_loses_what_was_flushed_or_shows_what_will_not_last() {
    for seed in 0..10 {
        lives(seed, &["cache-on-read=true"]);
        lives(seed, &["cache-on-read=true", "cache-max-size=32K"]);
        lives(seed, &["cache-on-read=true", "cache=writethrough"]);
        lives(seed, &["cache-on-read=true", "cache=writethrough", "cache-max-size=32K"]);
    }
}

#[test]
fn a_full_file_system_stops_caching_and_nothing_else() {
    for words in [&["cache-on-read=true"][..], &["cache-on-read=true", "cache=writethrough"]] {
        let base = Fake::new(Facts::capable(SMALL), 7);
        let before = base.backend().open(&Client::local("")).wait().unwrap();
        let before = before.read(Range::new(0, SMALL)).wait().unwrap().to_vec();
        let life = Life::new(None, base, words);
        life.medium.set_room(Some(0));
        assert_eq!(life.all(), before);
        for at in (0..SMALL).step_by(4096) {
            life.layer.write(at, Data::copy_from(&[9; 4096]), WriteFlags::default()).wait().unwrap();
        }
        life.layer.flush().wait().unwrap();
        assert_eq!(life.all(), vec![9; SMALL as usize]);
        life.medium.set_room(None);
        life.layer.write(0, Data::copy_from(&[8; 4096]), WriteFlags { fua: true }).wait().unwrap();
        let file = life.medium.after_power_loss(life.medium.moments(), || false);
        let life = Life::new(Some(file), life.base.after_power_loss(), words);
        let expected = [vec![8; 4096], vec![9; SMALL as usize - 4096]].concat();
        assert_eq!(life.all(), expected);
    }
}
