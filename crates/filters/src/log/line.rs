//! One line of the log, as text and as variables of a script.

use disk::Range;

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

/// Text that grows.
#[derive(Default)]
pub(super) struct Text(pub(super) Vec<u8>);

impl Text {
    pub(super) fn str(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    pub(super) fn decimal(&mut self, number: u64) -> &mut Self {
        self.written(format_args!("{number}"))
    }

    /// As `0x1f`.
    pub(super) fn hex(&mut self, number: u64) -> &mut Self {
        self.written(format_args!("{number:#x}"))
    }

    fn written(&mut self, what: std::fmt::Arguments<'_>) -> &mut Self {
        // A vector takes everything.
        let _ = std::io::Write::write_fmt(&mut self.0, what);
        self
    }

    /// As `offset=0x0 count=0x1000`.
    pub(super) fn range(&mut self, range: Range) -> &mut Self {
        self.str("offset=").hex(range.start).str(" count=").hex(range.len)
    }

    /// As ` fua=1`.
    pub(super) fn switch(&mut self, name: &str, on: bool) -> &mut Self {
        self.str(" ").str(name).str(if on { "=1" } else { "=0" })
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

#[cfg(test)]
mod tests {
    use super::*;

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
