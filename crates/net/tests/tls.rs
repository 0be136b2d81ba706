//! Encrypted streams, both ends in this process. (Against other implementations: the end-to-end tests.)
#![cfg(feature = "tls")]

use net::{
    How, Stream, Wait,
    tls::{self, CertificateWishes, ClientSettings, Keys, ServerSettings},
};
use std::{
    fs,
    io::{self, IoSlice, IoSliceMut},
    path::Path,
    sync::{Arc, OnceLock},
    thread,
};
use tempfile::TempDir;

const TLS12: &str = "NORMAL:-VERS-ALL:+VERS-TLS1.2";
const TLS13: &str = "NORMAL:-VERS-ALL:+VERS-TLS1.3";

/// Keys of all kinds; made once, because good ones take a while.
fn keys() -> &'static Path {
    static KEYS: OnceLock<TempDir> = OnceLock::new();
    let dir = KEYS.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let names = ["localhost", "127.0.0.1", "::1"].map(String::from).to_vec();
        let wishes = CertificateWishes { names, user: "alice".into(), days: 2 };
        tls::make_certificates(dir.path(), &wishes).unwrap();
        tls::make_key(dir.path(), "alice").unwrap();
        dir
    });
    dir.path()
}

fn server(keys: Keys, verify_peer: bool, priority: Option<&str>) -> tls::Server {
    let priority = priority.map(String::from);
    tls::Server::new(&ServerSettings { keys, verify_peer, priority }).unwrap()
}

fn x509_server(verify_peer: bool) -> tls::Server {
    server(Keys::Certificates(keys().into()), verify_peer, None)
}

fn x509_client() -> ClientSettings {
    ClientSettings { certificates: Some(keys().into()), ..ClientSettings::default() }
}

fn psk_client(user: &str) -> ClientSettings {
    let psk_file = Some(keys().join("keys.psk"));
    ClientSettings { psk_file, user: Some(user.into()), ..ClientSettings::default() }
}

/// Both ends' handshakes, and what came of them.
fn meet(
    server: &tls::Server,
    client: &ClientSettings,
    host: Option<&str>,
) -> (io::Result<Stream>, io::Result<Stream>) {
    let (near, far) = Stream::pair().unwrap();
    thread::scope(|scope| {
        let accepted = scope.spawn(move || far.accept_tls(server).map(|_| ()).map(|()| far));
        let client = tls::Client::new(client).unwrap();
        let begun = near.begin_tls(&client, host).map(|_| ()).map(|()| near);
        // (A client that was refused is gone by now, so that the server hears of it.)
        match begun {
            Ok(near) => (accepted.join().unwrap(), Ok(near)),
            Err(e) => (accepted.join().unwrap(), Err(e)),
        }
    })
}

fn pair(server: &tls::Server, client: &ClientSettings) -> (Stream, Stream) {
    let (far, near) = meet(server, client, Some("localhost"));
    (far.unwrap(), near.unwrap())
}

#[test]
fn certificates_and_keys_work_in_both_versions() {
    let psk = || Keys::Psk(keys().join("keys.psk"));
    for (priority, version) in [(TLS12, "TLSv1.2"), (TLS13, "TLSv1.3")] {
        for verify in [false, true] {
            let server = server(Keys::Certificates(keys().into()), verify, Some(priority));
            let (far, near) = pair(&server, &x509_client());
            assert_eq!(near.tls().unwrap().version, version);
            assert_eq!(near.tls().unwrap().peer.as_deref(), Some("CN=localhost"));
            assert_eq!(far.tls().unwrap().peer.as_deref(), verify.then_some("CN=alice"));
        }
        let (far, near) = pair(&server(psk(), false, Some(priority)), &psk_client("alice"));
        assert_eq!((near.tls().unwrap().version, far.tls().unwrap().version), (version, version));
        assert_eq!(far.tls().unwrap().peer.as_deref(), Some("alice"));
        far.send_all(b"hello").unwrap();
        let mut buffer = [0; 16];
        assert_eq!(near.recv(&mut buffer, Wait::Block).unwrap(), 5);
        near.shutdown(How::Write).unwrap();
        assert_eq!(far.recv(&mut buffer, Wait::Block).unwrap(), 0);
    }
}

#[test]
fn the_fastest_cipher_is_chosen() {
    let (far, _near) = pair(&x509_server(false), &x509_client());
    if std::arch::is_x86_feature_detected!("aes") {
        assert_eq!(far.tls().unwrap().cipher, "TLS_AES_128_GCM_SHA256");
    }
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251 + seed) as u8).collect()
}

#[test]
fn much_goes_both_ways_at_once_and_arrives_whole() {
    for priority in [TLS12, TLS13] {
        let server = server(Keys::Certificates(keys().into()), false, Some(priority));
        let (far, near) = pair(&server, &x509_client());
        let streams = [Arc::new(near), Arc::new(far)];
        thread::scope(|scope| {
            for i in [0, 1] {
                // All of one size on one side would leave the boundaries of records where those of pieces are.
                let data = pattern(9_000_001, i);
                let (to, from) = (streams[i].clone(), streams[1 - i].clone());
                let expected = data.clone();
                scope.spawn(move || {
                    let mut sent = 0;
                    while sent < data.len() {
                        let head = (sent + 28).min(data.len());
                        let body = (head + 70_000 + sent % 5000).min(data.len());
                        let tail = (body + 100).min(data.len());
                        let pieces =
                            [&data[sent..head], &data[head..body], &data[body..tail]].map(IoSlice::new);
                        sent += to.send_vectored(&pieces, Wait::Block).unwrap();
                    }
                });
                scope.spawn(move || {
                    let mut got = Vec::new();
                    let (mut small, mut large) = (vec![0; 33], vec![0; 300_000]);
                    while got.len() < expected.len() {
                        let mut pieces = [IoSliceMut::new(&mut small), IoSliceMut::new(&mut large)];
                        let n = from.recv_vectored(&mut pieces, Wait::Block).unwrap();
                        assert_ne!(n, 0);
                        got.extend_from_slice(&small[..n.min(33)]);
                        got.extend_from_slice(&large[..n.saturating_sub(33)]);
                    }
                    assert!(got == expected);
                });
            }
        });
    }
}

#[test]
fn without_waiting_no_byte_is_lost_told_twice_or_left_behind() {
    let (far, near) = pair(&x509_server(false), &x509_client());
    let mut buffer = vec![0; 50_000];
    assert_eq!(near.recv(&mut buffer, Wait::DontWait).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let data = pattern(3_000_000, 5);
    let (mut sent, mut got, mut refusals) = (0, Vec::new(), 0);
    while got.len() < data.len() {
        while sent < data.len() {
            // Each time as much as there is, as callers do; the first piece is a short one.
            let middle = (sent + 20).min(data.len());
            let pieces = [IoSlice::new(&data[sent..middle]), IoSlice::new(&data[middle..])];
            match near.send_vectored(&pieces, Wait::DontWait) {
                Ok(n) => sent += n,
                Err(e) => {
                    assert_eq!(e.kind(), io::ErrorKind::WouldBlock);
                    refusals += 1;
                    break;
                }
            }
        }
        // What was told to be sent has left this end, so it can be received without waiting, all of it.
        loop {
            match far.recv(&mut buffer, Wait::DontWait) {
                Ok(n) => got.extend_from_slice(&buffer[..n]),
                Err(e) => break assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
            }
        }
        assert!(got.len() >= sent, "{} of {sent}", got.len());
    }
    assert!(got == data);
    assert!(refusals > 3);
}

#[test]
fn a_short_receive_leaves_nothing_behind_that_no_descriptor_tells_of() {
    let (far, near) = pair(&x509_server(false), &x509_client());
    for _ in 0..30 {
        far.send_all(&[1; 3000]).unwrap();
    }
    // 30 records are there. Whoever receives less than there was room for must have them all.
    let mut buffer = vec![0; 60_000];
    assert_eq!(near.recv(&mut buffer, Wait::Block).unwrap(), 60_000);
    assert_eq!(near.recv(&mut buffer, Wait::DontWait).unwrap(), 30_000);
    assert_eq!(near.recv(&mut buffer, Wait::DontWait).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_thread_that_receives_does_not_keep_another_from_sending() {
    let (far, near) = pair(&x509_server(false), &x509_client());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut buffer = [0; 100];
            near.recv(&mut buffer, Wait::Block).map(|n| buffer[..n].to_vec()).unwrap()
        });
        thread::sleep(std::time::Duration::from_millis(20));
        near.send_all(b"question").unwrap();
        let mut buffer = [0; 100];
        assert_eq!(far.recv(&mut buffer, Wait::Block).unwrap(), 8);
        far.send_all(b"answer").unwrap();
        assert_eq!(waiting.join().unwrap(), b"answer");
    });
}

#[test]
fn the_end_of_a_stream_is_seen_with_and_without_a_farewell() {
    let mut buffer = [0; 10];
    let (far, near) = pair(&x509_server(false), &x509_client());
    far.send_all(b"bye").unwrap();
    drop(far);
    assert_eq!(near.recv(&mut buffer, Wait::Block).unwrap(), 3);
    assert_eq!(near.recv(&mut buffer, Wait::Block).unwrap(), 0);
    let (far, near) = pair(&x509_server(false), &x509_client());
    // As if the machine had gone: only the descriptor is closed.
    rustix::net::shutdown(&far, rustix::net::Shutdown::Both).unwrap();
    assert_eq!(near.recv(&mut buffer, Wait::Block).unwrap(), 0);
}

#[test]
fn the_name_in_the_certificate_is_checked() {
    let error = |host: Option<&str>, settings: ClientSettings| {
        let (far, near) = meet(&x509_server(false), &settings, host);
        let text = near.map(drop).err().map(|e| e.to_string());
        assert!(text.is_none() || far.is_err());
        text.unwrap_or_default()
    };
    for good in ["localhost", "127.0.0.1", "::1"] {
        assert_eq!(error(Some(good), x509_client()), "");
    }
    let expected = "the certificate of the server is for localhost, 127.0.0.1, ::1, and not for example.com \
                    (tls-hostname names another)";
    assert_eq!(error(Some("example.com"), x509_client()), expected);
    assert!(error(Some("127.0.0.2"), x509_client()).contains("and not for 127.0.0.2"));
    let named = |name: &str| ClientSettings { hostname: Some(name.into()), ..x509_client() };
    assert_eq!(error(Some("example.com"), named("localhost")), "");
    assert!(error(Some("localhost"), named("example.com")).contains("and not for example.com"));
    // A unix socket has no name; without checking, any will do.
    assert_eq!(error(None, x509_client()), "");
    assert_eq!(error(Some("example.com"), ClientSettings { verify_peer: false, ..x509_client() }), "");
}

#[test]
fn strangers_are_refused_with_the_reason_on_both_sides() {
    let stranger = tempfile::tempdir().unwrap();
    let wishes = CertificateWishes { names: vec!["localhost".into()], user: "mallory".into(), days: 1 };
    tls::make_certificates(stranger.path(), &wishes).unwrap();
    // The client does not know the server's authority.
    let settings = ClientSettings { certificates: Some(stranger.path().into()), ..ClientSettings::default() };
    let (far, near) = meet(&x509_server(false), &settings, None);
    let (far, near) = (far.unwrap_err().to_string(), near.unwrap_err().to_string());
    assert!(
        near.contains("was signed by none of the authorities in") && near.contains("ca-cert.pem"),
        "{near}"
    );
    assert!(far.starts_with("the client ended TLS with “unknown ca”"), "{far}");
    // The server does not know the client's. (With TLS 1.3 the client hears of it after its handshake.)
    let settings = ClientSettings { verify_peer: false, ..settings };
    let (far, near) = meet(&x509_server(true), &settings, None);
    let far = far.unwrap_err().to_string();
    assert!(far.starts_with("the certificate of the client (CN=mallory) was signed by none of"), "{far}");
    let near = near.unwrap().recv(&mut [0; 9], Wait::Block).unwrap_err().to_string();
    assert!(near.starts_with("the server ended TLS with “unknown ca”"), "{near}");
    // A client without a certificate.
    let bare = tempfile::tempdir().unwrap();
    fs::copy(keys().join(tls::CA_CERT), bare.path().join(tls::CA_CERT)).unwrap();
    let settings = ClientSettings { certificates: Some(bare.path().into()), ..ClientSettings::default() };
    let (far, near) = meet(&x509_server(true), &settings, None);
    let far = far.unwrap_err().to_string();
    assert_eq!(far, "the client has sent no certificate, and one is demanded");
    let near = near.unwrap().recv(&mut [0; 9], Wait::Block).unwrap_err().to_string();
    assert!(near.ends_with("(it wants a client's certificate)"), "{near}");
    // Unknown users, and wrong keys.
    fs::write(stranger.path().join("keys.psk"), "alice:00112233\nbob:00112233\n").unwrap();
    let server = server(Keys::Psk(keys().join("keys.psk")), false, None);
    for (user, why) in
        [("bob", "there is no key for the user \"bob\""), ("alice", "is another one than ours")]
    {
        let settings =
            ClientSettings { psk_file: Some(stranger.path().join("keys.psk")), ..psk_client(user) };
        let (far, near) = meet(&server, &settings, None);
        let (far, near) = (far.unwrap_err().to_string(), near.unwrap_err().to_string());
        assert!(far.contains(why), "{far}");
        assert!(near.starts_with("the server ended TLS with "), "{near}");
    }
}

#[test]
fn garbage_and_silence_are_told_apart() {
    let server = x509_server(false);
    let hear = |said: &[u8]| {
        let (near, far) = Stream::pair().unwrap();
        near.send_all(said).unwrap();
        near.shutdown(How::Write).unwrap();
        far.accept_tls(&server).unwrap_err().to_string()
    };
    assert_eq!(hear(b""), "the client closed the connection in the middle of the TLS handshake");
    assert_eq!(
        hear(b"\x16\x03\x01\x01"),
        "the client closed the connection in the middle of the TLS handshake"
    );
    for garbage in [&b"GET / HTTP/1.0\r\n\r\n"[..], b"IHAVEOPT\0\0\0\x05\0\0\0\0", &[0; 64], &[0xff; 64]] {
        let text = hear(garbage);
        assert!(text.starts_with("what the client sent is no TLS ("), "{text}");
    }
}

#[test]
fn missing_and_wrong_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    let error = || {
        let keys = Keys::Certificates(dir.path().into());
        let error = tls::Server::new(&ServerSettings { keys, verify_peer: true, priority: None });
        error.unwrap_err().to_string().replace(&dir.path().display().to_string(), "DIR")
    };
    assert_eq!(error(), "DIR/server-cert.pem: No such file or directory");
    fs::write(place("server-cert.pem"), "rubbish").unwrap();
    assert_eq!(error(), "DIR/server-key.pem: No such file or directory");
    fs::write(place("server-key.pem"), "rubbish").unwrap();
    assert_eq!(error(), "DIR/server-cert.pem: is no certificate in PEM form");
    fs::copy(keys().join("server-cert.pem"), place("server-cert.pem")).unwrap();
    assert_eq!(error(), "DIR/server-key.pem: is no private key without a password in PEM form");
    fs::copy(keys().join("client-key.pem"), place("server-key.pem")).unwrap();
    assert_eq!(error(), "DIR/server-key.pem: is not the key of the certificate DIR/server-cert.pem");
    fs::copy(keys().join("server-key.pem"), place("server-key.pem")).unwrap();
    assert_eq!(error(), "DIR/ca-cert.pem: No such file or directory");
    fs::write(place("ca-cert.pem"), "rubbish").unwrap();
    assert_eq!(error(), "DIR/ca-cert.pem: is no certificate in PEM form");
    fs::copy(keys().join("ca-cert.pem"), place("ca-cert.pem")).unwrap();
    fs::write(place("ca-crl.pem"), "rubbish").unwrap();
    assert_eq!(error(), "DIR/ca-crl.pem: is no list of revoked certificates in PEM form");
    let settings = psk_client("nobody");
    let text = tls::Client::new(&settings).unwrap_err().to_string();
    assert!(text.ends_with("keys.psk: there is no key for the user \"nobody\""), "{text}");
}

#[test]
fn keys_are_private_and_not_overwritten() {
    use std::os::unix::fs::PermissionsExt;
    for name in ["ca-key.pem", "server-key.pem", "client-key.pem", "keys.psk"] {
        let mode = fs::metadata(keys().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let wishes = CertificateWishes { names: vec!["localhost".into()], user: "x".into(), days: 1 };
    let error = tls::make_certificates(keys(), &wishes).unwrap_err().to_string();
    assert!(error.ends_with("ca-key.pem: exists already, and keys are not overwritten"), "{error}");
    let error = tls::make_key(keys(), "alice").unwrap_err().to_string();
    assert!(error.ends_with("keys.psk: the user \"alice\" has a key there already"), "{error}");
    assert!(tls::make_key(keys(), "a:b").is_err());
}

#[test]
fn a_stream_that_has_rested_goes_on() {
    for priority in [TLS12, TLS13] {
        let server = server(Keys::Certificates(keys().into()), false, Some(priority));
        let (far, near) = pair(&server, &x509_client());
        let bytes: Vec<u8> = (0..300_000_u32).map(|at| (at * 7 / 3) as u8).collect();
        for round in 0..3 {
            thread::scope(|scope| {
                scope.spawn(|| near.send_all(&bytes).unwrap());
                let mut got = vec![0; bytes.len()];
                // The first piece is short, so that some stays behind while this end rests.
                let mut have = far.recv(&mut got[..10], Wait::Block).unwrap();
                far.rest();
                while have < got.len() {
                    have += far.recv(&mut got[have..], Wait::Block).unwrap();
                }
                assert!(got == bytes, "round {round}");
            });
            far.rest();
            near.rest();
            far.send_all(b"and back").unwrap();
            let mut got = [0; 8];
            assert_eq!(near.recv(&mut got, Wait::Block).unwrap(), 8);
            assert_eq!(&got, b"and back");
        }
    }
}
