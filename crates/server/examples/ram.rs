//! A RAM disk whose memory is lent to the kernel: `cargo run --release --example ram -- SOCKET SIZE-IN-MIB`.

use disk::{
    Backend, Client, Data, Disk, Facts, Io, Range, WriteFlags, ZeroFlags, shared::Place, shared::SharedMemory,
};
use std::{path::Path, sync::Arc};

struct Ram(Facts, Arc<SharedMemory>);

impl Disk for Ram {
    fn facts(&self) -> &Facts {
        &self.0
    }
    fn read(&self, r: Range) -> Io<'_, Data> {
        Io::ok(self.1.lend(r.start as usize, r.len as usize).into())
    }
    fn write(&self, at: u64, data: Data, _: WriteFlags) -> Io<'_, ()> {
        self.1.write(at as usize, data.contiguous().as_bytes().unwrap_or_default());
        Io::ok(())
    }
    fn zero(&self, r: Range, _: ZeroFlags) -> Io<'_, ()> {
        self.1.clear(r.start as usize, r.len as usize);
        Io::ok(())
    }
    fn flush(&self) -> Io<'_, ()> {
        Io::ok(())
    }
    fn place(&self, r: Range) -> Option<Place<'_>> {
        Some(self.1.place(r.start as usize, r.len as usize))
    }
    fn placed(&self, _: Range, _: WriteFlags) -> Io<'_, ()> {
        Io::ok(())
    }
}

struct OneRam(Arc<Ram>);

impl Backend for OneRam {
    fn open<'a>(&'a self, _: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        Io::ok(self.0.clone())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(path), Some(size)) = (args.next(), args.next()) else {
        return Err("SOCKET SIZE-IN-MIB".into());
    };
    let size = size.parse::<usize>()? << 20;
    let facts = Facts { zero: true, ..Facts::writable(size as u64) };
    let memory = SharedMemory::new(size)?;
    memory.want_huge_pages(0, size);
    let ram = Arc::new(Ram(facts, memory));
    let server = diskpipe_server::Server::new(disk::complete::backend(Arc::new(OneRam(ram))));
    Ok(server.serve(&[net::Listener::unix(Path::new(&path), true)?])?)
}
