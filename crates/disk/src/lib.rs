//! The one abstraction: Disk, Backend, Data, Io, Error, and the shapes of filters.
