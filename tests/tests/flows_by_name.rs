//! The command lines of talks and blogs as they were written, with our programs under the names that these call.

use e2e::{RealDisk, Run, directory, mounts, needs, python_path, same_content};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A script of bash that finds our names before the peers'. It ends at the first failure.
fn script(names: &Path, text: &str) -> Run {
    Run::diskpipe().arg("install-names").arg(names).end().good();
    let mut path = names.as_os_str().to_owned();
    path.push(":");
    path.push(e2e::path());
    Run::new("bash").args(["-c", &format!("set -e\n{text}")]).env("PATH", path)
}

#[test]
fn a_qcow2_image_is_partitioned_through_a_mount_and_then_copied() {
    mounts!("bash", "qemu-img", "qemu-nbd", "sgdisk", "hexdump", "mountpoint");
    let (names, dir) = (directory(), directory());
    let text = r#"
        qemu-img create -q -f qcow2 disk.qcow2 1G
        touch disk.raw
        nbdfuse disk.raw [ qemu-nbd -f qcow2 disk.qcow2 ] &
        until mountpoint -q disk.raw; do kill -0 $!; sleep 0.05; done
        sgdisk -n 1 disk.raw > /dev/null
        sgdisk -p disk.raw | grep -o 8300
        until fusermount3 -u disk.raw 2> busy; do grep -q busy busy; sleep 0.05; done
        wait $!
        nbdcopy -- [ qemu-nbd -f qcow2 disk.qcow2 ] copy.raw
        nbdcopy -- [ qemu-nbd -r -f qcow2 disk.qcow2 ] - | hexdump -C -n 512 | tail -2
        qemu-img compare -f raw -F qcow2 copy.raw disk.qcow2"#;
    let said = script(names.path(), text).in_directory(dir.path()).text();
    let expected = "8300\n000001f0  00 00 00 00 00 00 00 00  00 00 00 00 00 00 55 aa  |..............U.|\n\
                    00000200\nImages are identical.\n";
    assert_eq!(said, expected);
    let allocated = fs::metadata(dir.path().join("copy.raw")).unwrap().blocks() * 512;
    assert!(allocated < 1 << 20, "{allocated}");
}

/// Nothing is put aside on the way: neither beside the image nor among temporary files.
#[test]
fn an_image_streams_into_another_format_without_a_copy_on_the_way() {
    needs!("bash", "qemu-img", "qemu-nbd", "sfdisk", "mke2fs");
    let disk = RealDisk::get();
    let (names, dir, temporary) = (directory(), directory(), directory());
    let text = format!(
        r#"
        size=$(stat -L -c %s '{0}')
        qemu-img create -q -f qcow2 cloud.qcow2 $size -o preallocation=metadata
        nbdkit -r -U - file '{0}' --run 'nbdcopy -p -- $uri [ qemu-nbd -f qcow2 cloud.qcow2 ]' &
        while kill -0 $! 2> /dev/null; do
            for file in $(find "$TMPDIR" . -type f ! -name cloud.qcow2); do echo "also $file"; done
        done
        wait $!"#,
        disk.raw.display()
    );
    let run = script(names.path(), &text).in_directory(dir.path()).env("TMPDIR", temporary.path());
    let ended = run.end().good();
    assert_eq!(ended.text(), "");
    assert!(ended.stderr.contains("100% ["), "{:?}", ended.stderr);
    same_content(("raw", &disk.raw), ("qcow2", dir.path().join("cloud.qcow2")));
    let allocated = |file: &Path| fs::metadata(file).unwrap().blocks() * 512;
    let (there, here) = (allocated(&dir.path().join("cloud.qcow2")), allocated(&disk.raw));
    assert!(there < here + (8 << 20), "{there} bytes for {here}");
}

#[test]
fn the_server_of_brackets_ends_with_the_copy() {
    needs!("bash", "qemu-nbd", "qemu-img");
    let (names, dir) = (directory(), directory());
    let text = r#"
        qemu-img create -q -f qcow2 disk.qcow2 16M
        nbdcopy -- [ sh -c 'echo $$ > pid; exec qemu-nbd -f qcow2 disk.qcow2' ] disk.raw
        while kill -0 $(cat pid) 2> /dev/null; do sleep 0.05; done
        echo gone"#;
    assert_eq!(script(names.path(), text).in_directory(dir.path()).text(), "gone\n");
}

#[test]
fn a_disk_of_seven_exbibytes_is_listed_and_takes_a_file_system() {
    mounts!("bash", "mountpoint", "file");
    let (names, dir) = (directory(), directory());
    let text = r#"
        touch big
        nbdfuse big --command nbdkit -s memory 7E &
        until mountpoint -q big; do kill -0 $!; sleep 0.05; done
        ls -lh big | grep -o ' 7.0E '
        if command -v mkfs.btrfs > /dev/null; then mkfs.btrfs -q -f big > log; file -s big | grep -o BTRFS; else echo BTRFS; fi
        until fusermount3 -u big 2> busy; do grep -q busy busy; sleep 0.05; done
        wait $!"#;
    assert_eq!(script(names.path(), text).in_directory(dir.path()).text(), " 7.0E \nBTRFS\n");
}

#[test]
fn a_line_of_the_shell_reads_the_first_sector() {
    needs!("bash");
    let names = directory();
    let text = r#"nbdkit -U - data ' ( 0x55 0xAA )*2048 ' --run 'nbdsh -u "$uri" -c '\''print("%r" % h.pread(512,0))'\'"#;
    let run = script(names.path(), text).env("PYTHONPATH", python_path());
    assert_eq!(run.text(), format!("bytearray(b'{}')\n", r"U\xaa".repeat(256)));
}

#[test]
fn what_qemu_converts_from_one_server_to_another_is_what_that_expects() {
    needs!("bash", "qemu-img");
    let names = directory();
    let text = r#"
        nbdkit -U - sparse-random 2G --run 'qemu-img convert -n -f raw -O raw "$uri" "$uri" && nbdcopy "$uri" "$uri"'
        echo $?"#;
    assert_eq!(script(names.path(), text).text(), "0\n");
}

#[test]
fn the_copy_of_a_sparse_disk_is_as_fragmented_as_the_disk() {
    needs!("bash", "filefrag");
    let (names, dir) = (directory(), directory());
    let text = r#"
        nbdkit -U - sparse-random 1G seed=3 percent=2 runlength=64K --run '
            nbdcopy "$uri" copy; nbdinfo --map "$uri" | grep -c data'"#;
    let islands: usize =
        script(names.path(), text).in_directory(dir.path()).text().trim_end().parse().unwrap();
    let copy = dir.path().join("copy");
    let allocated = fs::metadata(&copy).unwrap().blocks() * 512;
    assert!(islands > 10 && allocated < (1 << 30) / 20, "{islands} islands, {allocated} bytes");
    let told = Run::new("filefrag").arg("-e").arg(&copy).end();
    let list = String::from_utf8_lossy(&told.stdout);
    let extent =
        |line: &&str| line.split_once(':').is_some_and(|(number, _)| number.trim().parse::<u64>().is_ok());
    let extents = list.lines().filter(extent).count();
    match told.status.success() && list.contains("physical_offset") {
        true => assert!(extents >= islands / 2, "{islands} islands: {list}"),
        false => e2e::skip("needs a file system that tells where its files are"),
    }
}

#[test]
fn an_image_is_started_by_the_module_and_iterated_as_qemu_sees_it() {
    needs!("bash", "qemu-img", "qemu-nbd", "qemu-io");
    let (names, dir) = (directory(), directory());
    let text = r#"
        qemu-img create -q -f vmdk disk.vmdk 1G
        qemu-io -f vmdk -c 'write -P 1 3M 128k' -c 'write -P 2 700M 1M' disk.vmdk > /dev/null
        qemu-img create -q -f qcow2 disk.qcow2 64M
        qemu-io -f qcow2 -c 'write -P 1 3M 128k' -c 'write -z 5M 1M' -c 'write -P 2 60M 1M' disk.qcow2 > /dev/null
        nbdsh -c 'h.connect_systemd_socket_activation(["qemu-nbd", "-t", "-f", "vmdk", "disk.vmdk"])' \
            -c 'print("size =", h.get_size(), bytes(h.pread(4, 700 << 20)))'
        nbdsh -n -c - << END
import json, subprocess

def extents(h):
    at, found = 0, []
    def add(context, offset, entries, err):
        nonlocal at
        assert context == "base:allocation"
        for length, flags in zip(entries[::2], entries[1::2]):
            if found and found[-1][2] == flags:
                found[-1][1] += length
            else:
                found.append([at, length, flags])
            at += length
    while at < h.get_size():
        h.block_status(min(h.get_size() - at, 1 << 30), at, add)
    return [(start, length) for start, length, flags in found if not flags & nbd.STATE_ZERO]

for format in "vmdk", "qcow2":
    h = nbd.NBD()
    h.add_meta_context("base:allocation")
    image = f"disk.{format}"
    h.connect_systemd_socket_activation(["qemu-nbd", "-r", "-t", "-f", format, image])
    map = json.loads(subprocess.check_output(["qemu-img", "map", "--output=json", "-f", format, image]))
    qemus = []
    for e in map:
        if e["data"] and not e["zero"]:
            if qemus and sum(qemus[-1]) == e["start"]:
                qemus[-1] = (qemus[-1][0], qemus[-1][1] + e["length"])
            else:
                qemus.append((e["start"], e["length"]))
    assert extents(h) == qemus and qemus, (extents(h), qemus)
    print(format, len(qemus))
    h.shutdown()
END"#;
    let run = script(names.path(), text).in_directory(dir.path()).env("PYTHONPATH", python_path());
    assert_eq!(run.text(), "size = 1073741824 b'\\x02\\x02\\x02\\x02'\nvmdk 2\nqcow2 2\n");
}

/// The two ways of serving a qcow2 image: decoded by the server, or by the client, whose file may have to grow.
#[test]
fn an_image_is_decoded_by_the_server_or_by_the_client_which_needs_room() {
    needs!("bash", "qemu-img", "qemu-io", "qemu-nbd");
    let (names, dir) = (directory(), directory());
    let text = r#"
        qemu-img create -q -f qcow2 disk.qcow2 64M
        nbdcopy -- [ nbdkit pattern 4M ] [ qemu-nbd -f qcow2 disk.qcow2 ]
        nbdkit -U - -r file disk.qcow2 --run 'qemu-io -r -f qcow2 -c "read -P 0 60M 1M" "$uri" > /dev/null; qemu-img convert -f qcow2 -O raw "$uri" decoded'
        nbdcopy [ nbdkit pattern 4M ] expected
        cmp -n 4194304 decoded expected
        # The file ends where its last cluster does.
        nbdkit -U - file disk.qcow2 --run 'qemu-io -f qcow2 -c "write -P 7 32M 1M" "$uri"' > said 2>&1 || true
        grep -o -m 1 'No space left on device' said
        # With room behind it, it takes what is written.
        nbdkit -U - --filter=truncate file disk.qcow2 truncate=96M --run 'qemu-img info -f qcow2 "$uri" | grep -o "virtual size: 64 MiB"'
        truncate -s 96M disk.qcow2
        nbdkit -U - file disk.qcow2 --run 'qemu-io -f qcow2 -c "write -P 7 32M 1M" "$uri"' | grep -o 'wrote 1048576/1048576'
        qemu-img check -q -f qcow2 disk.qcow2
        qemu-io -r -f qcow2 -c 'read -P 7 32M 1M' disk.qcow2 | grep -o 'read 1048576/1048576'"#;
    let said = script(names.path(), text).in_directory(dir.path()).text();
    let expected =
        "No space left on device\nvirtual size: 64 MiB\nwrote 1048576/1048576\nread 1048576/1048576\n";
    assert_eq!(said, expected);
}

#[test]
fn a_command_is_told_what_the_peers_server_tells_it_and_its_socket_goes_with_it() {
    needs!("bash", "nbdkit", "qemu-img");
    let (names, dir) = (directory(), directory());
    let text = r#"
        for options in "" "-e hello" "-r -e a%b" "--exportname=täglich"; do
            nbdkit -U - memory 1M $options --run '
                echo "$uri|$nbd|$port|$unixsocket|$exportname"
                qemu-img info "$nbd" | grep "^file format"; nbdinfo --size "$uri"
                dirname "$unixsocket" > where; exit 7' || echo "code $?"
            if [ -e "$(cat where)" ]; then echo "its directory is left"; fi
        done | sed 's,/[^ |?]*/socket,SOCKET,g'
        nbdkit -s memory 1M < /dev/null > greeting; head -c 16 greeting"#;
    let ours = script(names.path(), text).in_directory(dir.path()).text();
    let theirs = Run::new("bash").args(["-c", text]).in_directory(dir.path()).text();
    assert_eq!(ours, theirs);
    assert!(
        ours.contains("nbd+unix:///hello?socket=SOCKET|nbd+unix:///hello?socket=SOCKET||SOCKET|hello\n"),
        "{ours}"
    );
    assert!(ours.ends_with("NBDMAGICIHAVEOPT") && !ours.contains("is left"), "{ours}");
}

#[test]
fn every_form_of_a_uri_leads_peers_and_us_to_the_disk() {
    needs!("bash", "nbdinfo", "nbdcopy");
    let dir = directory();
    let text = r#"
        cat > ask << 'END'
            for uri in "$@"; do
                echo "$uri"
                nbdinfo --size "$uri"; diskpipe info --size "$uri"
                nbdcopy "$uri" theirs; diskpipe copy "$uri" ours; cmp theirs ours
            done
END
        diskpipe serve -U sock pattern 64K --run '
            sh ask "nbd+unix:///?socket=sock" "nbd+unix://?socket=sock" "nbd+unix:///an%20export?socket=$PWD/sock" \
                "nbd+unix:///?socket=%73ock"'
        diskpipe serve -i 127.0.0.1 -p 0 pattern 64K --run '
            sh ask "nbd://127.0.0.1:$port" "nbd://127.0.0.1:$port/" "nbd://localhost:$port/name" "nbd://user@127.0.0.1:$port/a/b"'
        if [ -e /proc/net/if_inet6 ]; then
            diskpipe serve -i ::1 -p 0 pattern 64K --run 'sh ask "nbd://[::1]:$port" "nbd://[::1]:$port/x"'
        fi"#;
    let run = Run::new("bash").args(["-c", &format!("set -e\n{text}")]).in_directory(dir.path());
    let said = run.end().good();
    assert_eq!(said.stderr, "", "what was copied is the same");
    let said = said.text();
    let sizes = said.lines().filter(|line| *line == "65536").count();
    assert!(sizes >= 16 && sizes * 3 == said.lines().count() * 2, "{said}");
}
