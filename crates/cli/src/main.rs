//! One binary: argv in, exit code out.
#![deny(unsafe_code)]

mod personality;
mod serve;

fn main() {}
