//! What scripts print: exports, extents, block sizes, words.

use disk::{Blocks, Error, Export, Extents, Kind, Range, Result, ThreadModel};
use params::{Size, Value};

/// The output of `list_exports`: its first line says how to read the rest, or is a name already.
pub(super) fn exports(text: &str) -> Vec<Export> {
    let named = |name: &str| Export { name: name.to_owned(), description: None };
    let described = |(name, description): (&str, &str)| Export {
        name: name.to_owned(),
        description: (!description.is_empty()).then(|| description.to_owned()),
    };
    let mut lines: Vec<&str> = text.lines().collect();
    match lines.first().copied() {
        Some("NAMES") => lines[1..].iter().copied().map(named).collect(),
        Some("INTERLEAVED") => {
            let pairs = lines[1..].chunks(2).map(|pair| (pair[0], pair.get(1).copied().unwrap_or("")));
            pairs.map(described).collect()
        }
        Some("NAMES+DESCRIPTIONS") => {
            let descriptions = lines.split_off(1 + (lines.len() - 1) / 2);
            lines[1..].iter().copied().zip(descriptions).map(described).collect()
        }
        _ => lines.into_iter().map(named).collect(),
    }
}

/// One extent per line: offset, length, and what it is: nothing, a number, or words joined by commas.
pub(super) fn extents(text: &str, range: Range) -> Result<Extents> {
    let mut found = Extents::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let wrong = |why: &str| Error::io(format!("extents printed {line:?}: {why}"));
        let mut words = line.split_ascii_whitespace();
        let mut size = |what: &str| {
            let word = words.next().ok_or_else(|| wrong(&format!("there is no {what}")))?;
            Size::from_text(word).map(Size::bytes).map_err(|e| wrong(&format!("the {what} is {}", e.0)))
        };
        let extent = Range::new(size("offset")?, size("length")?);
        let kind = kind(words.next().unwrap_or("0")).map_err(|why| wrong(&why))?;
        // They may begin before the range that was asked for, and go beyond it.
        if extent.end() <= range.start {
            continue;
        }
        let at = range.start + found.covered();
        if at >= range.end() {
            break;
        }
        let begins_there = extent.start == at || (found.is_empty() && extent.start < at);
        if !begins_there {
            return Err(wrong(&format!("an extent must begin at {at}, where the one before it ends")));
        }
        found.push(extent.end().min(range.end()) - at, kind);
    }
    match found.is_empty() {
        true => Err(Error::io(format!("extents printed nothing about {range}"))),
        false => Ok(found),
    }
}

fn kind(text: &str) -> std::result::Result<Kind, String> {
    if let Ok(number) = text.parse::<u32>() {
        return Ok(Kind { hole: number & 1 != 0, zero: number & 2 != 0 });
    }
    let mut kind = Kind::DATA;
    for word in text.split(',') {
        match word {
            "hole" => kind.hole = true,
            "zero" => kind.zero = true,
            _ => return Err(format!("{word:?} is neither hole nor zero nor a number")),
        }
    }
    Ok(kind)
}

/// The output of `block_size`: minimum, preferred, maximum.
pub(super) fn blocks(text: &str) -> Result<Blocks> {
    let wrong = |why: &str| Error::io(format!("block_size printed {:?}: {why}", text.trim_end()));
    let sizes: Vec<&str> = text.split_ascii_whitespace().collect();
    let &[minimum, preferred, maximum] = &sizes[..] else { return Err(wrong("not three sizes")) };
    let size = |word: &str| {
        let size = Size::from_text(word).map_err(|e| wrong(&e.0))?.bytes();
        u32::try_from(size).map_err(|_| wrong("a block is smaller than 4G"))
    };
    let blocks = Blocks { minimum: size(minimum)?, preferred: size(preferred)?, maximum: size(maximum)? };
    if blocks == (Blocks { minimum: 0, preferred: 0, maximum: 0 }) {
        return Ok(Blocks::default());
    }
    let Blocks { minimum, preferred, maximum } = blocks;
    if !minimum.is_power_of_two() || minimum > 64 << 10 {
        return Err(wrong("the minimum is a power of 2 up to 64K"));
    }
    if !preferred.is_power_of_two() || !(512..=32 << 20).contains(&preferred) || preferred < minimum {
        return Err(wrong("the preferred size is a power of 2 from 512 to 32M, and at least the minimum"));
    }
    if maximum != u32::MAX && (!maximum.is_multiple_of(minimum) || maximum < preferred) {
        return Err(wrong("the maximum is a multiple of the minimum, and at least the preferred size"));
    }
    Ok(blocks)
}

/// A thread model by its name; what is none is ignored.
pub(super) fn thread_model(text: &str) -> Option<ThreadModel> {
    use ThreadModel::*;
    let models = [SerializeConnections, SerializeAllRequests, SerializeRequests, Parallel];
    let word = text.trim_end();
    models.into_iter().find(|model| model.name() == word)
}

/// Without the newline that `echo` appends.
pub(super) fn line(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn exports_are_listed_in_every_form() {
        let list = |text| {
            let list = exports(text).into_iter();
            list.map(|e| format!("{}:{}", e.name, e.description.unwrap_or_default())).collect::<Vec<_>>()
        };
        assert_eq!(list("a\nb\n"), ["a:", "b:"]);
        assert_eq!(list("NAMES\na\n"), ["a:"]);
        assert_eq!(list("INTERLEAVED\na\none\nb\ntwo\n"), ["a:one", "b:two"]);
        assert_eq!(list("NAMES+DESCRIPTIONS\na\nb\none\ntwo\n"), ["a:one", "b:two"]);
        assert_eq!(list("NAMES+DESCRIPTIONS\na\n"), [""; 0]);
        assert_eq!(list(""), [""; 0]);
    }

    #[test]
    fn extents_are_cut_to_the_range_and_must_leave_no_gap() {
        let range = Range::new(1 << 20, 1 << 20);
        let list = |text| {
            let list = extents(text, range).map_err(|e| e.to_string())?;
            Ok::<_, String>(list.iter().map(|e| (e.len >> 10, e.kind.hole, e.kind.zero)).collect::<Vec<_>>())
        };
        let two = vec![(512, false, false), (512, true, true)];
        assert_eq!(list("0 1536K\n1536K 9M hole,zero\n"), Ok(two.clone()));
        assert_eq!(list("0 1M hole\n1M 512K 0\n1536K 512K 3\n2M 1M\n"), Ok(two));
        assert_eq!(list("1M 32K zero"), Ok(vec![(32, false, true)]));
        assert!(list("1M 32K\n2M 1M").unwrap_err().contains("must begin at 1081344"));
        assert!(list("2M 1M").is_err() && list("").is_err() && list("1M").is_err() && list("x 1M").is_err());
        assert!(list("1M 1M full").unwrap_err().contains("neither hole nor zero"));
    }

    #[test]
    fn block_sizes_are_those_of_the_protocol() {
        assert_eq!(
            blocks("512 4K 1M\n").unwrap(),
            Blocks { minimum: 512, preferred: 4096, maximum: 1 << 20 }
        );
        assert_eq!(blocks("1 4096 4294967295").unwrap(), Blocks::default());
        for wrong in
            ["", "512", "3 4K 1M", "128K 128K 1M", "512 256 1M", "512 4K 1000", "512 4K 9G", "1 2 3 4"]
        {
            assert!(blocks(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_output_makes_the_server_panic(text: String, start in 0..u64::MAX >> 2, len in 1..u64::MAX >> 2) {
            let _ = (exports(&text), blocks(&text), thread_model(&text));
            if let Ok(list) = extents(&text, Range::new(start, len)) {
                prop_assert!((1..=len).contains(&list.covered()));
            }
        }

        #[test]
        fn extents_of_any_numbers_stay_within_the_range(lines: Vec<(u32, u32, u8)>, start: u32, len in 1..u32::MAX) {
            let text: String = lines.iter().map(|(at, len, kind)| format!("{at} {len} {kind}\n")).collect();
            if let Ok(list) = extents(&text, Range::new(start.into(), len.into())) {
                prop_assert!((1..=u64::from(len)).contains(&list.covered()));
            }
        }
    }
}
