use proptest::prelude::*;

use super::*;

/// A write of 0x1000 bytes with FUA, as it stands on the wire, put down by hand.
const COMPACT_WRITE: [u8; 28] = [
    0x25, 0x60, 0x95, 0x13, // magic
    0x00, 0x01, // flags: FUA
    0x00, 0x01, // type: WRITE
    0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, // cookie
    0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x02, 0x00, // offset
    0x00, 0x00, 0x10, 0x00, // length
];

/// A fast WRITE_ZEROES of 2^40 bytes.
const EXTENDED_ZEROES: [u8; 32] = [
    0x21, 0xe4, 0x1c, 0x71, // magic
    0x00, 0x10, // flags: FAST_ZERO
    0x00, 0x06, // type: WRITE_ZEROES
    0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, // cookie
    0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x02, 0x00, // offset
    0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, // length
];

fn write() -> Request {
    Request {
        flags: CommandFlags::FUA,
        command: Command::Write,
        cookie: 0x1122_3344_5566_7788,
        offset: 0x1_0000_0200,
        length: 0x1000,
    }
}

#[test]
fn headers_have_the_bytes_of_the_specification() {
    assert_eq!(write().encode_compact(), COMPACT_WRITE);
    assert_eq!(Request::decode(HeaderStyle::Compact, &COMPACT_WRITE), Ok(Some(write())));

    let zeroes =
        Request { flags: CommandFlags::FAST_ZERO, command: Command::WriteZeroes, length: 1 << 40, ..write() };
    assert_eq!(zeroes.encode_extended(), EXTENDED_ZEROES);
    assert_eq!(Request::decode(HeaderStyle::Extended, &EXTENDED_ZEROES), Ok(Some(zeroes)));
}

#[test]
fn a_header_that_is_cut_short_asks_for_more() {
    for cut in 0..28 {
        assert_eq!(Request::decode(HeaderStyle::Compact, &COMPACT_WRITE[..cut]), Ok(None));
    }
    assert_eq!(Request::decode(HeaderStyle::Extended, &EXTENDED_ZEROES[..31]), Ok(None));
}

#[test]
fn the_other_styles_magic_is_an_error_that_reads_as_a_sentence() {
    let error = Request::decode(HeaderStyle::Compact, &EXTENDED_ZEROES).unwrap_err();
    assert_eq!(error.to_string(), "expected a request, but its magic number is 0x21e41c71");
    assert!(Request::decode(HeaderStyle::Extended, &[COMPACT_WRITE, COMPACT_WRITE].concat()).is_err());
}

#[test]
fn payload_follows_every_write_and_an_extended_request_with_the_flag() {
    let read = Request { command: Command::Read, ..write() };
    assert_eq!(write().payload_len(HeaderStyle::Compact), 0x1000);
    assert_eq!(read.payload_len(HeaderStyle::Compact), 0);
    assert_eq!(write().payload_len(HeaderStyle::Extended), 0x1000);
    assert_eq!(read.payload_len(HeaderStyle::Extended), 0);
    let flagged = Request { flags: CommandFlags::PAYLOAD_LEN, ..read };
    assert_eq!(flagged.payload_len(HeaderStyle::Extended), 0x1000);
    assert_eq!(flagged.payload_len(HeaderStyle::Compact), 0);
}

#[test]
fn each_command_knows_its_flags() {
    let all = CommandFlags::ALL;
    assert_eq!(all.without(Command::Flush.valid_flags()), all.without(CommandFlags::FUA));
    assert!(Command::Read.valid_flags().has(CommandFlags::DF));
    assert!(Command::WriteZeroes.valid_flags().has(CommandFlags::FAST_ZERO | CommandFlags::NO_HOLE));
    assert!(!Command::Trim.valid_flags().has_any(CommandFlags::PAYLOAD_LEN));
}

#[test]
fn a_block_status_payload_names_each_context_once() {
    let payload = BlockStatusPayload { length: 1 << 33, contexts: vec![2, 1] };
    let mut bytes = Vec::new();
    payload.encode_into(&mut bytes);
    assert_eq!(bytes, [0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1]);
    assert_eq!(BlockStatusPayload::decode(&bytes), Ok(payload));
    assert!(BlockStatusPayload::decode(&bytes[..15]).is_err());
    assert!(BlockStatusPayload::decode(&bytes[..7]).is_err());
    bytes[15] = 2;
    let error = BlockStatusPayload::decode(&bytes).unwrap_err();
    assert_eq!(error.to_string(), "BLOCK_STATUS payload: names context 2 twice");
    assert!(BlockStatusPayload::decode(&vec![0; 8 + 4 * (CONTEXTS_MAX + 1)]).is_err());
}

proptest! {
    #[test]
    fn requests_come_back_as_they_were(flags: u16, kind: u16, cookie: u64, offset: u64, length: u64, short: u32) {
        let long = Request { flags: CommandFlags(flags), command: Command::from_wire(kind), cookie, offset, length };
        prop_assert_eq!(long.command.to_wire(), kind);
        prop_assert_eq!(Request::decode_extended(&long.encode_extended()), Ok(long));
        let short = Request { length: short.into(), ..long };
        prop_assert_eq!(Request::decode_compact(&short.encode_compact()), Ok(short));
        let mut out = vec![7];
        short.encode_into(HeaderStyle::Compact, &mut out);
        prop_assert_eq!(&out[1..], short.encode_compact());
    }

    #[test]
    fn no_bytes_make_the_decoders_panic(bytes: Vec<u8>) {
        let _ = Request::decode(HeaderStyle::Compact, &bytes);
        let _ = Request::decode(HeaderStyle::Extended, &bytes);
        let _ = BlockStatusPayload::decode(&bytes);
    }
}
