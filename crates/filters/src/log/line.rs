//! One line of the log, as text and as variables of a script.

use disk::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a line is about; what else it says is text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    act: &'static str,
    kind: Kind,
    connection: Option<u64>,
    id: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A request comes; a line with its outcome will follow.
    Enter,
    /// It is answered.
    Leave,
    /// There is but this one line.
    Print,
}

impl Line {
    /// For something that happens at once.
    pub(super) fn alone(act: &'static str) -> Line {
        Line { act, kind: Kind::Print, connection: None, id: None }
    }

    /// For a request that comes.
    pub(super) fn enter(act: &'static str, id: u64) -> Line {
        Line { act, kind: Kind::Enter, connection: None, id: Some(id) }
    }

    /// For the same request, answered.
    pub(super) fn leave(self) -> Line {
        Line { kind: Kind::Leave, ..self }
    }

    /// Of this connection.
    pub(super) fn on(self, connection: u64) -> Line {
        Line { connection: Some(connection), ..self }
    }

    /// Appends `connection=1 ...Read id=1 return=0` and a newline.
    #[inline]
    pub(super) fn append_text(self, out: &mut Text, what: impl Fn(&mut Text) -> &mut Text) {
        if let Some(connection) = self.connection {
            out.str("connection=").decimal(connection).str(" ");
        }
        if self.kind == Kind::Leave {
            out.str("...");
        }
        out.str(self.act);
        if let Some(id) = self.id {
            out.str(" id=").decimal(id);
        }
        let before = out.0.len();
        out.str(" ");
        what(out);
        if out.0.len() == before + 1 {
            out.0.pop();
        }
        out.str(if self.kind == Kind::Enter { " ...\n" } else { "\n" });
    }

    /// The assignments of the variables that a script finds, each on its line.
    pub(super) fn variables(self, what: impl Fn(&mut Text) -> &mut Text) -> String {
        let mut out = Text::default();
        out.str("act=").str(self.act).str("\n");
        if let Some(connection) = self.connection {
            out.str("connection=").decimal(connection).str("\n");
        }
        let kind = ["ENTER", "LEAVE", "PRINT"][self.kind as usize];
        out.str("type=").str(kind).str("\n");
        if let Some(id) = self.id {
            out.str("id=").decimal(id).str("\n");
        }
        let before = out.0.len();
        what(&mut out);
        if out.0.len() > before {
            out.str("\n");
        }
        String::from_utf8_lossy(&out.0).into_owned()
    }
}

/// Text that grows. A line is made for every request and its answer, and the machinery of `format!` would take as long
/// as the request.
#[derive(Default)]
pub(super) struct Text(pub(super) Vec<u8>);

impl Text {
    #[inline]
    pub(super) fn str(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    #[inline]
    pub(super) fn decimal(&mut self, number: u64) -> &mut Self {
        let mut digits = [b'0'; 20];
        let (mut at, mut rest) = (digits.len(), number);
        // Two at a time, and by a constant, which costs no division.
        while rest >= 100 {
            at -= 2;
            digits[at..at + 2].copy_from_slice(pair(rest % 100));
            rest /= 100;
        }
        at -= 2;
        digits[at..at + 2].copy_from_slice(pair(rest));
        at += usize::from(rest < 10);
        self.0.extend_from_slice(&digits[at..]);
        self
    }

    /// Below a million, with six digits.
    #[inline]
    fn six_digits(&mut self, number: u32) -> &mut Self {
        let mut digits = [0; 6];
        for (part, pairs) in
            digits.chunks_exact_mut(2).zip([number / 10_000, number / 100 % 100, number % 100])
        {
            part.copy_from_slice(pair(pairs.into()));
        }
        self.0.extend_from_slice(&digits);
        self
    }

    /// As `0x1f`.
    #[inline]
    pub(super) fn hex(&mut self, number: u64) -> &mut Self {
        // Each half byte spread to a byte of its own, so that all become digits at once.
        let spread = |half: u32| {
            let x = u64::from(half);
            let x = (x | x << 16) & 0x0000_FFFF_0000_FFFF;
            let x = (x | x << 8) & 0x00FF_00FF_00FF_00FF;
            let x = (x | x << 4) & 0x0F0F_0F0F_0F0F_0F0F;
            // 1 in each byte that is a letter.
            let letters = ((x + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
            (x + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
        };
        let mut digits = [0; 16];
        digits[..8].copy_from_slice(&spread((number >> 32) as u32));
        digits[8..].copy_from_slice(&spread(number as u32));
        let first = (number.leading_zeros() / 4).min(15) as usize;
        self.str("0x").0.extend_from_slice(&digits[first..]);
        self
    }

    /// As `offset=0x0 count=0x1000`.
    #[inline]
    pub(super) fn range(&mut self, range: Range) -> &mut Self {
        self.str("offset=").hex(range.start).str(" count=").hex(range.len)
    }

    /// As ` fua=1`.
    #[inline]
    pub(super) fn switch(&mut self, name: &str, on: bool) -> &mut Self {
        self.str(" ").str(name).str(if on { "=1" } else { "=0" })
    }
}

/// The two digits of a number below 100.
#[inline]
fn pair(number: u64) -> &'static [u8] {
    let at = number as usize * 2;
    &PAIRS[at..at + 2]
}

const PAIRS: [u8; 200] = {
    let mut pairs = [0; 200];
    let mut n = 0;
    while n < 100 {
        pairs[n * 2] = b'0' + (n / 10) as u8;
        pairs[n * 2 + 1] = b'0' + (n % 10) as u8;
        n += 1;
    }
    pairs
};

/// 1 or 0.
pub(super) fn switch(on: bool) -> u8 {
    on.into()
}

/// A text as a shell reads it: as it stands where that is safe, else in quotes. Control characters would break the
/// line, so they are escaped as bash does in `$'...'`.
pub(super) fn quoted(text: &str) -> String {
    use std::fmt::Write;
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:,@%+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    let ansi = text.chars().any(char::is_control);
    let mut out = String::from(if ansi { "$'" } else { "\"" });
    for c in text.chars() {
        match c {
            c if c.is_control() => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(out, "\\{byte:03o}");
                }
            }
            '\\' => out.push_str("\\\\"),
            '\'' if ansi => out.push_str("\\'"),
            '"' | '$' | '`' if !ansi => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out.push(if ansi { '\'' } else { '"' });
    out
}

/// The time in UTC, `2026-11-21 00:00:10.676932 `, made anew only as far as it changed.
#[derive(Default)]
pub(super) struct Clock {
    second: Option<u64>,
    text: String,
}

impl Clock {
    /// Appends the time now and a blank.
    pub(super) fn append(&mut self, out: &mut Text) {
        self.append_at(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), out);
    }

    fn append_at(&mut self, now: Duration, out: &mut Text) {
        let second = now.as_secs();
        if self.second != Some(second) {
            let (days, rest) = (second / 86400, second % 86400);
            let (year, month, day) = date(days);
            let (hour, minute, sec) = (rest / 3600, rest / 60 % 60, rest % 60);
            self.text = format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{sec:02}.");
            self.second = Some(second);
        }
        out.str(&self.text).six_digits(now.subsec_micros()).str(" ");
    }
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

    #[test]
    fn times_are_written_as_dates() {
        let mut clock = Clock::default();
        let mut at = |micros| {
            let mut out = Text::default();
            clock.append_at(Duration::from_micros(micros), &mut out);
            String::from_utf8(out.0).unwrap()
        };
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
        for number in [9, 10, 99, 100, 101, 999, 1000, 4096, u64::MAX / 2, u64::MAX].into_iter().chain(powers)
        {
            let mut out = Text::default();
            out.decimal(number).str(" ").hex(number);
            assert_eq!(String::from_utf8(out.0).unwrap(), format!("{number} {number:#x}"));
        }
    }

    #[test]
    fn texts_are_quoted_as_shells_read_them() {
        for (text, expected) in [
            ("", r#""""#),
            ("x", "x"),
            ("a/b_1", "a/b_1"),
            ("a b'\"c", r#""a b'\"c""#),
            ("$(rm) `x` \\", r#""\$(rm) \`x\` \\""#),
            ("x\ny'", r"$'x\012y\''"),
        ] {
            assert_eq!(quoted(text), expected);
            let echo = format!("x={}; printf %s \"$x\"", quoted(text));
            let said = std::process::Command::new("bash").arg("-c").arg(echo).output().unwrap().stdout;
            assert_eq!(String::from_utf8(said).unwrap(), text);
        }
    }
}
