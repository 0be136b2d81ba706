//! A layer of a container image: found in a directory of the OCI's layout, or fetched by podman into one.

mod store;

use crate::{
    common::{fresh, one_disk::MadeDisk},
    file::FileDisk,
};
use disk::{Backend, Disk, Error, Plugin, Result};
use params::Params;
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};
use store::Store;

/// Serve a layer of a container image.
#[derive(Params)]
pub(crate) struct Cdi {
    /// The image, as `podman pull` names it. With `layout`: its tag or digest there, where there are several.
    #[param(magic, placeholder = "NAME[:TAG|@DIGEST]")]
    name: Option<String>,
    /// Which layer of the image, counted from 0.
    #[param(default = "0")]
    layer: u32,
    /// A directory with images in the layout of the OCI. Nothing is fetched, and podman is not needed.
    #[param(placeholder = "DIRECTORY")]
    layout: Option<PathBuf>,
}

impl Plugin for Cdi {
    const NAME: &'static str = "cdi";
    const MANUAL: &'static str = include_str!("cdi.md");

    fn start(self) -> Result<impl Backend + 'static> {
        let layer = self.layer as usize;
        let from = match (self.layout, self.name) {
            (Some(layout), name) => From::Layout(layout, name),
            (None, Some(name)) if name.starts_with('-') || name.is_empty() => {
                return Err(Error::invalid(format!("name={name}: not the name of an image")));
            }
            (None, Some(name)) => From::Podman(name),
            (None, None) => {
                return Err(Error::invalid("you must supply the name of an image, or the layout= parameter"));
            }
        };
        Ok(MadeDisk::by(move || from.disk(layer)))
    }
}

/// Where the image comes from.
enum From {
    /// A directory, and which of the images in it.
    Layout(PathBuf, Option<String>),
    Podman(String),
}

impl From {
    fn disk(&self, layer: usize) -> Result<Arc<dyn Disk>> {
        let file = match self {
            From::Layout(directory, name) => {
                let named = |e: Error| e.context(format!("layout={}", directory.display()));
                Store::open(directory).and_then(|store| store.layer(name.as_deref(), layer)).map_err(named)?
            }
            From::Podman(name) => {
                let parent = fresh::temporary_directory();
                let own = fresh::private_directory(&parent, "diskpipe-");
                let own = own.map_err(|e| Error::from(e).context(parent.display()))?;
                let saved = own.path().join("image");
                let said = podman(&["pull", name])?;
                // The image's id comes last. Under the name that it was pulled by it is not always found again.
                let id = said.lines().last().filter(|id| id.len() == 64).unwrap_or(name);
                podman(&["save", "--format", "oci-dir", "-o", &path(&saved)?, id])?;
                // The file stays while it is open; all else goes with the directory.
                let layer = Store::open(&saved).and_then(|store| store.layer(None, layer));
                layer.map_err(|e| e.context(name))?
            }
        };
        Ok(Arc::new(FileDisk::open(file.into(), false)?))
    }
}

fn path(path: &Path) -> Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Error::invalid(format!("{}: not UTF-8", path.display())))
}

/// What it said on standard output.
fn podman(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("podman");
    let output = command.args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output
        .map_err(|e| Error::from(e).context("the program podman is needed (or the parameter layout=)"))?;
    fresh::must(output.status, &format!("podman {}", arguments[0]))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests;
