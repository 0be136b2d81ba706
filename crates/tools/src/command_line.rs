//! What the tools' command lines share: servers in brackets, conventions of the tools that they replace, errors.

use anyhow::{Context, Result};
use client::Connector;
use params::{Delay, Size, Value};
use std::{
    ffi::{OsStr, OsString},
    fmt,
    io::{self, Write},
    num::NonZeroUsize,
    path::Path,
    process::ExitCode,
    time::Duration,
};

/// The release of the well-known tools whose command lines and output these follow; scripts compare it.
const COMPATIBLE: &str = "1.14.2";

/// A positional argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// As it was written.
    Plain(OsString),
    /// `[ COMMAND ARGUMENT... ]`.
    Command(Vec<String>),
}

impl Word {
    /// As an NBD server: a URI or a command.
    ///
    /// # Errors
    /// It is no URI, or the command cannot be started.
    pub(crate) fn connector(&self) -> disk::Result<Connector> {
        match self {
            Word::Command(command) => Connector::command(command),
            Word::Plain(text) if !is_uri(text) && Path::new(text).is_file() => Err(disk::Error::invalid(
                format!("{self}: a file, not an NBD URI; this serves it:  [ diskpipe serve file {self} ]"),
            )),
            Word::Plain(text) => Connector::uri(&text.to_string_lossy()),
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Word::Plain(text) => write!(f, "{}", text.display()),
            Word::Command(command) => f.write_str(command.first().map_or("", String::as_str)),
        }
    }
}

/// Stands for a bracketed command while the options are parsed. No argument of a program can hold a NUL.
const PLACEHOLDER: &str = "\0";

/// Runs a tool: takes the arguments apart (the first is the name that it was started under), and makes an exit code of
/// what `body` says. That something went wrong is told, and is exit code 1.
pub(crate) fn run<T: clap::FromArgMatches>(
    args: Vec<OsString>,
    default_name: &str,
    command: clap::Command,
    body: impl FnOnce(&Invocation, T) -> Result<ExitCode>,
) -> ExitCode {
    run_or(1, args, default_name, command, body)
}

/// As [`run`], with another exit code for trouble.
pub(crate) fn run_or<T: clap::FromArgMatches>(
    trouble: u8,
    args: Vec<OsString>,
    default_name: &str,
    command: clap::Command,
    body: impl FnOnce(&Invocation, T) -> Result<ExitCode>,
) -> ExitCode {
    let invocation = match Invocation::new(args, default_name, trouble.into()) {
        Ok(invocation) => invocation,
        Err(code) => return code,
    };
    let options = match invocation.parse(command) {
        Ok(options) => options,
        Err(code) => return code,
    };
    match body(&invocation, options) {
        Ok(code) => code,
        Err(e) if is_broken_pipe(&e) => invocation.trouble,
        Err(e) => invocation.failed(&e),
    }
}

/// The reader of our output had enough. It knows, and other tools end silently then.
fn is_broken_pipe(why: &anyhow::Error) -> bool {
    let of_disk = why.downcast_ref::<disk::Error>().map(|e| e.errno().get());
    of_disk == Some(rustix::io::Errno::PIPE.raw_os_error())
        || why.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// Writes to standard output.
///
/// # Errors
/// Nobody reads it, or the disk behind it is full.
pub(crate) fn print(text: &str) -> Result<ExitCode> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("writing to standard output")?;
    Ok(ExitCode::SUCCESS)
}

/// A size or an offset among the options, such as `512`, `64K` or `1M`, in bytes.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    Size::from_text(text).map(Size::bytes).map_err(|wrong| wrong.0.to_string())
}

/// A number of at least one, as clap's parsers want it.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn count(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "must be a number of at least 1".into())
}

/// A time among the options, such as `2`, `1.5s` or `50ms`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn delay(text: &str) -> Result<Duration, String> {
    Delay::from_text(text).map(Delay::duration).map_err(|wrong| wrong.0.to_string())
}

/// A tool, and the name that it was started under.
pub(crate) struct Invocation {
    pub(crate) name: String,
    args: Vec<OsString>,
    commands: Vec<Vec<String>>,
    /// The exit code when something is wrong.
    trouble: ExitCode,
}

impl Invocation {
    /// Takes bracketed commands out of the arguments (of which the first is the name), so that their dashes are theirs.
    ///
    /// # Errors
    /// An exit code, after telling what is wrong: a bracket that does not end, a command that is no text.
    pub(crate) fn new(
        args: Vec<OsString>,
        default_name: &str,
        trouble: ExitCode,
    ) -> Result<Invocation, ExitCode> {
        let mut args = args.into_iter();
        let name = args.next().unwrap_or_else(|| default_name.into());
        let name = Path::new(&name).file_name().unwrap_or(&name).to_string_lossy().into_owned();
        let mut it = Invocation { args: vec![name.clone().into()], name, commands: Vec::new(), trouble };
        while let Some(arg) = args.next() {
            if arg != "[" {
                it.args.push(arg);
                continue;
            }
            let mut command = Vec::new();
            loop {
                match args.next() {
                    None => return Err(it.usage("“[” without “]” at the end of the command")),
                    Some(arg) if arg == "]" => break,
                    Some(arg) => match arg.into_string() {
                        Ok(arg) => command.push(arg),
                        Err(arg) => return Err(it.usage(&format!("“{}” is not UTF-8", arg.display()))),
                    },
                }
            }
            if command.is_empty() {
                return Err(it.usage("“[ ]” without a command"));
            }
            it.args.push(format!("{PLACEHOLDER}{}", it.commands.len()).into());
            it.commands.push(command);
        }
        Ok(it)
    }

    /// Parses the options. What ends the program in an orderly way (help, version, lists of options) is done here.
    ///
    /// # Errors
    /// The exit code.
    pub(crate) fn parse<T: clap::FromArgMatches>(&self, command: clap::Command) -> Result<T, ExitCode> {
        let command = command.bin_name(&self.name);
        let options = self.args[1..].iter().take_while(|arg| *arg != "--");
        for arg in options {
            match arg.to_str() {
                Some("--long-options") => return Err(list(&command, long_options)),
                Some("--short-options") => return Err(list(&command, short_options)),
                Some("--version" | "-V") => return Err(self.print(&self.version())),
                _ => {}
            }
        }
        let parsed =
            command.try_get_matches_from(&self.args).and_then(|matches| T::from_arg_matches(&matches));
        parsed.map_err(|e| {
            let _ = e.print(); // with nobody to read it, the exit code says enough
            if e.use_stderr() { self.trouble } else { ExitCode::SUCCESS }
        })
    }

    fn version(&self) -> String {
        match self.name.as_str() {
            name @ ("nbdcopy" | "nbddiscard" | "nbddump" | "nbdfuse" | "nbdinfo" | "nbdsh" | "nbdzero") => {
                format!("{name} {COMPATIBLE}\nlibnbd {COMPATIBLE}\n")
            }
            name => format!("{name} {}\n", env!("CARGO_PKG_VERSION")),
        }
    }

    fn print(&self, text: &str) -> ExitCode {
        match std::io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        }
    }

    /// The positional argument that the parser handed out.
    pub(crate) fn word(&self, arg: OsString) -> Word {
        let number = arg
            .to_str()
            .and_then(|text| text.strip_prefix(PLACEHOLDER))
            .and_then(|n| n.parse::<usize>().ok());
        match number.and_then(|n| self.commands.get(n)) {
            Some(command) => Word::Command(command.clone()),
            None => Word::Plain(arg),
        }
    }

    /// Tells what is wrong with the command line.
    pub(crate) fn usage(&self, why: &str) -> ExitCode {
        eprintln!("{0}: {why}\nTry “{0} --help”.", self.name);
        self.trouble
    }

    /// Tells what went wrong.
    pub(crate) fn failed(&self, why: &anyhow::Error) -> ExitCode {
        eprintln!("{}: {}", self.name, sentence(why));
        self.trouble
    }
}

/// An error and its causes. A disk's error has said its cause already, and numbers of errors help nobody. Some of it may
/// be the words of a server, which must not drive a terminal.
fn sentence(why: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in why.chain() {
        let text = cause.to_string();
        parts.push(text.split(" (os error").next().unwrap_or_default().to_string());
        if cause.is::<disk::Error>() {
            break;
        }
    }
    parts.join(": ").replace(|c: char| c.is_control() && c != '\n', "\u{fffd}")
}

fn list(command: &clap::Command, of: fn(&clap::Command) -> Vec<String>) -> ExitCode {
    let text: String = of(command).iter().map(|line| format!("{line}\n")).collect();
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn long_options(command: &clap::Command) -> Vec<String> {
    let mut names = vec!["--help".to_string(), "--version".to_string()];
    for arg in command.get_arguments() {
        names.extend(arg.get_long().map(|name| format!("--{name}")));
        names.extend(arg.get_all_aliases().into_iter().flatten().map(|name| format!("--{name}")));
    }
    names.sort();
    names.dedup();
    names
}

fn short_options(command: &clap::Command) -> Vec<String> {
    let mut names = vec!["-V".to_string()];
    for arg in command.get_arguments() {
        let aliases = arg.get_all_short_aliases().into_iter().flatten();
        names.extend(arg.get_short().into_iter().chain(aliases).map(|name| format!("-{name}")));
    }
    names.sort();
    names.dedup();
    names
}

/// Whether a positional argument is meant as an NBD URI.
pub(crate) fn is_uri(text: &OsStr) -> bool {
    text.to_str().is_some_and(client::proto::Uri::is_meant)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[derive(Parser)]
    struct Options {
        #[arg(short, long, alias = "wordy")]
        verbose: bool,
        words: Vec<OsString>,
    }

    fn parse(args: &[&str]) -> Result<(bool, Vec<Word>), ExitCode> {
        let invocation = Invocation::new(args.iter().map(Into::into).collect(), "x", 1.into())?;
        let options: Options = invocation.parse(Options::command())?;
        Ok((options.verbose, options.words.into_iter().map(|w| invocation.word(w)).collect()))
    }

    #[test]
    fn a_bracketed_command_keeps_its_options_with_and_without_dashes() {
        let command = Word::Command(["qemu-nbd", "-r", "-v", "--", "x"].map(String::from).into());
        for args in [
            &["/usr/bin/tool", "-v", "--", "[", "qemu-nbd", "-r", "-v", "--", "x", "]", "out"][..],
            &["tool", "[", "qemu-nbd", "-r", "-v", "--", "x", "]", "out", "-v"],
        ] {
            let (verbose, words) = parse(args).unwrap();
            assert!(verbose);
            assert_eq!(words, [command.clone(), Word::Plain("out".into())]);
        }
    }

    #[test]
    fn an_open_bracket_and_an_empty_one_are_refused() {
        assert!(parse(&["tool", "[", "nbdkit"]).is_err());
        assert!(parse(&["tool", "[", "]"]).is_err());
        assert!(parse(&["tool", "--bogus"]).is_err());
    }

    #[test]
    fn errors_are_told_once_and_without_numbers() {
        let io = || std::io::Error::from_raw_os_error(2);
        assert_eq!(sentence(&anyhow::Error::new(io()).context("a")), "a: No such file or directory");
        let disk = disk::Error::from(io()).context("b");
        assert_eq!(sentence(&anyhow::Error::new(disk).context("a")), "a: b: No such file or directory");
    }

    #[test]
    fn a_file_in_place_of_a_server_is_told_how_it_is_served() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let why = Word::Plain(file.path().into()).connector().unwrap_err().to_string();
        assert!(why.ends_with(&format!("[ diskpipe serve file {} ]", file.path().display())), "{why}");
        assert!(
            Word::Plain("no/such/file".into())
                .connector()
                .unwrap_err()
                .to_string()
                .contains("not an NBD URI")
        );
    }

    #[test]
    fn what_a_server_says_does_not_drive_the_terminal() {
        let why = anyhow::anyhow!("refused: go away \x1b[31m\u{9b}31m").context("a\nb");
        assert_eq!(sentence(&why), "a\nb: refused: go away \u{fffd}[31m\u{fffd}31m");
    }

    #[test]
    fn options_are_listed() {
        let command = Options::command();
        assert_eq!(long_options(&command), ["--help", "--verbose", "--version", "--wordy"]);
        assert_eq!(short_options(&command), ["-V", "-v"]);
    }
}
