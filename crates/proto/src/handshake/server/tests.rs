//! A server against clients that err, lie or are very old.

use proptest::prelude::*;

use super::*;
use crate::handshake::ExportInfo;
use crate::handshake::tests::Shop;
use crate::option::{OptionReplyHeader, put_option};

const FIXED: [u8; 4] = [0, 0, 0, 3];

/// A client that sends these options; the types of the replies to them, with their messages, and the error that ended it.
fn answers(policy: Policy, options: &[(OptionType, &[u8])]) -> (Vec<(ReplyType, String)>, Option<String>) {
    let mut shop = Shop::new(policy);
    let mut bytes = FIXED.to_vec();
    for (option, data) in options {
        put_option(&mut bytes, *option, data);
    }
    let out = shop.exchange(&bytes);
    (replies(&out[18..]), shop.error.map(|error| error.to_string()))
}

fn replies(mut bytes: &[u8]) -> Vec<(ReplyType, String)> {
    let mut replies = Vec::new();
    while let Ok(Some(header)) = OptionReplyHeader::decode(bytes) {
        let (data, rest) = bytes[OptionReplyHeader::LEN..].split_at(header.length as usize);
        let words = if header.reply.is_error() { data } else { b"" };
        replies.push((header.reply, String::from_utf8_lossy(words).into_owned()));
        bytes = rest;
    }
    replies
}

fn types(options: &[(OptionType, &[u8])]) -> Vec<ReplyType> {
    let (replies, error) = answers(Policy::default(), options);
    assert_eq!(error, None);
    replies.into_iter().map(|(reply, _)| reply).collect()
}

#[test]
fn the_greeting_has_the_bytes_of_the_specification() {
    let mut machine = ServerHandshake::new(Policy::default());
    assert_eq!(machine.take_output(), *b"NBDMAGICIHAVEOPT\0\x03");
    let mask = HandshakeFlags::NO_ZEROES;
    let mut machine = ServerHandshake::new(Policy { handshake_flags: mask, ..Default::default() });
    assert_eq!(machine.take_output(), *b"NBDMAGICIHAVEOPT\0\x02");
}

#[test]
fn export_name_is_answered_with_or_without_zeroes() {
    for (flags, length) in [([0, 0, 0, 3], 10), ([0, 0, 0, 1], 134), ([0, 0, 0, 0], 134), ([0, 0, 0, 2], 10)]
    {
        let mut shop = Shop::new(Policy::default());
        let mut bytes = flags.to_vec();
        put_option(&mut bytes, OptionType::EXPORT_NAME, b"");
        let out = &shop.exchange(&bytes)[18..];
        assert_eq!(out.len(), length);
        assert_eq!(out[..10], [0, 0, 0, 0, 0x40, 0, 0, 0, 0, 5]);
        assert!(out[10..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn unknown_options_are_refused_and_their_data_is_read_away() {
    let long = vec![7; OPTION_DATA_MAX as usize];
    assert_eq!(
        types(&[
            (OptionType(77), b"whatever"),
            (OptionType::PEEK_EXPORT, &long),
            (OptionType::STRUCTURED_REPLY, b""),
        ]),
        [ReplyType::ERR_UNSUP, ReplyType::ERR_UNSUP, ReplyType::ACK]
    );
}

#[test]
fn data_where_none_belongs_is_invalid_but_not_the_end() {
    let options = [
        OptionType::LIST,
        OptionType::STARTTLS,
        OptionType::STRUCTURED_REPLY,
        OptionType::EXTENDED_HEADERS,
        OptionType::INFO,
        OptionType::GO,
    ];
    for option in options {
        assert_eq!(
            types(&[(option, b"x"), (OptionType::ABORT, b"x")]),
            [ReplyType::ERR_INVALID, ReplyType::ACK]
        );
    }
}

#[test]
fn meta_contexts_need_structured_replies_or_extended_headers_first() {
    let all = b"\0\0\0\0\0\0\0\0";
    assert_eq!(
        types(&[(OptionType::LIST_META_CONTEXT, all), (OptionType::SET_META_CONTEXT, all)]),
        [ReplyType::ERR_INVALID; 2]
    );
    for first in [OptionType::STRUCTURED_REPLY, OptionType::EXTENDED_HEADERS] {
        let context = ReplyType::META_CONTEXT;
        assert_eq!(
            types(&[(first, b""), (OptionType::LIST_META_CONTEXT, all), (OptionType::SET_META_CONTEXT, all)]),
            [ReplyType::ACK, context, context, ReplyType::ACK, ReplyType::ACK]
        );
    }
}

#[test]
fn five_queries_of_4096_bytes_fit_one_option() {
    let queries: Vec<_> = (0..5).map(|n| format!("x-{n}:{}", "q".repeat(4092))).collect();
    let data = MetaContextRequest { export: "e".repeat(4096), queries }.encode();
    assert_eq!(
        types(&[(OptionType::STRUCTURED_REPLY, b""), (OptionType::SET_META_CONTEXT, &data)]),
        [ReplyType::ACK, ReplyType::ACK]
    );
}

#[test]
fn a_failed_selection_drops_the_one_before() {
    let mut shop = Shop::new(Policy::default());
    let request = MetaContextRequest { export: "main".into(), queries: vec!["base:allocation".into()] };
    let mut bytes = FIXED.to_vec();
    put_option(&mut bytes, OptionType::EXTENDED_HEADERS, b"");
    put_option(&mut bytes, OptionType::SET_META_CONTEXT, &request.encode());
    put_option(&mut bytes, OptionType::SET_META_CONTEXT, b"broken");
    put_option(&mut bytes, OptionType::GO, b"\0\0\0\x04main\0\0");
    shop.exchange(&bytes);
    assert_eq!(shop.ready.unwrap().contexts, []);
}

#[test]
fn names_of_4096_bytes_work_and_longer_ones_do_not() {
    let info = |length| InfoRequest { export: "x".repeat(length), infos: Infos::NONE }.encode();
    assert_eq!(
        types(&[(OptionType::INFO, &info(4096)), (OptionType::INFO, &info(4097))]),
        // The shop has no such export; but it was asked.
        [ReplyType::ERR_UNKNOWN, ReplyType::ERR_TOO_BIG]
    );
    let (_, error) = answers(Policy::default(), &[(OptionType::EXPORT_NAME, &[b'x'; 4097])]);
    assert_eq!(error.unwrap(), "export name of 4097 bytes is longer than the limit of 4096 bytes");
}

#[test]
fn an_oversized_option_is_read_away_or_ends_the_session() {
    let long = vec![0; OPTION_DATA_MAX as usize + 1];
    assert_eq!(
        types(&[(OptionType::GO, &long), (OptionType(99), &long), (OptionType::ABORT, b"")]),
        [ReplyType::ERR_TOO_BIG, ReplyType::ERR_TOO_BIG, ReplyType::ACK]
    );
    let (_, error) = answers(Policy::default(), &[(OptionType::EXPORT_NAME, &long)]);
    assert_eq!(error.unwrap(), "the client sent the option EXPORT_NAME with 65537 bytes of data");

    let mut shop = Shop::new(Policy::default());
    let mut bytes = FIXED.to_vec();
    bytes.extend_from_slice(&OptionHeader { option: OptionType::GO, length: u32::MAX }.encode());
    shop.exchange(&bytes);
    assert_eq!(
        shop.error.unwrap().to_string(),
        "the client sent the option GO with 4294967295 bytes of data"
    );
}

#[test]
fn a_client_that_never_ends_is_sent_away() {
    let policy = Policy { options_max: 3, ..Default::default() };
    let (replies, error) = answers(policy, &[(OptionType::LIST, &b"x"[..]); 4]);
    assert_eq!((replies.len(), error.as_deref()), (3, Some("the client sent more than 3 options")));
}

#[test]
fn extended_headers_rule_out_structured_replies_and_export_name() {
    let (replies, error) = answers(
        Policy::default(),
        &[
            (OptionType::STRUCTURED_REPLY, b""),
            (OptionType::EXTENDED_HEADERS, b""),
            (OptionType::STRUCTURED_REPLY, b""),
            (OptionType::EXPORT_NAME, b""),
        ],
    );
    let replies: Vec<_> = replies.into_iter().map(|(reply, _)| reply).collect();
    assert_eq!(replies, [ReplyType::ACK, ReplyType::ACK, ReplyType::ERR_EXT_HEADER_REQD]);
    assert!(error.unwrap().ends_with("EXPORT_NAME cannot follow extended headers"));
}

#[test]
fn without_tls_nothing_is_told_where_it_is_required() {
    let policy = Policy { tls: Tls::Require, ..Default::default() };
    let empty = b"\0\0\0\0\0\0";
    let options: [(OptionType, &[u8]); 6] = [
        (OptionType::LIST, b""),
        (OptionType::INFO, empty),
        (OptionType::GO, empty),
        (OptionType::STRUCTURED_REPLY, b""),
        (OptionType(77), b""),
        (OptionType::EXPORT_NAME, b""),
    ];
    let (replies, error) = answers(policy, &options);
    assert!(replies.iter().all(|(reply, _)| *reply == ReplyType::ERR_TLS_REQD) && replies.len() == 5);
    assert!(error.unwrap().ends_with("nothing is answered before STARTTLS"));
}

#[test]
fn bytes_smuggled_in_behind_starttls_end_the_session() {
    let policy = Policy { tls: Tls::Allow, ..Default::default() };
    let (replies, error) = answers(policy.clone(), &[(OptionType::STARTTLS, b""), (OptionType::LIST, b"")]);
    assert_eq!(replies, []);
    assert_eq!(error.unwrap(), "the client sent more after STARTTLS without waiting for the answer");

    let mut machine = ServerHandshake::new(policy);
    machine.feed(&FIXED);
    machine.feed(&OptionHeader { option: OptionType::STARTTLS, length: 0 }.encode());
    assert_eq!(machine.next(), Ok(Event::StartTls));
    machine.feed(b"late");
    machine.tls_started().unwrap();
    assert!(machine.next().is_err());
}

#[test]
fn tls_forgets_what_was_negotiated_in_the_clear() {
    let mut shop = Shop::new(Policy { tls: Tls::Allow, ..Default::default() });
    shop.exchange(&FIXED);
    for (option, data) in [
        (OptionType::EXTENDED_HEADERS, &b""[..]),
        (OptionType::STARTTLS, b""),
        (OptionType::GO, b"\0\0\0\0\0\0"),
    ] {
        let mut bytes = Vec::new();
        put_option(&mut bytes, option, data);
        shop.exchange(&bytes);
    }
    let ready = shop.ready.unwrap();
    assert_eq!((ready.tls, ready.replies), (true, ReplyStyle::Simple));
}

#[test]
fn block_sizes_come_unasked_where_requests_could_be_too_fine() {
    for (minimum, count) in [(1, 2), (512, 3)] {
        let mut machine = ServerHandshake::new(Policy::default());
        machine.take_output();
        let mut bytes = FIXED.to_vec();
        put_option(&mut bytes, OptionType::INFO, b"\0\0\0\0\0\0");
        machine.feed(&bytes);
        machine.next().unwrap();
        let block_sizes = Some(crate::option::BlockSizes { minimum, preferred: 4096, maximum: u32::MAX });
        machine.export(ExportInfo { block_sizes, ..Default::default() }).unwrap();
        assert_eq!(replies(&machine.take_output()).len(), count);
    }
}

#[test]
fn a_server_that_is_shutting_down_says_so() {
    let mut machine = ServerHandshake::new(Policy::default());
    machine.take_output();
    machine.shut_down();
    let mut bytes = FIXED.to_vec();
    put_option(&mut bytes, OptionType::LIST, b"");
    put_option(&mut bytes, OptionType::ABORT, b"");
    machine.feed(&bytes);
    assert_eq!(machine.next(), Ok(Event::Aborted));
    let types: Vec<_> = replies(&machine.take_output()).into_iter().map(|(reply, _)| reply).collect();
    assert_eq!(types, [ReplyType::ERR_SHUTDOWN, ReplyType::ACK]);
}

#[test]
fn strangers_are_told_apart_by_one_clear_sentence() {
    let sentence = |bytes: &[u8]| {
        let mut shop = Shop::new(Policy::default());
        shop.exchange(bytes);
        let error = shop.error.unwrap();
        // The same error again, however often it is asked for.
        assert_eq!(shop.machine.next(), Err(error.clone()));
        error.to_string()
    };
    assert_eq!(sentence(b"GET / HTTP/1.0\r\n"), "the client set flags that it was not offered: 0x47455420");
    assert_eq!(
        sentence(b"\0\0\0\x03GARBAGE!"),
        "expected an option, but its magic number is 0x4741524241474521"
    );
    assert_eq!(
        sentence(b"\0\0\0\x02IHAVEOPT\0\0\0\x03\0\0\0\0"),
        "the client sent the option LIST without having agreed to fixed newstyle"
    );
}

proptest! {
    #[test]
    fn no_bytes_make_the_machine_panic(
        parts in proptest::collection::vec((0u32..14, proptest::collection::vec(any::<u8>(), 0..40)), 0..12),
        tail: Vec<u8>, flags in 0u8..4, cut in 1usize..50,
    ) {
        let mut shop = Shop::new(Policy { tls: Tls::Allow, ..Default::default() });
        let mut bytes = vec![0, 0, 0, flags];
        for (option, data) in &parts {
            put_option(&mut bytes, OptionType(*option), data);
        }
        bytes.extend_from_slice(&tail);
        for part in bytes.chunks(cut) {
            shop.exchange(part);
        }
    }
}
