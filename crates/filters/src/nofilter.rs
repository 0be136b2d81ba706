//! `nofilter`: nothing, to see what a filter costs.

use crate::common::wrap::{each, stated};
use disk::{Backend, Filter, Result};
use params::Params;
use std::sync::Arc;

/// Pass every request on unchanged.
#[derive(Params)]
pub(crate) struct NoFilter;

impl Filter for NoFilter {
    const NAME: &'static str = "nofilter";
    const MANUAL: &'static str = include_str!("nofilter.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        // A layer all the same: what it costs is to be seen.
        Ok(each(next, |disk, _| Ok(stated(disk.facts().clone(), disk))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, opened};

    #[test]
    fn everything_is_as_below() {
        let memory = Memory::new(vec![0; 512]);
        let disk = opened::<NoFilter>(&[], &memory);
        disk.read(disk.facts().whole()).wait().unwrap();
        disk.close().wait().unwrap();
        assert_eq!(memory.asked(), ["read 0 512", "close"]);
    }
}
