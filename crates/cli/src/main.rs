//! One binary: argv in, exit code out.
#![deny(unsafe_code)] // allowed in the named files of `serve` alone

mod personality;
mod serve;

use personality::Job;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    let args: Vec<OsString> = args.collect();
    if let Some((name, job)) = personality::of(&program) {
        return start(job, name, &args);
    }
    let (command, rest) =
        args.split_first().map_or(("", &[][..]), |(first, rest)| (first.to_str().unwrap_or("?"), rest));
    match command {
        "serve" => start(Job::Serve, "diskpipe serve", rest),
        "copy" => start(Job::Copy, "diskpipe copy", rest),
        "info" => start(Job::Info, "diskpipe info", rest),
        "install-names" => install_names(rest),
        "--help" | "-h" | "help" => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        "--version" | "-V" => {
            println!("diskpipe {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        "" => fail("no command is given"),
        other => fail(&format!("there is no command {other}")),
    }
}

const HELP: &str = "\
Serve, copy and inspect disks over NBD.

Usage: diskpipe COMMAND [ARGUMENT...]

Commands:
  serve           serve a disk (also under the name nbdkit)
  copy            copy a disk (also under the name nbdcopy)
  info            show what a disk is (also under the name nbdinfo)
  install-names DIR [--force]
                  make links of those names in DIR

diskpipe COMMAND --help tells more about a command.
";

fn fail(sentence: &str) -> ExitCode {
    eprintln!("diskpipe: {sentence}\nTry 'diskpipe --help'.");
    ExitCode::FAILURE
}

fn start(job: Job, program: &str, args: &[OsString]) -> ExitCode {
    match job {
        Job::Serve => serve::main(program, args),
        Job::Copy | Job::Info => fail(&format!("not built yet: {program}")),
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
        Ok(links) => {
            for link in links {
                println!("{}", link.display());
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("diskpipe: {error:#}");
            ExitCode::FAILURE
        }
    }
}
