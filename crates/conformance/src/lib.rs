//! The kit that every plugin and filter must pass.
//!
//! It walks a registry and makes a test of every component and every promise of its [`Facts`](disk::Facts): passed,
//! failed, or skipped by name when something is missing to run it. A component is described by a [`Case`] or
//! several; filters are run over a [`Fake`] disk that waits, fails and loses power when told to.
//!
//! What fails is repeated with the seed that it prints: `CONFORMANCE_SEED=... cargo test`.
#![forbid(unsafe_code)]

mod case;
mod checks;
mod fake;
mod manual;
mod model;
mod random;
mod run;

pub use case::{Case, Content, Expect, Subject};
pub use fake::Fake;
pub use model::{Answer, Model, Step};
pub use random::Random;
pub use run::{Test, filters, plugins, tests_of_filters, tests_of_plugins};
