//! TLS: our server and our tools against GnuTLS in the peers' programs, with both kinds of keys in both versions; who is
//! refused, and what is said then.

use e2e::{Ended, Run, Server, needs};
use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const VERSIONS: [(&str, &str); 2] =
    [("TLSv1.2", "NORMAL:-VERS-ALL:+VERS-TLS1.2"), ("TLSv1.3", "NORMAL:-VERS-ALL:+VERS-TLS1.3")];
const SIZE: usize = 5 << 20;

/// Keys of all kinds, made by our own tool, and a disk to serve.
struct Things {
    dir: TempDir,
    content: Vec<u8>,
}

fn things() -> &'static Things {
    static THINGS: OnceLock<Things> = OnceLock::new();
    THINGS.get_or_init(|| {
        let dir = e2e::directory();
        keygen("psk", dir.path(), "alice").good();
        keygen("x509", dir.path(), "alice").good();
        let mut noise = 1_u64;
        let mut content = Vec::with_capacity(SIZE);
        while content.len() < SIZE {
            noise = noise.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            content.extend_from_slice(&noise.to_le_bytes());
        }
        // A hole, and a length that is no multiple of a record.
        content[1 << 20..3 << 20].fill(0);
        content.truncate(SIZE - 512);
        fs::write(dir.path().join("disk"), &content).unwrap();
        Things { dir, content }
    })
}

fn keys() -> &'static Path {
    things().dir.path()
}

fn keygen(kind: &str, dir: &Path, user: &str) -> Ended {
    Run::diskpipe().args(["keygen", kind, "--user", user, "--name", "disks.example.com"]).arg(dir).end()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    X509,
    Psk,
}
const KINDS: [Kind; 2] = [Kind::X509, Kind::Psk];

impl Kind {
    /// The options of serve, ours and nbdkit's, for keys in this directory.
    fn serve(self, dir: &Path) -> String {
        match self {
            Kind::X509 => format!("--tls=require --tls-certificates={}", dir.display()),
            Kind::Psk => format!("--tls=require --tls-psk={}/keys.psk", dir.display()),
        }
    }

    fn uri(self, socket: &Path, dir: &Path) -> String {
        let (socket, dir) = (socket.display(), dir.display());
        match self {
            Kind::X509 => format!("nbds+unix:///?socket={socket}&tls-certificates={dir}"),
            Kind::Psk => format!("nbds+unix://alice@/?socket={socket}&tls-psk-file={dir}/keys.psk"),
        }
    }

    /// As QEMU calls it.
    fn object(self, endpoint: &str) -> String {
        let dir = keys().display();
        match (self, endpoint) {
            (Kind::X509, _) => format!("tls-creds-x509,id=tls,dir={dir},endpoint={endpoint},verify-peer=yes"),
            (Kind::Psk, "client") => format!("tls-creds-psk,id=tls,dir={dir},username=alice,endpoint=client"),
            (Kind::Psk, _) => format!("tls-creds-psk,id=tls,dir={dir},endpoint={endpoint}"),
        }
    }
}

/// Our server, in every combination, and a client that must get the whole disk into a file.
fn whole_disk_for(client: impl Fn(Kind, &Server, &Path)) {
    let image = keys().join("disk");
    for kind in KINDS {
        for (version, priority) in VERSIONS {
            let options = format!("-v --tls-priority={priority} file {}", image.display());
            let server = Server::ours(&format!("{} {options}", kind.serve(keys())));
            let out = e2e::directory();
            client(kind, &server, &out.path().join("copy"));
            let copy = fs::read(out.path().join("copy")).unwrap();
            assert!(copy == things().content, "{kind:?} {version}: {} bytes", copy.len());
            let log = server.log();
            assert!(log.contains(&format!(": {version} with ")), "{log}");
            assert!(kind == Kind::X509 || log.contains("client alice"), "{log}");
            assert!(!log.contains(" error: "), "{log}");
        }
    }
}

#[test]
fn our_server_serves_our_tools() {
    whole_disk_for(|kind, server, copy| {
        let uri = kind.uri(&server.socket(), keys());
        Run::diskpipe().args(["copy", &uri]).arg(copy).end().good();
        let told = Run::diskpipe().args(["info", &uri]).text();
        assert!(told.starts_with("protocol: newstyle-fixed with TLS"), "{told}");
        Run::diskpipe().args(["info", "--is", "tls", &uri]).end().code(0);
    });
}

#[test]
fn our_server_serves_the_tools_of_libnbd() {
    needs!("nbdcopy", "nbdinfo");
    whole_disk_for(|kind, server, copy| {
        let uri = kind.uri(&server.socket(), keys());
        Run::new("nbdcopy").arg(&uri).arg(copy).end().good();
        let told = Run::new("nbdinfo").arg(&uri).text();
        assert!(told.contains("with TLS, using structured packets"), "{told}");
    });
}

#[test]
fn our_server_serves_qemu_img() {
    needs!("qemu-img");
    whole_disk_for(|kind, server, copy| {
        let name = if kind == Kind::X509 { ",file.tls-hostname=localhost" } else { "" };
        let source = format!(
            "driver=raw,file.driver=nbd,file.server.type=unix,file.server.path={},file.tls-creds=tls{name}",
            server.socket().display()
        );
        let run = Run::new("qemu-img").args(["convert", "--object", &kind.object("client"), "--image-opts"]);
        run.arg(source).args(["-O", "raw"]).arg(copy).end().good();
    });
}

#[test]
fn our_server_serves_nbdkit() {
    needs!("nbdkit", "nbdcopy");
    whole_disk_for(|kind, server, copy| {
        let key = match kind {
            Kind::X509 => format!("tls-certificates={}", keys().display()),
            Kind::Psk => format!("tls-psk={}/keys.psk", keys().display()),
        };
        let socket = format!("socket={}", server.socket().display());
        let run = Run::new("nbdkit").words("-U - nbd tls=require tls-username=alice").args([&socket, &key]);
        let run = run.arg("--run");
        run.arg(format!("nbdcopy \"$uri\" {}", copy.display())).end().good();
    });
}

/// Our tools against another server, in every combination: write the whole disk, and read it back.
fn write_and_read_at(server: impl Fn(Kind, &Path) -> Server) {
    for kind in KINDS {
        for (version, priority) in VERSIONS {
            let out = e2e::directory();
            let (disk, copy) = (out.path().join("there"), out.path().join("copy"));
            fs::write(&disk, vec![0x55; things().content.len()]).unwrap();
            let server = server(kind, &disk);
            let uri = format!("{}&tls-priority={priority}", kind.uri(&server.socket(), keys()));
            let told = Run::diskpipe().args(["info", &uri]).text();
            assert!(told.starts_with("protocol: newstyle-fixed with TLS"), "{told}");
            Run::diskpipe().arg("copy").arg(keys().join("disk")).arg(&uri).end().good();
            Run::diskpipe().args(["copy", &uri]).arg(&copy).end().good();
            let copy = fs::read(copy).unwrap();
            assert!(copy == things().content, "{kind:?} {version}: {} bytes", copy.len());
        }
    }
}

#[test]
fn our_tools_use_our_server() {
    write_and_read_at(|kind, disk| Server::ours(&format!("{} file {}", kind.serve(keys()), disk.display())));
}

#[test]
fn our_tools_use_nbdkit() {
    needs!("nbdkit");
    write_and_read_at(|kind, disk| {
        let verify = if kind == Kind::X509 { "--tls-verify-peer" } else { "" };
        Server::nbdkit(&format!("{} {verify} file {}", kind.serve(keys()), disk.display()))
    });
}

#[test]
fn our_tools_use_qemu_nbd() {
    needs!("qemu-nbd");
    write_and_read_at(|kind, disk| {
        Server::qemu(&format!("--object {} --tls-creds tls -f raw {}", kind.object("server"), disk.display()))
    });
}

#[test]
fn our_proxy_puts_tls_before_a_server_and_takes_it_off_again() {
    let psk = keys().join("keys.psk");
    let inner = Server::ours(&format!("file {}", keys().join("disk").display()));
    let outer = Server::ours(&format!("{} nbd socket={}", Kind::Psk.serve(keys()), inner.socket().display()));
    let options = format!("tls=require tls-psk={} tls-username=alice", psk.display());
    let plain = Server::ours(&format!("nbd socket={} {options}", outer.socket().display()));
    let out = e2e::directory();
    let copy = out.path().join("copy");
    Run::diskpipe().args(["copy", &plain.uri()]).arg(&copy).end().good();
    assert!(fs::read(copy).unwrap() == things().content);
}

#[test]
fn several_connections_with_many_requests_write_what_they_should() {
    let server = Server::ours(&format!("{} memory {}", Kind::X509.serve(keys()), things().content.len()));
    let uri = Kind::X509.uri(&server.socket(), keys());
    let out = e2e::directory();
    let copy = out.path().join("copy");
    for size in ["4096", "65536", "1048576"] {
        let options = ["copy", "-C4", "-R64", "--request-size", size];
        Run::diskpipe().args(options).arg(keys().join("disk")).arg(&uri).end().good();
        Run::diskpipe().args(options).arg(&uri).arg(&copy).end().good();
        assert!(fs::read(&copy).unwrap() == things().content, "{size}");
    }
    assert_eq!(server.log(), "");
}

/// The lines of the log that tell of errors, without their beginnings.
fn errors(server: &Server) -> Vec<String> {
    let log = server.log();
    log.lines().filter_map(|line| Some(line.split_once(" error: ")?.1.to_owned())).collect()
}

/// The one error in the log, once it is there.
#[track_caller]
fn the_error(server: &mut Server) -> String {
    server.until("the log has an error", |server| !errors(server).is_empty());
    std::thread::sleep(Duration::from_millis(50));
    let errors = errors(server);
    assert_eq!(errors.len(), 1, "{errors:#?}");
    errors.into_iter().next().unwrap()
}

#[test]
fn tls_that_is_required_on_or_off_is_just_that() {
    let uri = |server: &Server| Kind::Psk.uri(&server.socket(), keys());
    let size = |uri: &str| Run::diskpipe().args(["info", "--size", uri]).end();
    let server = Server::ours(&format!("{} memory 1M", Kind::Psk.serve(keys())));
    assert_eq!(size(&uri(&server)).good().text(), "1048576\n");
    let refused = size(&server.uri()).code(1).stderr;
    assert!(refused.contains("STARTTLS"), "{refused}");
    let list = Run::diskpipe().args(["info", "--list", &server.uri()]).end().code(1).stderr;
    assert!(list.contains("STARTTLS"), "{list}");
    let server = Server::ours(&format!("--tls=on --tls-psk={}/keys.psk memory 1M", keys().display()));
    assert_eq!(size(&uri(&server)).good().text(), "1048576\n");
    assert_eq!(size(&server.uri()).good().text(), "1048576\n");
    let server = Server::ours(&format!("--tls=off --tls-psk={}/keys.psk memory 1M", keys().display()));
    assert_eq!(size(&server.uri()).good().text(), "1048576\n");
    let refused = size(&uri(&server)).code(1).stderr;
    assert!(refused.contains("TLS is not configured"), "{refused}");
}

#[test]
fn run_tells_its_command_of_tls() {
    let run = |options: &str, command: &str| Run::serve(&format!("{options} memory 1M"), command).text();
    let psk = keys().join("keys.psk");
    let file = psk.display();
    assert_eq!(run(&format!("--tls-psk={file}"), r#"echo "$tls ${uri%%:*}""#), "1 nbd+unix\n");
    let said =
        run(&format!("--tls=require --tls-psk={file}"), r#"echo "$tls $uri"; diskpipe info --size "$uri""#);
    assert!(said.starts_with("2 nbds+unix://alice@?socket=/"), "{said}");
    assert!(said.ends_with(&format!("&tls-psk-file={file}\n1048576\n")), "{said}");
    let dir = keys().display();
    let said = run(&format!("--tls=require --tls-certificates={dir}"), r#"diskpipe info --size "$uri""#);
    assert_eq!(said, "1048576\n");
    assert!(Run::diskpipe().args(["serve", "--dump-config"]).text().contains("\ntls=yes\n"));
}

#[test]
fn a_server_without_keys_says_where_it_looked() {
    let serve = |options: &str| {
        Run::serve(&format!("{options} memory 1M"), "echo served").env("HOME", "/nonexistent").end()
    };
    let missing = serve("--tls=require --tls-certificates=/nonexistent").code(1).stderr;
    assert!(
        missing.contains("--tls=require: /nonexistent/server-cert.pem: No such file or directory"),
        "{missing}"
    );
    let missing = serve("--tls-psk=/nonexistent").code(1).stderr;
    assert!(missing.contains("--tls-psk: /nonexistent: No such file or directory"), "{missing}");
    let none = serve("--tls=require").code(1).stderr;
    assert!(none.contains("there are no certificates in ") && none.contains("diskpipe keygen"), "{none}");
    // Those that may use TLS can be served without, after a warning.
    let warned = serve("--tls=on --tls-certificates=/nonexistent").good();
    assert_eq!(warned.text(), "served\n");
    assert!(warned.stderr.contains("warning: --tls=on: /nonexistent/server-cert.pem"), "{}", warned.stderr);
    assert_eq!(serve("").good().stderr, "");
}

/// Certificates of GnuTLS's own tool, signed by our authority or another one.
fn certificate(dir: &Path, authority: &Path, name: &str, template: &str) {
    let file = |end: &str| dir.join(format!("{name}-{end}.pem"));
    fs::write(dir.join("template"), template).unwrap();
    let certtool = || Run::new("certtool").in_directory(dir);
    certtool().words("--generate-privkey --outfile").arg(file("key")).end().good();
    certtool()
        .args(["--generate-certificate", "--template", "template", "--load-privkey"])
        .arg(file("key"))
        .arg("--load-ca-certificate")
        .arg(authority.join("ca-cert.pem"))
        .arg("--load-ca-privkey")
        .arg(authority.join("ca-key.pem"))
        .arg("--outfile")
        .arg(file("cert"))
        .end()
        .good();
}

/// A directory with our authority's certificate, and what else is wanted of ours.
fn with_our_authority(others: &[&str]) -> TempDir {
    let dir = e2e::directory();
    for name in ["ca-cert.pem"].iter().chain(others) {
        fs::copy(keys().join(name), dir.path().join(name)).unwrap();
    }
    dir
}

const CLIENT: &str = "cn = bob\ntls_www_client\nsigning_key\nencryption_key\nexpiration_days = 3\n";
const EXPIRED: &str =
    "activation_date = \"2020-01-01 00:00:00\"\nexpiration_date = \"2020-02-01 00:00:00\"\n";

/// A client with the certificates in `dir`; its own complaint if it was refused.
fn ask(server: &Server, dir: &Path) -> Result<(), String> {
    let ended = Run::diskpipe().args(["info", "--size", &Kind::X509.uri(&server.socket(), dir)]).end();
    if ended.status.success() { Ok(()) } else { Err(ended.stderr) }
}

#[test]
fn a_server_that_checks_clients_refuses_those_without_a_good_certificate() {
    needs!("certtool", "nbdinfo");
    let stranger = e2e::directory();
    keygen("x509", stranger.path(), "mallory").good();
    let options = format!("{} --tls-verify-peer memory 1M", Kind::X509.serve(keys()));

    let refused = |dir: &Path, told: &str, logged: &str| {
        let mut server = Server::ours(&options);
        let error = ask(&server, dir).unwrap_err();
        assert!(error.contains(told), "{error}");
        let error = the_error(&mut server);
        assert!(error.starts_with("connection 1: handshake: "), "{error}");
        assert!(error.contains(logged), "{error}");
        // Others are served as before.
        ask(&server, keys()).unwrap();
        let peer = Run::new("nbdinfo").args(["--size", &Kind::X509.uri(&server.socket(), keys())]).text();
        assert_eq!(peer, "1048576\n");
    };
    let dir = with_our_authority(&[]);
    let told = "it wants a client's certificate";
    refused(dir.path(), told, "the client has sent no certificate, and one is demanded");
    let dir = with_our_authority(&[]);
    for name in ["client-cert.pem", "client-key.pem"] {
        fs::copy(stranger.path().join(name), dir.path().join(name)).unwrap();
    }
    refused(dir.path(), "unknown ca", "(CN=mallory) was signed by none of the authorities in");
    let dir = with_our_authority(&[]);
    certificate(
        dir.path(),
        keys(),
        "client",
        &format!("{CLIENT}{EXPIRED}").replace("expiration_days = 3\n", ""),
    );
    refused(dir.path(), "our certificate has expired", "(CN=bob) has expired on Feb  1 00:00:00 2020 GMT");
    let server_only = CLIENT.replace("tls_www_client", "tls_www_server");
    let dir = with_our_authority(&[]);
    certificate(dir.path(), keys(), "client", &server_only);
    refused(dir.path(), "certificate", "is not accepted: ");
}

#[test]
fn who_was_revoked_is_refused_on_either_side() {
    needs!("certtool");
    let dir = e2e::directory();
    for entry in fs::read_dir(keys()).unwrap().flatten() {
        if entry.path().extension().is_some_and(|end| end == "pem") {
            fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
    }
    certificate(dir.path(), keys(), "client", CLIENT);
    let options = format!("{} --tls-verify-peer memory 1M", Kind::X509.serve(dir.path()));
    ask(&Server::ours(&options), dir.path()).unwrap();
    let revoke = |name: &str| {
        fs::write(dir.path().join("template"), "crl_next_update = 30\ncrl_number = 1\n").unwrap();
        Run::new("certtool")
            .in_directory(dir.path())
            .words("--generate-crl --template template --load-ca-certificate ca-cert.pem --load-ca-privkey ca-key.pem")
            .args(["--load-certificate", name, "--outfile", "ca-crl.pem"])
            .end()
            .good();
    };
    revoke("client-cert.pem");
    let mut server = Server::ours(&options);
    let without_list = with_our_authority(&[]);
    for name in ["client-cert.pem", "client-key.pem"] {
        fs::copy(dir.path().join(name), without_list.path().join(name)).unwrap();
    }
    let error = ask(&server, without_list.path()).unwrap_err();
    assert!(error.contains("our certificate was revoked"), "{error}");
    let error = the_error(&mut server);
    assert!(error.contains("the certificate of the client (CN=bob) was revoked"), "{error}");
    ask(&server, keys()).unwrap();
    // Now the server is the one whom the client's list names.
    revoke("server-cert.pem");
    let error =
        ask(&Server::ours(&Kind::X509.serve(keys()).replace("require", "require memory 1M")), dir.path());
    let error = error.unwrap_err();
    assert!(error.contains("the certificate of the server (CN=disks.example.com) was revoked"), "{error}");
}

#[test]
fn our_client_checks_the_name_the_authority_and_the_time() {
    needs!("certtool");
    let uri = |more: &str| format!("nbds://127.0.0.1:$port/?tls-certificates={}{more}", keys().display());
    let ask = |server: &Path, uri: String| {
        let options =
            format!("--tls=require --tls-certificates={} -i 127.0.0.1 -p 0 memory 1M", server.display());
        let ended = Run::serve(&options, &format!("diskpipe info --size \"{uri}\"")).end();
        if ended.status.success() { Ok(()) } else { Err(ended.stderr) }
    };
    ask(keys(), uri("")).unwrap();
    ask(keys(), uri("").replace("127.0.0.1", "localhost")).unwrap();
    ask(keys(), uri("&tls-hostname=disks.example.com")).unwrap();
    let error = ask(keys(), uri("&tls-hostname=other.example.com")).unwrap_err();
    let expected = "the certificate of the server is for disks.example.com, localhost, 127.0.0.1, ::1, and not for \
                    other.example.com (tls-hostname names another)";
    assert!(error.contains(expected), "{error}");

    let server = "cn = elsewhere.example.com\ndns_name = elsewhere.example.com\ntls_www_server\nsigning_key\nencryption_key\n";
    let dir = with_our_authority(&[]);
    certificate(dir.path(), keys(), "server", server);
    let error = ask(dir.path(), uri("")).unwrap_err();
    assert!(error.contains("is for elsewhere.example.com, and not for 127.0.0.1"), "{error}");
    ask(dir.path(), uri("&tls-hostname=elsewhere.example.com")).unwrap();
    ask(dir.path(), uri("&tls-verify-peer=0")).unwrap();

    certificate(dir.path(), keys(), "server", &format!("{server}{EXPIRED}"));
    let error = ask(dir.path(), uri("&tls-hostname=elsewhere.example.com")).unwrap_err();
    assert!(error.contains("has expired on Feb  1 00:00:00 2020 GMT"), "{error}");

    let stranger = e2e::directory();
    keygen("x509", stranger.path(), "mallory").good();
    let error = ask(stranger.path(), uri("")).unwrap_err();
    assert!(
        error.contains("was signed by none of the authorities in") && error.contains("ca-cert.pem"),
        "{error}"
    );
}

#[test]
fn wrong_users_and_wrong_secrets_are_refused() {
    needs!("psktool", "nbdinfo");
    let other = e2e::directory();
    for user in ["alice", "bob"] {
        Run::new("psktool").args(["-u", user, "-p"]).arg(other.path().join("keys.psk")).end().good();
    }
    // What the other tool makes works, of course.
    let server = Server::ours(&format!("{} memory 1M", Kind::Psk.serve(other.path())));
    let uri = |server: &Server| Kind::Psk.uri(&server.socket(), other.path());
    Run::new("nbdinfo").args(["--size", &uri(&server)]).end().good();
    Run::diskpipe().args(["info", "--size", &uri(&server)]).end().good();

    for (user, logged) in [
        ("alice", "the key of the client is another one than ours"),
        ("bob", "there is no key for the user \"bob\""),
    ] {
        let mut server = Server::ours(&format!("{} memory 1M", Kind::Psk.serve(keys())));
        let uri = uri(&server).replace("alice@", &format!("{user}@"));
        let error = Run::diskpipe().args(["info", "--size", &uri]).end().code(1).stderr;
        assert!(error.contains("the server ended TLS with"), "{error}");
        let error = the_error(&mut server);
        assert!(error.contains(logged), "{error}");
    }
    // A user who is added later needs no new server.
    let added = e2e::directory();
    keygen("psk", added.path(), "alice").good();
    let server = Server::ours(&format!("{} memory 1M", Kind::Psk.serve(added.path())));
    keygen("psk", added.path(), "carol").good();
    let uri = Kind::Psk.uri(&server.socket(), added.path()).replace("alice@", "carol@");
    assert_eq!(Run::diskpipe().args(["info", "--size", &uri]).text(), "1048576\n");
}

/// A client that has asked for TLS, and been told to begin.
fn about_to_begin(server: &Server) -> std::os::unix::net::UnixStream {
    let mut stream = server.connect();
    stream.read_exact(&mut [0; 18]).unwrap();
    stream.write_all(&[0, 0, 0, 3]).unwrap();
    stream.write_all(b"IHAVEOPT\0\0\0\x05\0\0\0\0").unwrap();
    let mut answer = [0; 20];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[12..16], [0, 0, 0, 1]);
    stream
}

#[test]
fn garbage_and_clients_that_vanish_are_one_line_each() {
    let begin = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let cases: [(&[u8], &str); 5] = [
        (b"GET / HTTP/1.1\r\n\r\n", "what the client sent is no TLS"),
        (&[0; 100], "what the client sent is no TLS"),
        (b"IHAVEOPT\0\0\0\x03\0\0\0\0", "what the client sent is no TLS"),
        (b"", "the client closed the connection in the middle of the TLS handshake"),
        (&begin, "the client closed the connection in the middle of the TLS handshake"),
    ];
    for kind in KINDS {
        for (said, logged) in cases {
            let mut server = Server::ours(&format!("{} memory 1M", kind.serve(keys())));
            let mut stream = about_to_begin(&server);
            stream.write_all(said).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let error = the_error(&mut server);
            assert!(error.starts_with("connection 1: handshake: ") && error.contains(logged), "{error}");
            Run::diskpipe().args(["info", "--size", &kind.uri(&server.socket(), keys())]).end().good();
        }
    }
}

#[test]
fn a_client_that_says_more_before_tls_begins_is_cut_off() {
    let mut server = Server::ours(&format!("{} memory 1M", Kind::Psk.serve(keys())));
    let mut stream = server.connect();
    stream.read_exact(&mut [0; 18]).unwrap();
    // Two options at once: the second would be taken for one that came over TLS.
    let both = b"\0\0\0\x03IHAVEOPT\0\0\0\x05\0\0\0\0IHAVEOPT\0\0\0\x03\0\0\0\0";
    stream.write_all(both).unwrap();
    let error = the_error(&mut server);
    assert!(error.contains("the client sent more after STARTTLS"), "{error}");
}

#[test]
fn a_handshake_that_does_not_go_on_is_cut_off() {
    let mut server = Server::ours(&format!("--timeout=1 {} memory 1M", Kind::X509.serve(keys())));
    let start = Instant::now();
    let _silent = about_to_begin(&server);
    let error = the_error(&mut server);
    assert!(error.contains("cut off, because its handshake took more than 1 seconds"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(50));
}

#[test]
fn clients_that_are_killed_leave_nothing_behind() {
    needs!("nbdcopy");
    let mut server = Server::ours(&format!("{} memory 64M", Kind::Psk.serve(keys())));
    let uri = Kind::Psk.uri(&server.socket(), keys());
    Run::diskpipe().args(["info", "--size", &uri]).end().good();
    server.until("it is idle", |server| server.threads() <= 2);
    let before = (server.threads(), server.descriptors());
    for i in 0..20 {
        let kill = format!(
            "{} {uri:?} null: & sleep 0.0{i}; kill -9 $!; wait",
            if i % 2 == 0 { "nbdcopy" } else { "diskpipe copy" }
        );
        Run::sh(&kill).end();
    }
    server.until("it is as before", |server| (server.threads(), server.descriptors()) == before);
    Run::diskpipe().args(["copy", &uri, "null:"]).end().good();
}

#[test]
fn certificates_of_both_makers_are_good_to_the_other() {
    needs!("certtool", "nbdinfo");
    for name in ["server-cert.pem", "client-cert.pem"] {
        let pem = fs::read(keys().join(name)).unwrap();
        let run =
            Run::new("certtool").args(["--verify", "--load-ca-certificate"]).arg(keys().join("ca-cert.pem"));
        run.input(&pem).end().good();
    }
    for name in ["ca-key.pem", "server-key.pem", "client-key.pem", "keys.psk"] {
        let mode = fs::metadata(keys().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let again = keygen("x509", keys(), "alice").code(1).stderr;
    assert!(again.contains("ca-key.pem: exists already, and keys are not overwritten"), "{again}");

    // All of the other's making, authority and all.
    let dir = e2e::directory();
    let place = |name: &str| -> PathBuf { dir.path().join(name) };
    let certtool = || Run::new("certtool").in_directory(dir.path());
    certtool().words("--generate-privkey --outfile ca-key.pem").end().good();
    fs::write(place("template"), "cn = Authority\nca\ncert_signing_key\ncrl_signing_key\n").unwrap();
    certtool()
        .words("--generate-self-signed --template template --load-privkey ca-key.pem --outfile ca-cert.pem")
        .end()
        .good();
    let server = "cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\ntls_www_server\nsigning_key\nencryption_key\n";
    certificate(dir.path(), dir.path(), "server", server);
    certificate(dir.path(), dir.path(), "client", CLIENT);
    let options = format!("{} --tls-verify-peer -i 127.0.0.1 -p 0 memory 1M", Kind::X509.serve(dir.path()));
    let uri = format!("nbds://localhost:$port/?tls-certificates={}", dir.path().display());
    let both = format!("diskpipe info --size \"{uri}\"; nbdinfo --size \"{uri}\"");
    assert_eq!(Run::serve(&options, &both).text(), "1048576\n1048576\n");
}
