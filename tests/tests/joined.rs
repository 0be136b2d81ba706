//! Disks made of files: one behind the other, or as partitions with a table before them.

use e2e::{Run, directory, needs};
use std::fs;
use std::path::Path;

/// Files of these sizes, and all their bytes.
fn files(directory: &Path, sizes: &[usize]) -> Vec<Vec<u8>> {
    let content = |number: usize, size: usize| -> Vec<u8> {
        (0..size).map(|at| (at * 7 + at / 251 * (number + 1) + number) as u8 | 1).collect()
    };
    let contents: Vec<_> = sizes.iter().enumerate().map(|(number, size)| content(number, *size)).collect();
    for (number, content) in contents.iter().enumerate() {
        fs::write(directory.join(format!("f{number}")), content).unwrap();
    }
    contents
}

#[test]
fn pieces_make_the_disk_that_was_cut() {
    needs!("nbdcopy", "qemu-io");
    let dir = directory();
    let contents = files(dir.path(), &[100_000, 1, 65_536, 300_001]);
    let run = |command: &str| {
        Run::serve("-U - split f0 f1 f2 f3", command).in_directory(dir.path()).end().good();
    };
    run(r#"nbdcopy "$uri" copy"#);
    assert!(fs::read(dir.path().join("copy")).unwrap() == contents.concat());
    // Across two borders.
    run(r#"qemu-io -f raw -c "write -P 0x5a 99999 65539" -c "read -P 0x5a 99999 65539" "$uri""#);
    let mut expected = contents.concat();
    expected[99_999..][..65_539].fill(0x5a);
    let now: Vec<u8> = (0..4).flat_map(|n| fs::read(dir.path().join(format!("f{n}"))).unwrap()).collect();
    assert!(now == expected);
}

#[test]
fn our_split_is_the_peers_split() {
    needs!("nbdkit", "nbdcopy");
    let dir = directory();
    files(dir.path(), &[4096, 1 << 20, 512]);
    let copy = r#"nbdcopy "$uri" "#;
    Run::serve("-U - -r split f0 f1 f2", &format!("{copy} ours")).in_directory(dir.path()).end().good();
    let peer = Run::new("nbdkit").words("-U - -r split f0 f1 f2 --run").arg(format!("{copy} theirs"));
    peer.in_directory(dir.path()).end().good();
    Run::new("cmp").words("ours theirs").in_directory(dir.path()).end().good();
}

/// What the table says of each partition: its first byte and its length.
fn partitions(image: &Path) -> Vec<(usize, usize)> {
    let said = Run::new("sfdisk").arg("--json").arg(image).text();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let list = said["partitiontable"]["partitions"].as_array().unwrap().clone();
    let list = list.iter().filter(|p| p["type"] != "f");
    let bytes = |value: &serde_json::Value| value.as_u64().unwrap() as usize * 512;
    list.map(|p| (bytes(&p["start"]), bytes(&p["size"]))).collect()
}

#[test]
fn tables_are_clean_and_partitions_hold_their_files() {
    needs!("nbdcopy", "sgdisk", "sfdisk");
    let sizes = [512, 1, 70_000, 1 << 20, 513, 4096, 99];
    for (count, more) in [
        (1, "partition-type=gpt"),
        (7, ""),
        (7, "partition-type=gpt alignment=512"),
        (2, ""),
        (4, ""),
        (7, "partition-type=mbr"),
        (5, "alignment=512 partition-type=mbr"),
    ] {
        let dir = directory();
        let contents = files(dir.path(), &sizes[..count]);
        let names: Vec<String> = (0..count).map(|number| format!("f{number}")).collect();
        let serve = format!("-U - partitioning {more} {}", names.join(" "));
        Run::serve(&serve, r#"nbdcopy "$uri" disk"#).in_directory(dir.path()).end().good();
        let (disk, at) = (fs::read(dir.path().join("disk")).unwrap(), dir.path().join("disk"));
        let said = Run::new("sfdisk").arg("-V").arg(&at).end().good().text();
        assert!(said.contains("No errors detected"), "{serve}: {said}");
        if disk[512..520] == *b"EFI PART" {
            let said = Run::new("sgdisk").arg("-v").arg(&at).end().good().text();
            assert!(said.contains("No problems found"), "{serve}: {said}");
        }
        let found = partitions(&at);
        assert_eq!(found.len(), count, "{serve}");
        for ((start, len), content) in found.into_iter().zip(&contents) {
            assert_eq!(len, content.len().next_multiple_of(512));
            assert!(disk[start..start + content.len()] == content[..], "{serve}");
        }
    }
}

#[test]
fn an_mbr_is_the_peers_byte_for_byte() {
    needs!("nbdkit", "nbdcopy");
    let dir = directory();
    files(dir.path(), &[1000, 1 << 20, 5000, 700, 513, 1]);
    for arguments in [
        "f0 f1 f2",
        "alignment=4096 f0 mbr-id=0x82 f1 alignment=512 mbr-id=default f2",
        "f0 f1 f2 f3 f4 f5 partition-type=mbr",
    ] {
        let copy = r#"nbdcopy "$uri" "#;
        let ours = Run::serve(&format!("-U - partitioning {arguments}"), &format!("{copy} ours"));
        ours.in_directory(dir.path()).end().good();
        let theirs = Run::new("nbdkit").words(&format!("-U - partitioning {arguments} --run"));
        theirs.arg(format!("{copy} theirs")).in_directory(dir.path()).end().good();
        Run::new("cmp").words("ours theirs").in_directory(dir.path()).end().good();
    }
}
