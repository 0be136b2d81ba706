//! The report of `stats` for programs.

use super::count::{Group, Line, Sum};
use std::{fmt::Write, time::Duration};

/// One object in one line. Only numbers and names of ours are in it, so that nothing need be escaped.
pub(super) fn text(sums: &[(Line, Sum)], elapsed: Duration) -> String {
    let mut out = format!("{{\"elapsed_seconds\":{:.6}", elapsed.as_secs_f64());
    for (line, sum) in sums {
        let (name, ops, bytes, seconds) = (line.name(), sum.ops, sum.bytes, sum.time.as_secs_f64());
        let sizes: Vec<String> = sum.groups.iter().map(group).collect();
        let _ = write!(
            out,
            ",\"{name}\":{{\"ops\":{ops},\"bytes\":{bytes},\"seconds\":{seconds:.6},\"sizes\":[{}]}}",
            sizes.join(",")
        );
    }
    out.push_str("}\n");
    out
}

/// `aligned` has the number of requests for each number of zero bits at the end of the offset; offset 0 counts as 64.
fn group(group: &Group) -> String {
    let aligned: Vec<String> = group
        .aligned
        .iter()
        .enumerate()
        .filter(|(_, requests)| **requests > 0)
        .map(|(bits, requests)| format!("\"{bits}\":{requests}"))
        .collect();
    let (bits, requests, bytes) = (group.bits, group.requests(), group.bytes);
    format!(
        "{{\"bits\":{bits},\"requests\":{requests},\"bytes\":{bytes},\"aligned\":{{{}}}}}",
        aligned.join(",")
    )
}

#[cfg(test)]
mod tests {
    use super::super::count::{Counts, sums};
    use super::*;
    use disk::{
        Range,
        shapes::{Op, OpKind},
    };

    #[test]
    fn every_kind_of_request_is_there_with_its_sizes() {
        let counts = [Counts::default(), Counts::default()];
        let op = |kind, start, len| Op { kind, range: Range::new(start, len), fua: false };
        counts[0].add(op(OpKind::Read, 0, 4096), 1000);
        counts[1].add(op(OpKind::Read, 512, 4096), 1000);
        let text = text(&sums(&[&counts[0], &counts[1]], 5.0), Duration::from_millis(1500));
        let read = "\"read\":{\"ops\":2,\"bytes\":8192,\"seconds\":0.000010,\"sizes\":[{\"bits\":12,\"requests\":2,\
            \"bytes\":8192,\"aligned\":{\"9\":1,\"64\":1}}]}";
        assert!(
            text.starts_with(&format!("{{\"elapsed_seconds\":1.500000,{read},\"write\":{{\"ops\":0,")),
            "{text}"
        );
        assert!(
            text.ends_with("\"flush\":{\"ops\":0,\"bytes\":0,\"seconds\":0.000000,\"sizes\":[]}}\n"),
            "{text}"
        );
    }
}
