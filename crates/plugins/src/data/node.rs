//! What a program means: a tree that knows the bytes of any place without holding those that repeat.

use super::layers::Layer;
use params::Size;
use std::sync::Arc;

/// Shorter holes are not worth a word: clients hear of holes in multiples of this.
pub(super) const GRANULE: u64 = 32 << 10;
/// Up to here bytes are simply written out.
const SMALL: u64 = 4096;
/// A repeated unit up to this size is written out until it fills a tile ...
const SMALL_UNIT: u64 = 8 << 10;
/// ... of about this size: it is copied from within the processor's cache.
const TILE: u64 = 16 << 10;
/// Trees may be so high: reading goes down by recursion.
const MAX_DEPTH: u16 = 300;

/// Bytes that never change.
pub(super) struct Node {
    /// In bytes, at most a disk's.
    pub(super) len: u64,
    depth: u16,
    /// Some part of it is known to be zero, and not short.
    has_holes: bool,
    what: What,
}

enum What {
    Zeroes,
    Fill(u8),
    Bytes(Box<[u8]>),
    /// These bytes over and over.
    Tile(Box<[u8]>),
    /// The node over and over.
    Repeat(Arc<Node>),
    /// The node from this byte on.
    Part(Arc<Node>, u64),
    /// In order, not overlapping; zeroes between.
    Layers(Box<[Layer]>),
}

/// A node, or why there is none.
pub(super) type Made = Result<Arc<Node>, &'static str>;

pub(super) const TOO_LARGE: &str = "this is larger than a disk can be";
const TOO_DEEP: &str = "this is nested too deep";

impl Node {
    fn new(len: u64, depth: u16, has_holes: bool, what: What) -> Made {
        if len > Size::MAX.bytes() {
            return Err(TOO_LARGE);
        }
        if depth > MAX_DEPTH {
            return Err(TOO_DEEP);
        }
        let node = Node { len, depth, has_holes, what };
        if len <= SMALL && depth > 0 && !node.is_zero() {
            let mut bytes = vec![0; len as usize];
            node.copy(0, &mut bytes);
            return Node::bytes(bytes);
        }
        Ok(Arc::new(node))
    }

    pub(super) fn zeroes(len: u64) -> Made {
        Node::new(len, 0, true, What::Zeroes)
    }

    pub(super) fn fill(byte: u8, len: u64) -> Made {
        if byte == 0 { Node::zeroes(len) } else { Node::new(len, 0, false, What::Fill(byte)) }
    }

    pub(super) fn bytes(bytes: Vec<u8>) -> Made {
        let len = bytes.len() as u64;
        if disk::data::is_zero(&bytes) {
            return Node::zeroes(len);
        }
        Node::new(len, 0, false, What::Bytes(bytes.into()))
    }

    /// `of`, so many times.
    pub(super) fn repeat(of: &Arc<Node>, count: u64) -> Made {
        let len = of.len.checked_mul(count).ok_or(TOO_LARGE)?;
        match &of.what {
            _ if count == 1 => Ok(of.clone()),
            _ if len == 0 => Node::zeroes(0),
            What::Zeroes => Node::zeroes(len),
            What::Fill(byte) => Node::fill(*byte, len),
            What::Tile(tile) => Node::new(len, 0, false, What::Tile(tile.clone())),
            _ if of.len <= SMALL_UNIT => {
                let mut unit = vec![0; of.len as usize];
                of.copy(0, &mut unit);
                if len <= SMALL {
                    return Node::bytes(unit.repeat(count as usize));
                }
                let times = (TILE / of.len).clamp(1, count);
                Node::new(len, 0, false, What::Tile(unit.repeat(times as usize).into()))
            }
            _ => Node::new(len, of.depth + 1, of.has_holes, What::Repeat(of.clone())),
        }
    }

    /// `len` bytes of `of` from byte `from` on, which it has.
    pub(super) fn part(of: &Arc<Node>, from: u64, len: u64) -> Made {
        match &of.what {
            _ if len == of.len => Ok(of.clone()),
            What::Zeroes => Node::zeroes(len),
            What::Fill(byte) => Node::fill(*byte, len),
            What::Part(inner, before) => Node::part(inner, before + from, len),
            _ => Node::new(len, of.depth + 1, of.has_holes, What::Part(of.clone(), from)),
        }
    }

    /// Layers that are sorted and do not overlap, within `len` bytes.
    pub(super) fn layers(list: Vec<Layer>, len: u64) -> Made {
        let depth = list.iter().map(|layer| layer.node.depth + 1).max().unwrap_or(0);
        let end = list.last().map_or(0, Layer::end);
        let first = list.first().map_or(0, |first| first.start);
        let gaps = list.windows(2).map(|pair| pair[1].start - pair[0].end());
        let gaps = gaps.chain([first, len - end]).any(|gap| gap >= GRANULE);
        let has_holes = gaps || list.iter().any(|layer| layer.node.has_holes);
        if list.is_empty() {
            return Node::zeroes(len);
        }
        if let [one] = &list[..]
            && (one.len, one.from, one.node.len) == (len, 0, len)
        {
            return Ok(one.node.clone());
        }
        Node::new(len, depth, has_holes, What::Layers(list.into()))
    }

    /// Whether it is known to hold zeroes only.
    pub(super) fn is_zero(&self) -> bool {
        matches!(self.what, What::Zeroes)
    }

    /// Fills `into` from byte `at` on; both ends lie within.
    pub(super) fn copy(&self, at: u64, into: &mut [u8]) {
        match &self.what {
            What::Zeroes => into.fill(0),
            What::Fill(byte) => into.fill(*byte),
            What::Bytes(bytes) => into.copy_from_slice(&bytes[at as usize..][..into.len()]),
            What::Tile(tile) => over_and_over(at, tile.len() as u64, into, |at, into| {
                into.copy_from_slice(&tile[at as usize..][..into.len()]);
            }),
            What::Repeat(of) => over_and_over(at, of.len, into, |at, into| of.copy(at, into)),
            What::Part(of, from) => of.copy(from + at, into),
            What::Layers(list) => copy_layers(list, at, into),
        }
    }

    /// Whether byte `at` is known to be zero, and for how many bytes (`most` or fewer) the same holds. What follows
    /// may be alike.
    pub(super) fn run(&self, at: u64, most: u64) -> (bool, u64) {
        let left = (self.len - at).min(most);
        match &self.what {
            What::Zeroes => (true, left),
            _ if !self.has_holes => (false, left),
            What::Repeat(of) => of.run(at % of.len, left),
            What::Part(of, from) => of.run(from + at, left),
            What::Layers(list) => {
                let next = list.partition_point(|layer| layer.end() <= at);
                match list.get(next) {
                    Some(layer) if layer.start <= at => {
                        let within = at - layer.start;
                        layer.node.run(layer.from + within, left.min(layer.len - within))
                    }
                    Some(layer) => (true, left.min(layer.start - at)),
                    None => (true, left),
                }
            }
            What::Fill(_) | What::Bytes(_) | What::Tile(_) => (false, left),
        }
    }
}

/// Fills `into` with what begins anew every `period` bytes.
fn over_and_over(at: u64, period: u64, into: &mut [u8], copy: impl Fn(u64, &mut [u8])) {
    let (mut at, mut rest) = (at % period, into);
    while !rest.is_empty() {
        let now = (period - at).min(rest.len() as u64) as usize;
        let (part, later) = rest.split_at_mut(now);
        copy(at, part);
        (at, rest) = (0, later);
    }
}

fn copy_layers(list: &[Layer], at: u64, into: &mut [u8]) {
    let (mut at, end) = (at, at + into.len() as u64);
    let mut rest = into;
    let first = list.partition_point(|layer| layer.end() <= at);
    for layer in &list[first..] {
        if layer.start >= end {
            break;
        }
        let gap = layer.start.saturating_sub(at);
        let (zeroes, later) = rest.split_at_mut(gap as usize);
        zeroes.fill(0);
        at += gap;
        let within = at - layer.start;
        let now = (layer.len - within).min(later.len() as u64);
        let (part, later) = later.split_at_mut(now as usize);
        layer.node.copy(layer.from + within, part);
        at += now;
        rest = later;
    }
    rest.fill(0);
}
