//! What an overlay, or the file of a cache, says of itself.

use crate::{info::json::quote, size::human};
use anyhow::{Context, Result};
use std::{
    fmt::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};
use store::{Header, Kind, Totals, chain, file};

/// One file, as it was found.
struct Found {
    path: PathBuf,
    header: Header,
    totals: Totals,
    /// What it takes of its file system, in bytes.
    takes: u64,
    /// What it stands on, nearest first.
    parents: Vec<(PathBuf, Header)>,
}

/// Describes files, one after the other.
pub(super) fn show(paths: &[PathBuf], json: bool) -> Result<String> {
    let found = paths.iter().map(|path| look(path)).collect::<Result<Vec<Found>>>()?;
    Ok(if json { as_json(&found) } else { as_text(&found) })
}

fn look(path: &Path) -> Result<Found> {
    let blocks = file::open(path, false)?;
    let header = blocks.header().cloned().context("it has no header")?;
    let parents = chain::parents(path, &header).with_context(|| path.display().to_string())?;
    let parents = parents
        .into_iter()
        .map(|(path, _)| file::header(&path).map(|header| (path, header)))
        .collect::<disk::Result<_>>()?;
    let takes = path.metadata().with_context(|| path.display().to_string())?.blocks() * 512;
    Ok(Found { path: path.to_owned(), header, totals: blocks.totals(), takes, parents })
}

fn as_text(found: &[Found]) -> String {
    let mut out = String::new();
    for Found { path, header, totals, takes, parents } in found {
        let kind = match header.kind {
            Kind::Overlay => "overlay",
            Kind::Cache => "cache",
        };
        let _ = writeln!(out, "{}: {kind}", path.display());
        let mut line = |what: &str, value: String| {
            let _ = writeln!(out, "\t{what}: {value}");
        };
        let bytes = |blocks: u64| format!("{blocks} blocks, {} bytes", blocks * header.block);
        line("size", format!("{} ({})", header.size, human(header.size)));
        line("block size", human(header.block));
        line("data", bytes(totals.copied + totals.dirty));
        if header.kind == Kind::Cache {
            line("dirty", bytes(totals.dirty));
        }
        line("zero", bytes(totals.zero));
        line("takes", format!("{takes} bytes"));
        if !header.identity.is_empty() {
            line("disk below", header.identity.clone());
        }
        if header.frozen {
            line("frozen", "others stand on it".into());
        }
        for (parent, header) in parents {
            line("stands on", format!("{} ({})", parent.display(), header.id));
        }
        line("id", header.id.to_string());
    }
    out
}

fn as_json(found: &[Found]) -> String {
    let files: Vec<String> = found.iter().map(one_json).collect();
    format!("[\n{}\n]\n", files.join(",\n"))
}

fn one_json(found: &Found) -> String {
    let Found { path, header, totals, takes, parents } = found;
    let kind = match header.kind {
        Kind::Overlay => "overlay",
        Kind::Cache => "cache",
    };
    let parents: Vec<String> = parents
        .iter()
        .map(|(path, header)| {
            let file = quote(&path.display().to_string());
            format!("{{ \"file\": {file}, \"id\": \"{}\" }}", header.id)
        })
        .collect();
    let fields = [
        ("file", quote(&path.display().to_string())),
        ("kind", quote(kind)),
        ("id", quote(&header.id.to_string())),
        ("size", header.size.to_string()),
        ("block-size", header.block.to_string()),
        ("data-blocks", (totals.copied + totals.dirty).to_string()),
        ("dirty-blocks", totals.dirty.to_string()),
        ("zero-blocks", totals.zero.to_string()),
        ("takes", takes.to_string()),
        ("disk-below", quote(&header.identity)),
        ("frozen", header.frozen.to_string()),
        ("stands-on", format!("[ {} ]", parents.join(", ")).replace("[  ]", "[]")),
    ];
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("  \"{name}\": {value}")).collect();
    format!("{{\n{}\n}}", fields.join(",\n"))
}
