//! Disks written on the command line: the peer whose language it is must read the same disk from the same program.

use e2e::{Run, directory, needs};
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// What a server makes of a program: the disk's size and bytes, or nothing where it refuses.
type Made = Option<(u64, Vec<u8>)>;

fn peers(program: &str, directory: &Path) -> Made {
    // The peer may crash when a client leaves.
    let mut attempts = (0..20).map(|_| made(Run::new("nbdkit").words("-U - data"), program, directory));
    attempts.find_map(Result::ok).unwrap_or_else(|| panic!("{program}: the peer always crashes"))
}

fn ours(program: &str, directory: &Path) -> Made {
    made(Run::diskpipe().words("serve -U - data"), program, directory)
        .unwrap_or_else(|e| panic!("{program}: {e}"))
}

/// The error is what was said by a server that neither served nor refused.
fn made(server: Run, program: &str, directory: &Path) -> Result<Made, String> {
    // Disks beyond a few megabytes are known by their size alone. (Through `cat`: nbdcopy would write over a file.)
    let look = r#"size=$(nbdinfo --size "$uri") && echo "$size" &&
                  if [ "$size" -le 4000000 ]; then nbdcopy "$uri" - | cat; fi"#;
    let data = format!("data={program}");
    let server = server.env("pat", "0x55 0xAA").env("nest", "( $pat )*2").arg(data).args(["--run", look]);
    let ended = server.in_directory(directory).end();
    if !ended.status.success() {
        let refused = ended.stderr.contains("error: ");
        return if refused { Ok(None) } else { Err(ended.stderr) };
    }
    let line = ended.stdout.iter().position(|b| *b == b'\n').ok_or("no size")?;
    let size = std::str::from_utf8(&ended.stdout[..line]).ok().and_then(|size| size.parse().ok());
    Ok(Some((size.ok_or("no size")?, ended.stdout[line + 1..].to_vec())))
}

/// Every form of the language, and what is not of it.
const PROGRAMS: &[&str] = &[
    "",
    "0 1 2 3 @0x1fe 0x55 0xaa",
    "0x1f 017 255",
    "256",
    "-1",
    "1a",
    "1 2,",
    "\"a\\n\\t\\\\\\\"\\x41\\a\\b\\f\\v\\r\\q\"",
    "\"\\x4\"",
    "\"unterminated",
    "\"a\nb é\"",
    "@5",
    "1 @5 2 @3 9",
    "1 2 3 @-2 9",
    "@-1 1",
    "1 @+3 1 @^8",
    "1 @^8 2 @^8 @-2 3",
    "@^3 1",
    "@ 5",
    "@x",
    "1*3",
    "1 * 3 2 *2",
    "(1 2)*1000",
    "(1 2 @7)*3",
    "()*3 ( ) 1*0",
    "1*-1",
    "1*",
    "*3",
    "( 1 2",
    "1 2 )",
    "(1 2 3)[1:2] (1 2 3)[:2] (1 2 3)[1:] (1 2 3)[:] (1 2 3)[1:1]",
    "(1 2 3)[2:1]",
    "(1 2 3)[0:5]",
    "(1 2 3)[5:6]",
    "(1 2 3)[-1:2]",
    "(1 2 3)[:-1]",
    "(1 2 3)[1]",
    "\"hello\"[1:3]*2 \"hello\"*2[1:3]",
    "(1 @5)[2:3] (@4 1)[2:]",
    "<f",
    "<f*2 1 <f[1:] <f[:1] <f[1:9] <f[5:6]",
    "(<f) <f @^4 <f",
    "<nofile",
    "< f",
    "<f,",
    "</dev/zero[2:4] <empty",
    "<(echo hi) <(printf \"(%s)\" a)",
    "<(yes)[:5] <( printf a )*3 <(echo abc)[1:2] <(echo abc)[:9]",
    "<(echo abc)[1:9]",
    "<(exit 3)",
    "<(printf ab; exit 3)",
    "<(echo hi",
    "1 -> \\a \\a \\a*2",
    "(1 2)->\\a-b_C9 \\a-b_C9",
    "1 -> \\a 2 -> \\a \\a",
    "1 -> \\a ( 2 -> \\a \\a ) \\a",
    "1 -> \\a ( \\a ) -> \\b 2 -> \\a \\b",
    "1 -> \\a*2",
    "1 -> \\a -> \\b \\b",
    "( \\x ) -> \\f 1 -> \\x \\f",
    "( 1 -> \\a \\a ) \\a",
    "\\a",
    "1 -> a",
    "->\\a",
    "$pat $pat*2 $nest[1:] $pat$pat",
    "$nope",
    "${pat}",
    "le16:1 be16:1 le32:0x01020304 be64:1 le64:0xffffffffffffffff be32:017",
    "le16:65536",
    "le16:-1",
    "le8:1",
    "LE16:1",
    "# nothing",
    "1 # c ( \"\n2",
    "1 2 3 @0 (@1 9)",
    "( @5 @0 1 ) 2",
    "@512 (@4 1) (1 @+3)*2",
    "@1 1 @0 2",
    "@5*2",
    "@5[0:1]",
    "@5 -> \\a",
    "@9223372036854775807",
    "@9223372036854775806 1",
    "@9223372036854775807 1",
    "@32768 1 @100000 2 0*100000 (1 @+40000)*3",
    "(0x55 0xAA)*1000000",
    "( ( 1*3 2 )*3 @^16 \"x\" )*5 @-7 \"over\"",
];

#[test]
fn every_form_makes_the_peers_disk_or_is_refused_as_there() {
    needs!("nbdkit", "nbdcopy", "nbdinfo");
    let dir = directory();
    fs::write(dir.path().join("f"), "abc").unwrap();
    fs::write(dir.path().join("empty"), "").unwrap();
    for program in PROGRAMS {
        let (ours, theirs) = (ours(program, dir.path()), peers(program, dir.path()));
        assert!(ours == theirs, "{program}\nours {:?}\ntheirs {:?}", start(&ours), start(&theirs));
    }
}

fn start(made: &Made) -> Option<(u64, String)> {
    made.as_ref().map(|(size, bytes)| (*size, format!("{:?}", &bytes[..bytes.len().min(64)])))
}

/// A random program that both accept.
struct Author {
    dice: u64,
    program: String,
}

impl Author {
    fn roll(&mut self, below: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.dice >> 33) % below
    }

    fn list(&mut self, depth: u64) {
        for _ in 0..=self.roll(4) {
            let n = self.roll(300);
            let step = match self.roll(9) {
                0 => format!(" @{n}"),
                1 => format!(" @+{n}"),
                2 => format!(" @^{}", 1 << (n % 9)),
                _ => String::new(),
            };
            self.program.push_str(&step);
            self.expression(depth);
        }
    }

    fn expression(&mut self, depth: u64) {
        let n = self.roll(256);
        let _ = match self.roll(if depth == 0 { 6 } else { 9 }) {
            0 | 1 => write!(self.program, " {n}"),
            2 => write!(self.program, " \"{}\"", "text".repeat(n as usize % 5)),
            3 => write!(self.program, " be32:{}", n * 7919),
            4 => write!(self.program, " $pat"),
            5 => write!(self.program, " <f"),
            _ => {
                self.program.push_str(" (");
                self.list(depth - 1);
                write!(self.program, " )")
            }
        };
        // The peer takes the rest of a word for the number.
        let is_word = self.program.rsplit(' ').next().is_some_and(|last| last.starts_with("be32:"));
        let _ = match self.roll(if is_word { 1 } else { 6 }) {
            _ if is_word => Ok(()),
            0 => write!(self.program, "*{}", n % 40),
            1 => write!(self.program, "[:]"),
            2 => write!(self.program, " -> \\x{n} \\x{n}"),
            _ => Ok(()),
        };
    }
}

#[test]
fn random_programs_make_the_peers_disk() {
    needs!("nbdkit", "nbdcopy", "nbdinfo");
    let dir = directory();
    fs::write(dir.path().join("f"), "a file's content").unwrap();
    for seed in 0..40 {
        let mut author = Author { dice: seed * 0x9e37_79b9, program: String::new() };
        author.list(3);
        let (ours, theirs) = (ours(&author.program, dir.path()), peers(&author.program, dir.path()));
        assert!(theirs.is_some(), "{}", author.program);
        assert!(ours == theirs, "{}\nours {:?}\ntheirs {:?}", author.program, start(&ours), start(&theirs));
    }
}

#[test]
fn the_optimised_tree_is_the_peers() {
    needs!("nbdkit");
    let dir = directory();
    let tree = |server: Run, program: &str| {
        let server = server.words("-f -v -U - -D data.AST=1 data").arg(format!("data={program}"));
        let said = server.args(["--run", "true"]).in_directory(dir.path()).end().good().stderr;
        let lines = said.lines().filter_map(|line| Some(line.split_once("debug: ")?.1.to_owned()));
        let from = lines.skip_while(|line| !line.starts_with("BEGIN AST")).skip(1);
        from.take_while(|line| line != "END AST").collect::<Vec<_>>()
    };
    fs::write(dir.path().join("f"), "abc").unwrap();
    for program in [
        "",
        "1 2 3",
        "0x31*5",
        "@5 1 @^8 @+3",
        "(1 2)*3 \"abc\"*7",
        "<f*2 <f[1:2] <(echo hi)[:2]",
        "1 -> \\a \\a*2",
        "( 1 <f )*2 3",
        "(1 -> \\a) 2 ()",
        "0 0 0 1*20000 \"aa\" \"b\" \"a\\n\\\"\"",
        "( ( 1 2 @5 ) 3 )",
    ] {
        let ours = tree(Run::diskpipe().arg("serve"), program);
        // "@+3" is "@3" in the peer's tree, which is another thing.
        let ours: Vec<_> = ours.iter().map(|line| line.replace("@+", "@")).collect();
        assert_eq!(ours, tree(Run::new("nbdkit"), program), "{program}");
    }
}

#[test]
fn the_examples_of_the_talks_make_what_they_show() {
    needs!("nbdcopy", "nbdinfo", "hexdump", "bash");
    let run = |program: &str, command: &str| {
        Run::diskpipe().words("serve -U - data").arg(program).args(["--run", command]).text()
    };
    let pattern =
        run(" ( 0x55 0xAA )*2048 ", r#"nbdinfo --size $uri; nbdcopy $uri - | hexdump -C | head -2"#);
    assert_eq!(
        pattern,
        "4096\n00000000  55 aa 55 aa 55 aa 55 aa  55 aa 55 aa 55 aa 55 aa  |U.U.U.U.U.U.U.U.|\n*\n"
    );
    let counted = run(
        " <( while :; do printf \"%04x\" $((i++)); done ) [:2048] ",
        "nbdcopy $uri - | hexdump -C | head -10",
    );
    assert!(
        counted
            .starts_with("00000000  30 30 30 30 30 30 30 31  30 30 30 32 30 30 30 33  |0000000100020003|\n")
    );
    assert_eq!(counted.lines().count(), 10);
    let random = run(
        " </dev/urandom[:512]*16 ",
        "nbdcopy $uri - | split -b512 --filter=md5sum | sort -u | wc -l; nbdinfo --size $uri",
    );
    assert_eq!(random, "1\n8192\n");
    let map = run(" @32768 1 ", r#"nbdinfo --map "$uri""#);
    let words: Vec<&str> = map.split_whitespace().collect();
    assert_eq!(words.join(" "), "0 32768 3 hole,zero 32768 1 0 data");
}

#[test]
fn what_clients_write_lies_over_the_program() {
    needs!("qemu-io", "nbdcopy");
    let dir = directory();
    let command = r#"qemu-io -f raw -c "write -P 0x5a 40000 100" -c "write -z 0 4096" -c "discard 65536 65536" \
                         -c "read -P 0x5a 40000 100" -c "read -P 0x31 4096 35904" "$uri" > said && nbdcopy "$uri" copy"#;
    let server = Run::diskpipe().words("serve -U - data").arg("0x31*200000").args(["--run", command]);
    server.in_directory(dir.path()).end().good();
    let said = fs::read_to_string(dir.path().join("said")).unwrap();
    assert!(!said.contains("failed"), "{said}");
    let mut expected = vec![0x31; 200_000];
    expected[40_000..40_100].fill(0x5a);
    expected[..4096].fill(0);
    expected[65_536..131_072].fill(0);
    assert!(fs::read(dir.path().join("copy")).unwrap() == expected);
}

#[test]
fn a_terabyte_of_a_pattern_is_served_by_a_small_process() {
    let look = r#"grep VmHWM /proc/$PPID/status"#;
    // The shell's parent is the server.
    let said = Run::diskpipe()
        .words("serve -U - data")
        .arg("( 0x55 0xAA )*1099511627776")
        .args(["--run", look])
        .text();
    let kib: u64 = said.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 64 << 10, "{said}");
}

#[test]
fn mistakes_are_told_with_their_place() {
    let refused = |program: &str| {
        Run::diskpipe().words("serve -U - data").arg(program).args(["--run", "true"]).end().code(1).stderr
    };
    assert!(refused("1 2 ( 3").contains("data: at offset 4, \"( 3\": this ( is never closed"));
    assert!(refused("$loop loop").contains("neither a parameter nor in the environment"));
}
