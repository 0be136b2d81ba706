//! What is marked, what of it survives which kind of end, and what is refused.

mod power;

use super::*;
use crate::common::testing::{Memory, Random, layer, open, over};
use conformance::Fake;
use disk::{Data, Range, WriteFlags, ZeroFlags};
use proptest::prelude::*;
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

const GRANULE: u64 = 4096;
/// Of the disks here: two regions and a bit.
const SIZE: usize = 2 * 256 * 4096 + 3 * 4096 + 512;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }
    fn file(&self) -> PathBuf {
        self.0.path().join("cbt")
    }
    fn start(&self, memory: &Arc<Memory>, more: &[&str]) -> Result<Arc<dyn Backend>> {
        let file = format!("cbt-file={}", self.file().display());
        let fixed = if self.file().exists() { vec![] } else { vec!["cbt-granularity=4K"] };
        let params = [&[&*file], &*fixed, more].concat();
        let layer = layer::<Cbt>(&params, memory)?;
        layer.get_ready()?;
        Ok(layer)
    }
    fn opened(&self, memory: &Arc<Memory>, more: &[&str]) -> (Arc<dyn Backend>, Arc<dyn Disk>) {
        let layer = self.start(memory, more).unwrap();
        let disk = open(&layer);
        (layer, disk)
    }
    /// Why a disk cannot be opened.
    fn why(&self, memory: &Arc<Memory>, more: &[&str]) -> String {
        let opened = self.start(memory, more).and_then(|layer| layer.open(&Client::local("")).wait());
        opened.err().unwrap().to_string().replace(&*self.0.path().to_string_lossy(), "DIR")
    }
}

fn memory() -> Arc<Memory> {
    Memory::new(vec![0; SIZE])
}

fn write(disk: &Arc<dyn Disk>, at: u64, len: usize) {
    disk.write(at, Data::copy_from(&vec![1; len]), WriteFlags::default()).wait().unwrap();
}

/// The granules that changed since a checkpoint.
fn changed(disk: &Arc<dyn Disk>, name: &str) -> BTreeSet<u64> {
    let wanted = format!("qemu:dirty-bitmap:{name}");
    let context = disk.facts().contexts.iter().position(|context| **context == *wanted).unwrap();
    let (mut at, mut found) = (0, BTreeSet::new());
    while at < SIZE as u64 {
        for status in disk.status(context, Range::new(at, SIZE as u64 - at), 3).wait().unwrap() {
            if status.value == 1 {
                found.extend(at / GRANULE..(at + status.len).div_ceil(GRANULE));
            }
            at += status.len;
        }
    }
    assert_eq!(at, SIZE as u64);
    found
}

fn names(disk: &Arc<dyn Disk>) -> Vec<String> {
    let names = disk.facts().contexts.iter().map(|context| context.replace("qemu:dirty-bitmap:", ""));
    names.collect()
}

/// Makes of the file what is found after the system was started anew.
fn another_boot(path: &Path) {
    let store = Store::open(path).unwrap().unwrap();
    let mut header = store.header().unwrap();
    header.turn += 1;
    header.in_use = header.in_use.map(|witness| header::Witness { boot: witness.boot ^ 1, ..witness });
    store.write_header(&header).unwrap();
}

#[test]
fn all_that_changes_a_disk_marks_its_granules() {
    let (place, memory) = (Place::new(), memory());
    let (_layer, disk) = place.opened(&memory, &["cbt-name=a"]);
    assert_eq!(names(&disk), ["a"]);
    assert!(changed(&disk, "a").is_empty());
    write(&disk, 5000, 10);
    disk.zero(Range::new(3 * GRANULE - 1, 2), ZeroFlags::default()).wait().unwrap();
    disk.trim(Range::new(256 * GRANULE - 1, GRANULE + 2), WriteFlags::default()).wait().unwrap();
    write(&disk, SIZE as u64 - 1, 1);
    assert_eq!(changed(&disk, "a"), [1, 2, 3, 255, 256, 257, 515].into());
    assert_eq!(disk.read(Range::new(5000, 10)).wait().unwrap().to_vec(), [1; 10]);
}

#[test]
fn the_account_is_kept_over_orderly_ends_and_the_servers_death() {
    let (place, memory) = (Place::new(), memory());
    let (layer, disk) = place.opened(&memory, &["cbt-name=a"]);
    write(&disk, 0, 1);
    drop(disk);
    layer.finish();
    let (layer, disk) = place.opened(&memory, &["cbt-name=b"]);
    write(&disk, 7 * GRANULE, 1);
    assert_eq!(names(&disk), ["a", "b"]);
    // No `finish`: it was killed.
    drop((disk, layer));
    let (layer, disk) = place.opened(&memory, &["cbt-name=c", "cbt-drop=d"]);
    assert_eq!((changed(&disk, "a"), changed(&disk, "b")), ([0, 7].into(), [7].into()));
    assert!(changed(&disk, "c").is_empty());
    drop(disk);
    layer.finish();
    let (_layer, disk) = place.opened(&memory, &["cbt-reset=a", "cbt-drop=c"]);
    assert_eq!(names(&disk), ["b", "a"]);
    assert!(changed(&disk, "a").is_empty());
}

#[test]
fn after_a_loss_of_power_all_of_an_open_region_counts_as_changed() {
    let (place, memory) = (Place::new(), memory());
    let (layer, disk) = place.opened(&memory, &["cbt-name=a"]);
    write(&disk, 0, 1);
    drop((disk, layer));
    another_boot(&place.file());
    let (layer, disk) = place.opened(&memory, &[]);
    assert_eq!(changed(&disk, "a"), (0..256).collect());
    drop((disk, layer));
    another_boot(&place.file());
    let (_layer, disk) = place.opened(&memory, &[]);
    assert_eq!(changed(&disk, "a"), (0..256).collect(), "that was noted for good");
}

#[test]
fn regions_are_open_in_the_file_before_they_are_written_and_closed_later() {
    let (place, memory) = (Place::new(), memory());
    let follow = |layer: &Arc<Follow>| layer.tracker_if_any().unwrap();
    let mut args = params::Args::from_cli(
        &[&*format!("cbt-file={}", place.file().display()), "cbt-name=a", "cbt-granularity=4K"],
        None,
    )
    .unwrap();
    let params = <Cbt as Params>::parse(&mut args).unwrap();
    let shared = Arc::new(Follow { params, gate: Arc::default(), state: Mutex::default() });
    let next = layer::<crate::nofilter::NoFilter>(&[], &memory).unwrap();
    let following = Following { follow: shared.clone(), control: Mutex::default(), next };
    let layer: Arc<dyn Backend> = Arc::new(following);
    let disk = open(&layer);
    let flags = || fs::read(place.file()).unwrap()[128 << 10..][..3].to_vec();
    assert_eq!(flags(), [0, 0, 0]);
    write(&disk, 0, 1);
    assert_eq!(flags(), [1, 0, 0]);
    write(&disk, 300 * GRANULE, 1);
    assert_eq!(flags(), [1, 1, 1], "who goes on gets more at once");
    let tracker = follow(&shared);
    tracker.close_regions(false).unwrap();
    assert_eq!(flags(), [1, 1, 1], "they were marked since the last time");
    write(&disk, GRANULE, 1);
    tracker.close_regions(false).unwrap();
    assert_eq!(flags(), [1, 0, 0]);
    write(&disk, 300 * GRANULE, 1);
    assert_eq!(flags(), [1, 0, 0], "that granule is marked");
    drop(disk);
    layer.finish();
    assert_eq!(flags(), [0, 0, 0]);
}

#[test]
fn what_cannot_be_true_any_more_is_refused() {
    let (place, memory) = (Place::new(), memory());
    let (layer, disk) = place.opened(&memory, &["cbt-name=a"]);
    assert_eq!(place.why(&memory, &[]), "cbt-file=DIR/cbt: already used by this server, by the filter cbt");
    let other = layer.open(&Client::local("other")).wait().err().unwrap().to_string();
    assert!(other.ends_with("it follows export \"\", and cannot follow \"other\" as well"), "{other}");
    drop((disk, layer));
    assert_eq!(
        place.why(&Memory::new(vec![0; 4096]), &[]),
        format!(
            "cbt-file=DIR/cbt: it follows a disk of {SIZE} bytes, and this one has 4096; \
             remove the file, and make a full backup"
        )
    );
    assert_eq!(
        place.why(&memory, &["cbt-granularity=8K"]),
        "cbt-granularity=8K: cbt-file=DIR/cbt was made with 4K"
    );
    let good = fs::read(place.file()).unwrap();
    fs::write(place.file(), &good[..good.len() - 1000]).unwrap();
    let lost = "what changed is not known any more: remove the file, and make a full backup";
    assert_eq!(place.why(&memory, &[]), format!("cbt-file=DIR/cbt: its end is missing; {lost}"));
    fs::write(place.file(), [vec![0; 4096], good[4096..].to_vec()].concat()).unwrap();
    assert!(place.start(&memory, &[]).is_ok(), "there is another header");
    fs::write(place.file(), vec![0; good.len()]).unwrap();
    assert_eq!(place.why(&memory, &[]), format!("cbt-file=DIR/cbt: it is no file of the filter cbt; {lost}"));
}

#[test]
fn parameters_that_make_no_sense_are_refused() {
    let why = |params: &[&str]| {
        let params = [&["cbt-file=/nonexistent/file"], params].concat();
        layer::<Cbt>(&params, &memory())
            .and_then(|layer| layer.open(&Client::local("")).wait())
            .err()
            .unwrap()
            .to_string()
    };
    assert_eq!(
        why(&["cbt-granularity=1000"]),
        "cbt: cbt-granularity=1000: not a power of two from 512 to 2G"
    );
    assert_eq!(why(&["cbt-name=a b"]), "cbt: cbt-name=a b: white space or a control character is in it");
    assert_eq!(why(&["cbt-name=a", "cbt-drop=a"]), "cbt: cbt-drop=a: cbt-name or cbt-reset starts it");
    assert_eq!(why(&[]), "cbt-file=/nonexistent/file: No such file or directory");
}

/// Says a line on a control socket; the answer's lines.
fn say(socket: &Path, line: &str) -> Vec<String> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    writeln!(stream, "{line}").unwrap();
    let mut answer = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line.unwrap();
        let last = line == "ok" || line.starts_with("error: ");
        answer.push(line);
        if last {
            break;
        }
    }
    answer
}

#[test]
fn checkpoints_are_started_and_dropped_while_the_disk_is_used() {
    let (place, memory) = (Place::new(), memory());
    let socket = place.0.path().join("control");
    let control = format!("cbt-control={}", socket.display());
    let layer = place.start(&memory, &["cbt-name=a", &control]).unwrap();
    layer.after_fork().unwrap();
    assert_eq!(
        say(&socket, "list"),
        ["error: no client has used the disk yet, so that its size is not known"]
    );
    let disk = open(&layer);
    write(&disk, 0, 8192);
    assert_eq!(say(&socket, "changed a"), ["0 8192", "ok"]);
    assert_eq!(say(&socket, "start b since a"), ["0 8192", "ok"]);
    write(&disk, 4096, 8192);
    assert_eq!(say(&socket, "changed b"), ["4096 8192", "ok"]);
    assert_eq!(say(&socket, "start b"), ["error: the checkpoint b is there already"]);
    assert_eq!(say(&socket, "start c since x"), ["error: there is no checkpoint x"]);
    let list = say(&socket, "list");
    assert!(
        list[0].starts_with("a ") && list[0].ends_with(" 12288") && list[1].ends_with(" 8192"),
        "{list:?}"
    );
    assert_eq!((names(&disk), names(&open(&layer))), (vec!["a".into()], vec!["a".into(), "b".into()]));
    assert_eq!(say(&socket, "reset b"), ["ok"]);
    assert_eq!(say(&socket, "changed b"), ["ok"]);
    assert_eq!(say(&socket, "drop a"), ["ok"]);
    assert_eq!(changed(&disk, "a"), [0, 1, 2].into(), "who has it open still sees it");
    assert_eq!(names(&open(&layer)), ["b"]);
    assert!(say(&socket, "dance")[0].starts_with("error: not list, changed NAME"));
    drop(disk);
    layer.finish();
    assert!(!socket.exists());
}

#[test]
fn a_checkpoint_waits_for_changes_under_way_and_remembers_the_abandoned() {
    let place = Place::new();
    let fake = Fake::new(Facts::capable(SIZE as u64), 1);
    let socket = place.0.path().join("control");
    let params = [
        &*format!("cbt-file={}", place.file().display()),
        "cbt-granularity=4K",
        "cbt-name=a",
        &format!("cbt-control={}", socket.display()),
    ];
    let layer = over::<Cbt>(&params, fake.backend()).unwrap();
    layer.get_ready().unwrap();
    layer.after_fork().unwrap();
    let disk = open(&layer);
    let one = || Data::copy_from(&[1; 512]);
    disk.write(0, one(), WriteFlags::default()).wait().unwrap();
    fake.hold();
    let mut slow = disk.write(0, one(), WriteFlags::default());
    let mut given_up = disk.write(8192, one(), WriteFlags::default());
    let waker = std::task::Waker::noop();
    let mut cx = std::task::Context::from_waker(waker);
    for io in [&mut slow, &mut given_up] {
        assert!(std::pin::Pin::new(io).poll(&mut cx).is_pending());
    }
    drop(given_up);
    std::thread::scope(|scope| {
        let start = scope.spawn(|| say(&socket, "start b"));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!start.is_finished());
        fake.release();
        slow.wait().unwrap();
        assert_eq!(start.join().unwrap(), ["ok"]);
    });
    assert_eq!(changed(&open(&layer), "b"), [2].into());
    layer.finish();
}

/// What a property test does.
#[derive(Clone, Copy, Debug)]
enum Act {
    Write(u64, u64),
    Zero(u64, u64),
    Flush,
    Checkpoint,
    /// The server ends in order, is killed, or goes with the power.
    End(u8),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let range = |len: u64| (0..SIZE as u64, 1..len).prop_map(|(at, len)| (at, len.min(SIZE as u64 - at)));
    let act = prop_oneof![
        6 => range(20_000).prop_map(|(at, len)| Act::Write(at, len)),
        1 => range(SIZE as u64).prop_map(|(at, len)| Act::Zero(at, len)),
        1 => Just(Act::Flush),
        2 => Just(Act::Checkpoint),
        2 => (0..3u8).prop_map(Act::End),
    ];
    prop::collection::vec(act, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn what_changed_is_never_said_to_be_clean(acts in acts()) {
        let (place, memory) = (Place::new(), memory());
        let (mut layer, mut disk) = place.opened(&memory, &["cbt-name=0"]);
        // Per checkpoint, and whether power was lost since, so that more may be said.
        let mut model: Vec<(BTreeSet<u64>, bool)> = vec![(BTreeSet::new(), false)];
        for act in acts {
            match act {
                Act::Write(at, len) | Act::Zero(at, len) => {
                    match act {
                        Act::Write(..) => write(&disk, at, len as usize),
                        _ => disk.zero(Range::new(at, len), ZeroFlags::default()).wait().unwrap(),
                    }
                    for (set, _) in &mut model {
                        set.extend(at / GRANULE..(at + len).div_ceil(GRANULE));
                    }
                }
                Act::Flush => disk.flush().wait().unwrap(),
                Act::Checkpoint | Act::End(_) => {
                    drop(disk);
                    match act {
                        Act::End(0) => layer.finish(),
                        Act::End(2) => model.iter_mut().for_each(|(_, power)| *power = true),
                        _ => {}
                    }
                    drop(layer);
                    if matches!(act, Act::End(2)) {
                        another_boot(&place.file());
                    }
                    let more = match act {
                        Act::Checkpoint => {
                            model.push((BTreeSet::new(), false));
                            vec![format!("cbt-name={}", model.len() - 1)]
                        }
                        _ => vec![],
                    };
                    let more: Vec<&str> = more.iter().map(String::as_str).collect();
                    (layer, disk) = place.opened(&memory, &more);
                }
            }
            for (name, (set, power)) in model.iter().enumerate() {
                let found = changed(&disk, &name.to_string());
                if *power {
                    prop_assert!(found.is_superset(set), "{name}: {:?} missing", set - &found);
                } else {
                    prop_assert_eq!(&found, set);
                }
            }
        }
    }

    #[test]
    fn a_damaged_file_is_refused_or_says_something(seed: u64) {
        let (place, memory) = (Place::new(), memory());
        let (layer, disk) = place.opened(&memory, &["cbt-name=a"]);
        write(&disk, 0, 100_000);
        drop((disk, layer));
        let mut bytes = fs::read(place.file()).unwrap();
        let mut random = Random(seed);
        for _ in 0..1 + random.below(8) {
            let at = if random.below(2) == 0 { random.below(300) } else { random.below(bytes.len() as u64) };
            bytes[at as usize] = random.below(256) as u8;
        }
        bytes.truncate(bytes.len() - random.below(3) as usize * 5000);
        fs::write(place.file(), &bytes).unwrap();
        if let Ok(layer) = place.start(&memory, &[])
            && let Ok(disk) = layer.open(&Client::local("")).wait()
        {
            write(&disk, 0, 100);
            changed(&disk, "a");
        }
    }
}

#[test]
fn two_checkpoints_of_one_name_above_each_other_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| format!("cbt-file={}", dir.path().join(name).display());
    let memory = Memory::new(vec![0; 65536]);
    let inner = layer::<Cbt>(&[&file("inner"), "cbt-name=a"], &memory).unwrap();
    let above = |name: &str| {
        let params = [&*file(name), &format!("cbt-name={name}")];
        let outer = over::<Cbt>(&params, inner.clone()).unwrap();
        outer.open(&Client::local("")).wait().map(|disk| disk.facts().contexts.len())
    };
    assert_eq!(above("b").unwrap(), 2);
    let why = above("a").err().unwrap().to_string();
    assert_eq!(
        why,
        "cbt: the disk below has the context qemu:dirty-bitmap:a already; give the checkpoint another name"
    );
}
