//! Where everything goes. All files lie in one piece, so the table of clusters follows from where each piece ends.

use super::names::Name;
use crate::common::{
    partition_table::{ALIGNMENT, MAX_SIZE, SECTOR},
    tree::{ROOT, Tree},
};
use disk::{Error, Result};

/// Of a directory and its entries.
pub(super) const ENTRY: u64 = 32;
/// The most entries that a directory can have.
const MOST_ENTRIES: u64 = 65_536;
/// A file's size has 32 bits.
const LARGEST_FILE: u64 = u32::MAX as u64;
/// With fewer clusters than these, many systems take the file system for FAT16.
const FEWEST_CLUSTERS: u64 = 65_525;
const MOST_CLUSTERS: u64 = 0x0fff_fff5;
/// The number of the first cluster.
pub(super) const FIRST: u32 = 2;
/// Sectors before the tables; more where that brings the clusters to a multiple of 4 KiB.
const RESERVED: u64 = 32;
const ALIGNED: u64 = 8;

/// The file system's numbers.
#[derive(Debug)]
pub(super) struct Plan {
    /// Sectors per cluster, a power of 2.
    pub(super) per_cluster: u64,
    /// Sectors before the tables.
    pub(super) reserved: u64,
    /// Sectors of each of the two tables.
    pub(super) table: u64,
    /// Clusters that there are.
    pub(super) clusters: u64,
    /// The first cluster of each node; 0 where it has none.
    pub(super) first: Vec<u32>,
    /// The last cluster of everything that has any, in order.
    pub(super) lasts: Vec<u32>,
    /// Clusters that the directories take, which come first.
    directories: u64,
}

impl Plan {
    /// A plan for these files with these names. `room`, in bytes, is what the file system may take up; without it, it is
    /// as large as need be.
    ///
    /// # Errors
    /// What is too large for FAT, or for the room.
    pub(super) fn new(tree: &Tree, names: &[Name], room: Option<u64>) -> Result<Plan> {
        let needs = needs(tree, names)?;
        let data: u64 = needs.iter().map(|(_, bytes)| bytes).sum();
        let size = room.unwrap_or(data);
        let usual = usual_cluster(size);
        let wanted = |per_cluster: u64| -> u64 {
            needs.iter().map(|(_, bytes)| bytes.div_ceil(per_cluster * SECTOR)).sum()
        };
        let plan = match room {
            None => Plan::with_clusters(usual, wanted(usual).max(FEWEST_CLUSTERS)),
            Some(room) => {
                let fits = |per_cluster: &u64| {
                    let plan = Plan::within(*per_cluster, room)?;
                    let enough = plan.clusters >= wanted(*per_cluster) && plan.clusters < MOST_CLUSTERS;
                    enough.then_some((plan.clusters >= FEWEST_CLUSTERS, plan))
                };
                // Large clusters waste room, and make a table that is too small; small ones a large table.
                let sizes = std::iter::successors(Some(usual), |per| (*per > 1).then_some(per / 2));
                let mut fitting: Vec<_> = sizes.filter_map(|per| fits(&per)).collect();
                let real =
                    fitting.iter().position(|(real, _)| *real).unwrap_or(fitting.len().saturating_sub(1));
                if fitting.is_empty() {
                    let least = ALIGNMENT + Plan::with_clusters(1, wanted(1)).size();
                    return Err(Error::invalid(format!("too small: the files need at least {least} bytes")));
                }
                fitting.swap_remove(real).1
            }
        };
        if plan.clusters >= MOST_CLUSTERS || plan.size() > MAX_SIZE - ALIGNMENT - SECTOR {
            return Err(Error::invalid(
                "the files need a disk of more than 2 TiB, which an MBR does not have",
            ));
        }
        Ok(plan.with(tree, &needs))
    }

    /// So many clusters, and a table that is large enough.
    fn with_clusters(per_cluster: u64, clusters: u64) -> Plan {
        let table = ((clusters + u64::from(FIRST)) * 4).div_ceil(SECTOR);
        let reserved = (RESERVED + 2 * table).next_multiple_of(ALIGNED) - 2 * table;
        Plan { per_cluster, reserved, table, clusters, first: vec![], lasts: vec![], directories: 0 }
    }

    /// As many clusters as have room; `None` if not even one has.
    fn within(per_cluster: u64, room: u64) -> Option<Plan> {
        let sectors = room / SECTOR;
        // A little less than there may be: each cluster takes its sectors and 8 bytes of the two tables.
        let most = sectors.checked_sub(RESERVED)? / per_cluster;
        let mut clusters = most - (most * 8).div_ceil(SECTOR * per_cluster + 8).min(most);
        clusters = clusters.saturating_sub(ALIGNED);
        let fits = |clusters| Plan::with_clusters(per_cluster, clusters).size() <= sectors * SECTOR;
        while fits(clusters + 1) {
            clusters += 1;
        }
        (clusters > 0 && fits(clusters)).then(|| Plan::with_clusters(per_cluster, clusters))
    }

    /// Gives everything its clusters: directories first, then files.
    fn with(mut self, tree: &Tree, needs: &[(usize, u64)]) -> Plan {
        self.first = vec![0; tree.nodes.len()];
        let mut next = u64::from(FIRST);
        for (node, bytes) in needs {
            let clusters = bytes.div_ceil(self.cluster());
            if clusters > 0 {
                self.first[*node] = next as u32;
                next += clusters;
                self.lasts.push(next as u32 - 1);
            }
            if tree.size(*node) == 0 {
                self.directories += clusters;
            }
        }
        debug_assert!(next - u64::from(FIRST) <= self.clusters);
        self
    }

    /// Bytes of a cluster.
    pub(super) fn cluster(&self) -> u64 {
        self.per_cluster * SECTOR
    }

    /// Bytes of the whole file system.
    pub(super) fn size(&self) -> u64 {
        (self.reserved + 2 * self.table) * SECTOR + self.data_size()
    }

    /// Bytes of all clusters.
    pub(super) fn data_size(&self) -> u64 {
        self.clusters * self.cluster()
    }

    /// Bytes of all clusters of directories.
    pub(super) fn directories_size(&self) -> u64 {
        self.directories * self.cluster()
    }

    /// Where a cluster begins, counted from the first.
    pub(super) fn offset(&self, cluster: u32) -> u64 {
        u64::from(cluster - FIRST) * self.cluster()
    }

    /// Clusters that are taken.
    pub(super) fn used(&self) -> u64 {
        self.lasts.last().map_or(0, |last| u64::from(*last - FIRST + 1))
    }
}

/// What everything takes, in bytes: directories with their parents first, then files in the order of the tree.
fn needs(tree: &Tree, names: &[Name]) -> Result<Vec<(usize, u64)>> {
    let mut needs = Vec::with_capacity(tree.nodes.len());
    for directory in tree.directories() {
        // The root begins with the label, others with themselves and their parents.
        let own = if directory == ROOT { 1 } else { 2 };
        let entries = own + tree.children(directory).iter().map(|c| names[*c].entries() as u64).sum::<u64>();
        if entries > MOST_ENTRIES {
            let why = format!("{}: too many files for a directory of FAT", tree.shown(directory));
            return Err(Error::invalid(why));
        }
        needs.push((directory, entries * ENTRY));
    }
    for node in 0..tree.nodes.len() {
        let size = tree.size(node);
        if size > LARGEST_FILE {
            return Err(Error::invalid(format!("{}: a file in FAT has less than 4 GiB", tree.shown(node))));
        }
        if size > 0 {
            needs.push((node, size));
        }
    }
    Ok(needs)
}

/// Sectors per cluster as other systems choose them for this size in bytes.
fn usual_cluster(size: u64) -> u64 {
    match size >> 20 {
        0..260 => 1,
        260..8192 => 8,
        8192..16_384 => 16,
        16_384..32_768 => 32,
        _ => 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_used_up_but_never_exceeded() {
        for per_cluster in [1, 8, 64] {
            for room in (0..3 << 20).step_by(7919).chain([1 << 30, (2 << 40) - 1]) {
                let Some(plan) = Plan::within(per_cluster, room) else {
                    assert!(room < (RESERVED + ALIGNED + 4 + per_cluster) * SECTOR, "{per_cluster} {room}");
                    continue;
                };
                assert!(plan.size() <= room);
                assert!(Plan::with_clusters(per_cluster, plan.clusters + 1).size() > room / SECTOR * SECTOR);
                assert!((plan.clusters + 2) * 4 <= plan.table * SECTOR);
                assert_eq!((plan.reserved + 2 * plan.table) % ALIGNED, 0);
            }
        }
    }
}
