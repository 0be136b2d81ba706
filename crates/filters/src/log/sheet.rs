//! The lines of notes, which are most of all lines: put together on one sheet that keeps what seldom changes, by copies of
//! fixed lengths. The machinery of `format!`, or a text that grows, would take as long as the request.

use super::notes::{Act, Note};

/// Where a line is put together. Its beginning is the time in UTC, as `2026-11-21 00:00:10.676932 `.
pub(super) struct Sheet {
    line: [u8; LONGEST],
    second: Option<u64>,
    /// Of which connection a line says that it is, and where that ends.
    connection: Option<u64>,
    behind_connection: usize,
}

/// No line is longer, not even with what copies of fixed lengths write behind its end.
const LONGEST: usize = 256;
/// Where the fraction of a second begins, and what follows the time.
const FRACTION: usize = 20;
const TIME: usize = 27;

impl Default for Sheet {
    fn default() -> Sheet {
        Sheet { line: [b' '; LONGEST], second: None, connection: None, behind_connection: TIME }
    }
}

impl Sheet {
    /// A time since 1970, in nanoseconds, and a blank.
    #[inline]
    pub(super) fn time(&mut self, nanos: u64) -> &[u8] {
        let second = nanos / 1_000_000_000;
        if self.second != Some(second) {
            self.turn(second);
        }
        let digits = (eight_digits((nanos % 1_000_000_000 / 1000) as u32) >> 16) + ZEROES;
        self.line[FRACTION..FRACTION + 6].copy_from_slice(&digits.to_le_bytes()[..6]);
        &self.line[..TIME]
    }

    /// A note's line, which begins with this time, with its newline.
    #[inline]
    pub(super) fn line(&mut self, nanos: u64, note: &Note) -> &[u8] {
        self.time(nanos);
        if self.connection != Some(note.connection) {
            let end = self.put(TIME, b"connection=     ", 11);
            let end = self.decimal(end, note.connection);
            self.behind_connection = self.put(end, b" ", 1);
            self.connection = Some(note.connection);
        }
        let mut end = self.behind_connection;
        if note.is_answer() {
            end = self.put(end, b"... ", 3);
        }
        let (name, len) = NAMES[note.act as usize];
        end = self.put(end, name, len);
        end = self.decimal(end, note.id);
        if note.is_answer() {
            end = self.put(end, b" return=0\n      ", 10);
            return &self.line[..end];
        }
        if note.act != Act::Flush {
            end = self.put(end, b" offset=0x      ", 10);
            end = self.hex(end, note.range.start);
            end = self.put(end, b" count=0x       ", 9);
            end = self.hex(end, note.range.len);
        }
        for (name, on) in note.switches() {
            end = self.put(end, name, name.len());
            end = self.put(end, if on { b"=1" } else { b"=0" }, 2);
        }
        end = self.put(end, b" ...\n   ", 5);
        &self.line[..end]
    }

    /// Puts some bytes there, of which the first `len` count.
    #[inline]
    fn put(&mut self, at: usize, bytes: &[u8], len: usize) -> usize {
        self.line[at..at + bytes.len()].copy_from_slice(bytes);
        at + len
    }

    #[inline]
    fn decimal(&mut self, at: usize, number: u64) -> usize {
        if number >= EIGHT {
            let end = self.decimal_large(at, number / EIGHT);
            let digits = eight_digits((number % EIGHT) as u32) + ZEROES;
            return self.put(end, &digits.to_le_bytes(), 8);
        }
        let digits = eight_digits(number as u32);
        // What is 0 stands first; one digit always stays.
        let zeroes = (digits.trailing_zeros() / 8).min(7);
        self.put(at, &((digits >> (zeroes * 8)) + ZEROES).to_le_bytes(), 8 - zeroes as usize)
    }

    #[cold]
    fn decimal_large(&mut self, at: usize, number: u64) -> usize {
        self.decimal(at, number)
    }

    #[inline]
    fn hex(&mut self, at: usize, number: u64) -> usize {
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
        self.put(at, &spread((number >> 32) as u32), 8);
        self.put(at + 8, &spread(number as u32), 8) - zeroes as usize
    }

    #[cold]
    fn turn(&mut self, second: u64) {
        let (days, rest) = (second / 86400, second % 86400);
        let (year, month, day) = date(days);
        let (hour, minute, sec) = (rest / 3600, rest / 60 % 60, rest % 60);
        // 2^64 nanoseconds end in 2554, so years have four digits.
        let text = format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{sec:02}.");
        self.line[..FRACTION].copy_from_slice(text.as_bytes());
        self.second = Some(second);
    }
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
        let mut at = |micros: u64| String::from_utf8(sheet.time(micros * 1000).to_vec()).unwrap();
        assert_eq!(at(0), "1970-01-01 00:00:00.000000 ");
        assert_eq!(at(951_782_399_000_001), "2000-02-28 23:59:59.000001 ");
        assert_eq!(at(951_782_400_999_999), "2000-02-29 00:00:00.999999 ");
        assert_eq!(at(951_868_800_000_000), "2000-03-01 00:00:00.000000 ");
        assert_eq!(at(1_795_219_210_676_932), "2026-11-21 00:00:10.676932 ");
        assert_eq!(at(4_107_542_399_000_000), "2100-02-28 23:59:59.000000 ");
        assert_eq!(at(4_107_542_400_000_000), "2100-03-01 00:00:00.000000 ");
    }

    #[test]
    fn numbers_are_written_as_format_does() {
        let powers = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, 0x0123_4567_89AB_CDEF >> bit]);
        let mut sheet = Sheet::default();
        for number in [9, 10, 99, 100, 101, 999, 1000, 4096, u64::MAX / 2, u64::MAX].into_iter().chain(powers)
        {
            let end = sheet.decimal(3, number);
            assert_eq!(sheet.line[3..end], *number.to_string().as_bytes());
            let end = sheet.hex(3, number);
            assert_eq!(sheet.line[3..end], *format!("{number:x}").as_bytes());
        }
    }

    #[test]
    fn the_longest_line_fits_and_all_are_those_that_scripts_are_told() {
        let mut sheet = Sheet::default();
        for number in [0, 7, 1 << 20, u64::MAX >> 16, u64::MAX] {
            for (act, flags) in Act::ALL.into_iter().flat_map(|act| (0..16).map(move |flags| (act, flags))) {
                let range = Range::new(number, number);
                let note = Note { time: 0, connection: number, id: number, act, flags, range };
                let mut text = Text::default();
                note.line().append_text(&mut text, |out| note.say(out));
                assert_eq!(sheet.line(1_000_000_000, &note)[TIME..], text.0);
                assert!(text.0.len() + TIME < LONGEST - 16);
            }
        }
    }
}
