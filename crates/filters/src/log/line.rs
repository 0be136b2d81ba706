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
    pub(super) fn str(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    pub(super) fn decimal(&mut self, number: u64) -> &mut Self {
        self.digits(number, 10, 1)
    }

    /// As `0x1f`.
    pub(super) fn hex(&mut self, number: u64) -> &mut Self {
        self.str("0x").digits(number, 16, 1)
    }

    /// As `offset=0x0 count=0x1000`.
    pub(super) fn range(&mut self, range: Range) -> &mut Self {
        self.str("offset=").hex(range.start).str(" count=").hex(range.len)
    }

    /// As ` fua=1`.
    pub(super) fn switch(&mut self, name: &str, on: bool) -> &mut Self {
        self.str(" ").str(name).str(if on { "=1" } else { "=0" })
    }

    /// At least `width` digits.
    fn digits(&mut self, mut number: u64, base: u64, width: usize) -> &mut Self {
        let mut digits = [b'0'; 20];
        let mut at = digits.len();
        while number > 0 {
            at -= 1;
            digits[at] = b"0123456789abcdef"[(number % base) as usize];
            number /= base;
        }
        self.0.extend_from_slice(&digits[at.min(digits.len() - width)..]);
        self
    }
}

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
        out.str(&self.text).digits(now.subsec_micros().into(), 10, 6).str(" ");
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
        for number in [0, 1, 9, 10, 15, 16, 4096, u64::MAX / 2, u64::MAX] {
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
