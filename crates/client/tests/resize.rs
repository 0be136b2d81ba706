//! The proposed RESIZE against servers written by hand, that break its rules among others.

use client::{Connection, RemoteDisk};
use disk::{Disk, Errno, Error, Range};
use net::{Stream, Wait};
use proto::{
    Command, CommandFlags, HeaderStyle, ReplyStyle, ReplyTo, Request, TransmissionFlags,
    handshake::{ExportInfo, Negotiated, Protocol},
};
use std::{thread, time::Duration};

const STYLE: ReplyStyle = ReplyStyle::Structured;

/// The next request; `None` when the client is gone.
fn next(stream: &Stream) -> Option<Request> {
    let mut bytes = [0; 28];
    let mut have = 0;
    while have < bytes.len() {
        match stream.recv(&mut bytes[have..], Wait::Block) {
            Ok(0) | Err(_) => return None,
            Ok(n) => have += n,
        }
    }
    Request::decode(HeaderStyle::Compact, &bytes).unwrap()
}

/// A disk of 1024 bytes in front of a server that answers every request as `answer` says.
fn disk(
    flags: TransmissionFlags,
    answer: impl Fn(&Request, ReplyTo, &mut Vec<u8>) + Send + 'static,
) -> RemoteDisk {
    let (near, far) = Stream::pair().unwrap();
    thread::spawn(move || {
        while let Some(request) = next(&far) {
            let mut out = Vec::new();
            if request.command != Command::Disc {
                answer(&request, ReplyTo { style: STYLE, cookie: request.cookie, offset: 0 }, &mut out);
            }
            if far.send_all(&out).is_err() {
                break;
            }
        }
    });
    let negotiated = Negotiated {
        protocol: Protocol::FixedNewstyle,
        tls: false,
        export: String::new(),
        info: ExportInfo { size: 1024, flags, ..ExportInfo::default() },
        replies: STYLE,
        contexts: Vec::new(),
    };
    RemoteDisk::from_connection(Connection::new(near, STYLE, &[]), negotiated)
}

fn offering(answer: impl Fn(&Request, ReplyTo, &mut Vec<u8>) + Send + 'static) -> RemoteDisk {
    disk(TransmissionFlags::HAS_FLAGS | TransmissionFlags::SEND_RESIZE, answer)
}

fn resize(disk: &RemoteDisk, size: u64) -> Result<u64, Error> {
    reactor::block_on(disk.resize(size))
}

#[test]
fn the_size_is_what_the_server_says_that_it_is() {
    let disk = offering(|request, to, out| {
        assert_eq!((request.command, request.length), (Command::Resize, 0));
        to.size(out, true, request.offset.next_multiple_of(512));
    });
    assert_eq!(resize(&disk, 2000).unwrap(), 2048);
    assert_eq!((disk.size(), disk.facts().size), (2048, 1024));
}

#[test]
fn nothing_is_asked_of_a_server_that_does_not_offer_it() {
    let disk = disk(TransmissionFlags::HAS_FLAGS, |request, _, _| panic!("{request:?}"));
    assert_eq!(resize(&disk, 2048).unwrap_err().errno(), Errno::NOTSUP);
    assert_eq!(disk.watch_size().err().unwrap().errno(), Errno::NOTSUP);
}

#[test]
fn a_refusal_leaves_the_size_and_the_connection() {
    let disk = offering(|request, to, out| match request.command {
        Command::Resize => to.error(out, proto::Errno::EPERM, "others use it"),
        _ => to.hole(out, true, request.offset, request.length as u32),
    });
    let error = resize(&disk, 512).unwrap_err();
    assert_eq!((error.errno(), disk.size()), (Errno::PERM, 1024));
    assert!(error.to_string().contains("others use it"), "{error}");
    assert!(disk.read(Range::new(0, 512)).wait().unwrap().is_zero());
}

#[test]
fn a_reply_that_breaks_the_rules_ends_the_connection_with_a_sentence() {
    type Reply = fn(ReplyTo, &mut Vec<u8>);
    let broken: [(Reply, &str); 5] = [
        (|to, out| to.done(out), "without telling the size"),
        (
            |to, out| {
                to.size(out, false, 1);
                to.size(out, true, 2);
            },
            "told the size twice",
        ),
        (|to, out| to.size(out, true, u64::MAX), "broke the protocol"),
        (|to, out| to.hole(out, true, 0, 512), "in reply to RESIZE"),
        (|to, out| ReplyTo { style: ReplyStyle::Simple, ..to }.done(out), "simple reply"),
    ];
    for (reply, says) in broken {
        let disk = offering(move |_, to, out| reply(to, out));
        let error = resize(&disk, 2048).unwrap_err();
        assert!(error.to_string().contains(says), "{error}, not {says}");
        assert!(disk.error().is_some());
    }
    let disk = offering(|_, to, out| to.size(out, true, 2048));
    let error = disk.read(Range::new(0, 512)).wait().unwrap_err();
    assert!(error.to_string().contains("in reply to READ"), "{error}");
}

#[test]
fn of_many_changes_the_last_one_is_told_and_requests_go_on_meanwhile() {
    let disk = offering(|request, to, out| match request.command {
        Command::Resize => {
            assert_eq!((request.flags, request.offset), (CommandFlags::RESIZE_NOTIFY, 0));
            for size in [1024, 2048, 4096] {
                to.size(out, false, size);
            }
        }
        _ => to.hole(out, true, request.offset, request.length as u32),
    });
    let mut watch = disk.watch_size().unwrap();
    // The read's answer comes behind all three.
    assert!(disk.read(Range::new(0, 512)).wait().unwrap().is_zero());
    assert_eq!((watch.wait().unwrap(), disk.size()), (4096, 4096));
    reactor::block_on(async {
        let next = std::pin::pin!(watch.next());
        let limit = std::pin::pin!(reactor::sleep(Duration::from_millis(20)));
        assert!(first(next, limit).await.is_none(), "nothing else has changed");
    });
    reactor::block_on(disk.disconnect()).unwrap();
    assert_eq!(watch.wait().unwrap_err().errno(), Errno::SHUTDOWN);
}

/// What `a` says, or `None` when `b` ends before.
async fn first<A: Future + Unpin, B: Future + Unpin>(mut a: A, mut b: B) -> Option<A::Output> {
    std::future::poll_fn(|cx| {
        if let std::task::Poll::Ready(out) = std::pin::Pin::new(&mut a).poll(cx) {
            return std::task::Poll::Ready(Some(out));
        }
        std::pin::Pin::new(&mut b).poll(cx).map(|_| None)
    })
    .await
}

#[test]
fn a_watch_that_the_server_ends_is_an_error() {
    for refuse in [false, true] {
        let disk = offering(move |_, to, out| match refuse {
            true => to.error(out, proto::Errno::EINVAL, "told already"),
            false => to.size(out, true, 2048),
        });
        let error = disk.watch_size().unwrap().wait().unwrap_err();
        let says = if refuse { "told already" } else { "tells no more" };
        assert!(error.to_string().contains(says), "{error}");
        assert!(disk.error().is_none(), "the connection lives on");
    }
}

#[test]
fn a_watch_can_be_dropped_and_what_comes_for_it_is_read_away() {
    let disk = offering(|request, to, out| match request.command {
        Command::Resize => to.size(out, false, 2048),
        _ => to.hole(out, true, request.offset, request.length as u32),
    });
    drop(disk.watch_size().unwrap());
    assert!(disk.read(Range::new(0, 512)).wait().unwrap().is_zero());
    reactor::block_on(disk.disconnect()).unwrap();
}
