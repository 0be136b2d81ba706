//! Layers: they wrap disks. To add one: a `.rs`, its manual `.md` beside it, and a line in [`FILTERS`].
#![forbid(unsafe_code)]

mod blocksize;
mod cow;
mod delay;
mod error;
mod fua;
mod log;
mod nocache;
mod noextents;
mod noparallel;
mod nozero;
mod offset;
mod rate;
mod stats;
#[cfg(test)]
mod testing;
mod truncate;

use disk::FilterEntry;

/// Every filter, sorted by name.
pub static FILTERS: &[FilterEntry] = &[
    FilterEntry::of::<blocksize::BlockSize>(),
    FilterEntry::of::<cow::Cow>(),
    FilterEntry::of::<delay::Delay>(),
    FilterEntry::of::<error::Error>(),
    FilterEntry::of::<fua::Fua>(),
    FilterEntry::of::<log::Log>(),
    FilterEntry::of::<nocache::NoCache>(),
    FilterEntry::of::<noextents::NoExtents>(),
    FilterEntry::of::<noparallel::NoParallel>(),
    FilterEntry::of::<nozero::NoZero>(),
    FilterEntry::of::<offset::Offset>(),
    FilterEntry::of::<rate::Rate>(),
    FilterEntry::of::<stats::Stats>(),
    FilterEntry::of::<truncate::Truncate>(),
];

/// The filter that people call `name`.
pub fn find(name: &str) -> Option<&'static FilterEntry> {
    FILTERS.iter().find(|filter| filter.about.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_every_filter_is_found_by_its_name() {
        assert!(FILTERS.is_sorted_by(|a, b| a.about.name < b.about.name));
        for filter in FILTERS {
            assert_eq!(find(filter.about.name).unwrap().about.summary, filter.about.summary);
        }
        assert!(find("no-such-filter").is_none());
    }

    #[test]
    fn every_filter_has_sound_parameters_and_a_whole_manual() {
        for about in FILTERS.iter().map(|filter| filter.about) {
            assert_eq!(params::table::problems(about.params), [""; 0], "{}", about.name);
            assert!(!about.summary.is_empty(), "{}", about.name);
            for part in ["# NAME", "# SYNOPSIS", "# DESCRIPTION", "# PARAMETERS", "# EXAMPLES", "# SEE ALSO"]
            {
                assert!(about.manual.contains(part), "{}.md has no {part}", about.name);
            }
            let marker = about.manual.contains("<!-- parameters -->");
            assert_eq!(marker, !about.params.is_empty(), "{}.md and its table of parameters", about.name);
        }
    }
}
