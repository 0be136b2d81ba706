//! The text of `stats`.

use super::count::{Group, Line, Sum};
use std::{fmt::Write, time::Duration};

/// The whole report; `elapsed` since the server was ready.
pub(super) fn text(sums: &[(Line, Sum)], elapsed: Duration, threshold: u8) -> String {
    let ops: u64 = sums.iter().map(|(_, sum)| sum.ops).sum();
    // Asking for extents or for caching moves nothing.
    let moved = |line| !matches!(line, Line::Extents | Line::Cache);
    let bytes = sums.iter().filter(|(line, _)| moved(*line)).map(|(_, sum)| sum.bytes).sum();
    let mut out = String::new();
    let _ = writeln!(
        out,
        "total: {ops} ops, {}, {}, {}",
        seconds(elapsed),
        size(bytes as f64),
        rate(bytes, elapsed)
    );
    for (line, sum) in sums.iter().filter(|(_, sum)| sum.ops > 0) {
        let _ = writeln!(
            out,
            "{}: {} ops, {}, {}, {} op, {} total",
            line.name(),
            sum.ops,
            seconds(sum.time),
            size(sum.bytes as f64),
            rate(sum.bytes, sum.time),
            rate(sum.bytes, elapsed)
        );
        if threshold > 0 && !sum.groups.is_empty() {
            distribution(&mut out, sum, threshold);
        }
    }
    out
}

/// The sizes, the most frequent first, until the threshold is reached.
fn distribution(out: &mut String, sum: &Sum, threshold: u8) {
    out.push_str("  Request size and alignment breakdown:\n");
    let all = sum.ops;
    let enough = (u128::from(all) * u128::from(threshold) / 100) as u64;
    let mut groups: Vec<&Group> = sum.groups.iter().collect();
    groups.sort_by_key(|group| (std::cmp::Reverse(group.requests()), group.bits));
    let (mut shown, mut bytes) = (0, 0);
    for group in groups {
        if shown >= enough {
            break;
        }
        let requests = group.requests();
        let _ = writeln!(
            out,
            "    {:2} bits: {:4.1}% ({requests} reqs, {} total)",
            group.bits,
            percent(requests, all),
            size(group.bytes as f64)
        );
        alignments(out, group, enough);
        shown += requests;
        bytes += group.bytes;
    }
    if shown < all {
        let rest = size((sum.bytes - bytes) as f64);
        let (requests, share) = (all - shown, percent(all - shown, all));
        let _ = writeln!(out, "    other sizes: {share:4.1}% ({requests} reqs, {rest} total)");
    }
    out.push('\n');
}

/// How many requests of the group are aligned at least so much. An offset of 0 is aligned to everything and so has no
/// line of its own.
fn alignments(out: &mut String, group: &Group, enough: u64) {
    let requests = group.requests();
    let mut less_aligned = 0;
    for (bits, here) in group.aligned[..64].iter().enumerate().filter(|(_, here)| **here > 0) {
        let rest = requests - less_aligned;
        let share = percent(rest, requests);
        if less_aligned > enough {
            let _ = writeln!(out, "         {bits:2}+ bit-aligned: {share:4.1}% ({rest})");
            return;
        }
        let _ = writeln!(out, "         {bits:2} bit aligned: {share:5.1}% ({rest})");
        less_aligned += here;
    }
}

fn percent(part: u64, all: u64) -> f64 {
    100.0 * part as f64 / all as f64
}

fn seconds(time: Duration) -> String {
    format!("{}.{:06} s", time.as_secs(), time.subsec_micros())
}

/// `512 bytes`, `4.00 KiB`, up to GiB.
fn size(bytes: f64) -> String {
    const KIB: f64 = 1024.0;
    match bytes {
        b if b < KIB => format!("{b:.0} bytes"),
        b if b < KIB * KIB => format!("{:.2} KiB", b / KIB),
        b if b < KIB * KIB * KIB => format!("{:.2} MiB", b / KIB / KIB),
        b => format!("{:.2} GiB", b / KIB / KIB / KIB),
    }
}

fn rate(bytes: u64, time: Duration) -> String {
    match time.as_micros() {
        0 if bytes > 0 => "(n/a)/s".to_owned(),
        0 => "0 bytes/s".to_owned(),
        micros => format!("{}/s", size(bytes as f64 * 1e6 / micros as f64)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::count::{Counts, sums};
    use super::*;
    use disk::{
        Range,
        shapes::{Op, OpKind},
    };

    fn add(counts: &Counts, kind: OpKind, start: u64, len: u64, micros: u64) {
        counts.add(Op { kind, range: Range::new(start, len), fua: false }, micros * 1000);
    }

    fn report(counts: &[Counts], elapsed: Duration, threshold: u8) -> String {
        text(&sums(&counts.iter().collect::<Vec<_>>(), 1.0), elapsed, threshold)
    }

    #[test]
    fn the_report_has_the_lines_that_scripts_know() {
        let counts = [Counts::default(), Counts::default()];
        for i in 0..50 {
            add(&counts[i % 2], OpKind::Write, 4096 * i as u64, 4096, 2);
        }
        for i in 0..7 {
            add(&counts[0], OpKind::Write, 512 * i, 512, 2);
        }
        for i in 0..3 {
            add(&counts[0], OpKind::Write, 512 * i, 3892, 2);
        }
        add(&counts[1], OpKind::Zero { may_trim: true, fast: false }, 0, 4 << 30, 1000);
        add(&counts[0], OpKind::Flush, 0, 1 << 40, 3);
        let expected = "\
total: 62 ops, 0.500000 s, 4.00 GiB, 8.00 GiB/s
write: 60 ops, 0.000120 s, 214.90 KiB, 1.71 GiB/s op, 429.80 KiB/s total
  Request size and alignment breakdown:
    12 bits: 83.3% (50 reqs, 200.00 KiB total)
         12 bit aligned: 100.0% (50)
         13 bit aligned:  50.0% (25)
         14 bit aligned:  26.0% (13)
         15 bit aligned:  14.0% (7)
         16 bit aligned:   8.0% (4)
         17 bit aligned:   4.0% (2)
     9 bits: 11.7% (7 reqs, 3.50 KiB total)
          9 bit aligned: 100.0% (7)
         10 bit aligned:  57.1% (4)
         11 bit aligned:  28.6% (2)
    other sizes:  5.0% (3 reqs, 11.40 KiB total)

zero: 1 ops, 0.001000 s, 4.00 GiB, 4000.00 GiB/s op, 8.00 GiB/s total
  Request size and alignment breakdown:
    other sizes: 100.0% (1 reqs, 4.00 GiB total)

flush: 1 ops, 0.000003 s, 0 bytes, 0 bytes/s op, 0 bytes/s total
";
        assert_eq!(report(&counts, Duration::from_millis(500), 95), expected);
    }

    #[test]
    fn a_threshold_decides_how_much_is_shown() {
        let counts = [Counts::default()];
        for at in [8, 4096, 8192, 12288] {
            add(&counts[0], OpKind::Read, at, 4096, 0);
        }
        let half = report(&counts, Duration::from_secs(1), 50);
        assert!(half.contains("          3 bit aligned: 100.0% (4)\n"), "{half}");
        assert!(half.contains("         13+ bit-aligned: 25.0% (1)\n"), "{half}");
        assert!(half.contains("read: 4 ops, 0.000000 s, 16.00 KiB, (n/a)/s op, "), "{half}");
        assert!(!report(&counts, Duration::from_secs(1), 0).contains("breakdown"));
        let nothing = report(&[Counts::default()], Duration::from_micros(1432), 95);
        assert_eq!(nothing, "total: 0 ops, 0.001432 s, 0 bytes, 0 bytes/s\n");
    }

    #[test]
    fn sizes_that_are_equally_frequent_are_all_shown() {
        let counts = [Counts::default()];
        for len in [1024, 3072, 4096] {
            add(&counts[0], OpKind::Read, 0, len, 1);
        }
        let all = report(&counts, Duration::from_secs(1), 100);
        assert_eq!(all.matches("bits: 33.3% (1 reqs").count(), 3, "{all}");
    }
}
