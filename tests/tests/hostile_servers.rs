//! Servers that die, babble or hang up: `copy` and `info` fail at once, and in a sentence.

use e2e::{Ended, Run, Server, directory, needs};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The tool failed as a program does: by its own decision, in a line or two, with nothing on standard output.
#[track_caller]
fn failed_in_a_sentence(ended: Ended, tool: &str) {
    let ended = ended.code(1);
    assert_eq!(ended.text(), "");
    assert!(ended.stderr.starts_with(&format!("diskpipe {tool}: ")), "{}", ended.stderr);
    assert!(ended.stderr.lines().count() <= 2 && !ended.stderr.contains("panicked"), "{}", ended.stderr);
}

#[test]
fn a_server_killed_in_mid_copy_ends_the_copy() {
    needs!("nbdkit", "qemu-nbd");
    let dir = directory();
    let image = dir.path().join("image");
    std::fs::write(&image, vec![7; 64 << 20]).unwrap();
    let delay = "--filter=delay memory 64M rdelay=200ms wdelay=200ms";
    let servers: [fn(&str) -> Server; 2] = [Server::ours, Server::nbdkit];
    for start in servers {
        for outward in [true, false] {
            let server = start(delay);
            let uri = server.uri();
            let copy = Run::diskpipe().words("copy --no-extents --requests 4");
            let copy = if outward { copy.arg(&uri).arg("null:") } else { copy.arg(&image).arg(&uri) };
            let running = std::thread::spawn(move || copy.end());
            std::thread::sleep(Duration::from_millis(500));
            drop(server);
            let killed = Instant::now();
            failed_in_a_sentence(running.join().unwrap(), "copy");
            assert!(killed.elapsed() < Duration::from_secs(30), "{:?}", killed.elapsed());
        }
    }
}

/// Serves each connection by a closure, which has a socket and its number.
fn served_by(behaviour: impl Fn(UnixStream, usize) + Sync, run: impl Fn(&str)) {
    let dir = directory();
    let socket = dir.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (number, stream) in listener.incoming().enumerate() {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                behaviour(stream.unwrap(), number);
            }
        });
        // Also when an assertion fails, or its message would wait for the server's end.
        let _end = End { over: &over, socket: &socket };
        run(&format!("nbd+unix:///?socket={}", socket.display()));
    });
}

/// Ends a server of [`served_by`].
struct End<'a> {
    over: &'a AtomicBool,
    socket: &'a Path,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(self.socket);
    }
}

fn both_tools_fail(uri: &str) {
    failed_in_a_sentence(Run::diskpipe().arg("info").arg(uri).seconds(60).end(), "info");
    failed_in_a_sentence(Run::diskpipe().words("copy").arg(uri).arg("null:").seconds(60).end(), "copy");
    failed_in_a_sentence(Run::diskpipe().words("copy /dev/null").arg(uri).seconds(60).end(), "copy");
}

#[test]
fn a_greeting_that_is_none_is_refused() {
    for greeting in [&b""[..], b"SSH-2.0-OpenSSH_9.2p1\r\n", &[0; 512], b"NBDMAGIC", b"NBDMAGICIHAVEOPTxx"] {
        let behaviour = |mut stream: UnixStream, _| {
            let _ = stream.write_all(greeting);
            let _ = stream.shutdown(Shutdown::Write);
            // Unread bytes would make the end a reset.
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        };
        served_by(behaviour, both_tools_fail);
    }
}

/// The plainest server there is: oldstyle, a mebibyte; then whatever `answer` says to each request.
fn oldstyle(mut stream: UnixStream, answer: impl Fn(&[u8; 28]) -> Vec<u8>) {
    let mut greeting = b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53".to_vec();
    greeting.extend((1_u64 << 20).to_be_bytes());
    greeting.extend(1_u32.to_be_bytes());
    greeting.extend([0; 124]);
    let _ = stream.write_all(&greeting);
    let mut request = [0; 28];
    while stream.read_exact(&mut request).is_ok() {
        if stream.write_all(&answer(&request)).is_err() {
            return;
        }
    }
}

fn reply(cookie: &[u8], error: u32) -> Vec<u8> {
    let mut bytes = 0x6744_6698_u32.to_be_bytes().to_vec();
    bytes.extend(error.to_be_bytes());
    bytes.extend(cookie);
    bytes
}

#[test]
fn answers_that_are_none_end_the_copy() {
    type Answer = fn(&[u8; 28]) -> Vec<u8>;
    let answers: [(&str, Answer); 4] = [
        ("another magic", |_| vec![0x11; 64]),
        ("an answer to nothing", |_| reply(&[0xee; 8], 0)),
        ("an error", |request| reply(&request[8..16], 5)),
        ("an error that does not exist", |request| reply(&request[8..16], 0xffff_ffff)),
    ];
    for (what, answer) in answers {
        let run = |uri: &str| {
            let ended = Run::diskpipe().arg("copy").arg(uri).arg("null:").seconds(60).end();
            assert!(!ended.status.success(), "{what}");
            failed_in_a_sentence(ended, "copy");
        };
        served_by(|stream, _| oldstyle(stream, answer), run);
    }
}

#[test]
fn a_server_that_hangs_up_in_the_middle_of_data_ends_the_copy() {
    let behaviour = |stream: UnixStream, _| {
        let end = stream.try_clone().unwrap();
        oldstyle(stream, |request| {
            let answer = [reply(&request[8..16], 0), vec![1; 1000]].concat();
            let _ = (&end).write_all(&answer);
            let _ = end.shutdown(Shutdown::Both);
            Vec::new()
        });
    };
    served_by(behaviour, |uri| {
        failed_in_a_sentence(Run::diskpipe().arg("copy").arg(uri).arg("null:").seconds(60).end(), "copy");
    });
}

#[test]
fn nobody_at_the_address_is_said_at_once() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for uri in [format!("nbd://127.0.0.1:{port}"), "nbd+unix:///?socket=/no/such/socket".to_owned()] {
        both_tools_fail(&uri);
    }
}

#[test]
fn a_command_that_ends_without_serving_is_named_with_its_end() {
    let dir = directory();
    for (command, why) in [
        ("/no/such/program", "/no/such/program: cannot start the server: No such file or directory"),
        ("false", "false: the command ended before it served (exit status: 1)"),
        ("true", "true: the command ended before it served (exit status: 0)"),
        ("sh -c exit\u{a0}7", "sh: the command ended before it served (exit status: 7)"),
        ("sh -c kill\u{a0}-9\u{a0}$$", "sh: the command ended before it served (signal: 9 (SIGKILL))"),
    ] {
        let command =
            || ["["].into_iter().chain(command.split(' ')).chain(["]"]).map(|w| w.replace('\u{a0}', " "));
        for (tool, rest) in [
            ("info", &[][..]),
            ("dump", &[]),
            ("map", &[]),
            ("ls", &[]),
            ("discard", &[]),
            ("copy", &["null:"]),
            ("mount", &[dir.path().to_str().unwrap()]),
        ] {
            let run = Run::diskpipe().arg(tool);
            let run =
                if tool == "mount" { run.args(rest).args(command()) } else { run.args(command()).args(rest) };
            let ended = run.seconds(60).end().code(1);
            assert_eq!(ended.stderr, format!("diskpipe {tool}: {why}\n"));
        }
    }
}

/// A server of another age: of all options it knows only the one that names an export.
fn knows_only_names(mut stream: UnixStream, _: usize) {
    let _ = stream.write_all(b"NBDMAGICIHAVEOPT\x00\x01");
    let _ = stream.read_exact(&mut [0; 4]);
    let mut head = [0; 16];
    while stream.read_exact(&mut head).is_ok() {
        let length = u32::from_be_bytes(head[12..].try_into().unwrap());
        let _ = std::io::copy(&mut (&stream).take(length.into()), &mut std::io::sink());
        if head[8..12] == [0, 0, 0, 1] {
            let export = [&(1_u64 << 20).to_be_bytes()[..], &[0, 1], &[0; 124]].concat();
            let _ = stream.write_all(&export);
            break;
        }
        let refusal = [b"\x00\x03\xe8\x89\x04\x55\x65\xa9", &head[8..12], &[0x80, 0, 0, 1, 0, 0, 0, 0]];
        let _ = stream.write_all(&refusal.concat());
    }
    let mut request = [0; 28];
    while stream.read_exact(&mut request).is_ok() && request[7] == 0 {
        let length = u32::from_be_bytes(request[24..].try_into().unwrap()) as usize;
        let _ = stream.write_all(&[reply(&request[8..16], 0), vec![b'x'; length]].concat());
    }
}

#[test]
fn a_server_that_knows_only_names_is_described() {
    served_by(knows_only_names, |uri| {
        let said = Run::diskpipe().arg("info").arg(uri).seconds(60).text();
        assert!(said.starts_with("protocol: newstyle-fixed without TLS, using simple packets\n"), "{said}");
        assert!(said.contains("\texport-size: 1048576 (1M)\n\tcontent: ASCII text"), "{said}");
        assert_eq!(Run::diskpipe().words("info --size").arg(uri).seconds(60).text(), "1048576\n");
        Run::diskpipe().words("info --can fua").arg(uri).seconds(60).end().code(2);
    });
}

#[test]
fn a_server_that_dies_in_the_handshake_is_said_to_have_hung_up() {
    // It takes so many options, says yes to them without a word more, and is gone.
    let dies_after = |options: usize| {
        move |mut stream: UnixStream, _| {
            let _ = stream.write_all(b"NBDMAGICIHAVEOPT\x00\x03");
            let _ = stream.read_exact(&mut [0; 4]);
            for option in 0..=options {
                let mut head = [0; 16];
                if stream.read_exact(&mut head).is_err() {
                    return;
                }
                let length = u32::from_be_bytes(head[12..].try_into().unwrap());
                let _ = std::io::copy(&mut (&stream).take(length.into()), &mut std::io::sink());
                if option < options {
                    let ack = [b"\x00\x03\xe8\x89\x04\x55\x65\xa9", &head[8..12], &[0, 0, 0, 1, 0, 0, 0, 0]];
                    let _ = stream.write_all(&ack.concat());
                }
            }
        }
    };
    for (options, last) in [(0, "STRUCTURED_REPLY"), (1, "LIST_META_CONTEXT")] {
        served_by(dies_after(options), |uri| {
            for question in ["", "--size", "--json", "--can=write"] {
                let ended = Run::diskpipe().arg("info").words(question).arg(uri).seconds(60).end();
                assert!(
                    ended.stderr.contains(&format!("closed the connection instead of answering {last}")),
                    "info {question}: {}",
                    ended.stderr
                );
                failed_in_a_sentence(ended, "info");
            }
        });
    }
}
