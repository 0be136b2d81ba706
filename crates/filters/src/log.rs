//! `log`: writes down every request and what became of it.
//!
//! Extents are part of the log, so the disk is written out here and not left to [`disk::Around`].

mod ids;
mod journal;
mod line;
mod notes;
mod sheet;
mod time;

use disk::{
    Backend, Client, Data, Disk, Errno, Extents, Facts, Filter, Io, Range, Result, Status, WriteFlags,
    ZeroFlags, backend::Export, shared,
};
use ids::Ids;
use journal::Journal;
use line::{Line, Text, quoted, switch};
use notes::{Act, Note, write_flags, zero_flags};
use params::Params;
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// Write all requests to a file, or hand them to a script.
///
/// Without a file and a script, nothing is logged.
#[derive(Params)]
pub(crate) struct Log {
    /// The file that the log is written to.
    logfile: Option<PathBuf>,
    /// Append to the file instead of replacing it.
    #[param(default = "false")]
    logappend: bool,
    /// Commands for bash, run for every line of the log.
    #[param(placeholder = "SCRIPT")]
    logscript: Option<String>,
}

impl Filter for Log {
    const NAME: &'static str = "log";
    const MANUAL: &'static str = include_str!("log.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        let active = self.logfile.is_some() || self.logscript.is_some();
        let journal = active.then(|| Journal::new(self.logfile, self.logappend, self.logscript));
        Ok(Logging { journal, lists: AtomicU64::new(0), preconnects: AtomicU64::new(0), next })
    }
}

struct Logging {
    /// `None`: there is nothing to log to.
    journal: Option<Arc<Journal>>,
    lists: AtomicU64,
    preconnects: AtomicU64,
    next: Arc<dyn Backend>,
}

impl Backend for Logging {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        let Some(journal) = &self.journal else { return self.next.open(client) };
        self.next.open(client).map(|next| {
            let connect = Line::alone("Connect").on(client.connection);
            let what = connected(client, next.facts());
            journal.write(connect, |out| out.str(&what));
            let (journal, connection, ids) = (journal.clone(), client.connection, Ids::default());
            Ok(Arc::new(Logged { journal, connection, ids, next }) as Arc<dyn Disk>)
        })
    }

    fn exports<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Vec<Export>> {
        let Some(journal) = &self.journal else { return self.next.exports(client) };
        let line = Line::enter("ListExports", next_id(&self.lists));
        let what = format!("readonly={} tls={}", switch(client.read_only), switch(client.tls));
        journal.write(line, |out| out.str(&what));
        self.next.exports(client).inspect(move |outcome| {
            let names = |list: &Vec<Export>| {
                let names: Vec<String> = list.iter().map(|export| quoted(&export.name)).collect();
                format!("exports=({}) ", names.join(" "))
            };
            leave(journal, line, outcome, names);
        })
    }

    fn preconnect<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, ()> {
        let Some(journal) = &self.journal else { return self.next.preconnect(client) };
        let line = Line::enter("Preconnect", next_id(&self.preconnects));
        journal.write(line, |out| out.str(if client.read_only { "readonly=1" } else { "readonly=0" }));
        self.next.preconnect(client).inspect(move |outcome| leave(journal, line, outcome, |_| String::new()))
    }

    fn get_ready(&self) -> Result<()> {
        self.next.get_ready()?;
        let Some(journal) = &self.journal else { return Ok(()) };
        journal.open()?;
        let model = self.thread_model() as u64;
        journal.write(Line::alone("Ready"), |out| out.str("thread_model=").decimal(model));
        Ok(())
    }

    fn after_fork(&self) -> Result<()> {
        self.next.after_fork()?;
        let Some(journal) = &self.journal else { return Ok(()) };
        journal.start_writing()?;
        journal.write(Line::alone("Fork"), |out| out);
        Ok(())
    }

    fn finish(&self) {
        self.next.finish();
        if let Some(journal) = &self.journal {
            journal.finish();
        }
    }

    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

fn next_id(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Relaxed) + 1
}

fn connected(client: &Client<'_>, facts: &Facts) -> String {
    // 2: the disk does it itself; 1 would be an emulation by the server.
    let native = |can| if can { 2 } else { 0 };
    format!(
        "export={} tls={} size={:#x} minsize={:#x} prefsize={:#x} maxsize={:#x} write={} flush={} rotational={} trim={} zero={} \
         fua={} extents={} cache={} fast_zero={}",
        quoted(client.export),
        switch(client.tls),
        facts.size,
        facts.blocks.minimum,
        facts.blocks.preferred,
        facts.blocks.maximum,
        switch(facts.write),
        switch(facts.flush),
        switch(facts.rotational),
        switch(facts.trim),
        native(facts.zero),
        native(facts.fua),
        switch(facts.extents),
        native(facts.cache),
        switch(facts.fast_zero)
    )
}

/// Logs that a request is answered; `say` is for answers that tell something.
fn leave<T>(journal: &Journal, line: Line, outcome: &Result<T>, say: impl FnOnce(&T) -> String) {
    match outcome {
        Ok(answer) => {
            let said = say(answer);
            journal.write(line.leave(), |out| out.str(&said).str("return=0"));
        }
        Err(e) => {
            let name = match e.errno() {
                Errno::NOTSUP => "ENOTSUP",
                errno => errno.name().unwrap_or("EIO"),
            };
            journal.write(line.leave(), |out| out.str("return=-1 error=").str(name));
        }
    }
}

/// The disk of one connection.
struct Logged {
    journal: Arc<Journal>,
    connection: u64,
    ids: Ids,
    next: Arc<dyn Disk>,
}

impl Logged {
    /// Notes that a request comes, makes it and notes its outcome. All of it stays in registers, above all where the
    /// request is answered at once: a closure behind a write would wait for the store buffer to be loaded again.
    #[inline(always)]
    fn noted<'a, T: Send + 'a>(
        &'a self,
        act: Act,
        flags: u8,
        range: Range,
        call: impl FnOnce() -> Io<'a, T>,
    ) -> Io<'a, T> {
        let (journal, notes) = (&*self.journal, self.journal.notes());
        let id = self.ids.next(notes.thread);
        let place = journal.comes(notes, Note { connection: self.connection, id, act, flags, range });
        match call() {
            Io::Ready(Ok(value)) => {
                if !journal.answered(notes, place) {
                    self.noted_apart(act, id);
                }
                Io::Ready(Ok(value))
            }
            io => self.noted_later(io, act, id),
        }
    }

    /// Notes a success that comes after other requests.
    #[cold]
    fn noted_apart(&self, act: Act, id: u64) {
        self.journal.comes(self.journal.notes(), Note::answered(act, id, self.connection));
    }

    /// Notes the outcome of a request that failed, or must wait.
    #[cold]
    fn noted_later<'a, T: Send + 'a>(&'a self, io: Io<'a, T>, act: Act, id: u64) -> Io<'a, T> {
        io.inspect(move |outcome| match outcome {
            Ok(_) => self.noted_apart(act, id),
            Err(_) => {
                let line = Note::answered(act, id, self.connection).line();
                leave(&self.journal, line, outcome, |_| String::new());
            }
        })
    }

    /// As `noted`, for answers that say something.
    fn logged<'a, T: Send + 'a>(
        &'a self,
        act: &'static str,
        what: impl Fn(&mut Text) -> &mut Text,
        call: impl FnOnce() -> Io<'a, T>,
        say: impl FnOnce(&T) -> String + Send + 'a,
    ) -> Io<'a, T> {
        let line = Line::enter(act, self.ids.next(self.journal.notes().thread)).on(self.connection);
        self.journal.write(line, what);
        call().inspect(move |outcome| leave(&self.journal, line, outcome, say))
    }
}

impl Disk for Logged {
    disk::forward!(next: facts, next, resizing);

    fn read(&self, r: Range) -> Io<'_, Data> {
        self.noted(Act::Read, 0, r, || self.next.read(r))
    }
    fn write(&self, at: u64, data: Data, f: WriteFlags) -> Io<'_, ()> {
        let r = Range::new(at, data.len());
        self.noted(Act::Write, write_flags(f), r, || self.next.write(at, data, f))
    }
    fn zero(&self, r: Range, f: ZeroFlags) -> Io<'_, ()> {
        self.noted(Act::Zero, zero_flags(f), r, || self.next.zero(r, f))
    }
    fn trim(&self, r: Range, f: WriteFlags) -> Io<'_, ()> {
        self.noted(Act::Trim, write_flags(f), r, || self.next.trim(r, f))
    }
    fn flush(&self) -> Io<'_, ()> {
        self.noted(Act::Flush, 0, Range::new(0, 0), || self.next.flush())
    }
    fn cache(&self, r: Range) -> Io<'_, ()> {
        self.noted(Act::Cache, 0, r, || self.next.cache(r))
    }
    fn extents(&self, r: Range, limit: usize) -> Io<'_, Extents> {
        self.logged(
            "Extents",
            |out| out.range(r).switch("req_one", limit == 1),
            || self.next.extents(r, limit),
            move |extents| {
                let list = extents.ranges(r.start).map(|(r, kind)| {
                    let kind = match (kind.hole, kind.zero) {
                        (true, true) => "hole,zero",
                        (true, false) => "hole",
                        (false, true) => "zero",
                        (false, false) => "",
                    };
                    format!("{:#x} {:#x} \"{kind}\"", r.start, r.len)
                });
                format!("extents=({}) ", list.collect::<Vec<_>>().join(" "))
            },
        )
    }
    fn status(&self, context: usize, r: Range, limit: usize) -> Io<'_, Vec<Status>> {
        let name = self.facts().contexts.get(context).map(|name| quoted(name)).unwrap_or_default();
        self.logged(
            "Status",
            |out| out.range(r).str(" context=").str(&name).switch("req_one", limit == 1),
            || self.next.status(context, r, limit),
            move |list| {
                let mut at = r.start;
                let list = list.iter().map(|status| {
                    let start = at;
                    at = at.saturating_add(status.len);
                    format!("{start:#x} {:#x} {:#x}", status.len, status.value)
                });
                format!("status=({}) ", list.collect::<Vec<_>>().join(" "))
            },
        )
    }
    fn place(&self, r: Range) -> Option<shared::Place<'_>> {
        self.next.place(r)
    }
    fn placed(&self, r: Range, f: WriteFlags) -> Io<'_, ()> {
        self.noted(Act::Write, write_flags(f), r, || self.next.placed(r, f))
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let line = Line::alone("Disconnect").on(self.connection);
        self.journal.write(line, |out| out.str("transactions=").decimal(self.ids.given()));
    }
}

#[cfg(test)]
mod tests;
