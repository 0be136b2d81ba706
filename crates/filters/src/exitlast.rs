//! `exitlast`: the server ends when its last client has gone.

use disk::{Backend, Client, Disk, Filter, Io, Result, Wish};
use params::Params;
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

/// End the server when the last client has gone.
#[derive(Params)]
pub(crate) struct ExitLast;

impl Filter for ExitLast {
    const NAME: &'static str = "exitlast";
    const MANUAL: &'static str = include_str!("exitlast.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        Ok(Last { end: OnceLock::new(), here: Mutex::default(), next })
    }
}

struct Last {
    end: OnceLock<Wish>,
    /// The connections that have opened a disk.
    here: Mutex<HashSet<u64>>,
    next: Arc<dyn Backend>,
}

impl Last {
    fn here(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Last {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        let connection = client.connection;
        self.next.open(client).inspect(move |opened| {
            if opened.is_ok() {
                self.here().insert(connection);
            }
        })
    }
    fn hosted(&self, end: &Wish) {
        let _ = self.end.set(end.clone());
        self.next.hosted(end);
    }
    fn disconnected(&self, connection: u64) {
        self.next.disconnected(connection);
        let mut here = self.here();
        if here.remove(&connection)
            && here.is_empty()
            && let Some(end) = self.end.get()
        {
            end.make();
        }
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, layer};
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    #[test]
    fn the_end_comes_with_the_last_of_those_who_opened() {
        let layer = layer::<ExitLast>(&[], &Memory::new(vec![])).unwrap();
        let ends = Arc::new(AtomicUsize::new(0));
        let counted = ends.clone();
        layer.hosted(&Wish::new(move || {
            counted.fetch_add(1, SeqCst);
        }));
        let open = |connection| drop(layer.open(&Client { connection, ..Client::default() }).wait().unwrap());
        layer.disconnected(1);
        assert_eq!(ends.load(SeqCst), 0, "it had opened nothing");
        (2..4).for_each(open);
        layer.disconnected(2);
        layer.disconnected(9);
        assert_eq!(ends.load(SeqCst), 0);
        layer.disconnected(3);
        assert_eq!(ends.load(SeqCst), 1);
    }
}
