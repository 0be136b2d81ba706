//! What lies on a disk: partition tables, and the file systems ext2, ext3, ext4, FAT and ISO 9660, for reading.
//!
//! A [`Source`] is a disk or a part of it, behind a small cache. [`partitions::read`] finds its partitions, [`open`] the
//! file system on it, and [`path::resolve`] a file there. Only what is needed is read. Everything on the disk is taken
//! for hostile: what makes no sense is an error, and neither time nor memory go beyond what the disk's size warrants.
#![forbid(unsafe_code)]

mod bytes;
pub mod calendar;
pub mod content;
mod ext;
mod fat;
mod file_system;
mod guid;
mod iso;
pub mod partitions;
pub mod path;
mod sniff;
mod source;

pub use file_system::{About, Entry, File, FileSystem, Kind, Place, Run, Time};
pub use guid::Guid;
pub use sniff::{Sniffed, open, sniff};
pub use source::Source;
