//! Sizes in bytes.

use crate::{Kind, Value, Wrong, number};
use std::fmt;

/// A number of bytes, 0 to 2^63 - 1: `512`, `64K`, `1M`. Suffixes (either case) are powers of 1024, except
/// `b` for bytes and `s` for sectors of 512.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

impl Size {
    /// The largest size: an NBD export cannot be larger.
    pub const MAX: Size = Size(i64::MAX as u64);

    /// This many bytes; `None` above [`Size::MAX`].
    pub const fn new(bytes: u64) -> Option<Size> {
        if bytes <= Size::MAX.0 { Some(Size(bytes)) } else { None }
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl Value for Size {
    const KIND: Kind = Kind::Size;

    fn from_text(text: &str) -> Result<Size, Wrong> {
        const SHAPE: &str = "not a size such as 512, 64K or 1M";
        // Leading blanks and a plus sign are what C's number parsing lets through, and scripts rely on it.
        let trimmed = text.trim_start_matches(number::is_c_space);
        let (negative, trimmed) = match trimmed.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, trimmed.strip_prefix('+').unwrap_or(trimmed)),
        };
        let end = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let (digits, suffix) = trimmed.split_at(end);
        if digits.is_empty() {
            return Err(SHAPE.into());
        }
        let unit: u64 = match suffix {
            "" | "b" | "B" => 1,
            "s" | "S" => 512,
            "k" | "K" => 1 << 10,
            "m" | "M" => 1 << 20,
            "g" | "G" => 1 << 30,
            "t" | "T" => 1 << 40,
            "p" | "P" => 1 << 50,
            "e" | "E" => 1 << 60,
            _ => return Err(SHAPE.into()),
        };
        if negative && digits.contains(|digit| digit != '0') {
            return Err("a size cannot be negative".into());
        }
        let bytes = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit));
        bytes.and_then(Size::new).ok_or_else(|| "too large: a size is below 8E".into())
    }
}

/// The shortest form that parses to the same size.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0");
        }
        let steps = (self.0.trailing_zeros() / 10).min(6);
        let suffix = ["", "K", "M", "G", "T", "P", "E"][steps as usize];
        write!(f, "{}{suffix}", self.0 >> (10 * steps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_take_every_suffix_in_either_case() {
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("010", 10),
            (" 7", 7),
            ("+5", 5),
            ("-0", 0),
            ("3b", 3),
            ("1B", 1),
            ("2s", 1024),
            ("1S", 512),
            ("1k", 1024),
            ("1K", 1024),
            ("2m", 2 << 20),
            ("1G", 1 << 30),
            ("1T", 1 << 40),
            ("1p", 1 << 50),
            ("7E", 8070450532247928832),
            ("9223372036854775807", u64::MAX >> 1),
        ] {
            assert_eq!(Size::from_text(text).map(Size::bytes), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_says_what_would_be_one() {
        for text in ["", "k", "9Q", "1kib", "1KB", "1.5K", "0x10", "1 ", "1 k", "++1", "abc"] {
            assert_eq!(Size::from_text(text), Err("not a size such as 512, 64K or 1M".into()), "{text:?}");
        }
        assert_eq!(Size::from_text("-1"), Err("a size cannot be negative".into()));
    }

    #[test]
    fn sizes_end_below_two_to_the_sixty_third() {
        for text in
            ["8E", "9223372036854775808", "9999P", "99999999999999999999999", "16E", "18446744073709551616"]
        {
            assert_eq!(Size::from_text(text), Err("too large: a size is below 8E".into()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn printing_then_parsing_gives_the_same_size(bytes in 0..=u64::MAX >> 1, shift in 0..63) {
            let size = Size(bytes >> shift << shift);
            prop_assert_eq!(Size::from_text(&size.to_string()), Ok(size));
        }

        #[test]
        fn no_text_makes_parsing_panic(text in ".*") {
            let _ = Size::from_text(&text);
        }
    }
}
