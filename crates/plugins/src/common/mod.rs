//! What several plugins are made of. Nothing here is a plugin.

pub(crate) mod content;
pub(crate) mod fresh;
#[cfg(test)]
pub(crate) mod model;
pub(crate) mod one_disk;
pub(crate) mod partition_table;
pub(crate) mod parts;
pub(crate) mod regions;
pub(crate) mod script;
pub(crate) mod tree;
pub(crate) mod uniform;
