//! How plugins and filters are declared, and the entries of the registries.

use crate::{
    backend::Backend,
    complete::Complete,
    error::{Error, Result},
};
use params::{Args, Param, Params};
use std::sync::Arc;

/// A data source. The implementing struct holds its parameters.
pub trait Plugin: Params + Sized {
    /// As people name it on the command line.
    const NAME: &'static str;
    /// Its manual page: `include_str!("NAME.md")`.
    const MANUAL: &'static str;
    /// Further lines for `--dump-plugin`: `("zstd", "yes")`.
    const DUMP: &'static [(&'static str, &'static str)] = &[];
    /// What its disks can do at once, as far as that is known without parameters.
    const THREAD_MODEL: crate::ThreadModel = crate::ThreadModel::Parallel;

    /// Makes the backend of these parameters. Checks them; touches no file that a client could not.
    ///
    /// # Errors
    /// A sentence that names the parameter.
    fn start(self) -> Result<impl Backend + 'static>;

    /// What `--dump-plugin` tells when it is given parameters, perhaps not all that serving needs.
    ///
    /// # Errors
    /// A sentence that names the parameter.
    fn describe(self) -> Result<Described> {
        Ok(Described { thread_model: self.start()?.thread_model(), lines: String::new() })
    }
}

/// What is known of a plugin with its parameters.
#[derive(Clone, Debug)]
pub struct Described {
    /// How many requests its disks take at once.
    pub thread_model: crate::ThreadModel,
    /// Further lines for `--dump-plugin`, each with its newline.
    pub lines: String,
}

/// A layer over another backend. The implementing struct holds its parameters.
pub trait Filter: Params + Sized {
    /// As people name it on the command line.
    const NAME: &'static str;
    /// Its manual page: `include_str!("NAME.md")`.
    const MANUAL: &'static str;

    /// Makes the layer.
    ///
    /// # Errors
    /// A sentence that names the parameter.
    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static>;
}

/// What help, manuals and completion need to know about a component.
#[derive(Clone, Copy)]
pub struct About {
    /// As people name it on the command line.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// The manual page in Markdown.
    pub manual: &'static str,
    /// Its parameters.
    pub params: &'static [Param],
}

/// A plugin of the registry, its type erased.
pub struct PluginEntry {
    /// What it is.
    pub about: About,
    /// Further lines for `--dump-plugin`.
    pub dump: &'static [(&'static str, &'static str)],
    /// See [`Plugin::THREAD_MODEL`].
    pub thread_model: crate::ThreadModel,
    start: fn(&mut Args) -> Result<Arc<dyn Backend>>,
    describe: fn(&mut Args) -> Result<Described>,
}

type StartFilter = fn(&mut Args, Arc<dyn Backend>) -> Result<Arc<dyn Backend>>;

/// A filter of the registry, its type erased.
pub struct FilterEntry {
    /// What it is.
    pub about: About,
    start: StartFilter,
}

impl PluginEntry {
    /// The entry of plugin `P`.
    pub const fn of<P: Plugin>() -> Self {
        PluginEntry {
            about: About { name: P::NAME, summary: P::SUMMARY, manual: P::MANUAL, params: P::PARAMS },
            dump: P::DUMP,
            thread_model: P::THREAD_MODEL,
            start: |args| Ok(Arc::new(Complete::new(P::parse(args)?.start()?))),
            describe: |args| P::parse(args)?.describe(),
        }
    }

    /// Takes its parameters from `args` and makes the backend. Zeroing and FUA are completed
    /// (see [`crate::complete`]).
    ///
    /// # Errors
    /// A sentence that begins with the plugin's name.
    pub fn start(&self, args: &mut Args) -> Result<Arc<dyn Backend>> {
        (self.start)(args).map_err(|e| named(e, self.about.name)).map(crate::checked::backend)
    }

    /// Takes its parameters from `args`, and says what is known of it with them; see [`Plugin::describe`].
    ///
    /// # Errors
    /// A sentence that begins with the plugin's name.
    pub fn describe(&self, args: &mut Args) -> Result<Described> {
        (self.describe)(args).map_err(|e| named(e, self.about.name))
    }
}

impl FilterEntry {
    /// The entry of filter `F`.
    pub const fn of<F: Filter>() -> Self {
        FilterEntry {
            about: About { name: F::NAME, summary: F::SUMMARY, manual: F::MANUAL, params: F::PARAMS },
            start: |args, next| Ok(Arc::new(F::parse(args)?.start(next)?)),
        }
    }

    /// Takes its parameters from `args` and makes the layer over `next`.
    ///
    /// # Errors
    /// A sentence that begins with the filter's name.
    pub fn start(&self, args: &mut Args, next: Arc<dyn Backend>) -> Result<Arc<dyn Backend>> {
        (self.start)(args, next).map_err(|e| named(e, self.about.name)).map(crate::checked::backend)
    }
}

fn named(error: Error, name: &str) -> Error {
    error.context(name)
}
