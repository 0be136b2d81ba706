//! The parameter table and its readers: help, manual rows, completion, listings and suggestions.

/// What a parameter's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A file name.
    Path,
    /// A number of bytes with an optional suffix.
    Size,
    /// On or off.
    Bool,
    /// A whole number in this range.
    Int {
        /// The smallest.
        min: i128,
        /// The largest.
        max: i128,
    },
    /// A length of time.
    Delay,
    /// A chance.
    Probability,
    /// Something that must not be shown.
    Secret,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A component's own type, called by this word in help (in capitals: `REGION`).
    Other(&'static str),
}

/// One row of a component's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param {
    /// The key, as typed before `=`.
    pub key: &'static str,
    /// Other keys that mean the same.
    pub aliases: &'static [&'static str],
    /// What it does (markdown; the first paragraph is for `--help`).
    pub help: &'static str,
    /// The value when it is not given.
    pub default: Option<&'static str>,
    /// What help shows after `=`, where the kind's own word is not good enough.
    pub placeholder: Option<&'static str>,
    /// Whether bare arguments belong to it.
    pub magic: bool,
    /// Whether help, manual and completion leave it out.
    pub hidden: bool,
    /// What its values are.
    pub kind: Kind,
    /// Whether it must be given.
    pub required: bool,
    /// Whether each value counts, not just the last.
    pub repeatable: bool,
}

impl Param {
    /// Whether `key` is this parameter's key or an alias of it.
    pub fn is_called(&self, key: &str) -> bool {
        self.key == key || self.aliases.contains(&key)
    }
}

/// How many rows the slices have together; for the derive.
#[doc(hidden)]
pub const fn total(slices: &[&[Param]]) -> usize {
    let (mut sum, mut i) = (0, 0);
    while i < slices.len() {
        sum += slices[i].len();
        i += 1;
    }
    sum
}

/// All rows of the slices in one table of `N == total(slices)` rows; for the derive.
#[doc(hidden)]
pub const fn join<const N: usize>(slices: &[&[Param]]) -> [Param; N] {
    const BLANK: Param = Param {
        key: "",
        aliases: &[],
        help: "",
        default: None,
        placeholder: None,
        magic: false,
        hidden: false,
        kind: Kind::Text,
        required: false,
        repeatable: false,
    };
    let mut table = [BLANK; N];
    let (mut at, mut i) = (0, 0);
    while i < slices.len() {
        let mut j = 0;
        while j < slices[i].len() {
            table[at] = slices[i][j];
            (at, j) = (at + 1, j + 1);
        }
        i += 1;
    }
    table
}

/// The declared key that is most like `key`, with the component that declares it, if any is near.
pub fn nearest_key(key: &str, stack: &[(&str, &[Param])]) -> Option<(String, String)> {
    let rows =
        stack.iter().flat_map(|(component, params)| params.iter().map(move |param| (component, param)));
    let keys = rows.filter(|(_, param)| !param.hidden).flat_map(|(component, param)| {
        std::iter::once(param.key).chain(param.aliases.iter().copied()).map(move |key| (key, component))
    });
    // A third of the key may be mistyped: "siez" is size, "xyz" is nothing.
    let far = key.chars().count().div_ceil(3).max(1);
    keys.map(|(near, component)| (distance(key, near), near, component))
        .filter(|(distance, ..)| *distance <= far)
        .min_by_key(|(distance, ..)| *distance)
        .map(|(_, near, component)| (near.to_owned(), (*component).to_string()))
}

/// How many letters to insert, remove, replace or swap with their neighbour to get from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = above[j - 1] + usize::from(!a[i - 1].eq_ignore_ascii_case(&b[j - 1]));
            let mut best = replace.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}
