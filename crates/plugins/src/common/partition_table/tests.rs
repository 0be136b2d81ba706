use super::*;
use proptest::prelude::*;
use std::process::Command;

fn wanted(size: u64, alignment: u64) -> Wanted {
    Wanted {
        size,
        alignment,
        mbr_type: 0x83,
        gpt_type: Guid::LINUX,
        id: Guid::from_random(size ^ 0x1234_5678_9abc_def0, alignment),
        name: format!("{size} bytes 🦀"),
        bootable: size == 1,
    }
}

/// The layout as a sparse file, for programs of others.
fn image(layout: &Layout) -> tempfile::NamedTempFile {
    use std::os::unix::fs::FileExt;
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(layout.size).unwrap();
    for (at, bytes) in &layout.tables {
        file.as_file().write_all_at(bytes, *at).unwrap();
    }
    file
}

/// What a program says of an image; `None` where it is not installed.
fn said(program: &str, option: &str, image: &std::path::Path) -> Option<String> {
    let program = ["/usr/sbin", "/sbin", "/usr/bin"].map(|dir| format!("{dir}/{program}"));
    let program = program.iter().find(|p| std::path::Path::new(p).exists())?;
    let output = Command::new(program).env("LC_ALL", "C").arg(option).arg(image).output().unwrap();
    Some([output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat())
}

/// Nothing overlaps, everything is where it was wanted.
fn is_sound(layout: &Layout, wanted: &[Wanted]) {
    let mut all: Vec<Range> = layout.tables.iter().map(|(at, b)| Range::new(*at, b.len() as u64)).collect();
    all.extend(&layout.partitions);
    all.sort_by_key(|range| range.start);
    assert!(all.windows(2).all(|pair| pair[0].end() <= pair[1].start), "{all:?}");
    assert_eq!(all.last().unwrap().end(), layout.size);
    for (range, wanted) in layout.partitions.iter().zip(wanted) {
        assert!(range.start.is_multiple_of(wanted.alignment));
        assert_eq!(range.len, wanted.size.next_multiple_of(SECTOR));
    }
}

#[test]
fn an_mbr_has_the_bytes_that_everybody_expects() {
    let layout = mbr(&[wanted(1, ALIGNMENT), wanted(1024, ALIGNMENT)]).unwrap();
    assert_eq!((layout.size, layout.tables.len()), ((2 << 20) + 1024, 1));
    let table = &layout.tables[0].1;
    assert!(table[..0x1be].iter().all(|b| *b == 0));
    assert_eq!(table[0x1be..0x1ce], [0x80, 254, 255, 255, 0x83, 254, 255, 255, 0, 8, 0, 0, 1, 0, 0, 0]);
    assert_eq!(table[0x1ce..0x1de], [0, 254, 255, 255, 0x83, 254, 255, 255, 0, 16, 0, 0, 2, 0, 0, 0]);
    assert_eq!(table[0x1fe..], [0x55, 0xaa]);
}

#[test]
fn a_disk_too_large_for_an_mbr_is_refused() {
    assert!(mbr(&[wanted(1 << 40, 512), wanted((1 << 40) - 512, 512)]).is_ok());
    assert!(mbr(&[wanted(1 << 41, 512), wanted(1, 512)]).unwrap_err().to_string().contains("GPT"));
    assert!(gpt(&[wanted(1 << 41, 512), wanted(1, 512)], Guid::LINUX).is_ok());
    for size in [Size::MAX.bytes(), u64::MAX] {
        assert!(gpt(&[wanted(size, 512)], Guid::LINUX).is_err());
    }
}

#[test]
fn sgdisk_and_sfdisk_find_no_fault() {
    for count in [1, 3, 4, 5, 9, 128, 131] {
        let parts: Vec<_> =
            (0..count).map(|n| wanted(1 + n * 700, if n % 2 == 0 { 4096 } else { 512 })).collect();
        let (gpt, mbr) = (gpt(&parts, Guid::from_random(1, 2)).unwrap(), mbr(&parts).unwrap());
        is_sound(&gpt, &parts);
        is_sound(&mbr, &parts);
        let (gpt, mbr) = (image(&gpt), image(&mbr));
        let checked = said("sgdisk", "-v", gpt.path());
        assert!(checked.is_none_or(|said| said.contains("No problems found")), "{count}");
        for image in [&gpt, &mbr] {
            let checked = said("sfdisk", "-V", image.path());
            assert!(checked.as_ref().is_none_or(|said| said.contains("No errors detected")), "{checked:?}");
            let listed = said("sfdisk", "-d", image.path());
            // Of more than 128 entries or some sixty logical partitions sfdisk does not speak.
            let found = listed.map(|said| said.matches("start=").count() as u64);
            let extended = u64::from(image.path() == mbr.path() && count > 4);
            assert!(count > 60 || found.is_none_or(|n| n == count + extended), "{found:?} of {count}");
        }
    }
}

proptest! {
    #[test]
    fn partitions_never_overlap(sizes in prop::collection::vec((1u64..1 << 34, 0u32..14), 1..150)) {
        let parts: Vec<_> = sizes.iter().map(|(size, bits)| wanted(*size, SECTOR << bits)).collect();
        is_sound(&gpt(&parts, Guid::LINUX).unwrap(), &parts);
        if let Ok(layout) = mbr(&parts) {
            is_sound(&layout, &parts);
        }
    }
}
