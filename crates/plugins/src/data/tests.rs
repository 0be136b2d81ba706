use super::*;
use crate::common::model;
use ::disk::{Data as Bytes, Disk, Kind, Range, WriteFlags, ZeroFlags};
use proptest::prelude::*;
use std::fmt::Write;

fn open(program: &str, more: &[(&str, &str)]) -> ::disk::Result<Arc<dyn Disk>> {
    model::open::<Data>(&[&[("data", program)], more].concat())
}

/// The bytes of a small program.
fn bytes(program: &str) -> Vec<u8> {
    let disk = open(program, &[]).unwrap_or_else(|e| panic!("{program}: {e}"));
    if disk.facts().size == 0 { vec![] } else { model::bytes(&*disk, 0, disk.facts().size) }
}

#[track_caller]
fn refused(program: &str, more: &[(&str, &str)]) -> String {
    match open(program, more) {
        Ok(_) => panic!("{program} is accepted"),
        Err(e) => e.to_string(),
    }
}

#[track_caller]
fn all(cases: &[(&str, &[u8])]) {
    for (program, expected) in cases {
        assert_eq!(bytes(program), *expected, "{program}");
    }
}

#[test]
fn bytes_words_and_strings_are_written_one_behind_the_other() {
    all(&[
        ("", b""),
        ("0 1 2\t0x1f\n017", &[0, 1, 2, 0x1f, 0o17]),
        ("1\"a\"(2)3", b"\x01a\x02\x03"),
        (r#""a\n\t\\\"\x41\101\0\a\b\f\v\r\q\?""#, b"a\n\t\\\"AA\0\x07\x08\x0c\x0b\rq?"),
        ("\"\\x4142 \\1012 \\u00e9\\U0001F980\"", "A42 A2 é🦀".as_bytes()),
        ("\"é\n\"", "é\n".as_bytes()),
        ("le16:0x102 be16:0x102 le32:1 be32:1", &[2, 1, 1, 2, 1, 0, 0, 0, 0, 0, 0, 1]),
        ("be64:0xffffffffffffffff le64:010", b"\xff\xff\xff\xff\xff\xff\xff\xff\x08\0\0\0\0\0\0\0"),
        ("base64:MTIz base64:MQ==*2 (base64:)", b"12311"),
        ("1 # comment ( \" \n 2#\n#", &[1, 2]),
    ]);
}

#[test]
fn offsets_go_forth_and_back_and_groups_have_their_own() {
    all(&[
        ("@3", &[0; 3]),
        ("1 @3 2", &[1, 0, 0, 2]),
        ("@1 1 @0 2", &[2, 1]),
        ("1 2 3 @-2 9", &[1, 9, 3]),
        ("1 @+3 1", &[1, 0, 0, 0, 1]),
        ("1 @^4 2 @^4", &[1, 0, 0, 0, 2, 0, 0, 0]),
        ("1 @^4 @-1 2", &[1, 0, 0, 2]),
        ("@1k @-1K (1)*1k", &[1; 1024]),
        ("@2 (@1 1) 2", &[0, 0, 0, 1, 2]),
        ("(1 2 3 @1) 4", &[1, 2, 3, 4]),
        ("1 2 3 @0 (@1 9)", &[0, 9, 3]),
        ("(@5 @0 1) 2", &[1, 0, 0, 0, 0, 2]),
        ("1 2 3 4 5 @1 9 @3 8 @2 7", &[1, 9, 7, 8, 5]),
        ("\"abcdefgh\" @2 \"XY\" @0 \"Z\" @6 \"W\"", b"ZbXYefWh"),
    ]);
}

#[test]
fn operators_apply_to_the_expression_before_them() {
    all(&[
        ("1 2*3", &[1, 2, 2, 2]),
        ("(1 2) * 3", &[1, 2, 1, 2, 1, 2]),
        ("1*2*2 1*0 ()*9", &[1; 4]),
        ("(1 @+2)*2", &[1, 0, 0, 1, 0, 0]),
        ("(1 2 3)[1:2] (1 2 3)[:2] (1 2 3)[1:] (1 2 3)[3:]", &[2, 1, 2, 2, 3]),
        ("\"hello\"[1:3]*2 \"hello\"*2[4:6]", b"eleloh"),
        ("(1 2 3)[ 0x1 : ] (1 2)[:-1]", &[2, 3, 1, 2]),
        ("(1 @+5 2)[4:7] (1 @5)[2:3]", &[0, 0, 2, 0]),
        ("1 -> \\a \\a \\a", &[1, 1]),
        ("(1 2)->\\a-b_C9 \\a-b_C9 *2 3", &[1, 2, 1, 2, 3]),
        ("1 2 -> \\a 3 -> \\a \\a", &[1, 3]),
        ("1 -> \\a ( 2 -> \\a \\a ) \\a", &[2, 1]),
        ("1 -> \\a ( \\a ) -> \\b 2 -> \\a \\b", &[1]),
        ("1 -> \\a ( \\a \\a ) -> \\a \\a", &[1, 1]),
        ("1 -> \\a*2 -> \\b \\b", &[]),
    ]);
}

#[test]
fn variables_are_programs_of_their_own() {
    let with = |program: &str, more: &[(&str, &str)]| {
        let disk = open(program, more).unwrap();
        model::bytes(&*disk, 0, disk.facts().size)
    };
    assert_eq!(with("$x*2 $y", &[("x", "1 2"), ("y", "$x[1:]")]), [1, 2, 1, 2, 2]);
    assert_eq!(with("1 -> \\z $two", &[("two", "\\z \\z")]), [1, 1]);
    assert_eq!(with("$x", &[("x", "5"), ("x", "6")]), [5]);
    let home = std::env::var("CARGO_PKG_NAME").unwrap();
    assert!(refused("$CARGO_PKG_NAME", &[]).contains(&format!("in $CARGO_PKG_NAME, at offset 0, {home:?}")));
    let scope = refused("$one \\q", &[("one", "1 -> \\q")]);
    assert_eq!(scope, r#"at offset 5, "\\q": \q is not defined here"#);
    assert!(
        refused("$x", &[("x", "1 $y"), ("y", "2 $x")])
            .contains("in $y, at offset 2, \"$x\": the value of $x refers to itself")
    );
    let laughs: Vec<(String, String)> =
        (0..20).map(|n| (format!("v{n}"), format!("$v{0} $v{0}", n + 1))).collect();
    let laughs: Vec<_> = laughs.iter().map(|(k, v)| (k.as_str(), v.as_str())).chain([("v20", "1")]).collect();
    assert!(refused("$v0", &laughs).contains("too often"));
}

#[test]
fn errors_say_where_and_what() {
    for (program, error) in [
        ("256", "at offset 0, \"256\": 256: a byte is 0 to 255"),
        ("1 2a", "at offset 3, \"a\": not an expression"),
        ("08", "at offset 0, \"08\": not octal"),
        ("0x", "at offset 0, \"0x\": a byte must be a number"),
        ("-1", "at offset 0"),
        ("1 2 )", "at offset 4, \")\": this ) closes no ("),
        ("1 ( 2", "at offset 2, \"( 2\": this ( is never closed"),
        ("1 \"abc\\\"", "at offset 2, \"\\\"abc\\\\\\\"\": a string that is never closed"),
        ("\"\\x4\"", "at offset 1"),
        ("\"\\400\"", "at offset 1, \"\\\\400\\\"\": \\NNN is at most \\377"),
        ("\"\\ud800\"", "not a character"),
        ("le16:65536", "65536: too large for a word of 16 bits"),
        ("le8:1", "words are le16:"),
        ("1 base64:MTI", "at offset 2, \"base64:MTI\": "),
        ("@9E", "larger than a disk can be"),
        ("@010k", "not an expression"),
        ("le16:-1", "a word must not be negative"),
        ("@-1", "at offset 0, \"@-1\": this goes before byte 0: the offset is 0"),
        ("@", "the offset after @ must be a number"),
        ("@+-1", "N after @+ must not be negative"),
        ("@^3", "must be a power of 2"),
        ("1*-1", "N after * must not be negative"),
        ("1*x", "N after * must be a number"),
        ("*3", "must follow an expression"),
        ("[0:1]", "must follow an expression"),
        ("->\\a", "must follow an expression"),
        ("@5*2", "cannot be applied to an offset"),
        ("1 -> a", "-> must be followed by a \\NAME"),
        ("(1 2 3)[2:1]", "at offset 7, \"[2:1]\": this slice is not a part"),
        ("(1 2 3)[0:5]", "not a part"),
        ("(1 @5)[4:6]", "not a part"),
        ("(1 @5)[3:2]", "not a part"),
        ("(1 2 3)[-1:2]", "N in [N:M] must not be negative"),
        ("(1 2 3)[:-2]", "]"),
        ("(1 2 3)[1]", "a slice is [N:M]"),
        ("\\a", "\\a is not defined here"),
        ("( 1 -> \\a ) \\a", "at offset 12"),
        ("( \\a ) -> \\a \\a", "at offset 2"),
        ("$nope_", "$nope_: neither a parameter nor in the environment"),
        ("< f", "must be followed by the name of a file"),
        ("<no/such/file", "at offset 0, \"<no/such/file\": no/such/file: No such file"),
        ("<.", "directory"),
        ("<(echo ( )", "its parentheses must come in pairs"),
        ("<(exit 3)", "the script failed: exit status: 3"),
        ("@9223372036854775807 1", "larger than a disk can be"),
        ("@9223372036854775808", "larger than a disk can be"),
        ("99999999999999999999", "a number too large"),
        ("1*9223372036854775807 1", "larger than a disk can be"),
        ("(1 2)*9223372036854775807", "larger than a disk can be"),
        ("1*9223372036854775807*3", "larger than a disk can be"),
    ] {
        let said = refused(program, &[]);
        assert!(said.contains(error) && said.contains("at offset "), "{program}: {said}");
    }
}

#[test]
fn nesting_without_end_is_refused_rather_than_followed() {
    for (open, close) in [("(", ")"), ("", "*1"), ("", "[:]"), ("(1 ", ")*2")] {
        let program = format!("{}</dev/null {}", open.repeat(9999), close.repeat(9999));
        assert!(refused(&program, &[]).contains("nested"), "{open} {close}");
    }
    assert_eq!(open(&format!("\"ab\"{}", "*4".repeat(30)), &[]).unwrap().facts().size, 2 << 60);
    // Each is larger than the one before, so none can be written out.
    let chain = format!("1*10000 -> \\a {} \\a", "( \\a 2 ) -> \\a ".repeat(9999));
    assert!(refused(&chain, &[]).contains("nested too deep"));
}

#[test]
fn what_repeats_takes_no_memory_and_can_be_read_anywhere() {
    let disk = open("( 0x55 0xAA )*1073741824*4096", &[]).unwrap();
    assert_eq!(disk.facts().size, 1 << 43);
    assert_eq!(model::bytes(&*disk, (1 << 42) + 7, 4), [0xaa, 0x55, 0xaa, 0x55]);
    let disk = open("1 -> \\a (\\a @^4096) -> \\a (\\a*1048576 \"x\") -> \\b \\b*1048576", &[]).unwrap();
    let unit = (4096 << 20) + 1;
    assert_eq!(disk.facts().size, unit << 20);
    assert_eq!(model::bytes(&*disk, unit * 77_777 - 2, 4), b"\0x\x01\0");
    // Doubled sixty times.
    let doubled = format!("\"ab\" -> \\a {} \\a", "(\\a \\a) -> \\a ".repeat(60));
    let disk = open(&doubled, &[]).unwrap();
    assert_eq!(disk.facts().size, 1 << 61);
    assert_eq!(model::bytes(&*disk, (1 << 61) - 3, 3), b"bab");
}

#[test]
fn size_cuts_off_or_extends() {
    let sized = |size: &str| {
        let disk = open("1 2 3", &[("size", size)]).unwrap();
        (disk.facts().size, model::bytes(&*disk, 0, disk.facts().size.min(5)))
    };
    assert_eq!(sized("2"), (2, vec![1, 2]));
    assert_eq!(sized("5"), (5, vec![1, 2, 3, 0, 0]));
    assert_eq!(sized("9223372036854775807").0, i64::MAX as u64);
    assert_eq!(open("1 2 3", &[("size", "0")]).unwrap().facts().size, 0);
}

#[test]
fn base64_and_raw_are_taken_as_they_are() {
    let content = |key: &str, value: &str| {
        let disk = model::open::<Data>(&[(key, value)]).map_err(|e| e.to_string())?;
        Ok::<_, String>(disk.read(disk.facts().whole()).wait().unwrap().to_vec())
    };
    assert_eq!(content("base64", "MT\nIz"), Ok(b"123".to_vec()));
    assert_eq!(content("raw", "a=b (1)"), Ok(b"a=b (1)".to_vec()));
    for wrong in ["MTI", "!!", "MQ"] {
        assert!(content("base64", wrong).unwrap_err().starts_with("base64=...: "), "{wrong}");
    }
    let both: &[&[(&str, &str)]] =
        &[&[("data", "1"), ("raw", "1")], &[("data", "1"), ("data", "2")], &[("raw", "1"), ("base64", "")]];
    for args in both {
        assert!(model::open::<Data>(args).err().unwrap().to_string().contains("exactly one"));
    }
    assert!(model::open::<Data>(&[("x", "5")]).err().unwrap().to_string().contains("must supply"));
}

#[test]
fn files_and_scripts_are_read_once_and_no_further_than_needed() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let file = std::fs::File::create(&path).unwrap();
    file.write_all_at(b"abc", 0).unwrap();
    let f = path.display();
    let read = |program: String| String::from_utf8(bytes(&program)).unwrap();
    assert_eq!(read(format!("<{f}*2 <{f}[1:] (<{f})[:1] <{f}[1:9]")), "abcabcbcabc");
    assert_eq!(read(format!("<{f} @^4 <{f}")), "abc\0abc");
    assert_eq!(
        read("<(printf '(%s)' a) <(yes)[:5] <(yes)[1:3] <(echo abc)[:9]".to_owned()),
        "(a)y\ny\ny\nyabc\n"
    );
    let random = bytes("</dev/urandom[:512]*16");
    assert!(random.len() == 8192 && random.chunks(512).all(|sector| sector == &random[..512]));
    assert_eq!(bytes("</dev/zero[5:9]"), [0; 4]);
    // Holes stay holes, and take neither time nor memory.
    file.set_len(1 << 40).unwrap();
    file.write_all_at(b"end", 1 << 39).unwrap();
    let disk = open(&format!("1 <{f}"), &[]).unwrap();
    assert_eq!(model::bytes(&*disk, 1 << 39, 5), b"\0end\0");
    let extents = disk.extents(disk.facts().whole(), 9).wait().unwrap();
    assert_eq!(extents.iter().filter(|e| e.kind == Kind::HOLE).count(), 2);
}

#[test]
fn scripts_count_as_people_expect() {
    if !std::path::Path::new("/bin/bash").exists() {
        return println!("SKIPPED: needs bash");
    }
    let counted = bytes(r#" <( while :; do printf "%04x" $((i++)); done ) [:2048] "#);
    let expected = (0..512).fold(String::new(), |mut all, n| {
        let _ = write!(all, "{n:04x}");
        all
    });
    assert!(counted == expected.as_bytes());
}

fn map(disk: &dyn Disk) -> Vec<(u64, bool)> {
    let (mut extents, size) = (::disk::Extents::new(), disk.facts().size);
    while extents.covered() < size {
        let rest = Range::new(extents.covered(), size - extents.covered());
        extents.append(&disk.extents(rest, 3).wait().unwrap());
    }
    extents.iter().map(|e| (e.len, e.kind == Kind::HOLE)).collect()
}

#[test]
fn holes_are_told_in_steps_of_32k() {
    let holes = |program: &str| map(&*open(program, &[]).unwrap());
    assert_eq!(holes("@32768 1"), [(32768, true), (1, false)]);
    assert_eq!(holes("1"), [(1, false)]);
    assert_eq!(holes("@0x100000"), [(1 << 20, true)]);
    let expected = [
        (32768, true),
        (32768, false),
        (32768, true),
        (32768, false),
        (65536, true),
        (98304, false),
        (25092, true),
    ];
    assert_eq!(holes("@32768 1 @100000 2 0*100000 (1 @+40000)*3"), expected);
    assert_eq!(
        holes("(1 @+100000)*3"),
        [(32768, false), (65536, true), (32768, false), (65536, true), (32768, false), (70627, true)]
    );
    // Endless alternation is cut short, but goes on where it was cut.
    let disk = open("((1*5000 @+70000)*1000 @+70000)*1000000000", &[]).unwrap();
    let extents = disk.extents(disk.facts().whole(), 1 << 30).wait().unwrap();
    assert!(extents.len() > 100 && extents.covered() < disk.facts().size);
}

#[test]
fn writes_lie_over_the_content_and_leave_the_rest() {
    for allocator in ["sparse", "malloc"] {
        let program = "@100000 (1 2 3)*100000 @500000 \"end\" ";
        let disk = open(program, &[("size", "1M"), ("allocator", allocator)]).unwrap();
        let mut expected = model::bytes(&*disk, 0, 1 << 20);
        let mut dice = model::Dice(7);
        for step in 0..600u64 {
            let r = dice.range(1 << 20);
            let there = r.start as usize..r.end() as usize;
            match dice.below(4) {
                0 => {
                    expected[there.clone()].fill(step as u8);
                    let data = Bytes::copy_from(&expected[there]);
                    disk.write(r.start, data, WriteFlags::default()).wait().unwrap();
                }
                1 => {
                    expected[there].fill(0);
                    let flags = ZeroFlags { may_trim: step % 2 == 0, ..Default::default() };
                    disk.zero(r, flags).wait().unwrap();
                }
                2 => {
                    disk.trim(r, WriteFlags::default()).wait().unwrap();
                    expected[there].copy_from_slice(&model::bytes(&*disk, r.start, r.len));
                }
                _ => assert!(
                    model::bytes(&*disk, r.start, r.len) == expected[there],
                    "{allocator} {step}: {r}"
                ),
            }
            for (part, kind) in disk.extents(disk.facts().whole(), 99).wait().unwrap().ranges(0) {
                let bytes = &expected[part.start as usize..part.end() as usize];
                assert!(!kind.zero || bytes.iter().all(|b| *b == 0), "{allocator} {step}: {part}");
            }
        }
        assert!(model::bytes(&*disk, 0, 1 << 20) == expected);
    }
}

#[test]
fn the_tree_is_simplified_and_shown_as_the_reference_does() {
    let shown = |program: &str| {
        let mut texts = program::Texts::default();
        let tree = parse::parse(program, &|_| None, &mut texts).unwrap().to_string();
        tree.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for (program, tree) in [
        ("", "null"),
        ("0x31*5", "fill(49*5)"),
        ("1 2 (3 4) 5", r#""\x01\x02\x03\x04\x05""#),
        ("\"a\\n\\\"\" 255", r#""a\x0a"\xff""#),
        ("(1 2)*4", r#""\x01\x02\x01\x02\x01\x02\x01\x02""#),
        ("(1 2)*5*2", r#"( "\x01\x02" ) *10"#),
        ("1 1*3 2", "( fill(1*4) 2 )"),
        ("1 2*0 3", r#""\x01\x03""#),
        ("@5 1 @+0 @^2 @-1", "( @5 1 @+0 @^2 @-1 )"),
        ("((1 2) @3 4)", r#"( "\x01\x02" @3 4 )"#),
        ("(1 <f) (2 <f)", "( 1 <f 2 <f )"),
        ("( @4 1 ) 2", "( ( @4 1 ) 2 )"),
        ("<f[1:][:2]", "( ( <f )[1:-1] )[0:2]"),
        ("1 -> \\a \\a*2", "( ( 1 ) -> \\a ( \\a ) *2 )"),
        ("<(echo hi)", "<(echo hi)"),
        ("(1 @+3)*2", "( ( 1 @+3 ) ) *2"),
    ] {
        assert_eq!(shown(program), tree, "{program}");
    }
}

/// A program that makes a known disk, step by step.
fn programs() -> impl Strategy<Value = (String, Vec<u8>)> {
    let leaf = prop_oneof![
        any::<u8>().prop_map(|b| (b.to_string(), vec![b])),
        (any::<u8>(), 0usize..3000).prop_map(|(b, n)| (format!("{b:#x}*{n}"), vec![b; n])),
        any::<u32>().prop_map(|n| (format!("be32:{n}"), n.to_be_bytes().to_vec())),
        "[a-z (#*<)]{0,9}".prop_map(|s| (format!("\"{s}\""), s.into_bytes())),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            (inner.clone(), 0usize..7).prop_map(|((p, b), n)| (format!("({p})*{n}"), b.repeat(n))),
            (inner.clone(), any::<(u16, u16)>()).prop_map(|((p, b), (x, y))| {
                let (x, y) = (x as usize % (b.len() + 1), y as usize % (b.len() + 1));
                let (from, to) = (x.min(y), x.max(y));
                (format!("( {p} )[{from}:{to}]"), b[from..to].to_vec())
            }),
            prop::collection::vec((inner, 0u8..6, 0usize..5000), 1..6).prop_map(|items| {
                let (mut program, mut disk, mut at) = (String::from("("), vec![], 0);
                for ((text, bytes), kind, n) in items {
                    let step = match kind {
                        0 => {
                            at = n;
                            format!("@{n}")
                        }
                        1 => {
                            at += n;
                            format!("@+{n}")
                        }
                        2 => {
                            let n = n.min(at);
                            at -= n;
                            format!("@-{n}")
                        }
                        3 => {
                            at = at.next_multiple_of(1 << (n % 13));
                            format!("@^{}", 1 << (n % 13))
                        }
                        _ => String::new(),
                    };
                    disk.resize(disk.len().max(at + bytes.len()), 0);
                    disk[at..at + bytes.len()].copy_from_slice(&bytes);
                    at += bytes.len();
                    let _ = write!(program, " {step} ({text}) -> \\x \\x");
                }
                (program + " )", disk)
            }),
        ]
    })
}

proptest! {
    #[test]
    fn a_program_means_what_it_says((program, expected) in programs()) {
        let size = expected.len() as u64;
        let disk = open(&program, &[]).unwrap();
        prop_assert_eq!(disk.facts().size, size);
        if size > 0 {
            prop_assert!(model::bytes(&*disk, 0, size) == expected);
            let mut dice = model::Dice(size);
            for _ in 0..20 {
                let r = dice.range(size);
                prop_assert!(model::bytes(&*disk, r.start, r.len) == expected[r.start as usize..r.end() as usize]);
            }
        }
    }

    #[test]
    fn any_text_is_a_program_or_refused(text in r#"([-0-9a-z ()*\[\]:@+^"\\#]|->|\\a|@|0x|le16:){0,60}"#) {
        let mut texts = program::Texts::default();
        match parse::parse(&text, &|_| Some("1 \\a".to_owned()), &mut texts) {
            Ok(tree) => { let _ = tree.to_string(); }
            Err(fault) => { let _ = texts.error(&fault); }
        }
    }
}
