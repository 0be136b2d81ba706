//! A request that is ready allocates nothing: counted, not measured.

use disk::{Client, Data, Disk, Range, WriteFlags};
use params::Args;
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::Arc,
};

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn open(plugin: &str, args: &[(&str, &str)]) -> Arc<dyn Disk> {
    let entry = plugins::find(plugin).unwrap();
    let backend = entry.start(&mut Args::new(args.iter().copied())).unwrap();
    backend.open(&Client::local("")).wait().unwrap()
}

/// How often `work` allocates, once it is warm.
fn allocations(mut work: impl FnMut(u64)) -> u64 {
    work(0);
    let before = COUNT.get();
    (0..100).for_each(work);
    COUNT.get() - before
}

#[test]
fn reads_and_writes_of_a_memory_disk_allocate_nothing() {
    let disk = open("memory", &[("size", "1G")]);
    let mib = Data::fill(1 << 20, |b| b.fill(1));
    disk.write(0, mib, WriteFlags::default()).wait().unwrap();
    // Debug builds put a checking layer on top, which allocates nothing either.
    for len in [512, 4096, 16 << 10, 64 << 10, 256 << 10] {
        let count = allocations(|n| drop(disk.read(Range::new(n * 4096, len)).wait().unwrap()));
        assert_eq!(count, 0, "reading {len} bytes");
        let hole = allocations(|n| drop(disk.read(Range::new((512 << 20) + n, len)).wait().unwrap()));
        assert_eq!(hole, 0, "reading {len} bytes of a hole");
        let data = Data::fill(len as usize, |b| b.fill(2));
        let count =
            allocations(|n| disk.write(n * 4096, data.clone(), WriteFlags::default()).wait().unwrap());
        assert_eq!(count, 0, "writing {len} bytes");
    }
}
