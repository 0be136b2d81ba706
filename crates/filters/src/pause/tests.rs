//! Requests that wait, and the socket that says so.

use super::*;
use crate::common::testing::{Memory, layer, open};
use disk::Range;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

fn say(socket: &mut UnixStream, letter: u8) -> u8 {
    socket.write_all(&[letter]).unwrap();
    let mut answer = [0];
    socket.read_exact(&mut answer).unwrap();
    answer[0]
}

#[test]
fn requests_wait_until_they_may_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control");
    let memory = Memory::new(vec![0; 512]);
    let layer = layer::<Pause>(&[&format!("pause-control={}", path.display())], &memory).unwrap();
    layer.get_ready().unwrap();
    layer.after_fork().unwrap();
    let disk = open(&layer);
    let read = || disk.read(Range::new(0, 512)).wait().unwrap();
    read();
    let mut control = UnixStream::connect(&path).unwrap();
    control.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert_eq!([say(&mut control, b'p'), say(&mut control, b'x'), say(&mut control, b'p')], *b"PXP");
    memory.asked();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(read);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(memory.asked(), [""; 0]);
        assert_eq!(say(&mut control, b'r'), b'R');
        waiting.join().unwrap();
    });
    assert_eq!(memory.asked(), ["read 0 512"]);
    layer.finish();
    assert!(!path.exists());
}

#[test]
fn a_socket_that_cannot_be_made_is_refused() {
    let layer = layer::<Pause>(&["pause-control=/nonexistent/socket"], &Memory::new(vec![])).unwrap();
    let why = layer.get_ready().unwrap_err().to_string();
    assert_eq!(why, "pause-control=/nonexistent/socket: No such file or directory");
}
