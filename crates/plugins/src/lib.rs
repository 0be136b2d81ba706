//! Data sources: they make disks.
