//! A connection by way of the program `ssh`: what it forwards comes out of a socket.

use crate::address::{Remote, Ssh};
use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            ffi::{OsStrExt, OsStringExt},
            net::UnixStream,
        },
    },
    process::{Command, Stdio},
    thread,
};

impl Ssh {
    /// Starts it. It ends when its socket is closed, and is waited for then.
    ///
    /// # Errors
    /// There is no program `ssh`; or the host is none.
    pub(crate) fn connect(&self) -> io::Result<OwnedFd> {
        if self.host.starts_with('-') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a host does not begin with a dash"));
        }
        let (ours, theirs) = UnixStream::pair()?;
        let input = OwnedFd::from(theirs.try_clone()?);
        let mut child = Command::new("ssh")
            .args(self.words())
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("the program ssh: {}", crate::reason(&e))))?;
        let waiting = move || {
            let _ = child.wait(); // why it ended it said itself
        };
        thread::Builder::new().name("ssh".into()).stack_size(64 << 10).spawn(waiting)?;
        Ok(ours.into())
    }

    fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![];
        if self.compress {
            words.push("-C".into());
        }
        if let Some(port) = self.port {
            words.extend(["-p".into(), port.to_string().into()]);
        }
        if let Some(user) = &self.user {
            words.extend(["-l".into(), user.into()]);
        }
        match &self.at {
            Remote::Port(port) => words.extend([
                "-W".into(),
                format!("localhost:{port}").into(),
                "--".into(),
                (&self.host).into(),
            ]),
            Remote::Socket(path) => {
                words.extend(["-T".into(), "--".into(), (&self.host).into(), command(path.as_os_str())]);
            }
        }
        words
    }
}

/// What the shell of that host runs.
fn command(path: &OsStr) -> OsString {
    let mut text = b"exec nc -U '".to_vec();
    // A path that begins with a dash is no option.
    if path.as_bytes().starts_with(b"-") {
        text.extend(b"./");
    }
    for byte in path.as_bytes() {
        match byte {
            b'\'' => text.extend(br"'\''"),
            byte => text.push(*byte),
        }
    }
    text.push(b'\'');
    OsString::from_vec(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(at: Remote) -> Vec<String> {
        let ssh = Ssh { user: Some("-u".into()), host: "h".into(), port: Some(7), compress: true, at };
        ssh.words().into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn nothing_becomes_an_option_or_a_command() {
        let first = ["-C", "-p", "7", "-l", "-u"];
        let expected = [&first[..], &["-W", "localhost:10809", "--", "h"]].concat();
        assert_eq!(words(Remote::Port(10809)), expected);
        let expected = [&first[..], &["-T", "--", "h", r"exec nc -U '/a '\'' $(b)'"]].concat();
        assert_eq!(words(Remote::Socket("/a ' $(b)".into())), expected);
        assert!(words(Remote::Socket("-x".into())).ends_with(&["exec nc -U './-x'".into()]));
        let host = "-oProxyCommand=true".into();
        let at = Remote::Port(1);
        let refused = Ssh { user: None, host, port: None, compress: false, at }.connect().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }
}
