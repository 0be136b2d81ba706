//! `diskpipe serve`, also known as `nbdkit`: joins the grammar, the registries, the sockets and the server.

#[allow(unsafe_code, reason = "fork")]
mod background;
mod debug_flag;
mod describe;
mod listen;
mod messages;
pub(crate) mod options;
mod run;
#[allow(unsafe_code, reason = "a signal handler")]
mod signals;
mod stack;
mod trace;

use anyhow::{Context, Result, anyhow, bail};
use disk::{Backend, Client, Disk, Io, ThreadModel};
use listen::Place;
use messages::Messages;
use options::{Listen, LogTo, ServeOptions, What};
use server::Server;
use stack::Stack;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;
use std::sync::Arc;

/// Runs with the arguments after the name; `program` is that name: `nbdkit` or `diskpipe serve`.
pub(crate) fn main(program: &str, args: &[OsString]) -> ExitCode {
    let messages = Messages::new(program, false, LogTo::Stderr);
    let result = match ServeOptions::parse(args) {
        Ok(options) => follow(program, &options),
        Err(error) => Err(anyhow!("{error}\nTry '{program} --help'.")),
    };
    result.unwrap_or_else(|error| {
        messages.error(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}

fn follow(program: &str, options: &ServeOptions) -> Result<ExitCode> {
    let stack = Stack::find(options).map_err(anyhow::Error::msg)?;
    let text = match options.what {
        What::Serve => return serve(program, options, &stack),
        What::Help => describe::help(program, &stack),
        What::Version => describe::version(program, &stack),
        What::DumpConfig => describe::config(),
        What::ShortOptions => describe::option_list(false),
        What::LongOptions => describe::option_list(true),
        What::DumpPlugin => {
            let plugin = stack.plugin().context("--dump-plugin needs a plugin")?;
            let model = match stack.start(&options.arguments, |_, backend| backend) {
                Ok(backend) => backend.thread_model(),
                // Without its parameters a plugin cannot start, but can be asked all the same.
                Err(_) if options.arguments.is_empty() => plugin.thread_model,
                Err(error) => bail!(error),
            };
            describe::plugin(program, plugin, model)
        }
    };
    Ok(crate::print(&text))
}

fn serve(program: &str, options: &ServeOptions, stack: &Stack) -> Result<ExitCode> {
    // First of all, so that nothing the plugin prints reaches a client on standard output.
    let stdio = matches!(options.listen, Listen::Stdio).then(take_stdio).transpose()?;
    if options.exit_with_parent {
        exit_with_parent()?;
    }
    if options.swap {
        use rustix::mm::{MlockAllFlags, mlockall};
        mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE).context("--swap: cannot lock the memory")?;
    }
    let messages = Arc::new(Messages::new(program, options.verbose, options.log.unwrap_or(LogTo::Stderr)));
    warn_of_flags(options, stack, &messages);

    let tell_requests = options.verbose && !options.debug.iter().any(debug_flag::DebugFlag::hides_requests);
    let backend = stack.start(&options.arguments, |name, backend| match tell_requests {
        true => trace::backend(name, backend, messages.clone()),
        false => backend,
    });
    let mut backend = backend.map_err(anyhow::Error::msg)?;
    if options.threads == Some(1) {
        backend = Arc::new(OneRequestAtATime(backend));
    }
    backend.get_ready().map_err(|error| anyhow!("{error}"))?;
    // As any server's: files that it makes are not for everybody to write.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));

    if let Some(stream) = stdio {
        if net::listen_fds()?.is_some() {
            bail!("-s cannot be used by a process that was started with sockets (LISTEN_FDS)");
        }
        let server = Arc::new(make_server(options, backend.clone(), &messages)?);
        begin(options, &backend, &server, &run::Running::default())?;
        server.serve_stream(stream);
        backend.finish();
        return Ok(ExitCode::SUCCESS);
    }

    let place = Place::open(&options.listen)?;
    // Somebody who hands sockets over also watches the process.
    let foreground = options.foreground || place.address.is_none();
    let background = if foreground { None } else { Some(background::fork().context("cannot fork")?) };
    let server = Arc::new(make_server(options, backend.clone(), &messages)?);
    let command = run::Running::default();
    begin(options, &backend, &server, &command)?;
    if let Some(background) = background {
        background.ready().context("cannot go to the background")?;
        messages.send_to(options.log.unwrap_or(LogTo::Syslog));
    }

    let code = match &options.run {
        None => {
            server.serve(&place.listeners)?;
            ExitCode::SUCCESS
        }
        Some(text) => {
            let shell = run::shell(&place.variables(&options.export), text);
            let status = std::thread::scope(|scope| {
                let serving = scope.spawn(|| server.serve(&place.listeners));
                let status = command.run(shell).context("cannot run a shell");
                server.stop();
                // A panic of that thread has been told already.
                if let Ok(Err(error)) = serving.join() {
                    messages.error(&format!("cannot serve: {error}"));
                }
                status
            })?;
            if let Some(signal) = status.signal() {
                messages.error(&format!("the command of --run was killed by signal {signal}"));
            }
            ExitCode::from(run::exit_code(status))
        }
    };
    drop(place);
    backend.finish();
    Ok(code)
}

fn make_server(
    options: &ServeOptions,
    backend: Arc<dyn Backend>,
    messages: &Arc<Messages>,
) -> Result<Server> {
    let mut how = server::Options {
        oldstyle: options.oldstyle,
        read_only: options.read_only,
        log: messages.clone(),
        ..server::Options::default()
    };
    how.policy.structured_replies = options.structured_replies;
    how.policy.extended_headers = options.structured_replies;
    how.policy.meta_contexts = options.meta_contexts;
    if let Some(mask) = options.mask_handshake {
        how.policy.handshake_flags = how.policy.handshake_flags & proto::flags::HandshakeFlags(mask);
    }
    Server::with_options(backend, how).context("cannot make a server")
}

/// In the process that serves: threads may be started, signals end it, and its number is written down.
fn begin(
    options: &ServeOptions,
    backend: &Arc<dyn Backend>,
    server: &Server,
    command: &run::Running,
) -> Result<()> {
    backend.after_fork().map_err(|error| anyhow!("{error}"))?;
    let (stop, command) = (server.stopper(), command.clone());
    let captive = options.run.is_some();
    signals::watch(move |signal| {
        // What the keyboard sends goes to the command too, which decides what comes of it.
        if captive && (signal == libc::SIGINT || signal == libc::SIGQUIT) {
            return;
        }
        command.end();
        stop();
    })
    .context("cannot watch for signals")?;
    if let Some(path) = &options.pid_file {
        std::fs::write(path, format!("{}\n", std::process::id()))
            .with_context(|| path.display().to_string())?;
    }
    Ok(())
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
        let debug_flag::DebugFlag { component, flag, .. } = flag;
        if component == "nbdkit" {
            continue;
        }
        if stack.components().any(|about| about.name == component) {
            let variable = format!("{component}_debug_{}", flag.replace('.', "_"));
            messages.warn(&format!(
                "-D {component}.{flag}: {component} does not contain a global variable called {variable}"
            ));
        } else {
            messages.warn(&format!("debug flag -D {component}.{flag} was not used"));
        }
    }
}

/// What `-t 1` makes of a backend: answers come in the order of the requests.
struct OneRequestAtATime(Arc<dyn Backend>);

impl Backend for OneRequestAtATime {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.0.open(client)
    }

    fn thread_model(&self) -> ThreadModel {
        self.0.thread_model().min(ThreadModel::SerializeRequests)
    }

    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.0)
    }
}
