//! Which ranges of a disk an overlay changes, or in which two overlays of one disk differ.

use anyhow::{Context, Result, bail};
use std::{
    io::{self, BufWriter, Write},
    path::Path,
    process::ExitCode,
};
use store::{
    Header,
    chain::{Chain, Found},
};

/// A range in blocks, and what is there.
pub(super) type Line = (u64, u64, &'static str);

/// Writes a line for each range.
pub(super) fn print(path: &Path, other: Option<&Path>, json: bool) -> Result<ExitCode> {
    let chain = Chain::open(path, false)?;
    let header = chain.header()?.clone();
    let mut out = Lines { out: BufWriter::new(io::stdout().lock()), json, header, last: None, count: 0 };
    ranges(&chain, other, &mut |line| out.add(line))?;
    out.end().context("writing to standard output")?;
    Ok(ExitCode::SUCCESS)
}

/// What an overlay changes, or where it differs from another, in order.
pub(super) fn ranges(
    chain: &Chain,
    other: Option<&Path>,
    each: &mut dyn FnMut(Line) -> Result<()>,
) -> Result<()> {
    match other {
        None => chain.each(|block, blocks, found| {
            each((block, blocks, if found == Found::Zero { "zero" } else { "data" }))
        }),
        Some(other) => between(chain, &Chain::open(other, false)?, each),
    }
}

/// Text, or JSON; neighbours of one kind are one range.
struct Lines<W> {
    out: W,
    json: bool,
    header: Header,
    last: Option<Line>,
    count: u64,
}

impl<W: Write> Lines<W> {
    fn add(&mut self, line: Line) -> Result<()> {
        match &mut self.last {
            Some((block, blocks, what)) if *block + *blocks == line.0 && *what == line.2 => *blocks += line.1,
            last => {
                let before = last.replace(line);
                self.write(before).context("writing to standard output")?;
            }
        }
        Ok(())
    }

    fn write(&mut self, line: Option<Line>) -> io::Result<()> {
        let Some((block, blocks, what)) = line else { return Ok(()) };
        let start = block * self.header.block;
        let len = (blocks * self.header.block).min(self.header.size - start);
        self.count += 1;
        match self.json {
            false => writeln!(self.out, "{start:10}  {len:10}  {what}"),
            true => {
                let before = if self.count > 1 { ",\n" } else { "[\n" };
                write!(self.out, "{before}{{ \"offset\": {start}, \"length\": {len}, \"type\": \"{what}\" }}")
            }
        }
    }

    fn end(&mut self) -> io::Result<()> {
        let last = self.last.take();
        self.write(last)?;
        if self.json {
            self.out.write_all(if self.count > 0 { b"\n]\n" } else { b"[\n]\n" })?;
        }
        self.out.flush()
    }
}

/// Where two overlays differ. What both have of the disk below, or of the same parent, is not read.
fn between(a: &Chain, b: &Chain, each: &mut dyn FnMut(Line) -> Result<()>) -> Result<()> {
    let (of_a, of_b) = (a.header()?, b.header()?);
    if (of_a.size, of_a.block) != (of_b.size, of_b.block) {
        bail!("they are of disks of different sizes, or have blocks of different sizes");
    }
    if !of_a.identity.is_empty() && !of_b.identity.is_empty() && of_a.identity != of_b.identity {
        bail!("the disks below are not the same: {} and {}", of_a.identity, of_b.identity);
    }
    let all = of_a.blocks();
    let mut at = 0;
    while at < all {
        let (in_a, count) = a.run(at, all - at);
        let (in_b, count) = b.run(at, count);
        match (in_a, in_b) {
            (Found::Below, Found::Below) | (Found::Zero, Found::Zero) => {}
            (Found::Layer(x), Found::Layer(y)) if a.layers[x].1.id() == b.layers[y].1.id() => {}
            (Found::Below, _) | (_, Found::Below) => each((at, count, "changed"))?,
            _ => compare((a, in_a), (b, in_b), at, count, each)?,
        }
        at += count;
    }
    Ok(())
}

/// Compares blocks that both have, each in its own way.
fn compare(
    a: (&Chain, Found),
    b: (&Chain, Found),
    start: u64,
    count: u64,
    each: &mut dyn FnMut(Line) -> Result<()>,
) -> Result<()> {
    let block = a.0.header()?.block;
    // Some at once, but not too much memory.
    let most = ((1 << 20) / block).max(1);
    let mut at = start;
    while at < start + count {
        let limit = most.min(start + count - at);
        let read = |(chain, found): (&Chain, Found), limit| -> Result<(Option<Vec<u8>>, u64)> {
            Ok(match found {
                Found::Layer(layer) => {
                    let (data, count) = chain.read(layer, at, limit)?;
                    (Some(data.to_vec()), count)
                }
                _ => (None, limit),
            })
        };
        let (of_a, limit) = read(a, limit)?;
        let (of_b, limit) = read(b, limit)?;
        for i in 0..limit {
            let part = |bytes: &Option<Vec<u8>>| {
                let bytes = bytes.as_ref()?;
                let (from, to) = ((i * block) as usize, ((i + 1) * block) as usize);
                Some(bytes[from..to.min(bytes.len())].to_vec())
            };
            let (a, b) = (part(&of_a), part(&of_b));
            let is_zero = |bytes: &Option<Vec<u8>>| bytes.as_ref().is_none_or(|b| disk::data::is_zero(b));
            let same = if a.is_some() && b.is_some() { a == b } else { is_zero(&a) && is_zero(&b) };
            if !same {
                each((at + i, 1, "changed"))?;
            }
        }
        at += limit;
    }
    Ok(())
}
