//! `limit`: so many clients at once, and no more.

use disk::{Backend, Client, Disk, Errno, Error, Filter, Io, Result};
use params::Params;
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Limit how many clients may be connected at once.
#[derive(Params)]
pub(crate) struct Limit {
    /// So many clients; more are turned away. 0: any number.
    #[param(default = "1")]
    limit: u32,
}

impl Filter for Limit {
    const NAME: &'static str = "limit";
    const MANUAL: &'static str = include_str!("limit.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        Ok(Limited { limit: self.limit as usize, here: Mutex::default(), next })
    }
}

struct Limited {
    limit: usize,
    /// The numbers of the connections that were let in.
    here: Mutex<HashSet<u64>>,
    next: Arc<dyn Backend>,
}

impl Limited {
    fn here(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Limited {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.next.open(client)
    }
    fn preconnect<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, ()> {
        let mut here = self.here();
        if self.limit > 0 && here.len() >= self.limit && !here.contains(&client.connection) {
            let n = here.len();
            return Error::new(
                Errno::BUSY,
                format!("{n} clients are connected, and limit={} allows no more", self.limit),
            )
            .into();
        }
        here.insert(client.connection);
        drop(here);
        self.next.preconnect(client)
    }
    fn disconnected(&self, connection: u64) {
        // Also told of those who were turned away.
        self.here().remove(&connection);
        self.next.disconnected(connection);
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, layer};

    #[test]
    fn one_too_many_is_turned_away_until_another_leaves() {
        let memory = Memory::new(vec![]);
        let layer = layer::<Limit>(&["limit=2"], &memory).unwrap();
        let comes = |connection| {
            let client = Client { connection, ..Client::default() };
            let answer = layer.preconnect(&client).wait();
            if answer.is_err() {
                layer.disconnected(connection);
            }
            answer.is_ok()
        };
        assert!(comes(1) && comes(2) && !comes(3) && !comes(4));
        layer.disconnected(1);
        assert!(comes(5) && !comes(6));
    }

    #[test]
    fn with_zero_there_is_no_limit() {
        let layer = layer::<Limit>(&["limit=0"], &Memory::new(vec![])).unwrap();
        for connection in 0..100 {
            layer.preconnect(&Client { connection, ..Client::default() }).wait().unwrap();
        }
    }
}
