//! Thread models under load, of the binary: how long it takes many clients to have many slow reads answered tells how many of
//! them were carried out at once. Only lower bounds are sharp, so that a busy machine proves nothing wrong.

use e2e::command::READ;
use e2e::{Server, Way, Wire, reply, request};
use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

const DELAY: Duration = Duration::from_millis(10);

/// Asks for so many blocks at once, and takes the answers in whatever order they come.
fn read(wire: &mut Wire, requests: u32) {
    for number in 0..requests {
        let bytes = request(READ, number.into(), u64::from(number) * 512, 512);
        wire.write_all(&bytes).unwrap();
    }
    let mut answered = vec![false; requests as usize];
    for _ in 0..requests {
        let (number, error) = reply(wire).unwrap();
        let mut data = [0; 512];
        wire.read_exact(&mut data).unwrap();
        assert_eq!(error, 0);
        assert!(!std::mem::replace(&mut answered[number as usize], true), "one answer for each");
        // The plugin's pattern is every word's own offset.
        assert_eq!(u64::from_be_bytes(data[..8].try_into().unwrap()), number * 512);
    }
}

/// A server whose reads take [`DELAY`], at the least.
fn server(way: Way, model: &str) -> Server {
    let (filter, model) = match model {
        "" => (String::new(), String::new()),
        model => ("--filter=noparallel".to_owned(), format!("serialize={model}")),
    };
    way.server(&format!("{filter} --filter=delay pattern 1M rdelay={}ms {model}", DELAY.as_millis()))
}

/// How long it takes so many clients to have so many reads each answered.
fn takes(way: Way, model: &str, clients: u32, requests: u32) -> Duration {
    let server = server(way, model);
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let mut wire = way.connect(&server);
                wire.choose();
                read(&mut wire, requests);
            });
        }
    });
    start.elapsed()
}

#[test]
fn all_requests_are_carried_out_one_by_one() {
    for way in Way::ALL {
        assert!(takes(way, "all-requests", 8, 12) >= DELAY * 8 * 12);
    }
}

#[test]
fn requests_of_a_client_are_carried_out_one_by_one() {
    for way in Way::ALL {
        assert!(takes(way, "requests", 8, 24) >= DELAY * 24);
    }
    // Those of different clients are not: 64 clients one after the other would take 15 seconds.
    let one_by_one = DELAY * 64 * 24;
    assert!(takes(Way::Plain, "requests", 64, 24) < one_by_one);
}

#[test]
fn parallel_requests_are_carried_out_at_once() {
    for way in Way::ALL {
        assert!(takes(way, "", 4, 400) < DELAY * 4 * 400);
    }
}

#[test]
fn clients_are_served_one_after_the_other() {
    for way in Way::ALL {
        let server = server(way, "connections");
        let mut first = way.connect(&server);
        first.choose();
        read(&mut first, 12);
        thread::scope(|scope| {
            let others: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut wire = way.connect(&server);
                        wire.choose();
                        let served = Instant::now();
                        read(&mut wire, 12);
                        served
                    })
                })
                .collect();
            // They are waiting by now, or come later: both is well.
            thread::sleep(Duration::from_millis(100));
            read(&mut first, 12);
            let end = Instant::now();
            drop(first);
            for other in others {
                assert!(other.join().unwrap() >= end, "{way:?}: nobody is served beside the first");
            }
        });
    }
}
