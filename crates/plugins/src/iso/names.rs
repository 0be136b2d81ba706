//! The names that files have for readers who know only ISO 9660, and for those who know Joliet. Rock Ridge has the names
//! as they are.

use super::options::Options;
use crate::common::tree::{ROOT, Tree, What};
use disk::{Error, Result};
use std::collections::{HashMap, HashSet};

/// The most directories that there can be, since their numbers have 16 bits.
const MOST_DIRECTORIES: usize = u16::MAX as usize;

/// Who reads a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// Any, with Rock Ridge for those who know it.
    Plain,
    Joliet,
}

/// Names of one kind, and who is in which directory by them.
#[derive(Debug)]
pub(super) struct View {
    pub(super) reader: Reader,
    /// By node; empty for what is not to be seen. As it is written to the CD, without a version.
    pub(super) names: Vec<Vec<u8>>,
    /// What is to be seen in each directory, in the order of names.
    pub(super) children: Vec<Vec<usize>>,
    /// Every directory that is to be seen, in the order of their numbers.
    pub(super) directories: Vec<usize>,
}

/// Both kinds.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) plain: View,
    pub(super) joliet: View,
}

impl Names {
    pub(super) fn new(tree: &Tree, options: &Options) -> Result<Names> {
        let plain = View::new(tree, Reader::Plain, |node| {
            (!options.hides(tree, node)).then(|| plain(tree, node, options.long_names))
        })?;
        let most = if options.long_joliet { 103 } else { 64 };
        let joliet = View::new(tree, Reader::Joliet, |node| {
            let is_known = matches!(tree.nodes[node].what, What::File(_) | What::Directory(_));
            (is_known && !options.hides_in_joliet(tree, node)).then(|| joliet(&tree.nodes[node].name, most))
        })?;
        Ok(Names { plain, joliet })
    }
}

impl View {
    /// `name` is the name that a node would like to have, if it is to be seen.
    fn new(tree: &Tree, reader: Reader, name: impl Fn(usize) -> Option<Name>) -> Result<View> {
        let mut names = vec![Vec::new(); tree.nodes.len()];
        let mut children = vec![Vec::new(); tree.nodes.len()];
        let mut directories = vec![ROOT];
        let mut next = 0;
        while let Some(directory) = directories.get(next).copied() {
            let mut taken = Taken::default();
            let mut here: Vec<(Name, usize)> = Vec::new();
            for child in tree.children(directory) {
                if let Some(name) = name(*child) {
                    here.push((unique(name, &mut taken), *child));
                }
            }
            // By the rules an extension is compared after all of the name before it.
            here.sort();
            for (name, child) in here {
                if matches!(tree.nodes[child].what, What::Directory(_)) {
                    directories.push(child);
                }
                names[child] = name.into_bytes();
                children[directory].push(child);
            }
            next += 1;
        }
        if directories.len() > MOST_DIRECTORIES {
            return Err(Error::invalid(format!("{} directories: a CD has at most 65535", directories.len())));
        }
        Ok(View { reader, names, children, directories })
    }

    /// Whether the node is to be seen.
    pub(super) fn shows(&self, node: usize) -> bool {
        node == ROOT || !self.names[node].is_empty()
    }
}

/// A name in two parts, in units of one or two bytes. Compared as directories are sorted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Name {
    base: Vec<u16>,
    /// With the dot before it.
    extension: Vec<u16>,
    /// The most units that `base` may have.
    most: usize,
    wide: bool,
}

impl Name {
    fn into_bytes(self) -> Vec<u8> {
        let units = self.base.into_iter().chain(self.extension);
        if self.wide {
            units.flat_map(u16::to_be_bytes).collect()
        } else {
            units.map(|unit| unit as u8).collect()
        }
    }
}

/// The names of one directory.
#[derive(Default)]
struct Taken {
    names: HashSet<(Vec<u16>, Vec<u16>)>,
    /// The next number to try for names that begin and end alike: there may be many of a kind.
    next: HashMap<(Vec<u16>, Vec<u16>), u32>,
}

/// The name, or one like it with a number at the end of its base, that no other has.
fn unique(mut name: Name, taken: &mut Taken) -> Name {
    let wanted = name.base.clone();
    let stem = |digits: usize| wanted.len().min(name.most.saturating_sub(digits));
    let kind = (wanted[..stem(3)].to_vec(), name.extension.clone());
    while !taken.names.insert((name.base.clone(), name.extension.clone())) {
        let number = taken.next.entry(kind.clone()).or_default();
        let tail: Vec<u16> = format!("{number:03}").encode_utf16().collect();
        *number += 1;
        name.base = [&wanted[..stem(tail.len())], &tail].concat();
    }
    name
}

/// As ISO 9660 has it: capitals, digits and `_`, a file with one dot.
fn plain(tree: &Tree, node: usize, long: bool) -> Name {
    let text = String::from_utf8_lossy(&tree.nodes[node].name).into_owned();
    let is_directory = matches!(tree.nodes[node].what, What::Directory(_));
    let part = |text: &str, most: usize| -> Vec<u16> {
        let capital = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        text.chars().map(|c| capital(c) as u16).take(most).collect()
    };
    if is_directory {
        let most = if long { 31 } else { 8 };
        return Name { base: part(&text, most), extension: vec![], most, wide: false };
    }
    let (base, extension) = match text.rsplit_once('.') {
        Some((base, extension)) if !base.is_empty() => (base, extension),
        _ => (text.as_str(), ""),
    };
    let extension = part(extension, if long { 15 } else { 3 });
    // Together 30, and the dot.
    let most = if long { 30 - extension.len() } else { 8 };
    let extension = [vec![u16::from(b'.')], extension].concat();
    Name { base: part(base, most), extension, most, wide: false }
}

/// As Joliet has it: nearly everything, but of two bytes each.
fn joliet(name: &[u8], most: usize) -> Name {
    let text = String::from_utf8_lossy(name);
    let known = |c: char| !(c < ' ' || "*/:;?\\".contains(c) || c.len_utf16() > 1);
    let units: Vec<u16> = text.chars().map(|c| if known(c) { c as u16 } else { u16::from(b'_') }).collect();
    // What is too long loses the end of its base, not its extension.
    let dot = units.iter().rposition(|unit| *unit == u16::from(b'.'));
    let cut = dot.filter(|at| *at > 0 && units.len() - at <= most / 2).unwrap_or(units.len());
    let extension = units[cut..].to_vec();
    let most = most - extension.len();
    Name { base: units[..cut.min(most)].to_vec(), extension, most, wide: true }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn names(files: &[&str], params: &str) -> Vec<(String, String)> {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let tree = Tree::read(&[dir.path().to_owned()]).unwrap();
        let options = Options::parse(&super::super::options::words(params).unwrap()).unwrap();
        let names = Names::new(&tree, &options).unwrap();
        let text = |node: usize| {
            let wide = names.joliet.names[node].chunks(2).map(|unit| u16::from_be_bytes([unit[0], unit[1]]));
            let wide = String::from_utf16(&wide.collect::<Vec<_>>()).unwrap();
            (String::from_utf8(names.plain.names[node].clone()).unwrap(), wide)
        };
        names.plain.children[ROOT].iter().map(|node| text(*node)).collect()
    }

    #[test]
    fn plain_names_are_short_and_all_different() {
        let found = names(
            &["hello.txt", "a long name.html", "a long note.html", ".profile", "x.tar.gz", "none", "d/x"],
            "",
        );
        let found: Vec<_> = found.iter().map(|(plain, _)| plain.as_str()).collect();
        assert_eq!(
            found,
            ["A_LON000.HTM", "A_LONG_N.HTM", "D", "HELLO.TXT", "NONE.", "X_TAR.GZ", "_PROFILE."]
        );
        let long = names(&["a long name of a file, longer than fits.html"], "-l");
        assert_eq!(long[0].0, "A_LONG_NAME_OF_A_FILE__LON.HTML");
    }

    #[test]
    fn as_many_names_of_a_kind_as_there_are_files_are_told_apart() {
        let mut taken = Taken::default();
        let name = |number: u32| {
            let base = format!("FILE_{number:03}").encode_utf16().take(8).collect();
            Name { base, extension: vec![], most: 8, wide: false }
        };
        let found: HashSet<Vec<u8>> =
            (0..50_000).map(|number| unique(name(number / 1000), &mut taken).into_bytes()).collect();
        assert!(found.len() == 50_000 && found.iter().all(|name| name.len() <= 8));
    }

    #[test]
    fn joliet_names_keep_what_they_can() {
        let long = format!("{}.text", "é".repeat(80));
        let found = names(&[&long, "what?", "🦀"], "");
        let found: Vec<_> = found.iter().map(|(_, joliet)| joliet.as_str()).collect();
        let cut = format!("{}.text", "é".repeat(59));
        assert!(
            found.contains(&cut.as_str()) && found.contains(&"what_") && found.contains(&"_"),
            "{found:?}"
        );
        assert_eq!(names(&[&long], "-joliet-long")[0].1, long);
    }

    #[test]
    fn what_is_hidden_is_hidden_from_one_kind_only() {
        let found = names(&["a.txt", "b"], "-hide-joliet '*.txt'");
        assert_eq!(found, [("A.TXT".into(), String::new()), ("B.".into(), "b".into())]);
        assert_eq!(names(&["a.txt", "d/x"], "-hide d").len(), 1);
    }
}
