//! Every option of `serve`, used as its manual says, looked at from outside.

use e2e::{PATIENCE, Run, Server, absent, directory, needs};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

const GREETING: &[u8; 16] = b"NBDMAGICIHAVEOPT";

/// What the command of `--run` printed.
#[track_caller]
fn run(arguments: &str, command: &str) -> String {
    Run::serve(arguments, command).text()
}

/// What an expression about libnbd's handle `h` is.
#[track_caller]
fn nbdsh(arguments: &str, expression: &str) -> String {
    run(arguments, &format!("nbdsh -u \"$uri\" -c 'print({expression})'")).trim().to_owned()
}

/// What it complained about; it must fail.
#[track_caller]
fn complaint(arguments: &str) -> String {
    Run::diskpipe().arg("serve").words(arguments).end().code(1).stderr
}

fn greets(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, PATIENCE) else { return false };
    let mut greeting = [0; 16];
    stream.read_exact(&mut greeting).is_ok() && &greeting == GREETING
}

/// The TCP port of a server that was told `-p 0 --print-uri`.
fn tcp(arguments: &str, with: impl FnOnce(u16)) {
    let dir = directory();
    let pid_file = dir.path().join("pid");
    let said = Run::diskpipe().words("serve -p 0 --print-uri -P").arg(&pid_file).words(arguments).text();
    let (_, port) = said.trim().rsplit_once(':').unwrap_or_else(|| panic!("{said}"));
    with(port.parse().unwrap());
    end(&pid_file);
}

/// Ends the server whose process id stands in this file.
fn end(pid_file: &Path) {
    Run::sh(&format!("kill $(cat '{}')", pid_file.display())).end().good();
}

#[test]
fn ipv4_and_ipv6_choose_the_family() {
    let (four, six) = (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
    let has_six = std::net::TcpListener::bind((six, 0)).is_ok();
    tcp("-4 memory 1M", |port| assert!(greets((four, port).into()) && !greets((six, port).into())));
    tcp("memory 1M", |port| assert!(greets((four, port).into()) && greets((six, port).into()) == has_six));
    if has_six {
        tcp("-4 -6 memory 1M", |port| assert!(!greets((four, port).into()) && greets((six, port).into())));
        tcp("-i ::1 memory 1M", |port| assert!(!greets((four, port).into()) && greets((six, port).into())));
    }
    tcp("--ipaddr=127.0.0.1 memory 1M", |port| assert!(greets((four, port).into())));
    tcp("--ip-addr localhost -4 memory 1M", |port| assert!(greets((four, port).into())));
    assert!(complaint("-i no-such-host.invalid memory 1M").contains("no-such-host.invalid"));
}

#[test]
fn a_port_is_a_number_and_zero_is_any() {
    assert_eq!(
        run("-p 0 memory 1M", r#"test "$port" -gt 0 && echo "$uri" | sed "s/$port/PORT/""#),
        "nbd://localhost:PORT\n"
    );
    assert!(complaint("-p 65536 memory 1M").contains("--port=65536: not a port number from 0 to 65535"));
    assert!(complaint("--port=x memory 1M").contains("--port=x: "));
}

#[test]
fn a_service_has_a_port_and_an_address_without_tcp_is_only_a_warning() {
    let services = std::fs::read_to_string("/etc/services").unwrap_or_default();
    if !services.lines().any(|line| line.starts_with("nbd")) {
        return e2e::skip("needs a service nbd in /etc/services");
    }
    let said = Run::diskpipe().words("serve -p no-such-service null").end().code(1).stderr;
    assert!(said.contains("nor the name of a service"), "{said}");
    // Wherever it listens, this is not known to be free; but it is known to be a port.
    let said = Run::diskpipe().words("serve -p nbd -i 192.0.2.1 null").end().code(1).stderr;
    assert!(said.contains("192.0.2.1:10809: cannot listen"), "{said}");
    let ended = Run::serve("-U - -i 127.0.0.1 memory 1M", "diskpipe info --size \"$uri\"").end().good();
    assert!(ended.text() == "1048576\n" && ended.stderr.contains("is for TCP"), "{}", ended.stderr);
}

#[test]
fn a_private_socket_is_private_whatever_the_umask() {
    let look = "umask 0; diskpipe serve -U - memory 1M --run 'stat -c %a \"$(dirname \"$unixsocket\")\"'";
    assert_eq!(Run::sh(look).text(), "700\n");
}

#[test]
fn debug_flags_are_warned_about() {
    let warned = Run::diskpipe().words("serve -U - -D memory.foo=1 --debug=other.bar=2 memory 1M --run true");
    let warned = warned.end().good().stderr;
    assert!(warned.contains("memory does not contain a global variable called memory_debug_foo"), "{warned}");
    assert!(warned.contains("-D other.bar was not used"), "{warned}");
    assert!(complaint("-D memory.foo memory 1M").contains("must have the format NAME.FLAG=N"));
}

#[test]
fn the_server_ends_with_its_parent() {
    let dir = directory();
    let (socket, pid) = (dir.path().join("s"), dir.path().join("pid"));
    let diskpipe = e2e::diskpipe().display();
    let script = format!(
        "'{diskpipe}' serve --exit-with-parent -U '{}' -P '{1}' memory 1M & until test -s '{1}'; do sleep 0.01; done",
        socket.display(),
        pid.display()
    );
    Run::sh(&script).end().good();
    let pid = fs::read_to_string(pid).unwrap();
    let start = Instant::now();
    while Path::new(&format!("/proc/{}", pid.trim())).exists() {
        assert!(start.elapsed() < PATIENCE, "it is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_export_name_is_for_the_command() {
    for option in ["-e", "--exportname", "--export-name", "--export"] {
        let said = run(&format!("{option} a/b memory 1M"), r#"echo "$exportname" "$uri""#);
        assert!(said.starts_with("a/b nbd+unix:///a/b?socket="), "{said}");
    }
    assert_eq!(run("memory 1M", r#"echo "[$exportname]""#), "[]\n");
}

#[test]
fn filters_stand_before_the_plugin_in_their_order() {
    let size = |arguments: &str| run(arguments, "diskpipe info --size \"$uri\"").trim().to_owned();
    assert_eq!(size("--filter=offset memory 1M offset=512"), "1048064");
    assert_eq!(size("memory 1M offset=512 --filter offset"), "1048064");
    assert!(complaint("--filter=no-such memory 1M").contains("there is no filter no-such"));
}

#[test]
fn foreground_servers_stay_until_they_are_told() {
    for option in ["-f", "--foreground", "--no-fork"] {
        let server = Server::start(|socket| {
            Run::diskpipe().arg("serve").arg(option).arg("-U").arg(socket).words("memory 1M")
        });
        assert_eq!(server.stop().0.and_then(|status| status.code()), Some(0), "{option}");
    }
}

#[test]
fn messages_go_where_they_are_sent() {
    let dir = directory();
    let file = dir.path().join("log");
    let noisy = |log: &str| {
        let told = Run::serve(&format!("{log} -D x.y=1 memory 1M"), "true").end().good();
        told.stderr
    };
    assert!(noisy("--log=stderr").contains("x.y was not used"));
    assert!(noisy("--log=default").contains("x.y was not used"));
    assert_eq!(noisy("--log=null"), "");
    assert_eq!(noisy(&format!("--log={}", file.display())), "");
    assert!(fs::read_to_string(&file).unwrap().contains("x.y was not used"));
    assert!(
        complaint("--log=elsewhere memory 1M").contains("--log=elsewhere: not one of stderr, syslog, null")
    );
    let json = noisy("--log-format=json");
    let line: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(line["level"], "WARN");
    assert!(noisy("--name=my-disk").contains(": my-disk: warning: "));
}

#[test]
fn handshake_flags_can_be_masked() {
    needs!("nbdsh");
    // Without fixed newstyle there are no structured replies, and nothing but the plainest handshake.
    assert_eq!(nbdsh("--mask-handshake=0 memory 1M", "h.get_protocol()"), "newstyle");
    assert_eq!(nbdsh("--mask-handshake=3 memory 1M", "h.get_protocol()"), "newstyle-fixed");
    assert_eq!(nbdsh("memory 1M", "h.get_protocol()"), "newstyle-fixed");
}

#[test]
fn old_and_new_style_are_spoken() {
    needs!("nbdsh");
    for (option, protocol) in [
        ("-n", "newstyle-fixed"),
        ("--newstyle", "newstyle-fixed"),
        ("--new-style", "newstyle-fixed"),
        ("-o", "oldstyle"),
        ("--oldstyle", "oldstyle"),
        ("--old-style", "oldstyle"),
    ] {
        assert_eq!(nbdsh(&format!("{option} memory 1M"), "h.get_protocol()"), protocol, "{option}");
    }
    assert_eq!(nbdsh("-o memory 1M", "h.get_size()"), "1048576");
}

#[test]
fn structured_replies_and_meta_contexts_can_be_left_out() {
    needs!("nbdsh", "nbdinfo");
    let negotiated = "h.get_structured_replies_negotiated()";
    assert_eq!(nbdsh("memory 1M", negotiated), "True");
    for option in ["--no-sr", "--no-structured-replies"] {
        assert_eq!(nbdsh(&format!("{option} memory 1M"), negotiated), "False");
        assert_eq!(nbdsh(&format!("{option} memory 1M"), "h.can_df()"), "False");
    }
    let mapped =
        |option: &str| run(&format!("{option} memory 1M"), "nbdinfo --map --totals \"$uri\" || true");
    assert!(mapped("").contains("hole,zero"));
    assert!(!mapped("--no-mc").contains("hole") && !mapped("--no-meta-contexts").contains("hole"));
}

#[test]
fn read_only_means_it() {
    needs!("nbdsh");
    for option in ["-r", "--readonly", "--read-only"] {
        assert_eq!(nbdsh(&format!("{option} memory 1M"), "h.is_read_only()"), "True");
    }
    assert_eq!(nbdsh("memory 1M", "h.is_read_only()"), "False");
}

#[test]
fn the_command_decides_how_it_ends() {
    assert_eq!(Run::serve("memory 1M", "exit 7").end().status.code(), Some(7));
    let said =
        run("memory 1M", r#"test "$uri" = "$nbd" && test -S "$unixsocket" && echo "[$port][${tls-unset}]""#);
    assert_eq!(said, "[][unset]\n");
}

#[test]
fn a_server_that_is_told_to_end_ends_its_command_and_that_is_a_good_end() {
    assert_eq!(Run::serve("memory 1M", "kill -TERM $PPID; exec sleep 60").end().status.code(), Some(0));
    assert_eq!(
        Run::serve("memory 1M", "trap 'exit 4' TERM; kill -TERM $PPID; while :; do sleep 0.01; done")
            .end()
            .status
            .code(),
        Some(4)
    );
    assert_eq!(Run::serve("memory 1M", "kill -TERM $$").end().status.code(), Some(128 + 15));
}

#[test]
fn a_label_is_a_warning_where_there_is_no_selinux() {
    if Path::new("/sys/fs/selinux/enforce").exists() {
        return;
    }
    let told =
        Run::serve("--selinux-label=system_u:object_r:svirt_socket_t:s0 memory 1M", "true").end().good();
    assert!(told.stderr.contains("there is no SELinux here"), "{}", told.stderr);
}

#[test]
fn one_client_is_served_on_standard_input_and_output() {
    needs!("nbdsh");
    for option in ["-s", "--single", "--stdin"] {
        let script = format!(
            "h.connect_command([\"{}\", \"serve\", \"{option}\", \"memory\", \"1M\"])\nprint(h.get_size())",
            e2e::diskpipe().display()
        );
        assert_eq!(Run::new("nbdsh").args(["-c", &script]).text(), "1048576\n");
    }
    assert!(complaint("-s -U - memory 1M").contains("-s and -U cannot be used together"));
    assert!(complaint("-s --run true memory 1M").contains("-s and --run cannot be used together"));
    assert!(complaint("-s --print-uri memory 1M").contains("-s and --print-uri cannot be used together"));
}

#[test]
fn swap_locks_the_memory_of_the_process_that_serves() {
    let dir = directory();
    let pid_file = dir.path().join("pid");
    let serve = Run::diskpipe().words("serve --swap -P").arg(&pid_file).arg("-U").arg(dir.path().join("s"));
    let ended = serve.words("memory 1M").end();
    if !ended.status.success() {
        // Locking needs rights that not everybody has.
        assert!(ended.stderr.contains("--swap: cannot lock the memory"), "{}", ended.stderr);
        return;
    }
    let pid = fs::read_to_string(&pid_file).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
    Run::sh(&format!("kill {pid}")).end().good();
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
    assert_ne!(locked.trim(), "0 kB");
}

#[test]
fn threads_bound_the_requests_in_flight() {
    needs!("nbdsh");
    // Ten reads of a tenth of a second: one after the other, or side by side.
    let script = r#"import time
start = time.time()
cookies = [h.aio_pread(nbd.Buffer(512), 0) for _ in range(10)]
while h.aio_in_flight() > 0: h.poll(-1)
print(time.time() - start > 0.9)"#;
    let serial = |arguments: &str| run(arguments, &format!("nbdsh -u \"$uri\" -c '{script}'"));
    assert_eq!(serial("-t 1 --filter=delay memory 1M rdelay=100ms"), "True\n");
    assert_eq!(serial("--threads=16 --filter=delay memory 1M rdelay=100ms"), "False\n");
    assert!(complaint("-t x memory 1M").contains("--threads=x: "));
}

#[test]
fn tls_is_off_when_it_is_told_to_be() {
    assert_eq!(run("--tls=off memory 1M", r#"echo "${tls-unset}" "${uri%%:*}""#), "unset nbd+unix\n");
}

#[test]
fn verbose_lines_are_those_of_nbdkit() {
    let told =
        Run::serve("-v --filter=offset memory 1M offset=512", "diskpipe info \"$uri\"").end().good().stderr;
    assert!(told.contains(": memory[1]: debug: offset: open readonly=0 exportname=\"\" tls=0"), "{told}");
    assert!(told.contains(": memory[1]: debug: memory: open "), "{told}");
    assert!(told.contains("debug: using thread model: parallel"), "{told}");
    let lines = |flags: &str| {
        let command = "echo x | diskpipe copy - \"$uri\"";
        let told = Run::serve(&format!("-v {flags} memory 1M"), command).end().good().stderr;
        (told.contains("memory: open "), told.contains("memory: pwrite count=2 offset=0"))
    };
    assert_eq!(lines(""), (true, true));
    assert_eq!(lines("-D nbdkit.backend.datapath=0"), (true, false));
    assert_eq!(lines("-D nbdkit.backend.controlpath=0"), (false, true));
}

#[test]
fn verbose_lines_tell_of_every_step_as_nbdkits_do() {
    needs!("nbdkit", "nbdsh");
    let script = "h.pread(512, 0); h.pwrite(bytes(512), 0); h.pwrite(bytes(512), 0, nbd.CMD_FLAG_FUA); \
                  h.zero(512, 0); h.trim(512, 512); h.flush(); h.cache(512, 0)";
    let command = format!("nbdsh -u \"$uri\" -c '{script}'");
    let words = "-v -U - --filter=offset memory 1M offset=512";
    let ours = Run::serve(words, &command).end().good().stderr;
    let theirs = Run::new("nbdkit").words(words).args(["--run", &command]).end().good().stderr;
    // What is after the name of the program, and the thread that theirs names: `nbdkit: memory.7: debug: ...`.
    let said = |log: &str| -> Vec<String> {
        let told = |line: &str| Some(line.split_once("debug: ")?.1.to_owned());
        let of_components = |line: &String| line.starts_with("memory: ") || line.starts_with("offset: ");
        log.lines().filter_map(told).filter(of_components).collect()
    };
    let (ours, theirs) = (said(&ours), said(&theirs));
    // Handles, and the life of a shared object, are theirs alone; and their filters see what they pass on.
    let alone = ["returned handle", "load", "prepare", "finalize", "offset: config key=size"];
    for line in theirs.iter().filter(|line| !alone.iter().any(|word| line.contains(word))) {
        assert!(ours.iter().any(|own| own.starts_with(line)), "{line}\n{ours:#?}");
    }
}

#[test]
fn passwords_are_not_in_verbose_lines() {
    let told = Run::diskpipe().words("serve -v -U - memory 1M password=hush").end().code(1).stderr;
    assert!(told.contains("config key=password, value=(not shown)") && !told.contains("hush"), "{told}");
}

#[test]
fn versions_and_facts_can_be_asked_for() {
    let text = |arguments: &str| Run::diskpipe().arg("serve").words(arguments).text();
    assert!(text("-V").starts_with("diskpipe "));
    assert_eq!(text("--version --filter=offset memory").lines().count(), 3);
    assert!(text("--dump-config").contains("\nversion_major=1\n"));
    if !absent(&["nbdkit"]) {
        // Whatever scripts may ask of theirs can be asked of ours.
        let keys = |text: &str| {
            text.lines().filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect::<Vec<_>>()
        };
        let (ours, theirs) =
            (keys(&text("--dump-config")), keys(&Run::new("nbdkit").arg("--dump-config").text()));
        assert_eq!(theirs.iter().find(|key| !ours.contains(key)), None);
    }
    let model = |arguments: &str| {
        let text = text(&format!("--dump-plugin {arguments}"));
        let line = text.lines().find_map(|line| line.strip_prefix("thread_model=")).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{text}"))
    };
    assert_eq!(model("memory"), "parallel");
    assert_eq!(model("memory 1M --filter=noparallel"), "serialize_requests");
    assert_eq!(model("memory 1M --filter=noparallel serialize=all-requests"), "serialize_all_requests");
    assert_eq!(model("memory 1M --filter=noparallel serialize=connections"), "serialize_connections");
    let longs = text("--long-options");
    let shorts = text("--short-options");
    let help = text("--help");
    for long in longs.lines() {
        assert!(help.contains(long), "{long}");
    }
    assert!(shorts.lines().any(|short| short == "-U") && help.contains("-U, --unix"));
}

#[test]
fn filters_lower_the_thread_model_of_a_plugin_that_was_given_nothing() {
    let model = |arguments: &str| {
        let text = Run::diskpipe().arg("serve").words(arguments).text();
        text.lines().find_map(|line| line.strip_prefix("thread_model=")).unwrap().to_owned()
    };
    assert_eq!(
        model("--filter=noparallel memory --dump-plugin serialize=connections"),
        "serialize_connections"
    );
    assert_eq!(model("--filter=noparallel --filter=cow memory --dump-plugin"), "serialize_requests");
    assert_eq!(model("--filter=error memory --dump-plugin"), "parallel");
    let refused =
        Run::diskpipe().words("serve --filter=delay memory --dump-plugin rdelay=soon").end().code(1);
    assert!(refused.stderr.contains("rdelay=soon"), "{}", refused.stderr);
}

#[test]
fn vsock_has_a_place_or_a_reason() {
    let port = 20_000 + std::process::id() % 40_000;
    let ended = Run::serve(&format!("--vsock -p {port} memory 1M"), r#"echo "$uri $port""#).end();
    match ended.status.success() {
        true => assert_eq!(ended.text(), format!("nbd+vsock://1:{port}/ {port}\n")),
        false => {
            e2e::skip("needs vsock");
            let why = format!("vsock port {port}: cannot listen");
            assert!(ended.stderr.contains(&why), "{}", ended.stderr);
        }
    }
    let wrong = complaint("--vsock -p 4294967296 memory 1M");
    assert!(wrong.contains("--port=4294967296: not a vsock port number"), "{wrong}");
    assert!(complaint("--vsock -s memory 1M").contains("-s and --vsock cannot be used together"));
    assert!(complaint("--vsock -U - memory 1M").contains("-U and --vsock cannot be used together"));
}

#[test]
fn the_uri_is_printed_when_clients_can_connect() {
    let dir = directory();
    let (socket, pid_file) = (dir.path().join("s"), dir.path().join("pid"));
    let serve = Run::diskpipe().words("serve --print-uri -e x -P").arg(&pid_file).arg("-U").arg(&socket);
    let said = serve.words("memory 1M").text();
    assert_eq!(said, format!("nbd+unix:///x?socket={}\n", socket.display()));
    end(&pid_file);
}

#[test]
fn slow_handshakes_and_idle_clients_are_cut_off() {
    for (options, word) in [("--timeout=0.2", "handshake"), ("--timeout=200ms", "handshake")] {
        let server = Server::ours(&format!("{options} memory 1M"));
        let mut stream = server.connect();
        let start = Instant::now();
        stream.read_to_end(&mut Vec::new()).unwrap();
        assert!(start.elapsed() < PATIENCE);
        assert!(server.stop().1.contains(word));
    }
    let server = Server::ours("--idle-timeout=0.2 --keepalive memory 1M");
    let mut stream = server.connect();
    let mut room = [0; 18];
    stream.read_exact(&mut room).unwrap();
    stream.write_all(b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\0").unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    assert!(server.stop().1.contains("nothing was heard of the client for 0.2 seconds"));
}

#[test]
fn arguments_come_out_of_files() {
    let dir = directory();
    let file = dir.path().join("args");
    fs::write(&file, "# the size\nsize=2M\n").unwrap();
    let size = |words: &str| run(&format!("{words} @{}", file.display()), "diskpipe info --size \"$uri\"");
    assert_eq!(size("memory"), "2097152\n");
    fs::write(&file, "memory\n3M\n").unwrap();
    assert_eq!(size(""), "3145728\n");
}

#[test]
fn what_would_be_served_is_explained() {
    let explain = |arguments: &str| Run::diskpipe().arg("explain").words(arguments).end();
    let told = explain("--filter=offset memory 1M offset=512 -r").good().text();
    for part in [
        "filter offset: ",
        "    offset = 512\n",
        "    size: 1048576 bytes (1M) -> 1048064 bytes\n",
        "plugin memory: ",
        "    allocator = sparse (the default)\n",
        "thread model: parallel\n",
    ] {
        assert!(told.contains(part), "{part}\n{told}");
    }
    assert!(told.find("filter offset") < told.find("plugin memory"), "outermost first");
    let told =
        Run::diskpipe().words("serve --explain --filter=offset memory 1M offset=2M").end().code(1).text();
    assert!(told.contains("cannot be opened: offset=2097152: the disk below ends before it"), "{told}");
    let told = explain("memory siez=1").code(1).text();
    assert!(told.contains("refused: ") && told.contains("did you mean size= of memory?"), "{told}");
}
