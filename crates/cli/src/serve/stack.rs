//! The plugin and the filters over it: found by name, given their parameters, started.

use super::options::ServeOptions;
use disk::{Backend, FilterEntry, PluginEntry, registry::About};
use params::{Args, Param, ParamError};
use std::sync::Arc;

/// What a command line names, found in the registries.
pub(crate) struct Stack {
    plugin: Option<&'static PluginEntry>,
    /// Outermost (nearest to the client) first.
    filters: Vec<&'static FilterEntry>,
}

impl Stack {
    /// Finds the plugin (if one is named) and the filters. The error is a sentence.
    pub(crate) fn find(options: &ServeOptions) -> Result<Stack, String> {
        let plugin = |name: &String| {
            plugins::find(name)
                .ok_or_else(|| unknown("plugin", name, plugins::PLUGINS.iter().map(|p| p.about)))
        };
        let filter = |name: &String| {
            filters::find(name)
                .ok_or_else(|| unknown("filter", name, filters::FILTERS.iter().map(|f| f.about)))
        };
        Ok(Stack {
            plugin: options.plugin.as_ref().map(plugin).transpose()?,
            filters: options.filters.iter().map(filter).collect::<Result<_, _>>()?,
        })
    }

    /// The plugin's entry, if a plugin is named.
    pub(crate) fn plugin(&self) -> Option<&'static PluginEntry> {
        self.plugin
    }

    /// What the filters are, outermost first.
    pub(crate) fn filters(&self) -> impl Iterator<Item = About> {
        self.filters.iter().map(|filter| filter.about)
    }

    /// What all components are, outermost first, the plugin last.
    pub(crate) fn components(&self) -> impl Iterator<Item = About> {
        self.filters().chain(self.plugin.map(|plugin| plugin.about))
    }

    /// Gives each component its parameters and starts them, the plugin first. `layer` may wrap what each one made.
    ///
    /// A key that several components declare belongs to the outermost of them. The error is a sentence.
    pub(crate) fn start(
        &self,
        arguments: &[String],
        layer: impl Fn(&'static str, Arc<dyn Backend>) -> Arc<dyn Backend>,
    ) -> Result<Arc<dyn Backend>, String> {
        let plugin = self.plugin.ok_or("no plugin is given: try --help")?;
        let magic = Args::magic_key(plugin.about.params);
        let mut rest = Args::from_cli(arguments, magic).map_err(|error| error.to_string())?;
        let filters: Vec<_> =
            self.filters.iter().map(|filter| (filter, rest.split(filter.about.params))).collect();

        let tables: Vec<(&str, &[Param])> =
            self.components().map(|about| (about.name, about.params)).collect();
        let started = plugin.start(&mut rest);
        let unknown = rest.finish(&tables);
        let mut backend = started.map_err(|error| match &unknown {
            // "size is required" is better understood when it also says that "siez" is not known.
            Err(unknown @ ParamError::Unknown { near: Some(_), .. }) => format!("{error}; {unknown}"),
            _ => error.to_string(),
        })?;
        unknown.map_err(|error| error.to_string())?;
        backend = layer(plugin.about.name, backend);
        for (filter, mut args) in filters.into_iter().rev() {
            backend = filter.start(&mut args, backend).map_err(|error| error.to_string())?;
            backend = layer(filter.about.name, backend);
        }
        Ok(backend)
    }
}

fn unknown(what: &str, name: &str, known: impl Iterator<Item = About>) -> String {
    if name.contains('/') || name.ends_with(".so") {
        return format!("not built yet: loading {what}s from files ({name})");
    }
    let names: Vec<&str> = known.map(|about| about.name).collect();
    format!("there is no {what} {name}; there are {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(line: &[&str]) -> Result<Arc<dyn Backend>, String> {
        let options = ServeOptions::parse(line).unwrap();
        Stack::find(&options)?.start(&options.arguments, |_, backend| backend)
    }

    #[test]
    fn arguments_reach_the_component_that_declares_them() {
        start(&["--filter=offset", "memory", "offset=512", "1M"]).unwrap();
    }

    #[test]
    fn unknown_names_and_keys_are_told() {
        let error = |line| start(line).err().unwrap();
        assert!(error(&["nosuch"]).starts_with("there is no plugin nosuch; there are "));
        assert!(
            error(&["--filter=nosuch", "memory", "1M"]).starts_with("there is no filter nosuch; there are ")
        );
        assert_eq!(error(&["memory", "1M", "quux=1"]), "unknown parameter 'quux'");
        let both = error(&["memory", "siez=1M"]);
        assert!(
            both.contains("size is required") && both.contains("did you mean size= of memory?"),
            "{both}"
        );
        let bad = error(&["memory", "9Q"]);
        assert!(bad.ends_with("size=9Q: not a size such as 512, 64K or 1M"), "{bad}");
    }
}
