//! Files that hold a new file system, or whatever a command of the user's makes: what tmpdisk and ondemand serve.

use disk::{Error, Result};
use params::Size;
use std::{
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};
use tempfile::TempDir;

/// How the file is made.
pub(crate) struct Recipe {
    /// In bytes; a command may choose otherwise.
    size: u64,
    file_system: String,
    label: Option<String>,
    /// The whole script: the variables and the user's command.
    script: Option<String>,
}

impl Recipe {
    /// `file_system` is what `mkfs -t` understands. `others` are the user's own parameters, which only a command makes
    /// use of.
    ///
    /// # Errors
    /// A sentence that names the parameter.
    pub(crate) fn new(
        size: Size,
        file_system: String,
        label: Option<String>,
        command: Option<&str>,
        others: &[(String, String)],
    ) -> Result<Recipe> {
        let named = |text: &str| !text.is_empty() && !text.starts_with('-') && !text.contains(['/', '\0']);
        if !named(&file_system) {
            return Err(Error::invalid(format!("type={file_system}: not the name of a file system")));
        }
        if command.is_none() {
            if let Some((key, _)) = others.first() {
                return Err(Error::invalid(format!(
                    "unknown parameter '{key}' (variables are for command=)"
                )));
            }
            if size.bytes() == 0 {
                return Err(Error::invalid("size=0: a file system needs room, unless command= makes it"));
            }
        }
        let mut script = String::new();
        let given = [("type", Some(&file_system)), ("label", label.as_ref())];
        for (key, value) in given.into_iter().chain(others.iter().map(|(k, v)| (k.as_str(), Some(v)))) {
            if !is_variable(key) {
                return Err(Error::invalid(format!(
                    "{key}: not a name that a variable of the shell can have"
                )));
            }
            script += &format!("{key}={}\n", value.map_or(String::new(), |value| quoted(value)));
        }
        script += &format!("size={}\n", size.bytes());
        let script = command.map(|command| format!("{script}{command}\n"));
        Ok(Recipe { size: size.bytes(), file_system, label, script })
    }

    /// Makes the file, which is not there yet. It may take a while.
    ///
    /// # Errors
    /// What failed; what the program said is on standard error.
    pub(crate) fn make(&self, file: &Path) -> Result<()> {
        match &self.script {
            Some(script) => {
                let disk =
                    file.to_str().ok_or_else(|| Error::invalid("the path of the disk is not UTF-8"))?;
                let script = format!("disk={}\n{script}", quoted(disk));
                let status = run(Command::new("/bin/sh").args(["-c", &script]), "/bin/sh")?;
                must(status, "command=")?;
                match file.exists() {
                    true => Ok(()),
                    false => Err(Error::io("command= succeeded but made no file \"$disk\"")),
                }
            }
            None => {
                std::fs::File::create_new(file).and_then(|made| made.set_len(self.size))?;
                let mut mkfs = Command::new("mkfs");
                mkfs.args(["-t", &self.file_system]).args(options(&self.file_system));
                if let Some(label) = &self.label {
                    mkfs.args([label_option(&self.file_system), label]);
                }
                let status = run(mkfs.arg(file).env("PATH", path_of_administrators()), "mkfs")?;
                must(status, &format!("mkfs -t {}", self.file_system))
            }
        }
    }
}

/// The directory for what is not to outlive the server: `$TMPDIR`, or `/var/tmp`, which is not memory.
pub(crate) fn temporary_directory() -> PathBuf {
    let given = std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty());
    given.map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}

/// A new directory that nobody else can look into, whatever the umask: what is served is the clients' business.
///
/// # Errors
/// It cannot be made in `parent`.
pub(crate) fn private_directory(parent: &Path, prefix: &str) -> std::io::Result<TempDir> {
    let for_us = std::fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().prefix(prefix).permissions(for_us).tempdir_in(parent)
}

/// `$PATH` and where administrators' programs are, which users often have not in theirs.
pub(crate) fn path_of_administrators() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

/// Runs a program that has nothing to say on standard output, which may be a client's connection.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn run(command: &mut Command, name: &str) -> Result<ExitStatus> {
    let stderr = std::io::stderr().as_fd().try_clone_to_owned()?;
    let status = command.stdin(Stdio::null()).stdout(stderr).status();
    status.map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::from(e).context(format!("the program {name} is needed")),
        _ => Error::from(e).context(name),
    })
}

/// # Errors
/// Unless the program succeeded.
pub(crate) fn must(status: ExitStatus, what: &str) -> Result<()> {
    match status.success() {
        true => Ok(()),
        false => Err(Error::io(format!("{what}: failed ({status})"))),
    }
}

/// Whether the shell can have a variable of this name.
fn is_variable(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// One word of the shell, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// What makes `mkfs` write into a file without asking, and say little.
fn options(file_system: &str) -> &'static [&'static str] {
    match file_system {
        "ext2" | "ext3" | "ext4" => &["-q", "-F"],
        "xfs" | "btrfs" => &["-q", "-f"],
        "ntfs" => &["-q", "-Q", "-F"],
        "f2fs" | "reiserfs" | "nilfs2" => &["-q", "-f"],
        _ => &[],
    }
}

fn label_option(file_system: &str) -> &'static str {
    match file_system {
        "vfat" | "fat" | "msdos" => "-n",
        "f2fs" | "reiserfs" => "-l",
        _ => "-L",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(command: Option<&str>, others: &[(&str, &str)]) -> Result<Recipe> {
        let others: Vec<_> = others.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let size = Size::new(4096).unwrap();
        Recipe::new(size, "ext4".into(), Some("it's".into()), command, &others)
    }

    #[test]
    fn a_command_has_every_parameter_as_a_variable_whatever_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a 'quoted' \"name\" $HOME");
        let command = r#"printf '%s|' "$size" "$type" "$label" "$own" > "$disk"; size=7"#;
        recipe(Some(command), &[("own", "$(exit 1) `x` \\ '")]).unwrap().make(&file).unwrap();
        assert_eq!(std::fs::read_to_string(file).unwrap(), "4096|ext4|it's|$(exit 1) `x` \\ '|");
    }

    #[test]
    fn commands_that_fail_or_make_nothing_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let make = |command| recipe(Some(command), &[]).unwrap().make(&dir.path().join("disk"));
        assert_eq!(make("exit 3").unwrap_err().to_string(), "command=: failed (exit status: 3)");
        assert!(make("kill -9 $$").unwrap_err().to_string().contains("signal"));
        let error = make("true").unwrap_err().to_string();
        assert_eq!(error, "command= succeeded but made no file \"$disk\"");
    }

    #[test]
    fn what_cannot_be_a_variable_is_refused() {
        let wrong = |command, name: &str| recipe(command, &[(name, "x")]).err().unwrap().to_string();
        assert_eq!(wrong(None, "os"), "unknown parameter 'os' (variables are for command=)");
        for name in ["a-b", "1a", "a b", "ä"] {
            assert!(wrong(Some(":"), name).ends_with("not a name that a variable of the shell can have"));
        }
    }
}
