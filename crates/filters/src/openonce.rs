//! `openonce`: all clients share what the first of them opened.

use async_lock::Mutex;
use disk::{Backend, Client, Disk, Facts, Filter, Io, Result};
use params::Params;
use std::{collections::HashMap, sync::Arc};

/// Open each export below once, and share it among all clients.
#[derive(Params)]
pub(crate) struct OpenOnce;

impl Filter for OpenOnce {
    const NAME: &'static str = "openonce";
    const MANUAL: &'static str = include_str!("openonce.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        Ok(Once { open: Mutex::default(), next })
    }
}

/// By export, and by what else may lead to another disk: whether it is only read, and whether over TLS.
type Key = (String, bool, bool);

struct Once {
    open: Mutex<HashMap<Key, Arc<dyn Disk>>>,
    next: Arc<dyn Backend>,
}

/// So many stay open for nobody: clients may think of any name.
const MOST: usize = 1000;

async fn close_unused(open: &mut HashMap<Key, Arc<dyn Disk>>) {
    let unused = open.iter().find(|(_, disk)| Arc::strong_count(disk) == 1).map(|(key, _)| key.clone());
    if let Some(key) = unused
        && let Some(disk) = open.remove(&key)
        && let Err(e) = disk.close().await
    {
        tracing::error!(target: "diskpipe", "closing export {:?}: {e}", key.0);
    }
}

impl Backend for Once {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        Io::later(async move {
            let key = (client.export.to_owned(), client.read_only, client.tls);
            // Held while the first one opens: the others wait for it rather than open it again.
            let mut open = self.open.lock().await;
            let disk = match open.get(&key) {
                Some(disk) => disk.clone(),
                None => {
                    let disk = self.next.open(client).await?;
                    if open.len() >= MOST {
                        close_unused(&mut open).await;
                    }
                    open.insert(key, disk.clone());
                    disk
                }
            };
            let facts = Facts {
                // All have the same disk, so that a flush of one is a flush of all.
                multi_conn: true,
                ..disk.facts().clone()
            };
            Ok(Arc::new(Shared { facts, next: disk }) as Arc<dyn Disk>)
        })
    }
    fn finish(&self) {
        let disks = std::mem::take(&mut *self.open.lock_blocking());
        for ((export, ..), disk) in disks {
            if let Err(e) = disk.close().wait() {
                tracing::error!(target: "diskpipe", "closing export {export:?}: {e}");
            }
        }
        self.next.finish();
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

struct Shared {
    facts: Facts,
    next: Arc<dyn Disk>,
}

impl Disk for Shared {
    // No `resizing`: the disk below takes all clients for one, and would shrink under the others.
    disk::forward!(next: next, read, write, zero, trim, flush, cache, extents, status);
    fn facts(&self) -> &Facts {
        &self.facts
    }
    /// The others go on.
    fn close(&self) -> Io<'_, ()> {
        Io::ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, layer, open};
    use disk::Range;

    #[test]
    fn the_disk_below_is_closed_once_when_the_server_ends() {
        let memory = Memory::new(vec![0; 512]);
        let layer = layer::<OpenOnce>(&[], &memory).unwrap();
        for _ in 0..3 {
            let disk = open(&layer);
            disk.read(Range::new(0, 512)).wait().unwrap();
            disk.close().wait().unwrap();
        }
        assert_eq!(memory.asked(), ["read 0 512"; 3]);
        layer.finish();
        assert_eq!(memory.asked(), ["close"]);
    }
    #[test]
    fn of_too_many_exports_one_that_nobody_uses_is_closed() {
        let memory = Memory::new(vec![0; 512]);
        let layer = layer::<OpenOnce>(&[], &memory).unwrap();
        let client = |export: String| layer.open(&Client::local(&export)).wait().unwrap();
        let used = client("used".into());
        for n in 1..MOST {
            drop(client(n.to_string()));
        }
        assert_eq!(memory.asked(), [""; 0]);
        drop(client("one more".into()));
        assert_eq!(memory.asked(), ["close"]);
        used.read(Range::new(0, 512)).wait().unwrap();
    }
}
