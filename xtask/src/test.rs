//! `cargo xtask test`: all that must hold before a change goes in, with what it needs installed first.

use crate::{fuzz, packages, run};
use anyhow::Result;
use std::{
    collections::BTreeSet,
    process::{Command, ExitCode},
};

/// What the test runners reported.
#[derive(Default, Debug, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
    /// Of those passed.
    skipped_themselves: u64,
    /// Tests that have been running for long.
    slow: BTreeSet<String>,
    /// Names of failed tests and steps.
    failures: Vec<String>,
    /// What could not be run, in the tests' own words.
    skips: Vec<String>,
}

impl Tally {
    /// Takes in a line that a runner printed.
    fn look(&mut self, line: &str) {
        if let Some((name, said)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(' ')) {
            match said.starts_with("has been running for over") {
                true => self.slow.insert(name.to_owned()),
                false => self.slow.remove(name),
            };
        }
        if line.starts_with(run::KILLED) {
            let hanging = std::mem::take(&mut self.slow).into_iter().map(|name| format!("{name} (hangs)"));
            self.failures.extend(hanging);
        }
        if let Some(result) = line.strip_prefix("test result: ") {
            for part in result.split([';', '.']) {
                match part.trim().split_once(' ') {
                    Some((n, "passed")) => self.passed += n.parse().unwrap_or(0),
                    Some((n, "failed")) => self.failed += n.parse().unwrap_or(0),
                    Some((n, "ignored")) => self.skipped += n.parse().unwrap_or(0),
                    _ => {}
                }
            }
        } else if line.contains("SKIPPED: ") {
            let name = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix("... ignored"));
            self.skips.push(name.unwrap_or(line).trim().to_owned());
            // One that was not even started is counted as ignored; one that ended itself, as passed.
            if name.is_none() {
                self.skipped_themselves += 1;
            }
        } else if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix("... FAILED"))
        {
            self.failures.push(name.trim().to_owned());
        }
    }

    /// Runs a step that reports nothing but success.
    fn step(&mut self, command: Command, name: &str) -> Result<()> {
        if !run::watched(command, |_| {})?.success() {
            self.failed += 1;
            self.failures.push(name.to_owned());
        }
        Ok(())
    }

    /// Runs tests that report themselves.
    fn tests(&mut self, command: Command, name: &str) -> Result<()> {
        let before = self.failed;
        let status = run::watched(command, |line| self.look(line))?;
        if !status.success() && self.failed == before {
            self.failed += 1;
            self.failures.push(format!("{name} ({status})"));
        }
        Ok(())
    }
}

/// Runs everything.
pub(crate) fn all(without_fuzzing: bool) -> Result<ExitCode> {
    packages::provide()?;
    let mut tally = Tally::default();
    tally.step(run::cargo(&["fmt", "--all", "--check"]), "cargo fmt")?;
    let lints = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    tally.step(run::cargo(&lints), "cargo clippy")?;
    if !without_fuzzing {
        for (target, sound) in fuzz::each_for(8)? {
            match sound {
                true => tally.passed += 1,
                false => {
                    tally.failed += 1;
                    tally.failures.push(format!("fuzz target {target}"));
                }
            }
        }
    }
    tally.tests(run::cargo(&["test", "--workspace", "--exclude", "e2e", "--no-fail-fast"]), "cargo test")?;
    // The examples and peers run the binary as people do: optimised.
    tally.step(run::cargo(&["build", "--release", "--package", "diskpipe"]), "cargo build")?;
    tally.tests(run::cargo(&["test", "--package", "e2e", "--no-fail-fast"]), "cargo test --package e2e")?;
    Ok(conclude(&tally))
}

fn conclude(tally: &Tally) -> ExitCode {
    if !tally.skips.is_empty() {
        println!("\n{} could not be run here:", tally.skips.len());
        tally.skips.iter().for_each(|skip| println!("  {skip}"));
    }
    if !tally.failures.is_empty() {
        println!("\nfailed:");
        tally.failures.iter().for_each(|failure| println!("  {failure}"));
    }
    let Tally { passed, failed, skipped, skipped_themselves: by_themselves, .. } = tally;
    println!(
        "\n{} passed, {failed} failed, {} skipped",
        passed.saturating_sub(*by_themselves),
        skipped + by_themselves
    );
    if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runners_own_words_are_summed() {
        let mut tally = Tally::default();
        for line in [
            "test a ... ok",
            "test nbd: reads (SKIPPED: needs nbdkit) ... ignored",
            "SKIPPED: needs fio: fio_reads",
            "test memory size=1M: closing_works   ... FAILED",
            "test slow has been running for over 60 seconds",
            "test hanging has been running for over 60 seconds",
            "test slow ... ok",
            "KILLED: some-tests after 900 s of silence",
            "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s",
            "test result: FAILED. 7 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 3.59s",
        ] {
            tally.look(line);
        }
        assert_eq!((tally.passed, tally.failed, tally.skipped, tally.skipped_themselves), (12, 1, 1, 1));
        assert_eq!(tally.failures, ["memory size=1M: closing_works", "hanging (hangs)"]);
        assert_eq!(tally.skips, ["nbd: reads (SKIPPED: needs nbdkit)", "SKIPPED: needs fio: fio_reads"]);
    }
}
