//! A disk whose content is written on the command line, in a small language.
//!
//! A program is parsed into a tree of expressions (`parse`, `expr`), which is evaluated once (`eval`) into a tree of
//! nodes that can be read anywhere (`node`): what repeats is kept once, whatever the size of the disk.

mod disk;
mod eval;
mod expr;
mod granules;
mod input;
mod layers;
mod node;
mod parse;
mod program;

use self::{disk::DataDisk, node::Node};
use crate::{common::one_disk::OneDisk, memory::Memory};
use ::disk::{Backend, Client, Error, Plugin, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use params::{Args, Params, Size};
use std::sync::Arc;

/// A disk whose content is written on the command line.
#[derive(Params)]
pub(crate) struct Data {
    /// The content, in the language described above.
    #[param(magic)]
    data: Vec<String>,
    /// The content, in base64.
    base64: Vec<String>,
    /// The content, byte for byte.
    raw: Vec<String>,
    /// The size of the disk: the content is cut off, or zeroes follow it.
    size: Option<Size>,
    /// How what clients write is kept, as in the memory plugin.
    #[param(default = "sparse", placeholder = "sparse|malloc[,mlock=BOOL]|zstd")]
    allocator: String,
    /// What `-D data.AST=1` sets: the optimised program is shown.
    #[param(hidden, name = "debug-AST", default = "0")]
    show_tree: i64,
    /// Values of variables.
    #[param(rest)]
    variables: Vec<(String, String)>,
}

impl Plugin for Data {
    const NAME: &'static str = "data";
    const MANUAL: &'static str = include_str!("data.md");
    const DUMP: &'static [(&'static str, &'static str)] = &[("data_base64", "yes"), ("mlock", "yes")];

    fn start(self) -> Result<impl Backend + 'static> {
        let content = match (&self.data[..], &self.base64[..], &self.raw[..]) {
            ([program], [], []) => self.evaluated(program)?,
            ([], [text], []) => decoded(text)?,
            ([], [], [raw]) => Node::bytes(raw.clone().into_bytes()).map_err(Error::invalid)?,
            ([], [], []) => {
                return Err(Error::invalid("you must supply one of the parameters data=, base64= and raw="));
            }
            _ => return Err(Error::invalid("exactly one of data=, base64= and raw= must be given, once")),
        };
        let content = match self.size {
            Some(size) => resized(&content, size.bytes()).map_err(Error::invalid)?,
            None => content,
        };
        let size = content.len.to_string();
        let mut args = Args::new([("size", size.as_str()), ("allocator", &self.allocator)]);
        let memory = Memory::parse(&mut args)?.start()?.open(&Client::local("")).wait()?;
        let disk = DataDisk::new(content, memory);
        if self.allocator.starts_with("malloc") {
            disk.take_all()?;
        }
        Ok(OneDisk::new(disk))
    }
}

impl Data {
    fn evaluated(&self, program: &str) -> Result<Arc<Node>> {
        let variable = |name: &str| {
            let given = self.variables.iter().find(|(key, _)| key == name);
            given.map(|(_, value)| value.clone()).or_else(|| std::env::var(name).ok())
        };
        let mut texts = program::Texts::default();
        let tree = match parse::parse(program, &variable, &mut texts) {
            Ok(tree) => tree,
            Err(fault) => return Err(texts.error(&fault)),
        };
        if self.show_tree != 0 {
            tracing::debug!(target: "diskpipe", "BEGIN AST (-D data.AST={})", self.show_tree);
            for line in tree.to_string().lines() {
                tracing::debug!(target: "diskpipe", "{line}");
            }
            tracing::debug!(target: "diskpipe", "END AST");
        }
        eval::evaluate(&tree).map_err(|fault| texts.error(&fault))
    }
}

/// Decodes base64, with or without blanks in it: people wrap it into lines.
pub(crate) fn decode_base64(text: &str) -> std::result::Result<Vec<u8>, base64::DecodeError> {
    let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    BASE64_STANDARD.decode(text)
}

fn decoded(text: &str) -> Result<Arc<Node>> {
    let bytes = decode_base64(text).map_err(|e| Error::invalid(format!("base64=...: {e}")))?;
    Node::bytes(bytes).map_err(Error::invalid)
}

/// Cut off at `size` bytes, or with zeroes up to there.
fn resized(content: &Arc<Node>, size: u64) -> node::Made {
    if size <= content.len {
        return Node::part(content, 0, size);
    }
    let mut layers = layers::Layers::default();
    layers.put(content.clone())?;
    layers.go(size)?;
    layers.finish()
}

/// See [`crate::try_data_program`].
pub(crate) fn try_program(program: &str, value: &str) {
    let mut texts = program::Texts::default();
    let tree = match parse::parse(program, &|_| Some(value.to_owned()), &mut texts) {
        Ok(tree) => tree,
        Err(fault) => {
            assert!(!texts.error(&fault).to_string().is_empty());
            return;
        }
    };
    if tree.to_string().contains('<') {
        // Nobody's files and no scripts; strings with that character are not missed.
        return;
    }
    let content = match eval::evaluate(&tree) {
        Ok(content) => content,
        Err(fault) => {
            assert!(!texts.error(&fault).to_string().is_empty());
            return;
        }
    };
    let end = content.len.min(1 << 16);
    let mut whole = vec![0; end as usize];
    content.copy(0, &mut whole);
    let mut at = 0;
    while at < end {
        let (zero, len) = content.run(at, end - at);
        let run = &whole[at as usize..(at + len) as usize];
        assert!(len > 0 && (!zero || ::disk::data::is_zero(run)));
        let mut again = vec![1; (len as usize).min(100)];
        content.copy(at, &mut again);
        assert!(again == run[..again.len()]);
        at += len;
    }
}

#[cfg(test)]
mod tests;
