//! The parameter table: what the derive emits, and what is true of every such table. Its readers stand in
//! [`help`](crate::help) and [`nearest`](crate::nearest_key).

use crate::Wrong;

/// What a parameter's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A file name.
    Path,
    /// A number of bytes with an optional suffix.
    Size,
    /// On or off.
    Bool,
    /// A whole number in this range.
    Int {
        /// The smallest.
        min: i128,
        /// The largest.
        max: i128,
    },
    /// A length of time.
    Delay,
    /// A chance.
    Probability,
    /// Something that must not be shown.
    Secret,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A component's own type, called by this word in help (in capitals: `REGION`).
    Other(&'static str),
}

/// One row of a component's table.
#[derive(Debug, Clone, Copy)]
pub struct Param {
    /// The key, as typed before `=`.
    pub key: &'static str,
    /// Other keys that mean the same.
    pub aliases: &'static [&'static str],
    /// What it does (markdown; the first paragraph is for `--help`).
    pub help: &'static str,
    /// The value when it is not given.
    pub default: Option<&'static str>,
    /// What help shows after `=`, where the kind's own word is not good enough.
    pub placeholder: Option<&'static str>,
    /// Whether bare arguments belong to it.
    pub magic: bool,
    /// Whether help, manual and completion leave it out.
    pub hidden: bool,
    /// What its values are.
    pub kind: Kind,
    /// Whether it must be given.
    pub required: bool,
    /// Whether each value counts, not just the last.
    pub repeatable: bool,
    /// Whether a text is one of its values. (For [`Kind::Secret`] this may read files.)
    pub accepts: fn(&str) -> Result<(), Wrong>,
}

impl Param {
    /// The word for the value in help and manuals: `SIZE`, or `none|emulate` for a choice.
    pub fn value_word(&self) -> String {
        match (self.placeholder, self.kind) {
            (Some(word), _) | (None, Kind::Other(word)) => word.to_owned(),
            (None, Kind::OneOf(words)) => words.join("|"),
            (None, Kind::Text) => "TEXT".to_owned(),
            (None, Kind::Path) => "FILE".to_owned(),
            (None, Kind::Size) => "SIZE".to_owned(),
            (None, Kind::Bool) => "on|off".to_owned(),
            (None, Kind::Int { .. }) => "N".to_owned(),
            (None, Kind::Delay) => "SECONDS|NNms".to_owned(),
            (None, Kind::Probability) => "PROBABILITY".to_owned(),
            (None, Kind::Secret) => "PASSWORD".to_owned(),
        }
    }

    /// Whether `key` is this parameter's key or an alias of it.
    pub fn is_called(&self, key: &str) -> bool {
        self.key == key || self.aliases.contains(&key)
    }
}

/// How many rows the slices have together; for the derive.
#[doc(hidden)]
pub const fn total(slices: &[&[Param]]) -> usize {
    let (mut sum, mut i) = (0, 0);
    while i < slices.len() {
        sum += slices[i].len();
        i += 1;
    }
    sum
}

/// All rows of the slices in one table of `N == total(slices)` rows; for the derive.
#[doc(hidden)]
pub const fn join<const N: usize>(slices: &[&[Param]]) -> [Param; N] {
    const BLANK: Param = Param {
        key: "",
        aliases: &[],
        help: "",
        default: None,
        placeholder: None,
        magic: false,
        hidden: false,
        kind: Kind::Text,
        required: false,
        repeatable: false,
        accepts: |_| Ok(()),
    };
    let mut table = [BLANK; N];
    let (mut at, mut i) = (0, 0);
    while i < slices.len() {
        let mut j = 0;
        while j < slices[i].len() {
            table[at] = slices[i][j];
            (at, j) = (at + 1, j + 1);
        }
        i += 1;
    }
    table
}

/// What is wrong with a table, as sentences: keys that exist twice, more than one magic key, defaults that are
/// no value of their type. A test over all components expects none.
pub fn problems(params: &[Param]) -> Vec<String> {
    let mut found = Vec::new();
    for (i, param) in params.iter().enumerate() {
        for key in std::iter::once(&param.key).chain(param.aliases) {
            if params[i + 1..].iter().any(|other| other.is_called(key)) {
                found.push(format!("{key} is declared twice"));
            }
        }
        if let Some(Err(wrong)) = param.default.map(param.accepts) {
            found.push(format!("the default of {} is {}", param.key, wrong.0));
        }
        if param.help.is_empty() && !param.hidden {
            found.push(format!("{} has no help", param.key));
        }
    }
    if params.iter().filter(|param| param.magic).count() > 1 {
        found.push("more than one parameter is magic".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Params, Size};

    #[derive(Params)]
    #[expect(dead_code, reason = "only the table matters")]
    struct Broken {
        /// One.
        #[param(default = "9Q", alias = "two", magic)]
        one: Size,
        two: Size,
        #[param(flatten)]
        more: More,
    }

    #[derive(Params)]
    #[expect(dead_code, reason = "only the table matters")]
    struct More {
        /// Three.
        #[param(magic)]
        three: Option<bool>,
    }

    #[test]
    fn a_broken_table_is_told_all_it_has_wrong() {
        let expected = [
            "two is declared twice",
            "the default of one is not a size such as 512, 64K or 1M",
            "two has no help",
            "more than one parameter is magic",
        ];
        assert_eq!(problems(Broken::PARAMS), expected);
    }
}
