//! A handle that a script gave out, as a disk.

use super::{
    Call, Script,
    answer::{Control, Outcome},
    lists,
    order::Order,
};
use ::disk::{Data, Disk, Errno, Error, Extents, Facts, Io, Range, Result, WriteFlags, ZeroFlags};
use params::{Size, Value};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

/// An opened disk.
pub(super) struct ScriptDisk {
    script: Arc<Script>,
    handle: String,
    facts: Facts,
    /// The script caches nothing itself: what shall be near is read.
    cache_by_reading: bool,
    control: Control,
    order: Order,
    closed: AtomicBool,
}

/// Who sees to something that the protocol has and the script may have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Nobody,
    Server,
    Script,
}

/// Asks one question after the other about a handle.
struct Questions<'a> {
    script: &'a Script,
    handle: &'a str,
    control: &'a Control,
}

impl Questions<'_> {
    fn ask(&self, method: &'static str) -> Outcome {
        self.script.ask(Call::new(method, &[self.handle]), self.control)
    }

    /// Whether the script says so; without an answer, whether it has the method that the question is about.
    fn can(&self, method: &'static str, about: &str) -> Result<bool> {
        if self.script.has(method) == Some(false) && self.script.has(about) == Some(true) {
            return Ok(true);
        }
        Ok(self.ask(method).truth().map_err(self.script.named(method))?.unwrap_or(false))
    }

    fn native(&self, method: &'static str) -> Result<Option<By>> {
        let named = self.script.named(method);
        let Some(text) = self.ask(method).text(method).map_err(&named)? else { return Ok(None) };
        match text.trim_end() {
            "none" => Ok(Some(By::Nobody)),
            "emulate" => Ok(Some(By::Server)),
            "native" => Ok(Some(By::Script)),
            other => Err(named(Error::io(format!("{other:?} is none of none, emulate and native")))),
        }
    }

    fn size(&self) -> Result<u64> {
        let named = self.script.named("get_size");
        let size = self.ask("get_size").required("get_size").map_err(&named)?;
        let text = lists::line(String::from_utf8_lossy(&size).into_owned());
        let wrong = |wrong: params::Wrong| named(Error::io(format!("{text:?}: {}", wrong.0)));
        Size::from_text(&text).map(Size::bytes).map_err(wrong)
    }

    fn facts(&self, read_only: bool) -> Result<(Facts, bool)> {
        let mut facts = Facts::read_only(self.size()?);
        facts.write = !read_only && self.can("can_write", "pwrite")?;
        let mut fua = None;
        if facts.write {
            facts.zero = self.can("can_zero", "zero")?;
            facts.fast_zero = facts.zero && self.can("can_fast_zero", "can_fast_zero")?;
            facts.trim = self.can("can_trim", "trim")?;
            fua = self.native("can_fua")?;
        }
        facts.flush = self.can("can_flush", "flush")? && facts.write;
        facts.fua = fua == Some(By::Script);
        facts.rotational = self.can("is_rotational", "is_rotational")?;
        facts.multi_conn = self.can("can_multi_conn", "can_multi_conn")?;
        let has = |method| self.script.has(method);
        let cache = match (has("can_cache"), has("cache")) {
            (Some(false), Some(true)) => Some(By::Script),
            _ => self.native("can_cache")?,
        };
        facts.cache = cache.is_some_and(|cache| cache != By::Nobody);
        facts.extents = self.can("can_extents", "extents")?;
        let named = self.script.named("block_size");
        if let Some(text) = self.ask("block_size").text("block_size").map_err(&named)? {
            facts.blocks = lists::blocks(&text).map_err(&named)?;
        }
        // A failure to describe the disk is no reason not to serve it.
        if let Ok(Some(text)) = self.ask("export_description").text("export_description") {
            facts.description = Some(lists::line(text).into());
        }
        Ok((facts, cache == Some(By::Server)))
    }
}

impl ScriptDisk {
    /// Asks for all facts.
    pub(super) fn new(
        script: Arc<Script>,
        handle: String,
        read_only: bool,
        control: Control,
        order: Order,
    ) -> Result<ScriptDisk> {
        let questions = Questions { script: &script, handle: &handle, control: &control };
        let facts = questions.facts(read_only);
        if facts.is_err() {
            // It was opened, so it is closed.
            let _ = questions.ask("close");
        }
        let (facts, cache_by_reading) = facts?;
        Ok(ScriptDisk {
            script,
            handle,
            facts,
            cache_by_reading,
            control,
            order,
            closed: AtomicBool::new(false),
        })
    }

    /// A call of a method that only does something.
    fn done(&self, call: Call) -> Io<'_, ()> {
        let method = call.method;
        self.request(call, move |outcome| outcome.required(method).map(drop))
    }

    fn request<T: Send + 'static>(
        &self,
        call: Call,
        make: impl FnOnce(Outcome) -> Result<T> + Send + 'static,
    ) -> Io<'_, T> {
        self.script.request(call, &self.control, &self.order, make)
    }

    fn call(&self, method: &'static str, range: Range) -> Call {
        Call::of_range(method, &self.handle, range)
    }
}

impl Disk for ScriptDisk {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn read(&self, range: Range) -> Io<'_, Data> {
        let call = Call { most: range.len as usize, ..self.call("pread", range) };
        self.request(call, move |outcome| {
            let bytes = outcome.required("pread")?;
            match bytes.len() as u64 == range.len {
                true => Ok(Data::copy_from(&bytes)),
                false => Err(Error::io(format!("pread printed {} bytes, not {}", bytes.len(), range.len))),
            }
        })
    }

    fn write(&self, at: u64, data: Data, flags: WriteFlags) -> Io<'_, ()> {
        let call = self.call("pwrite", Range::new(at, data.len())).with_flags(&[("fua", flags.fua)]);
        self.done(Call { input: Some(data), ..call })
    }

    fn zero(&self, range: Range, flags: ZeroFlags) -> Io<'_, ()> {
        let ZeroFlags { fua, may_trim, fast } = flags;
        let flags = [("fua", fua), ("may_trim", may_trim), ("fast", fast)];
        let call = self.call("zero", range).with_flags(&flags);
        self.request(call, move |outcome| match outcome {
            // Then zeroes are written.
            Outcome::Missing => Err(Error::new(Errno::NOTSUP, "the script has no method zero")),
            outcome => outcome.required("zero").map(drop),
        })
    }

    fn trim(&self, range: Range, flags: WriteFlags) -> Io<'_, ()> {
        self.done(self.call("trim", range).with_flags(&[("fua", flags.fua)]))
    }

    fn flush(&self) -> Io<'_, ()> {
        self.done(Call::new("flush", &[&self.handle]))
    }

    fn cache(&self, range: Range) -> Io<'_, ()> {
        match self.cache_by_reading {
            true => self.read(range).map(|_| Ok(())),
            false => self.done(self.call("cache", range)),
        }
    }

    fn extents(&self, range: Range, limit: usize) -> Io<'_, Extents> {
        let call = self.call("extents", range).with_flags(&[("req_one", limit == 1)]);
        self.request(call, move |outcome| {
            let Some(text) = outcome.text("extents")? else {
                return Err(Error::io("the script has no method extents, though it says that it can"));
            };
            lists::extents(&text, range)
        })
    }

    fn close(&self) -> Io<'_, ()> {
        if self.closed.swap(true, Relaxed) {
            return Io::ok(());
        }
        let call = Call::new("close", &[&self.handle]);
        self.request(call, |outcome| outcome.output("close").map(drop))
    }
}

impl Drop for ScriptDisk {
    fn drop(&mut self) {
        // Clients that leave before they have begun do not have it closed.
        if !self.closed.swap(true, Relaxed) {
            let (script, call) = (self.script.clone(), Call::new("close", &[&self.handle]));
            drop(self.order.run(move || script.ask(call, &Control::default())));
        }
    }
}
