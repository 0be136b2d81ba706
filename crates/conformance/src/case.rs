//! What a component is checked with, and what is expected of it.

use crate::fake::Fake;
use disk::{Backend, Disk, Facts, FilterEntry, PluginEntry, Result};
use params::Args;
use std::{any::Any, sync::Arc};

/// What happens to writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// What was written is read.
    Model,
    /// There is no writing.
    ReadOnly,
    /// Only what is there already may be written; anything else is `EIO`.
    Verifying,
    /// Writes succeed and change nothing.
    Discarding,
    /// Writes, zeroes and trims fail.
    Refusing,
}

/// A set of parameters that a component is checked with.
///
/// Every check makes its backend afresh.
pub struct Case {
    pub(crate) name: &'static str,
    pub(crate) args: Vec<(&'static str, String)>,
    pub(crate) expect: Expect,
    pub(crate) own_storage: bool,
    pub(crate) read_only: bool,
    pub(crate) needs: Option<&'static str>,
    pub(crate) with: Option<With>,
    pub(crate) content: Option<fn(&Facts) -> Content>,
}

/// Bytes of a disk, each with its offset.
pub type Content = Vec<(u64, Vec<u8>)>;

/// Makes the parameters that a case needs anew each time, and what must live as long as its backend.
pub(crate) type With = Box<dyn Fn() -> (Vec<(String, String)>, Box<dyn Any + Send>) + Send + Sync>;

impl Case {
    /// The component of this name, with these parameters.
    pub fn new(name: &'static str, args: &[(&'static str, &str)], expect: Expect) -> Case {
        let args = args.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let (own_storage, read_only) = (false, false);
        Case { name, args, expect, own_storage, read_only, needs: None, with: None, content: None }
    }

    /// Writes stay in the filter: a flush says nothing about the disk below.
    pub fn with_own_storage(self) -> Case {
        Case { own_storage: true, ..self }
    }

    /// Its clients may only read.
    pub fn for_readers(self) -> Case {
        Case { expect: Expect::ReadOnly, read_only: true, ..self }
    }

    /// `absent`, when it is not `None`, names what is missing here: the checks are then shown as skipped.
    pub fn needing(self, absent: Option<&'static str>) -> Case {
        Case { needs: absent, ..self }
    }

    /// Further parameters that are made for each backend, and what must stay while it lives: a file, a server.
    pub fn with(
        self,
        make: impl Fn() -> (Vec<(String, String)>, Box<dyn Any + Send>) + Send + Sync + 'static,
    ) -> Case {
        Case { with: Some(Box::new(make)), ..self }
    }

    /// Bytes that a filter must find on the disk below, which has these facts, and where: a partition table.
    pub fn over_content(self, content: fn(&Facts) -> Content) -> Case {
        Case { content: Some(content), ..self }
    }

    /// As checks are named: `memory size=1M`.
    pub(crate) fn label(&self) -> String {
        let mut label = self.name.to_owned();
        for (key, value) in &self.args {
            label.push_str(&format!(" {key}={value}"));
        }
        label
    }

    fn arguments(&self) -> (Args, Box<dyn Any + Send>) {
        let (more, keep) = self.with.as_ref().map_or((vec![], Box::new(()) as _), |with| with());
        let own = self.args.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        (Args::new(own.chain(more)), keep)
    }

    /// A plugin's backend.
    pub(crate) fn plugin(&self, entry: &'static PluginEntry) -> Result<Subject> {
        let (mut args, keep) = self.arguments();
        let backend = entry.start(&mut args)?;
        args.finish(&[(self.name, entry.about.params)])?;
        Subject::new(backend, None, self, keep)
    }

    /// A filter's backend over a fake disk.
    pub(crate) fn filter(&self, entry: &'static FilterEntry, below: Fake) -> Result<Subject> {
        let (all, keep) = self.arguments();
        if let Some(content) = self.content {
            content(below.facts()).iter().for_each(|(at, bytes)| below.put(*at, bytes));
        }
        let mut args = all.clone();
        let backend = entry.start(&mut args, below.backend())?;
        args.finish(&[(self.name, entry.about.params)])?;
        let writable = below.facts().write;
        let mut subject = Subject::new(backend, Some(below), self, keep)?;
        subject.again = Some((entry, all));
        if !writable && !self.own_storage {
            subject.expect = Expect::ReadOnly;
        }
        Ok(subject)
    }
}

/// What a check looks at: a backend that serves.
pub struct Subject {
    /// The component.
    pub backend: Arc<dyn Backend>,
    /// The disk below, for filters.
    pub below: Option<Fake>,
    /// What happens to writes.
    pub expect: Expect,
    /// Writes stay in the filter.
    pub own_storage: bool,
    read_only: bool,
    again: Option<(&'static FilterEntry, Args)>,
    _keep: Box<dyn Any + Send>,
}

impl Subject {
    fn new(
        backend: Arc<dyn Backend>,
        below: Option<Fake>,
        case: &Case,
        keep: Box<dyn Any + Send>,
    ) -> Result<Subject> {
        backend.get_ready()?;
        backend.after_fork()?;
        let Case { expect, own_storage, read_only, .. } = *case;
        Ok(Subject { backend, below, expect, own_storage, read_only, again: None, _keep: keep })
    }

    /// The same filter with the same parameters over another disk. What the first one keeps in files it finds as it is
    /// now: in a copy, as after the end of the server.
    pub fn over(&self, below: Fake) -> (Arc<dyn Backend>, impl Any) {
        let (entry, args) = self.again.as_ref().expect("a filter");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let copied = args.iter().enumerate().map(|(i, arg)| {
            let own = dir.path().join(i.to_string());
            let value = match std::fs::copy(&arg.value, &own) {
                Ok(_) => own.display().to_string(),
                Err(_) => arg.value.clone(),
            };
            (arg.key.clone(), value)
        });
        let backend = entry.start(&mut Args::new(copied), below.backend()).expect("it started before");
        (backend, dir)
    }

    /// Opens the default export, as connection `connection`.
    pub fn open_as(&self, connection: u64) -> Arc<dyn Disk> {
        let client = disk::Client { connection, read_only: self.read_only, ..disk::Client::default() };
        crate::checks::soon(self.backend.preconnect(&client)).expect("a client may connect");
        crate::checks::soon(self.backend.open(&client)).expect("the default export opens")
    }

    /// Opens the default export.
    pub fn open(&self) -> Arc<dyn Disk> {
        self.open_as(1)
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.backend.disconnected(1);
        self.backend.finish();
    }
}
