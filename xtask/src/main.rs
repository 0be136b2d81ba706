//! The project's own commands: `cargo xtask test | fuzz | bench | man | packages`.
#![forbid(unsafe_code)]

mod bench;
mod fuzz;
mod man;
mod packages;
mod run;
mod test;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own commands")]
struct Options {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what tests need, then format, lints, unit, conformance, end-to-end and interop tests, fuzzing.
    Test {
        /// Leave the fuzz targets out.
        #[arg(long)]
        no_fuzz: bool,
    },
    /// Run the fuzz targets, or one of them.
    Fuzz {
        /// Which one.
        target: Option<String>,
        /// For how long each.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Compare the server with the installed peers.
    Bench(bench::Options),
    /// Make manual pages and shell completions in target/man and target/completions.
    Man,
    /// Install what the tests need.
    Packages,
}

fn main() -> Result<ExitCode> {
    match Options::parse().command {
        Task::Test { no_fuzz } => return test::all(no_fuzz),
        Task::Fuzz { target: None, seconds } => {
            let broken: Vec<String> = fuzz::each_for(seconds)?
                .into_iter()
                .filter(|(_, sound)| !sound)
                .map(|(name, _)| name)
                .collect();
            if !broken.is_empty() {
                println!("broken: {}", broken.join(", "));
                return Ok(ExitCode::FAILURE);
            }
        }
        Task::Fuzz { target: Some(target), seconds } => {
            if !fuzz::only(&target, seconds)? {
                return Ok(ExitCode::FAILURE);
            }
        }
        Task::Bench(options) => bench::run(&options)?,
        Task::Man => man::make()?,
        Task::Packages => packages::provide()?,
    }
    Ok(ExitCode::SUCCESS)
}
