//! What the tests of all filters stand on: a small memory disk that offers everything and writes down what it was
//! asked, and the way from `key=value` texts to a filter over it.

use disk::{
    Backend, Client, Data, Disk, Extents, Facts, Filter, FilterEntry, Io, Kind, Range, Result, WriteFlags,
    ZeroFlags, backend::Export,
};
use params::Args;
use std::sync::{Arc, Mutex};

/// A disk in memory, shared by all who open it.
pub(crate) struct Memory {
    facts: Facts,
    bytes: Mutex<Vec<u8>>,
    asked: Mutex<Vec<String>>,
}

impl Memory {
    /// Holds these bytes and offers everything.
    pub(crate) fn new(bytes: Vec<u8>) -> Arc<Memory> {
        let facts = Facts {
            trim: true,
            zero: true,
            fast_zero: true,
            fua: true,
            cache: true,
            extents: true,
            ..Facts::writable(bytes.len() as u64)
        };
        Memory::with(bytes, facts)
    }

    /// Holds these bytes and offers what `facts` say.
    pub(crate) fn with(bytes: Vec<u8>, facts: Facts) -> Arc<Memory> {
        Arc::new(Memory { facts, bytes: Mutex::new(bytes), asked: Mutex::default() })
    }

    /// All bytes as they are now.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }

    /// What was asked since the last call, such as `read 0 512`.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }

    fn fill(&self, r: Range, byte: u8) {
        self.bytes.lock().unwrap()[r.start as usize..r.end() as usize].fill(byte);
    }
}

/// The disk that one connection has of a [`Memory`].
struct Opened(Arc<Memory>);

impl Disk for Opened {
    fn facts(&self) -> &Facts {
        &self.0.facts
    }
    fn read(&self, r: Range) -> Io<'_, Data> {
        self.0.note(format!("read {} {}", r.start, r.len));
        Io::ok(Data::copy_from(&self.0.bytes.lock().unwrap()[r.start as usize..r.end() as usize]))
    }
    fn write(&self, at: u64, data: Data, f: WriteFlags) -> Io<'_, ()> {
        self.0.note(format!("write {at} {}{}", data.len(), if f.fua { " fua" } else { "" }));
        data.copy_to(&mut self.0.bytes.lock().unwrap()[at as usize..(at + data.len()) as usize]);
        Io::ok(())
    }
    fn zero(&self, r: Range, f: ZeroFlags) -> Io<'_, ()> {
        let flag = |on, name| if on { name } else { "" };
        let flags = [flag(f.may_trim, " may_trim"), flag(f.fast, " fast"), flag(f.fua, " fua")].concat();
        self.0.note(format!("zero {} {}{flags}", r.start, r.len));
        self.0.fill(r, 0);
        Io::ok(())
    }
    fn trim(&self, r: Range, _: WriteFlags) -> Io<'_, ()> {
        self.0.note(format!("trim {} {}", r.start, r.len));
        self.0.fill(r, 0);
        Io::ok(())
    }
    fn flush(&self) -> Io<'_, ()> {
        self.0.note("flush".into());
        Io::ok(())
    }
    fn cache(&self, r: Range) -> Io<'_, ()> {
        self.0.note(format!("cache {} {}", r.start, r.len));
        Io::ok(())
    }
    fn extents(&self, r: Range, limit: usize) -> Io<'_, Extents> {
        self.0.note(format!("extents {} {}", r.start, r.len));
        let bytes = self.0.bytes.lock().unwrap();
        let mut out = Extents::new();
        for part in r.split_at_multiples(512) {
            if out.len() > limit {
                break;
            }
            let zero = disk::data::is_zero(&bytes[part.start as usize..part.end() as usize]);
            out.push(part.len, if zero { Kind::HOLE } else { Kind::DATA });
        }
        out.truncate(r.len);
        Io::ok(out)
    }
    fn close(&self) -> Io<'_, ()> {
        self.0.note("close".into());
        Io::ok(())
    }
}

/// The backend of a [`Memory`].
pub(crate) struct Plugin(pub(crate) Arc<Memory>);

impl Backend for Plugin {
    fn open<'a>(&'a self, _: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        Io::ok(Arc::new(Opened(self.0.clone())))
    }
    fn exports<'a>(&'a self, _: &'a Client<'a>) -> Io<'a, Vec<Export>> {
        Io::ok(vec![Export::default()])
    }
}

/// Filter `F` with these parameters over `memory`, checked on both sides.
pub(crate) fn layer<F: Filter>(params: &[&str], memory: &Arc<Memory>) -> Result<Arc<dyn Backend>> {
    over::<F>(params, disk::checked::backend(Arc::new(Plugin(memory.clone()))))
}

/// Filter `F` with these parameters over another backend.
pub(crate) fn over<F: Filter>(params: &[&str], next: Arc<dyn Backend>) -> Result<Arc<dyn Backend>> {
    let mut args = Args::from_cli(params, None)?;
    let layer = FilterEntry::of::<F>().start(&mut args, next)?;
    assert!(args.is_empty(), "{args:?} are not its parameters");
    Ok(layer)
}

/// The default export.
pub(crate) fn open(backend: &Arc<dyn Backend>) -> Arc<dyn Disk> {
    backend.open(&Client::local("")).wait().unwrap()
}

/// Filter `F` with these parameters over `memory`, opened.
pub(crate) fn opened<F: Filter>(params: &[&str], memory: &Arc<Memory>) -> Arc<dyn Disk> {
    open(&layer::<F>(params, memory).unwrap())
}

/// Bytes that look random and are the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed);
    (0..len).map(|_| random.below(256) as u8).collect()
}

/// Numbers that look random and are the same for the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// From 0 to below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (x ^ (x >> 31)) % limit
    }
}
