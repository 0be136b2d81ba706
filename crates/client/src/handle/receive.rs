//! What was received and is not understood yet, and where in a reply it stands.

use proto::{ChunkHeader, ReplyHeader, ReplyStyle};

/// Enough for many replies; data beyond goes where it belongs at once.
const BUFFER: usize = 128 << 10;

#[derive(Default)]
pub(super) struct Input {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    pub(super) place: Place,
}

/// Where in a reply the next byte stands.
#[derive(Clone, Copy, Default)]
pub(super) enum Place {
    /// Before a header.
    #[default]
    Between,
    /// Before the payload of a chunk, all of which is waited for; of data only its offset.
    Chunk(ChunkHeader),
    /// In the data of a read: what its memory gets next.
    Data(Data),
}

/// A run of data under way.
#[derive(Clone, Copy)]
pub(super) struct Data {
    pub(super) cookie: u64,
    /// Where in the memory of the request the run begins.
    pub(super) first: usize,
    /// Where the next byte belongs, there.
    pub(super) at: usize,
    /// How many are to come.
    pub(super) left: usize,
    /// Whether the reply ends with it.
    pub(super) done: bool,
}

impl Input {
    pub(super) fn is_between_replies(&self) -> bool {
        matches!(self.place, Place::Between)
    }

    pub(super) fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub(super) fn used(&mut self, n: usize) {
        self.start += n;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// What was received by somebody else.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let room = self.room(bytes.len());
        room[..bytes.len()].copy_from_slice(bytes);
        self.received(bytes.len());
    }

    /// Where at least `least` more bytes can be put.
    pub(super) fn room(&mut self, least: usize) -> &mut [u8] {
        let held = self.end - self.start;
        if self.buffer.len() - self.end < least.max(1) {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, held);
            let wanted = (held + least).max(BUFFER);
            if self.buffer.len() < wanted {
                self.buffer.resize(wanted, 0);
            }
        }
        &mut self.buffer[self.end..]
    }

    pub(super) fn received(&mut self, n: usize) {
        self.end += n;
    }

    /// The next header, if it is there.
    pub(super) fn header(&mut self, style: ReplyStyle) -> proto::Result<Option<ReplyHeader>> {
        let Some((header, length)) = ReplyHeader::decode(style, self.unread())? else { return Ok(None) };
        self.used(length);
        Ok(Some(header))
    }
}
