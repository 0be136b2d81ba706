//! What a server tells of itself and its exports.

use crate::{command_line::Word, info::content};
use anyhow::{Context, Result, anyhow, bail};
use client::{
    Connector, Failure, Negotiation, RemoteDisk,
    proto::{
        Uri,
        flags::TransmissionFlags,
        handshake::{ExportInfo, Protocol},
        option::{BlockSizes, Refusal, ReplyType},
        reply::ReplyStyle,
    },
};
use disk::{Disk, Range};

/// So much is read to see what is there.
const HEAD: u64 = 8192;
/// So much is read if that does not tell: optical and some other file systems begin here.
const LONG_HEAD: u64 = 72 << 10;

/// A server on the command line.
pub(crate) struct Server {
    pub(crate) connector: Connector,
    /// `None`: it was started for this.
    uri: Option<Uri>,
}

/// How a server speaks.
pub(crate) struct Speech {
    pub(crate) protocol: Protocol,
    pub(crate) tls: bool,
    pub(crate) replies: ReplyStyle,
}

/// What is known of an export.
pub(crate) struct Export {
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) size: u64,
    pub(crate) flags: TransmissionFlags,
    pub(crate) block_sizes: Option<BlockSizes>,
    pub(crate) contexts: Vec<String>,
    pub(crate) uri: Option<String>,
    pub(crate) content: Option<String>,
}

/// All exports that could be asked about, and why the others could not.
pub(crate) struct Listing {
    pub(crate) speech: Speech,
    pub(crate) exports: Vec<Export>,
    pub(crate) failures: Vec<anyhow::Error>,
}

impl Server {
    /// The server that a word names; a command is started.
    ///
    /// # Errors
    /// It is no URI, or the command cannot be started.
    pub(crate) fn new(word: &Word) -> Result<Server> {
        let uri = match word {
            Word::Plain(text) => Some(text.to_string_lossy().parse::<Uri>()?),
            Word::Command(_) => None,
        };
        let mut connector = word.connector()?;
        // Exports are described as clients without extended headers see them; maps ask for more.
        connector.options.extended_headers = false;
        connector.options.contexts.clear();
        Ok(Server { connector, uri })
    }

    /// The URI of an export of this server.
    pub(crate) fn uri(&self, export: &str) -> Option<String> {
        let uri = self.uri.as_ref()?;
        Some(Uri { export: export.to_string(), ..uri.clone() }.with_slash())
    }

    /// The name of the export that was asked for.
    pub(crate) fn asked(&self) -> &str {
        &self.connector.options.export
    }

    /// Describes one export.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses the export.
    pub(crate) fn describe(&self, name: &str, with_content: bool) -> Result<(Speech, Export)> {
        let mut negotiation = self.negotiate(name)?;
        let contexts = contexts(&mut negotiation, name)?;
        let info = match negotiation.go(name) {
            Ok(negotiated) => negotiated.info.clone(),
            Err(Failure::Refused(refusal)) => {
                negotiation.abort();
                return Err(refused(name, &refusal));
            }
            Err(Failure::Broken(e)) => return Err(e.into()),
        };
        let speech = Speech::of(&negotiation);
        let (connection, negotiated) = negotiation.into_connection()?;
        let disk = RemoteDisk::from_connection(connection, negotiated);
        let content = if with_content { Some(look(&disk)?) } else { None };
        Ok((speech, self.export(name, info, contexts, content)))
    }

    fn negotiate(&self, name: &str) -> Result<Negotiation> {
        let mut connector = self.connector.clone();
        connector.options.export = name.to_string();
        Ok(connector.negotiate()?)
    }

    fn export(&self, name: &str, info: ExportInfo, contexts: Vec<String>, content: Option<String>) -> Export {
        Export {
            name: info.name.unwrap_or_else(|| name.to_string()),
            description: info.description.filter(|text| !text.is_empty()),
            size: info.size,
            flags: info.flags,
            block_sizes: info.block_sizes,
            contexts,
            uri: self.uri(name),
            content,
        }
    }

    /// Describes all exports that the server shows.
    ///
    /// # Errors
    /// The server cannot be reached, or does not show its exports.
    pub(crate) fn list(&self, with_content: bool) -> Result<Listing> {
        let mut negotiation = self.negotiate("")?;
        if negotiation.is_over() {
            bail!("the server speaks a dialect that cannot list exports");
        }
        let speech = Speech::of(&negotiation);
        let entries = negotiation.list().context("listing the exports")?;
        let (mut exports, mut failures) = (Vec::new(), Vec::new());
        for entry in entries {
            let described = if with_content {
                self.describe(&entry.name, true).map(|(_, export)| export)
            } else {
                self.describe_in_passing(&mut negotiation, &entry.name)
            };
            match described {
                Ok(mut export) => {
                    let words = Some(entry.description).filter(|text| !text.is_empty());
                    export.description = export.description.or(words);
                    exports.push(export);
                }
                Err(e) => failures.push(e),
            }
        }
        negotiation.abort();
        Ok(Listing { speech, exports, failures })
    }

    /// Describes an export over a negotiation that goes on, where the server can do that.
    fn describe_in_passing(&self, negotiation: &mut Negotiation, name: &str) -> Result<Export> {
        match negotiation.info(name) {
            Ok(info) => {
                let contexts = contexts(negotiation, name)?;
                Ok(self.export(name, info, contexts, None))
            }
            Err(Failure::Refused(refusal)) if refusal.error == ReplyType::ERR_UNSUP => {
                self.describe(name, false).map(|(_, export)| export)
            }
            Err(Failure::Refused(refusal)) => Err(refused(name, &refusal)),
            Err(Failure::Broken(e)) => Err(e.into()),
        }
    }
}

impl Speech {
    fn of(negotiation: &Negotiation) -> Speech {
        Speech { protocol: negotiation.protocol(), tls: negotiation.tls(), replies: negotiation.replies() }
    }
}

/// The metadata contexts of an export; none where the server has no notion of them.
fn contexts(negotiation: &mut Negotiation, name: &str) -> Result<Vec<String>> {
    if negotiation.is_over() || !negotiation.replies().has_chunks() {
        return Ok(Vec::new());
    }
    match negotiation.list_meta_context(name, &[]) {
        Ok(contexts) => Ok(contexts.into_iter().map(|context| context.name).collect()),
        Err(Failure::Refused(_)) => Ok(Vec::new()),
        Err(Failure::Broken(e)) => Err(e.into()),
    }
}

fn refused(name: &str, refusal: &Refusal) -> anyhow::Error {
    let export = match name {
        "" => "the default export".to_string(),
        name => format!("export “{name}”"),
    };
    let advice = match refusal.error {
        ReplyType::ERR_UNKNOWN => "\nTo see what the server has, use --list.",
        _ => "",
    };
    anyhow!("{export}: {refusal}{advice}")
}

/// Looks at the beginning of an export.
fn look(disk: &RemoteDisk) -> Result<String> {
    let size = disk.facts().size;
    let block = u64::from(disk.facts().blocks.minimum);
    let read = |len: u64| {
        let len = len.next_multiple_of(block).min(size);
        match len {
            0 => Ok(Vec::new()),
            len => disk
                .read(Range::new(0, len))
                .wait()
                .map(|data| data.to_vec())
                .context("reading the beginning"),
        }
    };
    let content = content::of(&read(HEAD)?);
    if content == "data" && size > HEAD {
        return Ok(content::of(&read(LONG_HEAD)?));
    }
    Ok(content)
}
