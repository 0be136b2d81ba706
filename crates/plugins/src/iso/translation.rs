//! Files TRANS.TBL with the names of each directory as they were, for readers who know only ISO 9660.

use super::{Made, names::Names};
use crate::common::tree::{Tree, What};

const NAME: &str = "TRANS.TBL";

/// A file in each directory, empty so far. It takes the place of one of the same name.
pub(super) fn add(tree: &mut Tree, made: &mut Made) {
    tree.retain(|tree, node| tree.nodes[node].name != NAME.as_bytes());
    for directory in tree.directories() {
        let file = tree.add_file(directory, NAME.as_bytes(), 0);
        made.insert(file, Vec::new());
    }
}

/// Writes the files, now that names are known.
pub(super) fn fill(tree: &mut Tree, made: &mut Made, names: &Names) {
    for directory in tree.directories() {
        let Some(table) = tree.find_in(directory, NAME.as_bytes()) else { continue };
        let mut text = Vec::new();
        for child in names.plain.children[directory].iter().filter(|child| **child != table) {
            let node = &tree.nodes[*child];
            let name = String::from_utf8_lossy(&names.plain.names[*child]);
            let (kind, version) = match &node.what {
                What::Directory(_) => ('D', ""),
                What::Link(_) => ('L', ";1"),
                _ => ('F', ";1"),
            };
            text.extend(format!("{kind} {:<34}\t", format!("{name}{version}")).bytes());
            text.extend(&node.name);
            if let What::Link(target) = &node.what {
                text.push(b'\t');
                text.extend(target);
            }
            text.push(b'\n');
        }
        tree.nodes[table].what = What::File(text.len() as u64);
        made.insert(table, text);
    }
}
