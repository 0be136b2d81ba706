//! Parameters of filters: names, forms and what they do, beside nbdkit's own. Where ours take more than nbdkit does, or
//! refuse what cannot work, the manuals say so, and it is not here.

use e2e::{Run, both_agree, needs, words};

/// The filters of nbdkit 1.32 that decode no format.
const FILTERS: &str = "blocksize blocksize-policy cache cacheextents checkwrite cow ddrescue delay error exitlast exitwhen \
    exportname extentlist fua ip limit log multi-conn nocache noextents nofilter noparallel nozero offset partition pause \
    protect rate readahead retry retry-request scan stats swab tls-fallback truncate";

/// `--filter=FILTER PLUGIN... PARAMETERS` for each text.
fn agree(filter: &str, parameters: &str, texts: &[&str], plugin: &str, command: &str) {
    let filter = format!("--filter={filter}");
    let line = |text: &str| {
        let mut line = vec![filter.clone()];
        line.extend(plugin.split(' ').map(str::to_owned));
        line.extend(words(&parameters.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>(), text));
        line
    };
    both_agree(texts, line, command);
}

/// As [`agree`], where nothing but acceptance matters.
fn accepted_alike(filter: &str, parameters: &str, texts: &[&str]) {
    agree(filter, parameters, texts, "null 1M", "true");
}

/// A command that runs Python as a client.
fn script(text: &str) -> String {
    format!("nbdsh -u \"$uri\" -c '{text}'")
}

/// What becomes of one request of each kind, given as Python; its answer or the number of its error.
fn requests(requests: &str) -> String {
    script(&format!(
        "import errno
h.set_strict_mode(0)
for request in {requests}.split(\";\"):
  try:
    eval(request); print(request, \"ok\")
  except nbd.Error as e: print(request, e.errno)"
    ))
}

const SIZES: &[&str] = &[
    "0", "1", "2", "3", "512", "513", "4K", "64K", "128K", "1M", "64M", "1G", "3.5K", "", "x", "-1", "1 ",
    "8E",
];
const SWITCHES: &[&str] = &["true", "false", "1", "on", "", "x"];
const FACTS: &str = "for fact in read-only:is rotational:is cache:can flush:can fua:can zero:can trim:can multi-conn:can; \
    do nbdinfo --${fact#*:} ${fact%:*} \"$uri\" 2>&1; echo $fact $?; done";

#[test]
fn every_name_that_nbdkit_lists_is_known() {
    needs!("nbdkit");
    for filter in FILTERS.split_ascii_whitespace() {
        let help = |run: Run| run.args(["--filter", filter, "null", "--help"]).end().good().text();
        let (theirs, ours) = (help(Run::new("nbdkit")), help(Run::diskpipe().arg("serve")));
        let listed =
            theirs.split_once(&format!("filter: {filter} ")).map(|(_, rest)| rest).unwrap_or_default();
        let listed = listed.split("\n\n").next().unwrap_or_default();
        let names = listed.lines().filter_map(|line| line.split_once('=').map(|(name, _)| name.trim()));
        for name in names.filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')) {
            assert!(ours.contains(&format!("{name}=")), "{filter}: {name}\n{ours}");
        }
    }
}

#[test]
fn sizes_of_blocks_are_those_of_nbdkit() {
    const SIZE: &str = "nbdinfo --size \"$uri\"";
    for parameters in ["minblock=TEXT", "maxdata=TEXT", "maxlen=TEXT"] {
        agree("blocksize", parameters, SIZES, "memory 1M", SIZE);
    }
    accepted_alike("blocksize", "minblock=4K maxdata=TEXT", &["4K", "6K", "8K", "2K"]);
    accepted_alike("blocksize-policy", "blocksize-minimum=TEXT", SIZES);
    accepted_alike("blocksize-policy", "blocksize-preferred=TEXT", SIZES);
    accepted_alike("blocksize-policy", "blocksize-maximum=TEXT", SIZES);
    accepted_alike(
        "blocksize-policy",
        "blocksize-minimum=4K blocksize-preferred=TEXT",
        &["512", "4K", "64K"],
    );
    accepted_alike("blocksize-policy", "blocksize-error-policy=TEXT", &["allow", "error", "ERROR", "", "x"]);
    let told = script("print(h.get_block_size(0), h.get_block_size(1))");
    let three = "blocksize-minimum=TEXT blocksize-preferred=64K blocksize-maximum=1M";
    agree("blocksize-policy", three, &["0", "1", "512", "4K", "64K"], "memory 1M", &told);
    let held = requests(
        "\"h.pread(512,0);h.pread(100,0);h.pread(512,100);h.pread(1024,0);h.zero(4096,0);h.trim(512,0)\"",
    );
    let policy =
        "blocksize-minimum=512 blocksize-maximum=512 blocksize-preferred=512 blocksize-error-policy=TEXT";
    agree("blocksize-policy", policy, &["allow", "error"], "memory 1M", &held);
    agree("truncate", "truncate=TEXT", SIZES, "memory 1M", SIZE);
    agree("truncate", "TEXT", &["round-up=4K", "round-down=4K", "round-up=1M"], "memory 1000000", SIZE);
    agree("offset", "offset=TEXT", SIZES, "memory 1M", SIZE);
    agree("offset", "range=TEXT", SIZES, "memory 1M", SIZE);
    agree("offset", "offset=1K range=TEXT", &["1M", "1K", "1047552", "1047553"], "memory 1M", SIZE);
    agree(
        "swab",
        "swab-bits=TEXT",
        &["8", "16", "32", "64", "0", "128", ""],
        "pattern 1M",
        "nbdcopy \"$uri\" - | cksum",
    );
    agree("scan", "scan-size=TEXT", &["0", "1", "512", "513", "64K", "32M", "x"], "memory 1M", SIZE);
}

#[test]
fn overlays_and_caches_take_what_nbdkits_take() {
    accepted_alike("cow", "cow-block-size=TEXT", SIZES);
    accepted_alike("cow", "cow-on-cache=TEXT", SWITCHES);
    let switches = [SWITCHES, &["/no/such/file", "relative"]].concat();
    accepted_alike("cow", "cow-on-read=TEXT", &switches);
    accepted_alike("cache", "cache-on-read=TEXT", &switches);
    accepted_alike("cache", "cache=TEXT", &["writeback", "writethrough", "unsafe", "", "none", "WRITEBACK"]);
    accepted_alike("cache", "cache-min-block-size=TEXT", SIZES);
    accepted_alike("cache", "cache-max-size=TEXT", &["0", "1", "4K", "1M", "7E", "x", ""]);
    let percents = ["0", "1", "50", "79", "80", "81", "95", "100", "-1", "x", "", "010"];
    accepted_alike("cache", "cache-max-size=1M cache-low-threshold=10 cache-high-threshold=TEXT", &percents);
    accepted_alike("cache", "cache-max-size=1M cache-low-threshold=TEXT", &percents);
    let preferred = script("print(h.get_block_size(1))");
    agree("cache", "", &[""], "memory 1M", &preferred);
    agree("cow", "cow-block-size=64K", &[""], "memory 1M", &preferred);
}

#[test]
fn trouble_is_ordered_as_from_nbdkit() {
    let errors = ["EPERM", "EIO", "ENOMEM", "EINVAL", "ENOSPC", "ESHUTDOWN", "EBADF", "eio", "5", ""];
    let kinds =
        ["error", "error-pread", "error-pwrite", "error-trim", "error-zero", "error-extents", "error-cache"];
    for kind in kinds {
        accepted_alike("error", &format!("{kind}=TEXT"), &errors);
        accepted_alike("error", &format!("{kind}-rate=TEXT"), &["0", "1", "50%", "x"]);
        let file = format!("{kind}=ENOSPC {kind}-rate=1 {kind}-file=TEXT");
        let made = requests(
            "\"h.pread(512,0);h.pwrite(bytes(512),0);h.flush();h.trim(512,0);h.zero(512,0);h.cache(512,0)\"",
        );
        agree("error", &file, &["/no/such/file", "/dev/null"], "memory 1M", &made);
    }
    for kind in "rdelay wdelay delay-read delay-write delay-zero delay-trim delay-extents delay-cache delay-open delay-close"
        .split(' ')
    {
        accepted_alike("delay", &format!("{kind}=TEXT"), &["0", "1ms", "x", "", "1h"]);
    }
    accepted_alike("delay", "delay-fast-zero=TEXT", SWITCHES);
    accepted_alike("retry", "retry-exponential=TEXT", SWITCHES);
    accepted_alike("retry", "retry-readonly=TEXT", SWITCHES);
    accepted_alike("retry", "retry-delay=TEXT", &["1", "-1", "", "x", "010"]);
    accepted_alike("retry-request", "retry-request-retries=TEXT", &["0", "1", "1000", "-1", "", "x"]);
    accepted_alike("retry-request", "retry-request-delay=TEXT", &["1", "-1", "", "x", "010"]);
    accepted_alike("retry-request", "retry-request-open=TEXT", SWITCHES);
}

#[test]
fn protected_ranges_are_those_of_nbdkit() {
    let ranges = [
        "0-511",
        "0-",
        "-511",
        "~0-511",
        "512-1023",
        "5-3",
        "1K-2K",
        "1M-",
        "2M-3M",
        "0-1048575",
        "0-1048576",
        "",
        "x",
        "1-2-3",
        "~512-",
        "0-0",
        "7E-",
        "512-511",
        "0 - 511",
        "8E-",
        "5",
        "-",
        "~-",
    ];
    let made = requests(
        "\"h.pwrite(b\\\"x\\\",0);h.pwrite(b\\\"x\\\"*512,1);h.pwrite(b\\\"x\\\",511);h.pwrite(b\\\"x\\\"*512,512);\
         h.pwrite(b\\\"x\\\"*512,1024);h.pwrite(b\\\"x\\\"*512,1048064);h.trim(512,0);h.zero(512,2048)\"",
    );
    agree("protect", "protect=TEXT", &ranges, "memory 1M", &made);
    agree("protect", "protect=0-511 protect=TEXT", &["0-511", "256-1023", "1K-2K"], "memory 1M", &made);
}

#[test]
fn rules_for_clients_are_those_of_nbdkit() {
    let rules = [
        "anyipv4",
        "ipv4",
        "anyipv6",
        "any",
        "all",
        "All",
        "ANY",
        "anyunix",
        "unix",
        "UNIX",
        "anyvsock",
        "pid:1",
        "uid:0",
        "uid:1",
        "gid:0",
        "gid:99",
        "uid:root",
        "1.2.3.4/33",
        "1.2.3.4/-1",
        "300.1.1.1",
        "1.2.3.4/",
        "1.2.3",
        "localhost",
        "",
        "vsock-cid:2",
        "vsock-port:3",
        "vsock-cid:x",
        "pid:x",
        "pid:",
        "anyunix,anyvsock",
        "anyunix,",
        "a,b",
        "::1/129",
        "unix:x",
        " anyunix",
        "anyunix ",
    ];
    for parameters in ["allow=TEXT", "deny=TEXT", "allow=TEXT deny=all", "allow=anyunix deny=TEXT"] {
        agree("ip", parameters, &rules, "null 1M", "nbdinfo --size \"$uri\"");
    }
    accepted_alike("limit", "limit=TEXT", &["0", "1", "2", "-1", "", "x", "010", "4294967296"]);
    for switch in ["exportname-strict", "multi-conn-exportname", "scan-ahead", "scan-clock", "scan-forever"] {
        let filter =
            ["exportname", "multi-conn", "scan"].into_iter().find(|filter| switch.starts_with(filter));
        accepted_alike(filter.unwrap(), &format!("{switch}=TEXT"), SWITCHES);
    }
    let list = "nbdinfo --list --json \"$uri\" | grep 'export-name\\|descr'";
    let modes = ["keep", "error", "empty", "defaultonly", "explicit", "x", ""];
    agree(
        "exportname",
        "exportname-list=TEXT exportname=a exportname=b default-export=a",
        &modes,
        "memory 1M",
        list,
    );
    let descriptions =
        ["keep", "none", "fixed:hello", "fixed:", "script:printf %s-%s $name $name", "script:false", "x"];
    let line =
        |text: &str| words(&["--filter=exportname", "info", "mode=exportname", "exportdesc=TEXT"], text);
    both_agree(&descriptions, line, list);
    let each = "for name in '' a b c; do nbdinfo --size \"nbd+unix:///$name?socket=$unixsocket\" 2>&1 | grep -o '^[0-9]*$'; echo $name; done";
    for strict in ["true", "false"] {
        agree(
            "exportname",
            &format!("exportname-strict={strict} exportname=a exportname=TEXT"),
            &["b", "c"],
            "memory 1M",
            each,
        );
    }
}

#[test]
fn what_clients_are_offered_is_what_nbdkit_offers() {
    for (filter, name, values) in [
        ("nozero", "zeromode", &["none", "emulate", "notrim", "plugin", "x", ""][..]),
        ("nozero", "fastzeromode", &["default", "none", "slow", "ignore", "x", ""]),
        ("nocache", "cachemode", &["none", "emulate", "nop", "nocache", "x", ""]),
        ("noparallel", "serialize", &["requests", "all-requests", "all_requests", "connections", "x", ""]),
        ("fua", "fuamode", &["emulate", "native", "force", "pass", "discard", "x", ""]),
        ("multi-conn", "multi-conn-mode", &["auto", "emulate", "plugin", "disable", "unsafe", "x", ""]),
        ("multi-conn", "multi-conn-track-dirty", &["conn", "connection", "fast", "off", "x", ""]),
    ] {
        for plugin in ["memory 1M", "null 1M"] {
            agree(filter, &format!("{name}=TEXT"), values, plugin, FACTS);
        }
    }
    for filter in
        ["noextents", "nofilter", "readahead", "cacheextents", "noparallel", "checkwrite", "exitwhen"]
    {
        let command = format!("{FACTS}; nbdinfo --map \"$uri\"");
        agree(filter, "", &[""], "null 1M", &command);
    }
}

#[test]
fn lists_of_extents_and_of_bad_parts_are_read_as_nbdkit_does() {
    let dir = e2e::directory();
    let file = |name: String, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let extents = [
        "0 4K\n8K 4K hole\n64K 64K zero\n128K 64K hole,zero\n",
        "0 1M",
        "0\n",
        "4K\n",
        "0 4K zero,hole\n",
        "0 8K\n4K 8K hole\n",
        "0x1000 0x1000 zero\n",
        "1M 1M\n",
        "  0   4K   hole  \n",
        "0\t4K\thole\n",
        "4K 4K 0\n0 4K 1\n8K 4K 2\n12K 4K 3\n",
        "-1 4K\n",
        "0 4K data\n4K 4K hole\n",
        "",
    ];
    for (number, text) in extents.into_iter().enumerate() {
        let list = file(format!("extents{number}"), text);
        agree("extentlist", &format!("extentlist={list}"), &[""], "memory 1M", "nbdinfo --map \"$uri\"");
    }
    let maps = [
        "# c\n0x0 + 1\n0x0 0x80000 +\n0x80000 0x1000 -\n0x81000 0x7f000 +\n",
        "0 +\n0 0x80000 +\n0x80000 0x80000 ?\n",
        "0 + 1\n0 524288 +\n524288 524288 *\n",
        "0 + 1\n0 0x1000 +\n0x2000 0x1000 +\n",
        "0 + 1\n0 0x80000 /\n0x80000 0x80000 +\n",
        "0 + 1\n0 0100000 +\n",
        "0 + 1\n0 0x200000 +\n",
        "0\t+\t1\n0\t0x100000\t+\n",
        "0 + 1\n0 0x100000 + # x\n",
        "  0   +  1\n  0  0x100000   +\n",
        "0 + 1\n",
    ];
    let read = requests(
        "\"h.pread(512,0);h.pread(512,0x40000);h.pread(512,0x7fe00);h.pread(512,0x80000);h.pread(512,0xff000)\"",
    );
    for (number, text) in maps.into_iter().enumerate() {
        let map = file(format!("map{number}"), text);
        agree("ddrescue", &format!("ddrescue-mapfile={map}"), &[""], "pattern 1M", &read);
    }
}

#[test]
fn the_end_and_the_rate_are_ordered_as_from_nbdkit() {
    for event in ["exit-when-file-created", "exit-when-file-deleted"] {
        accepted_alike("exitwhen", &format!("{event}=TEXT"), &["/no/such/file", "", "relative"]);
    }
    accepted_alike("exitwhen", "exit-when-process-exits=TEXT", &["1", "x", "", "-1", "0"]);
    accepted_alike("exitwhen", "exit-when-poll=TEXT", &["0", "1", "60", "-1", "", "x"]);
    accepted_alike("exitwhen", "exit-when-script=TEXT", &["true", "false"]);
    accepted_alike("rate", "rate=TEXT", &["1M", "0", "", "x", "7E"]);
    accepted_alike("rate", "connection-rate=TEXT", &["1M", "0", "", "x"]);
    accepted_alike("rate", "rate-file=TEXT", &["/no/such/file", "relative"]);
    accepted_alike("rate", "burstiness=TEXT", &["1", "2.5", "0", "x"]);
    accepted_alike("log", "logfile=TEXT", &["/dev/null", "", "/no/such/directory/log"]);
    accepted_alike("stats", "statsfile=TEXT", &["/dev/null", "", "/no/such/directory/stats"]);
    accepted_alike("stats", "", &[""]);
    accepted_alike("partition", "partition=TEXT", &["0", "1", "5", "128", "-1", "", "x"]);
    // After its last client nobody comes in, and a command that goes on is not kept waiting.
    // (nbdkit's waiting half keeps the socket open: who comes just then is neither served nor sent away.)
    let twice =
        "nbdinfo --size \"$uri\"; while timeout 10 nbdinfo \"$uri\" >/dev/null 2>&1; do :; done; echo gone";
    agree("exitlast", "", &[""], "memory 1M", twice);
}
