//! Sizes for people.

/// With the largest binary suffix that loses nothing: `1M`, `1025K`, `511`.
pub(crate) fn human(bytes: u64) -> String {
    const SUFFIXES: [&str; 7] = ["", "K", "M", "G", "T", "P", "E"];
    let power = (bytes.trailing_zeros() / 10).min(6) * u32::from(bytes > 0);
    format!("{}{}", bytes >> (10 * power), SUFFIXES[power as usize])
}

/// With a binary suffix and at most one decimal, rounded: `1M`, `1.5G`, `511`.
pub(crate) fn short(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut suffixes = ["", "K", "M", "G", "T", "P", "E"].into_iter().peekable();
    // What would be rounded to 1024 is one of the next.
    while value >= 1023.95 && suffixes.len() > 1 {
        value /= 1024.0;
        suffixes.next();
    }
    let text = format!("{value:.1}");
    format!("{}{}", text.strip_suffix(".0").unwrap_or(&text), suffixes.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::{human, short};

    #[test]
    fn a_short_size_is_rounded() {
        for (bytes, text) in
            [(0, "0"), (1023, "1023"), (1024, "1K"), (1536, "1.5K"), (1_048_575, "1M"), (u64::MAX, "16E")]
        {
            assert_eq!(short(bytes), text);
        }
    }

    #[test]
    fn the_suffix_loses_nothing() {
        for (bytes, text) in [
            (0, "0"),
            (511, "511"),
            (1024, "1K"),
            (1025, "1025"),
            (1 << 20, "1M"),
            (1_049_600, "1025K"),
            (3 << 29, "1536M"),
            (2_125_119_488, "2075312K"),
            (7 << 60, "7E"),
            (i64::MAX as u64, "9223372036854775807"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
