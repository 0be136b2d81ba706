//! A web server of one page.

use super::Metrics;
use net::{Family, Listener, Stop, Stream, Wait};
use std::{
    io,
    path::Path,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How long a request may take to come, and its answer to go.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest request that is read.
const REQUEST_MAX: usize = 8 << 10;

/// Where Prometheus asks.
pub struct Endpoint {
    listeners: Vec<Listener>,
}

impl Endpoint {
    /// Opens `[HOST]:PORT`, or a Unix socket by its path (which has a `/` in it), which is removed at the end.
    ///
    /// # Errors
    /// A sentence that names the address.
    pub fn open(address: &str) -> io::Result<Endpoint> {
        let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{address}: {why}"));
        if address.contains('/') {
            return Ok(Endpoint { listeners: vec![Listener::unix(Path::new(address), true)?] });
        }
        let (host, port) =
            address.rsplit_once(':').ok_or_else(|| bad("neither [HOST]:PORT nor the path of a socket"))?;
        let port = port.parse().map_err(|_| bad("not a port number from 0 to 65535"))?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let host = (!host.is_empty()).then_some(host);
        Ok(Endpoint { listeners: Listener::tcp(host, port, Family::Any)? })
    }

    /// The TCP port, if it is one.
    pub fn port(&self) -> Option<u16> {
        self.listeners.first().and_then(Listener::port)
    }

    /// Answers on a thread of its own, until the value is dropped.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(self, metrics: Arc<Metrics>) -> io::Result<Page> {
        let stop = Arc::new(Stop::new()?);
        let thread = std::thread::Builder::new().name("metrics".into()).spawn({
            let stop = stop.clone();
            move || {
                while !stop.is_set() {
                    match net::accept_any(&self.listeners, &stop, None) {
                        // Whoever asks badly gets nothing; there is nobody to tell.
                        Ok(Some((_, stream))) => drop(answer(&stream, &metrics)),
                        Ok(None) => {}
                        Err(_) => std::thread::sleep(Duration::from_millis(100)),
                    }
                }
            }
        })?;
        Ok(Page { stop, thread: Some(thread) })
    }
}

/// The page, as long as it is served.
#[must_use = "nothing is served any more when it is dropped"]
pub struct Page {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Page {
    fn drop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            // A panic of it has been told already.
            let _ = thread.join();
        }
    }
}

fn answer(stream: &Stream, metrics: &Metrics) -> io::Result<()> {
    stream.set_recv_timeout(Some(PATIENCE))?;
    stream.set_send_timeout(Some(PATIENCE))?;
    let request = request(stream)?;
    let mut words = request.split_ascii_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = path.split('?').next().unwrap_or_default();
    let (status, body) = match (method, path) {
        ("GET" | "HEAD", "/metrics") => ("200 OK", metrics.text()),
        ("GET" | "HEAD", _) => ("404 Not Found", "the numbers are at /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", "only GET is understood\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.send_all(head.as_bytes())?;
    if method != "HEAD" {
        stream.send_all(body.as_bytes())?;
    }
    stream.shutdown(net::How::Write)
}

/// The head of a request, all of it, so that closing the connection does not reset it.
fn request(stream: &Stream) -> io::Result<String> {
    let (mut bytes, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    let mut room = [0; 1024];
    while !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
        let n = stream.recv(&mut room, Wait::Block)?;
        bytes.extend_from_slice(&room[..n]);
        if n == 0 || bytes.len() > REQUEST_MAX || Instant::now() > deadline {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
    };

    fn said(socket: &Path, request: &str) -> String {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn the_page_is_served_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let endpoint = Endpoint::open(socket.to_str().unwrap()).unwrap();
        let served = endpoint.start(Arc::new(Metrics::new())).unwrap();
        let page = said(&socket, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
        assert!(page.contains("\r\n\r\n# HELP ") && page.contains("\ndiskpipe_connections 0\n"), "{page}");
        let head = said(&socket, "HEAD /metrics HTTP/1.1\r\n\r\n");
        assert!(head.ends_with("\r\n\r\n") && head.contains("Content-Length: "), "{head}");
        assert!(said(&socket, "GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
        assert!(said(&socket, "POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
        assert_eq!(said(&socket, &"x".repeat(REQUEST_MAX + 1)), "");
        drop(served);
        assert!(!socket.exists());
    }

    #[test]
    fn addresses_that_are_none_are_named() {
        for text in ["", "9100", "x:y", "127.0.0.1:99999"] {
            let error = Endpoint::open(text).err().unwrap().to_string();
            assert!(error.starts_with(&format!("{text}: ")), "{error}");
        }
        assert!(Endpoint::open("127.0.0.1:0").unwrap().port().unwrap() > 0);
    }
}
