//! A directory as a FAT disk, read and checked by dosfstools and mtools.

use e2e::{Run, directory, needs};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

/// Where the partition begins.
const PARTITION: u64 = 1 << 20;

/// The disk's image, and its partition alone.
fn image(dir: &Path, arguments: &[&str], at: &Path) -> (PathBuf, PathBuf) {
    let (disk, partition) = (at.join("disk"), at.join("partition"));
    for (filter, image) in [("", &disk), ("--filter=offset offset=1M", &partition)] {
        let copy = format!("nbdcopy \"$uri\" '{}'", image.display());
        let serve = Run::diskpipe().words("serve floppy").arg(dir).args(arguments).words(filter);
        serve.args(["--run", &copy]).end().good();
    }
    (disk, partition)
}

/// Directories in directories, files of all sizes, and every kind of name.
fn tree(at: &Path) {
    let mut dice = 12_345_u64;
    let mut below = |limit: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % limit
    };
    let words =
        ["a", "Long name with blanks", "UPPER", "täglich", "日本語", "x.tar.gz", ".hidden", "a+b", "ÆØÅ"];
    for number in 0..300 {
        let mut path = at.to_owned();
        for _ in 0..below(4) {
            path.push(format!("{}{}", words[below(9) as usize], below(3)));
        }
        fs::create_dir_all(&path).unwrap();
        let size = [0, 1, 511, 512, 513, 5000, 70_000][below(7) as usize];
        let content: Vec<u8> = (0..size).map(|at| (at * 31 + number) as u8).collect();
        fs::write(path.join(format!("{} {number}.Text", words[below(9) as usize])), content).unwrap();
    }
    fs::create_dir(at.join("empty")).unwrap();
    fs::write(at.join("README.TXT"), "read me").unwrap();
}

#[test]
fn what_is_in_the_directory_is_what_others_read_on_the_disk() {
    needs!("fsck.vfat", "mcopy", "mdir", "sfdisk", "nbdcopy", "diff");
    let dir = directory();
    let (files, back) = (dir.path().join("files"), dir.path().join("back"));
    fs::create_dir(&files).unwrap();
    fs::create_dir(&back).unwrap();
    tree(&files);
    let (disk, partition) = image(&files, &["label=E2E DISK"], dir.path());
    let table = Run::new("sfdisk").args(["--verify", "--json"]).arg(&disk).text();
    assert!(table.contains("\"type\": \"c\"") && table.contains("\"start\": 2048"), "{table}");
    let checked = Run::new("fsck.vfat").words("-n -v").arg(&partition).end().code(0).text();
    for wrong in ["Warning", "wrong", "differ", "ruct", "Fixing", "Auto", "Truncating"] {
        assert!(!checked.contains(wrong), "{checked}");
    }
    let place = format!("{}@@{PARTITION}", disk.display());
    let listing = Run::new("mdir").args(["-i", &place, "::/"]).end().good();
    assert!(listing.text().contains("E2E DISK") && listing.stderr.is_empty(), "{}", listing.stderr);
    Run::new("mcopy").words("-s -n -m -i").args([&place, "::/"]).arg(&back).end().good();
    Run::new("diff").arg("-r").args([&files, &back]).end().good();
    // Times are kept, to two seconds.
    let time = |dir: &Path| fs::metadata(dir.join("README.TXT")).unwrap().mtime() / 2;
    assert_eq!(time(&files), time(&back));
}

#[test]
fn a_disk_has_the_size_that_was_asked_for_and_room_for_more() {
    needs!("fsck.vfat", "mdir", "nbdcopy");
    let dir = directory();
    let files = dir.path().join("files");
    fs::create_dir(&files).unwrap();
    fs::write(files.join("file"), vec![7; 100_000]).unwrap();
    // Sizes that other cluster sizes are right for, and one that is too small for a proper FAT32, which mtools refuses.
    for (size, bytes) in [("2M", 2 << 20), ("64M", 64 << 20), ("300M", 300 << 20), ("9G", 9_u64 << 30)] {
        let (disk, partition) = image(&files, &[&format!("size={size}")], dir.path());
        assert_eq!(fs::metadata(&disk).unwrap().len(), bytes);
        assert!(fs::metadata(&disk).unwrap().blocks() * 512 < 40 << 20, "the free part is a hole");
        let checked = Run::new("fsck.vfat").words("-n -v").arg(&partition).end().code(0).text();
        assert!(!checked.contains("wrong"), "{checked}");
        if bytes < 33 << 20 {
            continue;
        }
        let place = format!("{}@@{PARTITION}", disk.display());
        let free = Run::new("mdir").args(["-i", &place, "::/"]).text();
        assert!(free.contains("100 000") || free.contains("100000"), "{free}");
    }
}

#[test]
fn what_cannot_be_on_the_disk_ends_the_server_with_a_sentence() {
    let dir = directory();
    let refused = |why: &str| {
        let ended =
            Run::diskpipe().words("serve floppy").arg(dir.path()).args(["--run", "true"]).end().code(1);
        assert!(ended.stderr.contains(why), "{}", ended.stderr);
    };
    symlink(".", dir.path().join("loop")).unwrap();
    fs::write(dir.path().join("what?"), "").unwrap();
    refused("what?: none of");
    fs::remove_file(dir.path().join("what?")).unwrap();
    fs::File::create(dir.path().join("large")).and_then(|file| file.set_len(5 << 30)).unwrap();
    refused("large: a file in FAT has less than 4 GiB");
}

#[test]
fn a_file_that_shrinks_while_it_is_served_is_an_error_for_its_readers_only() {
    needs!("nbdsh");
    let dir = directory();
    for name in ["first", "second"] {
        fs::write(dir.path().join(name), vec![7; 300_000]).unwrap();
    }
    let server = e2e::Server::ours(&format!("floppy {}", dir.path().display()));
    fs::write(dir.path().join("first"), "short").unwrap();
    let script = format!(
        "h.connect_uri('{}')\n\
         size = h.get_size()\n\
         bad = 0\n\
         good = 0\n\
         for at in range(0, size - 65536, 65536):\n\
        \x20   try:\n\
        \x20       good += h.pread(65536, at).count(b'\\x07' * 1000)\n\
        \x20   except nbd.Error as e:\n\
        \x20       assert e.errno == 'EIO', e\n\
        \x20       bad += 1\n\
         print(bad >= 4 and bad <= 6 and good > 200)",
        server.uri()
    );
    assert_eq!(Run::new("nbdsh").arg("-c").arg(&script).text(), "True\n");
}
