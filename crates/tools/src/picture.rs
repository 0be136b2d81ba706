//! Disks as pictures: each cell is an equal part of the disk, in a terminal or as SVG.

use crate::{
    diff::compare::{Change, Side, compare},
    size::human,
    walk::Walk,
};
use anyhow::Result;
use disk::{Disk, Kind, Range};
use std::io::{self, IsTerminal};

/// Lines of cells.
const HEIGHT: u64 = 24;
/// Columns that the offset takes, and the gap between two disks.
const OFFSETS: u64 = 13;
const GAP: u64 = 3;
/// Columns where nobody says how many there are: 64 cells.
const COLUMNS: u64 = OFFSETS + 64;

/// The columns of the terminal that standard output is, or as many as suit any.
pub(crate) fn columns() -> u64 {
    let stdout = io::stdout();
    let size = if stdout.is_terminal() { rustix::termios::tcgetwinsize(stdout).ok() } else { None };
    size.map(|size| u64::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(COLUMNS)
}

/// What a part of a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// Behind the end.
    Nothing,
    Hole,
    Zero,
    Data,
    Changed,
    Unreadable,
}

impl Class {
    const ALL: [Class; 6] =
        [Class::Nothing, Class::Hole, Class::Zero, Class::Data, Class::Changed, Class::Unreadable];

    fn of(kind: Kind) -> Class {
        match (kind.hole, kind.zero) {
            (true, true) => Class::Hole,
            (false, true) => Class::Zero,
            _ => Class::Data,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Class::Nothing => "",
            Class::Hole => "hole",
            Class::Zero => "zero",
            Class::Data => "data",
            Class::Changed => "changed",
            Class::Unreadable => "unreadable",
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
            Class::Unreadable => ('?', "\x1b[1;35m"),
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Class::Nothing => "none",
            Class::Hole => "#e8e8e8",
            Class::Zero => "#9fd3d6",
            Class::Data => "#33608c",
            Class::Changed => "#d1495b",
            Class::Unreadable => "#222222",
        }
    }
}

/// How a picture is cut into cells.
#[derive(Clone, Copy)]
struct Grid {
    /// Cells in a line of one disk.
    width: u64,
    /// What each cell stands for, in bytes.
    step: u64,
}

impl Grid {
    /// For disks of these sizes, on so many columns of characters.
    fn new(sizes: &[u64], columns: u64) -> Grid {
        let strips = sizes.len().max(1) as u64;
        let room = columns.saturating_sub(OFFSETS + GAP * (strips - 1));
        let width = (room / strips).max(1);
        let step = sizes.iter().copied().max().unwrap_or(0).div_ceil(width * HEIGHT).max(1);
        // A number that people can read; a disk below that is drawn byte by byte.
        let step = if step < 512 { step } else { step.next_multiple_of(512) };
        Grid { width, step }
    }
}

/// One disk: its name, and the highest class in each cell, so that the smallest change is seen.
struct Strip {
    name: String,
    size: u64,
    cells: Vec<Class>,
}

impl Strip {
    fn new(name: &str, size: u64, grid: Grid) -> Strip {
        Strip { name: name.to_owned(), size, cells: vec![Class::Nothing; (grid.width * HEIGHT) as usize] }
    }

    fn paint(&mut self, range: Range, class: Class, grid: Grid) {
        let Some(range) = range.intersect(Range::new(0, self.size)) else { return };
        let (first, last) = (range.start / grid.step, (range.end() - 1) / grid.step);
        for cell in &mut self.cells[first as usize..=last as usize] {
            *cell = (*cell).max(class);
        }
    }

    /// As the disk describes itself.
    fn paint_disk(&mut self, disk: &dyn Disk, grid: Grid) -> Result<()> {
        let mut walk = Walk::new(disk, &*self.name);
        let mut at = 0;
        while at < self.size {
            let (range, kind) = walk.at(at)?;
            self.paint(range, Class::of(kind), grid);
            at = range.end();
        }
        Ok(())
    }
}

/// One disk, or two side by side. Its memory does not depend on theirs.
pub(crate) struct Picture {
    grid: Grid,
    strips: Vec<Strip>,
}

/// What two disks have in common.
pub(crate) struct Outcome {
    pub(crate) same: bool,
    /// Why something of them could not be read.
    pub(crate) failure: Option<anyhow::Error>,
}

impl Picture {
    /// A disk, on so many columns of characters.
    ///
    /// # Errors
    /// It failed to say what it holds.
    pub(crate) fn of(side: &Side<'_>, columns: u64) -> Result<Picture> {
        Picture::new(&[side], columns)
    }

    /// Two disks side by side, with what differs.
    ///
    /// # Errors
    /// One of them failed.
    pub(crate) fn beside(a: &Side<'_>, b: &Side<'_>, block: u64, columns: u64) -> Result<(Picture, Outcome)> {
        let mut picture = Picture::new(&[a, b], columns)?;
        let mut same = true;
        let failure = compare(a, b, block, &mut |range, change| {
            let class = if change == Change::Unreadable { Class::Unreadable } else { Class::Changed };
            same &= change == Change::Unreadable;
            picture.strips.iter_mut().for_each(|strip| strip.paint(range, class, picture.grid));
            true
        })?;
        Ok((picture, Outcome { same, failure }))
    }

    fn new(sides: &[&Side<'_>], columns: u64) -> Result<Picture> {
        let sizes: Vec<u64> = sides.iter().map(|side| side.disk.facts().size).collect();
        let grid = Grid::new(&sizes, columns);
        let mut strips = Vec::new();
        for (side, size) in sides.iter().zip(sizes) {
            let mut strip = Strip::new(side.name, size, grid);
            strip.paint_disk(side.disk, grid)?;
            strips.push(strip);
        }
        Ok(Picture { grid, strips })
    }

    fn whole(&self) -> u64 {
        self.strips.iter().map(|strip| strip.size).max().unwrap_or(0)
    }

    /// What occurs, for the legend.
    fn classes(&self) -> impl Iterator<Item = Class> {
        let occurs = |class: &Class| self.strips.iter().any(|strip| strip.cells.contains(class));
        Class::ALL.into_iter().skip(1).filter(occurs)
    }

    /// As lines of characters: the offset of the first cell, and the cells.
    pub(crate) fn text(&self, colours: bool) -> String {
        let Grid { width, step } = self.grid;
        let show = |class: Class, count: usize| match class.terminal() {
            (character, paint) if colours && !paint.is_empty() => {
                format!("{paint}{}\x1b[0m", character.to_string().repeat(count))
            }
            (character, _) => character.to_string().repeat(count),
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
            let cells = self.strips.iter().map(|strip| &strip.cells[first as usize..][..width as usize]);
            let strips: Vec<String> = cells
                .map(|cells| cells.chunk_by(|a, b| a == b).map(|same| show(same[0], same.len())).collect())
                .collect();
            text += strips.join(" │ ").trim_end();
            text.push('\n');
        }
        let legend: Vec<String> =
            self.classes().map(|class| format!("{} {}", show(class, 1), class.word())).collect();
        if !legend.is_empty() {
            let cell = if step < 1024 { format!("{step} bytes") } else { human(step) };
            text += &format!("{:13}{}; a cell is {cell}\n", "", legend.join("  "));
        }
        text
    }

    /// As an SVG document.
    pub(crate) fn svg(&self) -> String {
        const CELL: u64 = 10;
        let width = self.grid.width;
        let gap = 2 * CELL;
        let strips = self.strips.len() as u64;
        let (total_width, total_height) = (strips * (width * CELL + gap) + gap, HEIGHT * CELL + 5 * gap);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{total_width}\" height=\"{total_height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n"
        );
        for (number, strip) in (0u64..).zip(&self.strips) {
            let left = gap + number * (width * CELL + gap);
            let name = format!("{} ({})", strip.name, human(strip.size));
            svg += &format!("<text x=\"{left}\" y=\"{gap}\">{}</text>\n", escaped(&name));
            // Neighbours in a line are one rectangle.
            for (line, cells) in (0u64..).zip(strip.cells.chunks(width as usize)) {
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
        for (number, class) in (0u64..).zip(self.classes()) {
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
    let text = text.replace(char::is_control, "\u{fffd}");
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use Class::{Changed, Data, Hole, Nothing, Zero};

    fn picture(sizes: &[u64], columns: u64) -> Picture {
        let grid = Grid::new(sizes, columns);
        Picture { grid, strips: sizes.iter().map(|size| Strip::new("disk<1>", *size, grid)).collect() }
    }

    #[test]
    fn a_cell_shows_what_matters_most_in_it() {
        let grid = Grid { width: 1, step: 20 };
        let mut strip = Strip::new("x", 100, grid);
        for (start, len, class) in [(0, 40, Hole), (41, 59, Zero), (40, 1, Data)] {
            strip.paint(Range::new(start, len), class, grid);
        }
        assert_eq!(strip.cells[..6], [Hole, Hole, Data, Zero, Zero, Nothing]);
        strip.paint(Range::new(99, 50), Changed, grid);
        strip.paint(Range::new(100, 50), Changed, grid);
        assert_eq!(strip.cells[4..6], [Changed, Nothing]);
    }

    #[test]
    fn pictures_of_any_size_have_all_their_lines() {
        for size in [0, 1, 63, 1537, 1 << 20, i64::MAX as u64] {
            let mut picture = picture(&[size, size / 2], 80);
            picture.strips[0].paint(Range::new(0, size), Data, picture.grid);
            let text = picture.text(false);
            assert!(size == 0 || text.contains('█'), "{text}");
            assert!(picture.text(true).len() >= text.len());
            let svg = picture.svg();
            assert!(svg.contains("disk&lt;1&gt;") && svg.ends_with("</svg>\n"));
        }
    }

    #[test]
    fn lines_are_as_wide_as_the_terminal() {
        for (columns, disks, expected) in [(80, 1, 80), (200, 2, 200), (201, 2, 200), (1, 1, 14)] {
            let mut picture = picture(&vec![1 << 30; disks], columns);
            let grid = picture.grid;
            picture.strips.iter_mut().for_each(|strip| strip.paint(Range::new(0, 1 << 30), Data, grid));
            let line = picture.text(false).lines().nth(disks).map(|line| line.chars().count());
            assert_eq!(line, Some(expected));
        }
    }
}
