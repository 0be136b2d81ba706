//! The quick way of asking: one process that lives as long as the server and answers call after call over two pipes.
//!
//! A request is a line: the method and its words, separated by blanks, `%XX` standing for bytes that are no plain
//! letters and a lone `-` for an empty word. What a written range is to hold follows the line of `pwrite`. The answer
//! is a line of two numbers, exit code and length, and so many bytes: output, or the complaint of a failure.

use super::{
    Ask, Begun, Spawn,
    answer::{Answer, End},
    call::Call,
    pipes::{self, From, To},
};
use ::disk::{BufMut, Error, Result};
use std::{
    io,
    process::{Child, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The word that the program is started with.
const WORD: &str = "persistent";
/// The line before an answer is no longer than this.
const LONGEST_LINE: usize = 64;
/// Answers that come within this time are waited for where the question was asked.
const SOON: Duration = Duration::from_millis(2);
/// A process that is told to end has this long to do so.
const GRACE: Duration = Duration::from_secs(2);

/// A program that answers many calls.
pub(crate) struct Persistent {
    program: Spawn,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    running: Option<Running>,
    /// What a new process is told, so that it knows what the first one did.
    told: Vec<Call>,
}

/// The process and its pipes.
struct Running {
    child: Child,
    /// Whose child that is: not ours any more after the server has gone to the background.
    parent: u32,
    requests: To,
    answers: From,
}

impl Persistent {
    pub(crate) fn new(program: Spawn) -> Persistent {
        Persistent { program, state: Arc::default() }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ask for Persistent {
    fn ask(&self, call: &Call) -> Result<Answer> {
        let mut state = lock(&self.state);
        state.ensure(&self.program)?;
        state.begin(call);
        state.finish(call, None)?.ok_or_else(|| Error::io("the script did not answer"))
    }

    fn ask_now(&self, call: Call) -> std::result::Result<Result<Answer>, Begun> {
        let mut state = lock(&self.state);
        if state.running.is_none() {
            return Err(Begun::not(call));
        }
        state.begin(&call);
        let answer = state.finish(&call, Some(SOON));
        drop(state);
        match answer {
            Ok(None) => Err(Begun::rest({
                let state = self.state.clone();
                move || {
                    let answer = lock(&state).finish(&call, None)?;
                    answer.ok_or_else(|| Error::io("the script did not answer"))
                }
            })),
            Ok(Some(answer)) => Ok(Ok(answer)),
            Err(e) => Ok(Err(e)),
        }
    }

    fn is_one(&self) -> bool {
        true
    }

    fn name(&self) -> String {
        self.program.name()
    }
}

impl State {
    /// Sees to it that a process runs and knows all that its predecessors were told.
    fn ensure(&mut self, program: &Spawn) -> Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        self.running = Some(Running::start(program)?);
        for call in std::mem::take(&mut self.told) {
            self.begin(&call);
            let answer = self.finish(&call, None);
            self.told.push(call);
            answer?;
        }
        Ok(())
    }

    fn begin(&mut self, call: &Call) {
        if let Some(running) = &mut self.running {
            running.requests.begin(frame(call).into());
            running.answers.begin(call.most + LONGEST_LINE + 1);
        }
    }

    /// The answer; `None` when it does not come within `limit`. After an error there is no process any more.
    fn finish(&mut self, call: &Call, limit: Option<Duration>) -> Result<Option<Answer>> {
        let Some(running) = &mut self.running else { return Err(Error::io("the script is not running")) };
        let answer = running.exchange(call, limit).map_err(|e| {
            let status = self.running.take().and_then(|mut running| running.end());
            let how = status.map_or(String::new(), |status| format!(" ({status})"));
            Error::io(format!("{}: the script's process is lost{how}: {e}", call.method))
        })?;
        const KEPT: [&str; 5] = ["load", "config", "config_complete", "get_ready", "after_fork"];
        if let Some(Answer { end: End::Code(0), .. }) = answer
            && KEPT.contains(&call.method)
        {
            self.told.push(call.clone());
        }
        Ok(answer)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            // The end of its input tells it to end.
            running.requests.fd = None;
            let _ = pipes::wait(None, &[&running.answers], Some(GRACE));
            running.end();
        }
    }
}

impl Running {
    fn start(program: &Spawn) -> Result<Running> {
        let mut child = program.start(&[WORD], |command| {
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        })?;
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        let requests = To::new(child.stdin.take().ok_or_else(broken)?)?;
        let answers = From::new(child.stdout.take().ok_or_else(broken)?, 0)?;
        Ok(Running { child, parent: std::process::id(), requests, answers })
    }

    fn exchange(&mut self, call: &Call, limit: Option<Duration>) -> io::Result<Option<Answer>> {
        loop {
            self.requests.give()?;
            if let Some(answer) = parse(&self.answers.bytes, call)? {
                if !self.requests.is_done() {
                    return Err(io::Error::other("it answered before it had read all of the request"));
                }
                return Ok(Some(answer));
            }
            if self.answers.fd.is_none() || self.requests.fd.is_none() {
                return Err(io::Error::other("it ended in the middle of a call"));
            }
            if !pipes::wait(Some(&self.requests), &[&self.answers], limit)? {
                return Ok(None);
            }
            self.answers.take()?;
        }
    }

    /// Ends it, and says how it ended.
    fn end(&mut self) -> Option<std::process::ExitStatus> {
        if std::process::id() != self.parent {
            // Its number may be another's by now. It ends when its pipes do.
            return None;
        }
        if let Ok(Some(status)) = self.child.try_wait() {
            return Some(status);
        }
        let _ = self.child.kill();
        self.child.wait().ok()
    }
}

/// A call as the process reads it.
fn frame(call: &Call) -> BufMut {
    let mut line = call.method.as_bytes().to_vec();
    for word in &call.words {
        line.push(b' ');
        match word.as_bytes() {
            b"" => line.push(b'-'),
            b"-" => line.extend_from_slice(b"%2D"),
            bytes => bytes.iter().for_each(|byte| match byte {
                b'%' | 0..=b' ' | 0x7f => line.extend_from_slice(format!("%{byte:02X}").as_bytes()),
                byte => line.push(*byte),
            }),
        }
    }
    line.push(b'\n');
    let payload = call.input.as_ref();
    let mut frame = BufMut::new(line.len() + payload.map_or(0, |data| data.len() as usize));
    frame[..line.len()].copy_from_slice(&line);
    if let Some(data) = payload {
        data.copy_to(&mut frame[line.len()..]);
    }
    frame
}

/// The answer, once all of it has come.
fn parse(bytes: &[u8], call: &Call) -> io::Result<Option<Answer>> {
    let wrong = |what: String| Err(io::Error::other(what));
    let Some(end) = bytes.iter().take(LONGEST_LINE).position(|byte| *byte == b'\n') else {
        return match bytes.len() < LONGEST_LINE {
            true => Ok(None),
            false => wrong("it did not begin its answer with a line of two numbers".into()),
        };
    };
    let line = String::from_utf8_lossy(&bytes[..end]);
    let mut numbers = line.split_ascii_whitespace().map(|word| word.parse::<u32>().ok());
    let (Some(Some(code)), Some(Some(len)), None) = (numbers.next(), numbers.next(), numbers.next()) else {
        return wrong(format!("it began its answer with {line:?}, not with an exit code and a length"));
    };
    let (body, len) = (&bytes[end + 1..], len as usize);
    if len > call.most {
        return Err(call.too_much());
    }
    if body.len() > len {
        return wrong(format!("it said more than the {len} bytes that it had announced"));
    }
    if body.len() < len {
        return Ok(None);
    }
    let (body, end) = (body.to_vec(), End::Code(i32::try_from(code).unwrap_or(1)));
    Ok(Some(match code {
        0 | 4 | 7 => Answer { end, output: body, complaint: Vec::new() },
        _ => Answer { end, output: Vec::new(), complaint: body },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::disk::Data;
    use proptest::prelude::*;

    /// As a script would.
    fn unframe(frame: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
        let end = frame.iter().position(|byte| *byte == b'\n').unwrap();
        let word = |word: &[u8]| {
            let mut bytes = Vec::new();
            let mut rest = word;
            while let Some((&byte, after)) = rest.split_first() {
                rest = after;
                if byte == b'%' {
                    let digits = std::str::from_utf8(&rest[..2]).unwrap();
                    bytes.push(u8::from_str_radix(digits, 16).unwrap());
                    rest = &rest[2..];
                } else {
                    bytes.push(byte);
                }
            }
            if word == b"-" { Vec::new() } else { bytes }
        };
        (frame[..end].split(|byte| *byte == b' ').map(word).collect(), frame[end + 1..].to_vec())
    }

    fn answer(bytes: &[u8], most: usize) -> std::result::Result<Option<(End, usize)>, String> {
        let call = Call { most, ..Call::new("pread", &[]) };
        parse(bytes, &call)
            .map(|answer| answer.map(|a| (a.end, a.output.len() + a.complaint.len())))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn an_answer_is_whole_or_not_there_yet_or_wrong() {
        assert_eq!(answer(b"", 9), Ok(None));
        assert_eq!(answer(b"0 3\nab", 9), Ok(None));
        assert_eq!(answer(b"0 3\nabc", 9), Ok(Some((End::Code(0), 3))));
        assert_eq!(answer(b"1 6\nEIO ab", 9), Ok(Some((End::Code(1), 6))));
        assert_eq!(answer(b"2 0\n", 9), Ok(Some((End::Code(2), 0))));
        assert!(answer(b"0 3\nabcd", 9).unwrap_err().contains("more than the 3 bytes"));
        assert!(answer(b"0 10\n", 9).unwrap_err().contains("more than 9 bytes"));
        for wrong in ["hello\n", "0\n", "0 1 2\n", "-1 0\n", "\n", &"x".repeat(100)] {
            assert!(answer(wrong.as_bytes(), 9).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn every_word_reaches_the_script_as_it_is(words: Vec<String>, payload: Vec<u8>) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let input = Some(Data::copy_from(&payload));
            let (got, rest) = unframe(&frame(&Call { input, ..Call::new("pwrite", &words) }));
            let expected: Vec<_> = std::iter::once("pwrite").chain(words).map(|w| w.as_bytes().to_vec()).collect();
            prop_assert_eq!(got, expected);
            prop_assert_eq!(rest, payload);
        }

        #[test]
        fn no_answer_makes_the_server_panic(bytes: Vec<u8>, most in 0..100usize) {
            let _ = answer(&bytes, most);
        }
    }
}
