//! What sh and eval have in common: a disk whose every method is a call of a script.
//!
//! `answer.rs` has the protocol of exit codes, `call.rs` what is asked, `spawn.rs` and `persistent.rs` the two ways of
//! asking; `backend.rs` and `disk.rs` make a plugin of it, `lists.rs` reads what scripts print.

mod answer;
mod backend;
mod call;
mod disk;
mod lists;
mod order;
mod persistent;
mod pipes;
mod spawn;

pub(crate) use backend::{Script, directory};
pub(crate) use call::{Call, METHODS};
pub(crate) use order::Order;
pub(crate) use persistent::Persistent;
pub(crate) use spawn::{Snippets, Spawn};

use ::disk::Result;
use answer::Answer;

/// The lines of `--dump-plugin` that sh and eval share: exit codes up to this one have a meaning.
pub(crate) const DUMP: &[(&str, &str)] = &[("max_known_status", "8")];

/// A way of asking a script.
pub(crate) trait Ask: Send + Sync + 'static {
    /// Asks, and waits for the answer, which holds `call.most` bytes of output at most.
    ///
    /// # Errors
    /// When the script cannot be run at all.
    fn ask(&self, call: &Call) -> Result<Answer>;

    /// As [`Ask::ask`], where the answer is likely to come so soon that waiting for it beats changing threads. When it
    /// did not, the rest of the call comes back, which must be done before anything else is asked.
    fn ask_now(&self, call: Call) -> std::result::Result<Result<Answer>, Begun> {
        Err(Begun::not(call))
    }

    /// There is one process only, which can be asked one thing at a time. The caller sees to that.
    fn is_one(&self) -> bool {
        false
    }

    /// Whether there is a method of this name; `None`: only asking tells.
    fn has(&self, method: &str) -> Option<bool> {
        let _ = method;
        None
    }

    /// For the log: whose errors these are.
    fn name(&self) -> String;
}

/// A call that a thread which may wait must bring to its end.
pub(crate) struct Begun(Box<Rest>);

type Rest = dyn FnOnce(&dyn Ask) -> Result<Answer> + Send;

impl Begun {
    fn not(call: Call) -> Begun {
        Begun(Box::new(move |script| script.ask(&call)))
    }

    fn rest(rest: impl FnOnce() -> Result<Answer> + Send + 'static) -> Begun {
        Begun(Box::new(move |_| rest()))
    }

    fn finish(self, script: &dyn Ask) -> Result<Answer> {
        (self.0)(script)
    }
}
