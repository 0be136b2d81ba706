//! Filters that change what a disk holds, or what is said of it, beside the same filters of the peer.

use e2e::{Run, Server, directory, needs};
use std::fs;

/// What our own server and the peer's print for one command.
#[track_caller]
fn both(arguments: &str, command: &str) -> [String; 2] {
    let ours = Run::serve(arguments, command).text();
    let theirs = Run::new("nbdkit").words("-U -").words(arguments).args(["--run", command]).text();
    [ours, theirs]
}

#[track_caller]
fn nbdsh(arguments: &str, script: &str) -> String {
    Run::serve(arguments, &format!("nbdsh -u \"$uri\" -c '{script}'")).text()
}

#[test]
fn swapped_bytes_are_those_of_the_peer() {
    needs!("nbdkit", "nbdcopy", "sha256sum");
    for bits in [8, 16, 32, 64] {
        let arguments = format!("--filter=swab pattern 1000003 swab-bits={bits}");
        let [ours, theirs] = both(&arguments, "nbdcopy \"$uri\" - | sha256sum");
        assert_eq!(ours, theirs, "{bits}");
    }
}

#[test]
fn a_value_over_the_disk_goes_there_and_back() {
    needs!("nbdsh");
    let dir = directory();
    let disk = dir.path().join("disk");
    fs::write(&disk, vec![0; 4096]).unwrap();
    let arguments = format!("--filter=xor file {} xor=0x123456 xorlen=3", disk.display());
    let said = nbdsh(
        &arguments,
        "h.pwrite(b\"hello\", 100); h.zero(10, 200); print(h.pread(5, 100), h.pread(10, 200))",
    );
    assert_eq!(
        said.trim(),
        "bytearray(b'hello') bytearray(b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00')"
    );
    let bytes = fs::read(&disk).unwrap();
    let key = [0x12, 0x34, 0x56];
    let plain: Vec<u8> = (100..105).map(|at| bytes[at] ^ key[at % 3]).collect();
    assert_eq!(plain, b"hello");
    assert_eq!(bytes[200..203], [key[2], key[0], key[1]]);
}

#[test]
fn sectors_change_places() {
    needs!("nbdsh");
    let script = "a = h.pread(512, 0); b = h.pread(512, 512); print(a[0:8] == (512).to_bytes(8, \"big\"), b[0:8] == bytes(8))";
    assert_eq!(nbdsh("--filter=map pattern 4096 map=0-511:512 map=512-1023:0", script).trim(), "True True");
}

#[test]
fn a_copy_onto_itself_is_checked_by_whoever_copies() {
    needs!("nbdkit", "nbdcopy", "qemu-img");
    let arguments = "--filter=checkwrite pattern 4M";
    Run::serve(arguments, "nbdcopy \"$uri\" \"$uri\" && qemu-img convert -n -f raw -O raw \"$uri\" \"$uri\"")
        .end()
        .good();
    let wrong = "dd if=/dev/urandom bs=4096 count=1 of=noise 2> dd && ! nbdcopy noise \"$uri\" 2> nbdcopy";
    let dir = directory();
    Run::serve(arguments, wrong).in_directory(dir.path()).end().good();
    // Holes and zeroes are one, and trims are checked as well.
    let script = "h.zero(4096, 0); h.trim(4096, 4096)";
    Run::serve("--filter=checkwrite memory 1M", &format!("nbdsh -u \"$uri\" -c '{script}'")).end().good();
}

#[test]
fn a_list_of_extents_is_read_as_the_peer_reads_it() {
    needs!("nbdkit", "nbdinfo");
    let dir = directory();
    let list = dir.path().join("list");
    fs::write(&list, "64K 64K\n512K 64K zero\n1M 4096 2\n2M 1M hole,zero\n3M 4K hole\n").unwrap();
    let arguments = format!("-r --filter=extentlist pattern 4M extentlist={}", list.display());
    let [ours, theirs] = both(&arguments, "nbdinfo --map \"$uri\"");
    assert_eq!(ours, theirs);
}

#[test]
fn clients_are_told_the_block_sizes_of_the_policy_and_held_to_them() {
    needs!("nbdkit", "nbdinfo", "nbdsh");
    let sizes = "blocksize-minimum=4K blocksize-preferred=64K blocksize-maximum=1M";
    let arguments = format!("--filter=blocksize-policy memory 1M {sizes}");
    let [ours, theirs] = both(&arguments, "nbdinfo \"$uri\" | grep block_size");
    assert_eq!(ours, theirs);
    let unaligned = "h.set_strict_mode(0)\ntry:\n  h.pread(512, 512); print(\"read\")\nexcept nbd.Error as e:\n  print(e.errno)";
    assert_eq!(nbdsh(&arguments, unaligned).trim(), "read");
    assert_eq!(nbdsh(&format!("{arguments} blocksize-error-policy=error"), unaligned).trim(), "EINVAL");
    // Told to be large, and cut and filled up all the same.
    let both = "--filter=blocksize-policy --filter=blocksize memory 1M blocksize-minimum=64K minblock=64K";
    assert_eq!(nbdsh(both, unaligned).trim(), "read");
}

#[test]
fn facts_are_changed_by_name() {
    needs!("nbdinfo");
    let is = |arguments: &str, question: &str| {
        let command = format!("nbdinfo {question} \"$uri\" && echo yes || echo no");
        Run::serve(arguments, &command).text().trim() == "yes"
    };
    assert!(is("--filter=rotational memory 1M", "--is rotational"));
    assert!(!is("--filter=rotational memory 1M rotational=false", "--is rotational"));
    assert!(is("--filter=multi-conn memory 1M", "--can multi-conn"));
    assert!(!is("--filter=multi-conn memory 1M multi-conn-mode=disable", "--can multi-conn"));
    assert!(is("--filter=nofilter --filter=cacheextents memory 1M", "--can zero"));
    assert!(is("--filter=readonly memory 1M", "--is read-only"));
}

#[test]
fn flushes_are_passed_on_as_the_peer_does() {
    needs!("nbdkit", "nbdsh");
    let script = "import os
a = nbd.NBD(); a.connect_uri(os.environ[\"u\"]); b = nbd.NBD(); b.connect_uri(os.environ[\"u\"])
b.pread(512, 0); a.pwrite(bytes(512), 0); a.flush(); b.flush(); a.flush()";
    for options in ["", "multi-conn-track-dirty=fast", "multi-conn-track-dirty=off", "multi-conn-mode=plugin"]
    {
        let dir = directory();
        let arguments = format!("--filter=multi-conn --filter=log memory 1M logfile=log {options}");
        let count = |run: Run| {
            run.in_directory(dir.path()).end().good();
            let log = fs::read_to_string(dir.path().join("log")).unwrap();
            log.lines().filter(|line| line.contains(" Flush ")).count()
        };
        let command = format!("u=\"$uri\" nbdsh -c '{script}'");
        let ours = count(Run::serve(&arguments, &command));
        let theirs = count(Run::new("nbdkit").words("-U -").words(&arguments).args(["--run", &command]));
        assert_eq!(ours, theirs, "{options}");
    }
}

#[test]
fn bytes_are_counted_at_the_end() {
    needs!("nbdsh");
    let server = Server::ours("--filter=count memory 1M");
    let script = "h.pwrite(bytes(1000), 0); h.pread(3000, 0); h.zero(5000, 0); h.trim(7000, 0)";
    Run::new("nbdsh").arg("-u").arg(server.uri()).args(["-c", script]).end().good();
    let (_, log) = server.stop();
    assert!(log.contains("count: 3000 bytes read, 1000 written, 5000 zeroed, 7000 trimmed"), "{log}");
}

#[test]
fn a_disk_is_opened_once_for_all_clients() {
    needs!("nbdinfo");
    let dir = directory();
    let command = "nbdinfo --size \"$uri\"; nbdinfo --size \"$uri\"; nbdinfo --size \"$uri\"";
    let arguments = "--filter=openonce --filter=log memory 1M logfile=log";
    Run::serve(arguments, command).in_directory(dir.path()).end().good();
    let log = fs::read_to_string(dir.path().join("log")).unwrap();
    assert_eq!(log.lines().filter(|line| line.contains(" Connect ")).count(), 1, "{log}");
}
