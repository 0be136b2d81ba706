//! A configured script, which opens disks.

use super::{
    Ask, Call,
    answer::{Control, Outcome},
    disk::ScriptDisk,
    lists,
    order::Order,
};
use ::disk::{
    Backend, Client, Disk, Error, Export, Io, Result, ThreadModel, Wish, Writes, registry::Described,
};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tempfile::TempDir;

/// A script and what it needs to live.
pub(crate) struct Script {
    how: Box<dyn Ask>,
    /// `$tmpdir`, and whatever else must be there as long as the script is used; `None` after its last call.
    directories: Mutex<Option<Vec<TempDir>>>,
}

/// A directory of its own for the script.
pub(crate) fn directory() -> Result<TempDir> {
    let made = crate::common::fresh::private_directory(&std::env::temp_dir(), "diskpipe-");
    made.map_err(|e| Error::from(e).context("making a temporary directory"))
}

impl Script {
    pub(crate) fn new(how: impl Ask, directories: Vec<TempDir>) -> Script {
        Script { how: Box::new(how), directories: Mutex::new(Some(directories)) }
    }

    /// Asks, and waits. What the script wants of a connection it has through `control`.
    pub(super) fn ask(&self, call: Call, control: &Control) -> Outcome {
        self.outcome(self.how.ask(&call), control)
    }

    fn outcome(&self, answer: Result<super::Answer>, control: &Control) -> Outcome {
        answer.map_or_else(Outcome::Failed, |answer| answer.outcome(control))
    }

    /// Asks outside of any connection.
    fn alone(&self, method: &'static str, words: &[&str]) -> Outcome {
        self.ask(Call::new(method, words), &Control::default())
    }

    /// Whether there is such a method, as far as can be known without asking.
    pub(super) fn has(&self, method: &str) -> Option<bool> {
        self.how.has(method)
    }

    /// An error with the script's name and the method's, for people who did not ask for the method.
    pub(super) fn named<'a>(&'a self, method: &'a str) -> impl Fn(Error) -> Error + 'a {
        move |e| e.context(format!("{}: {method}", self.how.name()))
    }

    fn told(&self, method: &'static str, words: &[&str]) -> Result<()> {
        self.alone(method, words).output(method).map(drop).map_err(self.named(method))
    }

    /// The first of all calls, where there is one process or program that can take it.
    pub(crate) fn load(&self) -> Result<()> {
        self.told("load", &[])
    }

    /// The key of bare arguments.
    pub(crate) fn magic_key(&self) -> Result<Option<String>> {
        let named = self.named("magic_config_key");
        let key = self.alone("magic_config_key", &[]).text("magic_config_key").map_err(named)?;
        Ok(key.map(lists::line).filter(|key| !key.is_empty()))
    }

    /// Hands on one parameter.
    pub(crate) fn configure(&self, key: &str, value: &str) -> Result<()> {
        let done = self.alone("config", &[key, value]).output("config").map_err(self.named("config"))?;
        done.map(drop).ok_or_else(|| {
            let script = self.how.name();
            Error::invalid(format!("unknown parameter '{key}': {script} has no method config to take it"))
        })
    }

    /// All parameters are given: what serves with them.
    pub(crate) fn complete(self) -> Result<ScriptBackend> {
        self.told("config_complete", &[])?;
        let model = self.thread_model()?;
        let order = Order::of_script(model, self.how.is_one());
        Ok(ScriptBackend { script: Arc::new(self), model, order, end: OnceLock::new() })
    }

    fn thread_model(&self) -> Result<ThreadModel> {
        let model =
            self.alone("thread_model", &[]).text("thread_model").map_err(self.named("thread_model"))?;
        let model = model.as_deref().and_then(lists::thread_model);
        Ok(model.unwrap_or(ThreadModel::SerializeAllRequests))
    }

    /// For `--dump-plugin`.
    pub(crate) fn describe(&self) -> Result<Described> {
        let thread_model = self.thread_model()?;
        let lines = self.alone("dump_plugin", &[]).text("dump_plugin").map_err(self.named("dump_plugin"))?;
        Ok(Described { thread_model, lines: lines.unwrap_or_default() })
    }

    /// Gives back what it needs to live; `None` if that was done before.
    fn forget(&self) -> Option<Vec<TempDir>> {
        self.directories.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn unload(&self) {
        let directories = self.forget();
        if directories.is_some() {
            // Nobody is left to hear of a failure.
            let _ = self.alone("unload", &[]);
        }
    }

    /// Asks here or on a thread that may wait, and makes something of what comes of it. Once begun it goes on, even if
    /// the answer is dropped.
    pub(super) fn request<T: Send + 'static>(
        self: &Arc<Self>,
        call: Call,
        control: &Control,
        order: &Order,
        make: impl FnOnce(Outcome) -> Result<T> + Send + 'static,
    ) -> Io<'static, T> {
        let (script, control, method) = (self.clone(), control.clone(), call.method);
        if let Order::Line(line) = order
            && self.how.is_one()
            && line.enter()
        {
            return match self.how.ask_now(call) {
                Ok(answer) => {
                    line.leave();
                    script.log(method, make(script.outcome(answer, &control))).into()
                }
                Err(begun) => {
                    let (there, line) = (self.clone(), line.clone());
                    let work = reactor::unblock(move || {
                        let answer = begun.finish(&*there.how);
                        // Not before somebody has heard of this one: they may take their time.
                        let made = make(there.outcome(answer, &control));
                        line.leave();
                        made
                    });
                    Io::later(async move { script.log(method, work.await?) })
                }
            };
        }
        let there = self.clone();
        let writes = match order {
            Order::Free(writes) => Some(writes.clone()),
            Order::Line(_) => None,
        };
        let before = writes.as_ref().filter(|_| matches!(method, "flush" | "close")).and_then(Writes::before);
        let write =
            writes.as_ref().filter(|_| matches!(method, "pwrite" | "zero" | "trim")).map(Writes::begin);
        let work = order.run(move || {
            if let Some(before) = before {
                reactor::block_on(before);
            }
            let answer = there.how.ask(&call);
            drop(write);
            make(there.outcome(answer, &control))
        });
        Io::later(async move { script.log(method, work.await.unwrap_or_else(panicked)) })
    }

    /// Errors of requests go to the client, and to the log, too: what a script says is meant for people.
    fn log<T>(&self, method: &str, result: Result<T>) -> Result<T> {
        if let Err(e) = &result {
            tracing::error!(target: "diskpipe", "{}: {method}: {e}", self.how.name());
        }
        result
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.unload();
    }
}

/// Opens disks by asking the script.
pub(crate) struct ScriptBackend {
    script: Arc<Script>,
    model: ThreadModel,
    order: Order,
    /// Ends the server.
    end: OnceLock<Wish>,
}

impl ScriptBackend {
    fn unblock<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Script>) -> Result<T> + Send + 'static,
    ) -> Io<'_, T> {
        let script = self.script.clone();
        let work = self.order.run(move || work(&script));
        Io::later(async move { work.await.unwrap_or_else(panicked) })
    }
}

fn panicked<T>() -> Result<T> {
    Err(Error::io("the operation panicked"))
}

/// As scripts read it.
pub(super) fn word(truth: bool) -> &'static str {
    if truth { "true" } else { "false" }
}

impl Backend for ScriptBackend {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        let (export, read_only, tls) = (client.export.to_owned(), client.read_only, client.tls);
        let (control, order) = (
            Control::of(client, self.end.get().cloned().unwrap_or_default()),
            self.order.of_disk(self.model),
        );
        self.unblock(move |script| {
            let words = [word(read_only), &export, word(tls)];
            let opened = script.ask(Call::new("open", &words), &control);
            let handle = opened.text("open").map_err(script.named("open"))?;
            let handle = lists::line(handle.unwrap_or_default());
            Ok(Arc::new(ScriptDisk::new(script.clone(), handle, read_only, control, order)?) as Arc<dyn Disk>)
        })
    }

    fn exports<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Vec<Export>> {
        let (read_only, tls) = (client.read_only, client.tls);
        self.unblock(move |script| {
            let words = [word(read_only), word(tls)];
            let list = script.alone("list_exports", &words).text("list_exports");
            match list.map_err(script.named("list_exports"))? {
                Some(list) => Ok(lists::exports(&list)),
                None => {
                    let name = default_export(script, read_only, tls)?.unwrap_or_default();
                    Ok(vec![Export { name, description: None }])
                }
            }
        })
    }

    fn default_export<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Option<String>> {
        let (read_only, tls) = (client.read_only, client.tls);
        self.unblock(move |script| default_export(script, read_only, tls))
    }

    fn hosted(&self, end: &Wish) {
        let _ = self.end.set(end.clone());
    }

    fn thread_model(&self) -> ThreadModel {
        self.model
    }

    fn get_ready(&self) -> Result<()> {
        self.order.run_here(|| self.script.told("get_ready", &[]))
    }

    fn after_fork(&self) -> Result<()> {
        // A process that cannot serve ends without much ado.
        let told = self.order.run_here(|| self.script.told("after_fork", &[]));
        told.inspect_err(|_| self.script.unload())
    }

    fn preconnect<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, ()> {
        let read_only = client.read_only;
        self.unblock(move |script| script.told("preconnect", &[word(read_only)]))
    }

    fn finish(&self) {
        match &self.order {
            // It did not answer what it was asked as long as the server waits for that, and will not hear of the end.
            Order::Line(line) if self.script.how.is_one() && !line.enter() => drop(self.script.forget()),
            _ => self.script.unload(),
        }
    }
}

fn default_export(script: &Script, read_only: bool, tls: bool) -> Result<Option<String>> {
    let named = script.named("default_export");
    let list = script
        .alone("default_export", &[word(read_only), word(tls)])
        .text("default_export")
        .map_err(named)?;
    Ok(list.and_then(|list| lists::exports(&list).into_iter().next()).map(|export| export.name))
}
