//! Sizes for people.

/// With the largest binary suffix that loses nothing: `1M`, `1025K`, `511`.
pub(crate) fn human(bytes: u64) -> String {
    const SUFFIXES: [&str; 7] = ["", "K", "M", "G", "T", "P", "E"];
    let power = (bytes.trailing_zeros() / 10).min(6) * u32::from(bytes > 0);
    format!("{}{}", bytes >> (10 * power), SUFFIXES[power as usize])
}

#[cfg(test)]
mod tests {
    use super::human;

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
