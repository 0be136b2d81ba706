//! What a hostile server is asked, six bytes each.

use client::{
    Connection,
    connection::{self, Answer},
};
use disk::{Data, Disk, Io, Range, WriteFlags, ZeroFlags};
use proto::{Command, CommandFlags, ReplyStyle};

/// A request: what, where, how long, whether anybody cares for its answer, and (two bytes) how much the server says in
/// answer to it.
#[derive(Clone, Copy, Debug)]
pub struct Ask([u8; Ask::LEN]);

/// The lengths to choose from: around the sizes at which the client changes its ways.
pub const LENGTHS: [u64; 8] = [1, 512, 4096, (16 << 10) + 1, 64 << 10, 300_000, 1 << 20, 5 << 32];
/// Longer data is not sent or received, only spoken of.
const DATA_MAX: u64 = 1 << 20;

impl Ask {
    pub const LEN: usize = 6;

    pub fn decode(bytes: &[u8]) -> Ask {
        Ask(bytes.try_into().expect("six bytes"))
    }

    pub fn kind(self) -> u8 {
        self.0[0]
    }

    /// Of the answer: 0 and 1 not at all.
    pub fn care(self) -> u8 {
        self.0[3] % 4
    }

    /// How many of the server's bytes come together, as the next ones.
    pub fn answer_len(self) -> usize {
        u16::from_be_bytes([self.0[4], self.0[5]]).into()
    }

    fn flag(self, bit: u8) -> bool {
        self.0[3] & (1 << bit) != 0
    }

    /// A range that the disk has, as its blocks demand it.
    fn range(self, disk: &dyn Disk, longest: u64) -> Option<Range> {
        let facts = disk.facts();
        let minimum = u64::from(facts.blocks.minimum);
        let whole = facts.size / minimum * minimum;
        let start = match self.0[1] {
            255 => whole.saturating_sub(minimum),
            at => (u64::from(at) * 512).next_multiple_of(minimum),
        };
        let len = LENGTHS[usize::from(self.0[2] % 8)].min(longest) / minimum * minimum;
        let len = len.max(minimum).min(whole.checked_sub(start)?);
        (len > 0).then_some(Range::new(start, len))
    }

    /// The request, if the disk offers it.
    pub fn of(self, disk: &dyn Disk) -> Option<Io<'_, ()>> {
        let facts = disk.facts();
        let most = u64::from(facts.blocks.maximum).min(DATA_MAX);
        let fua = facts.fua && self.flag(2);
        let limit = if self.flag(3) { 1 } else { 100 };
        let io = match self.kind() % 10 {
            0..=2 => disk.read(self.range(disk, most)?).map(|data| {
                no_poison(&data);
                Ok(())
            }),
            3 if facts.write => {
                let range = self.range(disk, most)?;
                let data = if self.flag(3) {
                    Data::zeroes(range.len)
                } else {
                    Data::fill(range.len as usize, |b| b.fill(7))
                };
                disk.write(range.start, data, WriteFlags { fua })
            }
            4 if facts.zero => {
                let flags = ZeroFlags { fua, may_trim: self.flag(3), fast: facts.fast_zero && self.flag(4) };
                disk.zero(self.range(disk, u64::MAX)?, flags)
            }
            5 if facts.trim => disk.trim(self.range(disk, u64::MAX)?, WriteFlags { fua }),
            6 if facts.flush => disk.flush(),
            7 if facts.cache => disk.cache(self.range(disk, u64::MAX)?),
            8 if facts.extents => disk.extents(self.range(disk, u64::MAX)?, limit).map(|_| Ok(())),
            9 if !facts.contexts.is_empty() => {
                disk.status(0, self.range(disk, u64::MAX)?, limit).map(|_| Ok(()))
            }
            _ => return None,
        };
        Some(io)
    }

    /// The request by the blocking face of a connection; whether it succeeded.
    pub fn by_ticket(self, connection: &Connection, style: ReplyStyle) -> bool {
        let command = match self.kind() % 10 {
            0..=2 => Command::Read,
            3 => Command::Write,
            4 => Command::WriteZeroes,
            5 => Command::Trim,
            6 => Command::Flush,
            7 => Command::Cache,
            _ => Command::BlockStatus,
        };
        let length = LENGTHS[usize::from(self.0[2] % 8)].min(DATA_MAX);
        let offset = u64::from(self.0[1]) * 512;
        let ask = connection::Ask { command, flags: CommandFlags::NONE, offset, length };
        let data = (command == Command::Write).then(|| Data::zeroes(length));
        let ticket = if command == Command::BlockStatus && style == ReplyStyle::Extended {
            connection.submit_status(ask, &[3])
        } else {
            connection.submit(ask, data.as_ref())
        };
        let Ok(ticket) = ticket else { return false };
        if self.care() == 0 {
            return false;
        }
        match ticket.wait() {
            Ok(Answer::Data(data)) => {
                assert_eq!(data.len(), length);
                no_poison(&data);
                true
            }
            Ok(Answer::Status(list)) => !list.is_empty() || panic!("an empty status"),
            Ok(Answer::Done | Answer::Size(_)) => true,
            Err(_) => false,
        }
    }
}

/// In debug builds, buffers are filled with this before they are used.
pub const POISON: [u8; 8] = [0xde; 8];

/// What was read is what the server said, not what the memory held before.
fn no_poison(data: &Data) {
    let bytes = data.to_vec();
    let found = bytes.windows(POISON.len()).position(|window| window == POISON);
    assert_eq!(found, None, "bytes that the server never sent");
}
