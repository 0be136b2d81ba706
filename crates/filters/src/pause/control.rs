//! What is said on the control socket: `p` pauses, `r` resumes, and the answer is the same letter in capitals once it is
//! done.

use crate::common::gate::{Closed, Gate};
use std::{
    io,
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, PoisonError},
};

/// Whether requests are paused is one thing, whoever says so.
pub(super) type State = Mutex<Option<Closed>>;

/// Until the other end hangs up.
pub(super) fn converse(mut stream: &UnixStream, gate: &Arc<Gate>, state: &State) -> io::Result<()> {
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 {
        let answer = match byte[0] {
            b'p' => {
                // Held while requests come to their end: who resumes meanwhile waits for that.
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                if state.is_none() {
                    *state = Some(gate.close());
                }
                b'P'
            }
            b'r' => {
                state.lock().unwrap_or_else(PoisonError::into_inner).take();
                b'R'
            }
            space if space.is_ascii_whitespace() => continue,
            _ => b'X',
        };
        stream.write_all(&[answer])?;
    }
    Ok(())
}
