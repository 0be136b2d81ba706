//! Sessions to begin with: servers as they should be, written by the protocol's own encoders, and some that are not.

use crate::session::{BEGINS, Begin, LENGTHS, SIZE, way};
use proto::{
    BlockSizes, ChunkHeader, ChunkType, Errno, ExportEntry, Extent, Infos, ReplyFlags, ReplyStyle, ReplyTo,
    SimpleReply, TransmissionFlags,
    handshake::{
        ExportInfo,
        client::{ClientHandshake, Event as ClientEvent, Wishes},
        oldstyle,
        server::{Event, Policy, ServerHandshake},
    },
    option::ReplyType,
};

const READ: u8 = 0;
const WRITE: u8 = 3;
const ZERO: u8 = 4;
const TRIM: u8 = 5;
const FLUSH: u8 = 6;
const CACHE: u8 = 7;
const EXTENTS: u8 = 8;
const STATUS: u8 = 9;
/// Somebody awaits the answer.
const CARE: u8 = 2;

struct Script {
    name: String,
    begin: Begin,
    way: u8,
    asks: Vec<([u8; 4], usize)>,
    said: Vec<u8>,
}

impl Script {
    fn new(name: &str, begin: Begin, way: u8) -> Script {
        Script { name: name.into(), begin, way, asks: vec![], said: vec![] }
    }

    fn agreed(name: &str, style: ReplyStyle) -> Script {
        Script::new(name, Begin::Agreed(style), 0)
    }

    fn style(&self) -> ReplyStyle {
        match self.begin {
            Begin::Agreed(style) => style,
            Begin::PlainHandshake => ReplyStyle::Simple,
            _ => ReplyStyle::Extended,
        }
    }

    fn way(self, more: u8) -> Script {
        Script { way: self.way | more, ..self }
    }

    /// One request and no answer: its place among the requests.
    fn ask(mut self, kind: u8, at: u8, len: u8, care: u8) -> Script {
        self.asks.push(([kind, at, len, care], 0));
        self
    }

    /// How the `n`th request is answered, when all were made before the first answer, or one by one.
    fn to(&self, n: usize) -> ReplyTo {
        let one_by_one = self.way & way::ONE_BY_ONE != 0;
        let (generation, index) = if one_by_one { (n as u64 + 1, 0) } else { (1, n as u64) };
        let offset = if self.asks[n].0[0] == FLUSH { 0 } else { u64::from(self.asks[n].0[1]) * 512 };
        ReplyTo { style: self.style(), cookie: generation << 32 | index, offset }
    }

    fn say(mut self, say: impl FnOnce(&mut Vec<u8>)) -> Script {
        say(&mut self.said);
        self
    }

    /// A request and its whole answer, as it should be.
    fn answered(self, kind: u8, at: u8, len: u8) -> Script {
        let mut script = self.ask(kind, at, len, CARE);
        let (to, length) = (script.to(script.asks.len() - 1), LENGTHS[usize::from(len)]);
        let before = script.said.len();
        script = script.say(|out| match kind {
            READ => {
                to.data(out, true, to.offset, length as u32);
                out.resize(out.len() + length as usize, at);
            }
            EXTENTS | STATUS => {
                let extents = [Extent { length: 512, status: 0 }, Extent { length: 1 << 20, status: 3 }];
                to.block_status(out, true, if kind == EXTENTS { 7 } else { 3 }, &extents);
            }
            _ => to.done(out),
        });
        let answer = script.said.len() - before;
        script.asks.last_mut().expect("asked just now").1 = answer;
        script
    }

    fn every_answer(self) -> Script {
        let chunks = self.style().has_chunks();
        let script = self
            .answered(READ, 1, 1)
            .answered(WRITE, 2, 2)
            .answered(READ, 3, 1)
            .answered(ZERO, 4, 2)
            .answered(TRIM, 5, 1)
            .answered(FLUSH, 0, 0)
            .answered(CACHE, 7, 1);
        if chunks { script.answered(EXTENTS, 8, 2).answered(STATUS, 9, 2) } else { script }
    }

    /// The client reads 512 bytes at 512; the server answers otherwise.
    fn wrong(name: &str, style: ReplyStyle, say: impl FnOnce(ReplyTo, &mut Vec<u8>)) -> Script {
        let script = Script::agreed(name, style).ask(READ, 1, 1, CARE).ask(READ, 9, 3, CARE);
        let to = script.to(0);
        script.say(|out| say(to, out))
    }

    fn input(self) -> (String, Vec<u8>) {
        let begin = BEGINS.iter().position(|begin| *begin == self.begin).expect("it is in its list");
        let mut input = vec![begin as u8, self.way, self.asks.len() as u8];
        for (ask, answer) in &self.asks {
            input.extend(ask);
            input.extend((*answer as u16).to_be_bytes());
        }
        input.extend(self.said);
        (self.name, input)
    }
}

/// What a server of ours says in the handshake with such a client.
fn greeting(wishes: Wishes, policy: Policy) -> Vec<u8> {
    let (mut client, mut server) = (ClientHandshake::new(wishes), ServerHandshake::new(policy));
    let mut said = server.take_output();
    client.feed(&said);
    let mut steps = 0;
    loop {
        let at_end = match client.next() {
            Ok(ClientEvent::NeedInput) => false,
            Ok(ClientEvent::Waiting) => {
                steps += 1;
                match steps {
                    1 => client.list(),
                    2 => client.info("a"),
                    3 => client.list_meta_context("a", &["base:".into(), "x-test:one".into()]),
                    4 => client.set_meta_context("a", &["base:".into(), "x-test:one".into()]),
                    _ => client.go("a"),
                }
                .expect("a step");
                false
            }
            Ok(ClientEvent::Ready(_)) | Err(_) => true,
            Ok(_) => continue,
        };
        server.feed(&client.take_output());
        loop {
            match server.next() {
                Ok(Event::List) => {
                    let entry = ExportEntry { name: "a".into(), description: "b".into() };
                    server.exports(&[entry]).expect("asked for");
                }
                Ok(Event::Export { name, .. }) if name == "no" => {
                    server.refuse(ReplyType::ERR_UNKNOWN, "there is none").expect("asked for");
                }
                Ok(Event::Export { .. }) => server.export(export()).expect("asked for"),
                Ok(Event::MetaContexts { .. }) => {
                    server.contexts(&["base:allocation", "x-test:one"]).expect("asked for");
                }
                _ => break,
            }
        }
        let output = server.take_output();
        client.feed(&output);
        said.extend(output);
        if at_end {
            return said;
        }
    }
}

fn export() -> ExportInfo {
    ExportInfo {
        size: SIZE,
        flags: TransmissionFlags::ALL.without(TransmissionFlags::READ_ONLY),
        block_sizes: Some(BlockSizes { minimum: 1, preferred: 4096, maximum: 32 << 20 }),
        name: Some("a".into()),
        description: Some("for clients".into()),
    }
}

/// Every seed: a name and an input.
pub fn all() -> Vec<(String, Vec<u8>)> {
    use ReplyStyle::*;
    let full = || Wishes { contexts: vec!["base:allocation".into()], infos: Infos::ALL, ..Wishes::default() };
    let plain = || Wishes {
        structured_replies: false,
        extended_headers: false,
        infos: Infos::ALL,
        ..Wishes::default()
    };
    let steps = || Wishes { infos: Infos::ALL, opt_mode: true, ..Wishes::default() };
    let handshake = |name: &str, begin, wishes, policy| {
        Script::new(name, begin, 0).say(|out| *out = greeting(wishes, policy))
    };
    let mut scripts = vec![
        handshake("handshake", Begin::Handshake, full(), Policy::default()).way(way::ONE_BY_ONE),
        handshake("plain-handshake", Begin::PlainHandshake, plain(), Policy::default()),
        handshake("steps", Begin::Steps, steps(), Policy::default())
            .ask(0, 0, 0, 0)
            .ask(1, 0, 0, 0)
            .ask(2, 0, 0, 0)
            .ask(4, 0, 0, 0)
            .ask(6, 0, 0, 0),
        Script::new("oldstyle", Begin::Handshake, 0)
            .say(|out| out.extend(oldstyle::greeting(SIZE, TransmissionFlags::HAS_FLAGS))),
        handshake(
            "no-extended-and-refused",
            Begin::Handshake,
            Wishes { export: "no".into(), ..full() },
            Policy { extended_headers: false, ..Policy::default() },
        ),
        Script::new("http", Begin::Handshake, 0).say(|out| out.extend(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
        Script::agreed("dropped", Structured).ask(READ, 1, 1, 0).ask(READ, 2, 1, 1).answered(READ, 3, 1),
        Script::agreed("split", Extended).ask(READ, 0, 6, CARE).ask(ZERO, 0, 7, CARE).ask(TRIM, 1, 7, CARE),
    ];
    for (name, style) in [("simple", Simple), ("structured", Structured), ("extended", Extended)] {
        let named = |what: &str| format!("{name}-{what}");
        scripts.extend([
            Script::agreed(name, style).every_answer(),
            Script::agreed(&named("one-by-one"), style).way(way::ONE_BY_ONE | way::FED).every_answer(),
            Script::agreed(&named("in-pieces"), style).way(way::FED).every_answer(),
            Script::agreed(&named("blocking"), style).way(way::BLOCKING).every_answer(),
            Script::agreed(&named("live"), style).way(way::LIVE | 0x10).every_answer(),
            Script::wrong(&named("error"), style, |to, out| {
                to.error(out, Errno::EIO, "a bad block");
            }),
            Script::wrong(&named("cut-short"), style, |to, out| {
                to.data(out, true, to.offset, 512);
                out.extend([1; 100]);
            }),
            Script::wrong(&named("not-asked"), style, |to, out| {
                ReplyTo { cookie: to.cookie + 5, ..to }.done(out);
            }),
            Script::wrong(&named("done-without-data"), style, |to, out| to.done(out)),
        ]);
        if style.has_chunks() {
            scripts.extend([
                Script::wrong(&named("in-parts"), style, |to, out| {
                    to.hole(out, false, to.offset + 12, 500);
                    to.data(out, false, to.offset, 12);
                    out.extend([3; 12]);
                    to.done(out);
                }),
                Script::wrong(&named("twice"), style, |to, out| {
                    to.hole(out, false, to.offset, 500);
                    to.hole(out, true, to.offset + 499, 13);
                }),
                Script::wrong(&named("outside"), style, |to, out| to.hole(out, true, to.offset - 1, 512)),
                Script::wrong(&named("error-at"), style, |to, out| {
                    to.error_at(out, false, Errno::EIO, "bad", to.offset + 3);
                    to.done(out);
                }),
                Script::wrong(&named("simple-reply"), style, |to, out| {
                    out.extend(SimpleReply { error: None, cookie: to.cookie }.encode());
                }),
                Script::wrong(&named("huge-chunk"), style, |to, out| {
                    let header = ChunkHeader {
                        flags: ReplyFlags::DONE,
                        kind: ChunkType::OffsetData,
                        cookie: to.cookie,
                        offset: to.offset,
                        length: u64::from(u32::MAX),
                    };
                    match style {
                        Extended => out.extend(header.encode_extended()),
                        _ => out.extend(header.encode_structured()),
                    }
                    out.extend(to.offset.to_be_bytes());
                }),
            ]);
        }
    }
    scripts.into_iter().map(Script::input).collect()
}
