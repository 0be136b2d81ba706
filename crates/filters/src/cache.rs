//! `cache`: blocks of a slow disk in a temporary file.
//!
//! All connections to an export share one [`Cache`] and one disk below it. The blocks are divided among shards, each with a
//! lock of its own ([`blocks`]); a request locks the shards of its blocks, in order, and no others.

mod blocks;
mod layer;

use crate::on_read::OnRead;
use async_lock::Mutex;
use blocks::{Limits, Shard};
use disk::{Backend, Client, Disk, Error, Facts, Filter, Io, Result};
use layer::Layer;
use params::{Choice, ParamError, Params, Size};
use std::{collections::HashMap, sync::Arc};
use store::Store;

/// Keep blocks of a slow disk in a temporary file.
#[derive(Params)]
pub(crate) struct CacheFilter {
    /// What becomes of writes: `writeback`, they stay in the cache until a client flushes; `writethrough`, they go to the
    /// disk below at once; `unsafe`, they stay in the cache, **flushing does nothing, and they are lost when the server
    /// ends**.
    #[param(default = "writeback")]
    cache: Mode,
    /// How many bytes are kept at a time: a power of two from 4K on.
    #[param(default = "64K")]
    cache_min_block_size: Size,
    /// How large the cache may become. Without it, as large as the disk.
    cache_max_size: Option<Size>,
    /// When so many percent of that are used, blocks are given up, those first that were not used for the longest time.
    #[param(default = "95")]
    cache_high_threshold: u32,
    /// Until no more than so many percent are used.
    #[param(default = "80")]
    cache_low_threshold: u32,
    /// Whether what clients read is kept, too: never, always, or while the file with this absolute path exists.
    #[param(default = "false")]
    cache_on_read: OnRead,
}

#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    #[choice(name = "writeback")]
    WriteBack,
    #[choice(name = "writethrough")]
    WriteThrough,
    Unsafe,
}

impl Filter for CacheFilter {
    const NAME: &'static str = "cache";
    const MANUAL: &'static str = include_str!("cache.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        let block = self.cache_min_block_size;
        if !block.bytes().is_power_of_two() || !(4096..=1 << 30).contains(&block.bytes()) {
            return Err(ParamError::bad(
                "cache-min-block-size",
                block.to_string(),
                "not a power of two from 4K to 1G",
            )
            .into());
        }
        let (high, low) = (self.cache_high_threshold, self.cache_low_threshold);
        if low == 0 || low >= high || high > 100 {
            return Err(Error::invalid(format!(
                "cache-low-threshold={low} cache-high-threshold={high}: the lower must be above 0 and below the higher, and that at most 100"
            )));
        }
        if let Some(size) = self.cache_max_size
            && size.bytes() < 2 * block.bytes()
        {
            let why = format!("less than two blocks of cache-min-block-size={block}");
            return Err(ParamError::bad("cache-max-size", size.to_string(), why).into());
        }
        Ok(Caching { params: Arc::new(self), store: Arc::new(Store::new()), caches: Mutex::default(), next })
    }
}

struct Caching {
    params: Arc<CacheFilter>,
    store: Arc<Store>,
    /// By export; they live as long as the server.
    caches: Mutex<HashMap<String, Arc<Cache>>>,
    next: Arc<dyn Backend>,
}

impl Caching {
    /// The cache of an export, over a disk below that this client may use.
    async fn cache(&self, client: &Client<'_>) -> Result<Arc<Cache>> {
        let mut export = client.export.to_owned();
        if export.is_empty()
            && let Some(default) = self.next.default_export(client).await?
        {
            export = default;
        }
        // Held while the disk is opened: the next client waits for that.
        let mut caches = self.caches.lock().await;
        if let Some(cache) = caches.get(&export)
            && (cache.may_write || client.read_only)
        {
            return Ok(cache.clone());
        }
        let base = self.next.open(client).await?;
        self.store.open()?;
        let cache = match caches.remove(&export) {
            // Those before could only read: nothing of theirs is dirty.
            Some(reading) => {
                let closed = reading.base.close().await;
                closed.map(|()| Cache::new(&self.params, base, !client.read_only, self.store.clone()))??
            }
            None => Cache::new(&self.params, base, !client.read_only, self.store.clone())?,
        };
        let cache = Arc::new(cache);
        caches.insert(export, cache.clone());
        Ok(cache)
    }
}

impl Backend for Caching {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        Io::later(async move {
            let cache = self.cache(client).await?;
            let facts = cache.facts.clone();
            let facts = if client.read_only { facts.without_write() } else { facts };
            Ok(Arc::new(Layer { facts, cache }) as Arc<dyn Disk>)
        })
    }
    fn get_ready(&self) -> Result<()> {
        self.next.get_ready()?;
        // Better now than at the first client.
        self.store.open().map(drop)
    }
    fn finish(&self) {
        for (export, cache) in std::mem::take(&mut *self.caches.lock_blocking()) {
            let end = reactor::block_on(async {
                if cache.mode == Mode::WriteBack {
                    cache.flush().await?;
                }
                cache.base.close().await
            });
            if let Err(e) = end {
                tracing::error!(target: "diskpipe", "cache: writing export {export:?} back at the end: {e}");
            }
        }
        self.next.finish();
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

/// What is kept of one export.
struct Cache {
    /// As clients see the disk.
    facts: Facts,
    mode: Mode,
    on_read: OnRead,
    /// Bytes of a block: a power of two.
    block: u64,
    /// What lies beyond the last whole minimum block of the disk below cannot be asked for.
    end: u64,
    may_write: bool,
    base: Arc<dyn Disk>,
    store: Arc<Store>,
    shards: Box<[Arc<Mutex<Shard>>]>,
    limits: Limits,
    /// Flushes wait for each other: each must see that what was dirty has been written.
    flushing: Mutex<()>,
}

/// More shards let more requests pass beside each other.
const MOST_SHARDS: u64 = 1024;
/// In a limited cache, a shard has room for so many blocks: with few shards, the oldest blocks are found better.
const SHARD_BLOCKS: u64 = 64;

impl Cache {
    fn new(params: &CacheFilter, base: Arc<dyn Disk>, may_write: bool, store: Arc<Store>) -> Result<Cache> {
        let below = base.facts();
        let block = params.cache_min_block_size.bytes().max(below.blocks.minimum.into());
        let may_write = may_write && below.write;
        let mode = match params.cache {
            // Nobody would ever say when to write back.
            Mode::WriteBack if !below.flush => Mode::WriteThrough,
            mode => mode,
        };
        let flush = below.flush || (below.write && mode == Mode::Unsafe);
        let facts = Facts {
            flush,
            fua: below.write && flush,
            cache: true,
            // All share the cache, and the disk below it.
            multi_conn: true,
            // They speak of the disk below, not of what has been written since.
            contexts: Arc::new([]),
            ..below.clone()
        };
        let end = below.size - below.size % u64::from(below.blocks.minimum);
        let most = params.cache_max_size.map(|size| size.bytes() / block);
        let shards = most.map_or(MOST_SHARDS, |most| (most / SHARD_BLOCKS).clamp(1, MOST_SHARDS));
        let percent = |percent: u32| most.map(|most| (most / shards * u64::from(percent) / 100).max(1));
        let limits =
            Limits { high: percent(params.cache_high_threshold), low: percent(params.cache_low_threshold) };
        let shards = (0..shards).map(|_| Arc::default()).collect();
        let on_read = params.cache_on_read.clone();
        let flushing = Mutex::default();
        Ok(Cache { facts, mode, on_read, block, end, may_write, base, store, shards, limits, flushing })
    }
}

#[cfg(test)]
mod tests;
