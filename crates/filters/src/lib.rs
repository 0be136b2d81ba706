//! Layers: they wrap disks.
