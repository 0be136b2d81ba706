//! Filters with each other: a filter twice, parameters that contradict each other, and orders that cannot work.

use e2e::{Run, directory, needs};

/// What ours say, in a directory of its own, when a client asks for the size; `None`: the client was told a size.
fn refusal(arguments: &str) -> Option<String> {
    let dir = directory();
    let ended = Run::serve(arguments, "nbdinfo --size \"$uri\" >&2").in_directory(dir.path()).end();
    (!ended.status.success()).then_some(ended.stderr)
}

fn refused(arguments: &str, reason: &str) {
    let said = refusal(arguments).unwrap_or_else(|| panic!("{arguments}: was not refused"));
    assert!(said.contains(reason), "{arguments}: {said}");
}

#[test]
fn parameters_that_contradict_each_other_are_refused_with_the_reason() {
    needs!("nbdinfo");
    for (arguments, reason) in [
        (
            "--filter=cow null 1M cow-file=a cow-per-client=.",
            "cow-file= and cow-per-client= cannot be used at the same time",
        ),
        ("--filter=cow null 1M cow-block-size=6K", "cow-block-size=6K"),
        ("--filter=cache null 1M cache-max-size=64K", "less than two blocks of cache-min-block-size=64K"),
        ("--filter=cache null 1M cache-low-threshold=96", "the lower must be above 0 and below the higher"),
        ("--filter=blocksize null 1M minblock=4K maxdata=2K", "maxdata=2K: not a multiple of minblock=4096"),
        (
            "--filter=blocksize-policy null 1M blocksize-minimum=4K blocksize-maximum=6K",
            "blocksize-maximum=6K: not a multiple of blocksize-minimum",
        ),
        (
            "--filter=blocksize-policy null 1M blocksize-preferred=8K blocksize-maximum=4K",
            "blocksize-maximum=4K: less than blocksize-preferred",
        ),
        (
            "--filter=blocksize-policy null 1M blocksize-maximum=4K blocksize-write-disconnect=2K",
            "less than blocksize-maximum",
        ),
        ("--filter=offset null 1M offset=512K range=1M", "offset"),
        ("--filter=rate null 1M burstiness=-1", "a time cannot be negative"),
    ] {
        refused(arguments, reason);
    }
}

#[test]
fn an_order_that_cannot_work_is_refused_and_the_order_that_works_is_told() {
    needs!("nbdinfo");
    // A disk that takes nothing but whole blocks.
    const BLOCKS: &str =
        "--filter=blocksize-policy null 1M blocksize-minimum=4K blocksize-error-policy=error";
    refused(
        &format!("--filter=truncate {BLOCKS} truncate=1000"),
        "or put the filter blocksize behind this one",
    );
    refused(
        &format!("--filter=offset {BLOCKS} offset=512"),
        "no multiple of the disk's minimum block size 4096",
    );
    for filter in ["truncate", "offset"] {
        let between = format!("--filter={filter} --filter=blocksize {BLOCKS} {filter}=1000");
        assert_eq!(refusal(&between), None, "{between}");
    }
    refused(
        "--filter=partition --filter=offset null 1M partition=1 offset=1K",
        "the disk has no partition table",
    );
}

#[test]
fn a_filter_may_be_used_twice_but_not_with_one_file() {
    needs!("nbdinfo");
    for twice in [
        "--filter=cow --filter=cow null 1M cow-file=a cow-file=b",
        "--filter=cow --filter=cow null 1M",
        "--filter=cache --filter=cache null 1M cache-file=a cache-file=b",
        "--filter=cbt --filter=cbt null 1M cbt-file=a cbt-file=b cbt-name=x cbt-name=y",
        "--filter=log --filter=log null 1M logfile=a logfile=b",
        "--filter=stats --filter=stats null 1M statsfile=a statsfile=b",
        "--filter=offset --filter=offset null 1M offset=1K offset=2K",
        "--filter=exitlast --filter=exitlast null 1M",
        "--filter=retry --filter=retry null 1M",
    ] {
        assert_eq!(refusal(twice), None, "{twice}");
    }
    refused(
        "--filter=cow --filter=cow null 1M cow-file=a cow-file=a",
        "a: already used by this server, by the filter cow",
    );
    refused(
        "--filter=cache --filter=cache null 1M cache-file=a cache-file=a",
        "a: already used by this server, by the filter cache",
    );
    refused(
        "--filter=trace --filter=trace null 1M trace-file=a trace-file=a",
        "a: already used by this server, by the filter trace",
    );
    refused("--filter=stats --filter=stats null 1M statsfile=a", "each use needs its own parameters");
}
