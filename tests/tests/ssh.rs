//! URIs that lead through ssh, with a real sshd and a key of its own.

use e2e::{Run, Server, directory, needs};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A host that is this one. Its sshd is started for each connection, so that no port is taken.
struct Host {
    directory: tempfile::TempDir,
}

impl Host {
    fn new() -> Host {
        let directory = directory();
        let at = |name: &str| directory.path().join(name).display().to_string();
        for key in ["host", "user"] {
            Run::new("ssh-keygen").words("-q -t ed25519 -N").arg("").arg("-f").arg(at(key)).end().good();
        }
        fs::copy(at("user.pub"), at("authorized")).unwrap();
        // Of root, sshd wants this place, whatever else it is told.
        if rustix::process::geteuid().is_root() {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let sshd = Run::sh("command -v sshd || command -v /usr/sbin/sshd").text();
        let server = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPidFile none\n",
            at("host"),
            at("authorized")
        );
        fs::write(at("sshd_config"), server).unwrap();
        let client = format!(
            "Host *\n IdentityFile {}\n UserKnownHostsFile {}\n StrictHostKeyChecking no\n BatchMode yes\n \
             LogLevel ERROR\n ProxyCommand {} -i -f {} -E {}\n",
            at("user"),
            at("known"),
            sshd.trim(),
            at("sshd_config"),
            at("log")
        );
        fs::write(at("ssh_config"), client).unwrap();
        let ssh = Run::sh("command -v ssh").text();
        let words = at("words");
        let script = format!(
            "#!/bin/sh\necho \"$@\" >> {words}\nexec {} -F {} \"$@\"\n",
            ssh.trim(),
            at("ssh_config")
        );
        fs::write(at("ssh"), script).unwrap();
        fs::set_permissions(at("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
        Host { directory }
    }

    /// A program that finds this host's `ssh` first.
    fn run(&self, program: Run) -> Run {
        let path = std::env::join_paths(
            std::iter::once(self.directory.path().to_owned()).chain(std::env::split_paths(&e2e::path())),
        );
        program.env("PATH", path.unwrap())
    }

    fn words(&self) -> String {
        fs::read_to_string(self.directory.path().join("words")).unwrap_or_default()
    }

    /// Whether one can log in here at all: an account may be locked, for one.
    fn lets_in(&self) -> bool {
        let ended = self.run(Run::sh("ssh h true")).end();
        if !ended.status.success() {
            e2e::skip(&format!("needs an account that sshd lets in: {}", ended.stderr.trim()));
        }
        ended.status.success()
    }
}

fn through(socket: &Path) -> String {
    format!("nbd+ssh://h/?socket={}", socket.display())
}

#[test]
fn a_port_and_a_socket_of_another_host_are_reached() {
    needs!("ssh", "ssh-keygen", "sshd", "nc");
    let host = Host::new();
    if !host.lets_in() {
        return;
    }
    let server = Server::ours("memory 3M");
    let socket = through(&server.socket());
    assert_eq!(host.run(Run::diskpipe().args(["info", "--size", &socket])).text(), "3145728\n");
    let info = host.run(Run::diskpipe().args(["info", &format!("{socket}&compress=1")])).text();
    assert!(info.contains(&format!("uri: nbd+ssh://h/?socket={}", server.socket().display())), "{info}");
    assert!(host.words().contains("-C -T -- h exec nc -U "), "{}", host.words());

    // By a port, with several connections, there and back.
    let file = host.directory.path().join("disk");
    fs::write(&file, (0..2_000_000u32).map(|n| (n / 7) as u8).collect::<Vec<_>>()).unwrap();
    let script = format!(
        "uri=nbd+ssh://h/?nbd-port=$port\ndiskpipe copy {0} $uri && diskpipe copy $uri {0}.back && cmp {0} {0}.back",
        file.display()
    );
    let serve = Run::diskpipe().words("serve -i 127.0.0.1 -p 0 memory 2000000 --run").arg(script);
    host.run(serve).end().good();
    assert!(host.words().contains("-W localhost:"), "{}", host.words());
}

#[test]
fn programs_in_python_go_through_ssh() {
    needs!("ssh", "ssh-keygen", "sshd", "nc", "python3");
    let host = Host::new();
    if !host.lets_in() {
        return;
    }
    let server = Server::ours("memory 1M");
    let uri = through(&server.socket());
    let program = format!(
        "import nbd
h = nbd.NBD()
h.connect_uri('{uri}')
h.pwrite(b'hello', 5)
print(bytes(h.pread(6, 5)), h.get_uri())
h.shutdown()
h = nbd.NBD()
h.set_uri_allow_transports(nbd.ALLOW_TRANSPORT_TCP | nbd.ALLOW_TRANSPORT_UNIX)
try:
    h.connect_uri('{uri}')
except nbd.Error as error:
    print(error.errno)"
    );
    let said = host.run(e2e::python(&program)).text();
    assert_eq!(said, format!("b'hello\\x00' {uri}\nEPERM\n"));
}

#[test]
fn what_is_no_host_starts_nothing() {
    let host = Host { directory: directory() };
    let marker = host.directory.path().join("marker");
    let uri = format!("nbd+ssh://-oProxyCommand=touch%20{}", marker.display());
    let ended = host.run(Run::diskpipe().args(["info", &uri])).end().code(1);
    assert!(ended.stderr.contains("begins with a dash"), "{}", ended.stderr);
    assert!(!marker.exists());
    needs!("ssh");
    // A host that cannot be reached: ssh says why.
    let ended = Run::diskpipe().args(["info", "nbd+ssh://h.invalid/"]).seconds(60).end().code(1);
    assert!(ended.stderr.contains("h.invalid"), "{}", ended.stderr);
}
