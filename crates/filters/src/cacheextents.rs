//! `cacheextents`: accepted, and does nothing. It once kept the last answer about extents for clients that asked for one
//! extent at a time; now the server asks for many and answers from them.

use disk::{Backend, Client, Disk, Filter, Io, Result};
use params::Params;
use std::sync::Arc;

/// Accepted for old command lines; no longer needed.
#[derive(Params)]
pub(crate) struct CacheExtents;

impl Filter for CacheExtents {
    const NAME: &'static str = "cacheextents";
    const MANUAL: &'static str = include_str!("cacheextents.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        Ok(Nothing(next))
    }
}

struct Nothing(Arc<dyn Backend>);

impl Backend for Nothing {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.0.open(client)
    }
    fn get_ready(&self) -> Result<()> {
        tracing::warn!(target: "diskpipe", "the filter cacheextents is no longer needed, and does nothing");
        self.0.get_ready()
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.0)
    }
}
