//! Signals that ask a copy to end.

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

/// Whether somebody has asked to stop.
#[derive(Clone, Default)]
pub(crate) struct Stop {
    /// The number of the signal; 0: nobody has.
    signal: Arc<AtomicUsize>,
}

impl Stop {
    /// From now on SIGINT and SIGTERM ask, instead of ending the process. The second one ends it all the same.
    ///
    /// # Errors
    /// As sigaction(2).
    pub(crate) fn listen(&self) -> io::Result<()> {
        let again = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal arms what the second one meets.
            flag::register_conditional_default(signal, again.clone())?;
            flag::register(signal, again.clone())?;
            flag::register_usize(signal, self.signal.clone(), signal as usize)?;
        }
        Ok(())
    }

    /// Whether to begin nothing more.
    pub(crate) fn asked(&self) -> bool {
        self.signal.load(Relaxed) != 0
    }

    /// Ends the process as the signal would have, if there was one: whoever started it sees why it ended.
    pub(crate) fn end(&self) {
        if self.asked() {
            // Where that fails, an exit code tells.
            let _ = signal_hook::low_level::emulate_default_handler(self.signal.load(Relaxed) as i32);
        }
    }
}
