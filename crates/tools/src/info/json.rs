//! The little of JSON that is written here.

/// A string in quotes.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out += "\\n",
            '\t' => out += "\\t",
            '\r' => out += "\\r",
            c if c.is_control() => out += &format!("\\u{:04x}", c as u32),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A number of at most six significant digits, without zeroes at its end: `100`, `6.25`, `1e-05`.
pub(crate) fn number(n: f64) -> String {
    if n == 0.0 || !n.is_finite() {
        return "0".into();
    }
    // Rounded first: 99.99999999 is 100, and has another exponent.
    let scientific = format!("{n:.5e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text.to_string(),
    };
    if exponent < -4 {
        return format!("{}e-{:02}", trim(digits), -exponent);
    }
    trim(&format!("{n:.*}", (5 - exponent).max(0) as usize))
}

/// A list, a line for each item; all or nothing between the brackets.
pub(crate) fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    match items.is_empty() {
        true => "[]\n".into(),
        false => format!("[\n{}\n]\n", items.join(",\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped() {
        assert_eq!(quote("a\"b\\c\u{e9}\n\u{1b}"), "\"a\\\"b\\\\c\u{e9}\\n\\u001b\"");
    }

    #[test]
    fn numbers_are_as_short_as_people_write_them() {
        for (n, text) in [
            (100.0, "100"),
            (6.25, "6.25"),
            (99.375, "99.375"),
            (0.0, "0"),
            (1e-5, "1e-05"),
            (99.999_999_9, "100"),
            (100.0 / 3.0, "33.3333"),
            (0.000_123_456_7, "0.000123457"),
        ] {
            assert_eq!(number(n), text);
        }
    }
}
