//! Writes what an overlay changes to the disk below it, and empties the overlay.
//!
//! It can be stopped at any moment and begun again: until all is stable on the disk, the overlay still has it, and what
//! was written already is written once more. Before the first write the overlay forgets which disk it was made for, since that is
//! about to become another.

use crate::command_line::{Word, is_uri};
use anyhow::{Context, Result, bail, ensure};
use disk::{Client, Data, Disk, Range, WriteFlags, ZeroFlags};
use reactor::InFlight;
use std::{path::Path, sync::Arc};
use store::chain::{Chain, Found};

/// So much is read and written at once, in bytes, and so often.
const PIECE: u64 = 1 << 20;
const AT_ONCE: usize = 8;

/// Commits, and says what was done.
pub(super) fn commit(path: &Path, target: &Word, force: bool) -> Result<String> {
    let mut chain = Chain::open(path, true)?;
    let header = chain.header()?.clone();
    if let Some((parent, _)) = chain.layers.get(1)
        && !force
    {
        bail!(
            "{}: it stands on {}; what else stands on that would not fit the disk any more; --force commits all the same",
            path.display(),
            parent.display()
        );
    }
    let disk = open(target)?;
    let facts = disk.facts();
    ensure!(facts.write, "{target}: it cannot be written");
    ensure!(
        facts.size == header.size,
        "{target}: it has {} bytes, but the overlay is of a disk of {}",
        facts.size,
        header.size
    );
    let minimum = u64::from(facts.blocks.minimum);
    ensure!(minimum <= header.block, "{target}: it takes no less than {minimum} bytes at once");
    if let Some(now) = facts.identity.as_deref()
        && !header.identity.is_empty()
        && now != header.identity
        && !force
    {
        bail!("{target}: it was {}, and is {now}; --force commits all the same", header.identity);
    }
    chain.layers[0].1.set_identity("")?;
    let (data, zeroes) = reactor::block_on(write(&chain, &*disk)).with_context(|| target.to_string())?;
    if facts.flush {
        disk.flush().wait().with_context(|| format!("{target}: flushing"))?;
    }
    disk.close().wait().with_context(|| target.to_string())?;
    drop(disk);
    // As it is from now on; servers do not say.
    let identity = match target {
        Word::Plain(path) if !is_uri(path) => open(target)?.facts().identity.clone(),
        _ => None,
    };
    let identity = identity.unwrap_or_default();
    let (_, overlay) = chain.layers.swap_remove(0);
    overlay.clear(&identity)?;
    Ok(format!(
        "{data} bytes of data and {zeroes} of zeroes are written to {target}, and {} is empty\n",
        path.display()
    ))
}

/// A server, or a file or block device that is there already.
fn open(target: &Word) -> Result<Arc<dyn Disk>> {
    match target {
        Word::Plain(path) if !is_uri(path) => {
            let path = path.to_str().with_context(|| format!("{target}: the name is not UTF-8"))?;
            let plugin = plugins::find("file").context("the plugin file is not in this build")?;
            let path = std::path::absolute(path)?.display().to_string();
            let mut args =
                params::Args::from_cli(&[format!("file={path}")], None).map_err(disk::Error::from)?;
            let backend = plugin.start(&mut args)?;
            Ok(backend.open(&Client::local("")).wait()?)
        }
        server => {
            let mut connector = server.connector()?;
            connector.options.extended_headers = true;
            Ok(Arc::new(connector.open().with_context(|| target.to_string())?))
        }
    }
}

/// Writes all that is above the disk below. Returns how many bytes are data, and how many zeroes.
async fn write(chain: &Chain, disk: &dyn Disk) -> Result<(u64, u64)> {
    let header = chain.header()?.clone();
    // What lies beyond the last whole minimum block cannot be written, and never was.
    let end = header.size - header.size % u64::from(disk.facts().blocks.minimum);
    let bytes = |block: u64, blocks: u64| {
        let start = block * header.block;
        Range::new(start, (blocks * header.block).min(end.saturating_sub(start)))
    };
    let mut runs = Vec::new();
    chain.each(|block, blocks, found| {
        runs.push((block, blocks, found));
        Ok::<_, anyhow::Error>(())
    })?;
    let (mut data, mut zeroes) = (0, 0);
    let mut under_way = InFlight::new();
    for (block, blocks, found) in runs {
        let mut at = block;
        while at < block + blocks {
            let rest = block + blocks - at;
            let piece = (PIECE / header.block).max(1).min(rest);
            let (request, count) = match found {
                Found::Layer(layer) => {
                    let (bytes_here, count) = chain.read(layer, at, piece)?;
                    let range = bytes(at, count);
                    data += range.len;
                    let bytes_here = bytes_here.slice(0, range.len);
                    (disk.write(range.start, bytes_here, WriteFlags::default()), count)
                }
                _ if disk.facts().zero => {
                    // As much as one request may ask for.
                    let count = ((1 << 30) / header.block).max(1).min(rest);
                    let range = bytes(at, count);
                    zeroes += range.len;
                    let flags = ZeroFlags { may_trim: true, ..ZeroFlags::default() };
                    (disk.zero(range, flags), count)
                }
                _ => {
                    let range = bytes(at, piece);
                    zeroes += range.len;
                    (disk.write(range.start, Data::zeroes(range.len), WriteFlags::default()), piece)
                }
            };
            under_way.push(request);
            if under_way.len() >= AT_ONCE
                && let Some(done) = under_way.next().await
            {
                done?;
            }
            at += count;
        }
    }
    while let Some(done) = under_way.next().await {
        done?;
    }
    Ok((data, zeroes))
}
