//! The checks, one file per subject.

mod bounds;
mod concurrency;
mod dropping;
mod durability;
pub(crate) mod extents;
mod facts;
mod failures;
mod lifecycle;
mod operations;
mod reads;

use crate::case::{Expect, Subject};
use disk::{Facts, Io, Result};
use std::time::Duration;

/// A promise that facts make, and its test.
pub(crate) struct Check {
    /// The promise, as a sentence.
    pub(crate) name: &'static str,
    /// Whether a subject with these facts makes it.
    pub(crate) applies: fn(&Facts, &Subject) -> bool,
    /// Panics when it is broken.
    pub(crate) run: fn(&Subject, seed: u64),
}

/// All checks.
pub(crate) const CHECKS: &[Check] = &[
    Check { name: "facts_are_what_the_disk_does", applies: always, run: facts::advertised_requests_work },
    Check { name: "what_is_not_offered_is_refused", applies: always, run: facts::others_are_refused },
    Check { name: "fast_zeroes_are_fast_or_refused", applies: |f, _| f.fast_zero, run: facts::fast_zeroes },
    Check { name: "writes_do_what_is_expected", applies: |f, _| f.write, run: facts::writes_as_expected },
    Check { name: "reads_agree_however_they_are_cut", applies: always, run: reads::cut_anywhere },
    Check { name: "reads_show_no_recycled_bytes", applies: always, run: reads::nothing_recycled },
    Check { name: "random_requests_agree_with_a_model", applies: modelled, run: operations::random },
    Check { name: "extents_agree_with_reads", applies: |f, _| f.extents, run: extents::agree_with_reads },
    Check { name: "the_first_and_last_bytes_work", applies: always, run: bounds::edges },
    Check { name: "what_is_flushed_survives_power_loss", applies: durable, run: durability::power_loss },
    Check {
        name: "what_is_flushed_survives_failures_and_power_loss",
        applies: durable,
        run: durability::power_loss_and_failures,
    },
    Check { name: "dropped_requests_do_no_harm", applies: always, run: dropping::everywhere },
    Check { name: "threads_do_not_disturb_each_other", applies: always, run: concurrency::threads },
    Check {
        name: "requests_in_flight_do_not_disturb_each_other",
        applies: always,
        run: concurrency::in_flight,
    },
    Check { name: "failures_below_are_reported", applies: |_, s| s.below.is_some(), run: failures::below },
    Check { name: "connections_see_each_other", applies: shared, run: lifecycle::multi_conn },
    Check { name: "a_reading_client_can_read", applies: always, run: lifecycle::reading_client },
    Check { name: "every_listed_export_opens", applies: always, run: lifecycle::exports },
    Check { name: "closing_works", applies: always, run: lifecycle::closing },
];

fn always(_: &Facts, _: &Subject) -> bool {
    true
}

fn modelled(facts: &Facts, subject: &Subject) -> bool {
    facts.write && subject.expect == Expect::Model && facts.size > 0
}

fn shared(facts: &Facts, subject: &Subject) -> bool {
    modelled(facts, subject) && facts.multi_conn
}

fn durable(facts: &Facts, subject: &Subject) -> bool {
    modelled(facts, subject) && facts.flush && subject.below.is_some() && !subject.own_storage
}

/// The answer of a request, which must come within half a minute.
pub(crate) fn soon<T>(io: Io<'_, T>) -> Result<T> {
    match io {
        Io::Ready(answer) => answer,
        io => match reactor::block_on(reactor::timeout(Duration::from_secs(30), io)) {
            Ok(answer) => answer,
            Err(_) => panic!("no answer within 30 seconds"),
        },
    }
}
