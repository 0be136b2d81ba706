//! Handles that are pumped, with servers that answer as they should, in any pieces and order, and with servers that say
//! anything at all: then the handle neither panics nor hangs, and every request ends once.
#![allow(missing_docs, unreachable_pub, reason = "shared with the fuzz target")]

mod session;

use client::handle::{Handle, State, fault::errno};
use conformance::Random;
use proto::{Errno, Extent, ReplyStyle, ReplyTo, SimpleReply};
use session::{Outcome, READ, READ_CHUNKS, STATUS, run, way};
use std::{fs, os::unix::net::UnixStream, path::Path};

fn to(style: ReplyStyle, cookie: u64, offset: u64) -> ReplyTo {
    ReplyTo { style, cookie, offset }
}

/// Four requests, answered in another order.
fn answered(style: ReplyStyle) -> Vec<u8> {
    let how = if style == ReplyStyle::Extended { way::EXTENDED } else { way::STRUCTURED };
    let mut input = vec![how, 4, READ, 0, READ_CHUNKS, 1, STATUS, 0, 7, 0];
    to(style, 4, 0).done(&mut input);
    to(style, 2, 512).data(&mut input, false, 512, 256);
    input.extend([7; 256]);
    to(style, 3, 0).block_status(&mut input, true, 7, &[Extent { length: 4096, status: 3 }]);
    to(style, 2, 512).hole(&mut input, true, 768, 256);
    to(style, 1, 0).data(&mut input, true, 0, 512);
    input.extend([9; 512]);
    input
}

fn simple() -> Vec<u8> {
    let mut input = vec![way::SIMPLE, 3, READ, 0, 7, 0, READ, 1];
    input.extend(SimpleReply { error: None, cookie: 2 }.encode());
    input.extend(SimpleReply { error: Some(Errno::EIO), cookie: 3 }.encode());
    input.extend(SimpleReply { error: None, cookie: 1 }.encode());
    input.extend([1; 512]);
    input
}

#[test]
fn answers_in_any_order_are_each_others_and_parts_are_heard() {
    for style in [ReplyStyle::Structured, ReplyStyle::Extended] {
        assert_eq!(run(&answered(style)), Outcome { succeeded: 4, failed: 0, heard: 3 }, "{style:?}");
    }
    assert_eq!(run(&simple()), Outcome { succeeded: 2, failed: 1, heard: 0 });
}

#[test]
fn an_answer_that_is_cut_off_fails_its_request_and_no_other() {
    let whole = answered(ReplyStyle::Structured);
    for cut in 10..whole.len() {
        let outcome = run(&whole[..cut]);
        assert_eq!(outcome.succeeded + outcome.failed, 4);
        assert!(outcome.failed > 0, "cut at {cut}: {outcome:?}");
    }
}

#[test]
fn answers_that_nobody_asked_for_end_the_connection() {
    let style = ReplyStyle::Structured;
    let mut input = vec![way::STRUCTURED, 1, READ, 0];
    // Beyond the request.
    to(style, 1, 0).data(&mut input, true, 256, 512);
    input.extend([1; 512]);
    assert_eq!(run(&input), Outcome { failed: 1, ..Outcome::default() });
    // To somebody else.
    let mut input = vec![way::STRUCTURED, 1, READ, 0];
    to(style, 9, 0).done(&mut input);
    assert_eq!(run(&input), Outcome { failed: 1, ..Outcome::default() });
    // Only in part.
    let mut input = vec![way::STRUCTURED, 2, READ, 0, 7, 0];
    to(style, 1, 0).data(&mut input, true, 0, 256);
    input.extend([1; 256]);
    to(style, 2, 0).done(&mut input);
    assert_eq!(run(&input), Outcome { succeeded: 1, failed: 1, heard: 0 });
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut raw = vec![way::RAW | way::OPT_MODE, 0];
    raw.extend(b"NBDMAGICIHAVEOPT\0\x03");
    vec![
        ("structured", answered(ReplyStyle::Structured)),
        ("extended", answered(ReplyStyle::Extended)),
        ("simple", simple()),
        ("greeting", raw),
    ]
}

#[test]
fn the_committed_seeds_are_these_and_all_that_is_committed_runs() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/handle");
    if !dir.parent().is_some_and(Path::exists) {
        println!("SKIPPED: needs the fuzz directory");
        return;
    }
    for (name, input) in seeds() {
        if std::env::var_os("WRITE_SEEDS").is_some() {
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(name), &input).unwrap();
        }
        assert!(
            fs::read(dir.join(name)).is_ok_and(|found| found == input),
            "WRITE_SEEDS=1 writes {name} anew"
        );
    }
    for dir in [dir.join("found"), dir] {
        for path in fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.is_file() {
                println!("{}", path.display());
                run(&fs::read(&path).unwrap());
            }
        }
    }
}

#[test]
fn no_words_of_a_server_make_it_panic_or_hang() {
    let mut random = Random::new(0x6e62_645f);
    let seeds = seeds();
    for round in 0..4000 {
        let mut input = seeds[round % seeds.len()].1.clone();
        input[0] |= random.below(2) as u8 * way::LENIENT;
        for _ in 0..=random.below(4) {
            let at = 2 + random.below(input.len() as u64 - 2) as usize;
            match random.below(4) {
                0 => input[at] = random.below(256) as u8,
                1 => input[at] ^= 1 << random.below(8),
                2 => input.truncate(at.max(10)),
                _ => {
                    for _ in 0..random.below(64) {
                        input.push(random.below(256) as u8);
                    }
                }
            }
        }
        run(&input);
    }
}

#[test]
fn states_decide_what_may_be_done_and_errors_have_libnbds_numbers() {
    let mut h = Handle::new();
    assert_eq!(h.state(), State::Created);
    assert_eq!(h.aio_flush(0.into()).unwrap_err().errno, errno::ENOTCONN);
    assert_eq!(h.size().unwrap_err().errno, errno::ENOTCONN);
    assert_eq!(h.poll(0).unwrap_err().errno, errno::EINVAL);
    assert_eq!(h.set_export(&"x".repeat(4097)).unwrap_err().errno, errno::ENAMETOOLONG);
    assert_eq!(h.set_tls(3).unwrap_err().errno, errno::EINVAL);
    let (near, far) = UnixStream::pair().unwrap();
    h.aio_connect_socket(near.into()).unwrap();
    assert_eq!((h.state(), h.direction()), (State::Connecting, (true, false)));
    assert_eq!(h.set_export("late").unwrap_err().errno, errno::EINVAL);
    assert!(!h.poll(0).unwrap(), "the server is silent");
    drop(far);
    let gone = h.connected().unwrap_err();
    assert_eq!((gone.errno, h.state()), (0, State::Dead));
    assert_eq!(h.aio_flush(0.into()).unwrap_err().errno, errno::EINVAL);
    assert_eq!(h.kill_subprocess(0).unwrap_err().errno, errno::ESRCH);
}
