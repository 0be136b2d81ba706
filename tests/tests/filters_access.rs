//! Filters that decide who sees which export, and who may change what.

use e2e::{Run, Server, directory, needs};
use std::fs;
use std::io::Read;

/// Whether the command succeeds beside the server.
#[track_caller]
fn works(arguments: &str, command: &str) -> bool {
    let command = format!("if {command} > /dev/null 2>&1; then echo yes; else echo no; fi");
    Run::serve(arguments, &command).text().trim() == "yes"
}

#[test]
fn clients_are_let_in_by_address_and_identity() {
    needs!("nbdinfo");
    let me = rustix_ids();
    let ask = "nbdinfo --size \"$uri\"";
    for (rules, expected) in [
        ("deny=all".to_owned(), false),
        ("allow=anyunix deny=all".to_owned(), true),
        (format!("allow=uid:{} deny=all", me.0), true),
        (format!("allow=uid:{} deny=all", me.0 + 1), false),
        (format!("allow=gid:{} deny=all", me.1), true),
        ("allow=127.0.0.1,::1,anyvsock deny=all".to_owned(), false),
        ("deny=anyipv4,anyipv6".to_owned(), true),
    ] {
        assert_eq!(works(&format!("--filter=ip memory 1M {rules}"), ask), expected, "{rules}");
    }
    for (rules, expected) in [
        ("allow=127.0.0.0/8,::1 deny=all", true),
        ("deny=127.0.0.0/8,::1", false),
        ("allow=loopback deny=any", true),
        ("deny=128.0.0.0/1", true),
    ] {
        assert_eq!(works(&format!("-p 0 --filter=ip memory 1M {rules}"), ask), expected, "{rules}");
    }
}

fn rustix_ids() -> (u32, u32) {
    (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw())
}

#[test]
fn a_process_is_let_in_by_its_number() {
    needs!("nbdinfo");
    let server = Server::ours(&format!("--filter=ip memory 1M deny=pid:{}", std::process::id()));
    Run::new("nbdinfo").arg("--size").arg(server.uri()).end().good();
    let mut refused = server.connect();
    assert_eq!(
        refused.read(&mut [0; 16]).unwrap_or(0),
        0,
        "this very process is turned away before a greeting"
    );
}

#[test]
fn one_client_too_many_is_turned_away_until_another_leaves() {
    needs!("nbdinfo");
    let mut server = Server::ours("--filter=limit memory 1M limit=2");
    let greeted = |server: &Server| {
        let mut stream = server.connect();
        let mut greeting = [0; 8];
        stream.read_exact(&mut greeting).is_ok().then_some(stream)
    };
    let (one, two) = (greeted(&server).unwrap(), greeted(&server).unwrap());
    assert!(greeted(&server).is_none());
    drop(one);
    server.until("there is room again", |server| greeted(server).is_some());
    drop(two);
}

#[test]
fn clients_without_tls_see_a_message() {
    needs!("nbdcopy", "nbdinfo", "psktool");
    let dir = directory();
    let psk = dir.path().join("keys.psk");
    Run::new("psktool").args(["-u", "alice", "-p"]).arg(&psk).end().good();
    let server = Server::ours(&format!(
        "--tls=on --tls-psk={} --filter=tls-fallback memory 1M tlsreadme=TLS,please",
        psk.display()
    ));
    let clear = server.uri_of("any-name");
    assert_eq!(Run::new("nbdinfo").arg("--size").arg(&clear).text().trim(), "512");
    assert!(Run::new("nbdcopy").args([&clear, "-"]).text().starts_with("TLS,please\0"));
    let tls =
        format!("nbds+unix://alice@/?socket={}&tls-psk-file={}", server.socket().display(), psk.display());
    assert_eq!(Run::new("nbdinfo").arg("--size").arg(tls).text().trim(), "1048576");
    let refused = "serve --tls=on --filter=tls-fallback --filter=noparallel memory 1M serialize=connections";
    let why = Run::diskpipe().words(refused).end().code(1).stderr;
    assert!(why.contains("serves one client at a time"), "{why}");
}

#[test]
fn exports_are_listed_and_opened_as_the_peer_does() {
    needs!("nbdkit", "nbdinfo");
    let dir = directory();
    for name in ["one", "two", "three"] {
        fs::write(dir.path().join(name), name).unwrap();
    }
    let list = |run: Run| {
        let text = run.in_directory(dir.path()).end();
        let mut lines: Vec<String> = text
            .text()
            .lines()
            .filter(|line| line.starts_with("export=") || line.contains("description:"))
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    };
    for options in [
        "",
        "exportname-list=empty",
        "exportname-list=defaultonly default-export=two",
        "exportname-list=explicit exportname=three exportname=one",
        "exportname-list=explicit exportname=one exportdesc=fixed:text",
        "exportname-list=explicit exportname=one exportdesc=none",
    ] {
        let plugin = if options.is_empty() { "pattern 4096" } else { "memory 1M" };
        let arguments = format!("--filter=exportname {plugin} {options}");
        let command = "nbdinfo --list --no-content \"$uri\" || true";
        let ours = list(Run::serve(&arguments, command));
        let theirs = list(Run::new("nbdkit").words("-U -").words(&arguments).args(["--run", command]));
        assert_eq!(ours, theirs, "{options}");
    }
    let strict = "--filter=exportname memory 1M exportname-strict=true exportname=a";
    assert!(works(&format!("-e a {strict}"), "nbdinfo \"$uri\""));
    assert!(!works(&format!("-e b {strict}"), "nbdinfo \"$uri\""));
}

#[test]
fn a_script_describes_exports() {
    needs!("nbdinfo");
    let arguments = ["serve", "-e", "it's me", "--filter=exportname", "memory", "1M"];
    let script = "exportdesc=script:printf '<%s>' \"$name\"";
    let said = Run::diskpipe().args(arguments).arg(script).args(["--run", "nbdinfo \"$uri\""]).text();
    assert!(said.contains("description: <it's me>"), "{said}");
}

#[test]
fn protected_bytes_stay_what_they_are_as_with_the_peer() {
    needs!("nbdkit", "nbdsh");
    let script = "def write(data, at):
  try:
    h.pwrite(data, at); print(at, \"ok\")
  except nbd.Error as e:
    print(at, e.errno)
write(b\"x\", 0); write(bytes(512), 0); write(b\"x\", 512); write(b\"x\", 1023); write(b\"x\", 1024); write(b\"xyz\", 510)";
    let command = format!("nbdsh -u \"$uri\" -c '{script}'");
    for ranges in ["protect=0-511", "protect=~512-1023", "protect=-0x1ff protect=02000-", "protect=1023-1023"]
    {
        let arguments = format!("--filter=protect memory 1M {ranges}");
        let ours = Run::serve(&arguments, &command).text();
        let theirs = Run::new("nbdkit").words("-U -").words(&arguments).args(["--run", &command]).text();
        assert_eq!(ours, theirs, "{ranges}");
    }
}

#[test]
fn a_disk_is_protected_and_freed_while_a_client_is_connected() {
    needs!("nbdsh");
    let dir = directory();
    let script = "import os
def write():
  try:
    h.pwrite(b\"x\", 0); return \"ok\"
  except nbd.Error as e:
    return e.errno
print(write())
open(\"ro\", \"w\").close(); print(write())
os.remove(\"ro\"); print(write())";
    let arguments = "--filter=readonly memory 1M readonly-file=ro";
    let command = format!("nbdsh -u \"$uri\" -c '{script}'");
    let said = Run::serve(arguments, &command).in_directory(dir.path()).seconds(60).text();
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["ok", "EPERM", "ok"]);
}

#[test]
fn a_certificates_name_lets_in() {
    needs!("nbdinfo");
    let dir = directory();
    Run::diskpipe().words("keygen x509 --user alice --name localhost").arg(dir.path()).end().good();
    let keys = dir.path().display();
    let admitted = |rules: &str| {
        let server = Server::ours(&format!(
            "--tls=require --tls-certificates={keys} --tls-verify-peer --filter=ip memory 1M {rules}"
        ));
        let uri = format!("nbds+unix:///?socket={}&tls-certificates={keys}", server.socket().display());
        Run::new("nbdinfo").arg("--size").arg(uri).end().status.success()
    };
    assert!(admitted("allow=dn:CN=alice deny=all"));
    assert!(!admitted("allow=dn:CN=mallory deny=all"));
    assert!(!admitted("deny=dn:CN=alice"));
}
