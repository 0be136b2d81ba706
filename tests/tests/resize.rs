//! Disks that change their size while they are served: the proposed RESIZE, which no peer speaks yet.

use client::blocking::Client;
use disk::Errno;
use e2e::{Run, Server, directory, needs};
use std::{fs, time::Duration};

fn connect(server: &Server) -> Client {
    Client::connect(&server.uri()).unwrap()
}

#[test]
fn a_write_behind_the_end_succeeds_once_the_disk_was_made_larger() {
    let server = Server::ours("--resize memory 1K max-size=1M");
    // Two connections: what is asked on one is valid on the other.
    let (first, second) = (connect(&server), connect(&server));
    assert_eq!(first.size(), 1024);
    assert_eq!(first.write(b"hello", 2048).unwrap_err().errno(), Errno::INVAL, "our client knows the size");
    let copy = format!("head -c 2053 /dev/zero | diskpipe copy - '{}'", server.uri());
    Run::sh(&copy).end().code(1);

    let mut told = second.watch_size().unwrap();
    assert_eq!(told.wait().unwrap(), 1024);
    assert_eq!(first.resize(4096).unwrap(), 4096);
    assert_eq!(first.size(), 4096);
    first.write(b"hello", 2048).unwrap();
    assert_eq!((told.wait().unwrap(), second.size()), (4096, 4096));
    let mut read = [0; 8];
    second.read(&mut read, 2046).unwrap();
    assert_eq!(&read, b"\0\0hello\0");

    assert_eq!(first.resize(1024).unwrap_err().errno(), Errno::PERM, "another client is there");
    drop(told);
    second.close().unwrap();
    // The server hears of the goodbye a moment later.
    let start = std::time::Instant::now();
    while let Err(e) = first.resize(1024) {
        assert!(e.errno() == Errno::PERM && start.elapsed() < Duration::from_secs(20), "{e}");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(first.size(), 1024);
    assert_eq!(first.resize(2 << 20).unwrap_err().errno(), Errno::NOSPC);
    first.close().unwrap();
    let (status, log) = server.stop();
    assert!(status.is_some_and(|s| s.success()), "{log}");
}

#[test]
fn the_size_of_a_file_changes_with_it() {
    let directory = directory();
    let image = directory.path().join("disk.img");
    fs::write(&image, [1; 1024]).unwrap();
    let server = Server::ours(&format!("--resize file {} resizable=true", image.display()));
    let client = connect(&server);
    client.resize(4096).unwrap();
    client.write(&[2; 512], 2048).unwrap();
    client.flush().unwrap();
    let expected = [[1; 1024].as_slice(), &[0; 1024], &[2; 512], &[0; 1536]].concat();
    assert!(fs::read(&image).unwrap() == expected);
    client.resize(512).unwrap();
    assert_eq!(fs::metadata(&image).unwrap().len(), 512);
}

#[test]
fn a_copy_makes_a_disk_larger_that_is_too_small_for_it() {
    let dir = directory();
    let at = |name: &str| dir.path().join(name);
    let content: Vec<u8> = (0..1_000_001_u32).map(|byte| (byte * 7 + (byte >> 10)) as u8).collect();
    fs::write(at("source"), &content).unwrap();
    let copy = |options: &str, to: &[&str]| {
        let copy = Run::diskpipe().arg("copy").words(options).arg(at("source")).args(to);
        copy.in_directory(dir.path()).end()
    };
    let server = Server::ours("--resize memory 1K max-size=2M");
    for options in ["--verify", "--retry --checkpoint=noted"] {
        copy(options, &[&server.uri()]).good();
        Run::diskpipe().arg("copy").arg(server.uri()).arg(at("back")).end().good();
        assert!(fs::read(at("back")).unwrap() == content, "{options}");
    }
    fs::write(at("grown"), "abc").unwrap();
    let command = "[ diskpipe serve --resize file grown resizable=true ]";
    copy("", &command.split(' ').collect::<Vec<_>>()).good();
    assert!(fs::read(at("grown")).unwrap() == content);

    let small = Server::ours("--resize memory 1K max-size=900K");
    let refused = copy("", &[&small.uri()]).code(1).stderr;
    assert!(refused.contains("making the destination larger, to 1000001 bytes: "), "{refused}");
    let fixed = Server::ours("memory 1K");
    let refused = copy("", &[&fixed.uri()]).code(1).stderr;
    assert!(refused.contains("smaller than the source"), "{refused}");
    // What is brought up to date is no copy of the source if it has another size.
    copy("--manifest=then", &["null:"]).good();
    let refused =
        copy("--changed-since=then", &[&Server::ours("--resize memory 1K max-size=2M").uri()]).code(1);
    assert!(refused.stderr.contains("no copy of the source"), "{}", refused.stderr);
}

/// A server of ours in front of another one of ours.
fn in_front(of: &Server, arguments: &str) -> Server {
    Server::ours(&format!("{arguments} {}", of.uri()))
}

#[test]
fn through_a_proxy_it_is_as_it_is_without() {
    for shared in ["false", "true"] {
        let below = Server::ours("--resize memory 1K max-size=1M");
        let between = in_front(&below, &format!("--resize --filter=delay nbd shared={shared}"));
        let server = in_front(&between, "--resize nbd");
        let (first, second) = (connect(&server), connect(&server));
        assert_eq!(first.size(), 1024);
        let mut told = second.watch_size().unwrap();
        assert_eq!(told.wait().unwrap(), 1024);
        assert_eq!(first.resize(4096).unwrap(), 4096);
        first.write(b"hello", 2048).unwrap();
        assert_eq!(told.wait().unwrap(), 4096);
        let mut read = [0; 8];
        second.read(&mut read, 2046).unwrap();
        assert_eq!(&read, b"\0\0hello\0");
        // A client of the disk itself is heard of as well, and those that come later begin with its size.
        let direct = connect(&below);
        assert_eq!(direct.resize(8192).unwrap(), 8192);
        assert_eq!(told.wait().unwrap(), 8192);
        second.write(&[1; 4096], 4096).unwrap();
        assert_eq!(connect(&between).size(), 8192);
        assert_eq!(connect(&server).size(), 8192);

        assert_eq!(first.resize(1024).unwrap_err().errno(), Errno::PERM, "other clients are there");
        assert_eq!(first.resize(2 << 20).unwrap_err().errno(), Errno::NOSPC);
        drop(told);
        direct.close().unwrap();
        second.close().unwrap();
        let start = std::time::Instant::now();
        while let Err(e) = first.resize(1024) {
            assert!(e.errno() == Errno::PERM && start.elapsed() < Duration::from_secs(30), "{e}");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(first.size(), 1024);
        first.close().unwrap();
        for server in [server, between, below] {
            let (status, log) = server.stop();
            assert!(status.is_some_and(|s| s.success()), "{log}");
        }
    }
}

#[test]
fn a_proxy_offers_it_only_where_both_sides_do_and_follows_the_size_anyway() {
    let grow = r#"diskpipe resize "$uri" 2M"#;
    let below = Server::ours("memory 1M max-size=4M");
    let run = Run::serve(&format!("--resize nbd {}", below.uri()), grow);
    assert!(run.end().code(1).stderr.contains("does not offer to resize"));
    let below = Server::ours("--resize memory 1M max-size=4M");
    let run = Run::serve(&format!("nbd {}", below.uri()), grow);
    assert!(run.end().code(1).stderr.contains("does not offer to resize"));

    // Nobody was connected to the proxy when the size changed.
    let server = in_front(&below, "nbd shared=true");
    connect(&below).resize(2 << 20).unwrap();
    let start = std::time::Instant::now();
    while connect(&server).size() != 2 << 20 {
        assert!(start.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_proxy_whose_server_is_gone_says_so_to_who_watches() {
    let below = Server::ours("--resize memory 1M max-size=4M");
    let server = in_front(&below, "--resize nbd");
    let client = connect(&server);
    let mut told = client.watch_size().unwrap();
    assert_eq!(told.wait().unwrap(), 1 << 20);
    below.stop();
    told.wait().unwrap_err();
    client.resize(2 << 20).unwrap_err();
    let (status, log) = server.stop();
    assert!(status.is_some_and(|s| s.success()), "{log}");
}

#[test]
fn filters_that_do_not_care_about_the_size_let_it_change_and_others_keep_it() {
    let grow = r#"diskpipe resize "$uri" 2M"#;
    let look = format!(r#"{grow} && diskpipe info --size "$uri""#);
    for filters in
        ["--filter=delay --filter=rate", "--filter=nocache --filter=error", "--filter=noextents --filter=fua"]
    {
        let arguments = format!("--resize {filters} memory 1M max-size=4M");
        assert_eq!(Run::serve(&arguments, &look).text(), "2097152\n", "{filters}");
    }
    let ended = Run::serve("--resize --filter=cow memory 1M max-size=4M", grow).end().code(1);
    assert!(ended.stderr.contains("the server does not offer to resize this export"), "{}", ended.stderr);
}

/// As resize(1) has them.
#[test]
fn each_filter_passes_the_size_on_or_keeps_it_as_its_manual_says() {
    let directory = directory();
    fs::write(directory.path().join("empty"), "").unwrap();
    fs::write(directory.path().join("map"), "0x0 ? 1\n0x0 0x100000 +\n").unwrap();
    let keep = [
        "blocksize",
        "checkwrite",
        "extentlist extentlist=empty",
        "map",
        "offset offset=512",
        "swab",
        "truncate",
        "cache",
        "cow",
        "crashlab",
        "ddrescue ddrescue-mapfile=map",
        "readahead",
        "scan",
        "protect protect=0-9",
        "xor xor=1 xorlen=1",
        "openonce",
        "retry",
        "tls-fallback",
    ];
    let pass = [
        "blocksize-policy",
        "cacheextents",
        "cbt cbt-file=cbt",
        "count",
        "delay",
        "error error-rate=1%",
        "evil",
        "exitlast",
        "exitwhen exit-when-file-created=never",
        "exportname",
        "fua",
        "ip",
        "limit",
        "log logfile=log",
        "multi-conn",
        "nocache",
        "noextents",
        "nofilter",
        "noparallel",
        "nozero",
        "pause pause-control=pause",
        "rate",
        "readonly",
        "retry-request",
        "rotational",
        "spinning",
        "stats statsfile=stats",
        "time-limit",
        "trace trace-file=trace",
    ];
    for (filter, keeps) in keep.map(|f| (f, true)).into_iter().chain(pass.map(|f| (f, false))) {
        let (name, parameters) = filter.split_once(' ').unwrap_or((filter, ""));
        let words = format!("explain --filter={name} memory 1M max-size=4M {parameters}");
        let said = Run::diskpipe().words(&words).in_directory(directory.path()).end();
        assert!(said.status.success() && !said.text().contains("refused"), "{words}: {}", said.text());
        assert_eq!(said.text().contains("takes away: a size that follows"), keeps, "{}", said.text());
    }
}

#[test]
fn nobody_resizes_what_was_not_to_be_resized() {
    let grow = r#"diskpipe resize "$uri" 2M"#;
    for arguments in [
        "memory 1M max-size=4M",
        "--resize memory 1M",
        "--resize -r memory 1M max-size=4M",
        "--resize --no-sr memory 1M max-size=4M",
        "--resize -o memory 1M max-size=4M",
    ] {
        let ended = Run::serve(arguments, grow).end().code(1);
        assert!(ended.stderr.contains("does not offer to resize"), "{arguments}: {}", ended.stderr);
    }
}

#[test]
fn a_shell_sees_every_change() {
    let script = r#"diskpipe resize --watch "$uri" > sizes & pid=$!
        until test -s sizes; do sleep 0.01; done
        diskpipe resize "$uri" 2M || exit 1
        until test $(wc -l < sizes) = 2; do sleep 0.01; done
        diskpipe resize "$uri" 1M && exit 1
        kill $pid; cat sizes"#;
    let directory = directory();
    let run = Run::serve("--resize memory 1M max-size=4M", script).in_directory(directory.path());
    let ended = run.end().good();
    assert_eq!(ended.text(), "1048576\n2097152\n");
    assert!(ended.stderr.contains("the disk cannot shrink while"), "{}", ended.stderr);
}

#[test]
fn who_watches_ends_with_the_server() {
    let server = Server::ours("--resize memory 1M max-size=4M");
    let client = connect(&server);
    let mut told = client.watch_size().unwrap();
    assert_eq!(told.wait().unwrap(), 1 << 20);
    let (status, log) = server.stop();
    assert!(status.is_some_and(|s| s.success()), "{log}");
    assert_eq!(told.wait().unwrap_err().errno(), Errno::SHUTDOWN);
}

#[test]
fn plain_clients_see_nothing_strange() {
    needs!("nbdinfo", "qemu-img", "nbdcopy");
    let server = Server::ours("--resize memory 1M max-size=4M");
    let uri = server.uri();
    assert_eq!(Run::new("nbdinfo").args(["--size", &uri]).text(), "1048576\n");
    Run::new("nbdinfo").arg(&uri).end().good();
    Run::diskpipe().args(["resize", &uri, "2M"]).end().good();
    let info = Run::new("qemu-img").args(["info", "--output=json", &uri]).text();
    assert!(info.contains("\"virtual-size\": 2097152"), "{info}");
    let copied = Run::sh(&format!("nbdcopy '{uri}' - | wc -c")).text();
    assert_eq!(copied.trim(), "2097152");
    // The server hears of their goodbyes a moment later.
    let script = format!("until diskpipe resize '{uri}' 1M; do sleep 0.05; done; nbdinfo --size '{uri}'");
    assert_eq!(Run::sh(&script).text(), "1048576\n");
}
