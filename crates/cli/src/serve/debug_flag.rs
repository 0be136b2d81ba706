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

    /// Whether the server itself has such a flag.
    pub(crate) fn is_of_server(&self) -> bool {
        let known = ["backend.controlpath", "backend.datapath", "tls.log", "tls.session"];
        self.component == "nbdkit" && known.contains(&self.flag.as_str())
    }
}

/// What `-v` tells of components, as `-D nbdkit.backend...` changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    /// Each request.
    pub(crate) requests: bool,
    /// Everything else: opening and closing.
    pub(crate) control: bool,
}

impl Told {
    /// The last flag of a name counts.
    pub(crate) fn of(flags: &[DebugFlag]) -> Told {
        let is_on = |name: &str| {
            let flag = flags.iter().rfind(|flag| flag.component == "nbdkit" && flag.flag == name);
            flag.is_none_or(|flag| flag.value != 0)
        };
        Told { requests: is_on("backend.datapath"), control: is_on("backend.controlpath") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_own_flags_choose_what_is_told() {
        let flags =
            |texts: &[&str]| texts.iter().map(|text| DebugFlag::parse(text).unwrap()).collect::<Vec<_>>();
        assert_eq!(Told::of(&[]), Told { requests: true, control: true });
        let told = Told::of(&flags(&["nbdkit.backend.datapath=0", "file.backend.controlpath=0"]));
        assert_eq!(told, Told { requests: false, control: true });
        let told = Told::of(&flags(&["nbdkit.backend.controlpath=0", "nbdkit.backend.controlpath=1"]));
        assert_eq!(told, Told { requests: true, control: true });
        let known = |text: &str| DebugFlag::parse(text).unwrap().is_of_server();
        assert!(known("nbdkit.tls.log=9") && !known("nbdkit.foo=1") && !known("file.tls.log=9"));
    }
}
