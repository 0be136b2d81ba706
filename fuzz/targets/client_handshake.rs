//! A client's handshake with any server. The first byte is what the client wishes, the next ones its steps in option
//! mode.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::handshake::Tls;
use proto::handshake::client::{ClientHandshake, Event, Wishes};
use proto::{ClientFlags, Infos};

fuzz_target!(|bytes: &[u8]| {
    let Some(([switches, steps @ ..], bytes)) = bytes.split_first_chunk::<8>() else { return };
    let bit = |n: u8| switches & (1 << n) != 0;
    let mut machine = ClientHandshake::new(Wishes {
        export: "a".into(),
        tls: [Tls::Off, Tls::Off, Tls::Allow, Tls::Require][usize::from(switches & 3)],
        structured_replies: !bit(2),
        extended_headers: !bit(3),
        contexts: if bit(4) { vec!["base:allocation".into()] } else { Vec::new() },
        infos: Infos::ALL,
        opt_mode: bit(5),
        client_flags: if bit(6) { ClientFlags::NONE } else { ClientFlags::ALL },
    });
    let mut steps = steps.iter();
    for part in bytes.chunks(if bit(7) { 7 } else { usize::MAX }) {
        machine.feed(part);
        loop {
            let event = machine.next();
            machine.take_output();
            match event {
                Ok(Event::NeedInput) => break,
                Ok(Event::StartTls) => machine.tls_started().unwrap(),
                Ok(Event::Waiting) => {
                    let queries = ["base:".to_owned()];
                    // EXPORT_NAME is not always allowed; whatever fails is followed by a GO.
                    let step = match steps.next().map(|step| step % 10) {
                        Some(0) => machine.list(),
                        Some(1) => machine.info("b"),
                        Some(2) => machine.list_meta_context("a", &[]),
                        Some(3) => machine.set_meta_context("a", &queries),
                        Some(4) => machine.structured_reply(),
                        Some(5) => machine.extended_headers(),
                        Some(6) => machine.starttls(),
                        Some(7) => machine.export_name("a"),
                        Some(8) => machine.go("a"),
                        _ => machine.abort(),
                    };
                    if step.is_err() {
                        machine.go("b").unwrap();
                    }
                }
                Ok(Event::Ready(_) | Event::Aborted) | Err(_) => {
                    machine.take_input();
                    return;
                }
                Ok(_) => {}
            }
        }
    }
    let _ = machine.closed().to_string();
});
