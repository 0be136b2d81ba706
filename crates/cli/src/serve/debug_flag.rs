//! `-D NAME.FLAG=N`.

use super::options::BadUsage;
use params::Value;

/// A number that changes how much a component tells, or a detail of how it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DebugFlag {
    /// The plugin or filter, or `nbdkit` for the server itself.
    pub(crate) component: String,
    /// The flag's name; may hold dots.
    pub(crate) flag: String,
    pub(crate) value: i32,
}

impl DebugFlag {
    /// Reads `NAME.FLAG=N`.
    pub(crate) fn parse(text: &str) -> Result<DebugFlag, BadUsage> {
        let bad = || BadUsage(format!("-D {text}: a debug flag must have the format NAME.FLAG=N"));
        let (name, value) = text.split_once('=').ok_or_else(bad)?;
        let (component, flag) = name.split_once('.').ok_or_else(bad)?;
        if component.is_empty() || flag.is_empty() {
            return Err(bad());
        }
        let value = i32::from_text(value).map_err(|_| bad())?;
        Ok(DebugFlag { component: component.to_owned(), flag: flag.to_owned(), value })
    }

    /// `nbdkit.backend.datapath=0`: `-v` is wanted without a line for every request.
    pub(crate) fn hides_requests(&self) -> bool {
        self.component == "nbdkit" && self.flag == "backend.datapath" && self.value == 0
    }
}
