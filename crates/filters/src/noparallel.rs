//! `noparallel`: fewer requests at once.

use disk::{Backend, Client, Disk, Filter, Io, Result, ThreadModel};
use params::{Choice, Params};
use std::sync::Arc;

/// Handle one request, or one client, at a time.
#[derive(Params)]
pub(crate) struct NoParallel {
    /// `requests`, one request at a time of each client; `all-requests`, one request at a time of all clients
    /// together; `connections`, one client at a time.
    #[param(default = "requests")]
    serialize: Serialize,
}

#[derive(Choice, Clone, Copy, PartialEq, Eq)]
enum Serialize {
    Requests,
    #[choice(alias = "all_requests")]
    AllRequests,
    Connections,
}

impl Filter for NoParallel {
    const NAME: &'static str = "noparallel";
    const MANUAL: &'static str = include_str!("noparallel.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        let most = match self.serialize {
            Serialize::Requests => ThreadModel::SerializeRequests,
            Serialize::AllRequests => ThreadModel::SerializeAllRequests,
            Serialize::Connections => ThreadModel::SerializeConnections,
        };
        Ok(Limited { most, next })
    }
}

/// The server holds the whole stack to its lowest thread model: there is nothing else to do.
struct Limited {
    most: ThreadModel,
    next: Arc<dyn Backend>,
}

impl Backend for Limited {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.next.open(client)
    }
    fn thread_model(&self) -> ThreadModel {
        self.most.min(self.next.thread_model())
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, layer, over};

    #[test]
    fn the_lowest_thread_model_of_a_stack_counts() {
        let memory = Memory::new(vec![0; 512]);
        let all = layer::<NoParallel>(&["serialize=all-requests"], &memory).unwrap();
        assert_eq!(all.thread_model(), ThreadModel::SerializeAllRequests);
        let above = over::<NoParallel>(&[], all.clone()).unwrap();
        assert_eq!(above.thread_model(), ThreadModel::SerializeAllRequests);
        let above = over::<NoParallel>(&["serialize=connections"], all).unwrap();
        assert_eq!(above.thread_model(), ThreadModel::SerializeConnections);
    }
}
