//! Directories of the server as they were at one moment: what floppy and iso make disks of. The content of files stays
//! where it is; see `contents.rs`.

mod contents;

pub(crate) use contents::{Contents, Placed};

use disk::{Error, Result};
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{DirEntry, Metadata},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

/// Where [`Tree::nodes`] has the directory that holds everything.
pub(crate) const ROOT: usize = 0;

/// Names and what is behind them.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Each comes after its parent; the first is [`ROOT`], its own parent.
    pub(crate) nodes: Vec<Node>,
    /// Directories of the server that were read.
    read: Vec<PathBuf>,
}

/// A file, a directory or something else.
#[derive(Debug)]
pub(crate) struct Node {
    /// Without slashes; of the root, empty.
    pub(crate) name: Vec<u8>,
    pub(crate) parent: usize,
    pub(crate) what: What,
    pub(crate) attributes: Attributes,
    /// Which of the directories it was found in.
    found_in: usize,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The nodes in it, sorted by name.
    Directory(Vec<usize>),
    /// A regular file of this size in bytes.
    File(u64),
    /// A symbolic link and where it leads.
    Link(Vec<u8>),
    /// A device by its number; whether it is a block device is in the mode.
    Device(u64),
    /// A pipe or a socket.
    Other,
}

/// What the server's file system says of a node.
#[derive(Clone, Debug)]
pub(crate) struct Attributes {
    /// Type and permissions.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Names that the file has, be they in the tree or not.
    pub(crate) links: u64,
    /// Of content, last access and attributes, in seconds since 1970.
    pub(crate) modified: i64,
    pub(crate) accessed: i64,
    pub(crate) changed: i64,
    /// Device and inode, the same for all names of a file.
    pub(crate) identity: (u64, u64),
}

impl Attributes {
    fn of(found: &Metadata) -> Attributes {
        Attributes {
            mode: found.mode(),
            uid: found.uid(),
            gid: found.gid(),
            links: found.nlink(),
            modified: found.mtime(),
            accessed: found.atime(),
            changed: found.ctime(),
            identity: (found.dev(), found.ino()),
        }
    }
}

impl Tree {
    /// Reads these directories with all that is below. Directories of the same name become one; of other things with the
    /// same name the last one stays. Links are not followed.
    ///
    /// # Errors
    /// A sentence that names what cannot be read.
    pub(crate) fn read(directories: &[PathBuf]) -> Result<Tree> {
        let mut tree = Tree { nodes: Vec::new(), read: Vec::new() };
        for directory in directories {
            let found = std::fs::metadata(directory).map_err(|e| named(e.into(), directory))?;
            if !found.is_dir() {
                return Err(named(Error::invalid("not a directory"), directory));
            }
            if tree.nodes.is_empty() {
                tree.add(ROOT, Vec::new(), What::Directory(Vec::new()), Attributes::of(&found), 0);
            }
            let mut rest = vec![(directory.clone(), ROOT)];
            while let Some((path, node)) = rest.pop() {
                tree.read_into(&path, node, &mut rest).map_err(|e| named(e, &path))?;
            }
        }
        // Nodes that no directory has any more, since others took their names.
        tree.retain(|_, _| true);
        Ok(tree)
    }

    /// Adds what is in one directory to a node, and its directories to what is still to be read.
    fn read_into(&mut self, path: &Path, into: usize, rest: &mut Vec<(PathBuf, usize)>) -> Result<()> {
        let found_in = self.read.len();
        self.read.push(path.to_owned());
        let mut entries = std::fs::read_dir(path)?.collect::<std::io::Result<Vec<_>>>()?;
        entries.sort_by_key(DirEntry::file_name);
        let mut known: HashMap<Vec<u8>, usize> =
            self.children(into).iter().map(|child| (self.nodes[*child].name.clone(), *child)).collect();
        for entry in entries {
            let path = entry.path();
            let (what, attributes) = look(&path).map_err(|e| named(e, Path::new(&entry.file_name())))?;
            let name = entry.file_name().into_vec();
            let is_directory = matches!(what, What::Directory(_));
            let node = match known.get(&name) {
                Some(old) if is_directory && matches!(self.nodes[*old].what, What::Directory(_)) => *old,
                _ => {
                    let new = self.add(into, name.clone(), what, attributes, found_in);
                    known.insert(name, new);
                    new
                }
            };
            if is_directory {
                rest.push((path, node));
            }
        }
        let mut children: Vec<usize> = known.into_values().collect();
        children.sort_by(|a, b| self.nodes[*a].name.cmp(&self.nodes[*b].name));
        self.nodes[into].what = What::Directory(children);
        Ok(())
    }

    fn add(
        &mut self,
        parent: usize,
        name: Vec<u8>,
        what: What,
        attributes: Attributes,
        found_in: usize,
    ) -> usize {
        self.nodes.push(Node { name, parent, what, attributes, found_in });
        self.nodes.len() - 1
    }

    /// Adds a file that is on no server's disk, which must not be read by its path.
    pub(crate) fn add_file(&mut self, directory: usize, name: &[u8], size: u64) -> usize {
        let like = &self.nodes[directory].attributes;
        let identity = (u64::MAX, self.nodes.len() as u64);
        let attributes = Attributes { mode: 0o100_444, uid: 0, gid: 0, links: 1, identity, ..like.clone() };
        let file = self.add(directory, name.to_vec(), What::File(size), attributes, 0);
        let mut children = self.children(directory).to_vec();
        let place = children.partition_point(|child| self.nodes[*child].name.as_slice() < name);
        children.insert(place, file);
        self.nodes[directory].what = What::Directory(children);
        file
    }

    /// Keeps only nodes (and what is in them) for which `keep` is true, and all of whose directories are kept.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Tree, usize) -> bool) {
        let mut stays = vec![false; self.nodes.len()];
        let mut rest = vec![ROOT];
        while let Some(node) = rest.pop() {
            if node == ROOT || keep(self, node) {
                stays[node] = true;
                rest.extend(self.children(node));
            }
        }
        let mut number = vec![0; self.nodes.len()];
        let mut next = 0;
        for (node, stays) in stays.iter().enumerate() {
            number[node] = next;
            next += usize::from(*stays);
        }
        let nodes = std::mem::take(&mut self.nodes).into_iter().enumerate();
        self.nodes = nodes.filter(|(node, _)| stays[*node]).map(|(_, node)| node).collect();
        for node in &mut self.nodes {
            node.parent = number[node.parent];
            if let What::Directory(children) = &mut node.what {
                children.retain(|child| stays[*child]);
                children.iter_mut().for_each(|child| *child = number[*child]);
            }
        }
    }

    /// What is in a directory, sorted by name; nothing is in other nodes.
    pub(crate) fn children(&self, node: usize) -> &[usize] {
        match &self.nodes[node].what {
            What::Directory(children) => children,
            _ => &[],
        }
    }

    /// The node at a path from the root on, with slashes between names.
    pub(crate) fn find(&self, path: &[u8]) -> Option<usize> {
        let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
        names.into_iter().try_fold(ROOT, |at, name| self.find_in(at, name))
    }

    /// The node of this name in a directory.
    pub(crate) fn find_in(&self, directory: usize, name: &[u8]) -> Option<usize> {
        let children = self.children(directory);
        let place = children.binary_search_by(|child| self.nodes[*child].name.as_slice().cmp(name));
        place.ok().map(|place| children[place])
    }

    /// Where a node's content is on the server.
    pub(crate) fn path(&self, node: usize) -> PathBuf {
        let node = &self.nodes[node];
        self.read[node.found_in].join(OsStr::from_bytes(&node.name))
    }

    /// The node's path from the root on, for people.
    pub(crate) fn shown(&self, node: usize) -> String {
        let mut names = Vec::new();
        let mut at = node;
        while at != ROOT {
            names.push(String::from_utf8_lossy(&self.nodes[at].name));
            at = self.nodes[at].parent;
        }
        names.reverse();
        if names.is_empty() { ".".to_owned() } else { names.join("/") }
    }

    /// The size of a regular file; 0 for all else.
    pub(crate) fn size(&self, node: usize) -> u64 {
        match self.nodes[node].what {
            What::File(size) => size,
            _ => 0,
        }
    }

    /// Every directory, parents first, and those of one directory by name.
    pub(crate) fn directories(&self) -> Vec<usize> {
        let mut found = vec![ROOT];
        let mut next = 0;
        while let Some(directory) = found.get(next).copied() {
            let is_directory = |child: &&usize| matches!(self.nodes[**child].what, What::Directory(_));
            found.extend(self.children(directory).iter().filter(is_directory));
            next += 1;
        }
        found
    }
}

/// What is there. A file that cannot be read is better found out now than by a client.
fn look(path: &Path) -> Result<(What, Attributes)> {
    let found = std::fs::symlink_metadata(path)?;
    let kind = found.file_type();
    let what = if kind.is_dir() {
        What::Directory(Vec::new())
    } else if kind.is_file() {
        rustix::fs::access(path, rustix::fs::Access::READ_OK)?;
        What::File(found.len())
    } else if kind.is_symlink() {
        What::Link(std::fs::read_link(path)?.into_os_string().into_vec())
    } else if kind.is_block_device() || kind.is_char_device() {
        What::Device(found.rdev())
    } else {
        What::Other
    };
    Ok((what, Attributes::of(&found)))
}

fn named(e: Error, path: &Path) -> Error {
    e.context(path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn made(dir: &Path, files: &[(&str, &str)]) {
        for (name, content) in files {
            let file = dir.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }
    }

    fn shown(tree: &Tree) -> Vec<String> {
        let mut all: Vec<_> =
            (1..tree.nodes.len()).map(|n| format!("{}:{}", tree.shown(n), tree.size(n))).collect();
        all.sort();
        all
    }

    #[test]
    fn directories_are_merged_and_the_last_of_a_name_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        made(&a, &[("x", "1"), ("sub/one", "22"), ("both", "first"), ("was/a/dir", "3")]);
        made(&b, &[("sub/two", "4444"), ("both", "2nd"), ("was", "file")]);
        let tree = Tree::read(&[a, b.clone()]).unwrap();
        assert_eq!(shown(&tree), ["both:3", "sub/one:2", "sub/two:4", "sub:0", "was:4", "x:1"]);
        let both = tree.find(b"/both").unwrap();
        assert_eq!(tree.path(both), b.join("both"));
        assert_eq!(tree.shown(tree.find(b"./sub//two").unwrap()), "sub/two");
        assert!(tree.find(b"was/a").is_none() && tree.find(b"") == Some(ROOT));
        assert!((1..tree.nodes.len()).all(|node| tree.nodes[node].parent < node));
        assert_eq!(tree.directories().len(), 2);
    }

    #[test]
    fn links_are_not_followed_so_they_cannot_loop() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(".", dir.path().join("loop")).unwrap();
        std::os::unix::fs::symlink("/nowhere", dir.path().join("gone")).unwrap();
        let mut tree = Tree::read(&[dir.path().to_owned()]).unwrap();
        assert_eq!(tree.nodes[tree.find(b"loop").unwrap()].what, What::Link(b".".to_vec()));
        tree.retain(|tree, node| !matches!(tree.nodes[node].what, What::Link(_)));
        assert_eq!(tree.nodes.len(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let said = |path: PathBuf| Tree::read(&[path]).unwrap_err().to_string();
        assert!(said(dir.path().join("none")).ends_with("none: No such file or directory"));
        made(dir.path(), &[("file", "")]);
        assert!(said(dir.path().join("file")).ends_with("file: not a directory"));
    }
}
