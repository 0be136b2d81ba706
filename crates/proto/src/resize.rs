//! RESIZE, a proposed extension of the protocol: a client changes the size of an export, and others are told.
//!
//! No other program implements it yet and the proposal leaves numbers open, so those that were chosen here stand in this
//! one table. Everything is opt-in: a server sets [`SEND_RESIZE_BIT`] only where chunks were negotiated, and a client
//! that does not know the flag sees nothing of all this.
//!
//! * A RESIZE request without [`NOTIFY_BIT`] has the new size in its offset field and a length of 0. Its reply is one
//!   chunk of type [`REPLY_TYPE_RESIZE`], the last one, with the size that the export has now; or an error: EPERM (not
//!   allowed, or it would shrink while others use the export), EINVAL, EIO, ENOSPC, ESHUTDOWN.
//! * With [`NOTIFY_BIT`], offset and length are 0. Its reply has no end: a chunk of the same type, not the last one, with
//!   the present size at once and then with each new size. There is one such request per connection.
//! * Requests up to the present size are valid, whatever the size was in the handshake.

use crate::error::{Error, Fields, Result};

/// The transmission flag NBD_FLAG_SEND_RESIZE. (From the proposal.)
pub const SEND_RESIZE_BIT: u32 = 9;
/// The number of NBD_CMD_RESIZE. (From the proposal.)
pub const COMMAND: u16 = 8;
/// The command flag NBD_CMD_FLAG_RESIZE_NOTIFY. (Chosen here.)
pub const NOTIFY_BIT: u32 = 6;
/// The number of the chunk type NBD_REPLY_TYPE_RESIZE. (Chosen here.)
pub const REPLY_TYPE_RESIZE: u16 = 7;
/// The length of such a chunk's payload, in bytes: the size, a 64-bit integer.
pub const PAYLOAD_LEN: u64 = 8;
/// The largest size that an export can have, in bytes.
pub const SIZE_MAX: u64 = i64::MAX as u64;

/// Decodes the payload of a RESIZE chunk: the size, in bytes.
///
/// # Errors
/// It is not 8 bytes, or says a size that no export can have.
pub fn decode_size(bytes: &[u8]) -> Result<u64> {
    const OF: &str = "RESIZE chunk";
    let mut fields = Fields::new(bytes, OF);
    let size = fields.u64()?;
    fields.end()?;
    match size {
        ..=SIZE_MAX => Ok(size),
        _ => Err(Error::invalid(OF, format!("says a size of {size} bytes"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ChunkType, Command, CommandFlags, HeaderStyle, ReplyHeader, ReplyStyle, ReplyTo, Request,
        TransmissionFlags, reply::Payload,
    };

    #[test]
    fn the_numbers_are_those_of_the_table_wherever_they_are_used() {
        assert_eq!(TransmissionFlags::SEND_RESIZE.0, 1 << 9);
        assert_eq!(Command::from_wire(8), Command::Resize);
        assert_eq!(Command::Resize.to_wire(), 8);
        assert_eq!(CommandFlags::RESIZE_NOTIFY.0, 1 << 6);
        assert_eq!(ChunkType::from_wire(7), ChunkType::Resize);
        assert_eq!(ChunkType::Resize.to_wire(), 7);
    }

    #[test]
    fn requests_make_the_round_trip_and_have_no_payload() {
        for style in [HeaderStyle::Compact, HeaderStyle::Extended] {
            for (flags, offset) in [(CommandFlags::NONE, 2048), (CommandFlags::RESIZE_NOTIFY, 0)] {
                let request = Request { flags, command: Command::Resize, cookie: 77, offset, length: 0 };
                let mut bytes = Vec::new();
                request.encode_into(style, &mut bytes);
                assert_eq!(Request::decode(style, &bytes), Ok(Some(request)));
                assert_eq!(request.payload_len(style), 0);
            }
        }
    }

    #[test]
    fn chunks_make_the_round_trip() {
        for style in [ReplyStyle::Structured, ReplyStyle::Extended] {
            for (done, size) in [(false, 0), (true, 2048), (true, SIZE_MAX)] {
                let mut bytes = Vec::new();
                ReplyTo { style, cookie: 5, offset: size }.size(&mut bytes, done, size);
                let Ok(Some((ReplyHeader::Chunk(chunk), at))) = ReplyHeader::decode(style, &bytes) else {
                    panic!("no chunk in {bytes:?}");
                };
                assert_eq!((chunk.kind, chunk.is_done(), chunk.cookie), (ChunkType::Resize, done, 5));
                assert_eq!(chunk.check(), Ok(()));
                assert_eq!(Payload::decode(chunk.kind, &bytes[at..]), Ok(Payload::Size(size)));
            }
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for bytes in [&[][..], &[0; 7], &[0; 9], &[0xff; 8], &(SIZE_MAX + 1).to_be_bytes()] {
            assert!(decode_size(bytes).is_err(), "{bytes:?}");
        }
    }
}
