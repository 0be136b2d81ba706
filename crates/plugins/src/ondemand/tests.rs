use super::*;
use crate::common::model;
use disk::{Data, WriteFlags};
use params::Args;

const COMMAND: &str = r#"truncate -s $size "$disk"; test ! -e "$disk.lock"; echo x >> "$log""#;

struct Bench {
    dir: tempfile::TempDir,
    log: tempfile::NamedTempFile,
}

impl Bench {
    fn new() -> Bench {
        Bench { dir: tempfile::tempdir().unwrap(), log: tempfile::NamedTempFile::new().unwrap() }
    }

    fn backend(&self, more: &[(&str, &str)]) -> impl Backend + use<> {
        let dir = self.dir.path().display().to_string();
        let log = self.log.path().display().to_string();
        let own = [("dir", dir.as_str()), ("size", "1M"), ("command", COMMAND), ("log", log.as_str())];
        let mut args = Args::new(own.into_iter().chain(more.iter().copied()));
        OnDemand::parse(&mut args).unwrap().start().unwrap()
    }

    /// How many disks were made.
    fn made(&self) -> usize {
        std::fs::read_to_string(self.log.path()).unwrap().lines().count()
    }
}

fn opened(backend: &impl Backend, name: &str) -> Result<Arc<dyn Disk>> {
    backend.open(&Client::local(name)).wait()
}

#[test]
fn what_a_client_wrote_the_next_one_finds_even_of_another_server() {
    let bench = Bench::new();
    let backend = bench.backend(&[]);
    let disk = opened(&backend, "a").unwrap();
    disk.write(3, Data::copy_from(b"kept"), WriteFlags::default()).wait().unwrap();
    drop(disk);
    assert_eq!(model::bytes(&*opened(&backend, "a").unwrap(), 3, 4), b"kept");
    assert_eq!(model::bytes(&*opened(&backend, "").unwrap(), 3, 4), [0; 4]);
    assert_eq!(model::bytes(&*opened(&bench.backend(&[]), "a").unwrap(), 3, 4), b"kept");
    assert_eq!(bench.made(), 2);
    let client = Client::default();
    let names: Vec<_> = backend.exports(&client).wait().unwrap().into_iter().map(|e| e.name).collect();
    assert_eq!(names, ["default", "a"]);
    assert_eq!(backend.default_export(&client).wait().unwrap().as_deref(), Some("default"));
    let left: Vec<_> =
        std::fs::read_dir(bench.dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_second_client_is_refused_or_waits_or_shares() {
    let bench = Bench::new();
    let backend = bench.backend(&[]);
    let first = opened(&backend, "a").unwrap();
    assert!(!first.facts().multi_conn);
    for server in [&backend, &bench.backend(&[])] {
        let refused = opened(server, "a").err().unwrap();
        assert_eq!(refused.to_string(), "export \"a\": filesystem is locked by another client");
        assert_eq!(refused.errno(), Errno::BUSY);
    }
    let waiting = bench.backend(&[("wait", "true")]);
    let waiter = std::thread::spawn(move || opened(&waiting, "a").map(|disk| disk.facts().size));
    std::thread::sleep(PAUSE * 2);
    assert!(!waiter.is_finished());
    drop(first);
    assert_eq!(waiter.join().unwrap().unwrap(), 1 << 20);
    let sharing = bench.backend(&[("share", "true")]);
    let (one, two) = (opened(&sharing, "a").unwrap(), opened(&sharing, "a").unwrap());
    assert!(one.facts().multi_conn);
    assert!(opened(&backend, "a").is_err(), "who does not share is refused what others share");
    one.write(0, Data::copy_from(b"seen"), WriteFlags::default()).wait().unwrap();
    assert_eq!(model::bytes(&*two, 0, 4), b"seen");
}

#[test]
fn clients_that_ask_for_a_new_name_at_once_get_the_same_disk() {
    let bench = Bench::new();
    let backend = bench.backend(&[("share", "true")]);
    std::thread::scope(|scope| {
        for byte in 0..8_u8 {
            let backend = &backend;
            scope.spawn(move || {
                let disk = opened(backend, "new").unwrap();
                disk.write(u64::from(byte), Data::copy_from(&[byte + 1]), WriteFlags::default())
                    .wait()
                    .unwrap();
            });
        }
    });
    assert_eq!(model::bytes(&*opened(&backend, "new").unwrap(), 0, 8), [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn names_that_lead_elsewhere_are_refused_and_not_listed() {
    let bench = Bench::new();
    let backend = bench.backend(&[]);
    std::fs::write(bench.dir.path().join("a.b"), "x").unwrap();
    let long = "x".repeat(256);
    for name in [".", "..", "a.b", "a/b", "/etc/passwd", "a:b", "a\0b", &long] {
        assert_eq!(opened(&backend, name).err().unwrap().errno(), Errno::NOENT, "{name:?}");
    }
    assert_eq!(bench.made(), 0);
    let names = backend.exports(&Client::default()).wait().unwrap();
    assert_eq!(names.len(), 1);
    opened(&backend, &long[..255]).unwrap();
    opened(&backend, "täglich $(x) 'y' \"z\"").unwrap();
}

#[test]
fn a_disk_that_cannot_be_made_leaves_nothing_behind() {
    let bench = Bench::new();
    let backend = bench.backend(&[("command", r#": > "$disk"; exit 1"#)]);
    let error = opened(&backend, "a").err().unwrap().to_string();
    assert_eq!(error, "export \"a\": command=: failed (exit status: 1)");
    assert_eq!(std::fs::read_dir(bench.dir.path()).unwrap().count(), 0);
}
