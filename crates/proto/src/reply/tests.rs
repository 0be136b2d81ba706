use proptest::prelude::*;

use super::*;
use crate::errno::Errno;
use crate::limits::EXTENT_32_MAX;

const COOKIE: u64 = 0x1122_3344_5566_7788;

fn to(style: ReplyStyle) -> ReplyTo {
    ReplyTo { style, cookie: COOKIE, offset: 0x200 }
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// Splits a reply chunk and decodes both parts.
fn decoded(style: ReplyStyle, bytes: &[u8]) -> (ChunkHeader, Payload<'_>) {
    match ReplyHeader::decode(style, bytes).unwrap().unwrap() {
        (ReplyHeader::Chunk(header), used) => {
            header.check().unwrap();
            assert_eq!(header.length, bytes.len() as u64 - used as u64);
            (header, Payload::decode(header.kind, &bytes[used..]).unwrap())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn simple_replies_have_the_bytes_of_the_specification() {
    const OK: [u8; 16] = [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88];
    let simple = to(ReplyStyle::Simple);
    assert_eq!(written(|out| simple.done(out)), OK);
    assert_eq!(written(|out| simple.data(out, true, 0x200, 512)), OK);
    let mut failed = OK;
    failed[7] = 28;
    assert_eq!(written(|out| simple.error(out, Errno::ENOSPC, "unsaid")), failed);
    let reply = SimpleReply { error: Some(Errno::ENOSPC), cookie: COOKIE };
    for style in [ReplyStyle::Simple, ReplyStyle::Structured] {
        assert_eq!(ReplyHeader::decode(style, &failed), Ok(Some((ReplyHeader::Simple(reply), 16))));
    }
    assert!(ReplyHeader::decode(ReplyStyle::Extended, &failed).is_err());
}

#[test]
fn structured_chunks_have_the_bytes_of_the_specification() {
    let structured = to(ReplyStyle::Structured);
    let bytes = written(|out| structured.data(out, false, 0x200, 512));
    #[rustfmt::skip]
    assert_eq!(bytes, [
        0x66, 0x8e, 0x33, 0xef, // magic
        0, 0, // flags
        0, 1, // type: OFFSET_DATA
        0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, // cookie
        0, 0, 2, 8, // length
        0, 0, 0, 0, 0, 0, 2, 0, // the data's offset
    ]);
    let bytes = written(|out| structured.done(out));
    assert_eq!(bytes[4..8], [0, 1, 0, 0]);
    assert_eq!(bytes.len(), 20);
    let bytes = written(|out| structured.error(out, Errno::EIO, "disk on fire"));
    #[rustfmt::skip]
    assert_eq!(bytes[4..], [
        0, 1, 0x80, 1,
        0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88,
        0, 0, 0, 18,
        0, 0, 0, 5, 0, 12,
        b'd', b'i', b's', b'k', b' ', b'o', b'n', b' ', b'f', b'i', b'r', b'e',
    ]);
}

#[test]
fn extended_chunks_have_the_bytes_of_the_extension() {
    let extended = to(ReplyStyle::Extended);
    let bytes = written(|out| {
        extended.block_status(out, true, 1, &[Extent { length: 1 << 40, status: 3 }]);
    });
    #[rustfmt::skip]
    assert_eq!(bytes, [
        0x6e, 0x8a, 0x27, 0x8c, // magic
        0, 1, // flags: DONE
        0, 6, // type: BLOCK_STATUS_EXT
        0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, // cookie
        0, 0, 0, 0, 0, 0, 2, 0, // the request's offset
        0, 0, 0, 0, 0, 0, 0, 24, // length
        0, 0, 0, 1, // context
        0, 0, 0, 1, // one descriptor
        0, 0, 1, 0, 0, 0, 0, 0, // length
        0, 0, 0, 0, 0, 0, 0, 3, // status
    ]);
    let bytes = written(|out| extended.hole(out, true, 0x400, 0x1000));
    #[rustfmt::skip]
    assert_eq!(bytes[4..], [
        0, 1, 0, 2,
        0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88,
        0, 0, 0, 0, 0, 0, 2, 0,
        0, 0, 0, 0, 0, 0, 0, 12,
        0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0x10, 0,
    ]);
}

#[test]
fn what_a_server_writes_a_client_reads() {
    let extents = [Extent { length: 512, status: 0 }, Extent { length: 1024, status: 3 }];
    for style in [ReplyStyle::Structured, ReplyStyle::Extended] {
        let reply = to(style);
        let bytes = written(|out| reply.done(out));
        let (header, payload) = decoded(style, &bytes);
        assert!(header.is_done() && payload == Payload::None && header.cookie == COOKIE);

        let mut bytes = written(|out| reply.data(out, false, 0x200, 3));
        bytes.extend_from_slice(b"abc");
        let (header, payload) = decoded(style, &bytes);
        assert!(!header.is_done());
        assert_eq!(payload, Payload::Data { offset: 0x200, data: b"abc" });

        let bytes = written(|out| reply.hole(out, true, 0x400, 9));
        assert_eq!(decoded(style, &bytes).1, Payload::Hole { offset: 0x400, length: 9 });

        let bytes = written(|out| reply.block_status(out, true, 7, &extents));
        assert_eq!(decoded(style, &bytes).1, Payload::BlockStatus { context: 7, extents: extents.to_vec() });

        let bytes = written(|out| reply.error_at(out, true, Errno::EIO, "bad sector", 0x300));
        match decoded(style, &bytes).1 {
            Payload::Error(error) => {
                assert_eq!(
                    (error.errno, &*error.message, error.offset),
                    (Errno::EIO, "bad sector", Some(0x300))
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn long_extents_are_cut_and_end_a_structured_reply() {
    let extents = [
        Extent { length: 4096, status: 0 },
        Extent { length: 1 << 33, status: 3 },
        Extent { length: 4096, status: 0 },
    ];
    let bytes = written(|out| to(ReplyStyle::Structured).block_status(out, true, 1, &extents));
    let cut = vec![extents[0], Extent { length: EXTENT_32_MAX.into(), status: 3 }];
    assert_eq!(decoded(ReplyStyle::Structured, &bytes).1, Payload::BlockStatus { context: 1, extents: cut });
}

#[test]
fn long_messages_are_cut_between_characters() {
    let bytes = written(|out| to(ReplyStyle::Structured).error(out, Errno::EIO, &"é".repeat(5000)));
    match decoded(ReplyStyle::Structured, &bytes).1 {
        Payload::Error(error) => assert_eq!(error.message, "é".repeat(2048)),
        other => panic!("{other:?}"),
    }
    assert_eq!(truncate(&format!("x{}", "é".repeat(3000)), 4096).len(), 4095);
}

#[test]
fn impossible_lengths_are_noticed_before_room_is_made() {
    let header = |kind, length, flags| {
        ChunkHeader { flags, kind, cookie: 0, offset: 0, length }.check().map_err(|error| error.to_string())
    };
    let last = ReplyFlags::DONE;
    for (kind, bad, good) in [
        (ChunkType::None, vec![1], vec![0]),
        (ChunkType::OffsetData, vec![0, 8, 9 + (64 << 20)], vec![9, 8 + (64 << 20)]),
        (ChunkType::OffsetHole, vec![0, 11, 13], vec![12]),
        (ChunkType::BlockStatus, vec![0, 4, 13, 1 << 30], vec![12, 20]),
        (ChunkType::BlockStatusExt, vec![0, 8, 25, 1 << 30], vec![24, 40]),
        (ChunkType::Error, vec![0, 5, 1 << 20], vec![6, 100]),
        (ChunkType::ErrorOffset, vec![0, 13, 1 << 20], vec![14, 100]),
        (ChunkType::Unknown(0x8009), vec![1 << 20, u64::MAX], vec![6]),
        (ChunkType::Unknown(9), vec![0, 100], vec![]),
    ] {
        for length in bad {
            assert!(header(kind, length, last).is_err(), "{kind:?} {length}");
        }
        for length in good {
            assert_eq!(header(kind, length, last), Ok(()), "{kind:?} {length}");
        }
    }
    assert_eq!(
        header(ChunkType::None, 0, ReplyFlags::NONE).unwrap_err(),
        "reply chunk: None with a payload of 0 bytes: must be the last of its reply"
    );
}

#[test]
fn broken_payloads_are_refused() {
    for (kind, bytes) in [
        (ChunkType::None, &[0][..]),
        (ChunkType::OffsetData, &[0; 8]),
        (ChunkType::OffsetHole, &[0; 12]),
        (ChunkType::OffsetHole, &[1; 13]),
        (ChunkType::BlockStatus, &[1; 4]),
        (ChunkType::BlockStatus, &[0; 12]),
        (ChunkType::BlockStatus, &[1; 13]),
        (ChunkType::BlockStatusExt, &[0; 8]),
        (
            ChunkType::BlockStatusExt,
            &[0, 0, 0, 1, 0, 0, 0, 2, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        (ChunkType::BlockStatusExt, &[0xff; 24]),
        (ChunkType::Error, &[0, 0, 0, 0, 0, 0]),
        (ChunkType::Error, &[0, 0, 0, 5, 0, 1]),
        (ChunkType::Error, &[0, 0, 0, 5, 0, 0, 0]),
        (ChunkType::ErrorOffset, &[0, 0, 0, 5, 0, 0, 0]),
        (ChunkType::Unknown(3), &[]),
    ] {
        assert!(Payload::decode(kind, bytes).is_err(), "{kind:?} {bytes:?}");
    }
}

#[test]
fn an_error_of_an_unknown_type_is_still_an_error() {
    let bytes = [0, 0, 0, 5, 0, 2, b'h', 0xff, 9, 9, 9];
    match Payload::decode(ChunkType::from_wire(0x8123), &bytes).unwrap() {
        Payload::Error(error) => {
            assert_eq!((error.errno, &*error.message, error.offset), (Errno::EIO, "h\u{fffd}", None));
        }
        other => panic!("{other:?}"),
    }
}

fn any_extents(length_max: u64, status_max: u64) -> impl Strategy<Value = Vec<Extent>> {
    let extent = (1..=length_max, 0..=status_max).prop_map(|(length, status)| Extent { length, status });
    proptest::collection::vec(extent, 1..40)
}

proptest! {
    #[test]
    fn headers_come_back_as_they_were(flags: u16, kind: u16, cookie: u64, offset: u64, length: u64, short: u32) {
        let header = ChunkHeader {
            flags: ReplyFlags(flags), kind: ChunkType::from_wire(kind), cookie, offset, length,
        };
        prop_assert_eq!(header.kind.to_wire(), kind);
        let bytes = header.encode_extended();
        prop_assert_eq!(
            ReplyHeader::decode(ReplyStyle::Extended, &bytes), Ok(Some((ReplyHeader::Chunk(header), 32)))
        );
        prop_assert_eq!(ReplyHeader::decode(ReplyStyle::Extended, &bytes[..31]), Ok(None));
        let header = ChunkHeader { offset: 0, length: short.into(), ..header };
        let bytes = header.encode_structured();
        prop_assert_eq!(
            ReplyHeader::decode(ReplyStyle::Structured, &bytes), Ok(Some((ReplyHeader::Chunk(header), 20)))
        );
        prop_assert_eq!(ReplyHeader::decode(ReplyStyle::Structured, &bytes[..19]), Ok(None));
    }

    #[test]
    fn extents_come_back_as_they_were(
        context: u32,
        small in any_extents(EXTENT_32_MAX.into(), u32::MAX.into()),
        large in any_extents(u64::MAX, u64::MAX),
    ) {
        for (style, extents) in [(ReplyStyle::Structured, small), (ReplyStyle::Extended, large)] {
            let bytes = written(|out| to(style).block_status(out, true, context, &extents));
            prop_assert_eq!(decoded(style, &bytes).1, Payload::BlockStatus { context, extents });
        }
    }

    #[test]
    fn no_bytes_make_the_decoders_panic(kind: u16, bytes: Vec<u8>) {
        for style in [ReplyStyle::Simple, ReplyStyle::Structured, ReplyStyle::Extended] {
            if let Ok(Some((ReplyHeader::Chunk(header), _))) = ReplyHeader::decode(style, &bytes) {
                let _ = header.check();
            }
        }
        for kind in [0, 1, 2, 5, 6, 0x8001, 0x8002, kind] {
            let _ = Payload::decode(ChunkType::from_wire(kind), &bytes);
        }
    }
}
