//! The kit itself: a sound disk passes every check, and each kind of broken disk is caught by the check that is
//! meant to.

use conformance::{Case, Expect, Test};
use disk::{
    Backend, Client, Data, Disk, Extents, Facts, Filter, FilterEntry, Io, Kind, Plugin, PluginEntry, Range,
    Result, WriteFlags, ZeroFlags,
};
use params::Params;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering::SeqCst},
};

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, params::Choice)]
enum Flaw {
    None,
    ForgetsWrites,
    LiesAboutHoles,
    ShowsPoison,
    LastByte,
    WedgesWhenDropped,
    OneConnection,
}

/// A small disk that may be broken.
#[derive(Params)]
struct Broken {
    /// How.
    flaw: Flaw,
}

impl Plugin for Broken {
    const NAME: &'static str = "broken";
    const MANUAL: &'static str =
        "# NAME\nbroken\n# SYNOPSIS\nx\n# PARAMETERS\n<!-- parameters -->\n# EXAMPLES\n```sh\ntrue\n```\n";
    fn start(self) -> Result<impl Backend + 'static> {
        Ok(BrokenBackend { flaw: self.flaw, bytes: Arc::new(Mutex::new(vec![0; SIZE])) })
    }
}

const SIZE: usize = 128 << 10;

struct BrokenBackend {
    flaw: Flaw,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Backend for BrokenBackend {
    fn open<'a>(&'a self, _: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        let bytes = match self.flaw {
            Flaw::OneConnection => Arc::new(Mutex::new(self.bytes.lock().unwrap().clone())),
            _ => self.bytes.clone(),
        };
        let facts = Facts { extents: true, ..Facts::writable(SIZE as u64) };
        Io::ok(Arc::new(BrokenDisk { facts, flaw: self.flaw, bytes, wedged: Mutex::new(false) }))
    }
}

struct BrokenDisk {
    facts: Facts,
    flaw: Flaw,
    bytes: Arc<Mutex<Vec<u8>>>,
    wedged: Mutex<bool>,
}

impl Disk for BrokenDisk {
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, r: Range) -> Io<'_, Data> {
        if self.flaw == Flaw::ShowsPoison && r.len > 100_000 {
            return Io::ok(Data::fill(r.len as usize, |_| {}));
        }
        if self.flaw == Flaw::LastByte && r.end() == SIZE as u64 && r.len == 1 {
            return disk::Error::io("off by one").into();
        }
        let read = move || Data::copy_from(&self.bytes.lock().unwrap()[r.start as usize..r.end() as usize]);
        if self.flaw != Flaw::WedgesWhenDropped {
            return Io::ok(read());
        }
        Io::later(async move {
            if std::mem::replace(&mut *self.wedged.lock().unwrap(), true) {
                return Err(disk::Error::io("still wedged by a dropped request"));
            }
            reactor::yield_now().await;
            *self.wedged.lock().unwrap() = false;
            Ok(read())
        })
    }
    fn write(&self, at: u64, data: Data, _: WriteFlags) -> Io<'_, ()> {
        if !(self.flaw == Flaw::ForgetsWrites && at.is_multiple_of(7)) {
            data.copy_to(&mut self.bytes.lock().unwrap()[at as usize..(at + data.len()) as usize]);
        }
        Io::ok(())
    }
    fn flush(&self) -> Io<'_, ()> {
        Io::ok(())
    }
    fn extents(&self, r: Range, _: usize) -> Io<'_, Extents> {
        let lie = self.flaw == Flaw::LiesAboutHoles;
        let zero = self.bytes.lock().unwrap()[r.start as usize..r.end() as usize].iter().all(|b| *b == 0);
        Io::ok(Extents::one(r.len, if lie || zero { Kind::HOLE } else { Kind::DATA }))
    }
}

/// What a filter forgets.
#[derive(Clone, Copy, PartialEq, Eq, params::Choice)]
enum Forget {
    Nothing,
    Flushes,
    /// What is not stable, when a flush fails.
    Failures,
}

/// A filter that forwards all, but may be forgetful.
#[derive(Params)]
struct Forgetful {
    /// What.
    forget: Forget,
}

impl Filter for Forgetful {
    const NAME: &'static str = "forgetful";
    const MANUAL: &'static str = "# NAME\nforgetful\n# SYNOPSIS\nx\n# PARAMETERS\n<!-- parameters -->\n# DESCRIPTION\nIt takes no memory.\n# EXAMPLES\n```sh\ntrue\n```\n";
    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        Ok(ForgetfulBackend(self.forget, next))
    }
}

struct ForgetfulBackend(Forget, Arc<dyn Backend>);

impl Backend for ForgetfulBackend {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.1.open(client).map(|next| {
            Ok(Arc::new(ForgetfulDisk { forget: self.0, dirty: AtomicBool::new(false), next })
                as Arc<dyn Disk>)
        })
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.1)
    }
}

struct ForgetfulDisk {
    forget: Forget,
    dirty: AtomicBool,
    next: Arc<dyn Disk>,
}

impl Disk for ForgetfulDisk {
    disk::forward!(next: next, facts, read, cache, extents, status);
    fn write(&self, at: u64, data: Data, flags: WriteFlags) -> Io<'_, ()> {
        self.dirty.store(true, SeqCst);
        self.next.write(at, data, WriteFlags { fua: flags.fua && self.forget != Forget::Flushes })
    }
    fn zero(&self, r: Range, flags: ZeroFlags) -> Io<'_, ()> {
        self.dirty.store(true, SeqCst);
        self.next.zero(r, flags)
    }
    fn trim(&self, r: Range, flags: WriteFlags) -> Io<'_, ()> {
        self.dirty.store(true, SeqCst);
        self.next.trim(r, flags)
    }
    fn flush(&self) -> Io<'_, ()> {
        match self.forget {
            Forget::Nothing => self.next.flush(),
            Forget::Flushes => Io::ok(()),
            Forget::Failures if self.dirty.swap(false, SeqCst) => self.next.flush(),
            Forget::Failures => Io::ok(()),
        }
    }
}

static PLUGINS: &[PluginEntry] = &[PluginEntry::of::<Broken>()];
static FILTERS: &[FilterEntry] = &[FilterEntry::of::<Forgetful>()];

/// The checks that fail.
fn failing(tests: Vec<Test>) -> Vec<String> {
    let outcomes = tests.into_iter().map(|test| (test.name, (test.run)()));
    let failed = outcomes.filter_map(|(name, outcome)| outcome.err().map(|why| (name, why)));
    failed.map(|(name, why)| format!("{name}: {why}")).collect()
}

fn flawed(flaw: &'static str) -> Vec<String> {
    let case = Case::new("broken", &[("flaw", flaw)], Expect::Model);
    failing(conformance::tests_of_plugins(PLUGINS, vec![case]))
}

fn forgetful(forget: &'static str) -> Vec<String> {
    let case = Case::new("forgetful", &[("forget", forget)], Expect::Model);
    failing(conformance::tests_of_filters(FILTERS, vec![case]))
}

fn caught(failing: Vec<String>, by: &str) {
    assert!(failing.iter().any(|failure| failure.contains(by)), "not caught by {by} but by {failing:#?}");
}

#[test]
fn sound_components_pass() {
    assert_eq!(flawed("none"), [""; 0]);
    assert_eq!(forgetful("nothing"), [""; 0]);
}

#[test]
fn every_flaw_is_caught_by_its_check() {
    caught(flawed("forgets-writes"), "random_requests_agree_with_a_model");
    caught(flawed("lies-about-holes"), "extents_agree_with_reads");
    caught(flawed("shows-poison"), "reads_show_no_recycled_bytes");
    caught(flawed("last-byte"), "the_first_and_last_bytes_work");
    caught(flawed("wedges-when-dropped"), "dropped_requests_do_no_harm");
    caught(flawed("one-connection"), "connections_see_each_other");
}

#[test]
fn a_forgotten_flush_is_caught() {
    caught(forgetful("flushes"), "what_is_flushed_survives_power_loss");
}

#[test]
fn a_flush_that_is_forgotten_because_it_failed_is_caught() {
    let failing = forgetful("failures");
    assert!(
        !failing.iter().any(|failure| failure.contains("what_is_flushed_survives_power_loss")),
        "{failing:#?}"
    );
    caught(failing, "what_is_flushed_survives_failures_and_power_loss");
}

#[test]
fn a_component_without_a_case_is_an_error() {
    caught(failing(conformance::tests_of_plugins(PLUGINS, vec![])), "broken has no case");
}
