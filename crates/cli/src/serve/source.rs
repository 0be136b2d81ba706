//! What is served: the stack of a command line, or the exports of a file, which can be read again.

use super::config;
use super::debug_flag::Told;
use super::messages::Messages;
use super::options::ServeOptions;
use super::stack::Stack;
use super::trace;
use anyhow::{Result, anyhow};
use disk::Backend;
use disk::exports::Exports;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Something to serve, started.
#[derive(Clone)]
pub(crate) struct Source {
    backend: Arc<dyn Backend>,
    file: Option<Arc<File>>,
    layers: Layers,
}

struct File {
    exports: Mutex<config::Exports>,
    served: Arc<Exports>,
    /// As the file says it.
    listen: Vec<String>,
}

/// What is put over each component.
#[derive(Clone)]
struct Layers {
    /// Whom to tell what is asked of it.
    tell: Option<(Messages, Told)>,
}

impl Layers {
    fn put(
        &self,
        plugin: &'static str,
        component: &'static str,
        backend: Arc<dyn Backend>,
    ) -> Arc<dyn Backend> {
        match &self.tell {
            Some((messages, told)) => trace::backend(component, plugin, backend, messages.clone(), *told),
            None => backend,
        }
    }
}

impl Source {
    /// Starts what the options name.
    pub(crate) fn start(options: &ServeOptions, stack: &Stack, messages: &Messages) -> Result<Source> {
        let tell = options.verbose.then(|| (messages.clone(), Told::of(&options.debug)));
        let layers = Layers { tell };
        match &options.config {
            Some(file) => Source::of_file(file, layers),
            None => {
                if let Some((messages, Told { control: true, .. })) = &layers.tell {
                    trace::configuration(stack, &options.arguments, messages);
                }
                let put = |plugin, component, backend| layers.put(plugin, component, backend);
                let flags = options.debug.iter().filter_map(|flag| stack.debug_parameter(flag));
                let arguments: Vec<String> = options.arguments.iter().cloned().chain(flags).collect();
                let backend = stack.start(&arguments, &put).map_err(anyhow::Error::msg)?;
                Ok(Source { backend, file: None, layers })
            }
        }
    }

    fn of_file(file: &Path, layers: Layers) -> Result<Source> {
        let put = |plugin, component, backend| layers.put(plugin, component, backend);
        let exports = config::Exports::start(file, &put)?;
        let served = Arc::new(Exports::new(exports.table()));
        let listen = exports.config().listen.clone();
        let file = File { exports: Mutex::new(exports), served: served.clone(), listen };
        Ok(Source { backend: served, file: Some(Arc::new(file)), layers })
    }

    /// What the server serves.
    pub(crate) fn backend(&self) -> Arc<dyn Backend> {
        self.backend.clone()
    }

    /// Where the file says to listen; empty: nowhere in particular.
    pub(crate) fn listen(&self) -> &[String] {
        self.file.as_ref().map_or(&[], |file| &file.listen)
    }

    /// Whether there is a file that can be read again.
    pub(crate) fn can_reload(&self) -> bool {
        self.file.is_some()
    }

    /// Reads the file again; what has changed, in words. On an error everything stays as it was.
    pub(crate) fn reload(&self) -> Result<String> {
        let Some(file) = &self.file else { return Err(anyhow!("there is no file to read again")) };
        let put = |plugin, component, backend| self.layers.put(plugin, component, backend);
        let mut exports = file.exports.lock().unwrap_or_else(PoisonError::into_inner);
        exports.reload(&put, |table| Ok(file.served.replace(table)?))
    }
}
