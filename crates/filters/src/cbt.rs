//! `cbt`: which parts of a disk changed since when, kept in a file, for backups that copy only those.
//!
//! All connections share one [`Tracker`]. Its file ([`file`], [`header`]) never says less than what changed, however a
//! server ends. Clients see each checkpoint as the metadata context `qemu:dirty-bitmap:NAME`; a control socket
//! ([`control`]) starts and drops them while the server runs.

mod control;
mod file;
mod header;
mod layer;
mod tracker;

use crate::common::{
    control::Control,
    gate::Gate,
    wrap::{export_name, stated, stated_with_its_size},
};
use disk::{Backend, Client, Disk, Error, Facts, Filter, Io, Result, resize::Resizing};
use file::Store;
use header::{Checkpoint, Header, name_fault};
use layer::Layer;
use params::{ParamError, Params, Size};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tracker::Tracker;

/// Keep account of what changes, for incremental backups.
#[derive(Params)]
pub(crate) struct Cbt {
    /// The file that the account is kept in. It is made if there is none.
    cbt_file: PathBuf,
    /// A checkpoint. It is started now if it is not in the file. May be given many times.
    cbt_name: Vec<String>,
    /// A checkpoint that is started now, anew if it is in the file. May be given many times.
    cbt_reset: Vec<String>,
    /// A checkpoint that is forgotten, if it is in the file. May be given many times.
    cbt_drop: Vec<String>,
    /// What counts as changed when a byte of it is: a power of two from 512 to 2G. A file that is there has its own.
    /// Without it, 64K.
    cbt_granularity: Option<Size>,
    /// A control socket, which is made when the server starts and removed when it ends.
    cbt_control: Option<PathBuf>,
}

/// Where there is no other, and in qemu.
const GRANULARITY: u64 = 64 << 10;

impl Filter for Cbt {
    const NAME: &'static str = "cbt";
    const MANUAL: &'static str = include_str!("cbt.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        for (key, names) in
            [("cbt-name", &self.cbt_name), ("cbt-reset", &self.cbt_reset), ("cbt-drop", &self.cbt_drop)]
        {
            if let Some((name, why)) = names.iter().find_map(|name| Some((name, name_fault(name)?))) {
                return Err(ParamError::bad(key, name.clone(), why).into());
            }
        }
        let kept = self.cbt_name.iter().chain(&self.cbt_reset);
        if let Some(name) = kept.into_iter().find(|name| self.cbt_drop.contains(name)) {
            return Err(ParamError::bad("cbt-drop", name.clone(), "cbt-name or cbt-reset starts it").into());
        }
        if let Some(size) = self.cbt_granularity
            && !(size.bytes().is_power_of_two() && (512..=1 << 31).contains(&size.bytes()))
        {
            let why = "not a power of two from 512 to 2G";
            return Err(ParamError::bad("cbt-granularity", size.to_string(), why).into());
        }
        let follow = Follow { params: self, gate: Arc::default(), state: Mutex::default() };
        Ok(Following { follow: Arc::new(follow), control: Mutex::default(), next })
    }
}

/// What is followed, and how far that has come.
struct Follow {
    params: Cbt,
    /// Changes pass it; it is closed while a checkpoint is started.
    gate: Arc<Gate>,
    state: Mutex<State>,
}

#[derive(Default)]
enum State {
    #[default]
    Nothing,
    /// The file was there when the server started.
    Opened(Store, Header),
    /// The disk is known.
    Tracking(Arc<Tracker>),
}

impl Follow {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tracker_if_any(&self) -> Option<Arc<Tracker>> {
        match &*self.state() {
            State::Tracking(tracker) => Some(tracker.clone()),
            _ => None,
        }
    }

    /// Opens the file, if there is one.
    fn open(&self) -> Result<State> {
        let Some(store) = Store::open(&self.params.cbt_file)? else { return Ok(State::Nothing) };
        let header = store.header()?;
        if let Some(size) = self.params.cbt_granularity
            && size.bytes() != header.granule
        {
            let has = Size::new(header.granule).unwrap_or_default();
            return Err(Error::invalid(format!(
                "cbt-granularity={size}: {} was made with {has}",
                store.name()
            )));
        }
        Ok(State::Opened(store, header))
    }

    fn new_header(&self, export: &str, size: u64) -> Header {
        Header {
            turn: 0,
            granule: self.params.cbt_granularity.map_or(GRANULARITY, Size::bytes),
            size,
            becoming: None,
            epoch: 1,
            in_use: None,
            export: export.to_owned(),
            checkpoints: Vec::new(),
        }
    }

    /// Ends and starts the checkpoints that the parameters name.
    fn begin(&self, header: &mut Header) -> Result<()> {
        header.checkpoints.retain(|checkpoint| !self.params.cbt_drop.contains(&checkpoint.name));
        for name in &self.params.cbt_reset {
            control::begin(header, name, true)?;
        }
        for name in &self.params.cbt_name {
            if header.find(name).is_none() {
                control::begin(header, name, false)?;
            }
        }
        Ok(())
    }

    /// The checkpoints that there would be. The file stays as it is.
    fn glance(&self, export: &str, size: u64) -> Result<Vec<Checkpoint>> {
        let mut header = match self.open()? {
            State::Opened(store, header) => {
                check(&header, &store, export, size)?;
                header
            }
            _ => self.new_header(export, size),
        };
        self.begin(&mut header)?;
        Ok(header.checkpoints)
    }

    /// The account of the disk of this export, which has this size. Waits for the medium.
    fn tracker(&self, export: &str, size: u64) -> Result<Arc<Tracker>> {
        let mut state = self.state();
        if let State::Tracking(tracker) = &*state {
            let books = tracker.books();
            check_export(&books.header, tracker.store(), export)?;
            if size != tracker.size() && books.header.becoming != Some(size) {
                return Err(other_size(tracker.store(), tracker.size(), size));
            }
            drop(books);
            return Ok(tracker.clone());
        }
        if matches!(*state, State::Nothing) {
            *state = self.open()?;
        }
        let (store, header) = match std::mem::take(&mut *state) {
            State::Opened(store, header) => (store, header),
            _ => {
                let header = self.new_header(export, size);
                (Store::create(&self.params.cbt_file, &header)?, header)
            }
        };
        check(&header, &store, export, size)?;
        let found = store.load(header)?;
        if found.widened > 0 {
            let (name, count) = (store.name(), found.widened);
            let granules = Size::new(found.header.granule * file::GRANULES as u64).unwrap_or_default();
            tracing::warn!(
                target: "diskpipe",
                "{name}: the last server had no orderly end, and the system was started anew since: \
                 {count} parts of {granules} count as changed"
            );
        }
        let tracker = Tracker::new(store, found)?;
        let unfinished = tracker.books().header.becoming.is_some();
        if unfinished {
            reactor::block_on(tracker.after_resize(size))?;
        }
        tracker.change_checkpoints(|header| self.begin(header))?;
        *state = State::Tracking(tracker.clone());
        Ok(tracker)
    }
}

fn check(header: &Header, store: &Store, export: &str, size: u64) -> Result<()> {
    check_export(header, store, export)?;
    if size != header.size && header.becoming != Some(size) {
        return Err(other_size(store, header.size, size));
    }
    Ok(())
}

fn check_export(header: &Header, store: &Store, export: &str) -> Result<()> {
    if header.export == export {
        return Ok(());
    }
    let (file, other) = (store.name(), &header.export);
    Err(Error::invalid(format!("{file}: it follows export {other:?}, and cannot follow {export:?} as well")))
}

fn other_size(store: &Store, before: u64, now: u64) -> Error {
    let file = store.name();
    Error::invalid(format!(
        "{file}: it follows a disk of {before} bytes, and this one has {now}; remove the file, and make a full backup"
    ))
}

/// Of a disk with these checkpoints, over one of the facts `below`.
///
/// # Errors
/// Something below has a context of the same name, and clients could see but one of them.
fn facts(below: &Facts, checkpoints: &[Checkpoint]) -> Result<Facts> {
    let own: Vec<String> =
        checkpoints.iter().map(|checkpoint| format!("qemu:dirty-bitmap:{}", checkpoint.name)).collect();
    if let Some(twice) = own.iter().find(|name| below.contexts.iter().any(|below| **below == ***name)) {
        return Err(Error::invalid(format!(
            "cbt: the disk below has the context {twice} already; give the checkpoint another name"
        )));
    }
    let others = below.contexts.iter().map(|context| context.to_string());
    let contexts = own.into_iter().chain(others).map(String::into_boxed_str).collect();
    Ok(Facts { contexts, ..below.clone() })
}

struct Following {
    follow: Arc<Follow>,
    control: Mutex<Option<Control>>,
    next: Arc<dyn Backend>,
}

impl Following {
    fn control(&self) -> MutexGuard<'_, Option<Control>> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Following {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        Io::later(async move {
            let export = export_name(&*self.next, client).await?;
            let next = self.next.open(client).await?;
            let size = next.resizing().map_or(next.facts().size, Resizing::size);
            let follow = self.follow.clone();
            if client.looks {
                let checkpoints = reactor::unblock(move || follow.glance(&export, size)).await??;
                let facts = facts(next.facts(), &checkpoints)?;
                // As the layer has it.
                let keeps_size = next.resizing().is_some_and(Resizing::is_followed);
                return Ok(if keeps_size { stated_with_its_size(facts, next) } else { stated(facts, next) });
            }
            let (tracker, checkpoints) = reactor::unblock(move || {
                let tracker = follow.tracker(&export, size)?;
                let checkpoints = tracker.books().header.checkpoints.clone();
                Ok::<_, Error>((tracker, checkpoints))
            })
            .await??;
            let facts = facts(next.facts(), &checkpoints)?;
            let since = checkpoints.iter().map(|checkpoint| checkpoint.epoch).collect();
            let passing = self.follow.gate.passing();
            Ok(Arc::new(Layer { facts, since, passing, tracker, next }) as Arc<dyn Disk>)
        })
    }
    fn get_ready(&self) -> Result<()> {
        self.next.get_ready()?;
        let mut state = self.follow.state();
        if matches!(*state, State::Nothing) {
            *state = self.follow.open()?;
        }
        let mut control = self.control();
        if let (None, Some(path)) = (&*control, &self.follow.params.cbt_control) {
            let made = Control::open("cbt", path);
            *control =
                Some(made.map_err(|e| Error::from(e).context(format!("cbt-control={}", path.display())))?);
        }
        Ok(())
    }
    fn after_fork(&self) -> Result<()> {
        self.next.after_fork()?;
        match &mut *self.control() {
            Some(control) => {
                let follow = self.follow.clone();
                let start = control.start(move |stream| control::converse(stream, &follow));
                start.map_err(|e| Error::from(e).context("starting a thread"))
            }
            None => Ok(()),
        }
    }
    fn finish(&self) {
        // Its drop removes the socket.
        self.control().take();
        self.next.finish();
        if let State::Tracking(tracker) = std::mem::take(&mut *self.follow.state())
            && let Err(e) = tracker.finish()
        {
            tracing::error!(target: "diskpipe", "cbt: {e}");
        }
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

/// For the fuzzer: see the function of the crate.
pub(crate) fn try_header(bytes: &[u8]) {
    for slot in [bytes.to_vec(), header::framed(bytes)] {
        if let Ok(header) = Header::decode(&slot) {
            let again = header.encode().expect("what fitted fits");
            assert_eq!(Header::decode(&again), Ok(header));
        }
    }
}

#[cfg(test)]
mod tests;
