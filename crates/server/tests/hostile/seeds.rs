//! Sessions to begin with, written by the protocol's own encoders: every framing, every command, right and wrong.

use crate::session::{BEHAVIOURS, Behaviour, DELIVERIES, Delivery, HANDSHAKES, Handshake, Setting};
use proto::{
    Command, CommandFlags as F, HeaderStyle, Infos, Request,
    command::BlockStatusPayload,
    option::{InfoRequest, MetaContextRequest, OptionHeader, OptionType},
};

const FIXED_AND_NO_ZEROES: u32 = 3;

struct Script {
    name: String,
    bytes: Vec<u8>,
    style: HeaderStyle,
    cookie: u64,
}

impl Script {
    fn new(name: &str, handshake: Handshake, delivery: Delivery, behaviour: Behaviour, seed: u8) -> Script {
        fn place<T: PartialEq>(list: &[T], one: T) -> u8 {
            list.iter().position(|other| *other == one).expect("it is in its list") as u8
        }
        let delivery = place(&DELIVERIES, delivery);
        let seed = if delivery < 2 { seed } else { seed | Setting::LIVE };
        let second = (delivery % 2) | (place(&BEHAVIOURS, behaviour) << 2);
        let bytes = vec![place(&HANDSHAKES, handshake), second, seed];
        Script { name: name.into(), bytes, style: HeaderStyle::Compact, cookie: 0x0123_4567_89ab_cd00 }
    }

    fn newstyle(name: &str, delivery: Delivery, behaviour: Behaviour) -> Script {
        Script::new(name, Handshake::All, delivery, behaviour, 3).flags(FIXED_AND_NO_ZEROES)
    }

    fn read_only(mut self) -> Script {
        self.bytes[1] |= 0x80;
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Script {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn flags(self, flags: u32) -> Script {
        self.raw(&flags.to_be_bytes())
    }

    fn option(self, option: OptionType, data: &[u8]) -> Script {
        let header = OptionHeader { option, length: data.len() as u32 };
        self.raw(&header.encode()).raw(data)
    }

    fn go(self, export: &str) -> Script {
        self.option(OptionType::GO, &InfoRequest { export: export.into(), infos: Infos::ALL }.encode())
    }

    fn structured(self) -> Script {
        self.option(OptionType::STRUCTURED_REPLY, &[])
    }

    fn extended(mut self) -> Script {
        self.style = HeaderStyle::Extended;
        self.option(OptionType::EXTENDED_HEADERS, &[])
    }

    fn contexts(self, export: &str, queries: &[&str]) -> Script {
        let queries = queries.iter().map(|query| (*query).to_owned()).collect();
        let data = MetaContextRequest { export: export.into(), queries }.encode();
        self.option(OptionType::SET_META_CONTEXT, &data)
    }

    fn ask(mut self, command: Command, flags: F, offset: u64, length: u64) -> Script {
        self.cookie += 1;
        let request = Request { flags, command, cookie: self.cookie, offset, length };
        request.encode_into(self.style, &mut self.bytes);
        self
    }

    fn read(self, offset: u64, length: u64) -> Script {
        self.ask(Command::Read, F::NONE, offset, length)
    }

    fn write(self, offset: u64, bytes: &[u8]) -> Script {
        let flags = match self.style {
            HeaderStyle::Extended => F::PAYLOAD_LEN,
            HeaderStyle::Compact => F::NONE,
        };
        self.ask(Command::Write, flags, offset, bytes.len() as u64).raw(bytes)
    }

    fn status_of(self, length: u64, contexts: &[u32]) -> Script {
        let mut payload = Vec::new();
        BlockStatusPayload { length, contexts: contexts.to_vec() }.encode_into(&mut payload);
        self.ask(Command::BlockStatus, F::PAYLOAD_LEN, 0, payload.len() as u64).raw(&payload)
    }

    fn disconnect(self) -> Script {
        self.ask(Command::Disc, F::NONE, 0, 0)
    }

    /// Each command once, as a client means it.
    fn every_command(self) -> Script {
        self.write(4000, &[0x55; 600])
            .read(3500, 2000)
            .ask(Command::Read, F::DF, 0, 8192)
            .ask(Command::WriteZeroes, F::NO_HOLE, 4096, 100)
            .ask(Command::WriteZeroes, F::FAST_ZERO, 512, 1024)
            .ask(Command::Trim, F::FUA, 1024, 1024)
            .ask(Command::Cache, F::NONE, 0, 4096)
            .ask(Command::BlockStatus, F::NONE, 0, 16384)
            .ask(Command::BlockStatus, F::REQ_ONE, 512, 4096)
            .ask(Command::Flush, F::NONE, 0, 0)
            .write(0, &[0; 512])
            .read(0, 4096)
    }

    /// Each of a client's mistakes that a connection survives.
    fn every_mistake(self) -> Script {
        self.read(20 << 10, 4096)
            .read(u64::MAX - 1, 2)
            .read(0, 0)
            .read(0, u64::from(u32::MAX))
            .write(u64::MAX, &[1])
            .write(30 << 10, &[2; 40])
            .ask(Command::WriteZeroes, F::NONE, 20 << 10, 4096)
            .ask(Command::Trim, F::DF, 0, 512)
            .ask(Command::Flush, F::NONE, 1, 1)
            .ask(Command::Unknown(99), F::NONE, 0, 1)
            .ask(Command::BlockStatus, F::NO_HOLE, 0, 512)
            .ask(Command::Cache, F::FUA, 0, 512)
            .ask(Command::Read, F(0xffff).without(F::PAYLOAD_LEN), 0, 512)
    }
}

/// Every seed: a name and an input.
pub fn all() -> Vec<(String, Vec<u8>)> {
    use Behaviour::*;
    use Delivery::*;
    let both = ["base:allocation", "x-test:one", "qemu:dirty-bitmap:b0"];
    let old =
        |name: &str, delivery, behaviour| Script::new(name, Handshake::Oldstyle, delivery, behaviour, 1);
    let simple = |name: &str, delivery, behaviour| Script::newstyle(name, delivery, behaviour).go("a");
    let structured = |name: &str, delivery, behaviour| {
        Script::newstyle(name, delivery, behaviour).structured().contexts("a", &both).go("a")
    };
    let extended = |name: &str, delivery, behaviour| {
        Script::newstyle(name, delivery, behaviour).extended().contexts("", &both).go("")
    };
    let mut scripts = vec![
        old("oldstyle", AtOnce, Everything).every_command().disconnect(),
        old("oldstyle-mistakes", InPieces, Everything).every_mistake().disconnect(),
        simple("simple", AtOnce, Everything).every_command().disconnect(),
        simple("simple-in-pieces-mistakes", InPieces, Sectors).every_mistake().disconnect(),
        structured("structured", AtOnce, Everything).every_command().disconnect(),
        structured("structured-mistakes", AtOnce, Failing).every_mistake().every_command().disconnect(),
        extended("extended", AtOnce, Everything).every_command().status_of(8192, &[2]).disconnect(),
        extended("extended-mistakes", InPieces, WaitingAndFailing)
            .every_mistake()
            .status_of(8192, &[9])
            .status_of(8192, &[1, 1])
            .status_of(0, &[])
            .every_command()
            .disconnect(),
        extended("extended-payload-where-none-belongs", AtOnce, Everything)
            .ask(Command::Read, F::PAYLOAD_LEN, 0, 40)
            .raw(&[9; 40])
            .ask(Command::Flush, F::PAYLOAD_LEN, 0, 3)
            .raw(&[9; 3])
            .read(0, 512)
            .ask(Command::Write, F::PAYLOAD_LEN, 0, 1 << 40),
        extended("huge", AtOnce, Huge)
            .ask(Command::BlockStatus, F::NONE, 0, i64::MAX as u64)
            .ask(Command::WriteZeroes, F::NO_HOLE, 1 << 40, 1 << 60)
            .ask(Command::Trim, F::NONE, 1, i64::MAX as u64 - 1)
            .status_of(i64::MAX as u64, &[1, 3])
            .read(i64::MAX as u64 - 4096, 4096),
        structured("huge-structured", InPieces, Huge)
            .ask(Command::BlockStatus, F::NONE, 1 << 62, u64::from(u32::MAX))
            .read(i64::MAX as u64 - 100, 100)
            .disconnect(),
        structured("least", AtOnce, Least).every_command().disconnect(),
        extended("sectors", AtOnce, Sectors).write(512, &[7; 1024]).read(0, 4096).every_command(),
        structured("read-only", AtOnce, ReadOnly).every_command().disconnect(),
        structured("read-only-by-the-server", AtOnce, Everything).read_only().every_command().disconnect(),
        extended("live-and-slow", Live, Slow)
            .every_command()
            .read(512, 1024)
            .read(1024, 1024)
            .read(1536, 1024)
            .every_mistake()
            .disconnect(),
        structured("waiting-then-the-end", Live, WaitingAndFailing).every_command(),
        structured("cut-short", AtOnce, WaitingAndFailing)
            .read(0, 512)
            .write(0, &[1; 900])
            .raw(&[0x25, 0x60]),
        structured("leaving", Leaving, Slow).every_command().every_command().read(0, 16384),
        structured("garbage", AtOnce, Everything).read(0, 512).raw(&[0x55; 40]),
        structured("one-cookie-for-two", AtOnce, Slow)
            .raw(
                &Request { flags: F::NONE, command: Command::Read, cookie: 1, offset: 0, length: 9 }
                    .encode_compact(),
            )
            .raw(
                &Request { flags: F::NONE, command: Command::Read, cookie: 1, offset: 512, length: 9 }
                    .encode_compact(),
            )
            .disconnect(),
        Script::newstyle("many-options", AtOnce, Everything)
            .option(OptionType::LIST, &[])
            .option(OptionType::INFO, &InfoRequest { export: "later".into(), infos: Infos::ALL }.encode())
            .option(OptionType(77), &[1, 2, 3])
            .option(OptionType::STARTTLS, &[])
            .go("nowhere")
            .structured()
            .structured()
            .contexts("later", &["x-test:", "base:"])
            .option(
                OptionType::LIST_META_CONTEXT,
                &MetaContextRequest { export: "a".into(), queries: vec!["qemu:".into()] }.encode(),
            )
            .extended()
            .contexts("later", &both)
            .go("later")
            .every_command(),
        Script::newstyle("abort", InPieces, Everything).option(OptionType::ABORT, &[]),
        Script::new("too-many-options", Handshake::FewOptions, AtOnce, Everything, 0)
            .flags(FIXED_AND_NO_ZEROES)
            .option(OptionType::LIST, &[])
            .option(OptionType::LIST, &[])
            .option(OptionType::LIST, &[])
            .option(OptionType::LIST, &[])
            .go("a"),
        Script::new("no-structured", Handshake::NoStructured, AtOnce, Everything, 0)
            .flags(FIXED_AND_NO_ZEROES)
            .structured()
            .extended()
            .contexts("a", &["base:allocation"])
            .go("a")
            .every_command(),
        Script::new("no-contexts", Handshake::NoContexts, AtOnce, Everything, 0)
            .flags(FIXED_AND_NO_ZEROES)
            .structured()
            .contexts("a", &["base:allocation"])
            .go("a")
            .every_command(),
        Script::new("http", Handshake::All, AtOnce, Everything, 0).raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ];
    for (name, handshake, flags) in [
        ("export-name", Handshake::All, FIXED_AND_NO_ZEROES),
        ("export-name-with-zeroes", Handshake::Simple, 1),
        ("export-name-not-fixed", Handshake::NotFixed, 2),
        ("export-name-structured", Handshake::NoExtended, FIXED_AND_NO_ZEROES),
    ] {
        let script = Script::new(name, handshake, AtOnce, Everything, 0).flags(flags);
        let script = if name.ends_with("structured") { script.structured() } else { script };
        scripts.push(script.option(OptionType::EXPORT_NAME, b"a").every_command().disconnect());
    }
    scripts.into_iter().map(|script| (script.name, script.bytes)).collect()
}
