//! `diskpipe serve`, also known as `nbdkit`: joins the grammar, the registries, the sockets and the server.

mod absent;
mod argument_files;
#[allow(unsafe_code, reason = "fork")]
mod background;
mod config;
mod debug_flag;
mod describe;
mod explain;
mod listen;
mod messages;
mod notify;
mod old_names;
pub(crate) mod options;
mod run;
mod selinux;
#[allow(unsafe_code, reason = "a signal handler")]
mod signals;
mod source;
mod stack;
mod tls;
mod trace;
mod user;

use anyhow::{Context, Result, anyhow, bail};
use disk::Backend;
use listen::Place;
use messages::Messages;
use notify::Manager;
use options::{Listen, ServeOptions, What};
use server::Server;
use server::metrics::{Endpoint, Metrics, Page};
use signals::Signals;
use source::Source;
use stack::Stack;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tls::Encryption;
use user::Identity;

/// Runs with the arguments after the name; `program` is that name: `nbdkit` or `diskpipe serve`.
pub(crate) fn main(program: &str, args: &[OsString]) -> ExitCode {
    let result = match ServeOptions::parse(args) {
        Ok(options) => follow(program, options),
        Err(error) => Err(anyhow!("{error}\nTry '{program} --help'.")),
    };
    result.unwrap_or_else(|error| {
        eprintln!("{program}: error: {error:#}");
        ExitCode::FAILURE
    })
}

/// `diskpipe explain`: as `serve --explain`.
pub(crate) fn explain_main(program: &str, args: &[OsString]) -> ExitCode {
    let args: Vec<OsString> = std::iter::once("--explain".into()).chain(args.iter().cloned()).collect();
    main(program, &args)
}

fn follow(program: &str, options: ServeOptions) -> Result<ExitCode> {
    let options = old_names::modern(options).map_err(anyhow::Error::msg)?;
    let stack = match (Stack::find(&options), options.what) {
        (Err(why), What::Explain) => {
            crate::print(&format!("refused: {why}\n"));
            return Ok(ExitCode::FAILURE);
        }
        (found, _) => found.map_err(anyhow::Error::msg)?,
    };
    let text = match options.what {
        What::Serve => return Starting::new(program, options)?.serve(&stack),
        What::Explain => {
            let explained = match &options.config {
                Some(file) => explain::file(&options, file)?,
                None => explain::command_line(&options, &stack),
            };
            let code = crate::print(&explained.text);
            return Ok(if explained.served { code } else { ExitCode::FAILURE });
        }
        What::Help => describe::help(program, &stack),
        What::Version => describe::version(program, &stack),
        What::DumpConfig => describe::config(),
        What::ShortOptions => describe::option_list(false),
        What::LongOptions => describe::option_list(true),
        What::DumpPlugin => {
            let plugin = stack.plugin().context("--dump-plugin needs a plugin")?;
            let described = stack.describe(&options.arguments).map_err(anyhow::Error::msg)?;
            describe::plugin(program, plugin, &described)
        }
    };
    Ok(crate::print(&text))
}

/// A server on its way from a command line to clients.
struct Starting {
    program: String,
    options: ServeOptions,
    messages: Messages,
    identity: Identity,
    manager: Manager,
    command: run::Running,
    encryption: Encryption,
}

impl Starting {
    fn new(program: &str, mut options: ServeOptions) -> Result<Starting> {
        // The current directory will be another one.
        for path in options.pid_file.iter_mut().chain(match &mut options.listen {
            Listen::Unix(path) => Some(path),
            _ => None,
        }) {
            *path = std::path::absolute(&*path).with_context(|| path.display().to_string())?;
        }
        let messages = Messages::start(program, &options)?;
        Ok(Starting {
            program: program.to_owned(),
            encryption: Encryption::set_up(&options.tls, &messages)?,
            messages,
            identity: Identity::find(options.user.as_deref(), options.group.as_deref())?,
            manager: Manager::of_environment(),
            command: run::Running::default(),
            options,
        })
    }

    fn serve(self, stack: &Stack) -> Result<ExitCode> {
        let options = &self.options;
        // First of all, so that nothing the plugin prints reaches a client on standard output.
        let stdio = matches!(options.listen, Listen::Stdio).then(take_stdio).transpose()?;
        if options.exit_with_parent {
            exit_with_parent()?;
        }
        self.messages.debug(&format!("{} {}", self.program, describe::version_number(&self.program)));
        warn_of_flags(options, stack, &self.messages);
        if let Some(address) = &options.unused_ipaddr {
            self.messages.warn(&format!("-i {address} is for TCP, and is not used with -U, -s or --vsock"));
        }
        let source = Source::start(options, stack, &self.messages)?;
        let endpoint = options.metrics.as_deref().map(Endpoint::open).transpose().context("--metrics")?;
        let metrics = endpoint.map(|endpoint| (endpoint, Arc::new(Metrics::new())));
        let backend = match &metrics {
            Some((_, metrics)) => metrics.over(source.backend()),
            None => source.backend(),
        };
        self.messages.debug(&format!("using thread model: {}", backend.thread_model()));
        backend.get_ready().map_err(|error| anyhow!("{error}"))?;
        // As any server's: files that it makes are not for everybody to write.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));

        let signals = signals::keep().context("cannot watch for signals")?;
        if let Some(stream) = stdio {
            if net::listen_fds()?.is_some() {
                bail!("-s cannot be used by a process that was started with sockets (LISTEN_FDS)");
            }
            let pid_file = self.make_pid_file()?;
            let server = Arc::new(self.make_server(backend.clone())?);
            let _page = self.begin(&source, &server, signals, pid_file, metrics)?;
            server.serve_stream(stream);
            backend.finish();
            return Ok(ExitCode::SUCCESS);
        }

        let place = self.place(&source)?;
        self.messages.debug(&place.told());
        let pid_file = self.make_pid_file()?;
        // Somebody who hands sockets over also watches the process.
        let foreground = options.foreground || place.address.is_none();
        let background = if foreground { None } else { Some(background::fork().context("cannot fork")?) };
        if background.is_some() {
            let id = std::process::id();
            self.messages.debug(&format!("forked into background (new pid = {id})"));
        }
        let server = Arc::new(self.make_server(backend.clone())?);
        // Before the user changes: the command is the user's own.
        let shell = options
            .run
            .as_ref()
            .map(|text| run::shell(&place.variables(&options.export, &self.encryption), text));
        let child = shell.map(|shell| self.command.start(shell).context("cannot run a shell")).transpose()?;
        let _page =
            self.begin(&source, &server, signals, pid_file, metrics).inspect_err(|_| self.command.end())?;
        self.announce(&place)?;
        if let Some(background) = background {
            background.ready(options.config.is_some()).context("cannot go to the background")?;
            if options.log.is_none() {
                self.messages.send_to_syslog(&self.program);
            }
        }
        self.manager.ready();
        self.messages.info("clients can connect");

        let code = match child {
            None => {
                server.serve(&place.listeners)?;
                drop(place);
                ExitCode::SUCCESS
            }
            Some(child) => {
                let status = std::thread::scope(|scope| {
                    let server = &server;
                    let serving = scope.spawn(move || {
                        let served = server.serve(&place.listeners);
                        // The command may go on: who connects now must not wait for an answer.
                        drop(place);
                        served
                    });
                    let status = self.command.wait(child).context("cannot wait for the command");
                    server.stop();
                    // A panic of that thread has been told already.
                    if let Ok(Err(error)) = serving.join() {
                        self.messages.error(&format!("cannot serve: {error}"));
                    }
                    status
                })?;
                match status.signal() {
                    // By us, as we were told to end: that is a good end.
                    Some(libc::SIGTERM) if self.command.was_ended() => ExitCode::SUCCESS,
                    signal => {
                        if let Some(signal) = signal {
                            let line = format!("the command of --run was killed by signal {signal}");
                            self.messages.error(&line);
                        }
                        ExitCode::from(run::exit_code(status))
                    }
                }
            }
        };
        backend.finish();
        Ok(code)
    }

    /// Where clients connect: sockets that were handed over, else what the options say, else what the file says.
    fn place(&self, source: &Source) -> Result<Place> {
        let options = &self.options;
        if let Some(place) = Place::inherited(options.listen_option)? {
            for listener in &place.listeners {
                let name = listener.name().unwrap_or("(without a name)");
                self.messages.debug(&format!("serving on a socket that was handed over: {name}"));
            }
            return Ok(place);
        }
        let label = options.selinux_label.as_deref();
        let labelling = label.map(selinux::Labelling::begin).transpose()?;
        if let Some(None) = labelling {
            self.messages.warn("--selinux-label: there is no SELinux here, so the socket has no label");
        }
        if options.listen_option.is_none() && !source.listen().is_empty() {
            let places: Vec<Listen> =
                source.listen().iter().map(|text| listen::parse(text)).collect::<Result<_>>()?;
            return Place::open_all(&places);
        }
        Place::open(&options.listen)
    }

    /// Makes the file while the process may still do what whoever started it may.
    fn make_pid_file(&self) -> Result<Option<File>> {
        let make = |path: &Path| File::create(path).with_context(|| format!("-P {}", path.display()));
        self.options.pid_file.as_deref().map(make).transpose()
    }

    /// In the process that serves: threads may be started, signals end it, and its number is written down. Metrics are
    /// served as long as the returned value lives.
    fn begin(
        &self,
        source: &Source,
        server: &Server,
        signals: Signals,
        pid_file: Option<File>,
        metrics: Option<(Endpoint, Arc<Metrics>)>,
    ) -> Result<Option<Page>> {
        if self.options.swap {
            use rustix::mm::{MlockAllFlags, mlockall};
            mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)
                .context("--swap: cannot lock the memory")?;
        }
        self.watch(signals, source, server)?;
        self.identity.take_on()?;
        source.backend().after_fork().map_err(|error| anyhow!("{error}"))?;
        let mut page = None;
        if let Some((endpoint, metrics)) = metrics {
            if let Some(port) = endpoint.port() {
                self.messages.info(&format!("metrics are at http://localhost:{port}/metrics"));
            }
            page = Some(endpoint.start(metrics).context("--metrics")?);
        }
        if let Some(mut file) = pid_file {
            writeln!(file, "{}", std::process::id()).context("-P: cannot write the process id")?;
        }
        Ok(page)
    }

    fn watch(&self, signals: Signals, source: &Source, server: &Server) -> Result<()> {
        let (stop, command, manager) = (server.stopper(), self.command.clone(), self.manager.clone());
        let (source, messages) = (source.clone(), self.messages.clone());
        let captive = self.options.run.is_some();
        let act = move |signal| {
            if signal == libc::SIGHUP && source.can_reload() {
                manager.reloading();
                match source.reload() {
                    Ok(changed) => messages.info(&format!("the configuration was read again: {changed}")),
                    Err(error) => {
                        messages.error(&format!("the configuration stays as it was: {error:#}"));
                    }
                }
                return manager.ready();
            }
            if signal == libc::SIGUSR1 {
                if let Err(error) = messages.reopen() {
                    messages.error(&format!("the log stays where it was: {error:#}"));
                }
                return;
            }
            // What the keyboard sends goes to the command too, which decides what comes of it.
            if captive && (signal == libc::SIGINT || signal == libc::SIGQUIT) {
                return;
            }
            manager.stopping();
            messages.info(&format!("ending, because of signal {signal}"));
            command.end();
            stop();
        };
        signals.watch(act).context("cannot watch for signals")
    }

    fn make_server(&self, backend: Arc<dyn Backend>) -> Result<Server> {
        let options = &self.options;
        let mut how = server::Options {
            oldstyle: options.oldstyle,
            read_only: options.read_only,
            resize: options.resize,
            keepalive: options.keepalive,
            idle_limit: options.idle_timeout,
            log: Arc::new(self.messages.clone()),
            tls: self.encryption.server.clone(),
            ..server::Options::default()
        };
        if let Some(limit) = options.timeout {
            // As good as none, and still a time that can be added to others.
            how.handshake_limit = if limit.is_zero() { Duration::from_secs(u32::MAX.into()) } else { limit };
        }
        if let Some(threads) = options.threads {
            how.in_flight = threads as usize;
        }
        how.policy.tls = self.encryption.policy;
        how.policy.structured_replies = options.structured_replies;
        how.policy.extended_headers = options.structured_replies;
        how.policy.meta_contexts = options.meta_contexts;
        if let Some(mask) = options.mask_handshake {
            how.policy.handshake_flags = how.policy.handshake_flags & proto::flags::HandshakeFlags(mask);
        }
        Server::with_options(backend, how).context("cannot make a server")
    }

    /// `--print-uri`.
    fn announce(&self, place: &Place) -> Result<()> {
        if self.options.print_uri && place.address.is_some() {
            let mut out = std::io::stdout();
            writeln!(out, "{}", place.variables(&self.options.export, &self.encryption).uri)
                .and_then(|()| out.flush())
                .context("--print-uri: cannot write to standard output")?;
        }
        Ok(())
    }
}

/// Standard input and output as a client's stream; in their places come nothing, and standard error.
fn take_stdio() -> Result<net::Stream> {
    let taken = || -> std::io::Result<net::Stream> {
        let input: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned()?;
        let output: OwnedFd = std::io::stdout().as_fd().try_clone_to_owned()?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        rustix::stdio::dup2_stdout(std::io::stderr())?;
        net::Stream::from_pair(input, output)
    };
    taken().context("-s: standard input and output cannot be used")
}

/// Has the kernel end this process (as `kill` would) when its parent ends.
fn exit_with_parent() -> Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::TERM)).context("--exit-with-parent")?;
    // It may have ended just before the kernel was told.
    if getppid() != parent {
        bail!("--exit-with-parent: the parent has ended");
    }
    Ok(())
}

/// Debug flags are details of nbdkit's own plugins; scripts that set them must not fail.
fn warn_of_flags(options: &ServeOptions, stack: &Stack, messages: &Messages) {
    for flag in &options.debug {
        if flag.is_of_server() || stack.debug_parameter(flag).is_some() {
            continue;
        }
        let debug_flag::DebugFlag { component, flag, .. } = flag;
        if component == "nbdkit" || stack.components().any(|about| about.name == component) {
            let variable = format!("{component}_debug_{}", flag.replace('.', "_"));
            messages.warn(&format!(
                "-D {component}.{flag}: {component} does not contain a global variable called {variable}"
            ));
        } else {
            messages.warn(&format!("debug flag -D {component}.{flag} was not used"));
        }
    }
}
