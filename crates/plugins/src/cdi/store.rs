//! Directories with container images: the OCI's image layout, and the flat form that podman and skopeo call `dir:`.
//!
//! All content is named by its digest, and what does not have the digest that it is named by is not used.

use disk::{Error, Result};
use serde_json::Value;
use sha2::{Digest, Sha256, Sha512};
use std::{
    fs::File,
    io::{Read, Seek},
    path::{Path, PathBuf},
};

/// Lists of what is in an image are far smaller; registries take no larger ones.
const LARGEST_LIST: u64 = 4 << 20;
/// Lists may name other lists, for several kinds of computers, but not for ever.
const DEEPEST: usize = 4;

/// A directory with one or more images.
pub(super) struct Store {
    directory: PathBuf,
    /// It holds one image, all files beside each other.
    is_flat: bool,
}

impl Store {
    /// # Errors
    /// When the directory has neither of the forms.
    pub(super) fn open(directory: &Path) -> Result<Store> {
        let has = |name: &str| directory.join(name).is_file();
        if !directory.is_dir() {
            return Err(Error::invalid("there is no such directory"));
        }
        if !has("index.json") && !has("manifest.json") {
            return Err(Error::invalid(
                "neither index.json nor manifest.json is there, so there are no images",
            ));
        }
        Ok(Store { directory: directory.to_owned(), is_flat: !has("index.json") })
    }

    /// A layer of the image with this tag or digest, or of the only one.
    ///
    /// # Errors
    /// Whatever is not there, or not what it says.
    pub(super) fn layer(&self, name: Option<&str>, number: usize) -> Result<File> {
        let manifest = match self.is_flat {
            true => self.list(&self.directory.join("manifest.json"))?,
            false => self.manifest(name)?,
        };
        let layers =
            manifest["layers"].as_array().ok_or_else(|| Error::invalid("the image has no list of layers"))?;
        let layer = layers.get(number).ok_or_else(|| {
            Error::invalid(format!("layer={number}: the image has {} layers, counted from 0", layers.len()))
        })?;
        let named = |e: Error| e.context(format!("layer {number}"));
        self.blob(layer, None).map_err(named)
    }

    /// What an image consists of.
    fn manifest(&self, name: Option<&str>) -> Result<Value> {
        let mut list = self.list(&self.directory.join("index.json"))?;
        let mut name = name;
        for _ in 0..DEEPEST {
            let Some(entries) = list["manifests"].as_array() else { return Ok(list) };
            let chosen = choose(entries, name.take())?;
            let mut file =
                self.blob(chosen, Some(LARGEST_LIST)).map_err(|e| e.context("the list of layers"))?;
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            list = parsed(&text)?;
        }
        Err(Error::invalid("lists name lists that name lists, and no image"))
    }

    fn list(&self, path: &Path) -> Result<Value> {
        let mut text = Vec::new();
        let named = |e: std::io::Error| Error::from(e).context(path.display());
        let file = File::open(path).map_err(named)?;
        file.take(LARGEST_LIST + 1).read_to_end(&mut text).map_err(named)?;
        parsed(&text).map_err(|e| e.context(path.display()))
    }

    /// The file that a descriptor means, if it is what the descriptor says.
    fn blob(&self, descriptor: &Value, most: Option<u64>) -> Result<File> {
        let digest = descriptor["digest"].as_str().unwrap_or_default();
        let (algorithm, expected) = digest.split_once(':').unwrap_or_default();
        let len = match algorithm {
            "sha256" => 64,
            "sha512" => 128,
            _ => return Err(Error::invalid(format!("digest {digest:?}: neither sha256 nor sha512"))),
        };
        if expected.len() != len || !expected.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(Error::invalid(format!("digest {digest:?}: not {len} hexadecimal digits")));
        }
        let path = match self.is_flat {
            true => self.directory.join(expected),
            false => self.directory.join("blobs").join(algorithm).join(expected),
        };
        let named = |e: std::io::Error| Error::from(e).context(digest);
        let mut file = File::open(&path).map_err(named)?;
        let found = file.metadata().map_err(named)?;
        if !found.is_file() {
            return Err(Error::invalid(format!("{}: not a file", path.display())));
        }
        let said = descriptor["size"].as_u64();
        if said.is_some_and(|said| said != found.len()) || most.is_some_and(|most| found.len() > most) {
            let said = said.map_or_else(|| "less".to_owned(), |said| said.to_string());
            return Err(Error::invalid(format!(
                "{digest}: {} bytes, not {said} as the image says",
                found.len()
            )));
        }
        let actual = match algorithm {
            "sha256" => digest_of::<Sha256>(&mut file),
            _ => digest_of::<Sha512>(&mut file),
        };
        if actual.map_err(named)? != expected {
            return Err(Error::invalid(format!(
                "{digest}: the file has another digest, so it is damaged or forged"
            )));
        }
        file.rewind().map_err(named)?;
        Ok(file)
    }
}

fn parsed(text: &[u8]) -> Result<Value> {
    if text.len() as u64 > LARGEST_LIST {
        return Err(Error::invalid("a list of more than 4 MiB"));
    }
    serde_json::from_slice(text).map_err(|e| Error::invalid(format!("not JSON: {e}")))
}

/// In hexadecimal digits.
fn digest_of<D: Digest>(file: &mut File) -> std::io::Result<String> {
    let mut digest = D::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            len => digest.update(&buffer[..len]),
        }
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The entry with this tag or digest; without one the only entry, or the only one for computers like this.
fn choose<'a>(entries: &'a [Value], name: Option<&str>) -> Result<&'a Value> {
    let tag =
        |entry: &Value| entry["annotations"]["org.opencontainers.image.ref.name"].as_str().map(str::to_owned);
    let digest = |entry: &Value| entry["digest"].as_str().unwrap_or_default().to_owned();
    let candidates: Vec<&Value> = match name {
        Some(name) => {
            let is_it = |entry: &&Value| {
                digest(entry) == name.trim_start_matches('@') || tag(entry).as_deref() == Some(name)
            };
            entries.iter().filter(is_it).collect()
        }
        None => entries.iter().collect(),
    };
    let here = |entry: &&&Value| {
        let platform = &entry["platform"];
        platform["os"] == "linux" && platform["architecture"] == architecture()
    };
    let only = |list: &[&'a Value]| if let [one] = list { Some(*one) } else { None };
    let fitting: Vec<&Value> = candidates.iter().filter(here).copied().collect();
    only(&candidates).or_else(|| only(&fitting)).ok_or_else(|| {
        let known: Vec<String> =
            entries.iter().map(|entry| tag(entry).unwrap_or_else(|| digest(entry))).collect();
        let known = known.join(", ");
        Error::invalid(match name {
            Some(name) if candidates.is_empty() => format!("there is no image {name:?}, but {known}"),
            _ => format!("there is not one image, but these: {known}; name one of them by name="),
        })
    })
}

/// This computer, as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}
