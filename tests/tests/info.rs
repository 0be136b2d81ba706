//! Disks that are made for each client: of its name, its address, and the time.

use e2e::{Run, Server, needs};
use std::fs;

fn read(server: &Server, export: &str) -> Vec<u8> {
    let file = e2e::directory();
    let copy = file.path().join("copy");
    Run::diskpipe().arg("copy").arg(server.uri_of(export)).arg(&copy).end().good();
    fs::read(copy).unwrap()
}

#[test]
fn the_name_comes_back_as_a_disk() {
    needs!("nbdkit");
    for server in [Server::ours("info"), Server::nbdkit("info exportname")] {
        for name in ["hello", "a", &"n".repeat(4096)] {
            assert_eq!(read(&server, name), name.as_bytes());
        }
    }
    for server in [Server::ours("info base64exportname"), Server::nbdkit("info mode=base64exportname")] {
        assert_eq!(read(&server, "AAECVao="), [0, 1, 2, 0x55, 0xaa]);
        Run::diskpipe().args(["info", &server.uri_of("hello!")]).end().code(1);
    }
}

#[test]
fn addresses_are_told_as_the_peer_tells_them() {
    needs!("nbdkit", "nbdcopy");
    for server in [Server::ours("info address"), Server::nbdkit("info address")] {
        assert_eq!(read(&server, ""), b"unix");
    }
    let copied = Run::serve("--port=0 -i 127.0.0.1 info address", r#"nbdcopy "$uri" - | cat"#).text();
    let port = copied.strip_prefix("127.0.0.1:").and_then(|port| port.parse::<u16>().ok());
    assert!(port.is_some_and(|port| port > 0), "{copied}");
    assert!(Run::serve("-U - info address", r#"nbdinfo --size "$uri""#).text() == "4\n");
}

#[test]
fn times_are_twelve_bytes_and_pass() {
    needs!("nbdkit");
    let seconds = |disk: &[u8]| u64::from_be_bytes(disk[..8].try_into().unwrap());
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    for server in [Server::ours("info time"), Server::nbdkit("info time")] {
        let disk = read(&server, "");
        assert!(disk.len() == 12 && seconds(&disk).abs_diff(now) < 600);
    }
    for mode in ["uptime", "conntime"] {
        for server in [Server::ours(&format!("info {mode}")), Server::nbdkit(&format!("info {mode}"))] {
            let disk = read(&server, "");
            let micros = u32::from_be_bytes(disk[8..].try_into().unwrap());
            assert!(seconds(&disk) < 600 && micros < 1_000_000, "{mode}: {disk:?}");
        }
    }
    assert_eq!(
        String::from_utf8(read(&Server::ours("info version"), "")).unwrap(),
        env!("CARGO_PKG_VERSION")
    );
}

#[test]
fn the_examples_serve_as_the_peers_do() {
    needs!("nbdkit", "nbdcopy", "sfdisk", "qemu-io");
    let dir = e2e::directory();
    fs::write(dir.path().join("f"), vec![7; 70_001]).unwrap();
    let run = |server: Run, command: &str| {
        server.args(["--run", command]).in_directory(dir.path()).end().good().text()
    };
    let both = |serve: &str, command: &str| {
        let ours = run(Run::diskpipe().words("serve -U -").words(serve), command);
        assert_eq!(ours, run(Run::new("nbdkit").words("-U -").words(serve), command), "{serve}");
        ours
    };
    let table = both("example1", r#"nbdcopy "$uri" disk && sfdisk -d disk | tail -1"#);
    assert!(table.contains("start=         128, size=      204545, type=83"), "{table}");
    both("example2 file=f", r#"nbdcopy "$uri" - | cmp - f && echo same"#);
    let io = r#"qemu-io -f raw -c "write -P 5 0 512" -c "read -P 5 0 512" "$uri" | grep -c ops
                qemu-io -f raw -c "read -P 0 0 512" "$uri" | grep -c verif; nbdinfo --size "$uri""#;
    let io = format!("{io} || true");
    assert_eq!(both("example3 size=1M", &io), "2\n0\n1048576\n");
    let shared = run(Run::diskpipe().words("serve -U - example4 size=1M"), &io);
    assert_eq!(shared, "2\n1\n1048576\n");
}
