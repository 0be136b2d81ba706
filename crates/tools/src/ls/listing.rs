//! The lines of a listing, as text or JSON.

use crate::info::json::quote;
use inspect::{File, Kind, calendar::Moment};
use std::io::{self, Write};

/// A name, and what stands beside it.
pub(crate) struct Row {
    pub(crate) name: Vec<u8>,
    /// `None` where only names are wanted.
    pub(crate) file: Option<File>,
    /// Of a link.
    pub(crate) target: Option<Vec<u8>>,
}

/// What is being written.
pub(crate) struct Listing<W> {
    pub(crate) out: W,
    pub(crate) json: bool,
    pub(crate) long: bool,
    pub(crate) human: bool,
    /// Write question marks for control characters.
    pub(crate) plain: bool,
    pub(crate) begun: bool,
}

impl<W: Write> Listing<W> {
    /// A directory under its path, or some files.
    pub(crate) fn section(&mut self, path: Option<&[u8]>, rows: Vec<Row>) -> io::Result<()> {
        if self.json {
            return self.json_section(path, &rows);
        }
        if self.begun {
            writeln!(self.out)?;
        }
        self.begun = true;
        if let Some(path) = path {
            self.name(path)?;
            writeln!(self.out, ":")?;
        }
        let cells: Vec<Option<[String; 6]>> = rows
            .iter()
            .map(|row| row.file.as_ref().filter(|_| self.long).map(|file| self.cells(file)))
            .collect();
        let width =
            |column: usize| cells.iter().flatten().map(|cells| cells[column].len()).max().unwrap_or(0);
        let widths = [1, 2, 3, 4].map(width);
        for (row, cells) in rows.iter().zip(cells) {
            if let Some([mode, links, uid, gid, size, time]) = cells {
                let [l, u, g, s] = widths;
                write!(self.out, "{mode} {links:>l$} {uid:>u$} {gid:>g$} {size:>s$} {time} ")?;
            }
            self.name(&row.name)?;
            if let Some(target) = row.target.as_ref().filter(|_| self.long) {
                write!(self.out, " -> ")?;
                self.name(target)?;
            }
            writeln!(self.out)?;
        }
        Ok(())
    }

    /// Mode, links, owner, group, size and time.
    fn cells(&self, file: &File) -> [String; 6] {
        let size = match file.kind {
            Kind::Character(major, minor) | Kind::Block(major, minor) => format!("{major}, {minor}"),
            _ if self.human => human(file.size),
            _ => file.size.to_string(),
        };
        [
            mode(file),
            file.links.to_string(),
            file.uid.to_string(),
            file.gid.to_string(),
            size,
            time(file, ' ', false),
        ]
    }

    fn name(&mut self, name: &[u8]) -> io::Result<()> {
        if !self.plain {
            return self.out.write_all(name);
        }
        let text: String =
            String::from_utf8_lossy(name).chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        self.out.write_all(text.as_bytes())
    }

    fn json_section(&mut self, path: Option<&[u8]>, rows: &[Row]) -> io::Result<()> {
        write!(self.out, "{}", if self.begun { ",\n" } else { "{ \"listings\": [\n" })?;
        self.begun = true;
        let path = path.map_or(String::new(), |path| format!("\"path\": {}, ", text(path)));
        write!(self.out, "{{ {path}\"entries\": [")?;
        for (number, row) in rows.iter().enumerate() {
            write!(self.out, "{}{}", if number > 0 { ",\n" } else { "\n" }, json(row))?;
        }
        write!(self.out, "\n] }}")
    }

    /// All is said.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        if self.json {
            writeln!(self.out, "{}", if self.begun { "\n] }" } else { "{ \"listings\": [] }" })?;
        }
        self.out.flush()
    }
}

/// A name as a JSON string: what is not UTF-8 is replaced.
fn text(name: &[u8]) -> String {
    quote(&String::from_utf8_lossy(name))
}

fn json(row: &Row) -> String {
    let mut fields = vec![format!("\"name\": {}", text(&row.name))];
    if std::str::from_utf8(&row.name).is_err() {
        let hex: String = row.name.iter().map(|b| format!("{b:02x}")).collect();
        fields.push(format!("\"name-bytes\": \"{hex}\""));
    }
    if let Some(file) = &row.file {
        fields.push(format!("\"type\": \"{}\"", file.kind.word()));
        fields.push(format!("\"mode\": \"{:04o}\"", file.permissions));
        for (key, value) in [
            ("inode", file.id),
            ("links", file.links.into()),
            ("uid", file.uid.into()),
            ("gid", file.gid.into()),
            ("size", file.size),
        ] {
            fields.push(format!("\"{key}\": {value}"));
        }
        if let Kind::Character(major, minor) | Kind::Block(major, minor) = file.kind {
            fields.push(format!("\"major\": {major}, \"minor\": {minor}"));
        }
        fields.push(format!("\"modified\": \"{}\"", time(file, 'T', true)));
    }
    if let Some(target) = &row.target {
        fields.push(format!("\"target\": {}", text(target)));
    }
    format!("{{ {} }}", fields.join(", "))
}

/// `drwxr-xr-x`.
fn mode(file: &File) -> String {
    let mut out = String::from(file.kind.letter());
    let bits = file.permissions;
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let of = bits >> shift;
        out.push(if of & 4 != 0 { 'r' } else { '-' });
        out.push(if of & 2 != 0 { 'w' } else { '-' });
        out.push(match (of & 1 != 0, bits & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    out
}

/// In UTC: the disk's owner may live anywhere.
fn time(file: &File, between: char, seconds: bool) -> String {
    let Moment { year, month, day, hour, minute, second } = Moment::from_unix(file.modified.seconds);
    let tail = if seconds { format!(":{second:02}Z") } else { String::new() };
    format!("{year:04}-{month:02}-{day:02}{between}{hour:02}:{minute:02}{tail}")
}

/// A size as `ls -h` rounds it, upwards: `512`, `1.1K`, `23M`.
pub(crate) fn human(bytes: u64) -> String {
    let mut unit = 1u64;
    for suffix in ["", "K", "M", "G", "T", "P"] {
        // Of the unit, in tenths, rounded up.
        let tenths = (u128::from(bytes) * 10).div_ceil(unit.into());
        match tenths {
            _ if suffix.is_empty() && bytes < 1024 => return bytes.to_string(),
            _ if suffix.is_empty() => {}
            0..100 => return format!("{}.{}{suffix}", tenths / 10, tenths % 10),
            _ if bytes.div_ceil(unit) < 1024 => return format!("{}{suffix}", bytes.div_ceil(unit)),
            _ => {}
        }
        unit <<= 10;
    }
    format!("{}E", bytes.div_ceil(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_as_ls_does() {
        for (bytes, text) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.0K"),
            (1025, "1.1K"),
            (10239, "10K"),
            (10241, "11K"),
            (1 << 20, "1.0M"),
            ((1 << 20) - 1, "1.0M"),
            (u64::MAX, "16E"),
        ] {
            assert_eq!(human(bytes), text, "{bytes}");
        }
    }
}
