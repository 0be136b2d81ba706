//! Putting expressions one behind the other, or one over the other where an offset went back.

use super::node::{Made, Node, TOO_LARGE};
use params::Size;
use std::{collections::BTreeMap, sync::Arc};

/// What is at most so long, and its gaps, are written out together ...
const SMALL: u64 = 512;
/// ... until so many bytes are.
const ENOUGH: usize = 1 << 20;

/// A part of a node at its place.
#[derive(Clone)]
pub(super) struct Layer {
    pub(super) start: u64,
    /// Never 0.
    pub(super) len: u64,
    pub(super) node: Arc<Node>,
    /// Where in the node it begins.
    pub(super) from: u64,
}

impl Layer {
    pub(super) fn end(&self) -> u64 {
        self.start + self.len
    }

    /// The part from `start` up to `end`, which it has.
    fn cut(&self, start: u64, end: u64) -> Layer {
        let from = self.from + (start - self.start);
        Layer { start, len: end - start, node: self.node.clone(), from }
    }
}

/// A disk in the making.
#[derive(Default)]
pub(super) struct Layers {
    /// As long as each begins behind the end of the one before ...
    sorted: Vec<Layer>,
    /// ... and all of them by their start, since that was not so.
    mixed: Option<BTreeMap<u64, Layer>>,
    /// Where the next one goes.
    pub(super) at: u64,
    /// The furthest that anything went.
    end: u64,
}

impl Layers {
    /// Goes to a place, which is within the disk from then on.
    pub(super) fn go(&mut self, to: u64) -> Result<(), &'static str> {
        if to > Size::MAX.bytes() {
            return Err(TOO_LARGE);
        }
        self.at = to;
        self.end = self.end.max(to);
        Ok(())
    }

    /// Puts a node here, over what there is, and goes on behind it.
    pub(super) fn put(&mut self, node: Arc<Node>) -> Result<(), &'static str> {
        let (start, len) = (self.at, node.len);
        self.go(start.saturating_add(len))?;
        if len == 0 {
            return Ok(());
        }
        let layer = Layer { start, len, node, from: 0 };
        if self.mixed.is_none() {
            if self.sorted.last().is_none_or(|last| last.end() <= start) {
                self.sorted.push(layer);
                return Ok(());
            }
            self.mixed = Some(self.sorted.drain(..).map(|layer| (layer.start, layer)).collect());
        }
        if let Some(mixed) = &mut self.mixed {
            put_over(mixed, layer);
        }
        Ok(())
    }

    /// What it has become.
    pub(super) fn finish(self) -> Made {
        let all: Vec<Layer> = match self.mixed {
            Some(mixed) => mixed.into_values().collect(),
            None => self.sorted,
        };
        Node::layers(written_out(all)?, self.end)
    }
}

/// Covers what is below.
fn put_over(layers: &mut BTreeMap<u64, Layer>, layer: Layer) {
    let (start, end) = (layer.start, layer.end());
    if let Some((_, before)) = layers.range_mut(..start).next_back()
        && before.end() > start
    {
        let whole = before.clone();
        *before = whole.cut(whole.start, start);
        if whole.end() > end {
            layers.insert(end, whole.cut(end, whole.end()));
        }
    }
    while let Some((_, below)) = layers.range(start..end).next() {
        let below = below.clone();
        layers.remove(&below.start);
        if below.end() > end {
            layers.insert(end, below.cut(end, below.end()));
        }
    }
    layers.insert(start, layer);
}

/// Drops zeroes, and joins what is small with its neighbours.
fn written_out(all: Vec<Layer>) -> Result<Vec<Layer>, &'static str> {
    let mut out: Vec<Layer> = Vec::new();
    let mut bytes: Vec<u8> = Vec::new();
    let mut start = 0;
    let flush = |out: &mut Vec<Layer>, start: u64, bytes: &mut Vec<u8>| {
        let len = bytes.len() as u64;
        if len > 0 {
            let node = Node::bytes(std::mem::take(bytes))?;
            out.push(Layer { start, len, node, from: 0 });
        }
        Ok::<_, &'static str>(())
    };
    for layer in all.into_iter().filter(|layer| !layer.node.is_zero()) {
        if layer.len > SMALL {
            flush(&mut out, start, &mut bytes)?;
            out.push(layer);
            continue;
        }
        let gap = layer.start - (start + bytes.len() as u64);
        if bytes.is_empty() || gap > SMALL || bytes.len() > ENOUGH {
            flush(&mut out, start, &mut bytes)?;
            start = layer.start;
        } else {
            bytes.resize(bytes.len() + gap as usize, 0);
        }
        let filled = bytes.len();
        bytes.resize(filled + layer.len as usize, 0);
        layer.node.copy(layer.from, &mut bytes[filled..]);
    }
    flush(&mut out, start, &mut bytes)?;
    Ok(out.into_iter().filter(|layer| !layer.node.is_zero()).collect())
}
