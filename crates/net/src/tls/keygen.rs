//! Makes keys: what `diskpipe keygen` does.

use super::{
    CA_CERT, CA_KEY, CLIENT_CERT, CLIENT_KEY, CertificateWishes, SERVER_CERT, SERVER_KEY, reason, unreadable,
};
use openssl::{
    asn1::Asn1Time,
    bn::{BigNum, MsbOption},
    error::ErrorStack,
    hash::MessageDigest,
    pkey::{PKey, Private},
    rsa::Rsa,
    x509::{
        X509, X509Builder, X509Name, X509Ref,
        extension::{
            AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
            SubjectKeyIdentifier,
        },
    },
};
use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// As strong as AES-128, and understood by everybody.
const RSA_BITS: u32 = 3072;
/// As long as the hash of the suites that work with it.
const PSK_BYTES: usize = 32;
/// Clocks differ.
const BEFORE_NOW: i64 = 3600;

/// Makes an authority, a server's and a client's certificate, and their keys, in `dir`, which is made if it is not there. Returns the
/// files, in the order in which they were made. Keys can be read by their owner only.
///
/// # Errors
/// A sentence: one of the files is there already (then nothing is made), or cannot be written.
pub fn make_certificates(dir: &Path, wishes: &CertificateWishes) -> io::Result<Vec<PathBuf>> {
    let files =
        [CA_KEY, CA_CERT, SERVER_KEY, SERVER_CERT, CLIENT_KEY, CLIENT_CERT].map(|name| dir.join(name));
    if let Some(there) = files.iter().find(|file| file.symlink_metadata().is_ok()) {
        return Err(exists(there));
    }
    let pems = pems(wishes).map_err(|e| io::Error::other(reason::setup(&e)))?;
    fs::create_dir_all(dir).map_err(|e| unreadable(dir, &e))?;
    for (file, pem) in files.iter().zip(&pems) {
        let mode = if file.to_string_lossy().ends_with("key.pem") { 0o600 } else { 0o644 };
        write(file, pem, mode)?;
    }
    Ok(files.into())
}

/// Makes a file `keys.psk` with a key for `user`, in `dir`, or adds the user to it. Returns the file, which its owner only can read.
///
/// # Errors
/// A sentence: the user has a key already, is no name for such a file, or the file cannot be written.
pub fn make_key(dir: &Path, user: &str) -> io::Result<PathBuf> {
    if user.is_empty() || user.contains([':', '\n', '\r', '\0']) || user.starts_with('#') {
        let why = format!("{user:?}: not the name of a user, such as alice");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let file = dir.join("keys.psk");
    let mut key = [0; PSK_BYTES];
    openssl::rand::rand_bytes(&mut key).map_err(|e| io::Error::other(reason::setup(&e)))?;
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    fs::create_dir_all(dir).map_err(|e| unreadable(dir, &e))?;
    let line = format!("{user}:{hex}\n");
    if !file.exists() {
        write(&file, line.as_bytes(), 0o600)?;
        return Ok(file);
    }
    if super::psk::read(&file)?.iter().any(|(known, _)| known == user.as_bytes()) {
        let why = format!("{}: the user {user:?} has a key there already", file.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
    }
    let text = fs::read(&file).map_err(|e| unreadable(&file, &e))?;
    let line = if text.ends_with(b"\n") { line } else { format!("\n{line}") };
    let mut added = OpenOptions::new().append(true).open(&file).map_err(|e| unreadable(&file, &e))?;
    added.write_all(line.as_bytes()).map_err(|e| unreadable(&file, &e))?;
    Ok(file)
}

fn exists(file: &Path) -> io::Error {
    let why = format!("{}: exists already, and keys are not overwritten", file.display());
    io::Error::new(io::ErrorKind::AlreadyExists, why)
}

fn write(file: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(file);
    let mut made = made.map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => exists(file),
        _ => unreadable(file, &e),
    })?;
    made.write_all(bytes).map_err(|e| unreadable(file, &e))
}

/// In the order of the files.
fn pems(wishes: &CertificateWishes) -> Result<[Vec<u8>; 6], ErrorStack> {
    let main = wishes.names.first().map_or("localhost", String::as_str);
    let authority_name = name(&format!("diskpipe authority of {main}"))?;
    let [authority_key, server_key, client_key] = keys()?;
    let mut authority = begin(&authority_name, &authority_name, &authority_key, wishes.days)?;
    authority.append_extension(BasicConstraints::new().critical().ca().build()?)?;
    authority.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build()?)?;
    let id = SubjectKeyIdentifier::new().build(&authority.x509v3_context(None, None))?;
    authority.append_extension(id)?;
    authority.sign(&authority_key, MessageDigest::sha256())?;
    let authority = authority.build();

    let issue = |subject: &str, key: &PKey<Private>, server: bool| -> Result<X509, ErrorStack> {
        let mut made = begin(&name(subject)?, &authority_name, key, wishes.days)?;
        made.append_extension(BasicConstraints::new().critical().build()?)?;
        made.append_extension(KeyUsage::new().critical().digital_signature().key_encipherment().build()?)?;
        let mut usage = ExtendedKeyUsage::new();
        let usage = if server { usage.server_auth() } else { usage.client_auth() };
        made.append_extension(usage.build()?)?;
        if server {
            let mut names = SubjectAlternativeName::new();
            for name in &wishes.names {
                match name.parse::<IpAddr>() {
                    Ok(_) => names.ip(name),
                    Err(_) => names.dns(name),
                };
            }
            made.append_extension(names.build(&made.x509v3_context(Some(&authority), None))?)?;
        }
        add_ids(&mut made, &authority)?;
        made.sign(&authority_key, MessageDigest::sha256())?;
        Ok(made.build())
    };
    let server = issue(main, &server_key, true)?;
    let client = issue(&wishes.user, &client_key, false)?;
    Ok([
        authority_key.private_key_to_pem_pkcs8()?,
        authority.to_pem()?,
        server_key.private_key_to_pem_pkcs8()?,
        server.to_pem()?,
        client_key.private_key_to_pem_pkcs8()?,
        client.to_pem()?,
    ])
}

/// Three keys, made at the same time: a prime number may take a while to find.
fn keys() -> Result<[PKey<Private>; 3], ErrorStack> {
    let make = || PKey::from_rsa(Rsa::generate(RSA_BITS)?);
    std::thread::scope(|scope| {
        let [b, c] = [scope.spawn(make), scope.spawn(make)];
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().unwrap_or_else(|_| make());
        Ok([make()?, join(b)?, join(c)?])
    })
}

fn begin(
    subject: &X509Name,
    issuer: &X509Name,
    key: &PKey<Private>,
    days: u32,
) -> Result<X509Builder, ErrorStack> {
    let mut made = X509::builder()?;
    made.set_version(2)?; // which means 3
    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::MAYBE_ZERO, false)?;
    made.set_serial_number(&*serial.to_asn1_integer()?)?;
    made.set_subject_name(subject)?;
    made.set_issuer_name(issuer)?;
    made.set_pubkey(key)?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    made.set_not_before(&*Asn1Time::from_unix(now.as_secs() as i64 - BEFORE_NOW)?)?;
    made.set_not_after(&*Asn1Time::days_from_now(days)?)?;
    Ok(made)
}

fn add_ids(made: &mut X509Builder, authority: &X509Ref) -> Result<(), ErrorStack> {
    let (own, issuer) = {
        let context = made.x509v3_context(Some(authority), None);
        let mut issuer = AuthorityKeyIdentifier::new();
        (SubjectKeyIdentifier::new().build(&context)?, issuer.keyid(true).build(&context)?)
    };
    made.append_extension(own)?;
    made.append_extension(issuer)
}

fn name(common: &str) -> Result<X509Name, ErrorStack> {
    let mut name = X509Name::builder()?;
    name.append_entry_by_text("CN", common)?;
    Ok(name.build())
}
