//! Which file system on a disk is meant: what follows the disk's name on the command line, or what is likely.

mod part;

use crate::{
    command_line::{Invocation, Word, is_uri},
    copy::endpoint::Endpoint,
    info::json::quote,
    walk,
};
use anyhow::{Context, Result, anyhow, bail};
use inspect::{
    FileSystem, Sniffed, Source,
    partitions::{self, Partition, Table},
    path, sniff,
};
pub(crate) use part::Part;
use std::{ffi::OsString, path::Path};

/// Options of all tools that look into file systems.
#[derive(clap::Args, Debug)]
pub(crate) struct Choice {
    /// The partition to look into, as after the name of the disk: a number, or LABEL=, UUID=, PARTLABEL= or PARTUUID= and what it is.
    #[arg(long, value_name = "PART")]
    pub(crate) partition: Option<Part>,

    /// The size of a sector of the disk, 512 or 4096, which tables of partitions are counted in. Otherwise it is found out.
    #[arg(long, value_name = "SIZE", value_parser = sector)]
    pub(crate) sector_size: Option<u32>,
}

fn sector(text: &str) -> Result<u32, &'static str> {
    match text {
        "512" => Ok(512),
        "4096" | "4K" | "4k" => Ok(4096),
        _ => Err("a sector has 512 or 4096 bytes"),
    }
}

/// What the disk argument of these tools may be, for their help.
pub(crate) const DISKS: &str = "DISK is NBD-URI[:PART] | FILE[:PART] | [ COMMAND ARGUMENT... ]";

/// An open disk.
pub(crate) struct Disk {
    name: String,
    tool: String,
    part: Option<Part>,
    source: Source,
    /// Its partitions, unless a file system covers all of it.
    pub(crate) table: Option<Table>,
    _endpoint: Endpoint,
}

/// A partition, and what is on it.
pub(crate) struct Volume<'a> {
    pub(crate) partition: &'a Partition,
    pub(crate) content: Result<Box<dyn FileSystem>>,
    pub(crate) sniffed: Sniffed,
}

impl Disk {
    /// Opens the disk that an argument names.
    pub(crate) fn open(invocation: &Invocation, word: OsString, choice: &Choice) -> Result<Disk> {
        let mut part = choice.partition.clone();
        let word = match invocation.word(word) {
            Word::Plain(text) => {
                let (disk, suffix) = part::split(&text, is_uri(&text), |file| Path::new(file).exists());
                part = part.or(suffix);
                Word::Plain(disk)
            }
            command => command,
        };
        let name = word.to_string();
        let (endpoint, disk) = walk::open(&word)?;
        let source = Source::new(disk);
        let table = partitions::read(&source, choice.sector_size);
        // A damaged table is no reason not to look at all of the disk.
        let table = match part {
            Some(Part::Number(0)) => None,
            _ => table.with_context(|| name.clone())?,
        };
        let table = table.filter(|table| part.is_some() || !is_hybrid(&source, table));
        Ok(Disk { name, tool: invocation.name.clone(), part, source, table, _endpoint: endpoint })
    }

    /// Whether a partition was named.
    pub(crate) fn is_chosen(&self) -> bool {
        self.part.is_some()
    }

    /// What is on a partition.
    pub(crate) fn volume<'a>(&self, partition: &'a Partition) -> Volume<'a> {
        let source = self.source.part(partition.range);
        let sniffed = sniff(&source).unwrap_or(Sniffed::Nothing);
        Volume { partition, content: inspect::open(&source).map_err(Into::into), sniffed }
    }

    /// The file system that was named, or the one that is likely meant.
    pub(crate) fn file_system(&self) -> Result<Box<dyn FileSystem>> {
        for note in self.table.iter().flat_map(|table| &table.notes) {
            self.warn(note);
        }
        let found = self.choose().with_context(|| self.name.clone())?;
        for note in &found.about().notes {
            self.warn(note);
        }
        Ok(found)
    }

    fn warn(&self, note: &str) {
        eprintln!("{}: warning: {}: {note}", self.tool, self.name);
    }

    fn choose(&self) -> Result<Box<dyn FileSystem>> {
        let Some(table) = &self.table else {
            let whole = || Ok(inspect::open(&self.source)?);
            return match &self.part {
                None | Some(Part::Number(0)) => whole(),
                Some(part @ (Part::Label(_) | Part::Uuid(_))) => whole().and_then(|found| {
                    if part.is_of(&*found) { Ok(found) } else { Err(anyhow!("there is no partition {part}")) }
                }),
                Some(_) => bail!("there are no partitions on this disk"),
            };
        };
        let volumes = || table.partitions.iter().map(|partition| self.volume(partition));
        if let Some(part) = &self.part {
            let chosen = match part {
                Part::Label(_) | Part::Uuid(_) => {
                    volumes().find(|v| v.content.as_ref().is_ok_and(|found| part.is_of(&**found)))
                }
                _ => table.partitions.iter().find(|p| part.is(p)).map(|p| self.volume(p)),
            };
            let Some(chosen) = chosen else {
                bail!("there is no partition {part}; there are{}", self.listed(volumes()))
            };
            return chosen.content.with_context(|| format!("partition {}", chosen.partition.number));
        }
        if let [only] = &table.partitions[..] {
            return self.volume(only).content.with_context(|| format!("partition {}", only.number));
        }
        let all: Vec<Volume<'_>> = volumes().collect();
        let readable = all.iter().filter(|v| v.content.is_ok()).count();
        let is_wanted =
            |v: &Volume<'_>| v.content.as_ref().is_ok_and(|found| readable == 1 || is_root(&**found));
        let wanted = all.iter().filter(|v| is_wanted(v)).count();
        if wanted != 1 {
            let why = match (readable, wanted) {
                (0, _) => "there is no file system that can be read",
                (_, 0) => "several partitions have file systems, and none has /etc; name one",
                _ => "several partitions have /etc; name one",
            };
            bail!("{why}, of{}", self.listed(all.into_iter()));
        }
        let found = all.into_iter().find(|v| is_wanted(v)).map(|v| v.content);
        found.unwrap_or_else(|| Err(anyhow!("there is no file system that can be read")))
    }

    /// A line for each partition.
    fn listed<'a>(&self, volumes: impl Iterator<Item = Volume<'a>>) -> String {
        let line = |v: Volume<'_>| {
            let (number, size) = (v.partition.number, crate::ls::human(v.partition.range.len));
            let label = v.label().map_or(String::new(), |label| format!(" {}", quote(&label)));
            format!("\n  :{number}  {size}  {}{label}", v.what())
        };
        volumes.map(line).collect()
    }
}

impl Volume<'_> {
    /// The kind of file system, or of what else is there.
    pub(crate) fn what(&self) -> &'static str {
        match (&self.content, self.sniffed) {
            (Ok(found), _) => found.about().kind,
            (Err(_), Sniffed::Other(name) | Sniffed::Image(name)) => name,
            (Err(_), Sniffed::Readable(_)) => "damaged",
            (Err(_), Sniffed::Nothing) => "unknown",
        }
    }

    /// The label of the file system, or the name of the partition.
    pub(crate) fn label(&self) -> Option<String> {
        let label = self.content.as_ref().map_or("", |found| &found.about().label);
        [label, &self.partition.name].into_iter().find(|name| !name.is_empty()).map(str::to_string)
    }
}

/// Whether it looks like the root of a system.
fn is_root(file_system: &dyn FileSystem) -> bool {
    path::resolve(file_system, b"etc", true).is_ok_and(|found| found.file.is_directory())
}

/// An ISO image that can also be started from a disk: a partition covers what makes it one. On a disk with partitions
/// that begin farther on, traces of an ISO image are old ones.
fn is_hybrid(source: &Source, table: &Table) -> bool {
    table.partitions.iter().any(|p| p.range.start <= 32 << 10 && p.range.end() > 32 << 10)
        && sniff(source).is_ok_and(|found| found == Sniffed::Readable("ISO 9660"))
}
