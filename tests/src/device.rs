//! Block devices over files.

use crate::{Run, skip};
use std::path::{Path, PathBuf};

/// A loop device, taken down again. What is set of one outlives it, so that is undone as well.
pub struct Loop(PathBuf);

impl Loop {
    /// One over this file. `None`: not here, which was said.
    pub fn over(file: &Path) -> Option<Loop> {
        let ended = Run::new("losetup").words("--find --show").arg(file).end();
        if !ended.status.success() {
            skip("needs loop devices, and root");
            return None;
        }
        Some(Loop(ended.text().trim_end().into()))
    }

    /// The device.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        Run::new("partx").arg("--delete").arg(&self.0).end();
        Run::new("blockdev").arg("--setrw").arg(&self.0).end();
        Run::new("losetup").arg("--detach").arg(&self.0).end();
    }
}
