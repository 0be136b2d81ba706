//! Disks as pictures: each cell is an equal part of the disk, in a terminal or as SVG.

use crate::{
    diff::compare::{Side, compare},
    size::human,
    walk::Walk,
};
use anyhow::Result;
use disk::{Disk, Range};

/// What a part of a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// Behind the end.
    Nothing,
    Hole,
    Zero,
    Data,
    Changed,
}

impl Class {
    const ALL: [Class; 5] = [Class::Nothing, Class::Hole, Class::Zero, Class::Data, Class::Changed];

    fn word(self) -> &'static str {
        match self {
            Class::Nothing => "",
            Class::Hole => "hole",
            Class::Zero => "zero",
            Class::Data => "data",
            Class::Changed => "changed",
        }
    }

    /// In a terminal: a character and a colour.
    fn terminal(self) -> (char, &'static str) {
        match self {
            Class::Nothing => (' ', ""),
            Class::Hole => ('·', "\x1b[90m"),
            Class::Zero => ('░', "\x1b[36m"),
            Class::Data => ('█', "\x1b[34m"),
            Class::Changed => ('▓', "\x1b[31m"),
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Class::Nothing => "none",
            Class::Hole => "#e8e8e8",
            Class::Zero => "#9fd3d6",
            Class::Data => "#33608c",
            Class::Changed => "#d1495b",
        }
    }
}

/// One disk: its name, and what its parts are.
pub(crate) struct Strip {
    name: String,
    size: u64,
    parts: Vec<(Range, Class)>,
    marks: Vec<(Range, Class)>,
}

impl Strip {
    /// A disk, as it describes itself.
    ///
    /// # Errors
    /// It failed.
    pub(crate) fn of(disk: &dyn Disk, name: &str) -> Result<Strip> {
        let size = disk.facts().size;
        let mut strip = Strip { name: name.to_owned(), size, parts: vec![], marks: vec![] };
        let mut walk = Walk::new(disk, name);
        let mut at = 0;
        while at < size {
            let (range, kind) = walk.at(at)?;
            let class = match (kind.hole, kind.zero) {
                (true, true) => Class::Hole,
                (false, true) => Class::Zero,
                _ => Class::Data,
            };
            strip.parts.push((range, class));
            at = range.end();
        }
        Ok(strip)
    }

    /// A part is something else on top of that. Marks come in order.
    fn mark(&mut self, range: Range, class: Class) {
        if let Some(range) = range.intersect(Range::new(0, self.size)) {
            self.marks.push((range, class));
        }
    }

    /// The highest class in each of `count` parts of `step` bytes. So the smallest change is seen.
    fn cells(&self, count: u64, step: u64) -> Vec<Class> {
        let mut cells = vec![Class::Nothing; count as usize];
        for (range, class) in self.parts.iter().chain(&self.marks) {
            let (first, last) = (range.start / step, (range.end() - 1) / step);
            for cell in &mut cells[first as usize..=last as usize] {
                *cell = (*cell).max(*class);
            }
        }
        cells
    }
}

/// One disk, or two side by side.
pub(crate) struct Picture {
    strips: Vec<Strip>,
}

/// Cells in a line of the terminal, over all disks.
const WIDTH: u64 = 64;
/// Lines.
const HEIGHT: u64 = 24;

impl Picture {
    pub(crate) fn new(strips: Vec<Strip>) -> Picture {
        Picture { strips }
    }

    /// Two disks side by side, with the blocks in which they differ marked in both; and whether there are none.
    ///
    /// # Errors
    /// A disk failed.
    pub(crate) fn beside(a: &Side<'_>, b: &Side<'_>, block: u64) -> Result<(Picture, bool)> {
        let mut strips = [Strip::of(a.disk, a.name)?, Strip::of(b.disk, b.name)?];
        let mut same = true;
        compare(a, b, block, &mut |range, _| {
            same = false;
            strips.iter_mut().for_each(|strip| strip.mark(range, Class::Changed));
            true
        })?;
        Ok((Picture::new(strips.into()), same))
    }

    fn whole(&self) -> u64 {
        self.strips.iter().map(|strip| strip.size).max().unwrap_or(0)
    }

    /// How many cells are in a line of one disk, what each stands for in bytes, and the cells of each disk.
    fn grid(&self) -> (u64, u64, Vec<Vec<Class>>) {
        let width = WIDTH / self.strips.len().max(1) as u64;
        let step = self.whole().div_ceil(width * HEIGHT).max(1);
        // A number that people can read; a disk below that is drawn byte by byte.
        let step = if step < 512 { step } else { step.next_multiple_of(512) };
        (width, step, self.strips.iter().map(|strip| strip.cells(width * HEIGHT, step)).collect())
    }

    /// What occurs, for the legend.
    fn classes(grid: &[Vec<Class>]) -> impl Iterator<Item = Class> {
        Class::ALL.into_iter().skip(1).filter(|class| grid.iter().any(|cells| cells.contains(class)))
    }

    /// As lines of characters: the offset of the first cell, and the cells.
    pub(crate) fn text(&self, colours: bool) -> String {
        let (width, step, grid) = self.grid();
        let cell = |class: Class| match class.terminal() {
            (character, paint) if colours && !paint.is_empty() => format!("{paint}{character}\x1b[0m"),
            (character, _) => character.to_string(),
        };
        let mut text = String::new();
        for strip in &self.strips {
            text += &format!("{}: {}\n", strip.name, human(strip.size));
        }
        for line in 0..HEIGHT {
            let first = line * width;
            if first * step >= self.whole() {
                break;
            }
            text += &format!("{:12x} ", first * step);
            let cells = grid.iter().map(|cells| &cells[first as usize..][..width as usize]);
            let strips: Vec<String> =
                cells.map(|cells| cells.iter().map(|class| cell(*class)).collect()).collect();
            text += strips.join(" │ ").trim_end();
            text.push('\n');
        }
        let legend: Vec<String> =
            Picture::classes(&grid).map(|class| format!("{} {}", cell(class), class.word())).collect();
        if !legend.is_empty() {
            text += &format!("{:13}{}; a cell is {} bytes\n", "", legend.join("  "), step);
        }
        text
    }

    /// As an SVG document.
    pub(crate) fn svg(&self) -> String {
        const CELL: u64 = 10;
        let (width, _, grid) = self.grid();
        let gap = 2 * CELL;
        let strips = self.strips.len() as u64;
        let (total_width, total_height) = (strips * (width * CELL + gap) + gap, HEIGHT * CELL + 5 * gap);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{total_width}\" height=\"{total_height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n"
        );
        for (number, (strip, cells)) in (0u64..).zip(self.strips.iter().zip(&grid)) {
            let left = gap + number * (width * CELL + gap);
            let name = format!("{} ({})", strip.name, human(strip.size));
            svg += &format!("<text x=\"{left}\" y=\"{gap}\">{}</text>\n", escaped(&name));
            // Neighbours in a line are one rectangle.
            for (line, cells) in (0u64..).zip(cells.chunks(width as usize)) {
                let mut column = 0;
                for same in cells.chunk_by(|a, b| a == b) {
                    let (x, y) = (left + column * CELL, gap + CELL + line * CELL);
                    let length = same.len() as u64;
                    if same[0] != Class::Nothing {
                        svg += &format!(
                            "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" fill=\"{}\"/>\n",
                            length * CELL,
                            CELL - 1,
                            same[0].colour()
                        );
                    }
                    column += length;
                }
            }
        }
        let y = gap + CELL + HEIGHT * CELL + gap;
        for (number, class) in (0u64..).zip(Picture::classes(&grid)) {
            let x = gap + number * 8 * CELL;
            svg += &format!(
                "<rect x=\"{x}\" y=\"{}\" width=\"{CELL}\" height=\"{CELL}\" fill=\"{}\"/>\
                 <text x=\"{}\" y=\"{y}\">{}</text>\n",
                y - CELL,
                class.colour(),
                x + CELL + CELL / 2,
                class.word()
            );
        }
        svg + "</svg>\n"
    }
}

/// For XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strip(size: u64, parts: &[(u64, u64, Class)]) -> Strip {
        let parts = parts.iter().map(|(start, len, class)| (Range::new(*start, *len), *class)).collect();
        Strip { name: "disk<1>".into(), size, parts, marks: vec![] }
    }

    #[test]
    fn a_cell_shows_what_matters_most_in_it() {
        let mut strip = strip(100, &[(0, 40, Class::Hole), (40, 1, Class::Data), (41, 59, Class::Zero)]);
        use Class::{Changed, Data, Hole, Nothing, Zero};
        assert_eq!(strip.cells(5, 20), [Hole, Hole, Data, Zero, Zero]);
        strip.mark(Range::new(99, 50), Changed);
        assert_eq!(strip.cells(5, 20)[4], Changed);
        assert_eq!(strip.cells(4, 50), [Data, Changed, Nothing, Nothing]);
    }

    #[test]
    fn pictures_of_any_size_have_all_their_lines() {
        for size in [0, 1, 63, 1537, 1 << 20, i64::MAX as u64] {
            let parts = if size == 0 { vec![] } else { vec![(0, size, Class::Data)] };
            let picture = Picture::new(vec![strip(size, &parts), strip(size / 2, &parts[..0])]);
            let text = picture.text(false);
            assert!(size == 0 || text.contains('█'), "{text}");
            assert!(picture.text(true).len() >= text.len());
            let svg = picture.svg();
            assert!(svg.contains("disk&lt;1&gt;") && svg.ends_with("</svg>\n"));
        }
    }
}
