//! Reply headers of all styles, and the payloads of chunks. The first byte is the style.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::reply::Payload;
use proto::{ReplyHeader, ReplyStyle, ReplyTo};

fuzz_target!(|bytes: &[u8]| {
    let Some((style, mut rest)) = bytes.split_first() else { return };
    let style = [ReplyStyle::Simple, ReplyStyle::Structured, ReplyStyle::Extended][usize::from(style % 3)];
    // A stream of replies, as a client reads them.
    while let Ok(Some((header, used))) = ReplyHeader::decode(style, rest) {
        rest = &rest[used..];
        let ReplyHeader::Chunk(chunk) = header else { continue };
        let Some(payload) = usize::try_from(chunk.length).ok().and_then(|length| rest.get(..length)) else {
            return;
        };
        let checked = chunk.check();
        let decoded = Payload::decode(chunk.kind, payload);
        // What the length alone rules out must not be decoded; the other way round is the payload's own business.
        if checked.is_err() && chunk.length < 4096 && !chunk.kind.is_error() {
            let is_last = chunk.is_done();
            assert!(decoded.is_err() || !is_last, "{chunk:?} {decoded:?}");
        }
        if let Ok(payload) = decoded {
            written_again(style, &payload);
        }
        rest = &rest[payload.len()..];
    }
});

/// A server that says the same must be understood the same.
fn written_again(style: ReplyStyle, payload: &Payload<'_>) {
    let to = ReplyTo { style, cookie: 1, offset: 2 };
    let mut out = Vec::new();
    match payload {
        Payload::None => to.done(&mut out),
        Payload::Data { offset, data } => {
            to.data(&mut out, true, *offset, data.len() as u32);
            out.extend_from_slice(data);
        }
        Payload::Hole { offset, length } => to.hole(&mut out, true, *offset, *length),
        // Long extents and wide statuses are cut where descriptors have 32 bits.
        Payload::BlockStatus { .. } if style == ReplyStyle::Structured => return,
        Payload::BlockStatus { context, extents } => to.block_status(&mut out, true, *context, extents),
        Payload::Size(size) => to.size(&mut out, true, *size),
        Payload::Error(error) if error.message.len() > proto::limits::STRING_MAX => return,
        Payload::Error(error) => match error.offset {
            Some(at) => to.error_at(&mut out, true, error.errno, &error.message, at),
            None => to.error(&mut out, error.errno, &error.message),
        },
    }
    let Ok(Some((ReplyHeader::Chunk(header), used))) = ReplyHeader::decode(style, &out) else {
        panic!("{out:?}")
    };
    assert_eq!(Payload::decode(header.kind, &out[used..]).as_ref(), Ok(payload));
}
