//! Values that are one of a few words.

use crate::Wrong;

/// An enum whose variants are words, such as `zeromode=none|emulate|notrim|plugin`. Derive it.
pub trait Choice: Sized {
    /// The words, in the order of the variants; aliases are not listed.
    const WORDS: &'static [&'static str];

    /// The variant of this word or alias.
    fn from_word(word: &str) -> Option<Self>;

    /// The variant's own word.
    fn word(&self) -> &'static str;
}

/// Parses a choice; the error lists the words.
pub fn parse_choice<C: Choice>(text: &str) -> Result<C, Wrong> {
    C::from_word(text).ok_or_else(|| Wrong(format!("not one of {}", list(C::WORDS))))
}

/// `a, b or c`.
fn list(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [start @ .., last] => format!("{} or {last}", start.join(", ")),
    }
}
