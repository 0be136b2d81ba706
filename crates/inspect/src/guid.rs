//! GUIDs as GPT keeps them.

use std::fmt;

/// A globally unique id, in the byte order of a GPT: the first three groups are little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guid(pub [u8; 16]);

/// Which byte of a GUID each two digits of its text are.
const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];

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
    fn a_guid_reads_as_people_write_it() {
        let linux =
            [0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4];
        assert_eq!(Guid(linux).to_string(), "0FC63DAF-8483-4772-8E79-3D69D8477DE4");
    }
}
