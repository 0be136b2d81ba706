use super::*;
use crate::common::model;
use proptest::prelude::*;
use std::{collections::BTreeMap, fs, path::Path};

/// Reads such a disk as the specification of FAT has it: the content of files, and `None` for directories, by path.
fn listed(disk: &dyn Disk) -> BTreeMap<String, Option<Vec<u8>>> {
    let u16_at = |at: u64| u64::from(u16::from_le_bytes(model::bytes(disk, at, 2).try_into().unwrap()));
    let u32_at = |at: u64| u64::from(u32::from_le_bytes(model::bytes(disk, at, 4).try_into().unwrap()));
    let start = u32_at(446 + 8) * 512;
    let (reserved, table, per) =
        (u16_at(start + 14), u32_at(start + 36), model::bytes(disk, start + 13, 1)[0]);
    let cluster = u64::from(per) * 512;
    let (tables, data) = (start + reserved * 512, start + (reserved + 2 * table) * 512);
    let mut used = std::collections::HashSet::new();
    let mut chain = |first: u64| {
        let (mut bytes, mut at) = (Vec::new(), first);
        while (2..0x0fff_fff8).contains(&at) {
            assert!(used.insert(at), "cluster {at} is used twice");
            bytes.extend(model::bytes(disk, data + (at - 2) * cluster, cluster));
            let next = u32_at(tables + at * 4);
            assert_eq!(next, u32_at(tables + table * 512 + at * 4), "the tables differ");
            at = next;
        }
        bytes
    };
    let mut found = BTreeMap::new();
    let mut rest = vec![(String::new(), u32_at(start + 44))];
    while let Some((path, first)) = rest.pop() {
        let mut long = Vec::new();
        for entry in chain(first).chunks(32).take_while(|entry| entry[0] != 0) {
            if entry[11] == 0x0f {
                let units = [&entry[1..11], &entry[14..26], &entry[28..32]].concat();
                let units = units.chunks(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
                let part: Vec<u16> = units.take_while(|unit| *unit != 0 && *unit != 0xffff).collect();
                long = [part, long].concat();
                continue;
            }
            let long = String::from_utf16(&std::mem::take(&mut long)).unwrap();
            if entry[11] & 8 != 0 || entry[0] == b'.' {
                continue;
            }
            let part = |range: std::ops::Range<usize>| String::from_utf8(entry[range].to_vec()).unwrap();
            let short = format!("{}.{}", part(0..8).trim_end(), part(8..11).trim_end());
            let name = if long.is_empty() { short.trim_end_matches('.').to_owned() } else { long };
            let name = format!("{path}/{name}");
            let first = u64::from(u16::from_le_bytes([entry[20], entry[21]])) << 16
                | u64::from(u16::from_le_bytes([entry[26], entry[27]]));
            let size = u32::from_le_bytes(entry[28..32].try_into().unwrap()) as usize;
            if entry[11] & 0x10 != 0 {
                rest.push((name.clone(), first));
                found.insert(name, None);
            } else {
                let mut bytes = chain(first);
                assert!(bytes.len() >= size && bytes.len() - size < cluster as usize);
                assert!(bytes.split_off(size).iter().all(|byte| *byte == 0));
                found.insert(name, Some(bytes));
            }
        }
    }
    found
}

fn open(dir: &Path, more: &[(&str, &str)]) -> Result<Arc<dyn Disk>> {
    let dir = dir.display().to_string();
    let args: Vec<_> = std::iter::once(("dir", dir.as_str())).chain(more.iter().copied()).collect();
    model::open::<Floppy>(&args)
}

/// Files by path, and directories with no content.
fn names() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[a-dA-B .é]{0,3}[a-z1-3é]{1,14}[🦀-🦂]?", 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn any_tree_is_found_again(
        files in prop::collection::vec((names(), 0_usize..3000), 0..25),
        size in prop::option::of(2_u64..40),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut expected = BTreeMap::new();
        for (number, (path, len)) in files.iter().enumerate() {
            // Names that differ only in case, or that are taken, get a number.
            let path: Vec<String> = path.iter().map(|name| name.to_uppercase()).collect();
            let file = path.join("/") + &format!("-{number}");
            let parent = dir.path().join(&file).parent().unwrap().to_owned();
            fs::create_dir_all(&parent).unwrap();
            for depth in 1..path.len() {
                expected.insert(format!("/{}", path[..depth].join("/")), None);
            }
            let content: Vec<u8> = (0..*len).map(|n| (n * 7 + number + 1) as u8).collect();
            fs::write(dir.path().join(&file), &content).unwrap();
            expected.insert(format!("/{file}"), Some(content));
        }
        let size = size.map(|mib| format!("{mib}M"));
        let more: Vec<_> = size.iter().map(|size| ("size", size.as_str())).collect();
        let disk = open(dir.path(), &more).unwrap();
        prop_assert_eq!(listed(&*disk), expected);
    }
}

#[test]
fn what_does_not_fit_is_told_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let said = |more: &[(&str, &str)]| open(dir.path(), more).err().unwrap().to_string();
    assert_eq!(said(&[("size", "1M")]), "size=1048576: the partition begins only at 1 MiB");
    assert_eq!(said(&[("size", "2T")]), "size=2199023255552: a disk with an MBR has less than 2 TiB");
    assert_eq!(
        said(&[("label", "a label that is long")]),
        "label=a label that is long: not a label of up to 11 characters of ASCII"
    );
    fs::write(dir.path().join("big"), [1; 100_000]).unwrap();
    let least = said(&[("size", "1100000")]);
    let least: u64 = least
        .strip_prefix("size: too small: the files need at least ")
        .unwrap()
        .strip_suffix(" bytes")
        .unwrap()
        .parse()
        .unwrap();
    assert!(open(dir.path(), &[("size", &(least - 1).to_string())]).is_err());
    assert_eq!(open(dir.path(), &[("size", &least.to_string())]).unwrap().facts().size, least);
    fs::File::create(dir.path().join("huge")).and_then(|f| f.set_len(4 << 30)).unwrap();
    assert_eq!(said(&[]), "huge: a file in FAT has less than 4 GiB");
    fs::remove_file(dir.path().join("huge")).unwrap();
    fs::write(dir.path().join("Big"), "").unwrap();
    assert_eq!(said(&[]), "big: FAT cannot tell it from Big");
    fs::rename(dir.path().join("Big"), dir.path().join("a:b")).unwrap();
    assert!(said(&[]).starts_with("a:b: none of "));
}

#[test]
fn an_odd_size_ends_in_zeroes_and_links_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
    let disk = open(dir.path(), &[("size", "5000001")]).unwrap();
    assert!(disk.facts().size == 5_000_001 && !disk.facts().write);
    assert!(listed(&*disk).is_empty());
    assert!(open(dir.path(), &[]).unwrap().facts().size > 33 << 20);
}
