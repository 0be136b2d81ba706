//! A server's handshake with any client. The first byte is the policy.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::handshake::server::{Event, Policy, ServerHandshake};
use proto::handshake::{ExportInfo, Tls};
use proto::option::ReplyType;
use proto::{BlockSizes, ExportEntry, HandshakeFlags, TransmissionFlags};

fuzz_target!(|bytes: &[u8]| {
    let Some((&switches, bytes)) = bytes.split_first() else { return };
    let bit = |n: u8| switches & (1 << n) != 0;
    let policy = Policy {
        tls: [Tls::Off, Tls::Off, Tls::Allow, Tls::Require][usize::from(switches & 3)],
        structured_replies: !bit(2),
        extended_headers: !bit(3),
        meta_contexts: !bit(4),
        handshake_flags: HandshakeFlags(3 ^ u16::from(switches >> 5 & 3)),
        options_max: if bit(7) { 4 } else { 1000 },
    };
    let whole = talk(&policy, &[bytes]);
    // How the bytes are cut must make no difference; TLS is an exception, because nothing may be sent behind STARTTLS.
    if policy.tls == Tls::Off {
        let parts: Vec<&[u8]> = bytes.chunks(3).collect();
        assert_eq!(whole, talk(&policy, &parts));
    }
});

/// What the server answered, and how it ended.
fn talk(policy: &Policy, parts: &[&[u8]]) -> (Vec<u8>, Option<String>) {
    let mut machine = ServerHandshake::new(policy.clone());
    let mut out = machine.take_output();
    for part in parts {
        machine.feed(part);
        loop {
            let event = machine.next();
            out.extend(machine.take_output());
            match event {
                Ok(Event::NeedInput) => break,
                Ok(Event::List) => {
                    machine.exports(&[ExportEntry { name: "a".into(), description: "b".into() }]).unwrap();
                }
                Ok(Event::Export { name, .. }) if name.len() > 5 => {
                    machine.refuse(ReplyType::ERR_UNKNOWN, &name).unwrap();
                }
                Ok(Event::Export { name, .. }) => machine.export(export(name)).unwrap(),
                Ok(Event::MetaContexts { .. }) => machine.contexts(&["base:allocation", "x-y:z"]).unwrap(),
                Ok(Event::StartTls) => machine.tls_started().unwrap(),
                Ok(event @ (Event::Aborted | Event::Ready(_))) => return (out, Some(format!("{event:?}"))),
                Err(error) => return (out, Some(error.to_string())),
            }
        }
    }
    (out, None)
}

fn export(name: String) -> ExportInfo {
    ExportInfo {
        size: 1 << 20,
        flags: TransmissionFlags::ALL,
        block_sizes: Some(BlockSizes { minimum: 512, preferred: 4096, maximum: 1 << 20 }),
        name: Some(name),
        description: Some("words".into()),
    }
}
