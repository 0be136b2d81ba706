//! `copy`: from anywhere to anywhere that is an NBD server, a file, a device or a stream.
//!
//! `endpoint` opens both ends, `job` decides how to go from one to the other, `map` says what to do piece by piece,
//! `transfer` does one piece, `engine` keeps many of them in flight. `stream` stands in for the engine where an end can
//! only be read or written in order. `watch` goes along with all of them, `keeper` makes safe what is done, and
//! `reconnect` finds lost servers again.

mod aside;
mod changes;
pub mod checkpoint;
pub(crate) mod endpoint;
mod engine;
#[cfg(test)]
pub(crate) mod fake;
mod file;
mod hash;
mod job;
mod keeper;
pub mod manifest;
mod map;
mod nbd;
mod null;
mod options;
mod pace;
mod progress;
mod ranges;
mod reconnect;
mod stop;
mod stream;
mod tally;
mod transfer;
mod watch;
mod window;

use crate::{
    command_line::{self, Invocation, Word, is_uri},
    diff::compare::{Side, compare},
};
use anyhow::{Context, Result, bail};
use checkpoint::{
    Checkpoint,
    identity::{Identity, must_agree},
};
use clap::CommandFactory;
use disk::Range;
use endpoint::{Endpoint, Opening};
use hash::{Hashes, Way};
use job::Job;
use keeper::Keeper;
use manifest::{Expected, Manifest, Written};
use options::Options;
use pace::Pace;
use progress::{Progress, Style};
use ranges::Ranges;
use reconnect::Patience;
use std::{ffi::OsString, fs::File, io::BufReader, path::Path, process::ExitCode, sync::Mutex};
use stop::Stop;
use watch::Watch;

/// Blocks in which the destination is compared with the source, in bytes.
const VERIFY_BLOCK: u64 = 512;

/// The options, for manual pages and completions.
pub fn command() -> clap::Command {
    Options::command()
}

/// Runs the tool. The first argument is the name that it was started under.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let stop = Stop::default();
    let code = command_line::run(args, "diskpipe copy", command(), |invocation, options: Options| {
        run(invocation, &options, &stop).map(|()| ExitCode::SUCCESS)
    });
    stop.end();
    code
}

fn run(invocation: &Invocation, options: &Options, stop: &Stop) -> Result<()> {
    let (from, to) = (invocation.word(options.source.clone()), invocation.word(options.destination.clone()));
    let words = Words { from: &from, to: &to };
    let style = options.progress.as_deref().map_or(Ok(Style::Silent), Style::parse)?;
    let saved = options.checkpoint.as_deref().map(Checkpoint::load).transpose()?.flatten();
    let opening = Opening {
        patience: words.patience(invocation, options, stop)?,
        contexts: options.incremental.iter().map(|name| changes::context(name)).collect(),
        keep: saved.is_some() || options.incremental.is_some() || options.changed_since.is_some(),
    };
    let source = Endpoint::source_as(&from, &opening)?;
    words.must_suit(options, &source, &opening)?;
    let hashing = Hashing::new(options, &source)?;
    let destination = Endpoint::destination(&to, &source, &opening)?;
    let ends = Ends { words, source: &source, destination: &destination };
    ends.must_suit(options)?;
    let job = Job::new(options, &source, &destination, hashing.unit(options))?;
    if options.verbose > 0 {
        job.describe(invocation, &from, &to);
    }
    if !matches!((&source, &destination), (Endpoint::Stream(_), _) | (_, Endpoint::Stream(_))) {
        stop.listen().context("cannot wait for signals")?;
    }

    let mut wanted = ends.changes(options)?;
    let mut said = None;
    if let Some(path) = &options.changed_since {
        let (changed, hash) = hashing.changed_since(path, options, &source, stop)?;
        wanted = Some(changed);
        said = hash;
    }
    let checkpoint = match &options.checkpoint {
        None => None,
        Some(path) => Some((path.clone(), ends.checkpoint(options, saved)?)),
    };
    let whole = job.size.unwrap_or(0);
    let before = checkpoint.as_ref().map(|(_, checkpoint)| checkpoint.done()).unwrap_or_default();
    if !before.is_empty() {
        wanted.get_or_insert_with(|| Range::new(0, whole).into()).remove_all(&before);
    }
    let wanted = wanted.map(|wanted| job.whole_blocks(&wanted));
    let here = wanted.as_ref().map_or(whole, Ranges::bytes);
    let total = job.size.map(|_| here + before.bytes());
    let watch = Watch {
        pace: options.rate.map(Pace::new),
        stop: stop.clone(),
        done: checkpoint.as_ref().map(|_| Mutex::new(before.clone())),
        hashes: hashing.hashes(options, said.is_some())?,
        ..Watch::new(Progress::from(style, total, before.bytes()))
    };
    let keeps = checkpoint.is_some() || options.retry.is_some();
    let keeper = Keeper::new(&job.lanes, &watch, options.checkpoint_interval, checkpoint);
    let outcome = job.run(wanted, &watch, || keeps.then(|| Box::pin(keeper.keep()) as _));
    let outcome = match outcome {
        // Whatever failed then, failed because of that.
        _ if stop.asked() => Err(ends.interrupted(options, &keeper, &watch)),
        outcome => outcome.and_then(|total| {
            if let Some(hashes) = &watch.hashes {
                said = Some(hashes.finish(total)?);
            }
            job.finish(total, !options.no_flush)?;
            if options.verify { ends.verify() } else { Ok(()) }
        }),
    };
    match outcome {
        Ok(()) => watch.progress.finished(),
        Err(e) => {
            watch.progress.abandoned();
            return Err(e);
        }
    }
    keeper.remove()?;
    if options.summary || options.verbose > 0 {
        let (copied, took) = watch.progress.here();
        eprintln!("{}: {}", invocation.name, watch.tally.summary(copied, took));
    }
    match said {
        Some(hash) if options.blkhash.is_some() || options.blkhash_file.is_some() => {
            ends.tell(options, &hash)
        }
        _ => Ok(()),
    }
}

/// Both ends as they are called on the command line.
#[derive(Clone, Copy)]
struct Words<'a> {
    from: &'a Word,
    to: &'a Word,
}

impl Words<'_> {
    fn patience(&self, invocation: &Invocation, options: &Options, stop: &Stop) -> Result<Option<Patience>> {
        let Some(attempts) = options.retry else { return Ok(None) };
        let is_server = |word: &Word| matches!(word, Word::Plain(text) if is_uri(text));
        if !is_server(self.from) && !is_server(self.to) {
            bail!(
                "--retry: neither end is the URI of a server; one that is started for the copy cannot be \
                 connected to again"
            );
        }
        let program = invocation.name.clone();
        Ok(Some(Patience { attempts: attempts.get(), stop: stop.clone(), program }))
    }

    fn is_standard_output(&self) -> bool {
        matches!(self.to, Word::Plain(word) if word == "-")
    }

    /// What can be said before the destination is touched.
    fn must_suit(&self, options: &Options, source: &Endpoint, opening: &Opening) -> Result<()> {
        let option = match options {
            Options { checkpoint: Some(_), .. } => "--checkpoint",
            Options { incremental: Some(_), .. } => "--incremental",
            Options { changed_since: Some(_), .. } => "--changed-since",
            _ => return Ok(()),
        };
        let is_standard_input = matches!(self.from, Word::Plain(word) if word == "-");
        if source.disk().is_none() || is_standard_input {
            bail!("{option}: {}: the source must be a server, a file or a block device", self.from);
        }
        if self.is_standard_output() || matches!(self.to, Word::Plain(word) if word == "null:") {
            bail!("{option}: {}: the destination must be a server, a file or a block device", self.to);
        }
        if let Word::Plain(path) = self.to
            && opening.keep
            && !is_uri(path)
            && !Path::new(path).exists()
        {
            bail!("{option}: {}: what was copied before is not there", self.to);
        }
        Ok(())
    }
}

/// Both ends, open.
struct Ends<'a> {
    words: Words<'a>,
    source: &'a Endpoint,
    destination: &'a Endpoint,
}

impl Ends<'_> {
    fn must_suit(&self, options: &Options) -> Result<()> {
        let Ends { words, source, destination } = self;
        let readable = destination.can_be_read() && !words.is_standard_output();
        if options.verify && (source.disk().is_none() || !readable) {
            bail!("--verify: both ends must be disks that can be read: servers, files or block devices");
        }
        if options.checkpoint.is_some() && !readable {
            bail!("--checkpoint: {}: the destination must be a server, a file or a block device", words.to);
        }
        if options.incremental.is_some() || options.changed_since.is_some() {
            let there = match destination {
                Endpoint::File(file) if file.grows() => file.metadata().map(|about| about.len()).ok(),
                other => other.disk().map(|disk| disk.facts().size),
            };
            let size = source.disk().map(|disk| disk.facts().size);
            if there != size {
                let [there, size] = [there, size].map(Option::unwrap_or_default);
                bail!("{}: it is no copy of the source: it has {there} bytes, and not {size}", words.to);
            }
        }
        Ok(())
    }

    /// What the source says has changed; `None`: nobody asked.
    fn changes(&self, options: &Options) -> Result<Option<Ranges>> {
        let Some(name) = &options.incremental else { return Ok(None) };
        let disk = self.source.disk().context("the source is no disk")?;
        changes::told_by(&*disk, &changes::context(name)).map(Some)
    }

    /// The checkpoint to go on from: the one that was saved, or a new one.
    fn checkpoint(&self, options: &Options, saved: Option<Checkpoint>) -> Result<Checkpoint> {
        let disk = self.source.disk().context("the source is no disk")?;
        let source = Identity::of_source(self.words.from, self.source, &*disk)?;
        let size = disk.facts().size;
        let destination = Identity::of_destination(self.words.to, self.destination, size)?;
        let changes = options.incremental.as_deref().map(changes::context);
        let Some(mut saved) = saved else { return Ok(Checkpoint::new(source, destination, changes)) };
        let Words { from, to } = self.words;
        // A destination that grows has the size of its source, which is to be named then.
        if source.size != saved.source.size {
            bail!("{from}: not the source of the checkpoint: its size has changed");
        }
        if let Some(why) = destination.difference(&saved.destination) {
            bail!("{to}: not the destination of the checkpoint: {why}");
        }
        if saved.changes != changes {
            bail!("--incremental: the checkpoint is that of a copy of other changes");
        }
        if let Some(why) = source.difference(&saved.source)
            && !options.assume_same_source
        {
            bail!(
                "{from}: not the source of the checkpoint: {why} (--assume-same-source goes on all the same)"
            );
        }
        let again = self.reopened()?;
        let written = again.as_ref().unwrap_or(self.destination).disk();
        if let Some(written) = written
            && !options.assume_same_source
        {
            must_agree(&*disk, &*written, &saved.done()).with_context(|| to.to_string())?;
        }
        saved.source = source;
        Ok(saved)
    }

    /// The destination, if it must be opened again to be read.
    fn reopened(&self) -> Result<Option<Endpoint>> {
        match self.destination {
            // It was opened for writing.
            Endpoint::File(_) => Endpoint::source(self.words.to).map(Some),
            _ => Ok(None),
        }
    }

    /// Compares what was written with the source.
    fn verify(&self) -> Result<()> {
        let again = self.reopened()?;
        let written = again.as_ref().unwrap_or(self.destination).disk();
        let (Some(source), Some(written)) = (self.source.disk(), written) else { return Ok(()) };
        let size = source.facts().size;
        let names = [self.words.from, self.words.to].map(ToString::to_string);
        let [a, b] = [(&*source, &names[0]), (&*written, &names[1])].map(|(disk, name)| Side { disk, name });
        let mut first = None;
        compare(&a, &b, VERIFY_BLOCK, &mut |range, _| {
            // The destination may go on behind what was copied.
            first = (range.start < size).then_some(range.start);
            false
        })
        .context("reading back what was written")?;
        let [from, to] = &names;
        match first {
            None => Ok(()),
            Some(at) => bail!("{to} is not what was written to it: it differs from {from} at {at}"),
        }
    }

    /// What to say when somebody has asked to stop; keeps what can be kept.
    fn interrupted(&self, options: &Options, keeper: &Keeper<'_>, watch: &Watch) -> anyhow::Error {
        let (done, all, to) = (watch.progress.done(), watch.progress.total(), self.words.to);
        let so_far = format!("interrupted: {done} bytes of {all} are copied; {to} is not complete");
        match &options.checkpoint {
            None => anyhow::anyhow!("{so_far}"),
            Some(path) => match keeper.save_at_the_end() {
                Ok(()) => anyhow::anyhow!("{so_far}; the same command goes on from {}", path.display()),
                Err(e) => anyhow::anyhow!("{so_far}, nor could that be noted: {e:#}"),
            },
        }
    }

    /// Says what the hash is, where it was wanted.
    fn tell(&self, options: &Options, hash: &str) -> Result<()> {
        match &options.blkhash_file {
            Some(path) => {
                std::fs::write(path, format!("{hash}\n")).with_context(|| path.display().to_string())
            }
            None if self.words.is_standard_output() => {
                eprintln!("{hash}");
                Ok(())
            }
            None => command_line::print(&format!("{hash}\n")).map(drop),
        }
    }
}

/// Whether and how the disk is hashed.
struct Hashing {
    way: Way,
    check: Option<Manifest<BufReader<File>>>,
    size: Option<u64>,
}

impl Hashing {
    fn new(options: &Options, source: &Endpoint) -> Result<Hashing> {
        let size = source.disk().map(|disk| disk.facts().size);
        let check = options.check.as_deref().or(options.changed_since.as_deref()).map(Manifest::open);
        let check = check.transpose()?;
        let way = match (&check, options.blkhash.flatten()) {
            (Some(manifest), Some(way)) if manifest.way != way => {
                bail!("--blkhash: the manifest was made in another way")
            }
            (Some(manifest), _) => manifest.way,
            (None, way) => way.unwrap_or_default(),
        };
        let hashing = Hashing { way, check, size };
        if let (Some(manifest), Some(size)) = (&hashing.check, size)
            && manifest.size != size
        {
            bail!("the source is not what the manifest says: it has {size} bytes, and not {}", manifest.size);
        }
        if hashing.is_on(options) {
            way.must_suit(size.unwrap_or(0))?;
        }
        if options.manifest.is_some() && size.is_none() {
            bail!("--manifest: the size of the source must be known, and that of a stream is not");
        }
        Ok(hashing)
    }

    fn is_on(&self, options: &Options) -> bool {
        let hash = options.blkhash.is_some() || options.blkhash_file.is_some();
        hash || options.manifest.is_some() || self.check.is_some()
    }

    /// Where pieces must begin and end.
    fn unit(&self, options: &Options) -> u64 {
        if self.is_on(options) { self.way.block } else { 1 }
    }

    fn written(&self, options: &Options) -> Result<Option<Written>> {
        let manifest = options.manifest.as_deref();
        manifest.map(|path| Written::new(path, self.way, self.size.unwrap_or(0))).transpose()
    }

    /// What is hashed while it is copied, unless that was done before.
    fn hashes(self, options: &Options, done: bool) -> Result<Option<Hashes>> {
        if done || !self.is_on(options) {
            return Ok(None);
        }
        let written = self.written(options)?;
        Ok(Some(Hashes::new(self.way, written, self.check.map(Expected::all_of))))
    }

    /// Reads the source and finds out what has changed since the manifest was made. Also says the hash.
    fn changed_since(
        &self,
        path: &Path,
        options: &Options,
        source: &Endpoint,
        stop: &Stop,
    ) -> Result<(Ranges, Option<String>)> {
        let before = Expected::changes_since(Manifest::open(path)?);
        let hashes = Hashes::new(self.way, self.written(options)?, Some(before));
        let watch = Watch {
            hashes: Some(hashes),
            stop: stop.clone(),
            pace: options.rate.map(Pace::new),
            ..Watch::new(Progress::new(Style::Silent, self.size))
        };
        job::only_read(options, source, self.way.block, &watch)?;
        if stop.asked() {
            bail!("interrupted before anything was copied");
        }
        let hashes = watch.hashes.context("the disk was hashed")?;
        let hash = hashes.finish(self.size.unwrap_or(0))?;
        Ok((hashes.changed(), Some(hash)))
    }
}
