//! Pipes as disks, with the clients that people used them with.

use e2e::{Run, directory, needs};
use std::fs;

/// A raw disk of a megabyte with data and holes, whose end is data.
fn disk(directory: &std::path::Path) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    for (nth, part) in bytes.chunks_mut(100_000).enumerate() {
        if nth % 2 == 0 {
            part.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at + nth) as u8 | 1);
        }
    }
    fs::write(directory.join("disk.raw"), &bytes).unwrap();
    bytes
}

#[test]
fn what_nbdcopy_writes_comes_out_of_a_pipe_that_the_server_made() {
    needs!("nbdcopy", "cmp");
    let dir = directory();
    let bytes = disk(dir.path());
    // The reader begins when the pipe is there, and ends when the server does.
    let script = r#"
        (until [ -p pipe ]; do sleep 0.1; done; exec cat pipe > got) &
        diskpipe serve -U - streaming write=pipe size=1M --run 'nbdcopy --synchronous disk.raw "$uri"'
        wait"#;
    Run::sh(script).in_directory(dir.path()).end().good();
    assert!(fs::read(dir.path().join("got")).unwrap() == bytes);
}

#[test]
fn a_disk_is_read_from_a_pipe_but_only_forwards() {
    needs!("nbdsh");
    let dir = directory();
    disk(dir.path());
    let python = "
import nbd
print(bytes(h.pread(100000, 0)) == open('disk.raw', 'rb').read(100000))
h.pread(512, 500000)
try:
    h.pread(512, 0)
except nbd.Error as error:
    print(error.errno)
";
    fs::write(dir.path().join("session.py"), python).unwrap();
    let script = r#"
        mkfifo pipe
        cat disk.raw > pipe &
        diskpipe serve -U - streaming read=pipe --run 'nbdsh -u "$uri" -c "exec(open(\"session.py\").read())"'"#;
    let ended = Run::sh(script).in_directory(dir.path()).end();
    assert_eq!(ended.text(), "True\nEIO\n", "{}", ended.stderr);
}

#[test]
fn plugins_of_old_tell_how_the_command_reads_today_or_work() {
    let dir = directory();
    for (line, today) in [
        ("gzip d.raw.gz", "diskpipe serve --filter=gzip file d.raw.gz"),
        ("tar tar=a.ova file=b", "diskpipe serve --filter=tar file file=a.ova tar-entry=b"),
        ("ext2 disk=d.ext2 file=/b", "diskpipe serve --filter=ext2 file file=d.ext2 ext2file=/b"),
    ] {
        let run = Run::diskpipe().arg("serve").words(line).args(["--run", "true"]);
        let ended = run.in_directory(dir.path()).end();
        // There is no such file.
        assert!(!ended.status.success());
        let built = ended.stderr.contains("No such file");
        assert!(built || ended.stderr.contains(today), "{line}: {}", ended.stderr);
    }
}
