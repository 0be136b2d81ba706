//! Lengths of time.

use crate::{Kind, Value, Wrong};
use std::fmt;
use std::time::Duration;

/// A length of time: `1` and `1.5s` are seconds, `50ms`, `10us` (or `μs`) and `5ns` are smaller. Plain seconds
/// may also be hexadecimal or octal, as other whole numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Delay(pub Duration);

impl Delay {
    /// The standard library's form.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl Value for Delay {
    const KIND: Kind = Kind::Delay;

    fn from_text(text: &str) -> Result<Delay, Wrong> {
        const SHAPE: &str = "not a time such as 2, 1.5s or 50ms";
        // `010` and `0x10` mean what they mean for other whole numbers.
        if let Ok(seconds) = u32::from_text(text) {
            return Ok(Delay(Duration::from_secs(seconds.into())));
        }
        // "μ" exists twice in Unicode: the Greek letter and the micro sign.
        let units = [("ms", 1e-3), ("us", 1e-6), ("μs", 1e-6), ("µs", 1e-6), ("ns", 1e-9), ("s", 1.0)];
        let unit = units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)));
        let (count, unit) = unit.unwrap_or((text, 1.0));
        let numeric = count.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '.' | '+' | '-' | ' '));
        let seconds: f64 = match count.trim_start().parse() {
            Ok(count) if numeric => count,
            _ => return Err(SHAPE.into()),
        };
        if seconds < 0.0 {
            return Err("a time cannot be negative".into());
        }
        // 2^32 seconds is the reference's bound; it also keeps every sum of delays inside a Duration.
        let seconds = seconds * unit;
        if seconds.is_nan() || seconds >= 4294967296.0 {
            return Err("too long: a time is below 4294967296 seconds".into());
        }
        Ok(Delay(Duration::from_secs_f64(seconds)))
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_seconds_or_name_their_unit() {
        for (text, nanos) in [
            ("0", 0),
            ("1", 1_000_000_000),
            ("1.5", 1_500_000_000),
            ("1.5s", 1_500_000_000),
            ("2s", 2_000_000_000),
            ("50ms", 50_000_000),
            ("1.5ms", 1_500_000),
            ("1e3ms", 1_000_000_000),
            (".5ms", 500_000),
            ("10us", 10_000),
            ("10μs", 10_000),
            ("10µs", 10_000),
            ("5ns", 5),
            ("0x10", 16_000_000_000),
            (" 1", 1_000_000_000),
        ] {
            assert_eq!(
                Delay::from_text(text).map(Delay::duration),
                Ok(Duration::from_nanos(nanos)),
                "{text}"
            );
        }
    }

    #[test]
    fn other_texts_are_not_times() {
        for text in ["", "abc", "1m", "5ss", "1 s", "ms", "inf", "nan", "infms", "1h"] {
            assert_eq!(Delay::from_text(text), Err("not a time such as 2, 1.5s or 50ms".into()), "{text:?}");
        }
        assert_eq!(Delay::from_text("-1"), Err("a time cannot be negative".into()));
        assert!(Delay::from_text("99999999999").is_err());
        assert!(Delay::from_text("1e300ms").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_parsing_panic(text in "[0-9.eE+-]*(ms|s|us|ns)?|.*") {
            let _ = Delay::from_text(&text);
        }
    }
}
