//! The shapes that most filters have, so that they need no code per operation.

pub mod again;
pub mod around;
pub mod window;

use crate::Range;

/// A request, as filters see it that treat all alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// What is asked.
    pub kind: OpKind,
    /// On which bytes; the whole disk for a flush.
    pub range: Range,
    /// Stable when answered.
    pub fua: bool,
}

/// What a request asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OpKind {
    /// Read bytes.
    Read,
    /// Write bytes.
    Write,
    /// Make bytes zero.
    Zero {
        /// May leave a hole.
        may_trim: bool,
        /// Fail rather than be slow.
        fast: bool,
    },
    /// Give bytes up.
    Trim,
    /// Make writes stable.
    Flush,
    /// Bring bytes nearer.
    Cache,
    /// What bytes hold, or what a metadata context says of them.
    Extents,
}

impl Op {
    pub(crate) fn new(kind: OpKind, range: Range) -> Op {
        Op { kind, range, fua: false }
    }
    pub(crate) fn fua(self, fua: bool) -> Op {
        Op { fua, ..self }
    }
}
