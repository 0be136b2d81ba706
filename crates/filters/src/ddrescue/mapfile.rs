//! The mapfile of GNU ddrescue, as its manual describes it: a line about how far it came, then one line per block with
//! position, size and status, where `+` is what could be read.

use disk::Range;
use params::Value;

/// What could be read, in order, neighbours joined.
pub(super) fn rescued(text: &str) -> Result<Vec<Range>, String> {
    let lines = text
        .lines()
        .enumerate()
        .map(|(number, line)| (number + 1, line.split('#').next().unwrap_or("").trim()));
    let mut lines = lines.filter(|(_, line)| !line.is_empty());
    let (number, status) = lines.next().ok_or("there is no line that says how far ddrescue came")?;
    let words: Vec<&str> = status.split_whitespace().collect();
    if !matches!(words.len(), 2 | 3) || u64::from_text(words[0]).is_err() || !"?*/-FG+".contains(words[1]) {
        return Err(format!("line {number}: '{status}' does not say how far ddrescue came"));
    }
    let mut good: Vec<Range> = Vec::new();
    let mut end = 0;
    for (number, line) in lines {
        let why = |why: String| format!("line {number}: {why}");
        let words: Vec<&str> = line.split_whitespace().collect();
        let [start, len, status] = words[..] else {
            return Err(why(format!("'{line}' is not POSITION SIZE STATUS")));
        };
        let bytes = |text: &str| u64::from_text(text).map_err(|wrong| why(format!("'{text}': {}", wrong.0)));
        let range = Range::new(bytes(start)?, bytes(len)?);
        if range.start < end {
            return Err(why("the block begins before the one above it ends".into()));
        }
        if !range.lies_within(i64::MAX as u64) {
            return Err(why("the block ends beyond the largest disk".into()));
        }
        end = range.end();
        match (status, good.last_mut()) {
            ("+", Some(last)) if last.end() == range.start => last.len += range.len,
            ("+", _) if !range.is_empty() => good.push(range),
            ("?" | "*" | "/" | "-" | "+", _) => {}
            _ => return Err(why(format!("'{status}' is no status: those are ? * / - and +"))),
        }
    }
    Ok(good)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAP: &str = "# Mapfile. Created by GNU ddrescue\n# current_pos  current_status  current_pass\n\
        0x00000600     +               1\n#      pos        size  status\n\
        0x00000000  0x00000200  +\n0x00000200  0x00000200  +\n0x00000400  0x00000200  -\n0x600 0x200 +\n0x800 0x10 ?\n";

    #[test]
    fn what_could_be_read_is_joined() {
        assert_eq!(rescued(MAP).unwrap(), [Range::new(0, 0x400), Range::new(0x600, 0x200)]);
    }

    #[test]
    fn what_is_no_mapfile_is_told_with_its_line() {
        let why = |text: &str| rescued(text).unwrap_err();
        assert_eq!(why("# nothing\n"), "there is no line that says how far ddrescue came");
        assert_eq!(why("hello\n"), "line 1: 'hello' does not say how far ddrescue came");
        assert_eq!(why("0 +\n0 1\n"), "line 2: '0 1' is not POSITION SIZE STATUS");
        assert_eq!(why("0 +\n0 1 x\n"), "line 2: 'x' is no status: those are ? * / - and +");
        assert_eq!(why("0 + 1\n0 8 +\n4 8 +\n"), "line 3: the block begins before the one above it ends");
        assert_eq!(why("0 + 1\n1 0x7fffffffffffffff +\n"), "line 2: the block ends beyond the largest disk");
    }

    proptest! {
        #[test]
        fn any_text_is_a_map_or_an_error(text in "(0 \\+ 1\n)?([0-9xa-f]{1,6} [0-9xa-f]{1,6} [-+?*/]\n){0,6}") {
            if let Ok(good) = rescued(&text) {
                prop_assert!(good.is_sorted_by(|a, b| a.end() < b.start));
            }
        }
    }
}
