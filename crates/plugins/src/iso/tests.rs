use super::*;
use crate::common::model;
use proptest::prelude::*;
use std::{fs, os::unix::fs::symlink, path::Path};

/// What a reader finds: the content of files, and words for all else, by path.
type Found = BTreeMap<String, std::result::Result<Vec<u8>, String>>;

/// Reads a CD as the standards have it, by Joliet, by Rock Ridge, or by neither.
struct Reading<'a> {
    disk: &'a dyn Disk,
    joliet: bool,
    rock_ridge: bool,
}

impl Reading<'_> {
    fn bytes(&self, sector: u32, len: u32) -> Vec<u8> {
        if len == 0 { vec![] } else { model::bytes(self.disk, u64::from(sector) * SECTOR, u64::from(len)) }
    }

    fn found(&self) -> Found {
        let descriptor = (16..).map(|sector| self.bytes(sector, 2048));
        let kind = if self.joliet { 2 } else { 1 };
        let descriptor = descriptor.take_while(|d| d[0] != 255).find(|d| d[0] == kind).unwrap();
        assert_eq!(u64::from(both(&descriptor[80..])) * SECTOR, self.disk.facts().size);
        let root = &descriptor[156..];
        let mut found = Found::new();
        self.directory("", both(&root[2..]), both(&root[10..]), &mut found);
        self.paths(&descriptor, 1 + found.values().filter(|f| **f == Err("directory".into())).count());
        found
    }

    /// The tables of paths lead to as many directories as there are.
    fn paths(&self, descriptor: &[u8], count: usize) {
        let little = u32::from_le_bytes(descriptor[140..144].try_into().unwrap());
        let big = u32::from_be_bytes(descriptor[148..152].try_into().unwrap());
        let len = both(&descriptor[132..]);
        let (little, big) = (self.bytes(little, len), self.bytes(big, len));
        let (mut at, mut number) = (0, 0);
        while at < little.len() {
            let sector = u32::from_le_bytes(little[at + 2..at + 6].try_into().unwrap());
            assert_eq!(sector, u32::from_be_bytes(big[at + 2..at + 6].try_into().unwrap()));
            let parent = u16::from_le_bytes([little[at + 6], little[at + 7]]);
            assert!(parent >= 1 && usize::from(parent) <= number.max(1));
            assert_eq!(both(&self.bytes(sector, 2048)[2..]), sector, "a directory begins with itself");
            at += 8 + usize::from(little[at].next_multiple_of(2));
            number += 1;
        }
        assert_eq!(number, count);
    }

    fn directory(&self, path: &str, sector: u32, len: u32, found: &mut Found) {
        let bytes = self.bytes(sector, len);
        let (mut at, mut before) = (0, Vec::new());
        let mut content = Vec::new();
        while at < bytes.len() {
            let record = &bytes[at..at + usize::from(bytes[at])];
            if record.is_empty() {
                at = (at + 1).next_multiple_of(2048);
                continue;
            }
            at += record.len();
            assert!((at - 1) / 2048 == (at - record.len()) / 2048, "a record on a border");
            let len = usize::from(record[32]);
            let name = record[33..33 + len].to_vec();
            if len == 1 && name[0] < 2 {
                continue;
            }
            assert!(before <= name, "sorted");
            before.clone_from(&name);
            let shown = match (self.joliet, self.rock_ridge) {
                (true, _) => {
                    let units = name.chunks(2).map(|unit| u16::from_be_bytes([unit[0], unit[1]]));
                    String::from_utf16(&units.collect::<Vec<_>>()).unwrap()
                }
                (_, true) => self.rock_ridge_name(&record[(33 + len).next_multiple_of(2)..], record),
                _ => String::from_utf8(name).unwrap(),
            };
            let path = format!("{path}/{shown}");
            let (sector, len) = (both(&record[2..]), both(&record[10..]));
            if record[25] & 2 != 0 {
                found.insert(path.clone(), Err("directory".into()));
                self.directory(&path, sector, len, found);
                continue;
            }
            content.extend(self.bytes(sector, len));
            if record[25] & 0x80 == 0 {
                assert!(found.insert(path, Ok(std::mem::take(&mut content))).is_none());
            }
        }
    }

    fn rock_ridge_name(&self, fields: &[u8], record: &[u8]) -> String {
        let (mut rest, mut name) = (fields.to_vec(), Vec::new());
        while rest.len() >= 4 {
            let len = usize::from(rest[2]);
            assert!(len >= 4, "{record:?}");
            let field: Vec<u8> = rest.drain(..len).collect();
            match &field[..2] {
                b"NM" => name.extend(&field[5..]),
                b"CE" => {
                    let (sector, at, len) = (both(&field[4..]), both(&field[12..]), both(&field[20..]));
                    rest = self.bytes(sector, at + len).split_off(at as usize);
                }
                _ => {}
            }
        }
        String::from_utf8(name).unwrap()
    }
}

/// A number that is there in both byte orders.
fn both(bytes: &[u8]) -> u32 {
    let number = u32::from_le_bytes(bytes[..4].try_into().unwrap());
    assert_eq!(number, u32::from_be_bytes(bytes[4..8].try_into().unwrap()));
    number
}

fn open(dir: &Path, more: &[(&str, &str)]) -> Result<Arc<dyn Disk>> {
    let dir = dir.display().to_string();
    let args: Vec<_> = std::iter::once(("dir", dir.as_str())).chain(more.iter().copied()).collect();
    model::open::<Iso>(&args)
}

fn read(disk: &dyn Disk, joliet: bool, rock_ridge: bool) -> Found {
    Reading { disk, joliet, rock_ridge }.found()
}

/// A tree by random numbers, and what must be found.
fn tree(dir: &Path, files: &[(Vec<String>, usize)]) -> Found {
    let mut expected = Found::new();
    for (number, (path, len)) in files.iter().enumerate() {
        let file = path.join("/") + &format!("-{number}");
        fs::create_dir_all(dir.join(&file).parent().unwrap()).unwrap();
        for depth in 1..path.len() {
            expected.insert(format!("/{}", path[..depth].join("/")), Err("directory".into()));
        }
        let content: Vec<u8> = (0..*len).map(|n| (n * 7 + number + 1) as u8).collect();
        fs::write(dir.join(&file), &content).unwrap();
        expected.insert(format!("/{file}"), Ok(content));
    }
    expected
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 25, ..ProptestConfig::default() })]
    #[test]
    fn any_tree_is_found_again(
        files in prop::collection::vec(
            (prop::collection::vec("[a-dA-D .é][a-z1-3 é]{1,20}|[x-z]{70,200}|Dir", 1..5), 0_usize..5000),
            0..40,
        ),
        params in prop::sample::select(vec!["", "-l", "-JrT", "-joliet-long -no-pad"]),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let expected = tree(dir.path(), &files);
        let disk = open(dir.path(), &[("params", params)]).unwrap();
        let mut found = read(&*disk, false, true);
        found.retain(|path, _| !path.ends_with("/TRANS.TBL"));
        prop_assert_eq!(&found, &expected);
        // The other names are changed, but lead to the same content.
        for joliet in [false, true] {
            let contents = |found: &Found| {
                let mut all: Vec<_> = found.values().filter(|f| f.is_ok()).cloned().collect();
                all.sort();
                all
            };
            let mut found = read(&*disk, joliet, false);
            found.retain(|path, _| !path.contains("/TRANS.TBL"));
            prop_assert_eq!(contents(&found), contents(&expected));
            prop_assert_eq!(found.len(), expected.len());
        }
    }
}

#[test]
fn long_names_links_and_large_files_are_all_there() {
    let dir = tempfile::tempdir().unwrap();
    let long = "n".repeat(255);
    fs::write(dir.path().join(&long), "long").unwrap();
    symlink("t".repeat(4000), dir.path().join("link")).unwrap();
    fs::write(dir.path().join("one"), "content").unwrap();
    fs::hard_link(dir.path().join("one"), dir.path().join("two")).unwrap();
    let large = fs::File::create(dir.path().join("large")).unwrap();
    large.set_len((9 << 30) + 5).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&large, b"end", (9 << 30) + 2).unwrap();
    let disk = open(dir.path(), &[]).unwrap();
    let root = model::bytes(&*disk, 16 * SECTOR + 156, 18);
    let records = model::bytes(&*disk, u64::from(both(&root[2..])) * SECTOR, u64::from(both(&root[10..])));
    let (mut at, mut pieces) = (0, vec![]);
    while records[at] != 0 {
        let record = &records[at..at + usize::from(records[at])];
        if record[33..].starts_with(b"LARGE") {
            pieces.push((both(&record[2..]), both(&record[10..]), record[25]));
        }
        at += record.len();
    }
    let [(first, a, 0x80), (second, b, 0x80), (third, c, 0)] = pieces[..] else { panic!("{pieces:?}") };
    assert_eq!(u64::from(a) + u64::from(b) + u64::from(c), (9 << 30) + 5);
    assert!(u64::from(second - first) * SECTOR == u64::from(a) && third > second);
    assert_eq!(model::bytes(&*disk, u64::from(third) * SECTOR + u64::from(c) - 3, 3), b"end");
    fs::remove_file(dir.path().join("large")).unwrap();
    let found = read(&*open(dir.path(), &[]).unwrap(), false, true);
    assert_eq!(found[&format!("/{long}")], Ok(b"long".to_vec()));
    assert_eq!((&found["/one"], &found["/two"]), (&Ok(b"content".to_vec()), &Ok(b"content".to_vec())));
    assert_eq!(found["/link"], Ok(vec![]));
}

#[test]
fn what_is_booted_is_where_the_list_says_and_knows_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("boot")).unwrap();
    let content: Vec<u8> = (0..5000_u32).map(|n| n as u8).collect();
    fs::write(dir.path().join("boot/loader.bin"), &content).unwrap();
    fs::write(dir.path().join("boot/efi.img"), [9; 3000]).unwrap();
    let params = "-b boot/loader.bin -c boot/list -no-emul-boot -boot-load-size 4 -boot-info-table \
                  -eltorito-alt-boot -e boot/efi.img";
    let disk = open(dir.path(), &[("params", params)]).unwrap();
    let descriptor = model::bytes(&*disk, 17 * SECTOR, SECTOR);
    assert!(descriptor.starts_with(b"\0CD001\x01EL TORITO SPECIFICATION"));
    let number = |bytes: &[u8]| u64::from(u32::from_le_bytes(bytes[..4].try_into().unwrap()));
    let list = model::bytes(&*disk, number(&descriptor[71..]) * SECTOR, SECTOR);
    let sum = list[..32].chunks(2).fold(0_u16, |sum, w| sum.wrapping_add(u16::from_le_bytes([w[0], w[1]])));
    assert_eq!((sum, list[0], list[32], list[33], list[38]), (0, 1, 0x88, 0, 4));
    assert_eq!((list[64], list[65], list[96], list[102]), (0x91, 0xef, 0x88, 6));
    let loader = number(&list[40..]);
    let found = model::bytes(&*disk, loader * SECTOR, 5000);
    assert_eq!((&found[..8], &found[64..]), (&content[..8], &content[64..]));
    assert_eq!((number(&found[8..]), number(&found[12..]), number(&found[16..])), (16, loader, 5000));
    assert_eq!(model::bytes(&*disk, number(&list[104..]) * SECTOR, 3000), [9; 3000]);
    assert_eq!(fs::read(dir.path().join("boot/loader.bin")).unwrap(), content, "the file stays as it is");
    assert_eq!(read(&*disk, false, true)["/boot/list"], Ok(list));
    for (params, why) in [
        ("-b none", "-b none: there is no such file on the CD"),
        ("-b boot/loader.bin", "which is no floppy of 1200, 1440 or 2880 KiB"),
        ("-b boot/loader.bin -hard-disk-boot", "not a hard disk with an MBR"),
        ("-b boot/loader.bin -c none/x", "there is no directory none on the CD"),
        ("-b boot/loader.bin -no-emul-boot -c boot/efi.img", "not a name for a new file"),
    ] {
        let error = open(dir.path(), &[("params", params)]).err().unwrap().to_string();
        assert!(error.contains(why), "{params}: {error}");
    }
}

#[test]
fn parameters_that_make_no_cd_are_told_at_the_start() {
    let wrong = |args: &[(&str, &str)]| model::open::<Iso>(args).err().unwrap().to_string();
    assert!(wrong(&[]).starts_with("you must supply the dir= parameter"));
    assert!(wrong(&[("dir", "/no/such")]).starts_with("/no/such: No such file"));
    assert!(
        wrong(&[("dir", "/"), ("params", "-udf")]).contains("-udf is not understood here (or give prog=")
    );
    let dir = tempfile::tempdir().unwrap();
    let said = open(dir.path(), &[("prog", "no-such-program")]).err().unwrap().to_string();
    assert_eq!(said, "prog=no-such-program: there is no such program");
    let said = open(dir.path(), &[("prog", "false")]).err().unwrap().to_string();
    assert!(said.starts_with("prog=false: failed"), "{said}");
}

#[test]
fn a_program_makes_the_cd_with_the_words_of_the_shell() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("mkisofs");
    // Not a CD, but all that it was told.
    fs::write(&program, "#!/bin/sh\nprintf '%s|' \"$@\"\n").unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let program = program.display().to_string();
    let disk =
        open(Path::new("/some where"), &[("isoprog", &program), ("params", "-V \"My Disk\" -r")]).unwrap();
    let said = model::bytes(&*disk, 0, disk.facts().size);
    assert_eq!(String::from_utf8(said).unwrap(), "-quiet|-V|My Disk|-r|/some where|");
}
