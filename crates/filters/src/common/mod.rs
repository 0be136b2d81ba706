//! What several filters are made of. Nothing here is a filter.

pub(crate) mod control;
pub(crate) mod gate;
pub(crate) mod on_read;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod unsettled;
pub(crate) mod worker;
pub(crate) mod wrap;
