//! GUIDs as GPT keeps them.

use params::{Kind, Value, Wrong};
use std::fmt;

/// A globally unique id, in the byte order of a GPT: the first three groups are little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guid(
    /// In this order.
    pub [u8; 16],
);

/// Which byte of a GUID each two digits of its text are.
const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];

impl Guid {
    /// The type of partitions with a file system of Linux: `0FC63DAF-8483-4772-8E79-3D69D8477DE4`.
    pub const LINUX: Guid = Guid([
        0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4,
    ]);

    /// A GUID that follows from two random numbers, marked as one that was made so (version 4).
    pub fn from_random(high: u64, low: u64) -> Guid {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&high.to_le_bytes());
        bytes[8..].copy_from_slice(&low.to_le_bytes());
        bytes[7] = bytes[7] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Guid(bytes)
    }

    /// From the form of 8-4-4-4-12 hexadecimal digits, in braces or not.
    pub fn from_text(text: &str) -> Option<Guid> {
        let text = text.strip_prefix('{').map_or(Some(text), |rest| rest.strip_suffix('}'))?;
        let groups: Vec<&str> = text.split('-').collect();
        if groups.iter().map(|group| group.len()).ne([8, 4, 4, 4, 12]) {
            return None;
        }
        let digits: Vec<u32> = groups.concat().chars().map(|c| c.to_digit(16)).collect::<Option<_>>()?;
        let mut bytes = [0; 16];
        for (pair, place) in digits.chunks_exact(2).zip(ORDER) {
            bytes[place] = (pair[0] * 16 + pair[1]) as u8;
        }
        Some(Guid(bytes))
    }
}

impl Value for Guid {
    const KIND: Kind = Kind::Other("GUID");

    fn from_text(text: &str) -> Result<Guid, Wrong> {
        Guid::from_text(text).ok_or_else(|| "not a GUID such as 0FC63DAF-8483-4772-8E79-3D69D8477DE4".into())
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (count, place) in ORDER.into_iter().enumerate() {
            if [4, 6, 8, 10].contains(&count) {
                f.write_str("-")?;
            }
            write!(f, "{:02X}", self.0[place])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guids_are_read_in_both_forms_and_lie_in_the_order_of_a_gpt() {
        let linux = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";
        assert_eq!(Guid::from_text(linux), Some(Guid::LINUX));
        assert_eq!(Guid::from_text(&format!("{{{}}}", linux.to_lowercase())), Some(Guid::LINUX));
        assert_eq!(Guid::LINUX.to_string(), linux);
        for wrong in ["", "{", "{}", "0FC63DAF84834772", &linux[1..], &linux.replace('F', "G"), "é-0-0-0-0"]
        {
            assert_eq!(Guid::from_text(wrong), None, "{wrong}");
        }
    }
}
