use proptest::prelude::*;

use super::*;
use crate::flags::TransmissionFlags;
use crate::limits::OPTION_REPLY_MAX;
use crate::meta_context::Context;

/// A GO for the export `a`, asking for the description and block sizes.
const GO: [u8; 27] = *b"IHAVEOPT\0\0\0\x07\0\0\0\x0b\0\0\0\x01a\0\x02\0\x02\0\x03";

#[test]
fn a_go_has_the_bytes_of_the_specification() {
    let request = InfoRequest { export: "a".into(), infos: Infos::DESCRIPTION | Infos::BLOCK_SIZE };
    let mut out = Vec::new();
    put_option(&mut out, OptionType::GO, &request.encode());
    assert_eq!(out, GO);
    assert_eq!(OptionHeader::decode(&GO), Ok(Some(OptionHeader { option: OptionType::GO, length: 11 })));
    assert_eq!(InfoRequest::decode(&GO[16..]), Ok(request));
}

#[test]
fn unknown_information_is_passed_over() {
    let data = [0, 0, 0, 0, 0, 3, 0, 1, 0, 0, 0x77, 0x77];
    assert_eq!(InfoRequest::decode(&data), Ok(InfoRequest { export: String::new(), infos: Infos::NAME }));
}

#[test]
fn replies_have_the_bytes_of_the_specification() {
    let mut out = Vec::new();
    let sizes = BlockSizes { minimum: 1, preferred: 4096, maximum: 32 << 20 };
    OptionReply::Info(Info::BlockSize(sizes)).encode_into(OptionType::GO, &mut out);
    assert_eq!(out[..8], [0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9]);
    assert_eq!(out[8..20], [0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 14]);
    assert_eq!(out[20..], [0, 3, 0, 0, 0, 1, 0, 0, 0x10, 0, 2, 0, 0, 0]);

    let mut out = Vec::new();
    let error = OptionReply::Error { error: ReplyType::ERR_UNKNOWN, message: "no".into() };
    error.encode_into(OptionType::INFO, &mut out);
    assert_eq!(out[8..], [0, 0, 0, 6, 0x80, 0, 0, 6, 0, 0, 0, 2, b'n', b'o']);

    let mut out = Vec::new();
    let entry = ExportEntry { name: "a".into(), description: "b c".into() };
    OptionReply::Server(entry).encode_into(OptionType::LIST, &mut out);
    assert_eq!(out[12..], *b"\0\0\0\x02\0\0\0\x08\0\0\0\x01ab c");
}

#[test]
fn wrong_magic_is_noticed_with_the_eighth_byte() {
    assert_eq!(OptionHeader::decode(b"GET / H"), Ok(None));
    let error = OptionHeader::decode(b"GET / HT").unwrap_err();
    assert_eq!(error.to_string(), "expected an option, but its magic number is 0x474554202f204854");
    assert!(OptionReplyHeader::decode(b"IHAVEOPT").is_err());
    assert_eq!(OptionReplyHeader::decode(&OPTION_REPLY_MAGIC.to_be_bytes()), Ok(None));
}

#[test]
fn names_end_at_4096_bytes() {
    let request = |length| InfoRequest { export: "x".repeat(length), infos: Infos::NONE };
    assert_eq!(InfoRequest::decode(&request(4096).encode()), Ok(request(4096)));
    let error = InfoRequest::decode(&request(4097).encode()).unwrap_err();
    assert_eq!(error.to_string(), "export name of 4097 bytes is longer than the limit of 4096 bytes");
    assert!(decode_export_name(&[b'x'; 4096]).is_ok() && decode_export_name(&[b'x'; 4097]).is_err());
    assert!(decode_export_name(b"a\0").is_err() && decode_export_name(&[0xff]).is_err());
}

#[test]
fn counts_and_lengths_that_lie_are_refused() {
    for data in [&b""[..], b"\0\0\0\x05abc\0\0", b"\0\0\0\0\0\x01", b"\0\0\0\0\0\0x", b"\xff\xff\xff\xff"] {
        assert!(InfoRequest::decode(data).is_err(), "{data:?}");
    }
    for data in [
        &b""[..],
        b"\0\0\0\0",
        b"\0\0\0\0\xff\xff\xff\xff",
        b"\0\0\0\0\0\0\0\0x",
        b"\0\0\0\0\0\0\0\x01\0\0\0\x09a",
    ] {
        assert!(MetaContextRequest::decode(data).is_err(), "{data:?}");
    }
    let mut header = OptionReplyHeader { option: OptionType::GO, reply: ReplyType::INFO, length: 4 };
    assert_eq!(OptionReplyHeader::decode(&header.encode()), Ok(Some(header)));
    header.length = OPTION_REPLY_MAX + 1;
    assert!(OptionReplyHeader::decode(&header.encode()).is_err());
}

#[test]
fn replies_of_the_wrong_form_are_refused_but_errors_are_read_as_well_as_can_be() {
    assert!(OptionReply::decode(ReplyType::ACK, b"x").is_err());
    assert!(OptionReply::decode(ReplyType::SERVER, b"\0\0\0\x02a").is_err());
    assert!(OptionReply::decode(ReplyType::INFO, b"\0\0\0").is_err());
    assert!(OptionReply::decode(ReplyType::META_CONTEXT, b"\0\0\0").is_err());
    assert!(OptionReply::decode(ReplyType(77), b"").is_err());
    let error = OptionReply::decode(ReplyType(0x8000_0077), b"\xffhm").unwrap();
    assert_eq!(error, OptionReply::Error { error: ReplyType(0x8000_0077), message: "\u{fffd}hm".into() });
    assert_eq!(Info::decode(b"\0\x09whatever"), Ok(Info::Unknown(InfoType(9))));
}

#[test]
fn refusals_read_as_sentences() {
    let refusal =
        |error, message: &str| Refusal { option: OptionType::GO, error, message: message.into() }.to_string();
    assert_eq!(
        refusal(ReplyType::ERR_UNKNOWN, "export “x” not found"),
        "the server refused GO: there is no such export: export “x” not found"
    );
    assert_eq!(
        refusal(ReplyType(0x8000_0099), ""),
        "the server refused GO: an error without a name (unknown 0x80000099)"
    );
}

#[test]
fn block_sizes_keep_to_the_specifications_relations() {
    let check = |minimum, preferred, maximum| BlockSizes { minimum, preferred, maximum }.check().is_ok();
    assert!(check(1, 4096, u32::MAX) && check(512, 512, 512 * 3) && check(65536, 65536, 65536));
    assert!(!check(0, 4096, 4096) && !check(3, 4096, 4096) && !check(131_072, 131_072, 131_072));
    assert!(!check(1, 256, 4096) && !check(4096, 512, 8192) && !check(1, 1000, 4096));
    assert!(!check(4096, 4096, 512) && !check(4096, 4096, 6000));
}

fn name() -> impl Strategy<Value = String> {
    "[^\0]{0,60}"
}

fn any_reply() -> impl Strategy<Value = OptionReply> {
    prop_oneof![
        Just(OptionReply::Ack),
        (name(), name())
            .prop_map(|(name, description)| OptionReply::Server(ExportEntry { name, description })),
        (any::<u32>(), name()).prop_map(|(id, name)| OptionReply::MetaContext(Context { id, name })),
        any::<(u64, u16)>().prop_map(|(size, flags)| {
            OptionReply::Info(Info::Export { size, flags: TransmissionFlags(flags) })
        }),
        name().prop_map(|name| OptionReply::Info(Info::Name(name))),
        name().prop_map(|text| OptionReply::Info(Info::Description(text))),
        any::<[u32; 3]>().prop_map(|[minimum, preferred, maximum]| {
            OptionReply::Info(Info::BlockSize(BlockSizes { minimum, preferred, maximum }))
        }),
        (1u32..99, name()).prop_map(|(number, message)| OptionReply::Error {
            error: ReplyType((1 << 31) | number),
            message
        }),
    ]
}

proptest! {
    #[test]
    fn requests_come_back_as_they_were(export in name(), infos in 0u16..8, queries: Vec<u8>, query in name()) {
        let request = InfoRequest { export: export.clone(), infos: Infos(infos << 1) };
        prop_assert_eq!(InfoRequest::decode(&request.encode()), Ok(request));
        let queries = queries.iter().map(|byte| format!("{query}:{byte}")).collect();
        let request = MetaContextRequest { export, queries };
        prop_assert_eq!(MetaContextRequest::decode(&request.encode()), Ok(request));
    }

    #[test]
    fn replies_come_back_as_they_were(option: u32, reply in any_reply()) {
        let mut out = Vec::new();
        reply.encode_into(OptionType(option), &mut out);
        let header = OptionReplyHeader::decode(&out).unwrap().unwrap();
        prop_assert_eq!(header.option, OptionType(option));
        prop_assert_eq!(header.length as usize, out.len() - OptionReplyHeader::LEN);
        prop_assert_eq!(OptionReply::decode(header.reply, &out[OptionReplyHeader::LEN..]), Ok(reply));
    }

    #[test]
    fn no_bytes_make_the_decoders_panic(kind: u32, bytes: Vec<u8>) {
        let _ = OptionHeader::decode(&bytes);
        let _ = OptionReplyHeader::decode(&bytes);
        let _ = InfoRequest::decode(&bytes);
        let _ = MetaContextRequest::decode(&bytes);
        for kind in [1, 2, 3, 4, kind] {
            let _ = OptionReply::decode(ReplyType(kind), &bytes);
        }
    }
}
