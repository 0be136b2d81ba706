//! What several metadata contexts say of an export, side by side: a part ends where one of them says something else.

use crate::info::{json, map::Map};
use disk::Range;
use std::collections::BTreeMap;

/// Several maps of the same part of an export.
pub(crate) struct Beside {
    maps: Vec<Map>,
    /// What each of them says.
    parts: Vec<(Range, Vec<u64>)>,
}

impl Beside {
    /// Puts maps of the same part of an export together.
    pub(crate) fn of(maps: Vec<Map>) -> Beside {
        let mut parts = Vec::new();
        let mut rest: Vec<_> = maps.iter().map(|map| map.parts().iter().peekable()).collect();
        // A server may have answered for less, or an export have shrunk in between: it ends where the first of them does.
        while let Some(now) = rest.iter_mut().map(|parts| parts.peek().copied()).collect::<Option<Vec<_>>>() {
            let Some(end) = now.iter().map(|(range, _)| range.end()).min() else { break };
            let start = parts.last().map_or(now[0].0.start, |(range, _): &(Range, _)| range.end());
            parts.push((Range::new(start, end - start), now.iter().map(|(_, value)| *value).collect()));
            for parts in &mut rest {
                parts.next_if(|(range, _)| range.end() == end);
            }
        }
        Beside { maps, parts }
    }

    /// One line for each part, one column for each context.
    pub(crate) fn text(&self, colours: bool) -> String {
        let rows = self.parts.iter().map(|(range, values)| {
            (format!("{:10}  {:10}", range.start, range.len), values) //
        });
        self.columns(rows.collect(), colours)
    }

    /// The parts as JSON.
    pub(crate) fn json(&self) -> String {
        json::list(self.parts.iter().map(|(range, values)| {
            format!(
                "{{ \"offset\": {}, \"length\": {}, \"contexts\": {} }}",
                range.start,
                range.len,
                self.said(values)
            )
        }))
    }

    /// Bytes and hundredths of the whole, for each combination.
    fn sums(&self) -> Vec<(&Vec<u64>, u64, f64)> {
        let mut sums = BTreeMap::new();
        self.parts.iter().for_each(|(range, values)| *sums.entry(values).or_insert(0u64) += range.len);
        let whole: u64 = sums.values().sum();
        let percent = |bytes| 100.0 * bytes as f64 / whole as f64;
        sums.into_iter().map(|(values, bytes)| (values, bytes, percent(bytes))).collect()
    }

    /// One line for each combination.
    pub(crate) fn totals_text(&self, colours: bool) -> String {
        let sums = self.sums();
        let rows =
            sums.iter().map(|(values, bytes, percent)| (format!("{bytes:10} {percent:5.1}%"), *values));
        self.columns(rows.collect(), colours)
    }

    /// The sums as JSON.
    pub(crate) fn totals_json(&self) -> String {
        json::list(self.sums().into_iter().map(|(values, bytes, percent)| {
            let percent = json::number(percent);
            format!("{{ \"size\": {bytes}, \"percent\": {percent}, \"contexts\": {} }}", self.said(values))
        }))
    }

    /// What each context says, under its name.
    fn said(&self, values: &[u64]) -> String {
        let said = self.maps.iter().zip(values).map(|(map, value)| {
            format!("{}: {{ \"type\": {value}{} }}", json::quote(map.context()), map.json_words(*value))
        });
        format!("{{ {} }}", said.collect::<Vec<_>>().join(", "))
    }

    fn columns(&self, rows: Vec<(String, &Vec<u64>)>, colours: bool) -> String {
        let mut lines: Vec<String> = rows.iter().map(|(numbers, _)| numbers.clone()).collect();
        for (column, map) in self.maps.iter().enumerate() {
            let cells: Vec<String> = rows
                .iter()
                .map(|(_, values)| format!("{:3}  {}", values[column], map.words(values[column])))
                .collect();
            let last = column + 1 == self.maps.len();
            let width = cells.iter().map(|cell| cell.chars().count()).max().filter(|_| !last).unwrap_or(0);
            for ((line, cell), (_, values)) in lines.iter_mut().zip(cells).zip(&rows) {
                let cell = if last { cell.trim_end().to_owned() } else { format!("{cell:width$}") };
                *line += &format!("  {}", map.paint(values[column]).on(&cell, colours));
            }
        }
        lines.into_iter().map(|line| line + "\n").collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> Beside {
        let data = Map::made("base:allocation", &[(4096, 0), (8192, 3)]);
        let dirty = Map::made("qemu:dirty-bitmap:b", &[(8192, 1), (4096, 0)]);
        Beside::of(vec![data, dirty])
    }

    #[test]
    fn a_part_ends_where_one_of_them_does() {
        let lines = [
            "         0        4096    0  data         1  dirty\n",
            "      4096        4096    3  hole,zero    1  dirty\n",
            "      8192        4096    3  hole,zero    0  clean\n",
        ];
        assert_eq!(both().text(false), lines.concat());
        let json = both().json();
        let second = "{ \"offset\": 4096, \"length\": 4096, \"contexts\": { \"base:allocation\": { \"type\": 3, \
                      \"description\": \"hole,zero\" }, \"qemu:dirty-bitmap:b\": { \"type\": 1, \"description\": \"dirty\" } } }";
        assert!(json.contains(second), "{json}");
    }

    #[test]
    fn sums_are_those_of_combinations() {
        let text = both().totals_text(false);
        assert_eq!(text.lines().next(), Some("      4096  33.3%    0  data         1  dirty"), "{text}");
        assert_eq!(text.lines().count(), 3);
        assert!(
            both().totals_json().contains("{ \"size\": 4096, \"percent\": 33.3333, "),
            "{}",
            both().totals_json()
        );
    }

    #[test]
    fn the_shorter_map_ends_it() {
        let short = Map::made("x:y", &[(100, 7)]);
        let long = Map::made("x:z", &[(50, 1), (100, 2)]);
        let beside = Beside::of(vec![short, long]);
        assert_eq!(beside.parts, [(Range::new(0, 50), vec![7, 1]), (Range::new(50, 50), vec![7, 2])]);
        assert_eq!(Beside::of(vec![Map::made("x:y", &[])]).json(), "[]\n");
    }
}
