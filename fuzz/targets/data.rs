//! Programs of the plugin data. The first line is the value of every variable.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (value, program) = text.split_once('\n').unwrap_or(("", text));
    plugins::try_data_program(program, value);
});
