//! The oldstyle handshake: the server speaks once, and that is all.

use crate::error::{Error, Result};
use crate::flags::TransmissionFlags;
use crate::option::{NBD_MAGIC, OLDSTYLE_MAGIC};

/// The size of the greeting in bytes.
pub const GREETING_LEN: usize = 152;

/// The whole handshake, as the server sends it.
pub fn greeting(size: u64, flags: TransmissionFlags) -> [u8; GREETING_LEN] {
    let mut out = [0; GREETING_LEN];
    out[..8].copy_from_slice(&NBD_MAGIC.to_be_bytes());
    out[8..16].copy_from_slice(&OLDSTYLE_MAGIC.to_be_bytes());
    out[16..24].copy_from_slice(&size.to_be_bytes());
    // The field is 32 bits wide; its upper half stands where newstyle has handshake flags, and must be zero.
    out[26..28].copy_from_slice(&(flags | TransmissionFlags::HAS_FLAGS).0.to_be_bytes());
    out
}

/// What follows the two magic numbers: the size in bytes and the flags.
///
/// # Errors
/// The upper half of the flags, which oldstyle servers must leave zero, is not.
pub fn decode_rest(rest: &[u8; GREETING_LEN - 16]) -> Result<(u64, TransmissionFlags)> {
    let [s0, s1, s2, s3, s4, s5, s6, s7, g0, g1, f0, f1, ..] = *rest;
    if (g0, g1) != (0, 0) {
        return Err(Error::invalid("oldstyle greeting", "sets handshake flags, which only newstyle has"));
    }
    Ok((
        u64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
        TransmissionFlags(u16::from_be_bytes([f0, f1])),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_is_152_bytes_with_size_and_flags_in_their_places() {
        let bytes = greeting(0x0102_0304_0506_0708, TransmissionFlags::SEND_FLUSH);
        assert_eq!(bytes[..16], *b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53");
        assert_eq!(bytes[16..28], [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 5]);
        assert!(bytes[28..].iter().all(|byte| *byte == 0));
        let rest = bytes[16..].try_into().unwrap();
        assert_eq!(decode_rest(rest).unwrap(), (0x0102_0304_0506_0708, TransmissionFlags(5)));
    }

    #[test]
    fn handshake_flags_in_an_oldstyle_greeting_are_refused() {
        let mut bytes = greeting(0, TransmissionFlags::NONE);
        bytes[25] = 1;
        assert!(decode_rest(bytes[16..].try_into().unwrap()).is_err());
    }
}
