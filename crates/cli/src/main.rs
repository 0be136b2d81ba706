//! One binary: argv in, exit code out.
#![deny(unsafe_code)] // none here; the named files of `serve` have some

fn main() -> std::process::ExitCode {
    diskpipe::main()
}
