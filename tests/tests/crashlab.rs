//! Power cuts: the filter `crashlab`, with file systems that survive them and a program that does not.

use e2e::{Run, directory, needs};
use std::fs;

/// Runs `$1` with every listed state as the file `state`; prints those for which it fails.
const EACH: &str = r#"
tried=0
for name in $(diskpipe info --list --json "$uri" | grep -o 'crash/[0-9./]*' | sort -u); do
    diskpipe copy "nbd+unix:///$name?socket=$unixsocket" state || exit 9
    sh ./check >check.log 2>&1 || { echo "$name"; cat check.log >&2; }
    tried=$((tried + 1))
done
echo "tried $tried"
"#;

#[test]
fn a_file_system_in_use_is_mended_after_every_power_cut() {
    needs!("mke2fs", "debugfs", "e2fsck");
    let dir = directory();
    fs::write(dir.path().join("each"), EACH).unwrap();
    fs::write(dir.path().join("check"), "e2fsck -fy state; [ $? -le 1 ] && e2fsck -fn state").unwrap();
    // Used by hand: the file system of each moment goes over the one before, without an order among the writes.
    let made = Run::new("mke2fs").words("-q -t ext4 -b 1024 disk 2M").in_directory(dir.path()).end();
    made.good();
    fs::copy(dir.path().join("disk"), dir.path().join("image")).unwrap();
    let use_it = "export uri unixsocket; head -c 100000 /dev/urandom >content \
        && for n in 1 2 3; do printf 'mkdir d%s\\nwrite content d%s/file\\n' $n $n >do \
        && debugfs -w -f do image >/dev/null 2>&1 && diskpipe copy --flush image \"$uri\"; done \
        && printf 'rm d1/file\\n' >do && debugfs -w -f do image >/dev/null 2>&1 && diskpipe copy image \"$uri\" \
        && sh ./each";
    let run = Run::serve("--filter=crashlab file disk crashlab-states=8", use_it);
    let text = run.in_directory(dir.path()).seconds(240).text();
    let tried = text.trim().strip_prefix("tried ").unwrap_or_else(|| panic!("beyond repair: {text}"));
    // Four epochs, and all eight states of most.
    assert!(tried.parse::<u32>().unwrap() >= 24, "{tried}");
}

#[test]
fn a_program_that_forgets_to_flush_is_found_out_and_one_that_does_not_is_not() {
    needs!("nbdsh");
    let dir = directory();
    fs::write(dir.path().join("each"), EACH).unwrap();
    // A record of three blocks, and behind them the mark that says that it is whole.
    fs::write(
        dir.path().join("check"),
        "test \"$(tail -c +8193 state | head -c 4)\" != mark || test \"$(head -c 8192 state | tr -d x | wc -c)\" = 0",
    )
    .unwrap();
    let bad_states = |flush: &str| -> Vec<String> {
        let write =
            format!("nbdsh -u \"$uri\" -c 'h.pwrite(b\"x\" * 8192, 0); {flush}h.pwrite(b\"mark\", 8192)'");
        let run = Run::serve(
            "--filter=crashlab memory 16K",
            &format!("export uri unixsocket; {write} && sh ./each"),
        );
        let text = run.in_directory(dir.path()).text();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        assert!(lines.last().is_some_and(|last| last.starts_with("tried ")), "{text}");
        lines[..lines.len() - 1].to_vec()
    };
    assert!(!bad_states("").is_empty());
    assert_eq!(bad_states("h.flush(); "), [""; 0]);
}
