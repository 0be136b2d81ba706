//! The protocol of exit codes: what a script's end says, and what its standard error does.

use disk::{Client, Errno, Error, Result, Wish};

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) end: End,
    /// What the script printed: standard output where `end` says that all is well.
    pub(crate) output: Vec<u8>,
    /// What it complained about; of no account where all is well.
    pub(crate) complaint: Vec<u8>,
}

/// The end of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Code(i32),
    Signal(i32),
}

/// What a script can have done by the server, beside answering.
#[derive(Clone, Default)]
pub(crate) struct Control {
    end: Wish,
    hang_up: Wish,
    dismiss: Wish,
}

impl Control {
    /// For a connection; `end` ends the server.
    pub(super) fn of(client: &Client<'_>, end: Wish) -> Control {
        Control { end, hang_up: client.hang_up.clone(), dismiss: client.dismiss.clone() }
    }
}

/// What an answer means.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// With this output.
    Done(Vec<u8>),
    /// The answer to a question is no.
    No,
    /// The script has no such method.
    Missing,
    Failed(Error),
}

impl Answer {
    /// As if the script had no such method.
    pub(crate) fn missing() -> Answer {
        Answer { end: End::Code(2), output: Vec::new(), complaint: Vec::new() }
    }

    /// What it means. Codes that let the client go or end the server do that through `control`, and else count as
    /// success or failure.
    pub(crate) fn outcome(self, control: &Control) -> Outcome {
        let End::Code(code) = self.end else { return Outcome::Failed(self.error()) };
        match code {
            4 | 5 => control.end.make(),
            6 => control.hang_up.make(),
            7 | 8 => control.dismiss.make(),
            _ => {}
        }
        match code {
            0 | 4 | 7 => Outcome::Done(self.output),
            2 => Outcome::Missing,
            3 => Outcome::No,
            _ => Outcome::Failed(self.error()),
        }
    }

    fn error(&self) -> Error {
        let (errno, message) = complaint(&self.complaint);
        match (message.is_empty(), errno, self.end) {
            (false, errno, _) => Error::new(errno.unwrap_or(Errno::IO), message),
            (true, Some(errno), _) => errno.into(),
            (true, None, End::Signal(signal)) => {
                Error::io(format!("the script was killed by signal {signal}"))
            }
            (true, None, End::Code(code)) => Error::io(format!(
                "the script failed with exit code {code} and said nothing on standard error"
            )),
        }
    }
}

/// The errno that a complaint begins with, and the first line of the rest, which is as long as a message may be.
fn complaint(bytes: &[u8]) -> (Option<Errno>, String) {
    /// What clients can be told of a failure without it being taken for something else.
    const NAMES: [&str; 12] = [
        "EPERM",
        "EIO",
        "ENOMEM",
        "EINVAL",
        "ENOSPC",
        "EROFS",
        "EFBIG",
        "EDQUOT",
        "ESHUTDOWN",
        "ENOTSUP",
        "EOPNOTSUPP",
        "EOVERFLOW",
    ];
    const LONGEST: usize = 1000;
    let text = String::from_utf8_lossy(bytes);
    let word = text.split([' ', '\t', '\n', '\r']).next().unwrap_or("");
    let known = NAMES.iter().find(|name| name.eq_ignore_ascii_case(word));
    let errno = known.map(|name| match *name {
        "ENOTSUP" => Errno::NOTSUP,
        "EDQUOT" => Errno::NOSPC,
        name => Errno::from_name(name).unwrap_or(Errno::IO),
    });
    let rest = if errno.is_some() { text[word.len()..].trim_start() } else { &*text };
    let line = rest.lines().next().unwrap_or("").trim_end();
    (errno, line.chars().take(LONGEST).collect())
}

impl Outcome {
    /// For methods that do something or print something; `None` where there is no such method.
    ///
    /// # Errors
    /// The script's own, or a sentence when it answers as if it had been asked a question.
    pub(crate) fn output(self, method: &str) -> Result<Option<Vec<u8>>> {
        match self {
            Outcome::Done(output) => Ok(Some(output)),
            Outcome::Missing => Ok(None),
            Outcome::No => {
                Err(Error::io(format!("{method} is no question, so exit code 3 is no answer to it")))
            }
            Outcome::Failed(e) => Err(e),
        }
    }

    /// As [`Outcome::output`], as text.
    ///
    /// # Errors
    /// Those, and text that is not UTF-8.
    pub(crate) fn text(self, method: &str) -> Result<Option<String>> {
        let Some(output) = self.output(method)? else { return Ok(None) };
        let text = String::from_utf8(output);
        text.map(Some).map_err(|_| Error::io(format!("what {method} printed is not UTF-8")))
    }

    /// For methods that the script must have.
    ///
    /// # Errors
    /// As [`Outcome::output`], and where there is no such method.
    pub(crate) fn required(self, method: &str) -> Result<Vec<u8>> {
        self.output(method)?
            .ok_or_else(|| Error::io(format!("the script has no method {method}, which it must have")))
    }

    /// For questions; `None` where there is no such method.
    ///
    /// # Errors
    /// The script's own.
    pub(crate) fn truth(self) -> Result<Option<bool>> {
        match self {
            Outcome::Done(_) => Ok(Some(true)),
            Outcome::No => Ok(Some(false)),
            Outcome::Missing => Ok(None),
            Outcome::Failed(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    fn answered(code: i32, complaint: &str) -> Answer {
        Answer { end: End::Code(code), output: b"out".to_vec(), complaint: complaint.into() }
    }

    #[test]
    fn a_complaint_may_begin_with_an_errno_in_any_case() {
        let error = |text: &str| {
            let Outcome::Failed(e) = answered(1, text).outcome(&Control::default()) else { panic!("{text}") };
            (e.errno(), e.to_string())
        };
        assert_eq!(error("ENOSPC Out of space\nmore"), (Errno::NOSPC, "Out of space".into()));
        assert_eq!(error("eInval\nsecond line"), (Errno::INVAL, "second line".into()));
        assert_eq!(error("enotsup"), (Errno::NOTSUP, Errno::NOTSUP.to_string()));
        assert_eq!(error("EDQUOT full"), (Errno::NOSPC, "full".into()));
        assert_eq!(error("Bad block"), (Errno::IO, "Bad block".into()));
        assert_eq!(error("EPIPE x"), (Errno::IO, "EPIPE x".into()));
        assert_eq!(error("ENOSPC:x"), (Errno::IO, "ENOSPC:x".into()));
        assert_eq!(error("  EINVAL x").0, Errno::IO);
        assert!(error("").1.contains("exit code 1"));
        assert_eq!(error(&"é".repeat(9999)).1.chars().count(), 1000);
    }

    #[test]
    fn every_code_has_its_meaning() {
        let meaning = |code| {
            let wished = Arc::new(Mutex::new(String::new()));
            let wish = |what: &'static str| {
                let wished = wished.clone();
                Wish::new(move || wished.lock().unwrap().push_str(what))
            };
            let control = Control { end: wish(" end"), hang_up: wish(" hang up"), dismiss: wish(" dismiss") };
            let outcome = match answered(code, "").outcome(&control) {
                Outcome::Done(_) => "done",
                Outcome::No => "no",
                Outcome::Missing => "missing",
                Outcome::Failed(_) => "failed",
            };
            format!("{outcome}{}", wished.lock().unwrap())
        };
        let expected = ["done", "failed", "missing", "no", "done end", "failed end"];
        assert_eq!([0, 1, 2, 3, 4, 5].map(meaning), expected);
        let expected = ["failed hang up", "done dismiss", "failed dismiss", "failed", "failed"];
        assert_eq!([6, 7, 8, 9, 127].map(meaning), expected);
    }

    proptest::proptest! {
        #[test]
        fn no_complaint_makes_the_server_panic(bytes: Vec<u8>, code in 0..256i32) {
            let answer = Answer { end: End::Code(code), output: Vec::new(), complaint: bytes };
            let _ = answer.outcome(&Control::default());
        }
    }
}
