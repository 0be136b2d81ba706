//! Blocks of a disk in a file: what overlays and caches stand on.
//!
//! A [`Blocks`] knows the state of every block of a disk (a tree of atomic words, [`Map`]; no lock is taken to look at one or to
//! change one) and holds the bytes of those that are there, in a [`Medium`]. It is temporary, or a file that outlives
//! the server: then [`Blocks::sync`] makes bytes and states stable, in that order, and whatever ends the process or the
//! machine, the file opens afterwards with all that was synced.
#![forbid(unsafe_code)]

mod blocks;
pub mod chain;
mod changes;
pub mod crash;
pub mod file;
mod format;
mod journal;
mod leaf;
pub mod lock;
mod map;
mod medium;
mod temporary;

pub use blocks::{Blocks, Totals};
pub use format::{Header, Id, Kind, LONGEST, Parent};
pub use leaf::{Claim, LEAF_BLOCKS, Leaf, State};
pub use map::{Map, Spot};
pub use medium::Medium;
pub use temporary::Store;

#[cfg(test)]
mod tests;
