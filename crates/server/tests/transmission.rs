//! Requests and replies over all three framings, as a client sees them.

mod common;

use common::{Client, Ram, Running, SIZE, wishes};
use proto::{
    ChunkType, Command, CommandFlags as F, ReplyHeader, ReplyStyle, TransmissionFlags,
    handshake::client::Wishes,
};
use std::time::Duration;

const STYLES: [ReplyStyle; 3] = [ReplyStyle::Simple, ReplyStyle::Structured, ReplyStyle::Extended];
const EINVAL: u32 = 22;

fn code(answer: common::Answer) -> u32 {
    answer.expect_err("an error").0
}

#[test]
fn every_command_works_over_every_framing() {
    for style in STYLES {
        let (running, mut client) = Client::start(style);
        client.write(4096, &[1; 5000]).unwrap();
        assert_eq!(client.read(4000, 6000).unwrap(), {
            let mut expected = vec![0; 6000];
            expected[96..5096].fill(1);
            expected
        });
        client.ask(Command::WriteZeroes, F::NO_HOLE, 4096, 100, &[]).unwrap();
        client.ask(Command::Trim, F::FUA, 8192, 4096, &[]).unwrap();
        client.ask(Command::Cache, F::NONE, 0, 4096, &[]).unwrap();
        client.ask(Command::Flush, F::NONE, 0, 0, &[]).unwrap();
        assert_eq!(
            *running.ram.asked.lock().unwrap(),
            [
                "write 5000 at 4096 fua=false",
                "zero 100 bytes at 4096 fua=false may_trim=false fast=false",
                "trim 4096 bytes at 8192 fua=true",
                "cache 4096 bytes at 0",
                "flush"
            ]
        );
        client.disconnect();
        assert_eq!(running.end(), [""; 0], "{style:?}");
    }
}

#[test]
fn a_large_write_comes_through_in_pieces() {
    for style in STYLES {
        let (_running, mut client) = Client::start(style);
        let bytes: Vec<u8> = (0..SIZE - 3).map(|i| (i % 251) as u8).collect();
        client.write(3, &bytes).unwrap();
        assert!(client.read(3, bytes.len() as u64 / 2).unwrap() == bytes[..bytes.len() / 2]);
    }
}

#[test]
fn answers_do_not_wait_for_the_rest_of_a_request() {
    // Of a write that is carried out, of one that is refused.
    for (at, len) in [(0, 4096), (SIZE as u64, 4096)] {
        let (running, mut client) = Client::start(ReplyStyle::Simple);
        client.send(Command::Read, F::NONE, 1, 0, 512, &[]);
        client.send(Command::Write, F::NONE, 2, at, len, &[1; 100]);
        // Comes only if the server does not sleep on it for ever.
        client.stream.set_recv_timeout(Some(Duration::from_secs(60))).unwrap();
        assert_eq!(client.answer(1, 0, 512).unwrap(), [0; 512]);
        client.stream.send_all(&vec![1; len as usize - 100]).unwrap();
        assert_eq!(client.answer(2, 0, 0).is_ok(), at == 0);
        client.disconnect();
        running.end();
    }
}

#[test]
fn holes_travel_as_holes() {
    for style in [ReplyStyle::Structured, ReplyStyle::Extended] {
        let (_running, mut client) = Client::start(style);
        client.write(8192, b"x").unwrap();
        client.send(Command::Read, F::NONE, 1, 0, 16384, &[]);
        let mut chunks = vec![];
        loop {
            let (ReplyHeader::Chunk(chunk), _) = client.reply(0).unwrap() else { panic!("not a chunk") };
            chunks.push((chunk.kind, chunk.length));
            if chunk.is_done() {
                break;
            }
        }
        let hole = (ChunkType::OffsetHole, 12);
        assert_eq!(chunks, [hole, (ChunkType::OffsetData, 8 + 4096), hole]);

        client.send(Command::Read, F::DF, 2, 0, 16384, &[]);
        let (ReplyHeader::Chunk(chunk), _) = client.reply(0).unwrap() else { panic!("not a chunk") };
        assert!(chunk.is_done() && chunk.length == 8 + 16384, "DF forbids fragments");
    }
}

#[test]
fn block_status_tells_each_context() {
    let (_running, mut client) = Client::start(ReplyStyle::Structured);
    client.write(8192, &[1; 4096]).unwrap();
    let text = String::from_utf8(client.ask(Command::BlockStatus, F::NONE, 0, 16384, &[]).unwrap()).unwrap();
    assert_eq!(text, "1: [(8192, 3), (4096, 0), (4096, 3)]\n2: [(16384, 1)]\n");
    let one = client.ask(Command::BlockStatus, F::REQ_ONE, 0, 16384, &[]).unwrap();
    assert_eq!(String::from_utf8(one).unwrap(), "1: [(8192, 3)]\n2: [(16384, 1)]\n");
}

#[test]
fn a_block_status_payload_chooses_contexts() {
    let (_running, mut client) = Client::start(ReplyStyle::Extended);
    assert!(client.negotiated.info.flags.has(TransmissionFlags::BLOCK_STATUS_PAYLOAD));
    let payload = |length: u64, ids: &[u32]| {
        let mut p = length.to_be_bytes().to_vec();
        ids.iter().for_each(|id| p.extend(id.to_be_bytes()));
        p
    };
    let mut ask = |p: &[u8]| client.ask(Command::BlockStatus, F::PAYLOAD_LEN, 4096, p.len() as u64, p);
    let text = String::from_utf8(ask(&payload(8192, &[2])).unwrap()).unwrap();
    assert_eq!(text, "2: [(8192, 1)]\n");
    assert_eq!(code(ask(&payload(8192, &[9]))), EINVAL);
    assert_eq!(code(ask(&payload(8192, &[2, 2]))), EINVAL);
    assert_eq!(code(ask(&payload(8192, &[]))), EINVAL);
    assert_eq!(code(ask(&payload(SIZE as u64, &[1]))), EINVAL);
    assert_eq!(code(ask(&[0; 2000])), EINVAL);
    assert!(client.read(0, 512).is_ok(), "the stream has kept its place");
}

#[test]
fn wrong_requests_get_errors_and_the_connection_lives() {
    let (enospc, enotsup) = (28, 95);
    for style in STYLES {
        let (_running, mut client) = Client::start(style);
        let size = SIZE as u64;
        assert_eq!(code(client.read(size - 1, 2)), EINVAL);
        assert_eq!(code(client.read(u64::MAX, 2)), EINVAL);
        assert_eq!(code(client.read(0, 0)), EINVAL);
        assert_eq!(code(client.write(size - 1, &[1; 2])), enospc);
        assert_eq!(code(client.ask(Command::WriteZeroes, F::NONE, size, 1, &[])), enospc);
        assert_eq!(code(client.ask(Command::WriteZeroes, F::FAST_ZERO, 0, 1, &[])), enotsup);
        assert_eq!(code(client.ask(Command::Trim, F::DF, 0, 1, &[])), EINVAL);
        assert_eq!(code(client.ask(Command::Flush, F::NONE, 1, 0, &[])), EINVAL);
        assert_eq!(code(client.ask(Command::Unknown(77), F::NONE, 0, 1, &[])), EINVAL);
        assert_eq!(code(client.read(0, 65 << 20)), EINVAL);
        let bad = client.read(0xc0000, 512).unwrap_err();
        assert_eq!(bad, (5, if style == ReplyStyle::Simple { "" } else { "a bad block" }.into()));
        client.write(0, b"still here").unwrap();
        assert_eq!(client.read(0, 10).unwrap(), b"still here");
        client.disconnect();
    }
}

#[test]
fn a_payload_where_none_belongs_is_read_away() {
    let (_running, mut client) = Client::start(ReplyStyle::Extended);
    assert_eq!(code(client.ask(Command::Read, F::PAYLOAD_LEN, 0, 5000, &[9; 5000])), EINVAL);
    // qemu leaves the flag out: a write has its payload all the same.
    client.ask(Command::Write, F::NONE, 0, 5000, &[9; 5000]).unwrap();
    assert!(client.read(0, 512).is_ok());
}

#[test]
fn an_extended_payload_beyond_the_maximum_ends_the_connection() {
    let (running, mut client) = Client::start(ReplyStyle::Extended);
    client.send(Command::Write, F::PAYLOAD_LEN, 1, 0, 1 << 40, &[]);
    assert!(client.reply(0).is_none());
    let lines = running.end();
    assert!(lines.len() == 1 && lines[0].contains("1099511627776 bytes"), "{lines:?}");
}

#[test]
fn effect_lengths_of_64_bits_reach_the_disk() {
    let (running, stream) = Running::start(Ram::new(|f| f.size = 1 << 50), |_| ());
    let mut client = Client::handshake(stream, wishes(ReplyStyle::Extended));
    client.ask(Command::Trim, F::NONE, 1 << 20, 1 << 40, &[]).unwrap();
    assert_eq!(*running.ram.asked.lock().unwrap(), ["trim 1099511627776 bytes at 1048576 fua=false"]);
}

#[test]
fn answers_overtake_one_that_waits() {
    for style in STYLES {
        let (running, mut client) = Client::start(style);
        client.send(Command::Read, F::NONE, 1, 0x80000, 512, &[]);
        client.send(Command::Read, F::NONE, 2, 0, 512, &[]);
        client.answer(2, 0, 512).unwrap();
        client.send(Command::Read, F::NONE, 3, 512, 512, &[]);
        client.answer(3, 512, 512).unwrap();
        client.answer(1, 0x80000, 512).unwrap();
        client.disconnect();
        assert_eq!(running.end(), [""; 0]);
    }
}

#[test]
fn what_is_in_flight_is_answered_before_the_end() {
    for stop in [false, true] {
        let (running, mut client) = Client::start(ReplyStyle::Structured);
        client.send(Command::Read, F::NONE, 1, 0x80000, 512, &[]);
        if stop {
            std::thread::sleep(std::time::Duration::from_millis(50)); // the request has been taken
            running.server.stop();
        } else {
            client.send(Command::Disc, F::NONE, 0, 0, 0, &[]);
        }
        client.answer(1, 0x80000, 512).unwrap();
        assert!(client.reply(0).is_none());
        assert_eq!(running.end(), [""; 0]);
    }
}

#[test]
fn a_client_that_vanishes_is_one_line_in_the_log() {
    let (running, mut client) = Client::start(ReplyStyle::Structured);
    client.send(Command::Write, F::NONE, 1, 0, 10_000, &[1; 100]);
    drop(client);
    let lines = running.end();
    assert_eq!(lines, ["connection 1: the client closed the connection in the middle of a request"]);
}

#[test]
fn garbage_after_the_handshake_is_one_line_in_the_log() {
    let (running, client) = Client::start(ReplyStyle::Simple);
    client.stream.send_all(&[0x55; 100]).unwrap();
    let lines = running.end();
    assert!(lines.len() == 1 && lines[0].contains("magic"), "{lines:?}");
}

#[test]
fn a_read_only_client_changes_nothing() {
    let (running, stream) = Running::start(Ram::new(|_| ()), |o| o.read_only = true);
    let mut client = Client::handshake(stream, wishes(ReplyStyle::Structured));
    assert!(client.negotiated.info.flags.has(TransmissionFlags::READ_ONLY));
    assert_eq!(code(client.write(0, &[1; 5000])), 1);
    assert_eq!(code(client.ask(Command::WriteZeroes, F::NONE, 0, 1, &[])), 1);
    assert_eq!(code(client.ask(Command::Trim, F::NONE, 0, 1, &[])), 1);
    assert!(client.read(0, 512).is_ok());
    assert_eq!(*running.ram.asked.lock().unwrap(), [""; 0]);
}

#[test]
fn requests_must_keep_to_the_minimum_block_size() {
    let (_running, stream) = Running::start(Ram::new(|f| f.blocks.minimum = 512), |_| ());
    let mut client = Client::handshake(stream, wishes(ReplyStyle::Structured));
    assert_eq!(code(client.read(1, 512)), EINVAL);
    assert_eq!(code(client.write(0, &[1; 100])), EINVAL);
    assert!(client.read(512, 1024).is_ok());
}

#[test]
fn an_oldstyle_client_is_served() {
    let (running, stream) = Running::start(Ram::new(|_| ()), |o| o.oldstyle = true);
    let mut client = Client::handshake(stream, Wishes::default());
    assert_eq!(client.negotiated.protocol.name(), "oldstyle");
    assert_eq!(client.negotiated.info.size, SIZE as u64);
    client.write(10, b"old").unwrap();
    assert_eq!(client.read(9, 5).unwrap(), b"\0old\0");
    client.disconnect();
    assert_eq!(running.end(), [""; 0]);
}
