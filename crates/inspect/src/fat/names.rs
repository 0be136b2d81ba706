//! Names: short ones of eight and three letters, and long ones, in pieces before the short one.

use crate::bytes::{byte, le16, part};

/// What the upper half of the code page of old PCs, 437, stands for.
const UPPER: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

fn decode(bytes: &[u8]) -> String {
    let one = |b: &u8| match b {
        0..128 => char::from(*b),
        _ => UPPER.chars().nth(usize::from(b - 128)).unwrap_or('\u{fffd}'),
    };
    bytes.iter().map(one).collect::<String>().trim_end_matches(' ').to_string()
}

/// A label, of which not all need be letters.
pub(super) fn label(field: &[u8]) -> String {
    decode(field).trim_end_matches('\0').to_string()
}

/// A short name. Windows keeps in two bits that the base or the extension is lower case.
pub(super) fn short(field: &[u8], bits: u8) -> String {
    let mut field = field.to_vec();
    // The first letter has a stand-in where it would say "deleted".
    if let Some(first @ 0x05) = field.first_mut() {
        *first = 0xe5;
    }
    let (base, extension) = (decode(part(&field, 0, 8)), decode(part(&field, 8, 3)));
    let case = |text: String, bit: u8| if bits & bit != 0 { text.to_lowercase() } else { text };
    match extension.as_str() {
        "" => case(base, 8),
        _ => format!("{}.{}", case(base, 8), case(extension, 16)),
    }
}

/// The pieces of a long name, as far as they came: the last one first.
#[derive(Default)]
pub(super) struct LongName {
    units: Vec<u16>,
    /// The number of the piece that came last, and the checksum of the short name that all must have.
    last: Option<(u8, u8)>,
}

impl LongName {
    pub(super) fn add(&mut self, entry: &[u8]) {
        let (order, checksum) = (byte(entry, 0), byte(entry, 13));
        let number = order & 0x3f;
        if order & 0x40 != 0 {
            *self = LongName::default();
        } else if self.last != Some((number + 1, checksum)) {
            // A piece that belongs to nothing.
            *self = LongName::default();
            return;
        }
        // Names have at most 255 units, in pieces of 13.
        if !(1..=20).contains(&number) {
            *self = LongName::default();
            return;
        }
        let fields = [(1, 5), (14, 6), (28, 2)];
        let piece = fields.iter().flat_map(|(at, count)| (0..*count).map(move |n| le16(entry, at + 2 * n)));
        self.units.splice(0..0, piece);
        self.last = Some((number, checksum));
    }

    /// The name, if all of it came, for this short name.
    pub(super) fn of(self, short: &[u8]) -> Option<String> {
        let checksum = short.iter().fold(0u8, |sum, b| sum.rotate_right(1).wrapping_add(*b));
        if self.last != Some((1, checksum)) {
            return None;
        }
        let end = self.units.iter().position(|unit| *unit == 0).unwrap_or(self.units.len());
        Some(String::from_utf16_lossy(&self.units[..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_have_a_dot_and_the_case_that_windows_keeps() {
        assert_eq!(short(b"README  TXT", 0), "README.TXT");
        assert_eq!(short(b"README  TXT", 8), "readme.TXT");
        assert_eq!(short(b"README  TXT", 24), "readme.txt");
        assert_eq!(short(b"\x05TEST     ", 0), "σTEST");
        assert_eq!(label(b"NO NAME    "), "NO NAME");
        assert_eq!(UPPER.chars().count(), 128);
    }

    #[test]
    fn a_long_name_counts_only_whole_and_for_its_short_name() {
        let short = b"LONGNA~1TXT";
        let checksum = short.iter().fold(0u8, |sum, b| sum.rotate_right(1).wrapping_add(*b));
        let piece = |order: u8, text: &str| {
            let mut entry = [0u8; 32];
            (entry[0], entry[11], entry[13]) = (order, 0x0f, checksum);
            let places = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
            for (at, unit) in places.into_iter().zip(text.encode_utf16().chain([0])) {
                entry[at..at + 2].copy_from_slice(&unit.to_le_bytes());
            }
            entry
        };
        let mut long = LongName::default();
        long.add(&piece(0x42, "e.txt"));
        long.add(&piece(1, "A long nämé, "));
        assert_eq!(long.of(short).as_deref(), Some("A long nämé, e.txt"));
        let mut long = LongName::default();
        long.add(&piece(0x43, "e.txt"));
        long.add(&piece(1, "A long nämé, "));
        assert_eq!(long.of(short), None);
        let mut long = LongName::default();
        long.add(&piece(0x41, "x"));
        assert_eq!(long.of(b"OTHER   TXT"), None);
    }
}
