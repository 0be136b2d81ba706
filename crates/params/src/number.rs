//! Whole numbers: decimal, hexadecimal (`0x1f`) or octal (`017`).

use crate::{Kind, Value, Wrong};

/// What C's `isspace` accepts before a number.
pub(crate) fn is_c_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

/// Sign and magnitude; the type's own range is the caller's to check.
fn parse(text: &str) -> Result<i128, Wrong> {
    const SHAPE: &str = "not a whole number such as 10, 0xa or 012";
    let trimmed = text.trim_start_matches(is_c_space);
    let (negative, magnitude) = match trimmed.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, trimmed.strip_prefix('+').unwrap_or(trimmed)),
    };
    let (digits, radix) = match magnitude.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&magnitude[2..], 16),
        [b'0', _, ..] => (&magnitude[1..], 8),
        _ => (magnitude, 10),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(SHAPE.into());
    }
    // Digits without end are a number all the same, just too large a one.
    let value = i128::from_str_radix(digits, radix).unwrap_or(i128::MAX);
    Ok(if negative { -value } else { value })
}

macro_rules! whole_numbers {
    ($($ty:ty),*) => {$(
        impl Value for $ty {
            const KIND: Kind = Kind::Int { min: <$ty>::MIN as i128, max: <$ty>::MAX as i128 };

            fn from_text(text: &str) -> Result<$ty, Wrong> {
                let outside = || Wrong(format!("not between {} and {}", <$ty>::MIN, <$ty>::MAX));
                let number = parse(text)?;
                // Where no number can be negative, zero cannot be either.
                if <$ty>::MIN == 0 && text.contains('-') {
                    return Err(outside());
                }
                <$ty>::try_from(number).map_err(|_| outside())
            }
        }
    )*};
}

whole_numbers!(u8, u16, u32, u64, i8, i16, i32, i64);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_decimal_hexadecimal_or_octal() {
        for (text, value) in
            [("1", 1), ("010", 8), ("0x1f", 31), ("0X1F", 31), ("+1", 1), (" 1", 1), ("0", 0), ("+0", 0)]
        {
            assert_eq!(u32::from_text(text), Ok(value), "{text}");
        }
        assert_eq!(i8::from_text("-0x80"), Ok(-128));
        assert_eq!(i8::from_text("-0"), Ok(0));
    }

    #[test]
    fn other_texts_are_not_numbers() {
        for text in ["", "x", "0x", "08", "0b11", "0o7", "1k", "1 ", "1.0", "+-1", "0x-1", "é"] {
            assert_eq!(
                u32::from_text(text),
                Err("not a whole number such as 10, 0xa or 012".into()),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_number_outside_its_type_names_the_range() {
        assert_eq!(u32::from_text("4294967296"), Err("not between 0 and 4294967295".into()));
        assert_eq!(u32::from_text("-1"), Err("not between 0 and 4294967295".into()));
        assert_eq!(u32::from_text("-0"), Err("not between 0 and 4294967295".into()));
        assert_eq!(u64::from_text(&"9".repeat(60)), Err("not between 0 and 18446744073709551615".into()));
    }

    /// What nbdkit's own functions made of each text, as a plugin that calls them was seen to print it: a column for each type,
    /// `-` where they refused, and the text.
    #[test]
    fn each_type_takes_what_nbdkit_takes() {
        fn ours<T: Value + std::fmt::Display>(text: &str) -> String {
            T::from_text(text).map_or("-".to_owned(), |number| number.to_string())
        }
        for line in include_str!("number_forms.txt").lines() {
            let theirs: Vec<&str> = line.splitn(7, '|').collect();
            let text = theirs[6].replace("\\t", "\t");
            let text = text.as_str();
            let signed = [ours::<i8>(text), ours::<i16>(text), ours::<i32>(text), ours::<i64>(text)];
            assert_eq!(signed, theirs[..4], "{text:?}");
            assert_eq!([ours::<u8>(text), ours::<u64>(text)], theirs[4..6], "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_number_reads_back_in_each_base(n in any::<i64>()) {
            let (sign, size) = (if n < 0 { "-" } else { "" }, n.unsigned_abs());
            prop_assert_eq!(i64::from_text(&format!("{n}")), Ok(n));
            prop_assert_eq!(i64::from_text(&format!("{sign}{size:#x}")), Ok(n));
            prop_assert_eq!(i64::from_text(&format!("{sign}0{size:o}")), Ok(n));
        }

        #[test]
        fn no_text_makes_parsing_panic(text in ".*") {
            let _ = (u8::from_text(&text), i64::from_text(&text), u64::from_text(&text));
        }
    }
}
