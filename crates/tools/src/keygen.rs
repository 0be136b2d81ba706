//! `keygen`: a working set of keys for TLS, in one line.

use crate::command_line;
use anyhow::{Result, bail};
use clap::{CommandFactory, Parser, ValueEnum};
use net::tls::{self, CertificateWishes};
use std::{ffi::OsString, net::IpAddr, path::PathBuf, process::ExitCode};

/// Make keys for TLS: a server's, a client's, and what makes them trust each other.
#[derive(Parser, Debug)]
#[command(
    name = "keygen",
    infer_long_args = true,
    args_override_self = true,
    disable_version_flag = true,
    override_usage = "diskpipe keygen psk|x509 [OPTIONS] [DIRECTORY]"
)]
struct Options {
    /// How long the certificates are valid, in days.
    #[arg(long, value_name = "DAYS", default_value_t = 1095, value_parser = clap::value_parser!(u32).range(1..=36500))]
    days: u32,

    /// A name or address of the server, as clients will call it; may be given several times. localhost and its
    /// addresses are always among them. By default this host's name.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,

    /// The client's user name. By default the one who is logged in, which is the one that clients use who say
    /// nothing else.
    #[arg(long, value_name = "USER")]
    user: Option<String>,

    /// What kind of keys.
    #[arg(value_enum, value_name = "KIND")]
    kind: Kind,

    /// Where to put them. It is made if it does not exist.
    #[arg(value_name = "DIRECTORY", default_value = ".")]
    directory: PathBuf,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A secret that server and client share: keys.psk.
    Psk,
    /// Certificates: an authority's, a server's and a client's, and their private keys.
    X509,
}

/// The options, for manual pages and completions.
pub fn command() -> clap::Command {
    Options::command()
}

/// Runs the tool. The first argument is the name that it was started under.
pub fn main(args: Vec<OsString>) -> ExitCode {
    command_line::run(args, "diskpipe keygen", command(), |_, options: Options| {
        command_line::print(&make(&options)?)
    })
}

/// Makes the keys, and says which files they are and how they are used.
fn make(options: &Options) -> Result<String> {
    let user = options.user.clone().unwrap_or_else(tls::default_user);
    if user.is_empty() {
        bail!(match options.user {
            Some(_) => "--user needs a name, such as alice",
            None => "--user is needed: nobody is logged in here",
        });
    }
    let dir = &options.directory;
    let shown = dir.display();
    let (files, serve, connect) = match options.kind {
        Kind::Psk => {
            let file = tls::make_key(dir, &user)?;
            let serve = format!("--tls-psk={}", file.display());
            let connect = format!("nbds://{user}@localhost/?tls-psk-file={}", file.display());
            (vec![file], serve, connect)
        }
        Kind::X509 => {
            let wishes =
                CertificateWishes { names: names(&options.names, host_name())?, user, days: options.days };
            let files = tls::make_certificates(dir, &wishes)?;
            let serve = format!("--tls-certificates={shown}");
            (files, serve, format!("nbds://localhost/?tls-certificates={shown}"))
        }
    };
    let mut text = String::new();
    for file in &files {
        text += &format!("{}\n", file.display());
    }
    text += &format!("\nserve with:    diskpipe serve --tls=require {serve} ...\n");
    text += &format!("connect with:  {connect}\n");
    Ok(text)
}

/// All names of the server, the main one first.
fn names(given: &[String], host: Option<String>) -> Result<Vec<String>> {
    let mut names: Vec<String> = given.to_vec();
    if names.is_empty() {
        names.extend(host);
    }
    for name in &names {
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.*".contains(&b))
        };
        if name.parse::<IpAddr>().is_err() && !is_name(name) {
            bail!("--name={name}: neither a host name such as disks.example.com nor an address");
        }
    }
    for local in ["localhost", "127.0.0.1", "::1"] {
        if !names.iter().any(|name| name == local) {
            names.push(local.to_owned());
        }
    }
    Ok(names)
}

fn host_name() -> Option<String> {
    let name = rustix::system::uname().nodename().to_str().ok()?.to_owned();
    names(std::slice::from_ref(&name), None).is_ok().then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn made(kind: Kind, directory: &Path) -> Result<String> {
        let names = vec!["disks.example.com".to_owned()];
        make(&Options { days: 3, names, user: Some("alice".into()), kind, directory: directory.into() })
    }

    #[test]
    fn the_names_are_those_given_or_the_hosts_and_always_localhost() {
        let of = |given: &[&str]| {
            let given: Vec<String> = given.iter().map(|name| (*name).to_owned()).collect();
            names(&given, Some("here".into())).unwrap().join(" ")
        };
        assert_eq!(of(&[]), "here localhost 127.0.0.1 ::1");
        assert_eq!(of(&["a.example", "10.0.0.1"]), "a.example 10.0.0.1 localhost 127.0.0.1 ::1");
        assert_eq!(of(&["localhost"]), "localhost 127.0.0.1 ::1");
        assert!(names(&["a b".into()], None).is_err());
    }

    #[test]
    fn what_was_made_and_how_to_use_it_is_printed() {
        if !tls::BUILT {
            let error = made(Kind::Psk, Path::new("/nonexistent")).unwrap_err().to_string();
            return assert!(error.ends_with("build it with the cargo feature `tls`"), "{error}");
        }
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("new/keys");
        let text = made(Kind::Psk, &keys).unwrap().replace(&keys.display().to_string(), "KEYS");
        let expected = "KEYS/keys.psk\n\n\
                        serve with:    diskpipe serve --tls=require --tls-psk=KEYS/keys.psk ...\n\
                        connect with:  nbds://alice@localhost/?tls-psk-file=KEYS/keys.psk\n";
        assert_eq!(text, expected);
        let text = made(Kind::X509, &keys).unwrap();
        assert_eq!(text.lines().filter(|line| line.ends_with(".pem")).count(), 6, "{text}");
        assert!(made(Kind::X509, &keys).is_err());
    }
}
