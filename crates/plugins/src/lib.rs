//! Data sources: they make disks.
//!
//! A plugin is a file here, its manual page beside it, and a line in [`PLUGINS`].
//!
//! Unsafe code lives in `file/device.rs` (two ioctls) and `blkio/queue.rs` (what libblkio's drivers fill in) alone.
#![deny(unsafe_code)]

mod blkio;
mod cdi;
mod common;
mod data;
mod eval;
mod example1;
mod example2;
mod example3;
mod example4;
mod file;
mod floppy;
mod full;
mod info;
mod iso;
mod linuxdisk;
mod memory;
mod nbd;
mod null;
mod ondemand;
mod ones;
mod partitioning;
mod pattern;
mod random;
mod sh;
mod sparse_random;
mod split;
mod streaming;
mod tmpdisk;
mod zero;

use disk::PluginEntry;

/// Every plugin, sorted by name.
pub static PLUGINS: &[PluginEntry] = &[
    PluginEntry::of::<blkio::Blkio>(),
    PluginEntry::of::<cdi::Cdi>(),
    PluginEntry::of::<data::Data>(),
    PluginEntry::of::<eval::Eval>(),
    PluginEntry::of::<example1::Example1>(),
    PluginEntry::of::<example2::Example2>(),
    PluginEntry::of::<example3::Example3>(),
    PluginEntry::of::<example4::Example4>(),
    PluginEntry::of::<file::File>(),
    PluginEntry::of::<floppy::Floppy>(),
    PluginEntry::of::<full::Full>(),
    PluginEntry::of::<info::Info>(),
    PluginEntry::of::<iso::Iso>(),
    PluginEntry::of::<linuxdisk::LinuxDisk>(),
    PluginEntry::of::<memory::Memory>(),
    PluginEntry::of::<nbd::Nbd>(),
    PluginEntry::of::<null::Null>(),
    PluginEntry::of::<ondemand::OnDemand>(),
    PluginEntry::of::<ones::Ones>(),
    PluginEntry::of::<partitioning::Partitioning>(),
    PluginEntry::of::<pattern::Pattern>(),
    PluginEntry::of::<random::Random>(),
    PluginEntry::of::<sh::Sh>(),
    PluginEntry::of::<sparse_random::SparseRandom>(),
    PluginEntry::of::<split::Split>(),
    PluginEntry::of::<streaming::Streaming>(),
    PluginEntry::of::<tmpdisk::TmpDisk>(),
    PluginEntry::of::<zero::Zero>(),
];

/// The plugin that people call `name`.
pub fn find(name: &str) -> Option<&'static PluginEntry> {
    PLUGINS.iter().find(|plugin| plugin.about.name == name)
}

/// For the fuzzer: reads a program of the plugin data, whose variables all have this value, and evaluates it unless it
/// asks for files or scripts. Panics where two ways to read the disk differ.
#[doc(hidden)]
pub fn try_data_program(program: &str, value: &str) {
    data::try_program(program, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_sorted_and_their_tables_and_manuals_whole() {
        assert!(PLUGINS.is_sorted_by(|a, b| a.about.name < b.about.name));
        for about in PLUGINS.iter().map(|plugin| plugin.about) {
            assert_eq!(params::table::problems(about.params), [""; 0], "{}", about.name);
            for heading in ["NAME", "SYNOPSIS", "DESCRIPTION", "PARAMETERS", "EXAMPLES", "SEE ALSO"] {
                let line = format!("# {heading}");
                assert!(about.manual.lines().any(|l| l == line), "{}: no {line}", about.name);
            }
            assert!(about.manual.contains("<!-- parameters -->"), "{}: no place for the table", about.name);
        }
        assert!(find("memory").is_some() && find("nothing").is_none());
    }
}
