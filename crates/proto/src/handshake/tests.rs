//! Both machines against each other, in memory.

use proptest::prelude::*;

use super::client::{self, ClientHandshake, Wishes};
use super::server::{self, Policy, Purpose, ServerHandshake};
use super::*;
use crate::error::{Error, Result};
use crate::flags::{ClientFlags, HandshakeFlags};
use crate::option::{ExportEntry, Infos, OptionType, Refusal, ReplyType};

/// A server with the exports `` (= `main`) and `other`.
pub(super) struct Shop {
    pub(super) machine: ServerHandshake,
    pub(super) ready: Option<Negotiated>,
    pub(super) error: Option<Error>,
    pub(super) contexts: Vec<&'static str>,
    in_tls: bool,
}

impl Shop {
    pub(super) fn new(policy: Policy) -> Shop {
        Shop {
            machine: ServerHandshake::new(policy),
            ready: None,
            error: None,
            contexts: vec!["base:allocation", "qemu:allocation-depth"],
            in_tls: false,
        }
    }

    pub(super) fn info() -> ExportInfo {
        ExportInfo {
            size: 1 << 30,
            flags: TransmissionFlags::SEND_FLUSH
                | TransmissionFlags::SEND_DF
                | TransmissionFlags::BLOCK_STATUS_PAYLOAD,
            block_sizes: Some(BlockSizes { minimum: 1, preferred: 4096, maximum: 32 << 20 }),
            name: Some("main".into()),
            description: Some("words".into()),
        }
    }

    /// Takes the client's bytes and returns the answer.
    pub(super) fn exchange(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.machine.feed(bytes);
        while self.ready.is_none() && self.error.is_none() {
            match self.machine.next() {
                Ok(server::Event::NeedInput) => break,
                Ok(server::Event::List) => {
                    let exports =
                        ["main", "other"].map(|name| ExportEntry { name: name.into(), ..Default::default() });
                    self.machine.exports(&exports).unwrap();
                }
                Ok(server::Event::Export { name, .. }) if !["", "main", "other"].contains(&name.as_str()) => {
                    self.machine.refuse(ReplyType::ERR_UNKNOWN, &format!("no export “{name}”")).unwrap();
                }
                Ok(server::Event::Export { .. }) => self.machine.export(Shop::info()).unwrap(),
                Ok(server::Event::MetaContexts { .. }) => self.machine.contexts(&self.contexts).unwrap(),
                Ok(server::Event::StartTls) => {
                    self.in_tls = true;
                    self.machine.tls_started().unwrap();
                }
                Ok(server::Event::Aborted) => break,
                Ok(server::Event::Ready(negotiated)) => self.ready = Some(negotiated),
                Err(error) => self.error = Some(error),
            }
        }
        self.machine.take_output()
    }
}

/// Runs the client's machine against the shop until something happens that the driver must hear of.
pub(super) fn run(client: &mut ClientHandshake, shop: &mut Shop) -> Result<client::Event> {
    let mut to_client = shop.exchange(&[]);
    loop {
        // Byte by byte: no machine may depend on how the bytes are cut.
        for byte in std::mem::take(&mut to_client) {
            client.feed(&[byte]);
            match client.next()? {
                client::Event::NeedInput => {}
                client::Event::StartTls => client.tls_started()?,
                event => {
                    let bytes = client.take_output();
                    shop.exchange(&bytes);
                    return Ok(event);
                }
            }
        }
        match client.next()? {
            client::Event::NeedInput => {}
            client::Event::StartTls => client.tls_started()?,
            event => return Ok(event),
        }
        for byte in client.take_output() {
            to_client.extend(shop.exchange(&[byte]));
        }
        if to_client.is_empty() {
            return Err(client.closed());
        }
    }
}

/// Runs a whole handshake; both ends must come to the same result.
fn agree(wishes: Wishes, policy: Policy) -> Negotiated {
    let (mut client, mut shop) = (ClientHandshake::new(wishes), Shop::new(policy));
    let client::Event::Ready(negotiated) = run(&mut client, &mut shop).unwrap() else { panic!() };
    let served = shop.ready.unwrap();
    assert_eq!(
        (&served.export, &served.contexts, served.replies, served.tls, served.protocol, served.info.flags),
        (
            &negotiated.export,
            &negotiated.contexts,
            negotiated.replies,
            negotiated.tls,
            negotiated.protocol,
            negotiated.info.flags
        )
    );
    negotiated
}

fn base() -> Vec<String> {
    vec!["base:allocation".into()]
}

#[test]
fn by_default_both_agree_on_extended_headers() {
    let got = agree(Wishes { contexts: base(), ..Default::default() }, Policy::default());
    assert_eq!((got.replies, got.protocol, got.tls), (ReplyStyle::Extended, Protocol::FixedNewstyle, false));
    assert_eq!(got.contexts, [Context { id: 1, name: "base:allocation".into() }]);
    assert_eq!(got.info.size, 1 << 30);
    assert!(got.info.flags.has(TransmissionFlags::BLOCK_STATUS_PAYLOAD | TransmissionFlags::HAS_FLAGS));
    assert!(got.info.block_sizes.is_some() && got.info.name.is_none() && got.info.description.is_none());
}

#[test]
fn name_and_description_come_only_when_asked_for() {
    let got = agree(Wishes { infos: Infos::ALL, ..Default::default() }, Policy::default());
    assert_eq!((got.info.name.as_deref(), got.info.description.as_deref()), (Some("main"), Some("words")));
    let got = agree(Wishes { infos: Infos::NONE, ..Default::default() }, Policy::default());
    assert_eq!((got.info.name, got.info.description, got.info.block_sizes), (None, None, None));
}

#[test]
fn without_extended_headers_there_are_structured_replies() {
    let policy = Policy { extended_headers: false, ..Default::default() };
    let got = agree(Wishes { contexts: base(), ..Default::default() }, policy);
    assert_eq!((got.replies, got.contexts.len()), (ReplyStyle::Structured, 1));
    assert!(got.info.flags.has(TransmissionFlags::SEND_DF));
    assert!(!got.info.flags.has(TransmissionFlags::BLOCK_STATUS_PAYLOAD));
}

#[test]
fn without_structured_replies_there_are_no_contexts_and_no_df() {
    let policy = Policy { extended_headers: false, structured_replies: false, ..Default::default() };
    let got = agree(Wishes { contexts: base(), ..Default::default() }, policy);
    assert_eq!((got.replies, got.contexts.len()), (ReplyStyle::Simple, 0));
    assert!(!got.info.flags.has(TransmissionFlags::SEND_DF));
}

#[test]
fn without_meta_contexts_the_handshake_goes_on() {
    let policy = Policy { meta_contexts: false, ..Default::default() };
    let got = agree(Wishes { contexts: base(), ..Default::default() }, policy);
    assert_eq!((got.replies, got.contexts.len()), (ReplyStyle::Extended, 0));
    assert!(!got.info.flags.has(TransmissionFlags::BLOCK_STATUS_PAYLOAD));
}

#[test]
fn masked_handshake_flags_are_respected() {
    for (mask, protocol) in [
        (HandshakeFlags::NONE, Protocol::Newstyle),
        (HandshakeFlags::NO_ZEROES, Protocol::Newstyle),
        (HandshakeFlags::FIXED_NEWSTYLE, Protocol::FixedNewstyle),
    ] {
        let wishes = Wishes { export: "other".into(), contexts: base(), ..Default::default() };
        let got = agree(wishes, Policy { handshake_flags: mask, ..Default::default() });
        assert_eq!((got.protocol, got.export.as_str(), got.info.size), (protocol, "other", 1 << 30));
    }
}

#[test]
fn a_client_may_decline_what_the_greeting_offers() {
    for client_flags in [ClientFlags::NONE, ClientFlags::NO_ZEROES, ClientFlags::FIXED_NEWSTYLE] {
        let got = agree(Wishes { client_flags, ..Default::default() }, Policy::default());
        assert_eq!(got.info.size, 1 << 30);
    }
}

#[test]
fn tls_is_negotiated_when_both_want_it() {
    for wish in [Tls::Allow, Tls::Require] {
        for offer in [Tls::Allow, Tls::Require] {
            let wishes = Wishes { tls: wish, contexts: base(), ..Default::default() };
            let got = agree(wishes, Policy { tls: offer, ..Default::default() });
            assert_eq!((got.tls, got.replies, got.contexts.len()), (true, ReplyStyle::Extended, 1));
        }
        let got = agree(
            Wishes { tls: Tls::Off, ..Default::default() },
            Policy { tls: Tls::Allow, ..Default::default() },
        );
        assert!(!got.tls);
    }
    assert!(!agree(Wishes { tls: Tls::Allow, ..Default::default() }, Policy::default()).tls);
}

#[test]
fn tls_that_only_one_side_wants_ends_the_handshake_with_a_sentence() {
    let fail = |tls, policy| {
        let (mut client, mut shop) =
            (ClientHandshake::new(Wishes { tls, ..Default::default() }), Shop::new(policy));
        let error = run(&mut client, &mut shop).unwrap_err().to_string();
        // The client takes its leave politely.
        assert!(client.take_output().starts_with(b"IHAVEOPT\0\0\0\x02"));
        error
    };
    assert_eq!(
        fail(Tls::Require, Policy::default()),
        "the server refused STARTTLS: the server's configuration forbids it: TLS is not configured"
    );
    assert_eq!(
        fail(Tls::Off, Policy { tls: Tls::Require, ..Default::default() }),
        "the server refused EXTENDED_HEADERS: the server requires TLS: nothing is answered before STARTTLS"
    );
}

#[test]
fn an_unknown_export_is_refused_with_the_servers_words() {
    let wishes = Wishes { export: "nix".into(), ..Default::default() };
    let (mut client, mut shop) = (ClientHandshake::new(wishes.clone()), Shop::new(Policy::default()));
    assert_eq!(
        run(&mut client, &mut shop).unwrap_err().to_string(),
        "the server refused GO: there is no such export: no export “nix”"
    );

    let policy = Policy { handshake_flags: HandshakeFlags::NONE, ..Default::default() };
    let (mut client, mut shop) = (ClientHandshake::new(wishes), Shop::new(policy));
    assert_eq!(
        run(&mut client, &mut shop).unwrap_err().to_string(),
        "the server closed the connection instead of opening the export “nix”"
    );
    assert!(shop.error.unwrap().to_string().ends_with("no export “nix”"));
}

#[test]
fn in_opt_mode_the_driver_takes_the_steps() {
    let wishes = Wishes { opt_mode: true, infos: Infos::ALL, ..Default::default() };
    let (mut client, mut shop) = (ClientHandshake::new(wishes), Shop::new(Policy::default()));
    let mut step = |client: &mut ClientHandshake| run(client, &mut shop).unwrap();
    assert_eq!(step(&mut client), client::Event::Waiting);
    assert_eq!(client.replies(), ReplyStyle::Extended);

    client.list().unwrap();
    let client::Event::Exports(exports) = step(&mut client) else { panic!() };
    assert_eq!(exports.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["main", "other"]);

    client.info("nix").unwrap();
    let refused = Refusal {
        option: OptionType::INFO,
        error: ReplyType::ERR_UNKNOWN,
        message: "no export “nix”".into(),
    };
    assert_eq!(step(&mut client), client::Event::Refused(refused));
    client.info("other").unwrap();
    assert!(
        matches!(step(&mut client), client::Event::Info(info) if info.description.as_deref() == Some("words"))
    );

    let names = |event| match event {
        client::Event::Contexts(contexts) => contexts.into_iter().map(|c| (c.id, c.name)).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let (allocation, depth) = ("base:allocation".to_owned(), "qemu:allocation-depth".to_owned());
    client.list_meta_context("other", &[]).unwrap();
    assert_eq!(names(step(&mut client)), [(0, allocation.clone()), (0, depth.clone())]);
    client.list_meta_context("other", &["qemu:".into()]).unwrap();
    assert_eq!(names(step(&mut client)), [(0, depth.clone())]);
    client.set_meta_context("other", &["base:".into(), "x-no:such".into()]).unwrap();
    assert_eq!(names(step(&mut client)), []);
    client.set_meta_context("other", std::slice::from_ref(&allocation)).unwrap();
    assert_eq!(names(step(&mut client)), [(1, allocation)]);
    client.set_meta_context("other", std::slice::from_ref(&depth)).unwrap();
    assert_eq!(names(step(&mut client)), [(2, depth)]);

    assert_eq!(client.export_name("other"), Err(Error::Unasked("EXPORT_NAME: extended headers forbid it")));
    client.structured_reply().unwrap();
    assert!(
        matches!(step(&mut client), client::Event::Refused(r) if r.error == ReplyType::ERR_EXT_HEADER_REQD)
    );
    client.starttls().unwrap();
    assert!(matches!(step(&mut client), client::Event::Refused(r) if r.error == ReplyType::ERR_POLICY));
    client.go("nix").unwrap();
    assert!(matches!(step(&mut client), client::Event::Refused(_)));
    assert_eq!(step(&mut client), client::Event::Waiting);

    client.go("other").unwrap();
    let client::Event::Ready(negotiated) = step(&mut client) else { panic!() };
    assert_eq!(negotiated.contexts.len(), 1);
    assert_eq!(client.go("other"), Err(Error::Unasked("a step of the driver now")));
}

#[test]
fn contexts_set_for_another_export_are_dropped() {
    let wishes = Wishes { opt_mode: true, ..Default::default() };
    let (mut client, mut shop) = (ClientHandshake::new(wishes), Shop::new(Policy::default()));
    run(&mut client, &mut shop).unwrap();
    client.set_meta_context("main", &base()).unwrap();
    run(&mut client, &mut shop).unwrap();
    client.go("other").unwrap();
    let client::Event::Ready(negotiated) = run(&mut client, &mut shop).unwrap() else { panic!() };
    assert_eq!(negotiated.contexts, []);
    assert_eq!(shop.ready.unwrap().contexts, []);
    assert!(!negotiated.info.flags.has(TransmissionFlags::BLOCK_STATUS_PAYLOAD));
}

#[test]
fn an_abort_is_answered() {
    let wishes = Wishes { opt_mode: true, ..Default::default() };
    let (mut client, mut shop) = (ClientHandshake::new(wishes), Shop::new(Policy::default()));
    run(&mut client, &mut shop).unwrap();
    client.abort().unwrap();
    assert_eq!(run(&mut client, &mut shop).unwrap(), client::Event::Aborted);
}

#[test]
fn requests_sent_right_behind_the_handshake_are_kept() {
    let mut shop = Shop::new(Policy::default());
    let mut bytes = vec![0, 0, 0, 3];
    crate::option::put_option(&mut bytes, OptionType::EXPORT_NAME, b"main");
    bytes.extend_from_slice(b"first request");
    let out = shop.exchange(&bytes);
    assert_eq!(out.len(), 18 + 10);
    assert_eq!(shop.machine.take_input(), b"first request");
}

#[test]
fn a_long_list_arrives_whole() {
    let (mut client, mut server) = (
        ClientHandshake::new(Wishes { opt_mode: true, ..Default::default() }),
        ServerHandshake::new(Policy::default()),
    );
    let exports: Vec<_> = (0..10_000)
        .map(|n| ExportEntry { name: format!("export {n}"), description: "é".repeat(n % 9) })
        .collect();
    loop {
        client.feed(&server.take_output());
        match client.next().unwrap() {
            client::Event::NeedInput => {}
            client::Event::Waiting => client.list().unwrap(),
            client::Event::Exports(got) => return assert_eq!(got, exports),
            other => panic!("{other:?}"),
        }
        server.feed(&client.take_output());
        while server.next().unwrap() == server::Event::List {
            server.exports(&exports).unwrap();
        }
    }
}

fn any_tls() -> impl Strategy<Value = Tls> {
    prop_oneof![Just(Tls::Off), Just(Tls::Allow), Just(Tls::Require)]
}

proptest! {
    #[test]
    fn whatever_is_wished_and_allowed_both_ends_agree_or_say_why(
        wish in any_tls(), offer in any_tls(),
        switches in any::<[bool; 6]>(),
        mask in 0u16..4, client_flags in 0u32..4, infos in 0u16..8,
    ) {
        let [structured, extended, sr, eh, mc, contexts] = switches;
        let wishes = Wishes {
            export: "other".into(), tls: wish, structured_replies: structured, extended_headers: extended,
            contexts: if contexts { base() } else { Vec::new() }, infos: Infos(infos << 1), opt_mode: false,
            client_flags: ClientFlags(client_flags),
        };
        let policy = Policy {
            tls: offer, structured_replies: sr, extended_headers: eh, meta_contexts: mc,
            handshake_flags: HandshakeFlags(mask), ..Default::default()
        };
        let (mut client, mut shop) = (ClientHandshake::new(wishes), Shop::new(policy));
        match run(&mut client, &mut shop) {
            Ok(client::Event::Ready(got)) => {
                let served = shop.ready.unwrap();
                prop_assert_eq!((served.replies, served.tls, &served.contexts, served.info.flags),
                    (got.replies, got.tls, &got.contexts, got.info.flags));
                prop_assert!(wish != Tls::Require || got.tls);
                prop_assert!(offer != Tls::Require || got.tls);
                prop_assert_eq!(got.replies == ReplyStyle::Extended, extended && eh && mask & client_flags as u16 & 1 != 0);
            }
            Ok(other) => prop_assert!(false, "{:?}", other),
            Err(_) => prop_assert!(wish == Tls::Require || offer == Tls::Require),
        }
    }
}

#[test]
fn an_export_may_take_long_to_open() {
    let mut server = ServerHandshake::new(Policy::default());
    let mut bytes = vec![0, 0, 0, 3];
    crate::option::put_option(&mut bytes, OptionType::GO, b"\0\0\0\x01a\0\0");
    server.feed(&bytes);
    let question = server::Event::Export { name: "a".into(), purpose: Purpose::Go, infos: Infos::NONE };
    assert_eq!(server.next(), Ok(question));
    // Neither impatience nor a wrong answer does harm.
    assert!(matches!(server.next(), Err(Error::Unasked(_))));
    assert!(matches!(server.exports(&[]), Err(Error::Unasked(_))));
    assert!(matches!(server.tls_started(), Err(Error::Unasked(_))));
    server.export(Shop::info()).unwrap();
    assert!(matches!(server.next(), Ok(server::Event::Ready(_))));
}
