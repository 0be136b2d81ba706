//! Who only looks at a stack, as `diskpipe explain` does, sees what a client would, and leaves no trace in files.

use conformance::Fake;
use disk::{Backend, Client, Data, Facts, WriteFlags};
use params::Args;
use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

/// Filters that keep something in files, with parameters that would change what is there.
const FILTERS: [(&str, &[&str], &[&str]); 4] = [
    ("cow", &["cow-file=DIR/kept"], &["cow-force=true"]),
    ("cow", &["cow-per-client=DIR"], &["cow-force=true"]),
    ("cache", &["cache-file=DIR/kept", "cache-on-read=true"], &[]),
    ("cbt", &["cbt-file=DIR/kept", "cbt-reset=a"], &["cbt-name=b"]),
];

fn start(name: &str, params: &[&str], dir: &Path, below: Arc<dyn Backend>) -> Arc<dyn Backend> {
    let words: Vec<String> =
        params.iter().map(|word| word.replace("DIR", &dir.display().to_string())).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut args = Args::from_cli(&words, None).unwrap();
    filters::find(name).unwrap().start(&mut args, below).unwrap()
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries.map(|e| (e.file_name().display().to_string(), fs::read(e.path()).unwrap())).collect()
}

fn seen(backend: &dyn Backend) -> Facts {
    let client = Client { looks: true, ..Client::local("") };
    let disk = backend.open(&client).wait().unwrap();
    let facts = disk.facts().clone();
    disk.close().wait().unwrap();
    facts
}

/// A disk that has changed `n` times.
fn disk(n: u64) -> Arc<dyn Backend> {
    let identity = Some(format!("state {n}").into());
    Fake::new(Facts { identity, ..Facts::capable(1 << 20) }, n).backend()
}

#[test]
fn a_look_makes_no_file_and_changes_none() {
    for (name, params, others) in FILTERS {
        let dir = tempfile::tempdir().unwrap();
        let serve = |params: &[&str], below| start(name, params, dir.path(), below);
        let told = seen(&*serve(params, disk(1)));
        assert!(files(dir.path()).is_empty(), "{name} has made a file");

        let served = serve(params, disk(1));
        served.get_ready().unwrap();
        let client = Client { connection: 1, ..Client::local("") };
        let open = served.open(&client).wait().unwrap();
        let facts = open.facts().clone();
        let same = |facts: &Facts| (facts.clone().without_write(), facts.write, facts.fua, facts.flush);
        assert_eq!(format!("{:?}", same(&told)), format!("{:?}", same(&facts)), "{name}");
        open.write(4096, Data::copy_from(&[7; 4096]), WriteFlags { fua: true }).wait().unwrap();
        open.read(disk::Range::new(0, 65536)).wait().unwrap();
        open.close().wait().unwrap();
        drop(open);
        served.disconnected(1);
        served.finish();

        let kept = files(dir.path());
        assert!(!kept.is_empty(), "{name}");
        seen(&*serve(params, disk(1)));
        // Of another disk, and with parameters that end what there is.
        seen(&*serve(&[params, others].concat(), disk(2)));
        assert!(files(dir.path()) == kept, "{name} has changed a file");
    }
}

#[test]
fn a_look_is_told_what_a_client_would_be_refused_for() {
    let dir = tempfile::tempdir().unwrap();
    let serve = |below| start("cow", &["cow-file=DIR/kept"], dir.path(), below);
    let served = serve(disk(1));
    served.open(&Client::local("")).wait().unwrap();
    let looking = Client { looks: true, ..Client::local("") };
    let why = |below| serve(below).open(&looking).wait().err().map(|e| e.to_string()).unwrap_or_default();
    assert!(why(disk(1)).contains("already used by this server"), "{}", why(disk(1)));
    served.finish();
    drop(served);
    assert_eq!(why(disk(1)), "");
    assert!(why(disk(2)).contains("the disk below is not as it was"), "{}", why(disk(2)));
}
