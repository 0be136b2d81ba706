//! A disk with a FAT32 file system that holds a directory of the server. The file system's own bytes are made at the
//! start; what is in the files is read from them when it is asked for.
//!
//! The chapters follow the plan: which names the files get (`names.rs`), how large everything is and where it goes
//! (`layout.rs`), what the directories say (`directories.rs`), and the two areas before them (`reserved.rs`, `table.rs`).

mod directories;
mod layout;
mod names;
mod reserved;
mod table;

use crate::common::{
    one_disk::MadeDisk,
    partition_table::{ALIGNMENT, MAX_SIZE, Wanted, mbr},
    regions::Regions,
    tree::{Contents, Placed, Tree, What},
};
use disk::{Backend, Disk, Error, Plugin, Range, Result};
use layout::Plan;
use params::{Params, Size};
use std::{path::PathBuf, sync::Arc};

/// "FAT32, addressed by sectors" in an MBR.
const FAT32: u8 = 0x0c;

/// Serve a directory as a disk with a FAT file system.
#[derive(Params)]
pub(crate) struct Floppy {
    /// The directory. What is in it will be in the root directory of the file system.
    #[param(magic, placeholder = "DIRECTORY")]
    dir: PathBuf,
    /// The label of the file system, up to 11 characters of ASCII.
    #[param(default = "DISKPIPE")]
    label: String,
    /// The size of the disk; by default what the files need, and at least the 33 MiB of the smallest FAT32.
    size: Option<Size>,
}

impl Plugin for Floppy {
    const NAME: &'static str = "floppy";
    const MANUAL: &'static str = include_str!("floppy.md");

    fn start(self) -> Result<impl Backend + 'static> {
        let label = names::label(&self.label)
            .map_err(|why| Error::invalid(format!("label={}: {why}", self.label)))?;
        let size = self.size.map(Size::bytes);
        Ok(MadeDisk::by(move || make(&self.dir, label, size)))
    }
}

/// Reads the directory and plans the disk.
fn make(directory: &std::path::Path, label: [u8; 11], size: Option<u64>) -> Result<Arc<dyn Disk>> {
    let mut tree = Tree::read(&[directory.to_owned()])?;
    // FAT knows nothing else.
    tree.retain(|tree, node| matches!(tree.nodes[node].what, What::File(_) | What::Directory(_)));
    let names = names::all(&tree)?;
    let room = size.map(|size| room(size).map(|room| (room, size))).transpose()?;
    let plan = Plan::new(&tree, &names, room.map(|(room, _)| room))
        .map_err(|e| if size.is_some() { e.context("size") } else { e })?;
    let directories = directories::all(&tree, &names, &plan, label);
    let files = files(&tree, &plan);

    let fat = Wanted {
        size: plan.size(),
        alignment: ALIGNMENT,
        mbr_type: FAT32,
        gpt_type: crate::common::partition_table::Guid([0; 16]),
        id: crate::common::partition_table::Guid([0; 16]),
        name: String::new(),
        bootable: false,
    };
    let layout = mbr(&[fat])?;
    let mut regions = Regions::new();
    for (at, bytes) in layout.tables {
        regions.zeroes_to(at)?;
        regions.bytes(bytes)?;
    }
    let partition = layout.partitions[0];
    regions.zeroes_to(partition.start)?;
    regions.bytes(reserved::sectors(&plan, partition.start, label, serial(&tree)))?;
    let table: Arc<dyn Disk> = Arc::new(table::Table::new(&plan));
    regions.disk(table.clone())?;
    regions.disk(table)?;
    regions.bytes(directories)?;
    let data = plan.data_size() - plan.directories_size();
    regions.disk(Arc::new(Contents::new(Arc::new(tree), files, data)))?;
    regions.zeroes_to(size.unwrap_or(0).max(layout.size))?;
    Ok(Arc::new(regions.into_disk()))
}

/// What a disk of this size has for the file system.
fn room(size: u64) -> Result<u64> {
    match size {
        MAX_SIZE.. => Err(Error::invalid(format!("size={size}: a disk with an MBR has less than 2 TiB"))),
        0..=ALIGNMENT => Err(Error::invalid(format!("size={size}: the partition begins only at 1 MiB"))),
        _ => Ok(size - ALIGNMENT),
    }
}

/// Where the files lie, counted from the end of the directories.
fn files(tree: &Tree, plan: &Plan) -> Vec<Placed> {
    let mut files: Vec<Placed> = (0..tree.nodes.len())
        .filter(|node| tree.size(*node) > 0)
        .map(|node| {
            let start = plan.offset(plan.first[node]) - plan.directories_size();
            Placed { range: Range::new(start, tree.size(node)), node }
        })
        .collect();
    files.sort_by_key(|file| file.range.start);
    files
}

/// The same for the same tree, and hardly ever for another one: systems tell disks apart by it.
fn serial(tree: &Tree) -> u32 {
    let mut serial = 0;
    for node in &tree.nodes {
        let name =
            node.name.iter().fold(0, |n: u64, byte| n.wrapping_mul(257).wrapping_add(u64::from(*byte)));
        serial = crate::common::content::mix(serial ^ name ^ node.attributes.modified.cast_unsigned());
    }
    (serial as u32).max(1)
}

#[cfg(test)]
mod tests;
