//! Whether what clients read is kept: a switch, or a file that switches it while the server runs.

use params::{Kind, Value, Wrong};
use std::path::{Path, PathBuf};

/// When reads are kept.
#[derive(Clone, Debug)]
pub(crate) enum OnRead {
    /// Never.
    Never,
    /// Always.
    Always,
    /// While this file exists.
    While(PathBuf),
}

impl Value for OnRead {
    const KIND: Kind = Kind::Other("on|off|/PATH");

    fn from_text(text: &str) -> std::result::Result<OnRead, Wrong> {
        if text.starts_with('/') {
            return Ok(OnRead::While(PathBuf::from(text)));
        }
        match bool::from_text(text) {
            Ok(true) => Ok(OnRead::Always),
            Ok(false) => Ok(OnRead::Never),
            Err(_) => Err("neither a switch (on or off) nor an absolute path".into()),
        }
    }
}

impl OnRead {
    /// Whether reads are kept now.
    pub(crate) fn now(&self) -> bool {
        match self {
            OnRead::Never => false,
            OnRead::Always => true,
            OnRead::While(path) => Path::exists(path),
        }
    }
}
