//! Options of the handshake, one by one.

use super::{CommandFn, Fault, Handle, Outcome, Phase, State, When, fault::errno, handshake::refused};
use proto::{
    ReplyStyle,
    handshake::client::Event,
    option::{Refusal, ReplyType},
};

/// Hears of an export: its name and its description.
pub type ListFn = Box<dyn FnMut(&str, &str) -> i32 + Send>;

/// Hears of a metadata context.
pub type ContextFn = Box<dyn FnMut(&str) -> i32 + Send>;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// All that is done without being asked.
    Initial,
    Go,
    Info,
    List,
    ListContexts,
    SetContexts,
    StartTls,
    Structured,
    Extended,
    Abort,
}

/// An option under way.
pub(super) struct Asked {
    pub(super) what: What,
    /// What is sent now belongs to the contexts, which come before the export.
    contexts_first: bool,
    queries: Vec<String>,
    completion: Option<CommandFn>,
    list: Option<ListFn>,
    context: Option<ContextFn>,
}

impl Asked {
    pub(super) fn of(what: What) -> Asked {
        let contexts_first = false;
        Asked { what, contexts_first, queries: Vec::new(), completion: None, list: None, context: None }
    }
}

macro_rules! simple_options {
    ($($(#[$doc:meta])* $name:ident = $what:ident;)*) => { $(
        $(#[$doc])*
        ///
        /// # Errors
        /// Nothing can be asked now, or the connection broke. What the server says comes later: [`Handle::answer`].
        pub fn $name(&mut self, completion: Option<CommandFn>) -> Outcome<()> {
            self.ask(Asked { completion, ..Asked::of(What::$what) })
        }
    )* };
}

impl Handle {
    simple_options! {
        /// Open the export.
        aio_opt_go = Go;
        /// Ask about the export.
        aio_opt_info = Info;
        /// Ask for TLS. The answer is 1, or 0 if the server has none.
        aio_opt_starttls = StartTls;
        /// Ask for structured replies. The answer is 1, or 0 if the server has none.
        aio_opt_structured_reply = Structured;
        /// Ask for extended headers. The answer is 1, or 0 if the server has none.
        aio_opt_extended_headers = Extended;
    }

    /// Say goodbye.
    ///
    /// # Errors
    /// As [`Handle::aio_opt_go`].
    pub fn aio_opt_abort(&mut self) -> Outcome<()> {
        self.ask(Asked::of(What::Abort))
    }

    /// Ask for the exports. The answer is their number.
    ///
    /// # Errors
    /// As [`Handle::aio_opt_go`].
    pub fn aio_opt_list(&mut self, list: ListFn, completion: Option<CommandFn>) -> Outcome<()> {
        self.ask(Asked { list: Some(list), completion, ..Asked::of(What::List) })
    }

    /// Ask which metadata contexts there are, by queries or else by those of the settings. The answer is their number.
    ///
    /// # Errors
    /// As [`Handle::aio_opt_go`].
    pub fn aio_opt_list_contexts(
        &mut self,
        queries: Option<Vec<String>>,
        context: ContextFn,
        completion: Option<CommandFn>,
    ) -> Outcome<()> {
        let queries = queries.unwrap_or_else(|| self.settings.contexts.clone());
        self.ask(Asked { queries, context: Some(context), completion, ..Asked::of(What::ListContexts) })
    }

    /// Choose metadata contexts, by queries or else by those of the settings. The answer is their number.
    ///
    /// # Errors
    /// As [`Handle::aio_opt_go`].
    pub fn aio_opt_set_contexts(
        &mut self,
        queries: Option<Vec<String>>,
        context: ContextFn,
        completion: Option<CommandFn>,
    ) -> Outcome<()> {
        let queries = queries.unwrap_or_else(|| self.settings.contexts.clone());
        self.ask(Asked { queries, context: Some(context), completion, ..Asked::of(What::SetContexts) })
    }

    /// Pump until the option that was asked last is answered; what came of it.
    ///
    /// # Errors
    /// The server refused it, or the connection broke.
    pub fn answer(&mut self) -> Outcome<i32> {
        while self.state() == State::Connecting {
            self.poll(-1)?;
        }
        std::mem::replace(&mut self.answer, Ok(0))
    }

    fn ask(&mut self, mut asked: Asked) -> Outcome<()> {
        self.need(When::Negotiating)?;
        self.answer = Ok(0);
        if matches!(asked.what, What::Go | What::Info) {
            // What was known may be of another export.
            self.facts = None;
            if self.settings.request_contexts {
                self.contexts = None;
            }
        }
        self.phase = Phase::Handshake;
        let sent = self.send_option(&mut asked);
        self.asked = Some(asked);
        sent.and_then(|()| self.shake_hands()).map_err(|fault| self.die(fault))
    }

    /// Whether contexts are to be chosen before an export.
    fn wants_contexts(&self) -> bool {
        self.settings.request_contexts && !self.settings.contexts.is_empty() && self.style().has_chunks()
    }

    /// Sends the first step of an option.
    fn send_option(&mut self, asked: &mut Asked) -> Outcome<()> {
        if matches!(asked.what, What::Initial | What::Go | What::Info) && self.wants_contexts() {
            asked.contexts_first = true;
        } else if self.settings.request_contexts
            && matches!(asked.what, What::Initial | What::Go | What::Info)
        {
            self.contexts = Some(Vec::new());
        }
        let infos = self.infos();
        let (export, contexts) = (&self.settings.export, &self.settings.contexts);
        let Some(machine) = &mut self.machine else { return Ok(()) };
        machine.set_infos(infos);
        let sent = match asked.what {
            _ if asked.contexts_first => machine.set_meta_context(export, contexts),
            What::Initial | What::Go => machine.go(export),
            What::Info => machine.info(export),
            What::List => machine.list(),
            What::ListContexts => machine.list_meta_context(export, &asked.queries),
            What::SetContexts => machine.set_meta_context(export, &asked.queries),
            What::StartTls => machine.starttls(),
            What::Structured => machine.structured_reply(),
            What::Extended => machine.extended_headers(),
            What::Abort => machine.abort(),
        };
        sent.map_err(|e| Fault::new(errno::EPROTO, e.to_string()))
    }

    /// After the contexts, the export.
    fn send_export(&mut self, what: What) -> Outcome<()> {
        let export = &self.settings.export;
        let Some(machine) = &mut self.machine else { return Ok(()) };
        let sent = if what == What::Info { machine.info(export) } else { machine.go(export) };
        sent.map_err(|e| Fault::new(errno::EPROTO, e.to_string()))
    }

    /// The outcome of a step.
    pub(super) fn answered(&mut self, event: Event) -> Outcome<()> {
        if let Some(machine) = &self.machine {
            self.protocol = Some(machine.protocol());
        }
        let Some(mut asked) = self.asked.take() else {
            self.phase = Phase::Negotiating;
            return Ok(());
        };
        let outcome = match event {
            Event::Waiting if asked.what == What::Initial && !self.settings.opt_mode => {
                let sent = self.send_option(&mut asked);
                self.asked = Some(asked);
                return sent;
            }
            Event::Waiting => Ok(i32::from(asked.what == What::StartTls)),
            Event::Contexts(contexts) if asked.contexts_first => {
                self.contexts = Some(contexts);
                asked.contexts_first = false;
                let sent = self.send_export(asked.what);
                self.asked = Some(asked);
                return sent;
            }
            Event::Contexts(contexts) => {
                let count = contexts.len() as i32;
                if let Some(hear) = &mut asked.context {
                    for context in &contexts {
                        hear(&context.name);
                    }
                }
                if asked.what == What::SetContexts {
                    self.contexts = Some(contexts);
                }
                Ok(count)
            }
            Event::Exports(exports) => {
                if let Some(hear) = &mut asked.list {
                    for export in &exports {
                        hear(&export.name, &export.description);
                    }
                }
                Ok(exports.len() as i32)
            }
            Event::Info(info) => {
                self.facts = Some(info);
                Ok(0)
            }
            Event::Accepted(_) => Ok(1),
            Event::Aborted => {
                self.asked = Some(asked);
                return self.aborted();
            }
            Event::Refused(refusal) => return self.on_refusal(asked, &refusal),
            Event::NeedInput | Event::StartTls | Event::Ready(_) => Ok(0),
        };
        self.conclude(asked, outcome);
        Ok(())
    }

    fn on_refusal(&mut self, mut asked: Asked, refusal: &Refusal) -> Outcome<()> {
        let fatal = matches!(refusal.error, ReplyType::ERR_TLS_REQD | ReplyType::ERR_SHUTDOWN);
        if asked.contexts_first && !fatal {
            // Without contexts the export is as good.
            self.contexts = Some(Vec::new());
            asked.contexts_first = false;
            let sent = self.send_export(asked.what);
            self.asked = Some(asked);
            return sent;
        }
        match asked.what {
            // A server from before GO.
            What::Initial | What::Go
                if refusal.error == ReplyType::ERR_UNSUP && self.style() != ReplyStyle::Extended =>
            {
                self.asked = Some(asked);
                let export = &self.settings.export;
                let Some(machine) = &mut self.machine else { return Ok(()) };
                machine.export_name(export).map_err(|e| Fault::new(errno::EPROTO, e.to_string()))
            }
            What::Initial => {
                // A polite end, if there is room for it.
                if let Some(machine) = &mut self.machine
                    && machine.abort().is_ok()
                {
                    self.output.push(machine.take_output());
                    let _ = self.send_some();
                }
                Err(refused(refusal).after("handshake"))
            }
            What::StartTls | What::Structured | What::Extended => {
                self.conclude(asked, Ok(0));
                Ok(())
            }
            what => {
                let mut fault = refused(refusal);
                if what == What::List {
                    fault.errno = errno::ENOTSUP; // programs know one number for a server that does not list
                }
                self.conclude(asked, Err(fault));
                Ok(())
            }
        }
    }

    /// An option is answered: who asked hears of it.
    pub(super) fn conclude(&mut self, mut asked: Asked, outcome: Outcome<i32>) {
        if matches!(self.phase, Phase::Handshake) {
            self.phase = Phase::Negotiating;
        }
        self.last_state.set(self.state());
        if let Some(completion) = &mut asked.completion {
            let mut errno = outcome.as_ref().map_or_else(|fault| fault.errno.max(1), |_| 0);
            completion(&mut errno);
        }
        self.answer = outcome;
    }
}
