//! What is taken when nobody says where certificates are, or who somebody is.

use super::{CA_CERT, SERVER_CERT};
use std::path::PathBuf;

/// Below the user's home, or for root below `/etc`: our own directory, then the one that people have already.
fn places(others: &str) -> Vec<PathBuf> {
    let bases: Vec<PathBuf> = if rustix::process::geteuid().is_root() {
        vec!["/etc/pki".into()]
    } else {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        home.into_iter().flat_map(|home| [home.join(".pki"), home.join(".config/pki")]).collect()
    };
    bases.into_iter().flat_map(|base| [base.join("diskpipe"), base.join(others)]).collect()
}

/// Where a server looks for its certificates.
pub fn server_places() -> Vec<PathBuf> {
    places("nbdkit")
}

/// The first of the usual places that has a server's certificate.
pub fn server_directory() -> Option<PathBuf> {
    server_places().into_iter().find(|dir| dir.join(SERVER_CERT).exists())
}

/// The first of the usual places that tells a client whom to trust.
pub fn client_directory() -> Option<PathBuf> {
    places("libnbd").into_iter().find(|dir| dir.join(CA_CERT).exists())
}

/// The user that a client is when nobody says which: the one who is logged in. Empty if there is none.
pub fn default_user() -> String {
    let set = |name: &str| std::env::var(name).ok().filter(|name| !name.is_empty());
    let listed = || {
        let id = rustix::process::getuid().as_raw().to_string();
        let list = std::fs::read_to_string("/etc/passwd").ok()?;
        let line = list.lines().find(|line| line.split(':').nth(2) == Some(&id))?;
        line.split(':').next().map(str::to_owned)
    };
    set("LOGNAME").or_else(|| set("USER")).or_else(listed).unwrap_or_default()
}
