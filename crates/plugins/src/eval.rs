//! A disk as fragments of shell script on the command line.

use crate::common::script::{self, METHODS, Script, Snippets};
use disk::{Backend, Plugin, Result, registry::Described};
use params::{Args, Kind, Param, ParamError, Params};
use std::collections::HashMap;

/// All parameters as they stood.
pub(crate) struct Eval(Vec<(String, String)>);

/// A parameter for each method but `load`, and `missing`.
const TABLE: [Param; METHODS.len()] = {
    const fn row(key: &'static str, help: &'static str) -> Param {
        Param {
            key,
            aliases: &[],
            help,
            default: None,
            placeholder: Some("SCRIPT"),
            magic: false,
            hidden: false,
            kind: Kind::Text,
            required: false,
            repeatable: false,
            accepts: |_| Ok(()),
        }
    }
    let mut table =
        [row("missing", "Run for every method that has no script of its own; `exit 2` if not given.");
            METHODS.len()];
    let (mut from, mut to) = (0, 1);
    while from < METHODS.len() {
        if !is_load(METHODS[from]) {
            table[to] = row(METHODS[from], "The script for this method.");
            to += 1;
        }
        from += 1;
    }
    table
};

/// `load` is for what is loaded.
const fn is_load(method: &str) -> bool {
    matches!(method.as_bytes(), b"load")
}

impl Params for Eval {
    const SUMMARY: &'static str = "A disk whose methods are fragments of shell script.";
    const DETAILS: &'static str = "";
    const PARAMS: &'static [Param] = &TABLE;

    fn parse(args: &mut Args) -> std::result::Result<Self, ParamError> {
        Ok(Eval(args.take_rest()))
    }
}

impl Eval {
    /// The scripts, given the parameters that are not scripts.
    fn load(self) -> Result<Script> {
        let (mut scripts, mut others) = (HashMap::new(), Vec::new());
        for (key, value) in self.0 {
            match TABLE.iter().any(|param| param.key == key) {
                true => drop(scripts.insert(key, value)),
                false => others.push((key, value)),
            }
        }
        let missing = scripts.remove("missing");
        let tmpdir = script::directory()?;
        let script = Script::new(Snippets::new(scripts, missing, tmpdir.path()), vec![tmpdir]);
        others.iter().try_for_each(|(key, value)| script.configure(key, value))?;
        Ok(script)
    }
}

impl Plugin for Eval {
    const NAME: &'static str = "eval";
    const MANUAL: &'static str = include_str!("eval.md");
    const DUMP: &'static [(&'static str, &'static str)] = script::DUMP;

    fn start(self) -> Result<impl Backend + 'static> {
        self.load()?.complete()
    }

    fn describe(self) -> Result<Described> {
        self.load()?.describe()
    }
}
