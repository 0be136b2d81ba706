//! `--config FILE`: several exports, each with a plugin and filters of its own, out of a TOML file.

use super::stack::{Layer, Stack};
use anyhow::{Context, Result, anyhow, bail, ensure};
use disk::exports::{Entry, Member, Table};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where to listen, unless the command line says so: `127.0.0.1:10809`, `:10809`, `unix:/run/disk.sock`,
    /// `vsock:10809`.
    #[serde(default)]
    pub(crate) listen: Vec<String>,
    /// The export behind the empty name. A single export needs no such word.
    default: Option<String>,
    /// By name.
    #[serde(default)]
    export: BTreeMap<String, Export>,
}

/// One export.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Export {
    plugin: String,
    #[serde(default)]
    params: Params,
    /// Outermost (nearest to the client) first.
    #[serde(default)]
    filters: Vec<Filter>,
    description: Option<String>,
    #[serde(default)]
    read_only: bool,
    /// Not in lists.
    #[serde(default)]
    hidden: bool,
    /// The name that the plugin is asked for instead of the export's own.
    opens: Option<String>,
}

/// `{ size = "1G" }`, or `["size=1G"]` as one would type them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum Params {
    Typed(Vec<String>),
    Table(BTreeMap<String, Value>),
}

impl Default for Params {
    fn default() -> Self {
        Params::Typed(Vec::new())
    }
}

/// `"cow"`, or `{ filter = "offset", offset = 512 }`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum Filter {
    Name(String),
    WithParams {
        filter: String,
        #[serde(flatten)]
        params: BTreeMap<String, Value>,
    },
}

/// A parameter's value: what would be typed, or TOML's own numbers and booleans.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    Many(Vec<Value>),
}

impl Value {
    /// One `key=value` for each.
    fn pairs(&self, key: &str, into: &mut Vec<(String, String)>) {
        let text = match self {
            Value::Text(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Many(values) => return values.iter().for_each(|value| value.pairs(key, into)),
        };
        into.push((key.to_owned(), text));
    }
}

fn pairs(table: &BTreeMap<String, Value>) -> Vec<(String, String)> {
    let mut all = Vec::new();
    table.iter().for_each(|(key, value)| value.pairs(key, &mut all));
    all
}

impl Config {
    /// Reads and checks the file's own rules.
    ///
    /// # Errors
    /// A sentence that names the file and the line.
    pub(crate) fn read(file: &Path) -> Result<Config> {
        let name = file.display();
        let text = std::fs::read_to_string(file).with_context(|| format!("--config={name}"))?;
        Config::parse(&text).with_context(|| name.to_string())
    }

    fn parse(text: &str) -> Result<Config> {
        let config: Config = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
            let message = error.message();
            let of_an_export = message.starts_with("unknown field") && message.contains("`params`");
            let hint = if of_an_export {
                "; parameters of the plugin stand in params = { KEY = VALUE }"
            } else {
                ""
            };
            anyhow!("{place}{message}{hint}")
        })?;
        ensure!(
            !config.export.is_empty(),
            "no export is described: write [export.NAME] and plugin = \"...\""
        );
        if let Some(default) = &config.default {
            ensure!(config.export.contains_key(default), "default = {default:?}: there is no such export");
        }
        Ok(config)
    }

    /// The export behind the empty name.
    fn default_export(&self) -> Option<String> {
        match (&self.default, self.export.len()) {
            (Some(default), _) => Some(default.clone()),
            (None, 1) => self.export.keys().next().cloned(),
            _ => None,
        }
    }

    /// Each export's name and description of itself.
    pub(crate) fn exports(&self) -> impl Iterator<Item = (&str, &Export)> {
        self.export.iter().map(|(name, export)| (name.as_str(), export))
    }
}

impl Export {
    /// Its components.
    pub(crate) fn stack(&self) -> Result<Stack, String> {
        let filters = self.filters.iter().map(|filter| match filter {
            Filter::Name(name) => (name.as_str(), Vec::new()),
            Filter::WithParams { filter, params } => (filter.as_str(), pairs(params)),
        });
        Stack::of(Some(&self.plugin), filters)
    }

    /// Its parameters, as they would be typed.
    pub(crate) fn arguments(&self) -> Vec<String> {
        match &self.params {
            Params::Typed(words) => words.clone(),
            Params::Table(table) => {
                pairs(table).into_iter().map(|(key, value)| format!("{key}={value}")).collect()
            }
        }
    }

    /// Clients may only read it.
    pub(crate) fn read_only(&self) -> bool {
        self.read_only
    }

    /// What the plugin is asked for when a client asks for `name`.
    pub(crate) fn opens<'a>(&'a self, name: &'a str) -> &'a str {
        self.opens.as_deref().unwrap_or(name)
    }
}

/// The exports of a file, started; reading it again keeps what has not changed.
pub(crate) struct Exports {
    file: PathBuf,
    config: Config,
    members: BTreeMap<String, Arc<Member>>,
}

impl Exports {
    /// Reads the file and starts everything in it. Paths in it are relative to its own directory, which therefore
    /// becomes the process's.
    pub(crate) fn start(file: &Path, layer: Layer<'_>) -> Result<Exports> {
        let file = std::path::absolute(file).with_context(|| format!("--config={}", file.display()))?;
        let mut exports = Exports { config: Config::read(&file)?, members: BTreeMap::new(), file };
        go_to_directory_of(&exports.file)?;
        exports.members = exports.started(&exports.config, layer)?;
        Ok(exports)
    }

    /// What the file says.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// What clients find.
    pub(crate) fn table(&self) -> Table {
        table(&self.config, &self.members)
    }

    /// Reads the file again and hands the new table to `put`. On any error everything stays as it was. Returns what has
    /// changed, in words.
    pub(crate) fn reload(
        &mut self,
        layer: Layer<'_>,
        put: impl FnOnce(Table) -> Result<()>,
    ) -> Result<String> {
        let config = Config::read(&self.file)?;
        let members = self.started(&config, layer)?;
        put(table(&config, &members))?;
        let kept = members
            .iter()
            .filter(|(name, member)| self.members.get(*name).is_some_and(|old| Arc::ptr_eq(old, member)))
            .count();
        let mut told = format!("{} exports, {kept} of them as before", members.len());
        if config.listen != self.config.listen {
            told += "; where to listen changes when the server is started again";
        }
        (self.config, self.members) = (config, members);
        Ok(told)
    }

    /// Every export's backend: the one that runs already, if what it is made of has not changed.
    fn started(&self, config: &Config, layer: Layer<'_>) -> Result<BTreeMap<String, Arc<Member>>> {
        let start = |(name, export): (&String, &Export)| -> Result<(String, Arc<Member>)> {
            let before = self.config.export.get(name).filter(|before| {
                before.plugin == export.plugin
                    && before.params == export.params
                    && before.filters == export.filters
            });
            if let (Some(_), Some(member)) = (before, self.members.get(name)) {
                return Ok((name.clone(), member.clone()));
            }
            let started = export.stack().and_then(|stack| stack.start(&export.arguments(), layer));
            match started {
                Ok(backend) => Ok((name.clone(), Member::new(backend))),
                Err(why) => bail!("{}: export {name:?}: {why}", self.file.display()),
            }
        };
        config.export.iter().map(start).collect()
    }
}

/// Paths in the file are relative to its own directory.
pub(crate) fn go_to_directory_of(file: &Path) -> Result<()> {
    match file.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        Some(directory) => {
            std::env::set_current_dir(directory).with_context(|| directory.display().to_string())
        }
        None => Ok(()),
    }
}

fn table(config: &Config, members: &BTreeMap<String, Arc<Member>>) -> Table {
    let entry = |(name, export): (&String, &Export)| {
        Some(Entry {
            name: name.clone(),
            description: export.description.clone(),
            read_only: export.read_only,
            listed: !export.hidden,
            opens: export.opens.clone(),
            member: members.get(name)?.clone(),
        })
    };
    Table { entries: config.export.iter().filter_map(entry).collect(), default: config.default_export() }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
