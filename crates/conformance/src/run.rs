//! Walks a registry and makes a named test of every component, case and check.

use crate::{
    case::{Case, Subject},
    checks::{CHECKS, Check},
    fake::Fake,
    manual,
};
use disk::{Blocks, Facts, FilterEntry, PluginEntry, Result, registry::About};
use libtest_mimic::{Arguments, Failed, Trial};
use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, set_hook},
    process::ExitCode,
    sync::{Arc, Once},
    time::UNIX_EPOCH,
};

/// Makes a fresh subject.
type Make = Arc<dyn Fn() -> Result<Subject> + Send + Sync>;

/// One check of one case.
pub struct Test {
    /// `component parameters: check`.
    pub name: String,
    /// Why it cannot be run here.
    pub needs: Option<&'static str>,
    /// Runs it; an error says what is wrong.
    pub run: Box<dyn FnOnce() -> std::result::Result<(), String> + Send>,
}

/// Runs all checks on all plugins, as the main function of a test.
///
/// Every plugin needs a case. The environment's `CONFORMANCE_SEED` repeats a run.
pub fn plugins(registry: &'static [PluginEntry], cases: Vec<Case>) -> ExitCode {
    conclude(tests_of_plugins(registry, cases))
}

/// Runs all checks on all filters, over several fake disks, as the main function of a test.
///
/// Every filter needs a case. The environment's `CONFORMANCE_SEED` repeats a run.
pub fn filters(registry: &'static [FilterEntry], cases: Vec<Case>) -> ExitCode {
    conclude(tests_of_filters(registry, cases))
}

/// What [`plugins`] runs.
pub fn tests_of_plugins(registry: &'static [PluginEntry], cases: Vec<Case>) -> Vec<Test> {
    let mut tests = meta(registry.iter().map(|entry| &entry.about), &cases);
    for case in cases {
        let Some(entry) = registry.iter().find(|entry| entry.about.name == case.name) else { continue };
        let (label, needs, case) = (case.label(), case.needs, Arc::new(case));
        tests.extend(checks(&label, needs, Arc::new(move || case.plugin(entry))));
    }
    tests
}

/// What [`filters`] runs.
pub fn tests_of_filters(registry: &'static [FilterEntry], cases: Vec<Case>) -> Vec<Test> {
    let mut tests = meta(registry.iter().map(|entry| &entry.about), &cases);
    for about in registry.iter().map(|entry| &entry.about) {
        let run = || manual::says_memory(about).then_some(()).ok_or("its manual does not".to_owned());
        let name = format!("{}: says how much memory it takes", about.name);
        tests.push(Test { name, needs: None, run: Box::new(run) });
    }
    for case in cases {
        let Some(entry) = registry.iter().find(|entry| entry.about.name == case.name) else { continue };
        let case = Arc::new(case);
        for (below, facts) in disks_below() {
            let (label, needs, case) = (format!("{} over {below}", case.label()), case.needs, case.clone());
            let make = move || case.filter(entry, Fake::new(facts.clone(), 1));
            tests.extend(checks(&label, needs, Arc::new(make)));
        }
    }
    tests
}

/// The disks that filters must get on with.
fn disks_below() -> [(&'static str, Facts); 4] {
    let all = Facts::capable((300 << 10) + 123);
    let sectors = Blocks { minimum: 512, preferred: 4096, maximum: 64 << 10 };
    [
        ("everything", all.clone()),
        ("the least", Facts { multi_conn: false, ..Facts::writable(256 << 10) }),
        ("sectors", Facts { size: 600 << 9, blocks: sectors, ..all.clone() }),
        ("read-only", all.without_write()),
    ]
}

/// The checks that the facts of this subject promise; one failing test when it does not even open.
fn checks(label: &str, needs: Option<&'static str>, make: Make) -> Vec<Test> {
    let test = |check: &'static Check| {
        let make = make.clone();
        let run = move || {
            let seed = seed();
            let outcome = caught(|| {
                let subject = make().map_err(|e| format!("it does not start: {e}"))?;
                (check.run)(&subject, seed);
                Ok(())
            });
            outcome.map_err(|why| format!("{why}\n(again with CONFORMANCE_SEED={seed})"))
        };
        Test { name: format!("{label}: {}", check.name), needs, run: Box::new(run) }
    };
    if needs.is_some() {
        return CHECKS.iter().map(test).collect();
    }
    let applicable = caught(|| {
        let subject = make().map_err(|e| e.to_string())?;
        let facts = subject.open().facts().clone();
        Ok(CHECKS.iter().filter(|check| (check.applies)(&facts, &subject)).collect::<Vec<_>>())
    });
    match applicable {
        Ok(applicable) => applicable.into_iter().map(test).collect(),
        Err(why) => {
            vec![Test { name: format!("{label}: opens"), needs: None, run: Box::new(move || Err(why)) }]
        }
    }
}

fn seed() -> u64 {
    let given = std::env::var("CONFORMANCE_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| UNIX_EPOCH.elapsed().map_or(0, |now| now.as_micros() as u64))
}

thread_local! {
    static LAST_PANIC: Cell<Option<String>> = const { Cell::new(None) };
}

/// A panic as an error: its message and where it happened. Panics print nothing, since many are provoked.
fn caught<T>(run: impl FnOnce() -> std::result::Result<T, String>) -> std::result::Result<T, String> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| set_hook(Box::new(|panic| LAST_PANIC.set(Some(panic.to_string())))));
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        // A thread's panic that was passed on left its message there.
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message");
        Err(LAST_PANIC.take().unwrap_or_else(|| text.to_owned()))
    })
}

/// What is true of the registry and its manuals.
fn meta<'a>(registry: impl Iterator<Item = &'a About>, cases: &[Case]) -> Vec<Test> {
    let registry: Vec<About> = registry.copied().collect();
    let test = |name: String, problems: Vec<String>| {
        let run = move || if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) };
        Test { name, needs: None, run: Box::new(run) }
    };
    let names: Vec<&str> = registry.iter().map(|about| about.name).collect();
    let unsorted =
        names.windows(2).filter(|w| w[0] >= w[1]).map(|w| format!("{} stands before {}", w[0], w[1]));
    let strangers = cases
        .iter()
        .filter(|case| !names.contains(&case.name))
        .map(|case| format!("there is a case for {}, which is not in the registry", case.name));
    let mut tests = vec![
        test("the registry is sorted".to_owned(), unsorted.collect()),
        test("every case has a component".to_owned(), strangers.collect()),
    ];
    for about in registry {
        let name = about.name;
        let missing = (!cases.iter().any(|case| case.name == name)).then(|| format!("{name} has no case"));
        tests.push(test(format!("{name}: has a case"), missing.into_iter().collect()));
        tests.push(test(format!("{name}: has a whole manual"), manual::problems(&about)));
        tests.push(test(format!("{name}: declares sound parameters"), params::table::problems(about.params)));
    }
    tests
}

fn conclude(tests: Vec<Test>) -> ExitCode {
    let trials = tests.into_iter().map(|test| match test.needs {
        Some(needs) => {
            let name = format!("{} (SKIPPED: needs {needs})", test.name);
            Trial::test(name, || Ok(())).with_ignored_flag(true)
        }
        None => Trial::test(test.name, || (test.run)().map_err(Failed::from)),
    });
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials.collect());
    if conclusion.num_ignored > 0 {
        println!("{} checks were SKIPPED for want of what their names say", conclusion.num_ignored);
    }
    conclusion.exit_code()
}
