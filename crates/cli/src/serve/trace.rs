//! What `-v` tells of each component: the requests that reach it and what it answers.

use super::debug_flag::Told;
use super::messages::Messages;
use super::stack::{Shares, Stack};
use disk::shapes::{
    Op, OpKind,
    around::{Around, EveryRequest},
};
use disk::{Backend, Blocks, Client, Disk, Export, Facts, Io};
use std::sync::Arc;

/// `next`, the backend of component `name` over (or in) `plugin`, with lines for what is asked of it.
pub(crate) fn backend(
    name: &'static str,
    plugin: &'static str,
    next: Arc<dyn Backend>,
    messages: Messages,
    told: Told,
) -> Arc<dyn Backend> {
    Arc::new(Traced { name, plugin, next, messages, told })
}

/// Tells which components there are, and what each is given.
pub(crate) fn configuration(stack: &Stack, arguments: &[String], messages: &Messages) {
    let kinds = stack.filters().map(|about| (about, "filter"));
    let mut components: Vec<_> = kinds.chain(stack.plugin().map(|plugin| (plugin.about, "plugin"))).collect();
    // In the order in which they are started.
    components.reverse();
    for (about, kind) in components {
        messages.debug(&format!("registered {kind} {}: {}", about.name, about.summary));
    }
    // Where this fails, starting does, and says why.
    let Ok(Shares { plugin, filters }) = stack.share(arguments) else { return };
    for (about, args) in stack.components().zip(filters.iter().chain([&plugin])) {
        for arg in args.iter() {
            let value = if is_secret(&arg.key) { "(not shown)" } else { &arg.value };
            messages.debug(&format!("{}: config key={}, value={value}", about.name, arg.key));
        }
        messages.debug(&format!("{}: config_complete", about.name));
    }
}

/// What must not stand in a log, which others may read.
fn is_secret(key: &str) -> bool {
    ["password", "passphrase", "secret", "token", "cookie", "header"].iter().any(|word| key.contains(word))
}

struct Traced {
    name: &'static str,
    plugin: &'static str,
    next: Arc<dyn Backend>,
    messages: Messages,
    told: Told,
}

impl Traced {
    /// Where lines about a connection come from, as nbdkit has it.
    fn at(&self, connection: u64) -> String {
        format!("{}[{connection}]", self.plugin)
    }

    fn control(&self, connection: u64, line: impl FnOnce() -> String) {
        if self.told.control {
            self.messages.call(&self.at(connection), &format!("{}: {}", self.name, line()));
        }
    }

    /// What happens to the server as a whole.
    fn stage(&self, what: &str) {
        if self.told.control {
            self.messages.debug(&format!("{}: {what}", self.name));
        }
    }

    /// What the disk says of itself, under the names of nbdkit's questions.
    fn facts(&self, connection: u64, facts: &Facts) {
        self.control(connection, || format!("get_size: {}", facts.size));
        let answers = [
            ("can_write", facts.write),
            ("can_zero", facts.zero),
            ("can_fast_zero", facts.fast_zero),
            ("can_trim", facts.trim),
            ("can_fua", facts.fua),
            ("can_flush", facts.flush),
            ("is_rotational", facts.rotational),
            ("can_multi_conn", facts.multi_conn),
            ("can_cache", facts.cache),
            ("can_extents", facts.extents),
        ];
        for (question, answer) in answers {
            self.control(connection, || format!("{question}: {}", i32::from(answer)));
        }
        let Blocks { minimum, preferred, maximum } = facts.blocks;
        self.control(connection, || {
            format!("block_size: minimum={minimum} preferred={preferred} maximum={maximum}")
        });
    }
}

impl Backend for Traced {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.control(client.connection, || {
            let (read_only, tls) = (i32::from(client.read_only), i32::from(client.tls));
            format!("open readonly={read_only} exportname=\"{}\" tls={tls}", client.export)
        });
        Io::later(async move {
            let disk = self.next.open(client).await?;
            self.facts(client.connection, disk.facts());
            if !self.told.requests {
                return Ok(disk);
            }
            let (name, at, messages) = (self.name, self.at(client.connection), self.messages.clone());
            Ok(Arc::new(Around::new(Requests { name, at, messages }, disk)) as Arc<dyn Disk>)
        })
    }

    fn default_export<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Option<String>> {
        self.control(client.connection, || {
            let (read_only, tls) = (i32::from(client.read_only), i32::from(client.tls));
            format!("default_export readonly={read_only} tls={tls}")
        });
        self.next.default_export(client)
    }

    fn get_ready(&self) -> disk::Result<()> {
        // The plugin first, as it was started first.
        self.next.get_ready()?;
        self.stage(&match self.name == self.plugin {
            true => "get_ready".to_owned(),
            false => format!("get_ready thread_model={}", self.next.thread_model() as u8),
        });
        Ok(())
    }

    fn after_fork(&self) -> disk::Result<()> {
        self.next.after_fork()?;
        self.stage("after_fork");
        Ok(())
    }

    fn finish(&self) {
        self.stage("cleanup");
        self.next.finish();
    }

    fn preconnect<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, ()> {
        self.control(client.connection, || "preconnect".to_owned());
        self.next.preconnect(client)
    }

    fn exports<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Vec<Export>> {
        self.control(client.connection, || format!("list_exports readonly={}", i32::from(client.read_only)));
        self.next.exports(client)
    }

    fn disconnected(&self, connection: u64) {
        self.control(connection, || "close".to_owned());
        self.next.disconnected(connection);
    }

    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

struct Requests {
    name: &'static str,
    at: String,
    messages: Messages,
}

impl EveryRequest for Requests {
    fn may_place(&self) -> bool {
        true
    }

    fn around<'a, T: Send + 'a>(&'a self, op: Op, call: impl FnOnce() -> Io<'a, T> + Send + 'a) -> Io<'a, T> {
        let what = match op.kind {
            OpKind::Read => "pread",
            OpKind::Write => "pwrite",
            OpKind::Zero { .. } => "zero",
            OpKind::Trim => "trim",
            OpKind::Flush => "flush",
            OpKind::Cache => "cache",
            OpKind::Extents => "extents",
        };
        let mut line = format!("{}: {what}", self.name);
        if op.kind != OpKind::Flush {
            line += &format!(" count={} offset={}", op.range.len, op.range.start);
        }
        if let OpKind::Zero { may_trim, .. } = op.kind {
            line += &format!(" may_trim={}", i32::from(may_trim));
        }
        if matches!(op.kind, OpKind::Write | OpKind::Zero { .. } | OpKind::Trim) {
            line += &format!(" fua={}", i32::from(op.fua));
        }
        if let OpKind::Zero { fast, .. } = op.kind {
            line += &format!(" fast={}", i32::from(fast));
        }
        self.messages.call(&self.at, &line);
        call().inspect(move |outcome| {
            if let Err(error) = outcome {
                self.messages.call(&self.at, &format!("{}: {what} failed: {error}", self.name));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_their_names() {
        for key in
            ["password", "proxy-password", "secret-access-key", "session-token", "cookie-script", "header"]
        {
            assert!(is_secret(key), "{key}");
        }
        for key in ["size", "file", "user", "url"] {
            assert!(!is_secret(key), "{key}");
        }
    }
}
