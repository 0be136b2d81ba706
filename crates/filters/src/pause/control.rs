//! The control socket: `p` pauses, `r` resumes, and the answer is the same letter in capitals once it is done.

use super::{Closed, Gate};
use std::{
    fs, io,
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
};

/// The socket, as long as it is there.
pub(super) struct Control {
    path: PathBuf,
    listener: Option<UnixListener>,
    gate: Arc<Gate>,
    over: Arc<AtomicBool>,
}

/// So many may hold the control socket open at once.
const MOST: usize = 16;

impl Control {
    pub(super) fn open(path: &Path, gate: Arc<Gate>) -> io::Result<Control> {
        let listener = UnixListener::bind(path)?;
        Ok(Control { path: path.to_owned(), listener: Some(listener), gate, over: Arc::default() })
    }

    /// Begins to listen, on a thread.
    pub(super) fn start(&mut self) -> io::Result<()> {
        let Some(listener) = self.listener.take() else { return Ok(()) };
        let (gate, over) = (self.gate.clone(), self.over.clone());
        thread::Builder::new().name("pause".into()).spawn(move || listen(&listener, &gate, &over)).map(drop)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        // Wakes the thread.
        let _ = UnixStream::connect(&self.path);
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether requests are paused is one thing, whoever says so.
type State = Mutex<Option<Closed>>;

fn listen(listener: &UnixListener, gate: &Arc<Gate>, over: &AtomicBool) {
    let state = Arc::<State>::default();
    let users = Arc::new(());
    for stream in listener.incoming() {
        if over.load(SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        if Arc::strong_count(&users) > MOST {
            continue;
        }
        let (gate, state, user) = (gate.clone(), state.clone(), users.clone());
        let talk = move || {
            let _user = user;
            let _ = converse(&stream, &gate, &state);
        };
        let _ = thread::Builder::new().name("pause".into()).spawn(talk);
    }
}

/// Until the other end hangs up.
fn converse(mut stream: &UnixStream, gate: &Arc<Gate>, state: &State) -> io::Result<()> {
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
