//! The one binary's inside: argv in, exit code out. It is a library only so that `xtask` can make manual pages and
//! completions of the same declarations.
#![deny(unsafe_code)] // allowed in the named files of `serve` alone

mod personality;
mod serve;

use personality::Job;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// The options of `diskpipe serve`.
pub fn serve_command() -> clap::Command {
    serve::options::command()
}

/// The manual of `diskpipe serve`, in Markdown; `<!-- options -->` marks the place of the options.
pub const SERVE_MANUAL: &str = include_str!("serve/serve.md");

/// Does what the program's arguments say.
pub fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    let mut args: Vec<OsString> = args.collect();
    if let Some((name, job)) = personality::of_program(&program) {
        return start(job, name, args);
    }
    let command = args.first().map_or("", |first| first.to_str().unwrap_or("?"));
    if let Some(job) = personality::of_command(command) {
        return start(job, &format!("diskpipe {command}"), args.split_off(1));
    }
    match command {
        "install-names" => install_names(&args[1..]),
        "--help" | "-h" | "help" => print(HELP),
        "--version" | "-V" => print(&format!("diskpipe {}\n", env!("CARGO_PKG_VERSION"))),
        "mount" => fail("this build has no mount: it needs the feature “mount”"),
        "" => fail("no command is given"),
        other => fail(&format!("there is no command {other}")),
    }
}

const HELP: &str = "\
Serve, copy and inspect disks over NBD.

Usage: diskpipe COMMAND [ARGUMENT...]

Commands:
  serve           serve a disk (also under the name nbdkit)
  explain         show what serve would serve with the same arguments
  cat             write files in the file system on a disk to standard output
  copy            copy a disk (also under the name nbdcopy)
  cp              copy files out of the file system on a disk
  diff            show where two disks differ
  discard         give the space of a disk back (also under the name nbddiscard)
  dump            show the content of a disk (also under the name nbddump)
  info            show what a disk is (also under the name nbdinfo)
  keygen          make keys for TLS
  ls              list directories of the file system on a disk, or its partitions
  map             draw where a disk has data, or where two disks differ
  mount           show a disk as a file (also under the name nbdfuse)
  overlay         look at, compare, commit and fork what the filter cow keeps
  resize          change the size of a disk that is served
  shell           talk to servers in Python (also under the name nbdsh)
  zero            overwrite a disk with zeroes (also under the name nbdzero)
  install-names DIR [--force]
                  make links of those names in DIR

diskpipe COMMAND --help tells more about a command.
";

/// Prints on standard output. Whoever reads it may have seen enough (`| head`): that is no panic.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(error) => fail(&format!("cannot write to standard output: {error}")),
    }
}

fn fail(sentence: &str) -> ExitCode {
    eprintln!("diskpipe: {sentence}\nTry 'diskpipe --help'.");
    ExitCode::FAILURE
}

/// Runs with the arguments after `name`, which messages begin with.
fn start(job: Job, name: &str, mut args: Vec<OsString>) -> ExitCode {
    match job {
        Job::Serve => serve::main(name, &args),
        Job::Explain => serve::explain_main(name, &args),
        Job::Tool(tool) => {
            args.insert(0, name.into());
            (tool.main)(args)
        }
    }
}

fn install_names(args: &[OsString]) -> ExitCode {
    let (options, directories): (Vec<&OsString>, Vec<&OsString>) =
        args.iter().partition(|arg| arg.as_encoded_bytes().starts_with(b"-"));
    let force = match options[..] {
        [] => false,
        [option] if option == "--force" => true,
        _ => return fail("install-names takes a directory and --force"),
    };
    let [directory] = directories[..] else {
        return fail("install-names takes one directory");
    };
    let installed = std::env::current_exe()
        .map_err(anyhow::Error::from)
        .and_then(|binary| personality::install(Path::new(directory), &binary, force));
    match installed {
        Ok(links) => print(&links.iter().map(|link| format!("{}\n", link.display())).collect::<String>()),
        Err(error) => {
            eprintln!("diskpipe: {error:#}");
            ExitCode::FAILURE
        }
    }
}
