//! The tools without the rest of the binary: `tool copy SOURCE DESTINATION`, `tool info URI`.

use std::{ffi::OsString, process::ExitCode};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let asked = args.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match diskpipe_tools::TOOLS.iter().find(|tool| tool.name == asked || tool.alias == Some(&asked)) {
        Some(tool) => (tool.main)(args),
        None => {
            eprintln!("usage: tool copy|info ...");
            ExitCode::FAILURE
        }
    }
}
