//! Values of parameters: every form that nbdkit's own parsers take or refuse, ours take or refuse, and mean the same by.

use e2e::{Run, both_agree, words};

const NUMBERS: &[&str] = &[
    "0",
    "1",
    "010",
    "08",
    "0x1f",
    "0X1F",
    "0x",
    "-1",
    "-0",
    "+1",
    "++1",
    " 1",
    "1 ",
    "\t1",
    "",
    "x",
    "1k",
    "1.0",
    "255",
    "256",
    "0xff",
    "0x100",
    "0377",
    "0400",
    "4294967295",
    "4294967296",
    "0xffffffff",
    "0x100000000",
    "037777777777",
    "040000000000",
    "18446744073709551615",
    "99999999999999999999999",
    "-4294967295",
    "0b1",
    "0o7",
    "1e3",
    " -1",
    "- 1",
    "+ 1",
    "0x-1",
    "-0x1",
    "+0x1",
];

#[test]
fn sizes_are_those_of_nbdkit() {
    let sizes = [
        "0",
        "1",
        "010",
        "0x10",
        " 7",
        "\t7",
        "\n7",
        "+5",
        "-5",
        "-0",
        "+0",
        " +5",
        " -5",
        "3b",
        "1B",
        "2s",
        "1S",
        "1k",
        "1K",
        "2m",
        "1G",
        "1T",
        "1p",
        "7E",
        "8E",
        "9223372036854775807",
        "9223372036854775808",
        "",
        "k",
        "9Q",
        "1kib",
        "1KB",
        "1.5K",
        "1 ",
        "1 k",
        "++1",
        "abc",
        "1KK",
        "18446744073709551616",
        "16E",
        "8191P",
        "8192P",
        "1e3",
        "0x",
        "1_000",
        "\u{663}",
        "1\u{a0}",
    ];
    both_agree(&sizes, |text| words(&["memory", "size=TEXT"], text), "nbdinfo --size \"$uri\"");
}

#[test]
fn switches_are_those_of_nbdkit() {
    let switches = [
        "0", "1", "2", "true", "TRUE", "True", "false", "t", "f", "T", "F", "y", "n", "yes", "no", "YES",
        "No", "on", "off", "ON", "Off", "", "enable", "disable", " on", "on ", "00", "01", "+1", "truth",
        "o", "of", "ye", "tr",
    ];
    let log = ["--filter=log", "logfile=/dev/null", "logappend=TEXT", "null"];
    both_agree(&switches, |text| words(&log, text), "true");
}

#[test]
fn numbers_are_those_of_nbdkit() {
    both_agree(NUMBERS, |text| words(&["--filter=retry", "retries=TEXT", "null"], text), "true");
}

#[test]
fn small_numbers_are_those_of_nbdkit() {
    let dir = e2e::directory();
    let part = dir.path().join("part");
    std::fs::write(&part, vec![0; 1 << 20]).unwrap();
    let part = part.display().to_string();
    both_agree(NUMBERS, |text| words(&["partitioning", &part, "mbr-id=TEXT"], text), "true");
}

#[test]
fn probabilities_are_those_of_nbdkit() {
    let chances = [
        "0", "1", "0.1", ".5", "5.", "1e-3", "1E-3", "10%", "100%", "101%", "1.5", "-1", "-1%", "1:10",
        "0:1", "0:0", "1:0", "2:1", "1:2:3", ":10", "1:", "", "x", "1 ", " 1", "nan", "inf", "%", "1:10%",
        "10 %", "+1", "-0", "1e400", "1e-400", "-0%", ".", "0.5:1", "1 :2", "1: 2", "0%", "1:-1", "-1:-1",
        "1:1e400", "NaN", "INF", "infinity",
    ];
    both_agree(&chances, |text| words(&["--filter=error", "error-rate=TEXT", "null"], text), "true");
}

/// Forms that releases of nbdkit after the one that is installed here take, as their manuals have them.
#[test]
fn forms_of_newer_releases_are_taken() {
    for rate in ["1/10", "1e-1", "10%", "1:10", "0.1"] {
        Run::serve(&format!("--filter=error null error-rate={rate}"), "true").end().good();
    }
    for delay in ["1.2", "1.2s", "1.2ms", "120ms", "1.2us", "1.2\u{3bc}s", "120\u{3bc}s", "1ns"] {
        Run::serve(&format!("--filter=delay null delay-open={delay}"), "true").end().good();
    }
}

#[test]
fn times_are_those_of_nbdkit() {
    let times = [
        "0",
        "1",
        "010",
        "0x1",
        "1ms",
        "1.5",
        "1.5s",
        "1s",
        "1us",
        "1ns",
        "1\u{3bc}s",
        "",
        "abc",
        "1m",
        "5ss",
        "1 s",
        "ms",
        "-1",
        "-1ms",
        "99999999999",
        "4294967295",
        "4294967296",
        "+1",
        "+1ms",
        " 1ms",
        "1e1ms",
        "0x1ms",
        "010ms",
        "1ms ",
        "1sec",
        "1h",
    ];
    both_agree(&times, |text| words(&["--filter=delay", "rdelay=TEXT", "null"], text), "true");
}

/// Which argument is a value without its key, and which is not.
#[test]
fn bare_arguments_are_those_of_nbdkit() {
    let typed = [
        "1M",
        "1M|2M",
        "size=1M|2M",
        "1M|size=2M",
        "x",
        "a=b",
        "=1M",
        "1M|a=b",
        "./a=b",
        "9a=b",
        "size=",
        "SIZE=1M",
        "siz=1M",
        "1M|allocator=sparse",
        "_a=1",
        "a-b=1",
        "a_b=1",
        "a.b=1",
        "\u{e9}=1",
    ];
    let memory = |text: &str| -> Vec<String> {
        std::iter::once("memory").chain(text.split('|')).map(str::to_owned).collect()
    };
    both_agree(&typed, memory, "nbdinfo --size \"$uri\"");
}

#[test]
fn an_error_names_key_value_and_what_was_expected_and_a_slip_its_key() {
    for (arguments, sentence) in [
        ("memory siez=1M", "siez"),
        ("memory size=9Q", "size=9Q: not a size such as 512, 64K or 1M"),
        ("--filter=delay null rdelay=soon", "rdelay=soon: not a time such as 2, 1.5s or 50ms"),
        ("--filter=retry null retries=many", "retries=many: not a whole number such as 10, 0xa or 012"),
        (
            "--filter=error null error-rate=often",
            "error-rate=often: not a probability such as 0.1, 10% or 1:10",
        ),
    ] {
        let error = Run::serve(arguments, "true").end().code(1).stderr;
        assert!(error.contains(sentence), "{error}");
    }
    let error = Run::serve("memory siez=1M", "true").end().code(1).stderr;
    assert!(error.contains("unknown parameter 'siez': did you mean size= of memory?"), "{error}");
}
