//! Overlays that are kept: what is there at the next start, what is refused, and who has which.

use super::*;
use std::path::Path;
use store::{Header, Kind, Parent};

fn kept(path: &Path, memory: &Arc<Memory>, more: &[&str]) -> Result<Arc<dyn Backend>> {
    let file = format!("cow-file={}", path.display());
    let backend = layer::<Cow>(&[&[&*file], more].concat(), memory)?;
    backend.get_ready()?;
    Ok(backend)
}

fn flush(disk: &dyn Disk) {
    disk.flush().wait().unwrap();
}

#[test]
fn what_was_flushed_is_there_at_the_next_start_and_what_was_closed_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("overlay");
    let base = noise(1, 10_000_001);
    let memory = Memory::new(base.clone());
    let mut expected = base.clone();
    {
        let cow = kept(&path, &memory, &[]).unwrap();
        let disk = open(&cow);
        write(&*disk, 5_000_000, &[1; 10_000]);
        disk.zero(Range::new(100_000, 4_000_000), TRIM).wait().unwrap();
        disk.trim(Range::new(9_990_000, 10_001), F).wait().unwrap();
        flush(&*disk);
        // Neither closed nor finished: as if the server had been killed.
    }
    expected[5_000_000..5_010_000].fill(1);
    expected[100_000..4_100_000].fill(0);
    let trimmed = 9_990_000_usize.next_multiple_of(4096);
    expected[trimmed..].fill(0);
    {
        let cow = kept(&path, &memory, &["cow-block-size=64K"]).unwrap();
        let disk = open(&cow);
        assert!(read(&*disk, 0, 10_000_001) == expected);
        write(&*disk, 77, b"at last");
        // Without a flush, but in good order.
        disk.close().wait().unwrap();
        drop(disk);
        cow.finish();
    }
    expected[77..84].copy_from_slice(b"at last");
    let cow = kept(&path, &memory, &[]).unwrap();
    assert!(read(&*open(&cow), 0, 10_000_001) == expected);
    assert!(memory.bytes() == base, "the disk below changed");
    let extents = open(&cow).extents(Range::new(102_400, 3_993_600), 1).wait().unwrap();
    assert_eq!(extents, Extents::one(3_993_600, Extent::HOLE));
}

#[test]
fn random_operations_do_what_they_do_to_a_vector_over_many_starts() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = noise(1, 3_000_001);
    let memory = Memory::new(bytes.clone());
    for (round, more) in
        [&["cow-on-read=yes"][..], &[], &["cow-on-cache=on"], &["cow-block-size=1M"]].into_iter().enumerate()
    {
        let cow = kept(&dir.path().join("overlay"), &memory, more).unwrap();
        let disk = open(&cow);
        agree(&*disk, bytes, round as u64, 500);
        bytes = read(&*disk, 0, 3_000_001);
        if round % 2 == 0 {
            flush(&*disk);
        } else {
            drop(disk);
            cow.finish();
        }
    }
}

#[test]
fn fua_is_a_flush() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("overlay");
    let memory = Memory::new(vec![7; 1 << 20]);
    {
        let disk = open(&kept(&path, &memory, &[]).unwrap());
        let fua = WriteFlags { fua: true };
        disk.write(0, Data::copy_from(&[1; 4096]), fua).wait().unwrap();
        disk.zero(Range::new(8192, 4096), ZeroFlags { fua: true, ..TRIM }).wait().unwrap();
        disk.trim(Range::new(16384, 4096), fua).wait().unwrap();
        disk.zero(Range::new(24576, 4096), ZeroFlags { fua: true, ..ZeroFlags::default() }).wait().unwrap();
        write(&*disk, 32768, &[1; 4096]);
    }
    let disk = open(&kept(&path, &memory, &[]).unwrap());
    let is = |at| read(&*disk, at, 1)[0];
    assert_eq!([0, 8192, 16384, 24576].map(is), [1, 0, 0, 0]);
    // Never promised, and forgotten.
    assert_eq!(is(32768), 7);
}

#[test]
fn another_disk_below_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("overlay");
    let shown = path.display();
    let disk_of = |size: u64, identity: &str| {
        let facts = Facts { identity: Some(identity.into()), ..Facts::read_only(size) };
        Memory::with(vec![1; size as usize], facts)
    };
    let first = disk_of(8192, "modified at 1");
    write(&*open(&kept(&path, &first, &[]).unwrap()), 0, &[2; 10]);
    let why = |memory: &Arc<Memory>, more: &[&str]| {
        let cow = kept(&path, memory, more).unwrap();
        let error = cow.open(&Client::local("")).wait().err();
        error.map(|e| e.to_string()).unwrap_or_default()
    };
    assert_eq!(
        why(&disk_of(4096, "modified at 1"), &["cow-force=true"]),
        format!("{shown}: it was made for a disk of 8192 bytes, but the disk below has 4096")
    );
    let second = disk_of(8192, "modified at 2");
    assert_eq!(
        why(&second, &[]),
        format!(
            "{shown}: the disk below is not as it was: it was modified at 1, and is modified at 2; \
             cow-force=true takes it all the same"
        )
    );
    assert_eq!(why(&second, &["cow-force=true"]), "");
    assert_eq!(why(&second, &[]), "", "from now on it is this one");
    assert_eq!(why(&Memory::new(vec![1; 8192]), &[]), "", "it does not say which it is");
}

#[test]
fn what_cannot_work_is_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Memory::new(vec![0; 8192]);
    let why = |params: &[&str]| {
        let started = layer::<Cow>(params, &memory).and_then(|cow| cow.get_ready().map(|()| cow));
        started.err().unwrap().to_string()
    };
    let file = dir.path().join("file");
    std::fs::write(&file, "no overlay").unwrap();
    let shown = file.display();
    let param = format!("cow-file={shown}");
    assert_eq!(why(&[&param]), format!("cow-file: {shown}: not a file of diskpipe's overlays and caches"));
    let nowhere = dir.path().join("nowhere");
    for param in
        [format!("cow-file={}/x", nowhere.display()), format!("cow-per-client={}", nowhere.display())]
    {
        assert!(
            why(&[&param]).ends_with(&format!("{}: No such file or directory", nowhere.display())),
            "{param}"
        );
    }
    assert_eq!(
        why(&["cow-file=x", "cow-per-client=y"]),
        "cow: cow-file= and cow-per-client= cannot be used at the same time"
    );
    assert_eq!(why(&["cow-key=address"]), "cow: cow-key= is of no use without cow-per-client=");
    let overlay = dir.path().join("overlay");
    let running = kept(&overlay, &memory, &[]).unwrap();
    open(&running);
    let again = kept(&overlay, &memory, &[]).err().unwrap().to_string();
    let used = "already used by this server, by the filter cow";
    assert_eq!(again, format!("cow-file: {}: {used}", overlay.display()));
    drop(running);
    let foreign = std::fs::File::open(&overlay).unwrap();
    foreign.lock().unwrap();
    let again = kept(&overlay, &memory, &[]).err().unwrap().to_string();
    assert_eq!(again, format!("cow-file: {}: in use by another program", overlay.display()));
}

#[test]
fn one_file_is_of_one_export() {
    let dir = tempfile::tempdir().unwrap();
    let cow = kept(&dir.path().join("overlay"), &Memory::new(vec![0; 8192]), &[]).unwrap();
    let disk = cow.open(&Client::local("a")).wait().unwrap();
    write(&*disk, 0, b"a");
    assert!(cow.open(&Client::local("a")).wait().is_ok());
    let why = cow.open(&Client::local("b")).wait().err().unwrap().to_string();
    assert!(why.contains("cow-per-client has a file for each"), "{why}");
}

#[test]
fn each_client_has_a_file_of_its_own_and_finds_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Memory::new(vec![9; 8192]);
    let param = format!("cow-per-client={}", dir.path().display());
    let files = || {
        let mut files: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|f| f.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        files
    };
    for round in 0..3u8 {
        let cow = layer::<Cow>(&[&param], &memory).unwrap();
        cow.get_ready().unwrap();
        for name in ["vm1", "vm2", "../x"] {
            let open = || cow.open(&Client::local(name)).wait().unwrap();
            let (one, other) = (open(), open());
            let before = if round == 0 { 9 } else { name.len() as u8 + round };
            assert_eq!(read(&*other, 0, 1), [before]);
            write(&*one, 0, &[name.len() as u8 + round + 1]);
            assert_eq!(read(&*other, 0, 1), [name.len() as u8 + round + 1]);
            drop((one, other));
            // The last one has left: others may look at it.
            let path = dir.path().join(super::super::names::file_name(name).unwrap());
            assert!(store::file::open(&path, false).is_ok());
        }
        assert_eq!(files(), ["%2E.%2Fx.cow", "vm1.cow", "vm2.cow"]);
    }
    let cow = layer::<Cow>(&[&param], &memory).unwrap();
    assert!(cow.open(&Client::local(&"x".repeat(300))).wait().is_err());
    assert_eq!(files().len(), 3);
}

#[test]
fn a_disk_below_that_fails_leaves_the_overlay_true() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("overlay");
    let base = noise(4, 400_000);
    let mut model = base.clone();
    for round in 0..4u64 {
        let failing = layer::<crate::error::Error>(&["error-rate=30%"], &Memory::new(base.clone())).unwrap();
        let cow = over::<Cow>(&[&format!("cow-file={}", path.display())], failing).unwrap();
        let disk = open(&cow);
        let (mut random, mut failed) = (Random(round), 0);
        for step in 0..300 {
            let start = random.below(400_000);
            let r = Range::new(start, 1 + random.below((400_000 - start).min(9_000)));
            let part = r.start as usize..r.end() as usize;
            let bytes = noise(step, r.len as usize);
            // Again until it is done: what a failed attempt did is done once more.
            loop {
                match disk.write(r.start, Data::copy_from(&bytes), F).wait() {
                    Ok(()) => break,
                    Err(e) => assert_eq!(e.errno(), Errno::IO),
                }
                failed += 1;
            }
            model[part].copy_from_slice(&bytes);
        }
        assert!(round > 0 || failed > 0);
        flush(&*disk);
        drop(disk);
        drop(cow);
        let sound = kept(&path, &Memory::new(base.clone()), &[]).unwrap();
        assert!(read(&*open(&sound), 0, 400_000) == model, "round {round}");
    }
}

#[test]
fn the_longest_chain_is_read_on_a_small_stack() {
    let dir = tempfile::tempdir().unwrap();
    let size = 1 << 20;
    let at = |i: usize| dir.path().join(format!("{i}"));
    let header = |parent| {
        let mut header = Header::new(Kind::Overlay, 4096, size).unwrap();
        header.parent = parent;
        header
    };
    let mut parent = None;
    for i in 0..=store::chain::LONGEST {
        let header = header(parent.take());
        let id = header.id;
        let made = store::file::create(&at(i), header).unwrap();
        if i < store::chain::LONGEST {
            made.freeze().unwrap();
        }
        parent = Some(Parent { id, path: i.to_string() });
    }
    let memory = Memory::new(noise(1, size as usize));
    let cow = kept(&at(store::chain::LONGEST), &memory, &[]).unwrap();
    // As a connection's thread has it.
    let thread = std::thread::Builder::new().stack_size(512 << 10).spawn(move || {
        let disk = open(&cow);
        write(&*disk, 5000, b"top");
        assert_eq!(read(&*disk, 4999, 5)[1..4], *b"top");
        let extents = disk.extents(Range::new(0, size), 100).wait().unwrap();
        assert_eq!(extents.covered(), size);
        read(&*disk, 0, size)
    });
    let mut expected = noise(1, size as usize);
    expected[5000..5003].copy_from_slice(b"top");
    assert!(thread.unwrap().join().unwrap() == expected);
    // One more is too many.
    let over = header(parent);
    store::file::open(&at(64), true).unwrap().freeze().unwrap();
    store::file::create(&at(65), over).unwrap();
    let why = kept(&at(65), &memory, &[]).unwrap().open(&Client::local("")).wait().err().unwrap().to_string();
    assert!(why.ends_with("it stands on more than 64 others"), "{why}");
}
