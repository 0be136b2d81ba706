//! Colours on a terminal.

/// A way to show text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    /// As everything else.
    Plain,
    /// What matters most.
    Bold,
    /// What matters less.
    Dim,
    /// Yes, clean.
    Green,
    /// Dirty.
    Red,
    /// White on black.
    Inverse,
    /// On white.
    Shaded,
}

impl Paint {
    /// The text, shown so if there are colours.
    pub(crate) fn on(self, text: &str, colours: bool) -> String {
        let start = match self {
            _ if !colours => return text.to_string(),
            Paint::Plain => return text.to_string(),
            Paint::Bold => "\x1b[1;30m",
            Paint::Dim => "\x1b[22;90m",
            Paint::Green => "\x1b[22;32m",
            Paint::Red => "\x1b[22;31m",
            Paint::Inverse => "\x1b[1;37m\x1b[40m",
            Paint::Shaded => "\x1b[47m",
        };
        format!("{start}{text}\x1b[0m")
    }
}
