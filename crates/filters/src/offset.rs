//! `offset`: a byte range of a disk as a disk of its own. The simplest use of the [`Window`] shape.

use disk::{Backend, Client, Disk, Error, Filter, Io, Result, Window};
use params::{Params, Size};
use std::sync::Arc;

/// Serve a byte range of a disk.
#[derive(Params)]
pub(crate) struct Offset {
    /// Where the range begins.
    #[param(default = "0")]
    offset: Size,
    /// How long the range is. Without it, it goes to the end of the disk below.
    range: Option<Size>,
}

impl Filter for Offset {
    const NAME: &'static str = "offset";
    const MANUAL: &'static str = include_str!("offset.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        Ok(Part { offset: self.offset.bytes(), range: self.range.map(Size::bytes), next })
    }
}

struct Part {
    offset: u64,
    range: Option<u64>,
    next: Arc<dyn Backend>,
}

impl Part {
    fn of(&self, disk: Arc<dyn Disk>) -> Result<Window> {
        let below = disk.facts().size;
        let Some(rest) = below.checked_sub(self.offset) else {
            let offset = self.offset;
            return Err(Error::invalid(format!(
                "offset={offset}: the disk below ends before it, at {below} bytes"
            )));
        };
        let range = self.range.unwrap_or(rest);
        if range > rest {
            return Err(Error::invalid(format!(
                "range={range}: from offset {} on, the disk below has only {rest} bytes",
                self.offset
            )));
        }
        Window::new(disk, self.offset, range)
    }
}

impl Backend for Part {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.next.open(client).map(|disk| Ok(Arc::new(self.of(disk)?) as Arc<dyn Disk>))
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, layer, noise, opened};
    use disk::{Data, Range, WriteFlags};

    #[test]
    fn requests_move_by_the_offset() {
        let memory = Memory::new(noise(1, 8192));
        let disk = opened::<Offset>(&["offset=1K", "range=2K"], &memory);
        assert_eq!(disk.facts().size, 2048);
        assert_eq!(disk.read(Range::new(512, 512)).wait().unwrap().to_vec(), memory.bytes()[1536..2048]);
        disk.write(2047, Data::copy_from(b"!"), WriteFlags::default()).wait().unwrap();
        disk.cache(disk.facts().whole()).wait().unwrap();
        assert_eq!(memory.asked(), ["read 1536 512", "write 3071 1", "cache 1024 2048"]);
    }

    #[test]
    fn without_a_range_the_part_goes_to_the_end() {
        let memory = Memory::new(vec![0; 4096]);
        assert_eq!(opened::<Offset>(&["offset=100"], &memory).facts().size, 3996);
        assert_eq!(opened::<Offset>(&["offset=4096"], &memory).facts().size, 0);
        assert_eq!(opened::<Offset>(&[], &memory).facts().size, 4096);
    }

    #[test]
    fn a_part_beyond_the_end_is_refused() {
        let memory = Memory::new(vec![0; 4096]);
        let refused = |params: &[&str]| {
            let layer = layer::<Offset>(params, &memory).unwrap();
            layer.open(&Client::local("")).wait().err().unwrap().to_string()
        };
        assert_eq!(refused(&["offset=5000"]), "offset=5000: the disk below ends before it, at 4096 bytes");
        assert_eq!(
            refused(&["offset=96", "range=4001"]),
            "range=4001: from offset 96 on, the disk below has only 4000 bytes"
        );
    }
}
