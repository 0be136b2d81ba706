//! The data of options, and replies to options.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::option::{
    InfoRequest, MetaContextRequest, OptionHeader, OptionReply, OptionReplyHeader, ReplyType,
};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some(header)) = OptionHeader::decode(bytes) {
        assert_eq!(header.encode(), bytes[..OptionHeader::LEN]);
    }
    if let Ok(request) = MetaContextRequest::decode(bytes) {
        assert_eq!(request.encode(), bytes);
    }
    if let Ok(request) = InfoRequest::decode(bytes) {
        // Unknown information types are left out, and the order is not kept.
        assert_eq!(InfoRequest::decode(&request.encode()), Ok(request));
    }
    for kind in
        [ReplyType::ACK, ReplyType::SERVER, ReplyType::INFO, ReplyType::META_CONTEXT, ReplyType::ERR_POLICY]
    {
        let _ = OptionReply::decode(kind, bytes);
    }
    // A stream of replies.
    let mut rest = bytes;
    while let Ok(Some(header)) = OptionReplyHeader::decode(rest) {
        assert_eq!(header.encode(), rest[..OptionReplyHeader::LEN]);
        rest = &rest[OptionReplyHeader::LEN..];
        let Some((data, behind)) = rest.split_at_checked(header.length as usize) else { return };
        rest = behind;
        if let Ok(reply) = OptionReply::decode(header.reply, data) {
            let mut again = Vec::new();
            reply.encode_into(header.option, &mut again);
            let decoded = OptionReply::decode(header.reply, &again[OptionReplyHeader::LEN..]);
            match (&reply, &decoded) {
                // A message in a broken encoding may grow when it is mended, and is cut again.
                (OptionReply::Error { .. }, Ok(OptionReply::Error { .. })) => {}
                _ => assert_eq!(decoded, Ok(reply)),
            }
        }
    }
});
