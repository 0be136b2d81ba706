//! Disks that fail until they have been opened again.

use super::*;
use crate::common::testing::{Memory, layer, noise, over};
use disk::{
    Data, Errno, Facts, Range, WriteFlags,
    shapes::{
        Op,
        around::{Around, EveryRequest},
    },
};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

/// A plugin whose first so many openings give disks that always fail.
struct Broken {
    failing: u32,
    opened: Arc<AtomicU32>,
    memory: Arc<dyn Backend>,
    larger: Option<Arc<dyn Backend>>,
}

struct Failing;
impl EveryRequest for Failing {
    fn around<'a, T: Send + 'a>(&'a self, _: Op, _: impl FnOnce() -> Io<'a, T> + Send + 'a) -> Io<'a, T> {
        Errno::CONNRESET.into()
    }
}

impl Backend for Broken {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        let number = self.opened.fetch_add(1, SeqCst);
        if number < self.failing {
            return self
                .memory
                .open(client)
                .map(|disk| Ok(Arc::new(Around::new(Failing, disk)) as Arc<dyn Disk>));
        }
        self.larger.as_ref().unwrap_or(&self.memory).open(client)
    }
}

fn over_broken(
    failing: u32,
    params: &[&str],
    larger: Option<Arc<dyn Backend>>,
) -> (Arc<dyn Disk>, Arc<AtomicU32>) {
    let memory = layer::<crate::nofilter::NoFilter>(&[], &Memory::new(noise(1, 1024))).unwrap();
    let opened = Arc::<AtomicU32>::default();
    let broken = Arc::new(Broken { failing, opened: opened.clone(), memory, larger });
    let params = [&["retry-delay=1ms"], params].concat();
    (crate::common::testing::open(&over::<Retry>(&params, broken).unwrap()), opened)
}

fn read(disk: &Arc<dyn Disk>) -> Result<Data> {
    disk.read(Range::new(0, 1024)).wait()
}

#[test]
fn a_failing_disk_is_opened_again_until_it_works() {
    let (disk, opened) = over_broken(3, &[], None);
    assert_eq!(read(&disk).unwrap().to_vec(), noise(1, 1024));
    assert_eq!(opened.load(SeqCst), 4);
    read(&disk).unwrap();
    assert_eq!(opened.load(SeqCst), 4, "what works is kept");
}

#[test]
fn patience_has_an_end() {
    let (disk, opened) = over_broken(u32::MAX, &["retries=2"], None);
    assert_eq!(read(&disk).unwrap_err().errno(), Errno::CONNRESET);
    assert_eq!(opened.load(SeqCst), 3);
    let (disk, opened) = over_broken(1, &["retries=0"], None);
    assert!(read(&disk).is_err());
    assert_eq!(opened.load(SeqCst), 1);
}

#[test]
fn many_that_fail_at_once_open_it_once() {
    let (disk, opened) = over_broken(1, &["retry-delay=20ms"], None);
    let reads: Vec<_> = (0..8).map(|_| disk.read(Range::new(0, 1024))).collect();
    reactor::block_on(async {
        let mut set = reactor::InFlight::new();
        reads.into_iter().for_each(|read| set.push(read));
        while let Some(done) = set.next().await {
            done.unwrap();
        }
    });
    assert_eq!(opened.load(SeqCst), 2);
}

#[test]
fn afterwards_it_may_only_be_read_if_that_is_wanted() {
    let (disk, _) = over_broken(1, &["retry-readonly=yes"], None);
    read(&disk).unwrap();
    let write = disk.write(0, Data::zeroes(512), WriteFlags::default()).wait();
    assert_eq!(write.unwrap_err().errno(), Errno::ROFS);
}

#[test]
fn another_disk_in_its_place_is_not_taken_for_it() {
    let larger =
        layer::<crate::nofilter::NoFilter>(&[], &Memory::with(vec![0; 2048], Facts::writable(2048))).unwrap();
    let (disk, _) = over_broken(1, &["retries=2"], Some(larger));
    assert!(read(&disk).is_err());
}

#[test]
fn waits_double_if_they_should() {
    let retry = |exponential| Retry {
        retries: 40,
        retry_delay: Delay(Duration::from_secs(2)),
        retry_exponential: exponential,
        retry_readonly: false,
    };
    let waits =
        |exponential| [1, 2, 5, 40, 41].map(|n| retry(exponential).pause(n).map(|pause| pause.as_secs()));
    assert_eq!(waits(true), [Some(2), Some(4), Some(32), Some(86_400), None]);
    assert_eq!(waits(false), [Some(2), Some(2), Some(2), Some(2), None]);
}
