//! A script or any other program as a disk.

use crate::common::script::{self, Persistent, Script, Spawn};
use disk::{Backend, Error, Plugin, Result, registry::Described};
use params::{Args, Param, ParamError, Params, Value};
use std::{
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// A disk whose methods are calls of a script or program.
#[derive(Params)]
#[expect(dead_code, reason = "only the table: what follows the script belongs to the script")]
struct Declared {
    /// The script or program, which must be executable; `-` reads a script from standard input. This is the first
    /// parameter. Everything behind it is the script's own.
    #[param(magic)]
    script: PathBuf,
    /// Start the script once and have it answer all calls, as told under PERSISTENT SCRIPTS. Stands before the script.
    #[param(default = "false")]
    persistent: bool,
}

/// All parameters as they stood.
pub(crate) struct Sh(Vec<(String, String)>);

impl Params for Sh {
    const SUMMARY: &'static str = Declared::SUMMARY;
    const DETAILS: &'static str = Declared::DETAILS;
    const PARAMS: &'static [Param] = Declared::PARAMS;

    fn parse(args: &mut Args) -> std::result::Result<Self, ParamError> {
        Ok(Sh(args.take_rest()))
    }
}

impl Sh {
    /// The script, loaded and given its parameters.
    fn load(self) -> Result<Script> {
        let mut pairs = self.0.into_iter().peekable();
        let mut persistent = false;
        while let Some((key, value)) = pairs.next_if(|(key, _)| key == "persistent") {
            let wrong = |wrong: params::Wrong| Error::invalid(format!("{key}={value}: {}", wrong.0));
            persistent = bool::from_text(&value).map_err(wrong)?;
        }
        let Some((_, named)) = pairs.next_if(|(key, _)| key == "script") else {
            return Err(Error::invalid(match pairs.peek() {
                Some((key, _)) => {
                    format!("{key}=: the first parameter must be the script: script=/path/to/script")
                }
                None => "script is required: script=/path/to/script, or - for standard input".to_owned(),
            }));
        };
        let tmpdir = script::directory()?;
        let mut directories = vec![];
        let program = match named.as_str() {
            "-" => {
                let own = script::directory()?;
                let path = own.path().join("script");
                inline(&path)?;
                directories.push(own);
                path
            }
            path => find(path)?,
        };
        let program = Spawn::new(program, tmpdir.path());
        directories.push(tmpdir);
        let script = match persistent {
            true => Script::new(Persistent::new(program), directories),
            false => Script::new(program, directories),
        };
        script.load()?;
        let magic = script.magic_key()?;
        for (key, value) in pairs {
            // Only bare arguments have the key that the table calls magic.
            let key = match key.as_str() {
                "script" => magic.as_deref().ok_or_else(|| {
                    Error::invalid(format!(
                        "{value}: expected key=value: the script has no method magic_config_key"
                    ))
                })?,
                key => key,
            };
            script.configure(key, &value)?;
        }
        Ok(script)
    }
}

impl Plugin for Sh {
    const NAME: &'static str = "sh";
    const MANUAL: &'static str = include_str!("sh.md");
    const DUMP: &'static [(&'static str, &'static str)] = script::DUMP;

    fn start(self) -> Result<impl Backend + 'static> {
        self.load()?.complete()
    }

    fn describe(self) -> Result<Described> {
        self.load()?.describe()
    }
}

/// The program that is meant, with all links followed: the server's directory will be another one.
fn find(path: &str) -> Result<PathBuf> {
    let named = |e: std::io::Error| Error::from(e).context(format!("script={path}"));
    let program = std::fs::canonicalize(path).map_err(named)?;
    let found = std::fs::metadata(&program).map_err(named)?;
    if !found.is_file() {
        return Err(Error::invalid(format!("script={path}: not a file")));
    }
    if found.permissions().mode() & 0o111 == 0 {
        return Err(Error::invalid(format!("script={path}: not executable; try chmod +x {path}")));
    }
    Ok(program)
}

/// Keeps the script that comes on standard input there.
fn inline(path: &Path) -> Result<()> {
    let mut text = Vec::new();
    let written = std::io::stdin().read_to_end(&mut text).and_then(|_| {
        std::fs::write(path, &text)?;
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o700))
    });
    written.map_err(|e| Error::from(e).context("script=-: reading standard input"))?;
    if text.is_empty() {
        let why = "script=-: there is no script on standard input (with -s it is the client's)";
        return Err(Error::invalid(why));
    }
    Ok(())
}
