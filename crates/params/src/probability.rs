//! Probabilities.

use crate::{Kind, Value, Wrong};
use std::fmt;

/// How likely something is, 0 to 1: `0.1`, `10%`, `1:10` or `1/10`.
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd)]
pub struct Probability(f64);

impl Probability {
    /// It never happens.
    pub const NEVER: Probability = Probability(0.0);
    /// It always happens.
    pub const ALWAYS: Probability = Probability(1.0);

    /// From 0 to 1; `None` outside and for NaN.
    pub fn new(chance: f64) -> Option<Probability> {
        (0.0..=1.0).contains(&chance).then_some(Probability(chance))
    }

    /// 0 to 1.
    pub const fn chance(self) -> f64 {
        self.0
    }
}

impl Value for Probability {
    const KIND: Kind = Kind::Probability;

    fn from_text(text: &str) -> Result<Probability, Wrong> {
        let chance = if let Some(percent) = text.strip_suffix('%') {
            number(percent)? / 100.0
        } else if let Some((part, whole)) = text.split_once([':', '/']) {
            let (part, whole) = (number(part)?, number(whole)?);
            // "0:0" is the natural way to compute "never" in a script.
            if part == 0.0 && whole == 0.0 { 0.0 } else { part / whole }
        } else {
            number(text)?
        };
        Probability::new(chance).ok_or_else(|| "not between 0 and 1 (0% and 100%)".into())
    }
}

fn number(text: &str) -> Result<f64, Wrong> {
    let text = text.trim_start();
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '.' | '+' | '-'));
    match text.parse::<f64>() {
        Ok(number) if numeric && number.is_finite() => Ok(number),
        _ => Err("not a probability such as 0.1, 10% or 1:10".into()),
    }
}

impl fmt::Display for Probability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn probabilities_are_numbers_percentages_or_ratios() {
        for (text, chance) in [
            ("0", 0.0),
            ("1", 1.0),
            ("0.1", 0.1),
            (".5", 0.5),
            ("1e-3", 0.001),
            ("10%", 0.1),
            ("100%", 1.0),
            ("1:10", 0.1),
            ("1/10", 0.1),
            ("1e-1/1", 0.1),
            ("0/0", 0.0),
            ("0:1", 0.0),
            ("0:0", 0.0),
            (" 1", 1.0),
        ] {
            assert_eq!(Probability::from_text(text).map(Probability::chance), Ok(chance), "{text}");
        }
    }

    #[test]
    fn what_is_outside_or_no_number_is_refused() {
        for text in ["101%", "1.5", "-1", "-1%", "2:1", "1:0", "2/1", "1/0"] {
            assert_eq!(
                Probability::from_text(text),
                Err("not between 0 and 1 (0% and 100%)".into()),
                "{text}"
            );
        }
        for text in ["", "x", "1:2:3", ":10", "1:", "1:10/2", "/10", "1/", "1 ", "nan", "inf", "%"] {
            let refused = Probability::from_text(text).unwrap_err();
            assert_eq!(refused, "not a probability such as 0.1, 10% or 1:10".into(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_text_is_a_chance(text in "[0-9.e%:+-]{0,8}|.*") {
            if let Ok(p) = Probability::from_text(&text) {
                prop_assert!((0.0..=1.0).contains(&p.chance()));
            }
        }
    }
}
