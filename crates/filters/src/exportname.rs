//! `exportname`: which exports clients see, by which names, and what is said of them.

use crate::common::wrap::stated;
use disk::{Backend, Client, Disk, Errno, Error, Export, Facts, Filter, Io, Result};
use params::{Choice, Kind, Params, Value, Wrong};
use std::{process::Command, sync::Arc};

/// Change the names of exports, their list and their descriptions.
#[derive(Params)]
pub(crate) struct ExportName {
    /// The export that clients get who ask for the default one (the empty name). Empty: what the plugin says.
    #[param(default = "")]
    default_export: String,
    /// What clients see who ask for a list: `keep`, what the plugin says; `error`, an error; `empty`, no exports;
    /// `defaultonly`, the default export alone; `explicit`, the names given by `exportname`.
    #[param(default = "keep")]
    exportname_list: Listed,
    /// Clients may only use exports that were given by `exportname`.
    #[param(default = "false")]
    exportname_strict: bool,
    /// An export for `exportname-list=explicit` and `exportname-strict`. May be given many times.
    exportname: Vec<String>,
    /// What is said of exports: `keep`, what the plugin says; `none`, nothing; `fixed:TEXT`, this text;
    /// `script:COMMAND`, what this shell command prints, with the export's name in `$name`.
    #[param(default = "keep")]
    exportdesc: Described,
}

#[derive(Choice, Clone, Copy, PartialEq, Eq)]
enum Listed {
    Keep,
    Error,
    Empty,
    #[choice(name = "defaultonly")]
    DefaultOnly,
    Explicit,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Described {
    Keep,
    None,
    Fixed(String),
    Script(String),
}

impl Value for Described {
    const KIND: Kind = Kind::Other("keep|none|fixed:TEXT|script:COMMAND");

    fn from_text(text: &str) -> std::result::Result<Described, Wrong> {
        match text.split_once(':') {
            Some(("fixed", text)) if text.len() <= LONGEST => Ok(Described::Fixed(text.to_owned())),
            Some(("fixed", _)) => Err("longer than 4096 bytes, which the protocol does not allow".into()),
            Some(("script", command)) => Ok(Described::Script(command.to_owned())),
            _ if text == "keep" => Ok(Described::Keep),
            _ if text == "none" => Ok(Described::None),
            _ => Err("not keep, none, fixed:TEXT or script:COMMAND".into()),
        }
    }
}

/// The longest name and description that the protocol allows, in bytes.
const LONGEST: usize = 4096;

impl Filter for ExportName {
    const NAME: &'static str = "exportname";
    const MANUAL: &'static str = include_str!("exportname.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        for name in self.exportname.iter().chain([&self.default_export]) {
            if name.len() > LONGEST {
                return Err(Error::invalid(
                    "a name of an export is longer than 4096 bytes, which the protocol does not allow",
                ));
            }
        }
        Ok(Naming { params: self, next })
    }
}

struct Naming {
    params: ExportName,
    next: Arc<dyn Backend>,
}

impl Naming {
    async fn described(&self, export: &str, below: Option<String>) -> Result<Option<String>> {
        match &self.params.exportdesc {
            Described::Keep => Ok(below),
            Described::None => Ok(None),
            Described::Fixed(text) => Ok(Some(text.clone())),
            Described::Script(command) => {
                let (command, name) = (command.clone(), export.to_owned());
                let said = reactor::unblock(move || run(&command, &name)).await?;
                // A description is no reason to turn anybody away.
                Ok(said.inspect_err(|e| tracing::error!(target: "diskpipe", "{e}")).ok())
            }
        }
    }

    async fn default_name(&self, client: &Client<'_>) -> Result<Option<String>> {
        match self.params.default_export.as_str() {
            "" => self.next.default_export(client).await,
            name => Ok(Some(name.to_owned())),
        }
    }
}

/// What the command prints, without the line's end.
fn run(command: &str, name: &str) -> Result<String> {
    let output = Command::new("/bin/sh").args(["-c", command]).env("name", name).output();
    let output = output.map_err(|e| Error::from(e).context("exportdesc=script: running /bin/sh"))?;
    if !output.status.success() {
        return Err(Error::io(format!(
            "exportdesc=script: the command for export {name:?} ended with {}",
            output.status
        )));
    }
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.truncate(text.trim_end_matches('\n').len());
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
    }
    Ok(text)
}

impl Backend for Naming {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        if self.params.exportname_strict && !self.params.exportname.iter().any(|name| name == client.export) {
            let name = client.export;
            return Error::new(
                Errno::NOENT,
                format!("{name:?} is not one of the exports that exportname allows"),
            )
            .into();
        }
        if self.params.exportdesc == Described::Keep {
            return self.next.open(client);
        }
        Io::later(async move {
            let disk = self.next.open(client).await?;
            let below = disk.facts().description.as_deref().map(str::to_owned);
            let description = self.described(client.export, below).await?.map(Arc::from);
            Ok(stated(Facts { description, ..disk.facts().clone() }, disk))
        })
    }

    fn exports<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Vec<Export>> {
        Io::later(async move {
            let named = |name: &String| Export { name: name.clone(), description: None };
            let mut list = match self.params.exportname_list {
                Listed::Keep => self.next.exports(client).await?,
                Listed::Error => return Err(Error::invalid("exportname-list=error: exports are not listed")),
                Listed::Empty => vec![],
                Listed::DefaultOnly => vec![named(&self.default_name(client).await?.unwrap_or_default())],
                Listed::Explicit => self.params.exportname.iter().map(named).collect(),
            };
            for export in &mut list {
                export.description = self.described(&export.name, export.description.take()).await?;
            }
            Ok(list)
        })
    }

    fn default_export<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Option<String>> {
        Io::later(self.default_name(client))
    }

    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, layer};

    fn list(params: &[&str]) -> Result<Vec<(String, Option<String>)>> {
        let layer = layer::<ExportName>(params, &Memory::new(vec![])).unwrap();
        let exports = layer.exports(&Client::default()).wait()?;
        Ok(exports.into_iter().map(|e| (e.name, e.description)).collect())
    }

    #[test]
    fn lists_are_what_the_mode_says() {
        let names = |params: &[&str]| -> Vec<String> {
            list(params).unwrap().into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(&[]), [""]);
        assert_eq!(names(&["exportname-list=empty"]), [""; 0]);
        assert_eq!(names(&["exportname-list=defaultonly", "default-export=x"]), ["x"]);
        assert_eq!(names(&["exportname-list=explicit", "exportname=a", "exportname=b"]), ["a", "b"]);
        assert!(list(&["exportname-list=error"]).is_err());
    }

    #[test]
    fn strict_lets_only_given_names_in() {
        let layer =
            layer::<ExportName>(&["exportname-strict=true", "exportname=a"], &Memory::new(vec![])).unwrap();
        let opens = |name| layer.open(&Client::local(name)).wait().map(drop).map_err(|e| e.errno());
        assert_eq!((opens("a"), opens("b"), opens("")), (Ok(()), Err(Errno::NOENT), Err(Errno::NOENT)));
    }

    #[test]
    fn descriptions_are_fixed_or_made_by_a_command() {
        let description = |param: &str| {
            let params = [param, "exportname-list=explicit", "exportname=it's"];
            let listed = list(&params).map(|list| list[0].1.clone());
            let layer = layer::<ExportName>(&params, &Memory::new(vec![])).unwrap();
            let opened =
                layer.open(&Client::local("it's")).wait().map(|disk| disk.facts().description.clone());
            let opened = opened.map(|text| text.map(|text| text.to_string()));
            assert_eq!(listed.as_ref().ok(), opened.as_ref().ok());
            listed
        };
        assert_eq!(description("exportdesc=fixed:a disk").unwrap().unwrap(), "a disk");
        assert_eq!(description("exportdesc=script:printf '<%s>' \"$name\"").unwrap().unwrap(), "<it's>");
        assert_eq!(description("exportdesc=none").unwrap(), None);
        assert_eq!(description("exportdesc=script:echo half; exit 3").unwrap(), None);
    }
}
