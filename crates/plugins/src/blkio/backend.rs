//! When the device is opened and closed: for the first client and with the last. It may be one that takes no second
//! connection, and one that never answers.

use super::{
    Driver, Settings,
    device::{Device, error},
    disk::BlkioDisk,
};
use ::disk::{Backend, Client, Disk, Errno, Error, Io, Result};
use async_lock::Mutex;
use blkio::Blkio;
use params::Choice;
use reactor::{Unblock, timeout};
use std::{
    sync::{Arc, Weak},
    time::Duration,
};

/// How long a client waits for the device to be opened.
const PATIENCE: Duration = Duration::from_secs(30);

/// One device, shared by its clients.
pub(super) struct BlkioBackend {
    settings: Arc<Settings>,
    patience: Duration,
    at_hand: Mutex<AtHand>,
}

#[derive(Default)]
struct AtHand {
    /// Opened at the start, so that errors come then, and kept for the first client.
    first: Option<Arc<Device>>,
    /// What clients have open.
    open: Weak<Device>,
    /// Begun for a client that lost its patience. There is never more than one thread that waits for the device.
    attempt: Option<Unblock<Result<Device>>>,
}

impl BlkioBackend {
    pub(super) fn new(settings: Settings) -> BlkioBackend {
        BlkioBackend { settings: Arc::new(settings), patience: PATIENCE, at_hand: Mutex::default() }
    }

    /// The device that the clients share.
    async fn device(&self) -> Result<Arc<Device>> {
        let mut at_hand = self.at_hand.lock().await;
        if let Some(device) = at_hand.first.take().or_else(|| at_hand.open.upgrade()) {
            // It may have gone while nobody asked anything of it.
            device.look_whether_it_is_there().await;
            if device.is_alive() {
                at_hand.open = Arc::downgrade(&device);
                return Ok(device);
            }
        }
        let settings = self.settings.clone();
        let attempt = at_hand.attempt.get_or_insert_with(|| reactor::unblock(move || settings.open()));
        let opened = attempt.await;
        at_hand.attempt = None;
        let device = Arc::new(opened??);
        at_hand.open = Arc::downgrade(&device);
        Ok(device)
    }

    async fn device_in_time(&self) -> Result<Arc<Device>> {
        let silent = |_| Error::new(Errno::TIMEDOUT, "it does not answer; perhaps others are using it");
        let device = timeout(self.patience, self.device()).await.map_err(silent).and_then(|device| device);
        let Settings { driver, shown, .. } = &*self.settings;
        device.map_err(|e| e.context(format!("{driver} {shown}")))
    }
}

impl Settings {
    /// Opens the device, for writing where that is possible.
    fn open(&self) -> Result<Device> {
        let open = |read_only| Device::start(self.driver, self.connect(read_only)?, read_only);
        let only_read = |e: &Error| {
            // A program that runs cannot be opened for writing.
            let busy = rustix::io::Errno::TXTBSY.raw_os_error();
            matches!(e.errno(), Errno::ACCES | Errno::PERM | Errno::ROFS) || e.errno().get() == busy
        };
        match self.read_only {
            Some(read_only) => open(read_only),
            None => match open(false) {
                Err(e) if only_read(&e) => open(true).map_err(|_| e),
                opened => opened,
            },
        }
    }

    /// Sets the properties in the states in which libblkio wants them, and prints those that were asked for.
    fn connect(&self, read_only: bool) -> Result<Blkio> {
        let path = self.path.to_str().ok_or_else(|| Error::invalid("this name is not UTF-8"))?;
        let mut blkio = Blkio::new(self.driver.word()).map_err(|e| error(&e))?;
        let set = |blkio: &mut Blkio, name: &str, value: &str| {
            blkio.set_str(name, value).map_err(|e| error(&e).context(format!("{name}={value}")))
        };
        set(&mut blkio, "path", path)?;
        set(&mut blkio, "read-only", if read_only { "true" } else { "false" })?;
        for (name, value) in &self.before {
            set(&mut blkio, name, value)?;
        }
        blkio.connect().map_err(|e| error(&e))?;
        for (name, value) in &self.after {
            set(&mut blkio, name, value)?;
        }
        for name in &self.get {
            match blkio.get_str(name) {
                Ok(value) => tracing::debug!(target: "diskpipe", "blkio: {name} = {value}"),
                Err(e) if e.errno() == blkio::Errno::NOENT => {
                    let why = format!("get={name}: the driver {} has no such property", self.driver);
                    return Err(Error::invalid(why));
                }
                Err(e) => return Err(error(&e).context(format!("get={name}"))),
            }
        }
        Ok(blkio)
    }
}

impl Backend for BlkioBackend {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        Io::later(async move {
            let device = self.device_in_time().await?;
            Ok(Arc::new(BlkioDisk::new(device, client.read_only)) as Arc<dyn Disk>)
        })
    }

    /// Not every driver says why it cannot open something.
    fn get_ready(&self) -> Result<()> {
        use std::os::unix::fs::FileTypeExt;
        let Settings { driver, shown, path, .. } = &*self.settings;
        let named = |e: Error| e.context(format!("blkio: {driver} {shown}"));
        let kind = std::fs::metadata(path).map_err(|e| named(e.into()))?.file_type();
        let (fits, wanted) = match driver {
            Driver::IoUring => {
                (kind.is_file() || kind.is_block_device(), "neither a regular file nor a block device")
            }
            Driver::NvmeIoUring | Driver::VhostVdpa => (kind.is_char_device(), "not a character device"),
            Driver::VhostUser => (kind.is_socket(), "not a Unix socket"),
            Driver::VfioPci => (kind.is_dir(), "not the directory of a PCI device"),
        };
        if fits { Ok(()) } else { Err(named(Error::invalid(wanted))) }
    }

    fn after_fork(&self) -> Result<()> {
        let device = reactor::block_on(self.device_in_time()).map_err(|e| e.context("blkio"))?;
        self.at_hand.lock_blocking().first = Some(device);
        Ok(())
    }

    fn finish(&self) {
        if let Some(mut at_hand) = self.at_hand.try_lock() {
            at_hand.first = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use params::Params;
    use std::{
        io::{Read, Write},
        os::unix::net::{UnixListener, UnixStream},
    };

    /// What our side says of a back end that does this with each connection.
    fn refused(peer: impl Fn(UnixStream) + Send + 'static) -> Vec<Error> {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("sock");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || listener.incoming().flatten().for_each(peer));
        let args = [("driver", "virtio-blk-vhost-user"), ("path", socket.to_str().unwrap())];
        let settings =
            Settings::of(crate::blkio::Blkio::parse(&mut params::Args::new(args)).unwrap()).unwrap();
        let patience = Duration::from_millis(300);
        let backend = BlkioBackend { patience, ..BlkioBackend::new(settings) };
        backend.get_ready().unwrap();
        let at_the_start = backend.after_fork().unwrap_err();
        // Clients that come one after the other, and at the same time.
        let client = || backend.open(&Client::default()).wait().err().unwrap();
        let mut errors = vec![at_the_start, client()];
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4).map(|_| scope.spawn(client)).collect();
            errors.extend(clients.into_iter().map(|client| client.join().unwrap()));
        });
        errors
    }

    #[test]
    fn a_back_end_that_leaves_at_once_is_an_error() {
        assert!(refused(drop).iter().all(|e| e.to_string().contains("virtio-blk-vhost-user path=")));
    }

    #[test]
    fn a_back_end_that_talks_nonsense_is_an_error() {
        for answer in [vec![0xff; 4096], vec![0; 4096], b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()] {
            let errors = refused(move |mut peer| {
                let _ = peer.read(&mut [0; 12]);
                let _ = peer.write_all(&answer);
            });
            assert_eq!(errors.len(), 6);
        }
    }

    #[test]
    fn a_back_end_that_never_answers_keeps_nobody_waiting_for_ever() {
        let connections = Arc::new(std::sync::Mutex::new(vec![]));
        let seen = connections.clone();
        let errors = refused(move |peer| seen.lock().unwrap().push(peer));
        assert!(errors.iter().all(|e| e.errno() == Errno::TIMEDOUT), "{errors:?}");
        let start = std::time::Instant::now();
        while connections.lock().unwrap().is_empty() && start.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
        assert_eq!(connections.lock().unwrap().len(), 1, "one connection is tried, not one for each client");
    }
}
