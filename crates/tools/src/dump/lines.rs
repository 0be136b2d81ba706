//! Bytes as lines of sixteen: offset, hexadecimal, characters. Lines that repeat the one before become one mark.

use std::io::{self, Write};

/// Bytes in a line.
pub(crate) const WIDTH: usize = 16;

/// How the parts of a line look on a terminal.
mod paint {
    pub(super) const OFFSET: &str = "\x1b[22;32m";
    pub(super) const DIM: &str = "\x1b[22;90m";
    pub(super) const CODE: &str = "\x1b[1;34m";
    /// Letters and digits.
    pub(super) const TEXT: &str = "\x1b[1;31m";
    /// Other characters.
    pub(super) const SIGN: &str = "\x1b[1;35m";
    pub(super) const RESET: &str = "\x1b[0m";
}

/// Writes lines.
pub(crate) struct Lines<W> {
    out: W,
    colours: bool,
    /// Where the line being filled begins.
    at: u64,
    line: [u8; WIDTH],
    filled: usize,
    /// The line before it.
    last: Option<[u8; WIDTH]>,
    repeated: Repeated,
}

/// What follows the last line that was written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeated {
    Nothing,
    /// The same once more, which is not shown yet: at the end of the disk it is a line, elsewhere a mark.
    Once,
    /// A mark.
    Marked,
}

impl<W: Write> Lines<W> {
    /// The first byte is at `offset`.
    pub(crate) fn new(out: W, offset: u64, colours: bool) -> Lines<W> {
        Lines {
            out,
            colours,
            at: offset,
            line: [0; WIDTH],
            filled: 0,
            last: None,
            repeated: Repeated::Nothing,
        }
    }

    /// Bytes.
    pub(crate) fn bytes(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(WIDTH - self.filled));
            self.line[self.filled..][..now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
            self.end_line()?;
        }
        Ok(())
    }

    /// So many zero bytes; how many makes no difference to the time it takes.
    pub(crate) fn zeroes(&mut self, mut count: u64) -> io::Result<()> {
        // The rest of this line, and one whole line to repeat.
        let first = count.min((2 * WIDTH - self.filled) as u64);
        self.bytes(&[0; 2 * WIDTH][..first as usize])?;
        count -= first;
        let whole = count - count % WIDTH as u64;
        if whole > 0 {
            self.repeat(whole / WIDTH as u64)?;
            self.at += whole;
        }
        self.bytes(&[0; WIDTH][..(count - whole) as usize])
    }

    fn end_line(&mut self) -> io::Result<()> {
        if self.filled < WIDTH {
            return Ok(());
        }
        if self.last == Some(self.line) {
            self.repeat(1)?;
        } else {
            self.mark_held()?;
            self.write_line()?;
            self.last = Some(self.line);
            self.repeated = Repeated::Nothing;
        }
        self.at += WIDTH as u64;
        self.filled = 0;
        Ok(())
    }

    /// The last line comes so many times more.
    fn repeat(&mut self, times: u64) -> io::Result<()> {
        match self.repeated {
            Repeated::Nothing if times == 1 => self.repeated = Repeated::Once,
            Repeated::Nothing | Repeated::Once => self.mark()?,
            Repeated::Marked => {}
        }
        Ok(())
    }

    /// Another line follows.
    fn mark_held(&mut self) -> io::Result<()> {
        if self.repeated == Repeated::Once { self.mark() } else { Ok(()) }
    }

    fn mark(&mut self) -> io::Result<()> {
        self.repeated = Repeated::Marked;
        self.out.write_all(if self.colours { "☆\n" } else { "*\n" }.as_bytes())
    }

    /// The end. That of a `whole` disk is shown even where it repeats what came before.
    pub(crate) fn end(mut self, whole: bool) -> io::Result<()> {
        let repeats = self.repeated != Repeated::Nothing;
        if self.filled > 0 {
            self.line[self.filled..].fill(0);
            if self.last == Some(self.line) && !whole {
                self.repeat(2)?;
            } else {
                self.mark_held()?;
                self.write_line()?;
            }
        } else if whole && repeats {
            (self.at, self.filled) = (self.at - WIDTH as u64, WIDTH);
            self.line = self.last.unwrap_or_default();
            self.write_line()?;
        } else {
            self.mark_held()?;
        }
        self.out.flush()
    }

    fn write_line(&mut self) -> io::Result<()> {
        let line = &self.line[..self.filled];
        let text = if self.colours { coloured(self.at, line) } else { plain(self.at, line) };
        self.out.write_all(text.as_bytes())
    }
}

fn printable(byte: u8) -> bool {
    (b' '..=b'~').contains(&byte)
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Where in a line the digits of a byte stand, after the offset.
fn column(number: usize) -> usize {
    3 * number + usize::from(number >= WIDTH / 2)
}

fn plain(at: u64, line: &[u8]) -> String {
    let mut text = format!("{at:010x}: ").into_bytes();
    let digits = text.len();
    text.resize(digits + column(WIDTH), b' ');
    for (number, byte) in line.iter().enumerate() {
        let place = digits + column(number);
        text[place] = DIGITS[usize::from(byte >> 4)];
        text[place + 1] = DIGITS[usize::from(byte & 15)];
    }
    text.push(b'|');
    text.extend(line.iter().map(|byte| if printable(*byte) { *byte } else { b'.' }));
    text.resize(digits + column(WIDTH) + 1 + WIDTH, b' ');
    text.extend(b"|\n");
    text.into_iter().map(char::from).collect()
}

fn coloured(at: u64, line: &[u8]) -> String {
    use paint::{CODE, DIM, OFFSET, RESET, SIGN, TEXT};
    let mut text = format!("{OFFSET}{at:010x}{DIM}: ");
    for (number, byte) in line.iter().enumerate() {
        let paint = if *byte == 0 { DIM } else { CODE };
        text += &format!("{paint}{byte:02x} ");
        if number == WIDTH / 2 - 1 {
            text.push(' ');
        }
    }
    text += &format!("{DIM}{}│", " ".repeat(column(WIDTH) - column(line.len())));
    for byte in line {
        match char::from(*byte) {
            c if c.is_ascii_alphanumeric() => text += &format!("{TEXT}{c}"),
            c if printable(*byte) => text += &format!("{SIGN}{c}"),
            _ => text += &format!("{DIM}·"),
        }
    }
    text + &format!("{DIM}{}│\n{RESET}", " ".repeat(WIDTH - line.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dump(offset: u64, parts: &[Part]) -> String {
        let mut out = Vec::new();
        let mut lines = Lines::new(&mut out, offset, false);
        for part in parts {
            match part {
                Part::Bytes(bytes) => lines.bytes(bytes).unwrap(),
                Part::Zeroes(count) => lines.zeroes(*count).unwrap(),
            }
        }
        lines.end(true).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[derive(Clone, Debug)]
    enum Part {
        Bytes(Vec<u8>),
        Zeroes(u64),
    }

    #[test]
    fn a_line_shows_offset_codes_and_characters() {
        let text = dump(0, &[Part::Bytes(b"hello, world\n\xff~ !".to_vec())]);
        assert_eq!(
            text,
            "0000000000: 68 65 6c 6c 6f 2c 20 77  6f 72 6c 64 0a ff 7e 20 |hello, world..~ |\n\
             0000000010: 21                                               |!               |\n"
        );
    }

    #[test]
    fn repeated_lines_become_one_mark_but_the_last_is_shown() {
        let zero = "00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00 |................|\n";
        assert_eq!(
            dump(0, &[Part::Zeroes(1 << 60)]),
            format!("0000000000: {zero}*\nffffffffffffff0: {zero}")
        );
        assert_eq!(dump(0, &[Part::Zeroes(48)]), format!("0000000000: {zero}*\n0000000020: {zero}"));
        assert_eq!(dump(0, &[Part::Zeroes(32)]), format!("0000000000: {zero}0000000010: {zero}"));
        assert_eq!(dump(3, &[Part::Zeroes(16)]), format!("0000000003: {zero}"));
        assert_eq!(dump(0, &[]), "");
    }

    #[test]
    fn colours_say_what_can_be_printed() {
        let mut out = Vec::new();
        let mut lines = Lines::new(&mut out, 0, true);
        lines.bytes(b"a\0").unwrap();
        lines.zeroes(100).unwrap();
        lines.end(true).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("\x1b[1;34m61 ") && text.contains("\x1b[1;31ma") && text.contains('·'));
        assert!(text.contains("☆\n"), "{text}");
    }

    proptest! {
        /// Zeroes that are told look like zeroes that are there, however the disk is cut.
        #[test]
        fn telling_zeroes_is_the_same_as_showing_them(
            parts in proptest::collection::vec(
                prop_oneof![
                    proptest::collection::vec(0u8..2, 0..40).prop_map(Part::Bytes),
                    (0u64..100).prop_map(Part::Zeroes),
                ],
                0..12,
            ),
            offset in 0u64..100,
        ) {
            let shown: Vec<Part> = parts.iter().map(|part| match part {
                Part::Bytes(bytes) => Part::Bytes(bytes.clone()),
                Part::Zeroes(count) => Part::Bytes(vec![0; *count as usize]),
            }).collect();
            prop_assert_eq!(dump(offset, &parts), dump(offset, &shown));
        }
    }
}
