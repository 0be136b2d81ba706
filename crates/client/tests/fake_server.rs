//! The client against servers written by hand: answers out of order, in pieces, wrong, or not at all.

use client::{
    Connection, RemoteDisk,
    connection::{Answer, Ask},
};
use disk::{Data, Disk, Errno, Kind, Range, Result, WriteFlags, ZeroFlags};
use net::{How, Stream, Wait};
use proto::{
    ChunkHeader, ChunkType, Command, CommandFlags, Context, Extent, ReplyFlags, ReplyStyle, ReplyTo, Request,
    SimpleReply, TransmissionFlags,
    command::BlockStatusPayload,
    handshake::{ExportInfo, Negotiated, Protocol},
    meta_context::BASE_ALLOCATION,
};
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
    thread::{self, JoinHandle},
    time::Duration,
};

/// The server's end: reads requests, sends bytes.
struct Server {
    stream: Stream,
    style: ReplyStyle,
}

impl Server {
    fn bytes(&self, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        let mut at = 0;
        while at < len {
            match self.stream.recv(&mut bytes[at..], Wait::Block) {
                Ok(0) | Err(_) => return None,
                Ok(n) => at += n,
            }
        }
        Some(bytes)
    }

    /// The next request with its payload; `None` when the client is gone.
    fn request(&self) -> Option<(Request, Vec<u8>)> {
        let style = self.style.header_style();
        let header = self.bytes(style.request_len())?;
        let request = Request::decode(style, &header).unwrap().unwrap();
        let payload = self.bytes(request.payload_len(style) as usize)?;
        Some((request, payload))
    }

    fn next(&self) -> Request {
        self.request().expect("the client should ask").0
    }

    fn reply(&self, request: &Request) -> ReplyTo {
        ReplyTo { style: self.style, cookie: request.cookie, offset: request.offset }
    }

    fn send(&self, build: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        build(&mut bytes);
        let _ = self.stream.send_all(&bytes); // a client that hung up is part of some tests
    }

    /// Serve until the client leaves.
    fn rest(&self) {
        while self.request().is_some() {}
    }
}

const SIZE: u64 = 1 << 40;

fn context(id: u32, name: &str) -> Context {
    Context { id, name: name.into() }
}

/// A disk in front of a server that runs `serve`.
fn disk(style: ReplyStyle, serve: impl FnOnce(Server) + Send + 'static) -> (RemoteDisk, JoinHandle<()>) {
    let (near, far) = Stream::pair().unwrap();
    let server = thread::spawn(move || serve(Server { stream: far, style }));
    let flags = TransmissionFlags::ALL.without(TransmissionFlags::READ_ONLY);
    let contexts = match style {
        ReplyStyle::Simple => vec![],
        _ => vec![context(7, BASE_ALLOCATION), context(3, "x-test:depth")],
    };
    let negotiated = Negotiated {
        protocol: Protocol::FixedNewstyle,
        tls: false,
        export: String::new(),
        info: ExportInfo { size: SIZE, flags, ..ExportInfo::default() },
        replies: style,
        contexts: contexts.clone(),
    };
    (RemoteDisk::from_connection(Connection::new(near, style, &contexts), negotiated), server)
}

fn pattern(at: u64, len: usize) -> Vec<u8> {
    (at..at + len as u64).map(|i| (i / 7) as u8 ^ (i >> 11) as u8).collect()
}

fn range(start: u64, len: u64) -> Range {
    Range::new(start, len)
}

#[test]
fn answers_come_in_any_order_and_find_their_requests() {
    for style in [ReplyStyle::Simple, ReplyStyle::Structured, ReplyStyle::Extended] {
        let lens = [4096, 1 << 20, 1, 65536, 300_000, 4096, 9];
        let (disk, server) = disk(style, move |s| {
            let mut requests: Vec<_> = lens.iter().map(|_| s.next()).collect();
            requests.reverse();
            requests.swap(0, 3);
            for r in requests {
                s.send(|out| {
                    s.reply(&r).data(out, true, r.offset, r.length as u32);
                    out.extend(pattern(r.offset, r.length as usize));
                });
            }
            s.rest();
        });
        let reads: Vec<_> =
            lens.iter().enumerate().map(|(i, len)| disk.read(range(i as u64 * 5000, *len))).collect();
        reactor::block_on(async {
            for (i, read) in reads.into_iter().enumerate() {
                let data = read.await.unwrap();
                assert!(data.to_vec() == pattern(i as u64 * 5000, lens[i] as usize), "{style:?}, read {i}");
            }
        });
        drop(disk);
        server.join().unwrap();
    }
}

#[test]
fn many_threads_share_a_connection() {
    for style in [ReplyStyle::Simple, ReplyStyle::Structured] {
        let (disk, server) = disk(style, |s| {
            while let Some((r, _)) = s.request() {
                if r.command == Command::Disc {
                    break;
                }
                s.send(|out| {
                    s.reply(&r).data(out, true, r.offset, r.length as u32);
                    out.extend(pattern(r.offset, r.length as usize));
                });
            }
        });
        thread::scope(|scope| {
            for t in 0..8u64 {
                let disk = &disk;
                scope.spawn(move || {
                    for i in 0..300 {
                        let (at, len) = (t * 1000 + i, if i % 50 == 0 { 100_000 } else { 512 });
                        let data = if t % 2 == 0 {
                            disk.read(range(at, len)).wait().unwrap()
                        } else {
                            let read = disk.read(range(at, len));
                            reactor::block_on(async { reactor::timeout(Duration::from_secs(20), read).await })
                                .expect("in time")
                                .unwrap()
                        };
                        assert!(data.to_vec() == pattern(at, len as usize));
                    }
                });
            }
        });
        drop(disk);
        server.join().unwrap();
    }
}

#[test]
fn structured_errors_bring_their_message() {
    let (disk, server) = disk(ReplyStyle::Structured, |s| {
        let r = s.next();
        s.send(|out| s.reply(&r).error(out, proto::Errno::ENOSPC, "the tank is full"));
        let r = s.next();
        // An error in the middle of a read, then the rest of its reply.
        s.send(|out| {
            s.reply(&r).data(out, false, r.offset, 10);
            out.extend([1; 10]);
            s.reply(&r).error_at(out, false, proto::Errno::EIO, "bad sector", r.offset + 10);
            s.reply(&r).done(out);
        });
        let r = s.next();
        // A type of error from the future.
        s.send(|out| {
            let header = ChunkHeader {
                flags: ReplyFlags::DONE,
                kind: ChunkType::Unknown(0x8fff),
                cookie: r.cookie,
                offset: 0,
                length: 8,
            };
            out.extend(header.encode_structured());
            out.extend([0, 0, 0, 1, 0, 0, 9, 9]);
        });
        s.rest();
    });
    let full = disk.write(0, Data::zeroes(10), WriteFlags::default()).wait().unwrap_err();
    assert_eq!((full.errno(), full.to_string().as_str()), (Errno::NOSPC, "the tank is full"));
    let bad = disk.read(range(5, 20)).wait().unwrap_err();
    assert_eq!((bad.errno(), bad.to_string().as_str()), (Errno::IO, "bad sector"));
    let future = disk.read(range(5, 20)).wait().unwrap_err();
    assert_eq!(future.errno(), Errno::PERM);
    drop(disk);
    server.join().unwrap();
}

#[test]
fn holes_stay_symbolic() {
    let (disk, server) = disk(ReplyStyle::Structured, |s| {
        let r = s.next();
        s.send(|out| s.reply(&r).hole(out, true, r.offset, r.length as u32));
        let r = s.next();
        // Out of order: a hole, the end, the start, the done flag on an empty chunk.
        s.send(|out| {
            s.reply(&r).hole(out, false, r.offset + 100, 800);
            s.reply(&r).data(out, false, r.offset + 900, 100);
            out.extend(pattern(900, 100));
            s.reply(&r).data(out, false, r.offset, 100);
            out.extend(pattern(0, 100));
            s.reply(&r).done(out);
        });
        s.rest();
    });
    let hole = disk.read(range(1 << 30, 1 << 24)).wait().unwrap();
    assert!(hole.says_zeroes() && hole.len() == 1 << 24);
    let mixed = disk.read(range(4096, 1000)).wait().unwrap();
    let expected = [pattern(0, 100), vec![0; 800], pattern(900, 100)].concat();
    assert_eq!(mixed.to_vec(), expected);
    assert_eq!(mixed.pieces().count(), 3);
    assert!(mixed.slice(100, 800).says_zeroes());
    drop(disk);
    server.join().unwrap();
}

#[test]
fn extended_headers_carry_64_bits_and_ask_for_one_context() {
    let (disk, server) = disk(ReplyStyle::Extended, |s| {
        let (r, payload) = s.request().unwrap();
        assert_eq!(r.command, Command::BlockStatus);
        let asked = BlockStatusPayload::decode(&payload).unwrap();
        assert_eq!((asked.length, asked.contexts), (SIZE, vec![7]));
        let extents = [Extent { length: 1 << 33, status: 0 }, Extent { length: 1 << 50, status: 3 }];
        s.send(|out| s.reply(&r).block_status(out, true, 7, &extents));
        let (r, payload) = s.request().unwrap();
        assert_eq!(BlockStatusPayload::decode(&payload).unwrap().contexts, [3]);
        assert!(r.flags.has(CommandFlags::REQ_ONE | CommandFlags::PAYLOAD_LEN));
        s.send(|out| s.reply(&r).block_status(out, true, 3, &[Extent { length: 512, status: 1 << 40 }]));
        let r = s.next();
        assert_eq!((r.command, r.length), (Command::Trim, 1 << 39));
        s.send(|out| s.reply(&r).done(out));
        let (r, payload) = s.request().unwrap();
        assert_eq!((r.command, payload), (Command::Write, b"abc".to_vec()));
        s.send(|out| s.reply(&r).done(out));
        s.rest();
    });
    let extents = disk.extents(range(0, SIZE), 100).wait().unwrap();
    let got: Vec<_> = extents.iter().map(|e| (e.len, e.kind)).collect();
    assert_eq!(got, [(1 << 33, Kind::DATA), (SIZE - (1 << 33), Kind::HOLE)]);
    let status = disk.status(0, range(4096, 512), 1).wait().unwrap();
    assert_eq!((status[0].len, status[0].value), (512, 1 << 40));
    disk.trim(range(0, 1 << 39), WriteFlags::default()).wait().unwrap();
    disk.write(9, Data::copy_from(b"abc"), WriteFlags::default()).wait().unwrap();
    drop(disk);
    server.join().unwrap();
}

#[test]
fn long_requests_are_split_where_the_protocol_ends() {
    let (disk, server) = disk(ReplyStyle::Structured, |s| {
        let (mut read, mut trimmed) = (0, 0);
        while let Some((r, payload)) = s.request() {
            match r.command {
                Command::Read => {
                    assert!(r.length <= 32 << 20);
                    read += r.length;
                    s.send(|out| s.reply(&r).hole(out, true, r.offset, r.length as u32));
                }
                Command::Trim => {
                    trimmed += r.length;
                    s.send(|out| s.reply(&r).done(out));
                }
                Command::Write => {
                    assert!(payload == pattern(r.offset, r.length as usize));
                    s.send(|out| s.reply(&r).done(out));
                }
                _ => break,
            }
        }
        assert_eq!((read, trimmed), (100 << 20, 5 << 30));
    });
    assert!(disk.read(range(12345, 100 << 20)).wait().unwrap().says_zeroes());
    disk.trim(range(1, 5 << 30), WriteFlags::default()).wait().unwrap();
    let data = Data::copy_from(&pattern(777, 40 << 20));
    disk.write(777, data, WriteFlags::default()).wait().unwrap();
    drop(disk);
    server.join().unwrap();
}

#[test]
fn a_dropped_request_is_still_sent_and_its_answer_is_read_away() {
    let (disk, server) = disk(ReplyStyle::Simple, |s| {
        let (written, payload) = s.request().unwrap();
        assert_eq!((written.command, payload.len()), (Command::Write, 5));
        let read = s.next();
        s.send(|out| {
            s.reply(&written).done(out);
            s.reply(&read).data(out, true, 0, 4);
            out.extend(b"data");
        });
        s.rest();
    });
    drop(disk.write(0, Data::copy_from(b"later"), WriteFlags::default()));
    assert_eq!(disk.read(range(0, 4)).wait().unwrap().to_vec(), b"data");
    reactor::block_on(disk.disconnect()).unwrap();
    // Whichever end is heard of first.
    assert!(disk.read(range(0, 4)).wait().is_err());
    drop(disk);
    server.join().unwrap();
}

#[test]
fn a_flush_and_a_close_wait_for_the_writes_whose_requests_were_dropped_and_for_no_others() {
    let (disk, server) = disk(ReplyStyle::Structured, |s| {
        let changes: Vec<Request> = (0..4).map(|_| s.next()).collect();
        let commands: Vec<Command> = changes.iter().map(|r| r.command).collect();
        assert_eq!(commands, [Command::Write, Command::WriteZeroes, Command::Trim, Command::Write]);
        for dropped in [2, 0, 1] {
            // The flush was asked for before this read.
            let read = s.next();
            assert_eq!(read.command, Command::Read);
            s.send(|out| {
                s.reply(&changes[dropped]).done(out);
                s.reply(&read).hole(out, true, read.offset, read.length as u32);
            });
        }
        let flush = s.next();
        assert_eq!(flush.command, Command::Flush);
        s.send(|out| {
            s.reply(&flush).done(out);
            s.reply(&changes[3]).done(out);
        });
        s.rest();
    });
    drop(disk.write(0, Data::copy_from(b"dropped"), WriteFlags::default()));
    drop(disk.zero(range(0, 4096), ZeroFlags::default()));
    drop(disk.trim(range(0, 4096), WriteFlags::default()));
    let kept = disk.write(8192, Data::copy_from(b"kept"), WriteFlags::default());
    let (mut flush, mut close) = (disk.flush(), disk.close());
    reactor::block_on(async {
        for _ in 0..3 {
            for io in [&mut flush, &mut close] {
                let poll = poll_fn(|cx| Poll::Ready(Pin::new(&mut *io).poll(cx)));
                assert!(poll.await.is_pending());
            }
            disk.read(range(0, 512)).await.unwrap();
        }
        close.await.unwrap();
        flush.await.unwrap();
        kept.await.unwrap();
    });
    drop(disk);
    server.join().unwrap();
}

#[test]
fn a_flush_does_not_wait_for_dropped_writes_of_a_connection_that_broke() {
    let (disk, server) = disk(ReplyStyle::Structured, |s| {
        s.next();
        s.next();
        let _ = s.stream.shutdown(How::Both);
    });
    drop(disk.write(0, Data::copy_from(b"dropped"), WriteFlags::default()));
    let flush = disk.flush();
    let read = disk.read(range(0, 512));
    let waited =
        reactor::block_on(reactor::timeout(Duration::from_secs(30), async { (flush.await, read.await) }));
    let (flush, read) = waited.expect("both are answered");
    assert_eq!(flush.unwrap_err().to_string(), read.unwrap_err().to_string());
    server.join().unwrap();
}

#[test]
fn a_long_write_that_fails_is_answered_when_all_its_parts_are() {
    let (disk, server) = disk(ReplyStyle::Structured, |s| {
        let parts: Vec<Request> = (0..5).map(|_| s.next()).collect();
        s.send(|out| s.reply(&parts[0]).error(out, proto::Errno::ENOSPC, ""));
        for part in [4, 3, 2, 1] {
            let read = s.next();
            assert_eq!(read.command, Command::Read);
            s.send(|out| {
                s.reply(&read).hole(out, true, read.offset, read.length as u32);
                s.reply(&parts[part]).done(out);
            });
        }
        s.rest();
    });
    let mut trim = disk.trim(range(0, 5 << 30), WriteFlags::default());
    reactor::block_on(async {
        for _ in 0..4 {
            let poll = poll_fn(|cx| Poll::Ready(Pin::new(&mut trim).poll(cx)));
            assert!(poll.await.is_pending());
            disk.read(range(0, 512)).await.unwrap();
        }
        assert_eq!(trim.await.unwrap_err().errno(), Errno::NOSPC);
    });
    drop(disk);
    server.join().unwrap();
}

/// Whatever the server sends, both requests in flight fail with the same sentence, and so do later ones.
#[track_caller]
fn breaks(style: ReplyStyle, sentence: &str, misbehave: impl FnOnce(&Server, Request) + Send + 'static) {
    let (disk, server) = disk(style, |s| {
        let first = s.next();
        s.next();
        misbehave(&s, first);
        let _ = s.stream.shutdown(How::Write);
        s.rest();
    });
    let (a, b) = (disk.read(range(1000, 100)), disk.read(range(0, 4096)));
    let waited = reactor::block_on(reactor::timeout(Duration::from_secs(10), async { (a.await, b.await) }));
    let (a, b) = waited.expect("both are answered");
    let (a, b) = (a.unwrap_err(), b.unwrap_err());
    assert!(a.to_string().contains(sentence), "{a}");
    assert_eq!((a.errno(), a.to_string()), (b.errno(), b.to_string()));
    let later = disk.flush().wait().unwrap_err();
    assert_eq!(later.to_string(), a.to_string());
    assert!(disk.error().is_some());
    server.join().unwrap();
}

#[test]
fn garbage_ends_the_connection() {
    use ReplyStyle::*;
    for style in [Simple, Structured, Extended] {
        breaks(style, "magic number is 0x47455420", |s, _| {
            s.send(|out| out.extend(b"GET / HTTP/1.1\r\n\r\n"))
        });
        breaks(style, "closed the connection with 2 requests unanswered", |_, _| ());
    }
    breaks(Simple, "a request that was not made", |s, r| {
        s.send(|out| out.extend(SimpleReply { error: None, cookie: r.cookie ^ (5 << 32) }.encode()));
    });
    breaks(Simple, "a request that was not made", |s, r| {
        s.send(|out| out.extend(SimpleReply { error: None, cookie: r.cookie + 1000 }.encode()));
    });
    breaks(Structured, "with a simple reply, against what was agreed", |s, r| {
        s.send(|out| out.extend(SimpleReply { error: None, cookie: r.cookie }.encode()));
    });
}

#[test]
fn a_reply_cut_short_ends_the_connection() {
    use ReplyStyle::*;
    for style in [Simple, Structured, Extended] {
        for keep in [3, 12, 22, 35, 60] {
            breaks(style, "closed the connection with 2 requests unanswered", move |s, r| {
                s.send(|out| {
                    s.reply(&r).data(out, true, r.offset, r.length as u32);
                    out.extend([1; 100]);
                    out.truncate(keep);
                });
            });
        }
    }
}

#[test]
fn chunks_that_do_not_fit_their_request_end_the_connection() {
    use ReplyStyle::*;
    fn data(s: &Server, r: &Request, done: bool, at: u64, len: u32) {
        s.send(|out| {
            s.reply(r).data(out, done, at, len);
            out.extend(vec![1; len as usize]);
        });
    }
    for style in [Structured, Extended] {
        breaks(style, "in reply to a read of 100 bytes at 1000", |s, r| data(s, &r, true, 999, 10));
        breaks(style, "in reply to a read of 100 bytes at 1000", |s, r| data(s, &r, true, 1000, 101));
        breaks(style, "in reply to a read of 100 bytes at 1000", |s, r| data(s, &r, true, u64::MAX, 10));
        breaks(style, "twice", |s, r| {
            data(s, &r, false, 1000, 50);
            data(s, &r, true, 1049, 51);
        });
        breaks(style, "twice", |s, r| {
            data(s, &r, false, 1000, 100);
            s.send(|out| s.reply(&r).hole(out, true, 1050, 1));
        });
        breaks(style, "ended its reply to a read of 100 bytes after 50 bytes", |s, r| {
            data(s, &r, true, 1000, 50);
        });
        breaks(style, "ended its reply to a read of 100 bytes after 0 bytes", |s, r| {
            s.send(|out| s.reply(&r).done(out));
        });
        breaks(style, "outside of the request", |s, r| {
            s.send(|out| s.reply(&r).error_at(out, true, proto::Errno::EIO, "", 5));
        });
        breaks(style, "in reply to READ", |s, r| {
            let extents = [Extent { length: 1, status: 1 }];
            s.send(|out| s.reply(&r).block_status(out, true, 7, &extents));
        });
    }
    breaks(Structured, "no such type was negotiated", |s, r| {
        s.send(|out| {
            let (flags, kind) = (ReplyFlags::DONE, ChunkType::Unknown(99));
            let header = ChunkHeader { flags, kind, cookie: r.cookie, offset: 0, length: 3 };
            out.extend(header.encode_structured());
            out.extend([1, 2, 3]);
        });
    });
    breaks(Extended, "repeats the offset 1001", |s, r| {
        let reply = ReplyTo { offset: 1001, ..s.reply(&r) };
        s.send(|out| reply.done(out));
    });
}

#[test]
fn a_context_that_is_not_in_use_ends_the_connection() {
    let (disk, server) = disk(ReplyStyle::Structured, |s| {
        let r = s.next();
        s.send(|out| s.reply(&r).block_status(out, true, 8, &[Extent { length: 1, status: 0 }]));
        s.rest();
    });
    let error = disk.extents(range(0, 512), 1).wait().unwrap_err();
    assert!(error.to_string().contains("metadata context 8"), "{error}");
    drop(disk);
    server.join().unwrap();
}

#[test]
fn random_bytes_never_panic() {
    // A small generator, so that a failure can be run again.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..200 {
        let style = [ReplyStyle::Simple, ReplyStyle::Structured, ReplyStyle::Extended][round % 3];
        let seeds: Vec<u64> = (0..40).map(|_| random()).collect();
        let (disk, server) = disk(style, move |s| {
            let r = s.next();
            let mut bytes = Vec::new();
            s.reply(&r).data(&mut bytes, style == ReplyStyle::Simple, r.offset, 64);
            bytes.extend([0; 64]);
            if style != ReplyStyle::Simple {
                s.reply(&r).hole(&mut bytes, false, r.offset + 64, 64);
                s.reply(&r).error(&mut bytes, proto::Errno::EIO, "why not");
            }
            // A whole reply with a few bytes changed gets further than noise does.
            for seed in seeds.iter().take(1 + round % 5) {
                let at = (*seed >> 8) as usize % bytes.len();
                bytes[at] = *seed as u8;
            }
            let _ = s.stream.send_all(&bytes);
            let _ = s.stream.shutdown(How::Write);
            s.rest();
        });
        let outcome: Result<Data> = disk.read(range(4096, 128)).wait();
        // Changed bytes may well be payload; that it ends at all, without a panic, is what counts.
        drop(outcome);
        drop(disk);
        server.join().unwrap();
    }
}

#[test]
fn a_ticket_can_be_waited_for_without_a_loop() {
    let (near, far) = Stream::pair().unwrap();
    let server = thread::spawn(move || {
        let s = Server { stream: far, style: ReplyStyle::Simple };
        let r = s.next();
        s.send(|out| s.reply(&r).done(out));
        s.rest();
    });
    let connection = Connection::new(near, ReplyStyle::Simple, &[]);
    let ask = Ask { command: Command::Flush, flags: CommandFlags::NONE, offset: 0, length: 0 };
    assert!(matches!(connection.submit(ask, None).unwrap().wait(), Ok(Answer::Done)));
    assert_eq!(connection.in_flight(), 0);
    drop(connection);
    server.join().unwrap();
}
