//! The server's voice: events with levels, as lines of text or JSON, to standard error, the system log, a file or
//! nowhere.
//!
//! Everything goes through `tracing`, so that what a connection's thread says carries the connection (its number, peer
//! and export), and so that `DISKPIPE_LOG` can choose levels.

use super::options::{LogFormat, LogTo, ServeOptions};
use anyhow::{Context, Result};
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// The variable that chooses levels: `debug`, or `info,diskpipe::request=off`.
const LEVELS: &str = "DISKPIPE_LOG";

/// The server's voice.
#[derive(Clone)]
pub(crate) struct Messages {
    to: Arc<Mutex<To>>,
}

enum To {
    Stderr,
    Syslog { program: String },
    File { file: File, path: PathBuf },
    Null,
}

impl Messages {
    /// Begins to speak as the options say. There is one voice per process: a second one speaks through the first.
    pub(crate) fn start(program: &str, options: &ServeOptions) -> Result<Messages> {
        let program = match &options.name {
            Some(name) => format!("{program}: {name}"),
            None => program.to_owned(),
        };
        let to = To::open(options.log.as_ref().unwrap_or(&LogTo::Stderr), &program)?;
        let messages = Messages { to: Arc::new(Mutex::new(to)) };
        let level = if options.verbose { LevelFilter::DEBUG } else { LevelFilter::WARN };
        let filter =
            EnvFilter::builder().with_default_directive(level.into()).with_env_var(LEVELS).from_env_lossy();
        let subscriber =
            tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(messages.clone());
        match options.log_format {
            LogFormat::Json => {
                let json =
                    subscriber.json().flatten_event(true).with_current_span(true).with_span_list(false);
                let _ = json.try_init();
            }
            LogFormat::Text => {
                let _ = subscriber.event_format(Text { program }).try_init();
            }
        }
        Ok(messages)
    }

    /// What has no place of its own goes to the system log from now on.
    pub(crate) fn send_to_syslog(&self, program: &str) {
        *self.lock() = To::Syslog { program: program.to_owned() };
    }

    /// Opens the log file again, if there is one: it may have been moved away. On an error the old one stays.
    pub(crate) fn reopen(&self) -> Result<()> {
        let mut to = self.lock();
        if let To::File { file, path } = &mut *to {
            *file = append_to(path)?;
        }
        Ok(())
    }

    /// Something went wrong.
    pub(crate) fn error(&self, line: &str) {
        tracing::error!(target: "diskpipe", "{line}");
    }

    /// Something is odd, but not wrong.
    pub(crate) fn warn(&self, line: &str) {
        tracing::warn!(target: "diskpipe", "{line}");
    }

    /// What whoever runs a service wants to read: it began, it read its configuration, it ends.
    pub(crate) fn info(&self, line: &str) {
        tracing::info!(target: "diskpipe", "{line}");
    }

    /// For those who asked with `-v`.
    pub(crate) fn debug(&self, line: &str) {
        tracing::debug!(target: "diskpipe", "{line}");
    }

    /// A request or another call of a component, at the plugin's connection `at`.
    pub(crate) fn call(&self, at: &str, line: &str) {
        tracing::debug!(target: "diskpipe::request", at, "{line}");
    }

    fn lock(&self) -> MutexGuard<'_, To> {
        self.to.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl server::Log for Messages {
    fn error(&self, line: &str) {
        Messages::error(self, line);
    }

    fn debug(&self, line: &str) {
        Messages::debug(self, line);
    }
}

impl To {
    fn open(to: &LogTo, program: &str) -> Result<To> {
        Ok(match to {
            LogTo::Stderr => To::Stderr,
            LogTo::Syslog => To::Syslog { program: program.to_owned() },
            LogTo::Null => To::Null,
            LogTo::File(path) => To::File { file: append_to(path)?, path: path.clone() },
        })
    }
}

fn append_to(path: &Path) -> Result<File> {
    let opened = File::options().append(true).create(true).open(path);
    opened.with_context(|| format!("--log={}", path.display()))
}

impl<'a> MakeWriter<'a> for Messages {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { to: &self.to, level: Level::ERROR }
    }

    fn make_writer_for(&'a self, of: &Metadata<'_>) -> Line<'a> {
        Line { to: &self.to, level: *of.level() }
    }
}

/// Where one line goes, which comes in one piece.
pub(crate) struct Line<'a> {
    to: &'a Mutex<To>,
    level: Level,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Where messages cannot go, nobody can be told about it.
        match &mut *self.to.lock().unwrap_or_else(PoisonError::into_inner) {
            To::File { file, .. } => drop(file.write_all(line)),
            To::Null => {}
            // What `-v` tells is too much for the system log.
            To::Syslog { program } if self.level <= Level::INFO => drop(to_syslog(program, self.level, line)),
            To::Stderr | To::Syslog { .. } => drop(io::stderr().write_all(line)),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn to_syslog(program: &str, level: Level, line: &[u8]) -> io::Result<()> {
    const DAEMON: u8 = 3 << 3;
    let severity = match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    };
    let text = String::from_utf8_lossy(line);
    // The system log puts the program's name before the line by itself.
    let text =
        text.trim_end().strip_prefix(program).map_or(text.trim_end(), |rest| rest.trim_start_matches(": "));
    let tag = program.split([':', ' ']).next().unwrap_or(program);
    let line = format!("<{}>{tag}[{}]: {text}", DAEMON | severity, std::process::id());
    UnixDatagram::unbound()?.send_to(line.as_bytes(), "/dev/log").map(drop)
}

/// `nbdkit: memory[1]: debug: offset: pread count=512 offset=0`
struct Text {
    program: String,
}

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            _ => "debug",
        };
        write!(to, "{}: ", self.program)?;
        if let Some(at) = fields.at {
            write!(to, "{at}: ")?;
        }
        writeln!(to, "{level}: {}{}", fields.message, fields.others)
    }
}

#[derive(Default)]
struct Fields {
    at: Option<String>,
    message: String,
    others: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "at" => self.at = Some(value.to_owned()),
            _ => self.record_debug(field, &value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing into a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.others, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(format: LogFormat, say: impl FnOnce(&Messages)) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        let to = To::open(&LogTo::File(file.path().to_owned()), "nbdkit").unwrap();
        let messages = Messages { to: Arc::new(Mutex::new(to)) };
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(messages.clone());
        let subscriber = subscriber.with_max_level(Level::DEBUG);
        match format {
            LogFormat::Text => {
                let text = subscriber.event_format(Text { program: "nbdkit".into() }).finish();
                tracing::subscriber::with_default(text, || say(&messages));
            }
            LogFormat::Json => {
                let json = subscriber.json().flatten_event(true).with_span_list(false).finish();
                tracing::subscriber::with_default(json, || say(&messages));
            }
        }
        std::fs::read_to_string(file).unwrap()
    }

    #[test]
    fn lines_of_text_begin_with_program_place_and_level() {
        let text = said(LogFormat::Text, |messages| {
            messages.error("it broke");
            messages.warn("odd");
            messages.debug("detail");
            messages.call("memory[1]", "offset: pread count=1");
        });
        assert_eq!(
            text,
            "nbdkit: error: it broke\nnbdkit: warning: odd\nnbdkit: debug: detail\n\
             nbdkit: memory[1]: debug: offset: pread count=1\n"
        );
    }

    #[test]
    fn json_is_an_object_per_line_with_the_connection() {
        let text = said(LogFormat::Json, |messages| {
            let connection = tracing::error_span!("connection", number = 7);
            let _inside = connection.enter();
            messages.error("it \"broke\"");
        });
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(line["level"], "ERROR");
        assert_eq!(line["message"], "it \"broke\"");
        assert_eq!(line["span"]["number"], 7);
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let (file, moved) = (dir.path().join("log"), dir.path().join("log.1"));
        let to = To::open(&LogTo::File(file.clone()), "x").unwrap();
        let messages = Messages { to: Arc::new(Mutex::new(to)) };
        let say = |line: &[u8]| drop(messages.make_writer().write(line));
        say(b"one\n");
        std::fs::rename(&file, &moved).unwrap();
        say(b"two\n");
        messages.reopen().unwrap();
        say(b"three\n");
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "three\n");
        drop(dir);
        assert!(messages.reopen().is_err());
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error = To::open(&LogTo::File("/no/such/dir/x".into()), "x").err().unwrap();
        assert_eq!(error.to_string(), "--log=/no/such/dir/x");
    }
}
