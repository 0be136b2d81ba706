//! Request headers of both styles, and the payload of BLOCK_STATUS.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::command::BlockStatusPayload;
use proto::{HeaderStyle, Request};

fuzz_target!(|bytes: &[u8]| {
    for style in [HeaderStyle::Compact, HeaderStyle::Extended] {
        // A stream of requests, as a server reads them.
        let mut rest = bytes;
        while let Ok(Some(request)) = Request::decode(style, rest) {
            let mut again = Vec::new();
            request.encode_into(style, &mut again);
            assert_eq!(again, rest[..style.request_len()]);
            assert!(request.payload_len(style) <= request.length);
            let _ = request.flags.without(request.command.valid_flags()).to_string();
            rest = &rest[style.request_len()..];
        }
    }
    if let Ok(payload) = BlockStatusPayload::decode(bytes) {
        let mut again = Vec::new();
        payload.encode_into(&mut again);
        assert_eq!(again, bytes);
    }
});
