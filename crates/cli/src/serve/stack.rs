//! The plugin and the filters over it: found by name, given their parameters, started.

use super::absent;
use super::debug_flag::DebugFlag;
use super::describe;
use super::options::ServeOptions;
use disk::{
    Backend, FilterEntry, PluginEntry,
    registry::{About, Described},
};
use params::{Args, Param, ParamError};
use std::borrow::Cow;
use std::sync::Arc;

/// What a command line or a file names, found in the registries.
pub(crate) struct Stack {
    plugin: Option<&'static PluginEntry>,
    /// Outermost (nearest to the client) first.
    filters: Vec<FilterUse>,
}

/// A filter in its place, with parameters that are meant for it alone.
struct FilterUse {
    entry: &'static FilterEntry,
    own: Vec<(String, String)>,
}

/// Wraps, or only looks at, what each component made: with the plugin's name and the component's.
pub(crate) type Layer<'a> = &'a dyn Fn(&'static str, &'static str, Arc<dyn Backend>) -> Arc<dyn Backend>;

/// Each component's arguments.
#[derive(Clone)]
pub(crate) struct Shares {
    pub(crate) plugin: Args,
    /// In the order of the filters.
    pub(crate) filters: Vec<Args>,
}

impl Stack {
    /// Finds the plugin (if one is named) and the filters. The error is a sentence.
    pub(crate) fn find(options: &ServeOptions) -> Result<Stack, String> {
        Stack::of(options.plugin.as_deref(), options.filters.iter().map(|name| (name.as_str(), Vec::new())))
    }

    /// As [`Stack::find`], of names; each filter, outermost first, with parameters of its own.
    pub(crate) fn of<'n>(
        plugin: Option<&'n str>,
        filters: impl IntoIterator<Item = (&'n str, Vec<(String, String)>)>,
    ) -> Result<Stack, String> {
        let find_plugin = |name: &str| {
            plugins::find(&built_in("plugin", name))
                .ok_or_else(|| unknown("plugin", name, plugins::PLUGINS.iter().map(|p| p.about)))
        };
        let find_filter =
            |(name, own): (&str, Vec<(String, String)>)| match filters::find(&built_in("filter", name)) {
                Some(entry) => Ok(FilterUse { entry, own }),
                None => Err(unknown("filter", name, filters::FILTERS.iter().map(|f| f.about))),
            };
        Ok(Stack {
            plugin: plugin.map(find_plugin).transpose()?,
            filters: filters.into_iter().map(find_filter).collect::<Result<_, _>>()?,
        })
    }

    /// The plugin's entry, if a plugin is named.
    pub(crate) fn plugin(&self) -> Option<&'static PluginEntry> {
        self.plugin
    }

    /// What the filters are, outermost first.
    pub(crate) fn filters(&self) -> impl Iterator<Item = About> {
        self.filters.iter().map(|filter| filter.entry.about)
    }

    /// What all components are, outermost first, the plugin last.
    pub(crate) fn components(&self) -> impl Iterator<Item = About> {
        self.filters().chain(self.plugin.map(|plugin| plugin.about))
    }

    /// A debug flag as an argument, for the component that has a (hidden) parameter `debug-FLAG`.
    pub(crate) fn debug_parameter(&self, flag: &DebugFlag) -> Option<String> {
        let key = format!("debug-{}", flag.flag);
        let mut named = self.components().filter(|about| about.name == flag.component);
        let known = named.any(|about| about.params.iter().any(|param| param.key == key));
        known.then(|| format!("{key}={}", flag.value))
    }

    /// Gives each component the arguments that it declares; a key that several declare belongs to the outermost of
    /// them. A filter that is used again further in leaves it what is given again. The plugin's share is all that is
    /// left. The error is a sentence.
    pub(crate) fn share(&self, arguments: &[String]) -> Result<Shares, String> {
        let plugin = self.plugin.ok_or("no plugin is given: try --help")?;
        let magic = Args::magic_key(plugin.about.params);
        let mut rest = Args::from_cli(arguments, magic).map_err(|error| error.to_string())?;
        let mut filters = Vec::with_capacity(self.filters.len());
        for (number, FilterUse { entry, own }) in self.filters.iter().enumerate() {
            let about = entry.about;
            let again = self.filters[number + 1..].iter().any(|inner| inner.entry.about.name == about.name);
            let shared = if again { rest.split_first(about.params) } else { rest.split(about.params) };
            let mut foreign = Args::new(own.iter().cloned());
            let own = foreign.split(about.params);
            let table: &[Param] = about.params;
            foreign
                .finish(&[(about.name, table)])
                .map_err(|error| format!("filter {}: {error}", about.name))?;
            // The filter's own come later, so that they win.
            let pairs = shared.iter().chain(own.iter()).map(|arg| (arg.key.clone(), arg.value.clone()));
            filters.push(Args::new(pairs));
        }
        Ok(Shares { plugin: rest, filters })
    }

    /// What is known of the plugin with its parameters, and under the filters. Without parameters a plugin may not start, and
    /// nor may a filter; each can be asked all the same. The error is a sentence.
    pub(crate) fn describe(&self, arguments: &[String]) -> Result<Described, String> {
        let plugin = self.plugin.ok_or("no plugin is given: try --help")?;
        let Shares { plugin: mut rest, filters } = self.share(arguments)?;
        let bare = rest.is_empty();
        let mut described = match plugin.describe(&mut rest) {
            Err(_) if bare => Described { thread_model: plugin.thread_model, lines: String::new() },
            described => described.map_err(|error| error.to_string())?,
        };
        rest.finish(&[(plugin.about.name, plugin.about.params)]).map_err(|error| error.to_string())?;
        for (filter, mut args) in self.filters.iter().zip(filters) {
            // Over any disk: only how many requests the filter takes at once is asked.
            let below = plugins::find("null").ok_or("there is no plugin null")?;
            let below = below.start(&mut Args::default()).map_err(|error| error.to_string())?;
            let bare = args.is_empty();
            match filter.entry.start(&mut args, below) {
                Err(_) if bare => {}
                started => {
                    let model = started.map_err(|error| error.to_string())?.thread_model();
                    described.thread_model = described.thread_model.min(model);
                }
            }
        }
        Ok(described)
    }

    /// Gives each component its parameters and starts them, the plugin first. The error is a sentence.
    pub(crate) fn start(&self, arguments: &[String], layer: Layer<'_>) -> Result<Arc<dyn Backend>, String> {
        let Shares { plugin: mut rest, filters } = self.share(arguments)?;
        let plugin = self.plugin.ok_or("no plugin is given: try --help")?;
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
        backend = layer(plugin.about.name, plugin.about.name, backend);
        for (number, (filter, mut args)) in self.filters.iter().zip(filters).enumerate().rev() {
            let name = filter.entry.about.name;
            let bare = args.is_empty();
            backend = filter.entry.start(&mut args, backend).map_err(|error| {
                // Its parameters were given, but to another.
                let taken = bare && self.filters[..number].iter().any(|outer| outer.entry.about.name == name);
                let why = "the filter is used more than once, and each use needs its own parameters: give them as often, \
                           the outermost's first";
                if taken { format!("{error}; {why}") } else { error.to_string() }
            })?;
            backend = layer(plugin.about.name, filter.entry.about.name, backend);
        }
        Ok(backend)
    }
}

/// The name of what a path in the directory of [`describe::directory_of`] stands for, which is where scripts look for a
/// `nbdkit-NAME-plugin.so`. Other paths are what they are: somebody's own.
fn built_in<'n>(what: &str, name: &'n str) -> Cow<'n, str> {
    let short = || {
        let (directory, file) = name.rsplit_once('/')?;
        let short = file.strip_prefix("nbdkit-")?.strip_suffix(&format!("-{what}.so"))?;
        (directory == describe::directory_of(what)).then_some(short)
    };
    short().unwrap_or(name).into()
}

fn unknown(what: &str, name: &str, known: impl Iterator<Item = About>) -> String {
    if let ("plugin", Some(why)) = (what, absent::explain(name)) {
        return why;
    }
    if name.contains('/') || name.ends_with(".so") {
        let why = match std::path::Path::new(name).exists() {
            true => format!("a {what} in C, which this program cannot load: it has its {what}s built in"),
            false => "there is no such file".to_owned(),
        };
        let base = name.rsplit('/').next().unwrap_or(name).trim_end_matches(".so");
        let short = base.trim_start_matches("nbdkit-").trim_end_matches(&format!("-{what}"));
        return match known.map(|about| about.name).find(|known| *known == short) {
            Some(short) => format!("{name}: {why}; the {what} of that name is called just {short}"),
            None => format!("{name}: {why}"),
        };
    }
    let names: Vec<&str> = known.map(|about| about.name).collect();
    format!("there is no {what} {name}; there are {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(line: &[&str]) -> Result<Arc<dyn Backend>, String> {
        let options = ServeOptions::parse(line).unwrap();
        Stack::find(&options)?.start(&options.arguments, &|_, _, backend| backend)
    }

    #[test]
    fn arguments_reach_the_component_that_declares_them() {
        start(&["--filter=offset", "memory", "offset=512", "1M"]).unwrap();
    }

    #[test]
    fn a_filters_own_parameters_are_for_it_alone() {
        let own = |value: &str| vec![("offset".to_owned(), value.to_owned())];
        let arguments = ["1M".to_owned()];
        let start = |filters: Vec<(&'static str, Vec<_>)>| {
            Stack::of(Some("memory"), filters)?.start(&arguments, &|_, _, backend| backend)
        };
        let backend = start(vec![("offset", own("512")), ("offset", own("1K"))]).unwrap();
        let disk = backend.open(&disk::Client::default()).wait().unwrap();
        assert_eq!(disk.facts().size, (1 << 20) - 512 - 1024);
        let error = start(vec![("offset", vec![("ofset".into(), "1".into())])]).err().unwrap();
        assert_eq!(error, "filter offset: unknown parameter 'ofset': did you mean offset= of offset?");
    }

    #[test]
    fn a_filter_used_twice_takes_what_is_given_twice_in_turn() {
        let size = |line: &[&str]| {
            let stack =
                start(&[&["--filter=offset", "--filter=offset", "memory", "1M"], line].concat()).unwrap();
            stack.open(&disk::Client::default()).wait().unwrap().facts().size
        };
        // The outer one's range lies on what the inner one leaves.
        assert_eq!(size(&["offset=512", "range=1K", "offset=512K", "range=4K"]), 1024);
        assert_eq!(size(&["offset=512", "offset=512K"]), (1 << 19) - 512);
        assert_eq!(size(&["offset=512"]), (1 << 20) - 512);
        let refused =
            start(&["--filter=xor", "--filter=xor", "memory", "1M", "xor=1", "xorlen=1"]).err().unwrap();
        assert!(refused.contains("xor is required") && refused.contains("used more than once"), "{refused}");
        start(&["--filter=xor", "--filter=xor", "memory", "1M", "xor=1", "xor=2", "xorlen=1", "xorlen=1"])
            .unwrap();
    }

    #[test]
    fn unknown_names_and_keys_are_told() {
        let error = |line: &[&str]| start(line).err().unwrap();
        assert!(error(&["nosuch"]).starts_with("there is no plugin nosuch; there are "));
        assert!(
            error(&["--filter=nosuch", "memory", "1M"]).starts_with("there is no filter nosuch; there are ")
        );
        assert_eq!(error(&["./nbdkit-foo-plugin.so"]), "./nbdkit-foo-plugin.so: there is no such file");
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            path.display().to_string()
        };
        let plugin = error(&[&file("nbdkit-memory-plugin.so")]);
        assert!(
            plugin.ends_with(
                ": a plugin in C, which this program cannot load: it has its plugins built in; \
                 the plugin of that name is called just memory"
            ),
            "{plugin}"
        );
        let filter = error(&["--filter", &file("nbdkit-own-filter.so"), "memory", "1M"]);
        assert!(
            filter.ends_with(
                "own-filter.so: a filter in C, which this program cannot load: it has its filters built in"
            ),
            "{filter}"
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
