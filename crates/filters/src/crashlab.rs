//! `crashlab`: what a disk may hold after the power was cut, at any moment since the server started.
//!
//! Writes stay in memory until a flush, and then go below: the disk below always holds what is stable, and nothing
//! else. Of what a flush changes the old bytes are kept, so that earlier moments can be put together again.

mod disks;
mod history;
mod overlay;
mod states;

use async_lock::Mutex;
use disk::{Backend, Client, Disk, Errno, Error, Export, Facts, Filter, Io, Result};
use history::{History, Lab, Moment};
use params::{Params, Size};
use std::sync::Arc;

/// Serve what a disk may hold after a power cut.
#[derive(Params)]
pub(crate) struct CrashLab {
    /// At most so much memory for what was written. When it is used up the oldest writes are taken for stable.
    #[param(default = "256M")]
    crashlab_memory: Size,
    /// So many states are listed of each epoch, at most.
    #[param(default = "32", placeholder = "N")]
    crashlab_states: u32,
    /// Chooses the states, where there are more than are listed.
    #[param(default = "1", placeholder = "N")]
    crashlab_seed: u64,
    /// What a disk writes whole or not at all. 0: every write, however long.
    #[param(default = "512")]
    crashlab_sector: Size,
}

impl Filter for CrashLab {
    const NAME: &'static str = "crashlab";
    const MANUAL: &'static str = include_str!("crashlab.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        let sector = self.crashlab_sector.bytes();
        if sector != 0 && !sector.is_power_of_two() {
            let given = self.crashlab_sector;
            return Err(Error::invalid(format!("crashlab-sector={given}: neither a power of two nor 0")));
        }
        if self.crashlab_memory.bytes() < 1 << 20 {
            return Err(Error::invalid(format!("crashlab-memory={}: less than 1M", self.crashlab_memory)));
        }
        let most = u64::from(self.crashlab_states.max(2));
        let rules = states::Rules { sector, most, seed: self.crashlab_seed };
        Ok(Laboratory { memory: self.crashlab_memory.bytes(), rules, lab: Mutex::default(), next })
    }
}

struct Laboratory {
    memory: u64,
    rules: states::Rules,
    /// Of the export that was opened first, and its name.
    lab: Mutex<Option<(String, Arc<Lab>)>>,
    next: Arc<dyn Backend>,
}

/// The states of all epochs are listed up to so many; of more, some of each.
const LISTED: u64 = 4000;

impl Laboratory {
    /// The lab of an export, made with the first disk.
    async fn lab(&self, export: &str) -> Result<Arc<Lab>> {
        let mut lab = self.lab.lock().await;
        match &*lab {
            Some((name, lab)) if name == export => Ok(lab.clone()),
            Some((name, _)) => Err(Error::new(
                Errno::NOENT,
                format!("crashlab looks at one export, which is {name:?} here, and not at {export:?}"),
            )),
            None => {
                let made = Arc::new(Lab::new(self.memory, self.rules));
                *lab = Some((export.to_owned(), made.clone()));
                Ok(made)
            }
        }
    }

    async fn state(&self, client: &Client<'_>, moment: Moment) -> Result<Arc<dyn Disk>> {
        let lab = self.lab.lock().await.clone();
        let Some((name, lab)) = lab else {
            return Err(Error::new(Errno::NOENT, "crashlab: nothing has been written yet"));
        };
        let disk = self.next.open(&client.asking_for(&name)).await?;
        let shared = lab.state(client.export, moment).await?;
        let facts = facts(disk.facts());
        let name = Some(client.export.into());
        let description = Some(moment.to_string().into());
        Ok(Arc::new(disks::StateDisk {
            facts: Facts { name, description, ..facts },
            lab,
            shared,
            next: disk,
        }))
    }
}

/// What disks of the lab can do over one that can do this.
fn facts(below: &Facts) -> Facts {
    let facts = Facts { cache: false, extents: false, contexts: Arc::new([]), ..below.clone() };
    match below.write {
        true => Facts { flush: true, fua: true, trim: true, zero: true, fast_zero: true, ..facts },
        false => facts,
    }
}

impl Backend for Laboratory {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        Io::later(async move {
            if let Some(moment) = Moment::of_name(client.export) {
                return self.state(client, moment).await;
            }
            let disk = self.next.open(client).await?;
            if disk.facts().write && !disk.facts().flush {
                return Err(Error::invalid(
                    "crashlab: the disk below cannot flush, so that nothing is ever stable",
                ));
            }
            let (facts, lab) = (facts(disk.facts()), self.lab(client.export).await?);
            Ok(Arc::new(disks::Live { facts, lab, next: disk }) as Arc<dyn Disk>)
        })
    }

    fn exports<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Vec<Export>> {
        Io::later(async move {
            let mut list = self.next.exports(client).await?;
            let Some((_, lab)) = self.lab.lock().await.clone() else { return Ok(list) };
            let moments = lab.moments();
            let step = (moments.len() as u64).div_ceil(LISTED).max(1) as usize;
            let described =
                |moment: Moment| Export { name: moment.name(), description: Some(moment.to_string()) };
            list.extend(moments.into_iter().step_by(step).map(described));
            Ok(list)
        })
    }

    fn finish(&self) {
        let lab = self.lab.lock_blocking().take();
        if let Some((name, lab)) = lab.filter(|(_, lab)| lab.is_dirty()) {
            // Nobody has cut the power: what was not flushed is written all the same.
            let end = async {
                let disk = self.next.open(&Client::local(&name)).await?;
                lab.flush(&*disk).await?;
                disk.close().await
            };
            if let Err(e) = reactor::block_on(end) {
                tracing::error!(target: "diskpipe", "crashlab: what was not flushed cannot be written: {e}");
            }
        }
        self.next.finish();
    }

    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

/// The history's lock, for those that only look.
type Guard<'a> = std::sync::MutexGuard<'a, History>;

#[cfg(test)]
mod formats;
#[cfg(test)]
pub(crate) mod power;
#[cfg(test)]
mod tests;
