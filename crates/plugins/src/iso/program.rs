//! A CD that another program makes, as a file without a name.

use crate::{common::fresh, file::FileDisk};
use disk::{Disk, Error, Result};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

/// Runs the program with these options, as the shell understands them.
pub(super) fn make(program: &str, params: &str, directories: &[PathBuf]) -> Result<Arc<dyn Disk>> {
    let parent = fresh::temporary_directory();
    let image = tempfile::tempfile_in(&parent).map_err(|e| Error::from(e).context(parent.display()))?;
    // It has a language of its own, unless it is asked for mkisofs's.
    let is_xorriso = Path::new(program).file_name().is_some_and(|name| name == "xorriso");
    let as_mkisofs = if is_xorriso { "-as mkisofs" } else { "" };
    let script = format!("exec \"$0\" {as_mkisofs} -quiet {params} \"$@\"");
    let status = Command::new("/bin/sh")
        .args(["-c", &script, program])
        .args(directories)
        .stdin(Stdio::null())
        .stdout(image.try_clone()?)
        .status()?;
    match status.code() {
        Some(127) => return Err(Error::invalid(format!("prog={program}: there is no such program"))),
        _ => fresh::must(status, &format!("prog={program}"))?,
    }
    if image.metadata()?.len() == 0 {
        return Err(Error::io(format!("prog={program}: succeeded but wrote nothing")));
    }
    Ok(Arc::new(FileDisk::open(image.into(), false)?))
}
