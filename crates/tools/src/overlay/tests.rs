//! Overlays that are compared, committed and forked.

use super::*;
use std::fs;
use store::{Header, Kind, State, chain::Chain};
use tempfile::TempDir;

const BLOCK: u64 = 4096;
const BLOCKS: u64 = 3000;

fn make(path: &Path) {
    store::file::create(path, Header::new(Kind::Overlay, BLOCK, BLOCKS * BLOCK - 96).unwrap()).unwrap();
}

/// Writes a byte all over some blocks; 0 makes them zero.
fn write(path: &Path, at: impl IntoIterator<Item = u64>, byte: u8) {
    let blocks = store::file::open(path, true).unwrap();
    for at in at {
        let (leaf, index) = blocks.leaf(at);
        let (state, _) = leaf.run(index, index + 1);
        let claim = leaf.claim(index, index + 1, state).unwrap();
        if byte > 0 {
            blocks.bytes().write(blocks.place(leaf, at), &disk::Data::copy_from(&[byte; 4096])).unwrap();
        }
        claim.end(if byte > 0 { State::Copied } else { State::Zero });
    }
    blocks.close().unwrap();
}

/// The first byte of some blocks, over a disk of 9.
fn read(path: &Path, at: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let chain = Chain::open(path, false).unwrap();
    let one = |at| match chain.run(at, 1).0 {
        store::chain::Found::Below => 9,
        store::chain::Found::Zero => 0,
        store::chain::Found::Layer(layer) => chain.read(layer, at, 1).unwrap().0.to_vec()[0],
    };
    at.into_iter().map(one).collect()
}

fn directory() -> (TempDir, impl Fn(&str) -> PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    (dir, move |name| path.join(name))
}

fn lines(path: &Path, other: Option<&Path>) -> Vec<(u64, u64, &'static str)> {
    let mut lines = vec![];
    let chain = Chain::open(path, false).unwrap();
    diff::ranges(&chain, other, &mut |line| {
        lines.push(line);
        Ok(())
    })
    .unwrap();
    lines.into_iter().fold(vec![], join)
}

#[test]
fn forks_begin_with_the_same_and_go_their_own_ways() {
    let (dir, at) = directory();
    make(&at("a"));
    write(&at("a"), 0..1500, 1);
    let text = fork::fork(&at("a"), &[at("b"), at("c")], false).unwrap();
    assert_eq!(text.lines().count(), 4, "{text}");
    write(&at("a"), 10..12, 2);
    write(&at("b"), 11..2000, 3);
    write(&at("c"), 0..2, 0);
    let some = [0, 10, 11, 1500, 2000];
    assert_eq!(read(&at("a"), some), [1, 2, 2, 9, 9]);
    assert_eq!(read(&at("b"), some), [1, 1, 3, 3, 9]);
    assert_eq!(read(&at("c"), some), [0, 1, 1, 9, 9]);
    assert_eq!(lines(&at("a"), Some(&at("b"))), [(10, 1990, "changed")]);
    // A fork of a fork; the frozen one is small beside what they share.
    fork::fork(&at("b"), &[at("d")], false).unwrap();
    write(&at("d"), 5..6, 4);
    assert_eq!(read(&at("d"), [0, 5, 11]), [1, 4, 3]);
    assert_eq!(read(&at("b"), [0, 5, 11]), [1, 1, 3]);
    assert!(fs::read_dir(dir.path()).unwrap().count() == 6);
    let why = fork::fork(&at("a"), &[at("b")], false).unwrap_err().to_string();
    assert!(why.ends_with("b: File exists"), "{why}");
    // Where one of them is moved away, it is missed.
    fs::rename(at("c"), dir.path().join("../c-moved").as_path()).unwrap();
    let moved = dir.path().join("../c-moved");
    let why = Chain::open(&moved, false).err().unwrap().to_string();
    assert!(why.contains("it stands on another overlay") && why.contains("No such file"), "{why}");
    fs::remove_file(moved).unwrap();
}

fn join(
    mut all: Vec<(u64, u64, &'static str)>,
    line: (u64, u64, &'static str),
) -> Vec<(u64, u64, &'static str)> {
    match all.last_mut() {
        Some(last) if last.0 + last.1 == line.0 && last.2 == line.2 => last.1 += line.1,
        _ => all.push(line),
    }
    all
}

#[test]
fn a_fork_that_was_stopped_is_begun_again() {
    let (_dir, at) = directory();
    make(&at("a"));
    write(&at("a"), 0..3, 1);
    // Stopped after it was frozen and had got its other name.
    let id = store::file::header(&at("a")).unwrap().id.to_string();
    fs::hard_link(at("a"), at(&format!("a.{}", &id[..8]))).unwrap();
    store::file::open(&at("a"), true).unwrap().freeze().unwrap();
    fork::fork(&at("a"), &[at("b")], false).unwrap();
    write(&at("a"), 1..2, 2);
    assert_eq!((read(&at("a"), 0..4), read(&at("b"), 0..4)), (vec![1, 2, 1, 9], vec![1, 1, 1, 9]));
}

#[test]
fn a_template_is_frozen_and_forked_whenever_somebody_comes() {
    let (_dir, at) = directory();
    make(&at("template"));
    write(&at("template"), 7..8, 1);
    fork::fork(&at("template"), &[at("a")], true).unwrap();
    fs::create_dir(at("vms")).unwrap();
    fork::fork(&at("template"), &[at("vms/b")], false).unwrap();
    write(&at("a"), 8..9, 2);
    assert_eq!((read(&at("a"), 7..9), read(&at("vms/b"), 7..9)), (vec![1, 2], vec![1, 9]));
    assert!(store::file::open(&at("template"), true).is_err());
}

#[test]
fn a_commit_makes_the_disk_what_it_looked_like() {
    let (_dir, at) = directory();
    let size = (BLOCKS * BLOCK - 96) as usize;
    fs::write(at("disk"), vec![9; size]).unwrap();
    make(&at("a"));
    write(&at("a"), 100..1400, 1);
    write(&at("a"), 2000..2999, 0);
    write(&at("a"), 2999..3000, 5);
    let word = Word::Plain(at("disk").into());
    commit::commit(&at("a"), &word, false).unwrap();
    let bytes = fs::read(at("disk")).unwrap();
    assert_eq!(bytes.len(), size);
    for (block, part) in bytes.chunks(4096).enumerate() {
        let expected = match block {
            100..1400 => 1,
            2000..2999 => 0,
            2999 => 5,
            _ => 9,
        };
        assert!(part.iter().all(|byte| *byte == expected), "block {block}");
    }
    assert_eq!(read(&at("a"), [100, 2000]), [9, 9], "it is empty");
    let header = store::file::header(&at("a")).unwrap();
    assert!(header.identity.starts_with("modified at "), "{}", header.identity);
    // Now it is another disk.
    write(&at("a"), 0..1, 1);
    let later = fs::File::options().write(true).open(at("disk")).unwrap();
    later.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let why = commit::commit(&at("a"), &word, false).unwrap_err().to_string();
    assert!(why.ends_with("and is modified at 0.000000000; --force commits all the same"), "{why}");
    commit::commit(&at("a"), &word, true).unwrap();
    fs::write(at("small"), "").unwrap();
    let why = commit::commit(&at("a"), &Word::Plain(at("small").into()), false).unwrap_err().to_string();
    assert!(why.ends_with("it has 0 bytes, but the overlay is of a disk of 12287904"), "{why}");
}

#[test]
fn a_commit_of_a_fork_needs_force_and_takes_all_with_it() {
    let (_dir, at) = directory();
    fs::write(at("disk"), vec![9; (BLOCKS * BLOCK - 96) as usize]).unwrap();
    make(&at("a"));
    write(&at("a"), 0..3, 1);
    fork::fork(&at("a"), &[at("b")], false).unwrap();
    write(&at("b"), 1..2, 2);
    let word = Word::Plain(at("disk").into());
    let why = commit::commit(&at("b"), &word, false).unwrap_err().to_string();
    assert!(why.contains("it stands on"), "{why}");
    commit::commit(&at("b"), &word, true).unwrap();
    let bytes = fs::read(at("disk")).unwrap();
    assert_eq!([0, 4096, 8192, 12288].map(|i| bytes[i]), [1, 2, 1, 9]);
    assert!(store::file::header(&at("b")).unwrap().parent.is_none());
    assert_eq!(read(&at("b"), [0, 1]), [9, 9]);
}

#[test]
fn overlays_differ_where_their_bytes_do() {
    let (_dir, at) = directory();
    make(&at("a"));
    make(&at("b"));
    write(&at("a"), 0..10, 1);
    write(&at("b"), 0..10, 1);
    write(&at("a"), 3..4, 2);
    write(&at("a"), 20..22, 0);
    write(&at("b"), 20..21, 0);
    assert_eq!(lines(&at("a"), None), [(0, 10, "data"), (20, 2, "zero")]);
    assert_eq!(lines(&at("a"), Some(&at("b"))), [(3, 1, "changed"), (21, 1, "changed")]);
    assert_eq!(lines(&at("b"), Some(&at("b"))), []);
}

#[test]
fn info_says_what_there_is() {
    let (_dir, at) = directory();
    make(&at("a"));
    write(&at("a"), 0..10, 1);
    write(&at("a"), 20..22, 0);
    fork::fork(&at("a"), &[at("b")], true).unwrap();
    let text = info::show(&[at("a"), at("b")], false).unwrap();
    for line in ["\tsize: 12287904\n", "\tdata: 10 blocks, 40960 bytes\n", "\tzero: 2 blocks, 8192 bytes\n"] {
        let line = line.replace("12287904", "12287904 (12287904)");
        assert!(text.contains(&line), "{text}");
    }
    assert!(text.contains("\tfrozen: others stand on it\n") && text.contains("\tstands on: "), "{text}");
    let json = info::show(&[at("b")], true).unwrap();
    assert!(json.contains("\"data-blocks\": 0,") && json.contains("\"stands-on\": [ { \"file\": "), "{json}");
}

#[test]
fn what_does_not_go_together_is_refused() {
    let parse = |args: &[&str]| {
        let options = Options::try_parse_from([&["overlay"], args].concat()).ok()?;
        wrong(&options).is_none().then_some(options)
    };
    assert!(parse(&["info", "a", "b", "--json"]).is_some_and(|options| options.json));
    assert!(parse(&["fork", "a", "b", "--freeze"]).is_some());
    for bad in [
        &["diff", "a", "b", "c"][..],
        &["commit", "a"],
        &["fork", "a"],
        &["info", "--force", "a"],
        &["commit", "--json", "a", "b"],
        &["frob", "a"],
        &["info"],
    ] {
        assert!(parse(bad).is_none(), "{bad:?}");
    }
}
