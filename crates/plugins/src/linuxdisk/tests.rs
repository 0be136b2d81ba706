use super::*;
use crate::common::model;
use std::fs;

/// Whether mke2fs is to be had; without it, says so.
fn has_mke2fs() -> bool {
    let mut program = Command::new("mke2fs");
    program
        .arg("-V")
        .env("PATH", fresh::path_of_administrators())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let has = program.status().is_ok();
    if !has {
        println!("SKIPPED: needs mke2fs");
    }
    has
}

fn open(dir: &Path, more: &[(&str, &str)]) -> Result<Arc<dyn Disk>> {
    let dir = dir.display().to_string();
    let args: Vec<_> = std::iter::once(("dir", dir.as_str())).chain(more.iter().copied()).collect();
    model::open::<LinuxDisk>(&args)
}

#[test]
fn every_kind_of_tree_finds_room() {
    if !has_mke2fs() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let small = open(dir.path(), &[]).unwrap();
    assert!(!small.facts().write && small.facts().size < 4 << 20);
    // Many small files, then a large one, then names of one file.
    for number in 0..3000 {
        fs::write(dir.path().join(format!("{number} with a long name of its own, {number}")), "x").unwrap();
    }
    let many = open(dir.path(), &[]).unwrap().facts().size;
    assert!((4 << 20..10 << 20).contains(&many), "{many}");
    fs::write(dir.path().join("large"), vec![1; 20 << 20]).unwrap();
    for name in 0..20 {
        fs::hard_link(dir.path().join("large"), dir.path().join(format!("name {name}"))).unwrap();
    }
    for kind in ["ext2", "ext3", "ext4"] {
        let size = open(dir.path(), &[("type", kind)]).unwrap().facts().size;
        assert!(size < many + (30 << 20), "{kind}: {size}");
    }
}

#[test]
fn sizes_are_kept_or_refused() {
    let wrong = |more: &[(&str, &str)]| open(Path::new("/"), more).err().unwrap().to_string();
    assert_eq!(wrong(&[("label", "seventeen letters")]), "label=seventeen letters: longer than 16 bytes");
    if !has_mke2fs() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), vec![1; 5 << 20]).unwrap();
    let disk = open(dir.path(), &[("size", "32M")]).unwrap();
    assert_eq!(disk.facts().size, (1 << 20) + (32 << 20) + 33 * 512);
    let error = open(dir.path(), &[("size", "3M")]).err().unwrap().to_string();
    assert!(error.starts_with("size=3M: mke2fs: ") && error.contains("allocate block"), "{error}");
    for free in ["+1", "+1M", "+100M", "+700M"] {
        let disk = open(dir.path(), &[("size", free)]).unwrap();
        let beginning = tempfile::NamedTempFile::new().unwrap();
        fs::write(&beginning, model::bytes(&*disk, 1 << 20, 4096)).unwrap();
        let found = Found::read(beginning.path()).unwrap().free;
        let Room::Free(free) = Room::from_text(free).unwrap() else { panic!("{free}") };
        assert!(found >= free.bytes() && found < free.bytes() * 11 / 10 + (4 << 20), "{free}: {found}");
    }
}
