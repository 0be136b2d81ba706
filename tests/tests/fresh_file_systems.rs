//! File systems made for clients: by tmpdisk for each anew, by ondemand for each name, looked at by other projects' tools.

use e2e::{Run, Server, directory, needs};
use std::path::Path;

/// The file system in this image must be sound, and have this label.
fn check(image: &Path, label: &str) {
    let said = Run::new("e2fsck").arg("-fn").arg(image).end().code(0).text();
    assert!(said.contains(&format!("{label}: ")), "{said}");
}

fn copy(server: &Server, export: &str, to: &Path) -> e2e::Ended {
    Run::new("nbdcopy").arg(server.uri_of(export)).arg(to).end()
}

#[test]
fn every_client_of_tmpdisk_gets_a_sound_file_system_of_its_own() {
    needs!("mke2fs", "e2fsck", "nbdcopy", "nbdinfo", "qemu-io", "cmp");
    let temporary = directory();
    let server = Server::start(|socket| {
        let serve = Run::diskpipe().words("serve -f -U").arg(socket).words("tmpdisk 32M label=mine");
        serve.env("TMPDIR", temporary.path())
    });
    let dir = directory();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    copy(&server, "", &one).good();
    check(&one, "mine");
    Run::new("qemu-io").words("-f raw -c").arg("write -P 7 0 1M").arg(server.uri()).end().good();
    // What that client wrote went with it, and each file system has an identity of its own.
    copy(&server, "", &two).good();
    check(&two, "mine");
    Run::new("cmp").arg("-s").args([&one, &two]).end().code(1);
    let info = Run::new("nbdinfo").arg(server.uri()).text();
    assert!(info.contains("export-size: 33554432") && info.contains("can_multi_conn: false"), "{info}");
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "names of disks are left behind");
}

#[test]
fn exports_are_made_on_demand_kept_locked_and_listed() {
    needs!("mke2fs", "e2fsck", "nbdcopy", "nbdinfo", "nbdsh", "qemu-io");
    let dir = directory();
    let kept = dir.path().join("kept");
    std::fs::create_dir(&kept).unwrap();
    let server = Server::ours(&format!("ondemand dir={} 32M label=kept type=ext2", kept.display()));
    let write = |name: &str| {
        Run::new("qemu-io").words("-f raw -c").arg("write -P 7 1k 1k").arg(server.uri_of(name)).end().good();
    };
    write("a");
    check(&kept.join("a"), "kept");
    let read = Run::new("qemu-io").words("-f raw -c").arg("read -P 7 1k 1k").arg(server.uri_of("a")).text();
    assert!(!read.contains("failed"), "{read}");
    let listed = Run::new("nbdinfo").arg("--list").arg(server.uri()).text();
    assert!(listed.contains("export=\"default\"") && listed.contains("export=\"a\""), "{listed}");
    // One client holds it, another is told so.
    let script = format!(
        "h.connect_uri('{0}')\nother = nbd.NBD()\ntry:\n    other.connect_uri('{0}')\n    print('let in')\n\
         except nbd.Error as e:\n    print('refused')\nh.shutdown()",
        server.uri_of("a")
    );
    assert_eq!(Run::new("nbdsh").arg("-c").arg(&script).text(), "refused\n");
    assert!(server.log().contains("filesystem is locked by another client"), "{}", server.log());
    for name in ["a.b", "a%2Fb", "a:b"] {
        let refused = copy(&server, name, &dir.path().join("x"));
        assert!(!refused.status.success(), "{name}");
    }
    assert_eq!(std::fs::read_dir(&kept).unwrap().count(), 2, "a and default");
}

#[test]
fn a_command_makes_the_disk_of_a_name() {
    needs!("nbdcopy");
    let dir = directory();
    let serve = Run::diskpipe()
        .words("serve ondemand size=4096 greeting=hello")
        .arg(format!("dir={}", dir.path().display()))
        .arg(r#"command=printf '%s %s' "$greeting" "${disk##*/}" > "$disk"; truncate -s $size "$disk""#)
        .args(["--run", r#"nbdcopy "nbd+unix:///wor%20ld?socket=$unixsocket" - | head -c 12"#]);
    assert_eq!(serve.text(), "hello wor ld");
}

#[test]
fn a_missing_program_is_named() {
    let dir = directory();
    let serve =
        Run::diskpipe().words("serve -v tmpdisk 1M type=nosuchfs --run").arg("diskpipe info \"$uri\"");
    let ended = serve.env("TMPDIR", dir.path()).end().code(1);
    assert!(ended.stderr.contains("mkfs -t nosuchfs: failed"), "{}", ended.stderr);
}
