//! The lines of notes, which are most of all lines: put down where they wait to be written, by copies of fixed lengths that
//! nobody has to read again. The machinery of `format!`, or a text that grows, would take as long as the request.

use super::notes::{Act, Note};

/// Lines that wait to be written.
#[derive(Default)]
pub(super) struct Paper {
    /// Longer than what is written on it.
    bytes: Vec<u8>,
    len: usize,
}

impl Paper {
    pub(super) fn text(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// Adds what somebody puts at the beginning of this room, and says the length of.
    #[inline]
    pub(super) fn put(&mut self, write: impl FnOnce(&mut Room) -> usize) {
        if self.bytes.len() - self.len < LONGEST {
            self.grow(LONGEST);
        }
        if let Some(room) = self.bytes[self.len..].first_chunk_mut() {
            self.len += write(room);
        }
    }

    pub(super) fn add(&mut self, text: &[u8]) {
        if self.bytes.len() - self.len < text.len() {
            self.grow(text.len());
        }
        self.bytes[self.len..self.len + text.len()].copy_from_slice(text);
        self.len += text.len();
    }

    #[cold]
    fn grow(&mut self, more: usize) {
        self.bytes.resize((self.len + more).next_power_of_two().max(LEAST), 0);
    }
}

/// So many bytes are taken at once.
const LEAST: usize = 16 << 10;
/// No line of a note is longer, not even with what copies of fixed lengths write behind its end.
const LONGEST: usize = 256;
pub(super) type Room = [u8; LONGEST];

/// What lines have in common with those before them.
pub(super) struct Sheet {
    /// How lines begin, as `2026-11-21 00:00:10.676932 connection=1 `, with any fraction of the second.
    head: [u8; HEAD],
    /// The second, in nanoseconds since 1970.
    second: Option<u64>,
    /// The connection, and where that ends.
    connection: Option<u64>,
    behind_connection: usize,
    /// The number that came last, if it was below 10^8, its digits and how many those are.
    id: u64,
    digits: [u8; 8],
    id_len: usize,
}

const HEAD: usize = 64;
/// Where the fraction of a second begins, and what follows the time.
const FRACTION: usize = 20;
const TIME: usize = 27;

const SECOND: u64 = 1_000_000_000;

impl Default for Sheet {
    fn default() -> Sheet {
        Sheet {
            head: [b' '; HEAD],
            second: None,
            connection: None,
            behind_connection: TIME,
            id: 0,
            digits: *b"0       ",
            id_len: 1,
        }
    }
}

impl Sheet {
    /// A time since 1970, in nanoseconds, and a blank.
    #[inline]
    pub(super) fn time(&mut self, room: &mut Room, nanos: u64) -> usize {
        let fraction = match self.second {
            Some(second) if nanos.wrapping_sub(second) < SECOND => nanos - second,
            _ => self.turn(nanos),
        };
        put(room, 0, &self.head, HEAD);
        let digits = (eight_digits((fraction / 1000) as u32) >> 16) + ZEROES;
        room[FRACTION..FRACTION + 6].copy_from_slice(&digits.to_le_bytes()[..6]);
        TIME
    }

    /// A note's line, which begins with this time, with its newline.
    #[inline]
    pub(super) fn line(&mut self, room: &mut Room, nanos: u64, note: &Note) -> usize {
        if self.connection != Some(note.connection) {
            self.connect(note.connection);
        }
        self.time(room, nanos);
        let mut end = self.behind_connection;
        if note.is_answer() {
            end = put(room, end, b"... ", 3);
        }
        let (name, len) = NAMES[note.act as usize];
        end = put(room, end, name, len);
        end = self.number(room, end, note.id);
        if note.is_answer() {
            return put(room, end, b" return=0\n      ", 10);
        }
        if note.act != Act::Flush {
            end = put(room, end, b" offset=0x      ", 10);
            end = hex(room, end, note.range.start);
            end = put(room, end, b" count=0x       ", 9);
            end = hex(room, end, note.range.len);
        }
        for (name, len, on) in note.switches() {
            end = put(room, end, name, len);
            end = put(room, end, &[b'0' + u8::from(on)], 1);
        }
        put(room, end, b" ...\n   ", 5)
    }

    /// The number of a request; the two lines of most come one after the other.
    #[inline]
    fn number(&mut self, room: &mut Room, at: usize, id: u64) -> usize {
        if id != self.id {
            if id >= EIGHT {
                return decimal(room, at, id);
            }
            (self.digits, self.id_len) = short_decimal(id as u32);
            self.id = id;
        }
        put(room, at, &self.digits, self.id_len)
    }

    #[cold]
    fn connect(&mut self, connection: u64) {
        let text = format!("connection={connection} ");
        self.behind_connection = TIME + text.len();
        self.head[TIME..self.behind_connection].copy_from_slice(text.as_bytes());
        self.connection = Some(connection);
    }

    /// Begins another second, and returns what of it has passed.
    #[cold]
    fn turn(&mut self, nanos: u64) -> u64 {
        let second = nanos / SECOND;
        let (days, rest) = (second / 86400, second % 86400);
        let (year, month, day) = date(days);
        let (hour, minute, sec) = (rest / 3600, rest / 60 % 60, rest % 60);
        // 2^64 nanoseconds end in 2554, so years have four digits.
        let text = format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{sec:02}.");
        self.head[..FRACTION].copy_from_slice(text.as_bytes());
        self.second = Some(second * SECOND);
        nanos % SECOND
    }
}

/// Puts some bytes there, of which the first `len` count.
#[inline]
fn put(room: &mut Room, at: usize, bytes: &[u8], len: usize) -> usize {
    room[at..at + bytes.len()].copy_from_slice(bytes);
    at + len
}

/// The digits of a number below 10^8, and how many they are.
#[inline]
fn short_decimal(number: u32) -> ([u8; 8], usize) {
    let digits = eight_digits(number);
    // What is 0 stands first; one digit always stays.
    let zeroes = (digits.trailing_zeros() / 8).min(7);
    (((digits >> (zeroes * 8)) + ZEROES).to_le_bytes(), 8 - zeroes as usize)
}

#[cold]
fn decimal(room: &mut Room, at: usize, number: u64) -> usize {
    if number < EIGHT {
        let (digits, len) = short_decimal(number as u32);
        return put(room, at, &digits, len);
    }
    let end = decimal(room, at, number / EIGHT);
    let digits = eight_digits((number % EIGHT) as u32) + ZEROES;
    put(room, end, &digits.to_le_bytes(), 8)
}

#[inline]
fn hex(room: &mut Room, at: usize, number: u64) -> usize {
    // Each half byte spread to a byte of its own, so that all become digits at once.
    let spread = |half: u32| {
        let x = u64::from(half);
        let x = (x | x << 16) & 0x0000_FFFF_0000_FFFF;
        let x = (x | x << 8) & 0x00FF_00FF_00FF_00FF;
        let x = (x | x << 4) & 0x0F0F_0F0F_0F0F_0F0F;
        // 1 in each byte that is a letter.
        let letters = ((x + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
        (x + ZEROES + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
    };
    // The first digit that is not 0 becomes the first of all; one digit always stays.
    let zeroes = (number.leading_zeros() / 4).min(15);
    let number = number << (zeroes * 4);
    put(room, at, &spread((number >> 32) as u32), 8);
    put(room, at + 8, &spread(number as u32), 8) - zeroes as usize
}

/// As a line names a request, and how long that is.
const NAMES: [(&[u8; 12], usize); 6] = [
    (b"Read id=    ", 8),
    (b"Write id=   ", 9),
    (b"Zero id=    ", 8),
    (b"Trim id=    ", 8),
    (b"Flush id=   ", 9),
    (b"Cache id=   ", 9),
];

/// 10^8, which eight digits stay below.
const EIGHT: u64 = 100_000_000;
/// Eight times the digit 0.
const ZEROES: u64 = 0x3030_3030_3030_3030;

/// The values of the eight digits of a number below 10^8, the first one in the lowest byte: all halves are halved again
/// at once, and a division by 100 or 10 is a product.
#[inline]
fn eight_digits(number: u32) -> u64 {
    let fours = u64::from(number % 10_000) << 32 | u64::from(number / 10_000);
    let hundreds = ((fours * 10_486) >> 20) & 0x7F_0000_007F;
    let twos = hundreds | (fours - hundreds * 100) << 16;
    let tens = ((twos * 103) >> 10) & 0x000F_000F_000F_000F;
    tens | (twos - tens * 10) << 8
}

/// Year, month and day of a number of days since 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut day) = (1970, days);
    // 146097 days are 400 years.
    year += day / 146_097 * 400;
    day %= 146_097;
    loop {
        let in_year = 365 + u64::from(leap(year));
        if day < in_year {
            break;
        }
        day -= in_year;
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for in_month in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < in_month {
            break;
        }
        day -= in_month;
        month += 1;
    }
    (year, month, day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::line::Text;
    use disk::Range;

    #[test]
    fn times_are_written_as_dates() {
        let mut sheet = Sheet::default();
        let mut at = |micros: u64| {
            let mut room = [0; LONGEST];
            let len = sheet.time(&mut room, micros * 1000);
            String::from_utf8(room[..len].to_vec()).unwrap()
        };
        assert_eq!(at(0), "1970-01-01 00:00:00.000000 ");
        assert_eq!(at(951_782_399_000_001), "2000-02-28 23:59:59.000001 ");
        assert_eq!(at(951_782_400_999_999), "2000-02-29 00:00:00.999999 ");
        assert_eq!(at(951_868_800_000_000), "2000-03-01 00:00:00.000000 ");
        assert_eq!(at(1_795_219_210_676_932), "2026-11-21 00:00:10.676932 ");
        assert_eq!(at(1_795_219_209_999_999), "2026-11-21 00:00:09.999999 ");
        assert_eq!(at(4_107_542_399_000_000), "2100-02-28 23:59:59.000000 ");
        assert_eq!(at(4_107_542_400_000_000), "2100-03-01 00:00:00.000000 ");
    }

    #[test]
    fn numbers_are_written_as_format_does() {
        let powers = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, 0x0123_4567_89AB_CDEF >> bit]);
        let mut room = [0; LONGEST];
        for number in [9, 10, 99, 100, 101, 999, 1000, 4096, u64::MAX / 2, u64::MAX].into_iter().chain(powers)
        {
            let end = decimal(&mut room, 3, number);
            assert_eq!(room[3..end], *number.to_string().as_bytes());
            let end = hex(&mut room, 3, number);
            assert_eq!(room[3..end], *format!("{number:x}").as_bytes());
        }
    }

    #[test]
    fn the_longest_line_fits_and_all_are_those_that_scripts_are_told() {
        let mut sheet = Sheet::default();
        let mut paper = Paper::default();
        for number in [0, 7, 8, 1 << 20, 10, u64::MAX >> 16, u64::MAX] {
            for (act, flags) in Act::ALL.into_iter().flat_map(|act| (0..16).map(move |flags| (act, flags))) {
                let range = Range::new(number, number);
                let note = Note { connection: number, id: number, act, flags, range };
                let mut text = Text::default();
                note.line().append_text(&mut text, |out| note.say(out));
                let before = paper.len();
                paper.put(|room| sheet.line(room, SECOND, &note));
                assert_eq!(paper.text()[before + TIME..], text.0);
                assert!(text.0.len() + TIME < LONGEST - 16);
            }
        }
    }

    #[test]
    fn paper_grows_with_what_is_written() {
        let mut paper = Paper::default();
        let long = vec![b'x'; LEAST * 3];
        paper.add(b"ab");
        paper.add(&long);
        paper.put(|room| put(room, 0, b"cd", 2));
        assert_eq!(*paper.text(), *[b"ab", &long[..], b"cd"].concat());
        paper.clear();
        assert_eq!((paper.text(), paper.len()), (&[][..], 0));
    }
}
