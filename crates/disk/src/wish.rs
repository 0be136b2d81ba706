//! What a backend may wish of the server that runs it: that it ends, or that it hangs up on a client.

use std::{fmt, sync::Arc};

/// A wish that is granted if there is a server. May be made from any thread, and more than once.
#[derive(Clone, Default)]
pub struct Wish(Option<Arc<dyn Fn() + Send + Sync>>);

impl Wish {
    /// One that `grant` grants, which must not wait.
    pub fn new(grant: impl Fn() + Send + Sync + 'static) -> Wish {
        Wish(Some(Arc::new(grant)))
    }

    /// Makes the wish.
    pub fn make(&self) {
        if let Some(grant) = &self.0 {
            grant();
        }
    }
}

impl fmt::Debug for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Wish" } else { "Wish(of nobody)" })
    }
}
