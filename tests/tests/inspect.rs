//! `ls`, `cat` and `cp` on file systems that others made: what comes out is what went in.

use conformance::Random;
use e2e::{Run, Server, directory, needs};
use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    },
    path::Path,
};

/// Files of all sizes, links of all kinds, and a large directory.
fn tree(at: &Path) {
    fs::create_dir_all(at.join("etc")).unwrap();
    fs::create_dir_all(at.join("usr/lib/deep/er")).unwrap();
    fs::create_dir_all(at.join("many")).unwrap();
    fs::write(at.join("usr/lib/os-release"), "NAME=\"Test\"\n").unwrap();
    for size in [0, 1, 59, 100, 1000, 1024, 4096, 60_000, 1_200_000] {
        let content: Vec<u8> = (0..size).map(|at| (at * 31 / 7 + size) as u8).collect();
        fs::write(at.join(format!("usr/lib/deep/er/{size}")), content).unwrap();
    }
    for number in 0..300 {
        fs::write(at.join(format!("many/täglich, and a name of some length {number}")), number.to_string())
            .unwrap();
    }
    let sparse = fs::File::create(at.join("usr/sparse")).unwrap();
    sparse.set_len(40 << 20).unwrap();
    sparse.write_all_at(b"in the middle", 20 << 20).unwrap();
    // Without it mke2fs 1.47.0 cuts the file off where inline data is on.
    sparse.write_all_at(b"at the end", (40 << 20) - 10).unwrap();
}

/// What FAT does not have.
fn links(at: &Path) {
    symlink("../usr/lib/os-release", at.join("etc/os-release")).unwrap();
    symlink("/etc/os-release", at.join("absolute")).unwrap();
    symlink("../../../../../etc/os-release", at.join("usr/beyond")).unwrap();
    symlink("circle", at.join("circle")).unwrap();
    symlink("x".repeat(200), at.join("usr/long link")).unwrap();
    fs::hard_link(at.join("usr/lib/os-release"), at.join("usr/second name")).unwrap();
    fs::set_permissions(at.join("usr/lib/deep/er/100"), fs::Permissions::from_mode(0o751)).unwrap();
}

fn same(one: &Path, other: &Path) {
    Run::new("diff").words("-r --no-dereference").args([one, other]).end().good();
}

/// Everything comes out of the disk as it went in, and links lead where they should.
fn comes_out(disk: &str, files: &Path, out: &Path) {
    fs::create_dir(out).unwrap();
    Run::diskpipe().words("cp -a").arg(disk).arg("/").arg(out).end().good();
    for own in ["lost+found", "rr_moved"] {
        let _ = fs::remove_dir(out.join(own));
    }
    same(files, out);
    for path in
        ["/etc/os-release", "absolute", "usr/beyond", "/usr/../etc//./os-release", "/../usr/second name"]
    {
        let text = Run::diskpipe().arg("cat").arg(disk).arg(path).text();
        assert_eq!(text, "NAME=\"Test\"\n", "{path} of {disk}");
    }
    let refused = Run::diskpipe().arg("cat").arg(disk).args([
        "circle",
        "/etc",
        "/none",
        "/etc/os-release/x",
        "/etc/os-release",
    ]);
    let refused = refused.end().code(1);
    assert_eq!(refused.text(), "NAME=\"Test\"\n");
    for why in ["may lead in a circle", "is a directory", "/none: no such file", "not a directory"] {
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
    }
    let mode = fs::metadata(out.join("usr/lib/deep/er/100")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o751);
}

#[test]
fn every_kind_of_ext_gives_back_what_it_was_given() {
    needs!("mke2fs", "diff");
    let dir = directory();
    let files = dir.path().join("files");
    tree(&files);
    links(&files);
    for (number, options) in [
        "-t ext2 -b 1024",
        "-t ext2 -b 4096 -O ^dir_index",
        "-t ext2 -r 0 -b 1024",
        "-t ext2 -O ^sparse_super,^filetype,^resize_inode -b 2048",
        "-t ext3 -b 1024",
        "-t ext3 -I 128",
        "-t ext4 -b 1024 -O inline_data",
        "-t ext4 -b 4096 -O inline_data -I 1024",
        "-t ext4 -b 1024 -g 1024 -O meta_bg,^resize_inode",
        "-t ext4 -b 1024 -g 1024 -O meta_bg,^resize_inode,^64bit,sparse_super2",
        "-t ext4 -b 1024 -O bigalloc,^resize_inode -C 16384",
        "-t ext4 -b 4096 -O bigalloc",
        "-t ext4 -b 2048 -O ^64bit,^metadata_csum,large_dir,ea_inode",
        "-t ext4 -b 65536",
        "-t ext4 -O mmp,casefold,encrypt,^has_journal",
    ]
    .into_iter()
    .enumerate()
    {
        let disk = dir.path().join("disk");
        let _ = fs::remove_file(&disk);
        Run::new("mke2fs")
            .words("-q -F -L label -d")
            .arg(&files)
            .words(options)
            .arg(&disk)
            .arg("64M")
            .end()
            .good();
        comes_out(&disk.display().to_string(), &files, &dir.path().join(number.to_string()));
    }
}

#[test]
fn changes_that_are_only_in_the_journal_are_seen() {
    needs!("mke2fs", "debugfs", "e2fsck");
    let dir = directory();
    let files = dir.path().join("files");
    fs::create_dir(&files).unwrap();
    fs::write(files.join("file"), [b'o'; 4096]).unwrap();
    for (options, magic) in [
        ("-t ext3 -b 1024", false),
        ("-t ext4 -b 1024 -O 64bit,metadata_csum", false),
        ("-t ext4 -b 4096 -O ^64bit,metadata_csum", true),
        ("-t ext4 -b 4096 -O ^64bit,^metadata_csum", true),
        // Without any fast commits nothing is missing.
        ("-t ext4 -b 1024 -O fast_commit", false),
    ] {
        let disk = dir.path().join("disk");
        let _ = fs::remove_file(&disk);
        Run::new("mke2fs").words("-q -F -d").arg(&files).words(options).arg(&disk).arg("16M").end().good();
        let debugfs = |command: &str| Run::new("debugfs").args(["-w", "-R", command]).arg(&disk).text();
        let block = debugfs("blocks /file").split_whitespace().next().unwrap().to_string();
        let size = if options.contains("1024") { 1024 } else { 4096 };
        // A block that begins as the journal's own do is escaped there.
        let mut changed = vec![b'n'; size];
        if magic {
            changed[..4].copy_from_slice(&[0xc0, 0x3b, 0x39, 0x98]);
        }
        fs::write(dir.path().join("changed"), &changed).unwrap();
        let commands = format!("jo\njw -b {block} {}\njc\n", dir.path().join("changed").display());
        fs::write(dir.path().join("commands"), commands).unwrap();
        Run::new("debugfs").arg("-w").arg("-f").arg(dir.path().join("commands")).arg(&disk).end().good();
        let before = fs::read(&disk).unwrap();
        let read = || Run::diskpipe().arg("cat").arg(&disk).arg("file").end().good();
        let mut expected = vec![b'o'; 4096];
        expected[..size].copy_from_slice(&changed);
        let replayed = read();
        assert!(replayed.stdout == expected, "{options}: {}", replayed.stderr);
        assert!(replayed.stderr.is_empty(), "{}", replayed.stderr);
        assert!(before == fs::read(&disk).unwrap(), "{options}: the disk was changed");
        let cleaned = Run::new("e2fsck").arg("-fy").arg(&disk).end();
        assert!(cleaned.stdout.windows(7).any(|w| w == b"journal"), "{}", cleaned.text());
        assert!(read().stdout == expected, "{options}");
    }
}

#[test]
fn fat_gives_back_names_and_content_of_all_three_sizes() {
    needs!("mkfs.vfat", "mcopy", "mattrib", "diff");
    let dir = directory();
    let files = dir.path().join("files");
    tree(&files);
    fs::remove_file(files.join("usr/sparse")).unwrap();
    for (number, options) in
        ["-F 12 -s 8", "-F 16", "-F 32 -s 1", "-F 16 -S 2048", "-F 12 -S 512 -s 64 -r 112 -f 1"]
            .into_iter()
            .enumerate()
    {
        let disk = dir.path().join("disk");
        let _ = fs::remove_file(&disk);
        fs::File::create(&disk)
            .unwrap()
            .set_len(if options.contains("12") { 12 << 20 } else { 64 << 20 })
            .unwrap();
        Run::new("mkfs.vfat").words("-n E2E -i 1234abcd").words(options).arg(&disk).end().good();
        for name in ["etc", "usr", "many"] {
            Run::new("mcopy")
                .env("MTOOLS_SKIP_CHECK", "1")
                .words("-s -p -m -i")
                .arg(&disk)
                .arg(files.join(name))
                .arg("::")
                .end()
                .good();
        }
        Run::new("mattrib")
            .env("MTOOLS_SKIP_CHECK", "1")
            .words("+r -i")
            .arg(&disk)
            .arg("::/usr/lib/os-release")
            .end()
            .good();
        let out = dir.path().join(number.to_string());
        fs::create_dir(&out).unwrap();
        Run::diskpipe().words("cp -r").arg(&disk).arg("/").arg(&out).end().good();
        same(&files, &out);
        let in_any_case = Run::diskpipe().arg("cat").arg(&disk).arg("/USR/Lib/OS-Release").text();
        assert_eq!(in_any_case, "NAME=\"Test\"\n");
        let listed = Run::diskpipe().words("ls -l").arg(&disk).arg("/usr/lib").text();
        assert!(listed.contains("-r--r--r-- 1 0 0 12 ") && listed.contains("drwxr-xr-x"), "{listed}");
        // mtools keep local time, as the kernel does; the tests run in UTC or say nothing of it.
        let listed = Run::diskpipe().words("ls --json").arg(&disk).arg("/many").text();
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        assert_eq!(listed["listings"][0]["entries"].as_array().unwrap().len(), 300);
    }
}

#[test]
fn iso_images_are_read_with_the_best_names_that_they_have() {
    needs!("xorriso", "genisoimage", "diff");
    let dir = directory();
    let files = dir.path().join("files");
    tree(&files);
    links(&files);
    // So deep that Rock Ridge moves it elsewhere.
    fs::create_dir_all(files.join("1/2/3/4/5/6/7/8/9/10")).unwrap();
    fs::write(files.join("1/2/3/4/5/6/7/8/9/10/deep"), "deep").unwrap();
    let disk = dir.path().join("disk");
    let image = |command: &str| {
        let _ = fs::remove_file(&disk);
        Run::sh(&format!("cd \"$FILES\" && {command}")).env("FILES", &files).env("DISK", &disk).end().good();
    };
    image("genisoimage -quiet -V LABEL -R -o \"$DISK\" . 2>&1");
    comes_out(&disk.display().to_string(), &files, &dir.path().join("rock ridge"));
    image("xorriso -as mkisofs -quiet -R -J -V LABEL -o \"$DISK\" . 2>&1");
    comes_out(&disk.display().to_string(), &files, &dir.path().join("xorriso"));
    // Without links, which others than Rock Ridge do not have.
    for link in ["etc/os-release", "absolute", "usr/beyond", "circle", "usr/long link"] {
        fs::remove_file(files.join(link)).unwrap();
    }
    fs::remove_dir_all(files.join("1")).unwrap();
    image("genisoimage -quiet -J -joliet-long -input-charset utf-8 -o \"$DISK\" . 2>&1");
    let out = dir.path().join("joliet");
    fs::create_dir(&out).unwrap();
    Run::diskpipe().words("cp -r").arg(&disk).arg("/").arg(&out).end().good();
    same(&files, &out);
    image("genisoimage -quiet -o \"$DISK\" . 2>&1");
    let text = Run::diskpipe().arg("cat").arg(&disk).arg("/usr/lib/os_relea").end();
    let listed = Run::diskpipe().words("ls -R").arg(&disk).text();
    assert!(listed.contains("OS_RELEA"), "{listed}");
    assert_eq!(text.good().text(), "NAME=\"Test\"\n");
}

#[test]
fn what_our_own_plugins_make_is_read_and_counted_in_kilobytes() {
    needs!("mke2fs", "nbdkit");
    let dir = directory();
    let files = dir.path().join("files");
    tree(&files);
    links(&files);
    for plugin in ["linuxdisk", "linuxdisk type=ext4 size=4G", "iso"] {
        let words: Vec<&str> = plugin.split(' ').collect();
        let disk = dir.path().join("disk");
        let copy = format!("nbdcopy \"$uri\" '{}'", disk.display());
        let serve = Run::diskpipe().arg("serve").arg(words[0]).arg(&files).args(&words[1..]);
        serve.args(["--run", &copy]).end().good();
        let log = dir.path().join("log");
        let (requests, bytes, text) = counted(&disk, &log, Run::diskpipe().arg("cat"), "/etc/os-release");
        assert_eq!(text, "NAME=\"Test\"\n", "{plugin}");
        assert!((1..=24).contains(&requests), "{plugin}: {requests} requests");
        assert!(bytes <= 96 << 10, "{plugin}: {bytes} bytes in {requests} requests");
    }
}

/// How many requests a command makes of a disk, how many bytes they are, and what it writes.
fn counted(disk: &Path, log: &Path, command: Run, end: &str) -> (usize, u64, String) {
    let _ = fs::remove_file(log);
    let server = Server::nbdkit(&format!("--filter=log file {} logfile={}", disk.display(), log.display()));
    let text = command.arg(server.uri()).words(end).text();
    drop(server);
    let log = fs::read_to_string(log).unwrap();
    let counts = log.lines().filter(|line| line.contains(" Read ")).filter_map(|line| {
        let count = line.split("count=0x").nth(1)?.split_whitespace().next()?;
        u64::from_str_radix(count, 16).ok()
    });
    let counts: Vec<u64> = counts.collect();
    (counts.len(), counts.iter().sum(), text)
}

#[test]
fn many_files_take_few_requests() {
    needs!("mke2fs", "nbdkit");
    let dir = directory();
    let files = dir.path().join("files");
    fs::create_dir_all(files.join("many")).unwrap();
    for number in 0..2000 {
        fs::write(files.join(format!("many/{number}")), number.to_string()).unwrap();
    }
    let (disk, log) = (dir.path().join("disk"), dir.path().join("log"));
    let make = Run::new("mke2fs").words("-q -F -t ext4 -b 4096 -I 256 -d").arg(&files).arg(&disk).arg("64M");
    make.end().good();
    // Inodes are in 125 blocks, contents in 2000.
    let (requests, bytes, text) = counted(&disk, &log, Run::diskpipe().words("ls -l"), "/many");
    assert_eq!(text.lines().count(), 2000);
    assert!(requests <= 50 && bytes <= 1 << 20, "ls: {requests} requests, {bytes} bytes");
    let out = dir.path().join("out");
    let end = format!("/many {}", out.display());
    let (requests, bytes, _) = counted(&disk, &log, Run::diskpipe().words("cp -r"), &end);
    assert!(requests <= 400 && bytes <= 12 << 20, "cp: {requests} requests, {bytes} bytes");
    same(&files.join("many"), &out);
}

#[test]
fn holes_stay_holes() {
    needs!("mke2fs");
    let dir = directory();
    let files = dir.path().join("files");
    fs::create_dir(&files).unwrap();
    let file = fs::File::create(files.join("sparse")).unwrap();
    file.set_len(8 << 20).unwrap();
    for at in 0..128 {
        file.write_all_at(&[at as u8 + 1; 4096], at << 16).unwrap();
    }
    let used = |path: &Path| fs::metadata(path).unwrap().blocks() * 512;
    if used(&files.join("sparse")) > 2 << 20 {
        return e2e::skip("needs a file system that keeps holes of 60K");
    }
    for kind in ["ext2", "ext4"] {
        let (disk, out) = (dir.path().join("disk"), dir.path().join(kind));
        let _ = fs::remove_file(&disk);
        let make = Run::new("mke2fs").words("-q -F -b 1024 -t").args([kind, "-d"]).arg(&files).arg(&disk);
        make.arg("16M").end().good();
        Run::diskpipe().arg("cp").arg(&disk).arg("sparse").arg(&out).end().good();
        assert!(fs::read(&out).unwrap() == fs::read(files.join("sparse")).unwrap(), "{kind}");
        assert!(used(&out) <= 2 << 20, "{kind}: {} bytes are used", used(&out));
    }
}

/// A tree that no one has seen before: names of any bytes, links to anywhere, files of odd sizes and with holes.
fn random_tree(at: &Path, random: &mut Random) {
    let mut directories = vec![at.to_path_buf()];
    fs::create_dir(at).unwrap();
    for number in 0..250 {
        let mut name = match random.below(8) {
            0 => (0..=random.below(30)).map(|_| random.any() as u8).filter(|b| !b"/\0".contains(b)).collect(),
            1 => vec![b'n'; 250 - number.to_string().len()],
            _ => "naïve .-_日".as_bytes()[..random.below(7) as usize + 7].to_vec(),
        };
        name.extend(number.to_string().bytes());
        let directory = directories[random.below(directories.len() as u64) as usize].clone();
        let path = directory.join(OsStr::from_bytes(&name));
        match random.below(10) {
            0 | 1 if path.as_os_str().len() < 1500 => {
                fs::create_dir(&path).unwrap();
                directories.push(path);
            }
            2 => symlink("../".repeat(random.below(60) as usize) + "x", &path).unwrap(),
            3 => {
                let file = fs::File::create(&path).unwrap();
                for _ in 0..random.below(5) {
                    let piece = vec![random.any() as u8; 1 + random.below(9000) as usize];
                    file.write_all_at(&piece, random.below(3 << 20)).unwrap();
                }
                // mke2fs 1.47.0 loses a hole at the end where inline data is on; so there is none.
            }
            _ => {
                let size = [0, 1, 59, 60, 61, 150, 160, 1023, 1025, 4096, 10_001][random.below(11) as usize];
                fs::write(&path, vec![random.any() as u8; size]).unwrap();
            }
        }
    }
}

#[test]
fn any_tree_comes_back() {
    needs!("mke2fs", "genisoimage", "diff");
    // Another tree comes of another seed: TREE_SEED=n.
    let seed = std::env::var("TREE_SEED").map_or(1, |n| n.parse().unwrap());
    let dir = directory();
    let files = dir.path().join("files");
    random_tree(&files, &mut Random::new(seed));
    let disk = dir.path().join("disk");
    for (number, make) in [
        "mke2fs -q -F -t ext2 -b 1024 -I 128 -d \"$FILES\" \"$DISK\" 64M",
        "mke2fs -q -F -t ext4 -d \"$FILES\" \"$DISK\" 64M",
        "mke2fs -q -F -t ext4 -b 1024 -O inline_data -I 512 -d \"$FILES\" \"$DISK\" 64M",
        "cd \"$FILES\" && genisoimage -quiet -R -o \"$DISK\" . 2>&1",
    ]
    .into_iter()
    .enumerate()
    {
        let _ = fs::remove_file(&disk);
        Run::sh(make).env("FILES", &files).env("DISK", &disk).end().good();
        let out = dir.path().join(number.to_string());
        fs::create_dir(&out).unwrap();
        Run::diskpipe().words("cp -a").arg(&disk).arg("/").arg(&out).end().good();
        for own in ["lost+found", "rr_moved"] {
            let _ = fs::remove_dir(out.join(own));
        }
        same(&files, &out);
    }
}
