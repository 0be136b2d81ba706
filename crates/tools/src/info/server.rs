//! What a server tells of itself and its exports.

use crate::{command_line::Word, info::content};
use anyhow::{Context, Result, anyhow, bail};
use client::{
    Connector, Failure, Negotiation, RemoteDisk, Step,
    proto::{
        Uri,
        flags::TransmissionFlags,
        handshake::{ExportInfo, Protocol},
        option::{BlockSizes, ReplyType},
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
    /// Why there is no content.
    pub(crate) unread: Option<anyhow::Error>,
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
        let mut connector = word.connector()?;
        let uri = match word {
            Word::Plain(text) => Some(text.to_string_lossy().parse::<Uri>()?),
            Word::Command(_) => None,
        };
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
        self.open(name, with_content).map_err(|failure| {
            let unknown = matches!(&failure, Failure::Refused(why) if why.error == ReplyType::ERR_UNKNOWN);
            let advice = if unknown { "\nTo see what the server has, use --list." } else { "" };
            anyhow!("{}{advice}", failed(name, failure))
        })
    }

    fn open(&self, name: &str, with_content: bool) -> Step<(Speech, Export)> {
        let mut negotiation = self.negotiate(name).map_err(Failure::Broken)?;
        let contexts = contexts(&mut negotiation, name)?;
        let info = match negotiation.go(name) {
            Ok(negotiated) => negotiated.info.clone(),
            Err(failure) => {
                negotiation.abort();
                return Err(failure);
            }
        };
        let speech = Speech::of(&negotiation);
        let (connection, negotiated) = negotiation.into_connection().map_err(Failure::Broken)?;
        let disk = RemoteDisk::from_connection(connection, negotiated);
        let mut export = self.export(name, info, contexts);
        if with_content {
            match look(&disk) {
                Ok(content) => export.content = Some(content),
                Err(why) => export.unread = Some(why.context(called(name))),
            }
        }
        Ok((speech, export))
    }

    fn negotiate(&self, name: &str) -> disk::Result<Negotiation> {
        let mut connector = self.connector.clone();
        connector.options.export = name.to_string();
        connector.negotiate()
    }

    fn export(&self, name: &str, info: ExportInfo, contexts: Vec<String>) -> Export {
        Export {
            name: info.name.unwrap_or_else(|| name.to_string()),
            description: info.description.filter(|text| !text.is_empty()),
            size: info.size,
            flags: info.flags,
            block_sizes: info.block_sizes,
            contexts,
            uri: self.uri(name),
            content: None,
            unread: None,
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
        let mut passing = Some(negotiation);
        let (mut exports, mut failures) = (Vec::new(), Vec::new());
        for entry in entries {
            match self.describe_listed(&mut passing, &entry.name, with_content) {
                Ok(mut export) => {
                    let words = Some(entry.description).filter(|text| !text.is_empty());
                    export.description = export.description.or(words);
                    exports.push(export);
                }
                Err(e) => failures.push(e),
            }
        }
        if let Some(negotiation) = passing {
            negotiation.abort();
        }
        Ok(Listing { speech, exports, failures })
    }

    /// Describes an export over the negotiation of the list, where the server can do that. Otherwise that one ends first:
    /// there are servers with room for one client only.
    fn describe_listed(
        &self,
        passing: &mut Option<Negotiation>,
        name: &str,
        with_content: bool,
    ) -> Result<Export> {
        if let Some(negotiation) = passing.as_mut().filter(|_| !with_content) {
            match negotiation.info(name).and_then(|info| Ok((info, contexts(negotiation, name)?))) {
                Ok((info, contexts)) => return Ok(self.export(name, info, contexts)),
                Err(Failure::Refused(refusal)) if refusal.error == ReplyType::ERR_UNSUP => {}
                Err(failure) => return Err(failed(name, failure)),
            }
        }
        if let Some(negotiation) = passing.take() {
            negotiation.abort();
        }
        let opened = self.open(name, with_content);
        opened.map(|(_, export)| export).map_err(|failure| failed(name, failure))
    }
}

impl Speech {
    fn of(negotiation: &Negotiation) -> Speech {
        Speech { protocol: negotiation.protocol(), tls: negotiation.tls(), replies: negotiation.replies() }
    }
}

/// The metadata contexts of an export; none where the server has no notion of them.
fn contexts(negotiation: &mut Negotiation, name: &str) -> Step<Vec<String>> {
    if negotiation.is_over() || !negotiation.replies().has_chunks() {
        return Ok(Vec::new());
    }
    match negotiation.list_meta_context(name, &[]) {
        Ok(contexts) => Ok(contexts.into_iter().map(|context| context.name).collect()),
        Err(Failure::Refused(_)) => Ok(Vec::new()),
        Err(failure) => Err(failure),
    }
}

/// What messages call an export.
fn called(name: &str) -> String {
    match name {
        "" => "the default export".to_string(),
        name => format!("export “{name}”"),
    }
}

fn failed(name: &str, failure: Failure) -> anyhow::Error {
    match failure {
        Failure::Refused(refusal) => anyhow!("{}: {refusal}", called(name)),
        Failure::Broken(e) => e.into(),
    }
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
