//! `cargo xtask bench`: our server and the installed peers on the same shapes of load, in turn.
//!
//! Only ratios mean anything, and only within one round: each round runs every server on a shape, in rotating order,
//! and what is printed is the median over the rounds. Server and client share one core when that can be had, so that
//! a figure is one over the processor time that a request costs on both sides; other work on the machine then
//! disturbs least.

mod load;
mod servers;

use crate::{packages, run as tools};
use anyhow::{Context, Result, bail};
use load::{SHAPES, Shape};
use servers::{KINDS, Kind, Server, Store};
use std::{process::Command, time::Duration};

/// How to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How often each server has its turn on each shape.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How many milliseconds each turn takes.
    #[arg(long, default_value_t = 400)]
    milliseconds: u64,
    /// Only shapes whose name contains this.
    #[arg(long, default_value = "")]
    shape: String,
    /// Let the system place server and client: tells whether parallelism helps, on a quiet machine.
    #[arg(long)]
    free: bool,
    /// This process is the optimised and pinned one.
    #[arg(long, hide = true)]
    measuring: bool,
}

/// Builds everything optimised and measures.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.measuring {
        return measure(options);
    }
    let build = ["build", "--release", "--package", "diskpipe", "--package", "xtask"];
    if !tools::watched(tools::cargo(&build), |_| {})?.success() {
        bail!("the build failed");
    }
    let mut words: Vec<String> = vec![];
    if !options.free {
        // In real time, others on this core wait while we measure; without the right to that, we share it.
        if rustix::process::geteuid().is_root() && packages::is_installed("chrt") {
            words.extend(["chrt", "-r", "1"].map(str::to_owned));
        }
        if let (true, Some(core)) = (packages::is_installed("taskset"), last_core()) {
            words.extend(["taskset".to_owned(), "-c".to_owned(), core.to_string()]);
        }
    }
    words.push(tools::target_dir().join("release/xtask").display().to_string());
    words.extend(["bench", "--measuring", "--shape", &options.shape].map(str::to_owned));
    words.extend(["--rounds".to_owned(), options.rounds.to_string()]);
    words.extend(["--milliseconds".to_owned(), options.milliseconds.to_string()]);
    let status =
        Command::new(&words[0]).args(&words[1..]).status().context("the measurement does not start")?;
    if status.success() { Ok(()) } else { bail!("the measurement ended with {status}") }
}

/// The last core that we may use: interrupts tend to be handled by the first.
fn last_core() -> Option<usize> {
    let cores = rustix::thread::sched_getaffinity(None).ok()?;
    (0..rustix::thread::CpuSet::MAX_CPU).rev().find(|core| cores.is_set(*core))
}

fn measure(options: &Options) -> Result<()> {
    println!(
        "median of {} rounds, ratio to nbdkit; in brackets nbdkit's own requests per second",
        options.rounds
    );
    for (store, title) in [(Store::Memory, "memory"), (Store::File, "file")] {
        let kinds: Vec<&Kind> = KINDS.iter().filter(|kind| kind.store == store).collect();
        for tcp in [false, true] {
            let shapes: Vec<&Shape> = SHAPES
                .iter()
                .filter(|shape| shape.tcp == tcp && shape.name.contains(&options.shape))
                .collect();
            if !shapes.is_empty() {
                table(
                    &format!("{title}, {}", if tcp { "TCP" } else { "unix socket" }),
                    &kinds,
                    &shapes,
                    options,
                    tcp,
                );
            }
        }
    }
    Ok(())
}

fn table(title: &str, kinds: &[&Kind], shapes: &[&Shape], options: &Options, tcp: bool) {
    println!("\n{title}");
    let mut running: Vec<(&Kind, Server)> = vec![];
    for kind in kinds {
        match Server::start(kind, tcp) {
            Ok(server) => running.push((kind, server)),
            Err(why) => println!("SKIPPED: {}: {why:#}", kind.name),
        }
    }
    print!("{:20}", "");
    running.iter().for_each(|(kind, _)| print!("{:>18}", kind.name));
    println!();
    for shape in shapes {
        let mut rates: Vec<Vec<f64>> = vec![vec![]; running.len()];
        for round in 0..options.rounds {
            for turn in 0..running.len() {
                // Nobody always comes after the same neighbour.
                let n = (turn + round) % running.len();
                let time = Duration::from_millis(options.milliseconds);
                let rate = load::measure(shape, &running[n].1.target, time).unwrap_or_else(|why| {
                    println!("{} failed on {}: {why}", running[n].0.name, shape.name);
                    f64::NAN
                });
                rates[n].push(rate);
            }
        }
        print!("{:20}", shape.name);
        for (n, (kind, _)) in running.iter().enumerate() {
            let text = if kind.name == "nbdkit" {
                format!("[{:.0}]", median(rates[n].clone()))
            } else if running[0].0.name == "nbdkit" {
                let ratios = rates[n].iter().zip(&rates[0]).map(|(ours, theirs)| ours / theirs);
                format!("{:.2}", median(ratios.collect()))
            } else {
                format!("({:.0}/s)", median(rates[n].clone()))
            };
            print!("{text:>18}");
        }
        println!();
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(vec![]).is_nan());
    }
}
