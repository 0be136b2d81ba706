//! What a metadata context says of an export, part by part or summed up.

use crate::{
    info::{color::Paint, json, server::Server},
    walk,
};
use anyhow::{Context, Result, bail, ensure};
use client::{
    RemoteDisk,
    proto::meta_context::{BASE_ALLOCATION, QEMU_ALLOCATION_DEPTH, QEMU_DIRTY_BITMAP, describe},
};
use disk::{Disk, Range};
use std::collections::BTreeMap;

/// Extents asked for at once.
const LIMIT: usize = 64 << 10;

/// The map of one context, neighbours of one kind joined.
pub(crate) struct Map {
    context: String,
    parts: Vec<(Range, u64)>,
}

impl Map {
    /// Asks the server for `length` bytes from `offset` on, or as many as there are.
    ///
    /// # Errors
    /// The server cannot be reached, refuses the export, or does not have the context; or the export ends before `offset`.
    pub(crate) fn of(server: &Server, context: &str, offset: u64, length: u64) -> Result<Map> {
        let mut connector = server.connector.clone();
        connector.options.extended_headers = true;
        connector.options.contexts = vec![context.to_string()];
        let disk = connector.open()?;
        let mut map = Map { context: context.to_string(), parts: Vec::new() };
        let index = disk.facts().contexts.iter().position(|name| **name == *context);
        if index.is_none() && !(context == BASE_ALLOCATION && disk.facts().extents) {
            bail!("the server does not have the metadata context “{context}”");
        }
        let size = disk.size();
        ensure!(offset <= size, "--offset={offset} is behind the end of the export, which has {size} bytes");
        let end = offset + length.min(size - offset);
        // Asked in whole blocks; of the first and the last, only what is in the part counts.
        let block = u64::from(disk.facts().blocks.minimum).max(1);
        let (mut at, last) = (offset - offset % block, end.next_multiple_of(block).min(size));
        while at < end {
            let rest = Range::new(at, last - at);
            let parts = ask(&disk, index, rest).with_context(|| format!("asking for the map at {at}"))?;
            for (len, value) in parts {
                // The last part may go beyond what was asked for.
                let (start, next) = (at.max(offset), at.saturating_add(len).min(last));
                map.push(Range::new(start, next.min(end).saturating_sub(start)), value);
                at = next;
            }
        }
        Ok(map)
    }

    /// The name of the context.
    pub(crate) fn context(&self) -> &str {
        &self.context
    }

    /// Where it says what.
    pub(crate) fn parts(&self) -> &[(Range, u64)] {
        &self.parts
    }

    fn push(&mut self, range: Range, value: u64) {
        match self.parts.last_mut() {
            _ if range.is_empty() => {}
            Some((last, same)) if *same == value => last.len += range.len,
            _ => self.parts.push((range, value)),
        }
    }

    /// One line for each part.
    pub(crate) fn text(&self, colours: bool) -> String {
        self.parts
            .iter()
            .map(|(range, value)| {
                let line = format!("{:10}  {:10}  {value:3}", range.start, range.len);
                self.line(line, "  ", *value, colours)
            })
            .collect()
    }

    /// The parts as JSON.
    pub(crate) fn json(&self) -> String {
        let parts: Vec<String> = self
            .parts
            .iter()
            .map(|(range, value)| {
                let words = self.json_words(*value);
                format!(
                    "{{ \"offset\": {}, \"length\": {}, \"type\": {value}{words}}}",
                    range.start, range.len
                )
            })
            .collect();
        format!("[\n{}\n]\n", parts.join(",\n"))
    }

    /// Bytes and hundredths of the whole, for each kind.
    fn sums(&self) -> Vec<(u64, u64, f64)> {
        let mut sums = BTreeMap::new();
        self.parts.iter().for_each(|(range, value)| *sums.entry(*value).or_insert(0u64) += range.len);
        let whole: u64 = sums.values().sum();
        sums.into_iter().map(|(value, bytes)| (value, bytes, 100.0 * bytes as f64 / whole as f64)).collect()
    }

    /// One line for each kind.
    pub(crate) fn totals_text(&self, colours: bool) -> String {
        let line = |(value, bytes, percent)| {
            self.line(format!("{bytes:10} {percent:5.1}% {value:3}"), " ", value, colours) //
        };
        self.sums().into_iter().map(line).collect()
    }

    /// The sums as JSON.
    pub(crate) fn totals_json(&self) -> String {
        json::list(self.sums().into_iter().map(|(value, bytes, percent)| {
            let (percent, words) = (json::number(percent), self.json_words(value));
            format!("{{ \"size\": {bytes}, \"percent\": {percent}, \"type\": {value}{words} }}")
        }))
    }

    /// What a value means, if that is known.
    pub(crate) fn words(&self, value: u64) -> String {
        describe(&self.context, value).unwrap_or_default()
    }

    pub(crate) fn json_words(&self, value: u64) -> String {
        let words = describe(&self.context, value);
        words.map_or_else(String::new, |words| format!(", \"description\": {}", json::quote(&words)))
    }

    fn line(&self, numbers: String, gap: &str, value: u64, colours: bool) -> String {
        let line = match describe(&self.context, value) {
            Some(words) => format!("{numbers}{gap}{words}"),
            None => numbers,
        };
        self.paint(value).on(&line, colours) + "\n"
    }

    pub(crate) fn paint(&self, value: u64) -> Paint {
        match (self.context.as_str(), value) {
            (BASE_ALLOCATION, 0) => Paint::Bold,
            (QEMU_ALLOCATION_DEPTH, 0) => Paint::Plain,
            (QEMU_ALLOCATION_DEPTH, 1) => Paint::Inverse,
            (QEMU_ALLOCATION_DEPTH, _) => Paint::Shaded,
            (name, 0) if name.starts_with(QEMU_DIRTY_BITMAP) => Paint::Green,
            (name, _) if name.starts_with(QEMU_DIRTY_BITMAP) => Paint::Red,
            _ => Paint::Plain,
        }
    }
}

/// Lengths and values from the start of a range on.
fn ask(disk: &RemoteDisk, index: Option<usize>, range: Range) -> disk::Result<Vec<(u64, u64)>> {
    Ok(match index {
        Some(index) => {
            let list = disk.status(index, range, LIMIT).wait()?;
            list.into_iter().map(|status| (status.len, status.value)).collect()
        }
        None => {
            let extents = disk.extents(range, LIMIT).wait()?;
            extents.iter().map(|extent| (extent.len, walk::state(extent.kind))).collect()
        }
    })
}

#[cfg(test)]
impl Map {
    /// A map of parts one after the other.
    pub(crate) fn made(context: &str, parts: &[(u64, u64)]) -> Map {
        let mut map = Map { context: context.into(), parts: vec![] };
        let mut at = 0;
        for (len, value) in parts {
            map.push(Range::new(at, *len), *value);
            at += len;
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(context: &str, parts: &[(u64, u64)]) -> Map {
        Map::made(context, parts)
    }

    #[test]
    fn neighbours_are_joined_and_shown_in_columns() {
        let map = map(BASE_ALLOCATION, &[(4096, 0), (0, 3), (4096, 0), (1 << 40, 3)]);
        assert_eq!(
            map.text(false),
            "         0        8192    0  data\n      8192  1099511627776    3  hole,zero\n"
        );
        assert_eq!(
            map.json(),
            "[\n{ \"offset\": 0, \"length\": 8192, \"type\": 0, \"description\": \"data\"},\n\
             { \"offset\": 8192, \"length\": 1099511627776, \"type\": 3, \"description\": \"hole,zero\"}\n]\n"
        );
    }

    #[test]
    fn totals_are_sorted_by_kind() {
        let map = map(BASE_ALLOCATION, &[(983_040, 3), (65536, 0)]);
        assert_eq!(map.totals_text(false), "     65536   6.2%   0 data\n    983040  93.8%   3 hole,zero\n");
        assert!(
            map.totals_json()
                .contains("{ \"size\": 65536, \"percent\": 6.25, \"type\": 0, \"description\": \"data\" }")
        );
    }

    #[test]
    fn an_empty_map_says_nothing() {
        let map = map(BASE_ALLOCATION, &[]);
        assert_eq!((map.text(false), map.totals_text(true)), (String::new(), String::new()));
        assert_eq!((map.json(), map.totals_json()), ("[\n\n]\n".into(), "[]\n".into()));
    }

    #[test]
    fn an_unknown_context_has_numbers_only() {
        assert_eq!(map("x:y", &[(10, 7)]).text(true), "         0          10    7\n");
    }
}
