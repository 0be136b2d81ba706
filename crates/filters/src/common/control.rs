//! A control socket: a Unix socket in the file system, and a thread for each who speaks on it. For `pause` and `cbt`.

use std::{
    fs, io,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
};

/// The socket, as long as it is there.
pub(crate) struct Control {
    name: &'static str,
    path: PathBuf,
    listener: Option<UnixListener>,
    over: Arc<AtomicBool>,
}

/// So many may hold a control socket open at once.
const MOST: usize = 16;

impl Control {
    /// Makes the socket of the filter `name`.
    pub(crate) fn open(name: &'static str, path: &Path) -> io::Result<Control> {
        let listener = UnixListener::bind(path)?;
        Ok(Control { name, path: path.to_owned(), listener: Some(listener), over: Arc::default() })
    }

    /// Begins to listen, on a thread. `converse` speaks with one who came, until that one hangs up.
    pub(crate) fn start(
        &mut self,
        converse: impl Fn(&UnixStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<()> {
        let Some(listener) = self.listener.take() else { return Ok(()) };
        let (name, over) = (self.name, self.over.clone());
        let listen = move || listen(name, &listener, Arc::new(converse), &over);
        thread::Builder::new().name(name.into()).spawn(listen).map(drop)
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

fn listen<F>(name: &str, listener: &UnixListener, converse: Arc<F>, over: &AtomicBool)
where
    F: Fn(&UnixStream) -> io::Result<()> + Send + Sync + 'static,
{
    let users = Arc::new(());
    for stream in listener.incoming() {
        if over.load(SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        if Arc::strong_count(&users) > MOST {
            continue;
        }
        let (converse, user) = (converse.clone(), users.clone());
        let talk = move || {
            let _user = user;
            let _ = converse(&stream);
        };
        let _ = thread::Builder::new().name(name.into()).spawn(talk);
    }
}
