//! Layers: they wrap disks. To add one: a `.rs`, its manual `.md` beside it, and a line in [`FILTERS`].
#![forbid(unsafe_code)]

mod blocksize;
mod blocksize_policy;
mod cache;
mod cacheextents;
mod cbt;
mod checkwrite;
mod common;
mod count;
mod cow;
mod crashlab;
mod ddrescue;
mod delay;
mod error;
mod evil;
mod exitlast;
mod exitwhen;
mod exportname;
mod extentlist;
mod fua;
mod ip;
mod limit;
mod log;
mod map;
mod multi_conn;
mod nocache;
mod noextents;
mod nofilter;
mod noparallel;
mod nozero;
mod offset;
mod openonce;
mod partition;
mod pause;
mod prefetch;
mod protect;
mod rate;
mod readahead;
mod readonly;
mod retry;
mod retry_request;
mod rotational;
mod scan;
mod spinning;
mod stats;
mod swab;
mod time_limit;
mod tls_fallback;
mod trace;
mod truncate;
mod xor;

use disk::FilterEntry;

/// Every filter, sorted by name.
pub static FILTERS: &[FilterEntry] = &[
    FilterEntry::of::<blocksize::BlockSize>(),
    FilterEntry::of::<blocksize_policy::BlockSizePolicy>(),
    FilterEntry::of::<cache::CacheFilter>(),
    FilterEntry::of::<cacheextents::CacheExtents>(),
    FilterEntry::of::<cbt::Cbt>(),
    FilterEntry::of::<checkwrite::CheckWrite>(),
    FilterEntry::of::<count::Count>(),
    FilterEntry::of::<cow::Cow>(),
    FilterEntry::of::<crashlab::CrashLab>(),
    FilterEntry::of::<ddrescue::DdRescue>(),
    FilterEntry::of::<delay::Delay>(),
    FilterEntry::of::<error::Error>(),
    FilterEntry::of::<evil::Evil>(),
    FilterEntry::of::<exitlast::ExitLast>(),
    FilterEntry::of::<exitwhen::ExitWhen>(),
    FilterEntry::of::<exportname::ExportName>(),
    FilterEntry::of::<extentlist::ExtentList>(),
    FilterEntry::of::<fua::Fua>(),
    FilterEntry::of::<ip::Ip>(),
    FilterEntry::of::<limit::Limit>(),
    FilterEntry::of::<log::Log>(),
    FilterEntry::of::<map::Map>(),
    FilterEntry::of::<multi_conn::MultiConn>(),
    FilterEntry::of::<nocache::NoCache>(),
    FilterEntry::of::<noextents::NoExtents>(),
    FilterEntry::of::<nofilter::NoFilter>(),
    FilterEntry::of::<noparallel::NoParallel>(),
    FilterEntry::of::<nozero::NoZero>(),
    FilterEntry::of::<offset::Offset>(),
    FilterEntry::of::<openonce::OpenOnce>(),
    FilterEntry::of::<partition::Partition>(),
    FilterEntry::of::<pause::Pause>(),
    FilterEntry::of::<prefetch::Prefetch>(),
    FilterEntry::of::<protect::Protect>(),
    FilterEntry::of::<rate::Rate>(),
    FilterEntry::of::<readahead::ReadAhead>(),
    FilterEntry::of::<readonly::ReadOnly>(),
    FilterEntry::of::<retry::Retry>(),
    FilterEntry::of::<retry_request::RetryRequest>(),
    FilterEntry::of::<rotational::Rotational>(),
    FilterEntry::of::<scan::Scan>(),
    FilterEntry::of::<spinning::Spinning>(),
    FilterEntry::of::<stats::Stats>(),
    FilterEntry::of::<swab::Swab>(),
    FilterEntry::of::<time_limit::TimeLimit>(),
    FilterEntry::of::<tls_fallback::TlsFallback>(),
    FilterEntry::of::<trace::Trace>(),
    FilterEntry::of::<truncate::Truncate>(),
    FilterEntry::of::<xor::Xor>(),
];

/// The filter that people call `name`.
pub fn find(name: &str) -> Option<&'static FilterEntry> {
    FILTERS.iter().find(|filter| filter.about.name == name)
}

/// For the fuzzer: the first letter says which list of a filter the rest is read as. Panics where what was read breaks
/// what the filter relies on.
#[doc(hidden)]
pub fn try_list(text: &str) {
    let Some(kind) = text.chars().next() else { return };
    let rest = &text[kind.len_utf8()..];
    match kind {
        'd' => ddrescue::try_mapfile(rest),
        'e' => extentlist::try_list(rest),
        'i' => ip::try_rules(rest),
        'm' => map::try_moves(rest),
        _ => protect::try_parts(rest),
    }
}

/// For the fuzzer: reads what is said to be the header of a file of `cbt`, as it is and as the body of one whose length and
/// sum are right. Panics when it is written in another way than it was read.
#[doc(hidden)]
pub fn try_cbt_header(bytes: &[u8]) {
    cbt::try_header(bytes);
}

/// For the fuzzer: reads the file of a trace.
#[doc(hidden)]
pub fn try_trace(bytes: &[u8]) {
    trace::try_file(bytes);
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
    fn lists_of_any_words_are_read_or_refused() {
        let words = [
            "0",
            "511",
            "-",
            ":",
            "~",
            "\n",
            " ",
            "+",
            "?",
            "7E",
            "hole",
            "18446744073709551615",
            "::1/128",
            "uid:",
            ",",
        ];
        let mut random = common::testing::Random(1);
        for kind in ["d0 ? 1\n", "e", "i", "m", "p"] {
            for _ in 0..5000 {
                let pick = |_| words[random.below(words.len() as u64) as usize];
                let text: String = (0..12).map(pick).collect();
                try_list(&[kind, &text].concat());
            }
        }
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
