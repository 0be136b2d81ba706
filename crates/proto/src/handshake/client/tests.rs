//! A client against servers that err, lie or are very old.

use proptest::prelude::*;

use super::*;
use crate::option::BlockSizes;

const NEWSTYLE: &[u8] = b"NBDMAGICIHAVEOPT\0\x03";

/// A client without ambitions, so that scripted servers are short.
fn plain() -> Wishes {
    Wishes { structured_replies: false, extended_headers: false, infos: Infos::NONE, ..Default::default() }
}

/// Feeds a whole scripted server.
fn hear(wishes: Wishes, script: &[u8]) -> (ClientHandshake, Result<Event>) {
    let mut machine = ClientHandshake::new(wishes);
    machine.feed(script);
    let outcome = machine.next();
    (machine, outcome)
}

fn sentence(wishes: Wishes, script: &[u8]) -> String {
    hear(wishes, script).1.unwrap_err().to_string()
}

fn with_replies(replies: &[(OptionType, OptionReply)]) -> Vec<u8> {
    let mut script = NEWSTYLE.to_vec();
    for (option, reply) in replies {
        reply.encode_into(*option, &mut script);
    }
    script
}

fn export() -> OptionReply {
    OptionReply::Info(Info::Export { size: 4096, flags: TransmissionFlags(1) })
}

fn refusal(error: ReplyType) -> OptionReply {
    OptionReply::Error { error, message: String::new() }
}

#[test]
fn an_oldstyle_server_is_understood() {
    let script = oldstyle::greeting(1 << 20, TransmissionFlags::READ_ONLY);
    let (mut machine, outcome) = hear(Wishes { opt_mode: true, ..plain() }, &script);
    let Ok(Event::Ready(negotiated)) = outcome else { panic!("{outcome:?}") };
    assert_eq!((negotiated.protocol, negotiated.info.size), (Protocol::Oldstyle, 1 << 20));
    assert_eq!(negotiated.info.flags, TransmissionFlags::HAS_FLAGS | TransmissionFlags::READ_ONLY);
    assert_eq!((machine.take_output().len(), machine.protocol()), (0, Protocol::Oldstyle));
    assert_eq!(
        sentence(Wishes { tls: Tls::Require, ..plain() }, &script),
        "TLS is required, but an oldstyle server cannot do it"
    );
}

#[test]
fn a_plain_go_has_the_bytes_of_the_specification() {
    let (mut machine, outcome) = hear(Wishes { export: "a".into(), ..plain() }, NEWSTYLE);
    assert_eq!(outcome, Ok(Event::NeedInput));
    assert_eq!(machine.take_output(), *b"\0\0\0\x03IHAVEOPT\0\0\0\x07\0\0\0\x07\0\0\0\x01a\0\0");
}

#[test]
fn a_server_without_go_is_asked_by_export_name() {
    let mut script = with_replies(&[(OptionType::GO, refusal(ReplyType::ERR_UNSUP))]);
    script.extend_from_slice(&[0, 0, 0, 0, 0, 0, 2, 0, 0, 3]);
    let (mut machine, outcome) = hear(Wishes { export: "a".into(), ..plain() }, &script);
    let Ok(Event::Ready(negotiated)) = outcome else { panic!("{outcome:?}") };
    assert_eq!((negotiated.info.size, negotiated.export.as_str()), (512, "a"));
    assert!(machine.take_output().ends_with(b"IHAVEOPT\0\0\0\x01\0\0\0\x01a"));
}

#[test]
fn after_extended_headers_a_server_must_know_go() {
    let script = with_replies(&[
        (OptionType::EXTENDED_HEADERS, OptionReply::Ack),
        (OptionType::GO, refusal(ReplyType::ERR_UNSUP)),
    ]);
    assert_eq!(
        sentence(Wishes { extended_headers: true, ..plain() }, &script),
        "the server refused GO: the option is not supported"
    );
}

#[test]
fn servers_that_break_the_rules_are_left_with_a_sentence() {
    for (script, why) in [
        (b"SSH-2.0-OpenSSH_9".to_vec(), "expected an NBD server, but its magic number is 0x5353482d322e302d"),
        (
            b"NBDMAGICNONSENSE".to_vec(),
            "expected a newstyle or oldstyle NBD server, but its magic number is 0x4e4f4e53454e5345",
        ),
        (
            with_replies(&[(OptionType::LIST, OptionReply::Ack)]),
            "the server answered the option LIST while GO was asked",
        ),
        (
            with_replies(&[(OptionType::GO, OptionReply::Ack)]),
            "the server accepted GO without telling the size of the export",
        ),
        (
            with_replies(&[(
                OptionType::GO,
                OptionReply::MetaContext(Context { id: 1, name: "a:b".into() }),
            )]),
            "the server answered GO with MetaContext(Context { id: 1, name: \"a:b\" })",
        ),
        (
            with_replies(&[(
                OptionType::GO,
                OptionReply::Info(Info::BlockSize(BlockSizes { minimum: 3, preferred: 512, maximum: 512 })),
            )]),
            "block sizes: the minimum 3 is not a power of two from 1 to 65536",
        ),
        (
            with_replies(&[
                (
                    OptionType::GO,
                    OptionReply::Info(Info::Export { size: 1 << 63, flags: TransmissionFlags(1) }),
                ),
                (OptionType::GO, OptionReply::Ack),
            ]),
            "the server says that the export has 9223372036854775808 bytes: larger than 2^63 - 1",
        ),
        (
            [NEWSTYLE, b"IHAVEOPT"].concat(),
            "expected a reply to an option, but its magic number is 0x49484156454f5054",
        ),
    ] {
        assert_eq!(sentence(plain(), &script), why);
    }
}

#[test]
fn unknown_greeting_flags_are_ignored_and_unknown_information_too() {
    let script = with_replies(&[
        (OptionType::GO, OptionReply::Info(Info::Unknown(crate::option::InfoType(99)))),
        (OptionType::GO, export()),
        (OptionType::GO, OptionReply::Ack),
    ]);
    let mut strange = script.clone();
    strange[16] = 0xff;
    let (mut machine, outcome) = hear(plain(), &strange);
    assert!(matches!(outcome, Ok(Event::Ready(_))));
    assert_eq!(machine.take_output()[..4], [0, 0, 0, 3]);
}

#[test]
fn bytes_smuggled_in_behind_the_agreement_to_tls_are_not_believed() {
    let script = with_replies(&[
        (OptionType::STARTTLS, OptionReply::Ack),
        (OptionType::GO, export()),
        (OptionType::GO, OptionReply::Ack),
    ]);
    assert_eq!(
        sentence(Wishes { tls: Tls::Allow, ..plain() }, &script),
        "the server sent more after agreeing to TLS, in the clear"
    );
}

#[test]
fn a_list_without_end_is_cut_off() {
    let (mut machine, outcome) = hear(Wishes { opt_mode: true, ..plain() }, NEWSTYLE);
    assert_eq!(outcome, Ok(Event::Waiting));
    machine.list().unwrap();
    let mut reply = Vec::new();
    let entry = ExportEntry { name: "n".repeat(4096), description: "d".repeat(4096) };
    OptionReply::Server(entry).encode_into(OptionType::LIST, &mut reply);
    let error = (0..10_000).find_map(|_| {
        machine.feed(&reply);
        machine.next().err()
    });
    assert!(matches!(error, Some(Error::TooBig { .. })));
}

#[test]
fn a_server_that_hangs_up_is_described() {
    let closed = |script: &[u8]| {
        let (machine, outcome) = hear(Wishes { export: "a".into(), ..plain() }, script);
        assert_eq!(outcome, Ok(Event::NeedInput));
        machine.closed().to_string()
    };
    assert_eq!(closed(b""), "the server closed the connection without a word");
    assert_eq!(closed(b"NBDMAG"), "the server closed the connection in the middle of its greeting");
    assert_eq!(closed(NEWSTYLE), "the server closed the connection instead of answering GO");
    assert_eq!(
        closed(b"NBDMAGICIHAVEOPT\0\0"),
        "the server closed the connection instead of opening the export “a”"
    );
}

proptest! {
    #[test]
    fn no_bytes_make_the_machine_panic(
        parts in proptest::collection::vec(
            (1u32..12, prop_oneof![0u32..5, (0u32..12).prop_map(|n| (1 << 31) | n)],
             proptest::collection::vec(any::<u8>(), 0..40)),
            0..12,
        ),
        tail: Vec<u8>, magic in 0u8..4, cut in 1usize..50, opt_mode: bool,
    ) {
        let mut bytes = match magic {
            0 => Vec::new(),
            1 => b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53".to_vec(),
            _ => NEWSTYLE.to_vec(),
        };
        for (option, reply, data) in &parts {
            let header = OptionReplyHeader {
                option: OptionType(*option), reply: ReplyType(*reply), length: data.len() as u32,
            };
            bytes.extend_from_slice(&header.encode());
            bytes.extend_from_slice(data);
        }
        bytes.extend_from_slice(&tail);
        let mut machine = ClientHandshake::new(Wishes {
            tls: Tls::Allow, contexts: vec!["a:b".into()], opt_mode, ..Default::default()
        });
        'session: for part in bytes.chunks(cut) {
            machine.feed(part);
            loop {
                match machine.next() {
                    Ok(Event::NeedInput) => break,
                    Ok(Event::StartTls) => machine.tls_started().unwrap(),
                    Ok(Event::Waiting) => match part[0] % 4 {
                        0 => machine.list().unwrap(),
                        1 => machine.set_meta_context("a", &["b:c".into()]).unwrap(),
                        2 => machine.info("a").unwrap(),
                        _ => machine.go("a").unwrap(),
                    },
                    Ok(Event::Ready(_) | Event::Aborted) | Err(_) => break 'session,
                    Ok(_) => {}
                }
            }
        }
        let _ = machine.closed();
    }
}
