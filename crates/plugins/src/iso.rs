//! A CD that holds directories of the server: ISO 9660 with Rock Ridge and Joliet. What is on it besides the files is made
//! at the start; what is in the files is read from them when it is asked for.
//!
//! The chapters follow the making: what is wanted (`options.rs`), the names (`names.rs`), where everything goes
//! (`layout.rs`), the directories (`records.rs`, `rock_ridge.rs`), what a reader looks at first (`volume.rs`), and how to
//! boot from it (`boot.rs`). Or another program makes the CD (`program.rs`).

mod boot;
mod layout;
mod names;
mod options;
mod program;
mod records;
mod rock_ridge;
mod translation;
mod volume;

use crate::common::{
    one_disk::MadeDisk,
    regions::Regions,
    tree::{Contents, Placed, Tree},
};
use disk::{Backend, Disk, Error, Plugin, Range, Result};
use layout::Layout;
use names::Names;
use options::Options;
use params::Params;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

/// Bytes of a logical sector, which everything on a CD is a multiple of.
const SECTOR: u64 = 2048;

/// Serve directories as a CD.
#[derive(Params)]
pub(crate) struct Iso {
    /// A directory. What is in it will be in the root directory of the CD. Several are merged.
    #[param(magic, placeholder = "DIRECTORY")]
    dir: Vec<PathBuf>,
    /// Options of mkisofs, as one would write them for the shell: `-V "My CD" -r`.
    #[param(default = "", placeholder = "OPTIONS")]
    params: String,
    /// Let this program make the CD: xorriso, genisoimage or mkisofs.
    #[param(alias = "isoprog", placeholder = "PROGRAM")]
    prog: Option<String>,
}

impl Plugin for Iso {
    const NAME: &'static str = "iso";
    const MANUAL: &'static str = include_str!("iso.md");

    fn start(self) -> Result<impl Backend + 'static> {
        if self.dir.is_empty() {
            return Err(Error::invalid("you must supply the dir= parameter, once or several times"));
        }
        Ok(MadeDisk::by(move || match &self.prog {
            Some(program) => program::make(program, &self.params, &self.dir),
            None => {
                let options = Options::parse(&options::words(&self.params)?)
                    .map_err(|e| e.context(format!("params={}", self.params)))?;
                make(&self.dir, &options)
            }
        }))
    }
}

/// Content that is in no file of the server, by the node that has it.
type Made = BTreeMap<usize, Vec<u8>>;

/// Reads the directories and plans the CD.
fn make(directories: &[PathBuf], options: &Options) -> Result<Arc<dyn Disk>> {
    let mut tree = Tree::read(directories)?;
    tree.retain(|tree, node| !options.excludes(tree, node));
    let mut made = Made::new();
    let catalog = boot::add_catalog(&mut tree, &mut made, options)?;
    if options.translation_tables {
        translation::add(&mut tree, &mut made);
    }
    let names = Names::new(&tree, options)?;
    if options.translation_tables {
        translation::fill(&mut tree, &mut made, &names);
    }
    let layout = Layout::new(&tree, &names, options)?;
    let mut patches: Vec<(u64, Vec<u8>)> = Vec::new();
    if let Some(catalog) = catalog {
        made.insert(catalog, boot::catalog(&tree, &layout, options)?);
        patches = boot::info_tables(&tree, &layout, options)?;
    }
    patches.extend(made.iter().map(|(node, bytes)| (layout.start(*node), bytes.clone())));
    patches.sort_by_key(|(at, _)| *at);

    let mut regions = Regions::new();
    regions.zeroes_to(volume::FIRST * SECTOR)?;
    regions.bytes(volume::descriptors(&tree, &layout, options, catalog))?;
    regions.bytes(records::all(&tree, &names, &layout, options))?;
    debug_assert_eq!(regions.size(), layout.files.start);
    let files = layout.files;
    let placed = placed(&tree, &layout, &made);
    let contents: Arc<dyn Disk> = Arc::new(Contents::new(Arc::new(tree), placed, files.len));
    for (at, bytes) in patches.into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
        let before = regions.size();
        regions.disk_part(contents.clone(), Range::new(before - files.start, at - before))?;
        regions.bytes(bytes)?;
    }
    let rest = Range::new(regions.size() - files.start, files.end() - regions.size());
    regions.disk_part(contents, rest)?;
    regions.zeroes_to(layout.size)?;
    Ok(Arc::new(regions.into_disk()))
}

/// Where the files lie, counted from the first.
fn placed(tree: &Tree, layout: &Layout, made: &Made) -> Vec<Placed> {
    let mut placed: Vec<Placed> = (0..tree.nodes.len())
        .filter(|node| tree.size(*node) > 0 && !made.contains_key(node))
        .map(|node| Placed {
            range: Range::new(layout.start(node) - layout.files.start, tree.size(node)),
            node,
        })
        .collect();
    placed.sort_by_key(|file| file.range.start);
    // Several names of one file lie at one place.
    placed.dedup_by_key(|file| file.range.start);
    placed
}

/// A number as most of a CD has it: little-endian, and again big-endian.
fn both_32(number: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// As [`both_32`].
fn both_16(number: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (number.to_le_bytes(), number.to_be_bytes());
    [a, b, c, d]
}

#[cfg(test)]
mod tests;
