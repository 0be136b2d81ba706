//! Names of files: the long ones as they are, and the short ones of 8 and 3 characters that every entry has besides.

use crate::common::tree::Tree;
use disk::{Error, Result};
use std::collections::{HashMap, HashSet};

/// UTF-16 units of the longest name.
const LONGEST: usize = 255;

/// How a file is called.
#[derive(Debug)]
pub(super) struct Name {
    /// Eight characters and three, filled with blanks.
    pub(super) short: [u8; 11],
    /// In UTF-16, unless the short name says it all.
    pub(super) long: Option<Vec<u16>>,
}

impl Name {
    /// How many entries of a directory it takes: one, and one for 13 units of the long name.
    pub(super) fn entries(&self) -> usize {
        1 + self.long.as_ref().map_or(0, |long| long.len().div_ceil(13))
    }
}

/// The label in the form of a short name.
pub(super) fn label(text: &str) -> std::result::Result<[u8; 11], &'static str> {
    if text.len() > 11 || !text.bytes().all(|b| (b' '..0x7f).contains(&b)) {
        return Err("not a label of up to 11 characters of ASCII");
    }
    if text.bytes().any(|b| b"\"*+,./:;<=>?[\\]|".contains(&b)) {
        return Err("none of \"*+,./:;<=>?[\\]| may be in a label");
    }
    if text.trim().is_empty() {
        return Ok(*b"NO NAME    ");
    }
    let mut label = [b' '; 11];
    label[..text.len()].copy_from_slice(text.as_bytes());
    Ok(label)
}

/// The names of all nodes, by their numbers.
///
/// # Errors
/// Names a file whose name FAT does not have, or two whose names it cannot tell apart.
pub(super) fn all(tree: &Tree) -> Result<Vec<Name>> {
    let mut names: Vec<Name> = tree.nodes.iter().map(|_| Name { short: [b' '; 11], long: None }).collect();
    for directory in tree.directories() {
        let children = tree.children(directory);
        let mut short = ShortNames::default();
        let mut folded: HashMap<String, usize> = HashMap::with_capacity(children.len());
        let mut others = Vec::new();
        for child in children {
            let wrong = |why: &str| Error::invalid(format!("{}: {why}", tree.shown(*child)));
            let text = std::str::from_utf8(&tree.nodes[*child].name)
                .map_err(|_| wrong("FAT keeps names in Unicode, and this one is not UTF-8"))?;
            let long = long(text).map_err(wrong)?;
            if let Some(other) = folded.insert(text.to_uppercase(), *child) {
                let why = format!("FAT cannot tell it from {}", tree.shown(other));
                return Err(wrong(&why));
            }
            match exact(text) {
                Some(name) => {
                    short.taken.insert(name);
                    names[*child].short = name;
                }
                None => others.push((*child, text, long)),
            }
        }
        // After those that are as they are: nobody may take their names.
        for (child, text, long) in others {
            names[child] = Name { short: short.choose(text), long: Some(long) };
        }
    }
    Ok(names)
}

/// The name in UTF-16, if it can be one.
fn long(name: &str) -> std::result::Result<Vec<u16>, &'static str> {
    if name.chars().any(|c| c < ' ' || "\"*/:<>?\\|\x7f".contains(c)) {
        return Err("none of \"*/:<>?\\| and no control character may be in a name in FAT");
    }
    if name.ends_with(['.', ' ']) {
        return Err("a name in FAT cannot end in a dot or a blank");
    }
    let units: Vec<u16> = name.encode_utf16().collect();
    match units.len() {
        0..=LONGEST => Ok(units),
        _ => Err("a name in FAT has at most 255 characters"),
    }
}

/// Whether a short name can have this character; in capitals only.
fn is_short(c: char) -> bool {
    matches!(c, 'A'..='Z' | '0'..='9') || "!#$%&'()-@^_`{}~".contains(c)
}

/// The name as a short one, if it is one.
fn exact(name: &str) -> Option<[u8; 11]> {
    let (base, extension) = name.split_once('.').unwrap_or((name, ""));
    let fits = |part: &str, most| part.len() <= most && part.chars().all(is_short);
    let has_dot_only = name.contains('.') && extension.is_empty();
    (!base.is_empty() && fits(base, 8) && fits(extension, 3) && !has_dot_only)
        .then(|| packed(base, extension))
}

fn packed(base: &str, extension: &str) -> [u8; 11] {
    let mut short = [b' '; 11];
    short[..base.len()].copy_from_slice(base.as_bytes());
    short[8..8 + extension.len()].copy_from_slice(extension.as_bytes());
    short
}

/// The short names of one directory.
#[derive(Default)]
struct ShortNames {
    taken: HashSet<[u8; 11]>,
    /// The next number to try, by beginning and extension: there may be many of a kind.
    next: HashMap<(String, String), u32>,
}

impl ShortNames {
    /// A name like this one that no other file has: `A long name.text` becomes `ALONGN~1.TEX`.
    fn choose(&mut self, name: &str) -> [u8; 11] {
        let (base, extension) = match name.rsplit_once('.') {
            Some((base, extension)) if !base.is_empty() => (base, extension),
            _ => (name, ""),
        };
        let part = |text: &str, most| -> String {
            let capitals = text.chars().filter(|c| !matches!(c, ' ' | '.')).map(|c| c.to_ascii_uppercase());
            capitals.map(|c| if is_short(c) { c } else { '_' }).take(most).collect()
        };
        let (base, extension) = (part(base, 6), part(extension, 3));
        let next = self.next.entry((base.clone(), extension.clone())).or_insert(1);
        loop {
            let tail = format!("~{next}");
            *next += 1;
            let short = packed(&format!("{}{tail}", &base[..base.len().min(8 - tail.len())]), &extension);
            if self.taken.insert(short) {
                return short;
            }
        }
    }
}

/// What entries of a long name say of the short name that they belong to.
pub(super) fn checksum(short: &[u8; 11]) -> u8 {
    short.iter().fold(0, |sum: u8, byte| sum.rotate_right(1).wrapping_add(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(short: [u8; 11]) -> String {
        String::from_utf8(short.to_vec()).unwrap()
    }

    #[test]
    fn names_that_are_short_stay_and_others_get_a_number() {
        assert_eq!(exact("README.TXT").map(shown).as_deref(), Some("README  TXT"));
        assert_eq!(exact("A").map(shown).as_deref(), Some("A          "));
        for name in ["readme.txt", "TOO-LONG-NAME", "A.B.C", ".X", "A.TEXT", "A B", "Ä", "A."] {
            assert_eq!(exact(name), None, "{name}");
        }
        let mut names = ShortNames::default();
        names.taken.insert(*b"ALONGN~1TEX");
        for (name, short) in [
            ("A long name.text", "ALONGN~2TEX"),
            ("a.LONG.name.text", "ALONGN~3TEX"),
            (".profile", "PROFIL~1   "),
            ("+++", "___~1      "),
            ("日本.日本", "__~1    __ "),
            ("x", "X~1        "),
        ] {
            assert_eq!(shown(names.choose(name)), short, "{name}");
        }
    }

    #[test]
    fn as_many_names_of_a_kind_as_a_directory_holds_are_told_apart() {
        let mut names = ShortNames::default();
        for number in 0..70_000 {
            names.choose(&format!("photograph of {number}.jpeg"));
        }
        assert_eq!(names.taken.len(), 70_000);
    }

    #[test]
    fn what_fat_has_no_name_for_is_told() {
        for name in ["a:b", "a\\b", "tab\t", "dot.", "blank ", "*"] {
            assert!(long(name).is_err(), "{name}");
        }
        assert!(long(&"x".repeat(256)).is_err() && long(&"é".repeat(255)).is_ok());
        assert!(label("TWELVE CHARS").is_err() && label("Ä").is_err() && label("A/B").is_err());
        assert_eq!(label("My Disk"), Ok(*b"My Disk    "));
    }
}
