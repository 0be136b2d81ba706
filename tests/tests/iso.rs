//! Directories as a CD, read by isoinfo and xorriso, and booted from.

use e2e::{Machine, Run, Server, directory, needs};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// A shell command that copies the CD there.
fn copy(to: &Path) -> String {
    format!("nbdcopy \"$uri\" '{}'", to.display())
}

/// Directories in directories, files of all sizes, and every kind of name.
fn tree(at: &Path) {
    let words =
        ["a", "Long name with blanks", "UPPER", "täglich", "日本語", "x.tar.gz", ".hidden", "what?", "a:b"];
    for number in 0..400_usize {
        let mut path = at.to_owned();
        for depth in 0..number % 12 {
            path.push(format!("{}{}", words[(number / 7 + depth) % 9], number % 3));
        }
        fs::create_dir_all(&path).unwrap();
        let size = [0, 1, 2047, 2048, 2049, 5000, 70_000][number % 7];
        let content: Vec<u8> = (0..size).map(|at| (at * 31 + number) as u8).collect();
        fs::write(path.join(format!("{} {number}.text", words[number % 9])), content).unwrap();
    }
    fs::write(at.join("n".repeat(255)), "the longest name").unwrap();
    fs::write(at.join("script"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(at.join("script"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::hard_link(at.join("script"), at.join("second name")).unwrap();
    symlink("../up/./and/down", at.join("link")).unwrap();
    symlink("/long".repeat(200), at.join("long link")).unwrap();
}

#[test]
fn what_is_in_the_directory_is_what_others_read_on_the_cd() {
    needs!("isoinfo", "xorriso", "nbdcopy", "diff");
    let dir = directory();
    let (files, back, cd) = (dir.path().join("files"), dir.path().join("back"), dir.path().join("cd"));
    fs::create_dir(&files).unwrap();
    tree(&files);
    let serve = Run::diskpipe().words("serve iso").arg(&files).arg("params=-V 'E2E disk' -l");
    serve.args(["--run", &copy(&cd)]).end().good();
    // With Rock Ridge nothing is lost.
    Run::new("xorriso")
        .words("-report_about SORRY -abort_on FAILURE -osirrox on:o_excl_off -indev")
        .arg(&cd)
        .words("-extract /")
        .arg(&back)
        .end()
        .good();
    Run::new("diff").words("-r --no-dereference").args([&files, &back]).end().good();
    let mode = |dir: &Path| fs::metadata(dir.join("script")).unwrap().permissions().mode();
    assert_eq!(mode(&files), mode(&back));
    let isoinfo = |options: &str| Run::new("isoinfo").words(options).arg("-i").arg(&cd).text();
    let about = isoinfo("-d");
    for said in
        ["Volume id: E2E disk", "Joliet with UCS level 3 found", "Rock Ridge signatures version 1 found"]
    {
        assert!(about.contains(said), "{about}");
    }
    let listed = |options: &str| isoinfo(options).lines().filter(|line| line.starts_with('/')).count();
    let found = Run::new("find").arg(&files).words("-mindepth 1 -printf /%P\\n").text();
    assert_eq!(listed("-R -f"), found.lines().count());
    let found = Run::new("find").arg(&files).words("-mindepth 1 ( -type f -o -type d )").text();
    assert_eq!(listed("-J -f"), found.lines().count());
    let listing = isoinfo("-J -l");
    assert!(listing.contains("Long name with blanks 1.text"), "{listing}");
}

#[test]
fn several_directories_become_one() {
    needs!("isoinfo", "nbdcopy");
    let dir = directory();
    for (file, content) in [("a/sub/one", "1"), ("a/both", "first"), ("b/sub/two", "2"), ("b/both", "second")]
    {
        fs::create_dir_all(dir.path().join(file).parent().unwrap()).unwrap();
        fs::write(dir.path().join(file), content).unwrap();
    }
    let serve = |command: &str| Run::serve("iso a b", command).in_directory(dir.path()).text();
    let listed = serve("nbdcopy $uri cd && isoinfo -J -f -i cd");
    let mut listed: Vec<_> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, ["/both", "/sub", "/sub/one", "/sub/two"]);
    assert_eq!(serve("nbdcopy $uri cd && isoinfo -R -x /both -i cd"), "second");
}

#[test]
fn another_program_makes_the_cd() {
    needs!("genisoimage", "xorriso", "isoinfo", "nbdcopy");
    let dir = directory();
    fs::create_dir(dir.path().join("a dir")).unwrap();
    fs::write(dir.path().join("a dir/hello.txt"), "hello").unwrap();
    for program in ["genisoimage", "xorriso"] {
        let serve = Run::diskpipe().words("serve iso").arg(dir.path().join("a dir"));
        let serve = serve.arg(format!("prog={program}")).arg("params=-quiet -JrT -V \"My Disk Image\"");
        let run = "nbdcopy $uri cd && isoinfo -d -i cd && isoinfo -J -f -i cd";
        let said = serve.args(["--run", run]).in_directory(dir.path()).text();
        assert!(said.contains("Volume id: My Disk Image") && said.contains("/hello.txt"), "{said}");
    }
    let refused =
        Run::diskpipe().words("serve iso .").arg("params=-udf").args(["--run", "true"]).end().code(1);
    assert!(refused.stderr.contains("-udf is not understood here (or give prog="), "{}", refused.stderr);
}

/// A boot sector that says something on the first serial line: `call` and `pop` find out where it is, then each byte is
/// sent when the line is free.
fn boot_sector(says: &str) -> Vec<u8> {
    let mut code = vec![
        0xe8, 0, 0, 0x5e, 0x83, 0xc6, 34, 0x0e, 0x1f, 0xfc, 0xac, 0x84, 0xc0, 0x74, 18, 0x88, 0xc4, 0xba,
        0xfd, 3, 0xec, 0xa8, 0x20, 0x74, 0xfb, 0x88, 0xe0, 0xba, 0xf8, 3, 0xee, 0xeb, 0xe9, 0xfa, 0xf4, 0xeb,
        0xfc,
    ];
    assert_eq!(code.len(), 37);
    code.extend(says.bytes());
    code.push(0);
    code
}

#[test]
fn a_machine_boots_from_the_cd() {
    let dir = directory();
    fs::create_dir(dir.path().join("boot")).unwrap();
    fs::write(dir.path().join("boot/sector.bin"), boot_sector("booted without emulation\r\n")).unwrap();
    let mut floppy = boot_sector("booted as a floppy\r\n");
    floppy.resize(510, 0);
    floppy.extend([0x55, 0xaa]);
    floppy.resize(1_474_560, 0);
    fs::write(dir.path().join("boot/floppy.img"), floppy).unwrap();
    for (params, says) in [
        ("-b boot/sector.bin -c boot/boot.cat -no-emul-boot -boot-load-size 4", "booted without emulation"),
        ("-b boot/floppy.img", "booted as a floppy"),
    ] {
        let server = Server::start(|socket| {
            let serve = Run::diskpipe().words("serve -f -U").arg(socket).words("iso").arg(dir.path());
            serve.arg(format!("params={params}"))
        });
        let drive = format!("file=nbd:unix:{},format=raw,media=cdrom,readonly=on", server.socket().display());
        let Some(mut machine) = Machine::start(&["-drive", &drive, "-boot", "d"]) else { return };
        machine.expect(says);
    }
}
