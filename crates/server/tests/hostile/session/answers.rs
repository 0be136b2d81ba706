//! What a server answered, held against what it was asked.
//!
//! Every request must be answered once and in its framing; where the disk is orderly, with the right bytes.

use proto::{
    Command, CommandFlags, ReplyHeader, ReplyStyle, Request,
    handshake::oldstyle::GREETING_LEN,
    limits::PAYLOAD_MAX,
    option::{OptionHeader, OptionReplyHeader, OptionType, ReplyType},
    reply::Payload,
};
use std::collections::HashMap;

/// The flags that a client sends before its options.
const CLIENT_FLAGS: usize = 4;
const NO_ZEROES: u32 = 2;
/// What the server says before them.
const NEWSTYLE_GREETING: usize = 18;
/// The answer to EXPORT_NAME, and the zeroes that may follow it.
const EXPORT: usize = 10;
const ZEROES: usize = 124;

/// Checks a session, and returns how many whole answers there were. `before`: the disk's bytes before it, if it carries
/// requests out in order.
pub(super) fn check(
    sent: &[u8],
    answers: &[u8],
    oldstyle: bool,
    ended_well: bool,
    before: Option<Vec<u8>>,
) -> usize {
    let begin = if oldstyle { Some((0, GREETING_LEN, ReplyStyle::Simple)) } else { handshake(sent, answers) };
    let Some((sent_at, answered_at, style)) = begin else { return 0 };
    let requests = requests(&sent[sent_at.min(sent.len())..], style);
    let answers = &answers[answered_at.min(answers.len())..];
    let mut names = HashMap::new();
    for (i, (request, _)) in requests.iter().enumerate() {
        if names.insert(request.cookie, i).is_some() {
            // Whom an answer is meant for cannot be known; in chunks, at least how many there are.
            if style != ReplyStyle::Simple {
                let done = chunks(answers, style).filter(|(header, _)| is_last(header)).count();
                assert!(done <= requests.len() && (!ended_well || done == requests.len()));
            }
            return 0;
        }
    }
    let replies = replies(answers, style, &requests, &names);
    if ended_well {
        let left = requests.iter().zip(&replies).find(|(_, reply)| !reply.done);
        assert!(left.is_none(), "no answer to {:?} of {requests:?}", left.map(|(r, _)| r.0));
    }
    if let Some(bytes) = before {
        compare(bytes, &requests, &replies);
    }
    replies.iter().filter(|reply| reply.done).count()
}

/// Where the transmission phase begins in what was sent and what was answered, and how it is framed; `None` if there
/// is none.
fn handshake(sent: &[u8], answers: &[u8]) -> Option<(usize, usize, ReplyStyle)> {
    let flags = u32::from_be_bytes(*sent.first_chunk()?);
    let (mut sent_at, mut at, mut style) = (CLIENT_FLAGS, NEWSTYLE_GREETING, ReplyStyle::Simple);
    loop {
        let option = OptionHeader::decode(sent.get(sent_at..)?).ok()??;
        sent_at += OptionHeader::LEN + option.length as usize;
        if option.option == OptionType::EXPORT_NAME {
            let zeroes = if flags & NO_ZEROES == 0 { ZEROES } else { 0 };
            return (answers.len() >= at + EXPORT).then_some((sent_at, at + EXPORT + zeroes, style));
        }
        loop {
            if at == answers.len() {
                return None;
            }
            let reply = OptionReplyHeader::decode(&answers[at..]).expect("a reply").expect("a whole reply");
            at += OptionReplyHeader::LEN + reply.length as usize;
            assert!(at <= answers.len(), "a reply cut short");
            assert_eq!(reply.option, option.option);
            if reply.reply == ReplyType::ACK {
                match option.option {
                    OptionType::STRUCTURED_REPLY => style = ReplyStyle::Structured,
                    OptionType::EXTENDED_HEADERS => style = ReplyStyle::Extended,
                    OptionType::GO => return Some((sent_at, at, style)),
                    _ => {}
                }
            }
            if reply.reply == ReplyType::ACK || reply.reply.is_error() {
                break;
            }
        }
    }
}

/// The whole requests before a goodbye, each with its payload.
fn requests(mut sent: &[u8], style: ReplyStyle) -> Vec<(Request, &[u8])> {
    let style = style.header_style();
    let mut list = Vec::new();
    while let Ok(Some(request)) = Request::decode(style, sent) {
        if request.command == Command::Disc {
            break;
        }
        let payload = usize::try_from(request.payload_len(style)).unwrap_or(usize::MAX);
        let Some((payload, rest)) = sent[style.request_len()..].split_at_checked(payload) else { break };
        list.push((request, payload));
        sent = rest;
    }
    list
}

/// The chunks (or simple replies without payload) of a stream, each with its payload.
fn chunks(mut answers: &[u8], style: ReplyStyle) -> impl Iterator<Item = (ReplyHeader, &[u8])> {
    std::iter::from_fn(move || {
        let (header, used) = ReplyHeader::decode(style, answers).expect("a reply")?;
        answers = &answers[used..];
        let len = match &header {
            ReplyHeader::Simple(_) => 0,
            ReplyHeader::Chunk(chunk) => {
                chunk.check().expect("a chunk of a sound length");
                chunk.length as usize
            }
        };
        let (payload, rest) = answers.split_at_checked(len).expect("a whole payload");
        answers = rest;
        Some((header, payload))
    })
}

fn is_last(header: &ReplyHeader) -> bool {
    match header {
        ReplyHeader::Simple(_) => true,
        ReplyHeader::Chunk(chunk) => chunk.is_done(),
    }
}

/// The answer to one request.
#[derive(Clone, Default)]
struct Reply {
    done: bool,
    failed: bool,
    /// Of a read: which bytes came.
    parts: Vec<(u64, Vec<u8>)>,
    described: Vec<u32>,
}

fn replies(
    mut answers: &[u8],
    style: ReplyStyle,
    requests: &[(Request, &[u8])],
    names: &HashMap<u64, usize>,
) -> Vec<Reply> {
    let mut replies = vec![Reply::default(); requests.len()];
    let whose = |cookie| *names.get(&cookie).expect("an answer to a question");
    if style == ReplyStyle::Simple {
        while let Some((ReplyHeader::Simple(header), used)) =
            ReplyHeader::decode(style, answers).expect("a reply")
        {
            let i = whose(header.cookie);
            let (request, reply) = (&requests[i].0, &mut replies[i]);
            assert!(!reply.done, "{request:?} answered twice");
            (reply.done, reply.failed) = (true, header.error.is_some());
            answers = &answers[used..];
            if request.command == Command::Read && !reply.failed {
                let (data, rest) = answers.split_at(request.length as usize);
                reply.parts.push((request.offset, data.to_vec()));
                answers = rest;
            }
        }
        return replies;
    }
    for (header, payload) in chunks(answers, style) {
        let i = whose(header.cookie());
        let (request, reply) = (&requests[i].0, &mut replies[i]);
        assert!(!reply.done, "{request:?} answered twice");
        reply.done = is_last(&header);
        let ReplyHeader::Chunk(chunk) = header else {
            assert!(request.command != Command::Read && request.command != Command::BlockStatus);
            continue;
        };
        if style == ReplyStyle::Extended {
            assert_eq!(chunk.offset, request.offset);
        }
        match Payload::decode(chunk.kind, payload).expect("a sound payload") {
            Payload::None => {}
            Payload::Data { offset, data } => reply.parts.push((offset, data.to_vec())),
            Payload::Hole { offset, length } => reply.parts.push((offset, vec![0; length as usize])),
            Payload::BlockStatus { context, extents } => {
                assert_eq!(request.command, Command::BlockStatus);
                assert!(!extents.is_empty() && extents.iter().all(|e| e.length > 0), "{extents:?}");
                assert!(!request.flags.has(CommandFlags::REQ_ONE) || extents.len() == 1);
                assert!(!reply.described.contains(&context), "context {context} twice");
                reply.described.push(context);
            }
            Payload::Size(_) => panic!("a size, though no disk here can be resized"),
            Payload::Error(_) => reply.failed = true,
        }
        if !reply.done || reply.failed {
            continue;
        }
        match request.command {
            Command::Read => {
                // The server sends them in order.
                let mut at = request.offset;
                for (offset, bytes) in &reply.parts {
                    assert_eq!(*offset, at, "{request:?}");
                    at += bytes.len() as u64;
                }
                assert_eq!(at - request.offset, request.length, "{request:?}");
                let whole = request.flags.has(CommandFlags::DF);
                assert!(!whole || reply.parts.len() == 1, "{request:?} in {} parts", reply.parts.len());
            }
            Command::BlockStatus => assert!(!reply.described.is_empty(), "{request:?}"),
            _ => {}
        }
    }
    replies
}

/// Carries the successful requests out on `bytes`, and compares what was read.
fn compare(mut bytes: Vec<u8>, requests: &[(Request, &[u8])], replies: &[Reply]) {
    /// The fake disk trims whole ones.
    const GRANULE: usize = 512;
    for ((request, payload), reply) in requests.iter().zip(replies) {
        if !reply.done
            || reply.failed
            || !matches!(
                request.command,
                Command::Read | Command::Write | Command::WriteZeroes | Command::Trim
            )
        {
            continue;
        }
        assert!(request.length <= u64::from(PAYLOAD_MAX));
        let (start, end) = (request.offset as usize, (request.offset + request.length) as usize);
        match request.command {
            Command::Write => bytes[start..end].copy_from_slice(payload),
            Command::WriteZeroes => bytes[start..end].fill(0),
            Command::Trim => {
                let (first, last) = (start.next_multiple_of(GRANULE), end / GRANULE * GRANULE);
                if first < last {
                    bytes[first..last].fill(0);
                }
            }
            _ => {
                let read = reply.parts.iter().map(|(_, bytes)| &bytes[..]).collect::<Vec<_>>().concat();
                assert!(read == bytes[start..end], "{request:?} read other bytes than were written");
            }
        }
    }
}
