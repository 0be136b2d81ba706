//! `--selinux-label`: the label of the sockets that the server listens on.

use anyhow::{Context, Result};
use std::path::Path;

/// The kernel's switch for the label of sockets that this thread makes.
const SWITCH: &str = "/proc/thread-self/attr/sockcreate";

/// While it lives, sockets that this thread makes have the label.
#[must_use]
pub(crate) struct Labelling(());

impl Labelling {
    /// Begins; `None` where there is no SELinux.
    pub(crate) fn begin(label: &str) -> Result<Option<Labelling>> {
        if !Path::new("/sys/fs/selinux/enforce").exists() {
            return Ok(None);
        }
        std::fs::write(SWITCH, label)
            .with_context(|| format!("--selinux-label={label}: SELinux refuses it"))?;
        Ok(Some(Labelling(())))
    }
}

impl Drop for Labelling {
    fn drop(&mut self) {
        // An empty label is the usual one. It cannot fail where a label was just accepted.
        let _ = std::fs::write(SWITCH, "\0");
    }
}
