//! `rotational`: whether clients are told that the medium spins.

use crate::common::wrap::{each, stated};
use disk::{Backend, Facts, Filter, Result};
use params::Params;
use std::sync::Arc;

/// Say that a disk spins, or that it does not.
#[derive(Params)]
pub(crate) struct Rotational {
    /// Whether the disk counts as spinning: clients may then order their requests to save seeks.
    #[param(default = "true")]
    rotational: bool,
}

impl Filter for Rotational {
    const NAME: &'static str = "rotational";
    const MANUAL: &'static str = include_str!("rotational.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        let rotational = self.rotational;
        Ok(each(next, move |disk, _| Ok(stated(Facts { rotational, ..disk.facts().clone() }, disk))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, opened};

    #[test]
    fn the_fact_is_what_the_parameter_says() {
        let memory = Memory::new(vec![0; 512]);
        assert!(opened::<Rotational>(&[], &memory).facts().rotational);
        assert!(!opened::<Rotational>(&["rotational=false"], &memory).facts().rotational);
    }
}
