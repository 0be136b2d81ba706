//! The grammar of nbdkit(1): what was typed, checked and as plain data.
//!
//! [`Typed`] declares every option once, for parsing, `--help`, completion and the manual page. (Hidden aliases are
//! abbreviations of nbdkit's that options of our own would make ambiguous.)
//! [`ServeOptions::parse`] turns it into what the server needs, and is where options contradict each other.

use super::debug_flag::DebugFlag;
use super::tls::{self, TlsOptions};
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};
use net::Family;
use params::{Delay, Value};
use proto::handshake::Tls;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Serve a disk over NBD.
///
/// Takes nbdkit's command line: options, a plugin, and `key=value` parameters of the plugin and the filters, in
/// any order. An argument without `=` belongs to the plugin's main parameter.
#[derive(Parser, Debug)]
#[command(name = "serve", infer_long_args = true, args_override_self = true)]
#[command(disable_help_flag = true, disable_version_flag = true, max_term_width = 100)]
#[command(override_usage = "serve [OPTION...] PLUGIN [[KEY=]VALUE...]")]
pub(crate) struct Typed {
    /// The plugin, then the parameters of it and of the filters.
    #[arg(value_name = "PLUGIN [[KEY=]VALUE...]")]
    words: Vec<String>,

    /// Listen on IPv4 only.
    #[arg(short = '4', long, overrides_with = "ipv6_only")]
    ipv4_only: bool,
    /// Listen on IPv6 only.
    #[arg(short = '6', long, overrides_with = "ipv4_only")]
    ipv6_only: bool,
    /// Serve the exports that this file describes, instead of one plugin; SIGHUP reads it again.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set a debug flag of the server, a plugin or a filter.
    #[arg(short = 'D', long, value_name = "NAME.FLAG=N", action = ArgAction::Append, allow_hyphen_values = true)]
    debug: Vec<String>,
    /// Print how this program was built, and exit.
    #[arg(long)]
    dump_config: bool,
    /// Print facts about the plugin, and exit.
    #[arg(long)]
    dump_plugin: bool,
    /// Exit when the parent process exits (implies --foreground).
    #[arg(long)]
    exit_with_parent: bool,
    /// Print what would be served: each layer, its parameters, and what it makes of the disk.
    #[arg(long)]
    explain: bool,
    /// The export name that --run puts into its variables.
    #[arg(short = 'e', long, visible_aliases = ["export-name", "export"], alias = "exp", value_name = "NAME",
          allow_hyphen_values = true, default_value = "", hide_default_value = true)]
    exportname: String,
    /// Put a filter before the plugin; the first one given is nearest to the client.
    #[arg(long, value_name = "FILTER", action = ArgAction::Append)]
    filter: Vec<String>,
    /// Stay in the foreground.
    #[arg(short = 'f', long, visible_alias = "no-fork")]
    foreground: bool,
    /// Change to this group after starting.
    #[arg(short = 'g', long, value_name = "GROUP")]
    group: Option<String>,
    /// Print help, with the parameters of the plugin and filters if any are named, and exit.
    #[arg(long)]
    help: bool,
    /// Listen on this address or host name only.
    #[arg(short = 'i', long, visible_alias = "ip-addr", value_name = "ADDRESS")]
    ipaddr: Option<String>,
    /// Cut off clients that say nothing for so long while nothing of theirs is under way.
    #[arg(long, value_name = "TIME")]
    idle_timeout: Option<String>,
    /// Ask silent TCP clients now and then whether they are still there.
    #[arg(long)]
    keepalive: bool,
    /// Where messages go: stderr, syslog (the default in the background), null or a file's path, which begins with /.
    #[arg(long, value_name = "TO")]
    log: Option<String>,
    /// How messages look: text (the default) or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Print all long options, and exit.
    #[arg(long, hide = true)]
    long_options: bool,
    /// Offer only these handshake flags.
    #[arg(long, alias = "m", value_name = "MASK", allow_hyphen_values = true)]
    mask_handshake: Option<String>,
    /// Tell counters and latencies to Prometheus here: [HOST]:PORT or the path of a Unix socket.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<String>,
    /// A name for this server in its messages.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Speak the newstyle protocol (the default).
    #[arg(short = 'n', long, visible_alias = "new-style", overrides_with = "oldstyle")]
    newstyle: bool,
    /// Do not offer meta contexts, and with them block status.
    #[arg(long, visible_alias = "no-meta-contexts")]
    no_mc: bool,
    /// Do not offer structured replies.
    #[arg(long, visible_alias = "no-structured-replies")]
    no_sr: bool,
    /// Speak the oldstyle protocol.
    #[arg(short = 'o', long, visible_alias = "old-style", overrides_with = "newstyle")]
    oldstyle: bool,
    /// Write the process id to this file once clients can connect.
    #[arg(short = 'P', long, visible_alias = "pid-file", value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Listen on this port instead of 10809.
    #[arg(short = 'p', long, value_name = "PORT", allow_hyphen_values = true)]
    port: Option<String>,
    /// Print the server's URI on standard output once clients can connect.
    #[arg(long)]
    print_uri: bool,
    /// Serve read-only.
    #[arg(short = 'r', long, visible_alias = "read-only", alias = "re")]
    readonly: bool,
    /// Let clients that may write change the size of a disk that can change it (a proposed extension of NBD).
    #[arg(long)]
    resize: bool,
    /// Serve while this shell command runs, and exit with its status (implies --foreground).
    ///
    /// The command sees the server in the variables uri, nbd, exportname, port and unixsocket.
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    run: Option<String>,
    /// Label the socket for SELinux.
    #[arg(long, value_name = "LABEL")]
    selinux_label: Option<String>,
    /// Print all short options, and exit.
    #[arg(long, hide = true)]
    short_options: bool,
    /// Serve one client on standard input and output (implies --foreground).
    #[arg(short = 's', long, visible_alias = "stdin")]
    single: bool,
    /// Lock the server into memory, for swap on this machine.
    #[arg(long)]
    swap: bool,
    /// How many requests of a connection may be in flight: 1024 if nothing is said. With 1, answers come in the order
    /// of the requests.
    #[arg(short = 't', long, value_name = "N", allow_hyphen_values = true)]
    threads: Option<String>,
    /// Cut off clients whose handshake takes longer than this: 60 seconds if nothing is said, 0 for no limit.
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,
    /// Encryption: off, on (clients may) or require.
    #[arg(long, value_name = "WHEN")]
    tls: Option<String>,
    /// The directory of the server's X.509 certificates.
    #[arg(long, value_name = "DIR")]
    tls_certificates: Option<PathBuf>,
    /// The file of pre-shared keys.
    #[arg(long, alias = "tls-p", value_name = "FILE")]
    tls_psk: Option<PathBuf>,
    /// Versions and ciphers of TLS, as a priority string of GnuTLS.
    #[arg(long, value_name = "PRIORITY", allow_hyphen_values = true)]
    tls_priority: Option<String>,
    /// Demand and check certificates of clients.
    #[arg(long)]
    tls_verify_peer: bool,
    /// Listen on this Unix socket; `-` makes a private one.
    #[arg(short = 'U', long, value_name = "SOCKET|-", allow_hyphen_values = true)]
    unix: Option<PathBuf>,
    /// Change to this user after starting.
    #[arg(short = 'u', long, value_name = "USER")]
    user: Option<String>,
    /// Tell in detail what happens.
    #[arg(short = 'v', long)]
    verbose: bool,
    /// Print the version, also of the plugin and filters if any are named, and exit.
    #[arg(short = 'V', long)]
    version: bool,
    /// Listen on an AF_VSOCK port.
    #[arg(long)]
    vsock: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Serve,
    Explain,
    Help,
    Version,
    DumpConfig,
    DumpPlugin,
    ShortOptions,
    LongOptions,
}

/// Where clients connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listen {
    /// TCP; `host` is `None` for all interfaces.
    Tcp { host: Option<String>, port: u16, family: Family },
    /// A Unix socket at this path, which stays when the server ends.
    Unix(PathBuf),
    /// A Unix socket in a directory of its own, which goes when the server ends.
    PrivateUnix,
    /// AF_VSOCK.
    Vsock { port: u32 },
    /// One client on standard input and output.
    Stdio,
}

/// Where the server's messages go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogTo {
    Stderr,
    Syslog,
    Null,
    /// Appended to this file, which is made if need be.
    File(PathBuf),
}

/// How the server's messages look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, params::Choice)]
pub(crate) enum LogFormat {
    /// `nbdkit: error: what happened`.
    #[default]
    Text,
    /// An object per line.
    Json,
}

/// A checked command line.
#[derive(Debug, Clone)]
pub(crate) struct ServeOptions {
    pub(crate) what: What,
    pub(crate) listen: Listen,
    /// The option that says where to listen, if one does.
    pub(crate) listen_option: Option<&'static str>,
    /// What was given with `-i`, where clients do not come over TCP.
    pub(crate) unused_ipaddr: Option<String>,
    /// Outermost (nearest to the client) first.
    pub(crate) filters: Vec<String>,
    pub(crate) plugin: Option<String>,
    /// `key=value` and bare arguments, in order.
    pub(crate) arguments: Vec<String>,
    pub(crate) read_only: bool,
    pub(crate) resize: bool,
    /// For `--run` only: may be empty.
    pub(crate) export: String,
    /// Typed or implied.
    pub(crate) foreground: bool,
    pub(crate) verbose: bool,
    /// `None`: standard error, or the system log in the background.
    pub(crate) log: Option<LogTo>,
    pub(crate) log_format: LogFormat,
    /// In messages.
    pub(crate) name: Option<String>,
    pub(crate) print_uri: bool,
    pub(crate) user: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) selinux_label: Option<String>,
    /// For the handshake; `None`: the server's own choice; zero: no limit.
    pub(crate) timeout: Option<Duration>,
    /// `None`: clients may be idle for ever.
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) keepalive: bool,
    pub(crate) config: Option<PathBuf>,
    /// Where Prometheus asks, as it was typed.
    pub(crate) metrics: Option<String>,
    pub(crate) pid_file: Option<PathBuf>,
    /// Requests in flight per connection; `None` for the server's own choice.
    pub(crate) threads: Option<u32>,
    pub(crate) run: Option<String>,
    pub(crate) exit_with_parent: bool,
    pub(crate) oldstyle: bool,
    pub(crate) mask_handshake: Option<u16>,
    pub(crate) tls: TlsOptions,
    pub(crate) structured_replies: bool,
    pub(crate) meta_contexts: bool,
    pub(crate) swap: bool,
    pub(crate) debug: Vec<DebugFlag>,
}

/// A command line that cannot be followed, as sentences.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadUsage(pub(crate) String);

impl fmt::Display for BadUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadUsage {}

/// The declared options, for help, completion and manual.
pub(crate) fn command() -> clap::Command {
    Typed::command()
}

impl ServeOptions {
    /// Reads the arguments after the program's name.
    pub(crate) fn parse<S: Into<std::ffi::OsString> + Clone>(
        args: impl IntoIterator<Item = S>,
    ) -> Result<ServeOptions, BadUsage> {
        let matches = command().no_binary_name(true).try_get_matches_from(args).map_err(of_clap)?;
        let mut typed = Typed::from_arg_matches(&matches).map_err(of_clap)?;
        typed.words = super::argument_files::expand(typed.words).map_err(BadUsage)?;
        typed.checked()
    }
}

/// Reads `--log`; `None` is the default.
fn log_to(text: &str) -> Result<Option<LogTo>, BadUsage> {
    Ok(Some(match text {
        "default" => return Ok(None),
        "stderr" => LogTo::Stderr,
        "syslog" => LogTo::Syslog,
        "null" => LogTo::Null,
        path if path.starts_with('/') => LogTo::File(path.into()),
        _ => {
            let why =
                "not one of stderr, syslog, null or default, or the path of a file, which begins with /";
            return Err(BadUsage(format!("--log={text}: {why}")));
        }
    }))
}

/// The first paragraph of clap's message, without its "error: ".
fn of_clap(error: clap::Error) -> BadUsage {
    let text = error.to_string();
    let text = text.split("\n\n").next().unwrap_or_default();
    BadUsage(text.strip_prefix("error: ").unwrap_or(text).trim_end().to_owned())
}

impl Typed {
    fn checked(self) -> Result<ServeOptions, BadUsage> {
        let what = self.what();
        if matches!(what, What::Serve | What::Explain | What::DumpPlugin) {
            self.refuse_contradictions()?;
        }
        let number = |option: &str, text: Option<&String>| -> Result<Option<u32>, BadUsage> {
            text.map(|text| {
                u32::from_text(text).map_err(|wrong| BadUsage(format!("--{option}={text}: {}", wrong.0)))
            })
            .transpose()
        };
        // Flags above the sixteen bits do not exist, so masking them changes nothing.
        let mask_handshake =
            number("mask-handshake", self.mask_handshake.as_ref())?.map(|mask| (mask & 0xffff) as u16);
        let threads = number("threads", self.threads.as_ref())?.filter(|threads| *threads > 0);
        let time = |option: &str, text: Option<&String>| -> Result<Option<Duration>, BadUsage> {
            let parsed = |text: &String| match Delay::from_text(text) {
                Ok(delay) => Ok(delay.duration()),
                Err(wrong) => Err(BadUsage(format!("--{option}={text}: {}", wrong.0))),
            };
            text.map(parsed).transpose()
        };
        let timeout = time("timeout", self.timeout.as_ref())?;
        // No limit is what there is without the option.
        let idle_timeout = time("idle-timeout", self.idle_timeout.as_ref())?.filter(|limit| !limit.is_zero());
        let log = self.log.as_deref().map(log_to).transpose()?.flatten();
        let log_format = self.log_format.as_deref().unwrap_or("text");
        let log_format = LogFormat::from_text(log_format)
            .map_err(|wrong| BadUsage(format!("--log-format={log_format}: {}", wrong.0)))?;
        let listen = self.listen()?;
        let listen_option = self.listen_option();
        let is_tcp = matches!(listen, Listen::Tcp { .. });
        let tls = TlsOptions {
            when: self.tls.as_deref().map(tls::when).transpose()?,
            certificates: self.tls_certificates,
            psk: self.tls_psk,
            verify_peer: self.tls_verify_peer,
            priority: self.tls_priority,
        };
        if self.oldstyle && tls.when == Some(Tls::Require) {
            return Err(BadUsage(
                "-o and --tls=require cannot be used together: the oldstyle protocol has no TLS".into(),
            ));
        }
        let debug = self.debug.iter().map(|text| DebugFlag::parse(text)).collect::<Result<_, _>>()?;
        let mut words = self.words.into_iter();
        Ok(ServeOptions {
            what,
            foreground: self.foreground || self.exit_with_parent || self.run.is_some() || self.single,
            listen,
            listen_option,
            unused_ipaddr: self.ipaddr.filter(|_| !is_tcp),
            filters: self.filter,
            plugin: words.next(),
            arguments: words.collect(),
            read_only: self.readonly,
            resize: self.resize,
            export: self.exportname,
            verbose: self.verbose,
            log,
            log_format,
            name: self.name,
            print_uri: self.print_uri,
            user: self.user,
            group: self.group,
            selinux_label: self.selinux_label,
            timeout,
            idle_timeout,
            keepalive: self.keepalive,
            config: self.config,
            metrics: self.metrics,
            pid_file: self.pidfile,
            threads,
            run: self.run,
            exit_with_parent: self.exit_with_parent,
            oldstyle: self.oldstyle,
            mask_handshake,
            tls,
            structured_replies: !self.no_sr,
            meta_contexts: !self.no_mc,
            swap: self.swap,
            debug,
        })
    }

    /// Options that print something and exit win over serving, whatever else is there.
    fn what(&self) -> What {
        match self {
            Typed { help: true, .. } => What::Help,
            Typed { version: true, .. } => What::Version,
            Typed { dump_config: true, .. } => What::DumpConfig,
            Typed { short_options: true, .. } => What::ShortOptions,
            Typed { long_options: true, .. } => What::LongOptions,
            Typed { dump_plugin: true, .. } => What::DumpPlugin,
            Typed { explain: true, .. } => What::Explain,
            _ => What::Serve,
        }
    }

    fn refuse_contradictions(&self) -> Result<(), BadUsage> {
        let places = [
            ("-s", self.single),
            ("-U", self.unix.is_some()),
            ("-p", self.port.is_some() && !self.vsock),
            ("--vsock", self.vsock),
        ];
        let mut given = places.iter().filter(|(_, given)| *given).map(|(option, _)| *option);
        if let (Some(one), Some(other)) = (given.next(), given.next()) {
            return Err(BadUsage(format!(
                "{one} and {other} cannot be used together: clients connect in one place"
            )));
        }
        if self.single && self.run.is_some() {
            return Err(BadUsage(
                "-s and --run cannot be used together: both want standard input and output".into(),
            ));
        }
        if self.single && self.dump_plugin {
            return Err(BadUsage(
                "-s and --dump-plugin cannot be used together: standard output is the client's".into(),
            ));
        }
        if self.single && self.print_uri {
            return Err(BadUsage(
                "-s and --print-uri cannot be used together: standard output is the client's".into(),
            ));
        }
        if self.single && self.config.is_some() {
            return Err(BadUsage(
                "-s and --config cannot be used together: a file is for many clients".into(),
            ));
        }
        if self.config.is_some() {
            let given = [("a plugin", !self.words.is_empty()), ("--filter", !self.filter.is_empty())];
            return match given.iter().find(|(_, given)| *given) {
                Some((what, _)) => Err(BadUsage(format!(
                    "{what} and --config cannot be used together: the file says which plugins and filters there are"
                ))),
                None => Ok(()),
            };
        }
        if self.words.is_empty() {
            return Err(BadUsage(match self.dump_plugin {
                true => "--dump-plugin needs a plugin; for facts about the server use --dump-config".into(),
                false => "no plugin is given: try --help".into(),
            }));
        }
        Ok(())
    }

    /// The option that says where to listen: none may, where the sockets are there already.
    fn listen_option(&self) -> Option<&'static str> {
        let given = [
            ("-U", self.unix.is_some()),
            ("-p", self.port.is_some()),
            ("-i", self.ipaddr.is_some()),
            ("-s", self.single),
            ("--vsock", self.vsock),
            ("--run", self.run.is_some()),
        ];
        given.iter().find(|(_, given)| *given).map(|(option, _)| *option)
    }

    fn listen(&self) -> Result<Listen, BadUsage> {
        /// The port that is registered for NBD.
        const NBD: u16 = 10809;
        if self.single {
            return Ok(Listen::Stdio);
        }
        if let Some(path) = &self.unix {
            return Ok(if path.as_os_str() == "-" {
                Listen::PrivateUnix
            } else {
                Listen::Unix(path.clone())
            });
        }
        let tcp = self.port.is_some() || self.ipaddr.is_some() || self.ipv4_only || self.ipv6_only;
        if self.run.is_some() && !tcp && !self.vsock {
            // Only the command is to find it, and several may run at once.
            return Ok(Listen::PrivateUnix);
        }
        let bad = |text: &str, what| BadUsage(format!("--port={text}: not a {what}"));
        if self.vsock {
            let port = match &self.port {
                Some(text) => u32::from_text(text).map_err(|_| bad(text, "vsock port number"))?,
                None => NBD.into(),
            };
            return Ok(Listen::Vsock { port });
        }
        let port = match &self.port {
            Some(text) => {
                let port = text.parse().ok().or_else(|| net::service_port(text));
                port.ok_or_else(|| bad(text, "port number from 0 to 65535, nor the name of a service"))?
            }
            None => NBD,
        };
        let family = match (self.ipv4_only, self.ipv6_only) {
            (true, _) => Family::V4,
            (_, true) => Family::V6,
            _ => Family::Any,
        };
        Ok(Listen::Tcp { host: self.ipaddr.clone().filter(|host| !host.is_empty()), port, family })
    }
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
