//! Keys and rules, read once, and the handshake of a connection under them.

use super::{
    CA_CERT, CA_CRL, CLIENT_CERT, CLIENT_KEY, ClientSettings, Keys, SERVER_CERT, SERVER_KEY, ServerSettings,
    TlsFacts, client_directory, default_user, priority, psk, reason,
    session::{Pipe, Session},
    unreadable,
};
use crate::stream::Kind;
use openssl::{
    dh::Dh,
    error::ErrorStack,
    ex_data::Index,
    pkey::PKey,
    ssl::{
        ErrorCode, Ssl, SslContext, SslContextBuilder, SslFiletype, SslMethod, SslOptions, SslRef,
        SslSessionCacheMode, SslStream, SslVerifyMode, SslVersion,
    },
    x509::{
        X509, X509Name, X509NameRef, X509Ref, X509StoreContextRef, X509VerifyResult,
        store::{X509Lookup, X509StoreBuilder},
        verify::{X509CheckFlags, X509VerifyFlags},
    },
};
use std::{
    fmt, fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

/// A server's side of TLS.
#[derive(Clone)]
pub struct Server {
    context: SslContext,
    /// For sentences about clients' certificates.
    authority: Arc<Path>,
    verify: bool,
}

/// A client's side of TLS.
#[derive(Clone)]
pub struct Client {
    context: SslContext,
    settings: ClientSettings,
    /// For sentences about the server's certificate.
    authority: Arc<Path>,
    psk: bool,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("authority", &self.authority).field("verify", &self.verify).finish()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("settings", &self.settings).finish()
    }
}

fn other(e: &ErrorStack) -> io::Error {
    io::Error::other(reason::setup(e))
}

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why.into())
}

/// What a handshake learns on its way, for the log and for errors.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Noted>>);

#[derive(Default)]
struct Noted {
    /// The reason for a refusal, better than OpenSSL's.
    why: Option<String>,
    user: Option<String>,
}

impl Notes {
    fn with<T>(&self, f: impl FnOnce(&mut Noted) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn index() -> io::Result<Index<Ssl, Notes>> {
        static INDEX: OnceLock<Result<Index<Ssl, Notes>, String>> = OnceLock::new();
        let index = INDEX.get_or_init(|| Ssl::new_ex_index().map_err(|e| e.to_string()));
        index.clone().map_err(io::Error::other)
    }

    fn of(ssl: &SslRef) -> Option<&Notes> {
        Notes::index().ok().and_then(|index| ssl.ex_data(index))
    }
}

fn builder(priority: Option<&str>, psk: bool) -> io::Result<SslContextBuilder> {
    let choice = priority::choose(priority, psk).map_err(invalid)?;
    let configured = || -> Result<SslContextBuilder, ErrorStack> {
        let mut context = SslContextBuilder::new(SslMethod::tls())?;
        let (min, max) = (
            if choice.tls12 { SslVersion::TLS1_2 } else { SslVersion::TLS1_3 },
            if choice.tls13 { SslVersion::TLS1_3 } else { SslVersion::TLS1_2 },
        );
        context.set_min_proto_version(Some(min))?;
        context.set_max_proto_version(Some(max))?;
        if choice.tls12 {
            context.set_cipher_list(&choice.list12)?;
        }
        if choice.tls13 {
            context.set_ciphersuites(&choice.list13)?;
        }
        if let Some(groups) = &choice.groups {
            context.set_groups_list(groups)?;
        }
        // Connections live long and are few: nothing is gained by tickets to resume them.
        context.set_options(
            SslOptions::NO_TICKET
                | SslOptions::NO_RENEGOTIATION
                | SslOptions::NO_COMPRESSION
                | SslOptions::CIPHER_SERVER_PREFERENCE,
        );
        context.set_session_cache_mode(SslSessionCacheMode::OFF);
        context.set_num_tickets(0)?;
        Ok(context)
    };
    configured().map_err(|e| other(&e))
}

impl Server {
    /// Reads the keys.
    ///
    /// # Errors
    /// A sentence that names the file which is missing or wrong, or what is wrong with the priorities.
    pub fn new(settings: &ServerSettings) -> io::Result<Server> {
        let psk = matches!(settings.keys, Keys::Psk(_));
        let mut context = builder(settings.priority.as_deref(), psk)?;
        let mut authority = PathBuf::new();
        match &settings.keys {
            Keys::Psk(file) => {
                if settings.verify_peer {
                    return Err(invalid("clients with pre-shared keys have no certificates to verify"));
                }
                let file = file.clone();
                let users = psk::read(&file)?;
                context.set_psk_server_callback(move |ssl, user, key| {
                    // As the file is now, or as it was when the server could still read it.
                    let now = psk::read(&file);
                    let users = now.as_ref().unwrap_or(&users);
                    Ok(psk_for(ssl, user.unwrap_or_default(), users, &file, key))
                });
                // Without these, TLS 1.2 has no DHE-PSK.
                let dh = Dh::get_2048_256().and_then(|dh| context.set_tmp_dh(&dh));
                dh.map_err(|e| other(&e))?;
            }
            Keys::Certificates(dir) => {
                own_certificate(&mut context, &dir.join(SERVER_CERT), &dir.join(SERVER_KEY))?;
                authority = dir.join(CA_CERT);
                if settings.verify_peer {
                    trust(&mut context, &authority, &dir.join(CA_CRL))?;
                    let names = X509Name::load_client_ca_file(&authority).map_err(|e| other(&e))?;
                    context.set_client_ca_list(names);
                    context.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
                }
            }
        }
        Ok(Server { context: context.build(), authority: authority.into(), verify: settings.verify_peer })
    }

    pub(crate) fn handshake(&self, kind: &Kind) -> io::Result<Session> {
        let mut ssl = Ssl::new(&self.context).map_err(|e| other(&e))?;
        let notes = Notes::default();
        if self.verify {
            let (notes, authority) = (notes.clone(), self.authority.clone());
            let mode = SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT;
            ssl.set_verify_callback(mode, move |good, chain| {
                if !good {
                    notes.with(|noted| noted.why = Some(distrust(chain, "the client", &authority, None)));
                }
                good
            });
        }
        ssl.set_accept_state();
        shake_hands(kind, ssl, notes, "the client")
    }
}

impl Client {
    /// Reads the keys.
    ///
    /// # Errors
    /// A sentence that names the file which is missing or wrong, or what is wrong with the priorities.
    pub fn new(settings: &ClientSettings) -> io::Result<Client> {
        let psk = settings.psk_file.is_some();
        let mut context = builder(settings.priority.as_deref(), psk)?;
        let mut authority = PathBuf::from("those that this system trusts");
        if let Some(file) = &settings.psk_file {
            let user = settings.user.clone().unwrap_or_else(default_user);
            let users = psk::read(file)?;
            let Some((user, key)) = users.into_iter().find(|(known, _)| known == user.as_bytes()) else {
                return Err(invalid(format!("{}: there is no key for the user {user:?}", file.display())));
            };
            context.set_psk_client_callback(move |_, _, name, into| {
                // The name must end with a NUL byte.
                if name.len() <= user.len() || into.len() < key.len() {
                    return Ok(0);
                }
                name[..user.len()].copy_from_slice(&user);
                name[user.len()] = 0;
                into[..key.len()].copy_from_slice(&key);
                Ok(key.len())
            });
        } else {
            let dir = settings.certificates.clone().or_else(client_directory);
            if let Some(dir) = &dir {
                if !dir.is_dir() {
                    return Err(invalid(format!(
                        "{}: there is no such directory of certificates",
                        dir.display()
                    )));
                }
                let (cert, key) = (dir.join(CLIENT_CERT), dir.join(CLIENT_KEY));
                if cert.exists() || key.exists() {
                    own_certificate(&mut context, &cert, &key)?;
                }
            }
            if settings.verify_peer {
                match &dir {
                    Some(dir) => {
                        authority = dir.join(CA_CERT);
                        trust(&mut context, &authority, &dir.join(CA_CRL))?;
                    }
                    None => trust_the_system(&mut context).map_err(|e| other(&e))?,
                }
            }
        }
        Ok(Client { context: context.build(), settings: settings.clone(), authority: authority.into(), psk })
    }

    pub(crate) fn handshake(&self, kind: &Kind, host: Option<&str>) -> io::Result<Session> {
        let mut ssl = Ssl::new(&self.context).map_err(|e| other(&e))?;
        let notes = Notes::default();
        // An address may come with a zone (`fe80::1%eth0`), which no certificate has.
        let host = self.settings.hostname.as_deref().or(host);
        let address = host.and_then(|host| host.split('%').next()?.parse::<IpAddr>().ok());
        if !self.psk {
            if let (Some(host), None) = (host, address) {
                ssl.set_hostname(host).map_err(|e| other(&e))?;
            }
            if self.settings.verify_peer {
                let param = ssl.param_mut();
                param.set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS);
                match (host, address) {
                    (_, Some(address)) => param.set_ip(address).map_err(|e| other(&e))?,
                    (Some(host), _) => param.set_host(host).map_err(|e| other(&e))?,
                    (None, None) => {}
                }
                let (notes, authority) = (notes.clone(), self.authority.clone());
                let host = host.map(str::to_owned);
                ssl.set_verify_callback(SslVerifyMode::PEER, move |good, chain| {
                    if !good {
                        let why = distrust(chain, "the server", &authority, host.as_deref());
                        notes.with(|noted| noted.why = Some(why));
                    }
                    good
                });
            }
        }
        ssl.set_connect_state();
        shake_hands(kind, ssl, notes, "the server")
    }
}

/// The key of a client, put into `into`; 0 is none.
fn psk_for(ssl: &SslRef, user: &[u8], users: &[(Vec<u8>, Vec<u8>)], file: &Path, into: &mut [u8]) -> usize {
    let name = String::from_utf8_lossy(user).into_owned();
    let key = users.iter().find(|(known, _)| known == user).map(|(_, key)| key);
    if let Some(notes) = Notes::of(ssl) {
        notes.with(|noted| match key {
            Some(_) => (noted.user, noted.why) = (Some(name), None),
            None => noted.why = Some(format!("{}: there is no key for the user {name:?}", file.display())),
        });
    }
    match key {
        Some(key) if key.len() <= into.len() => {
            into[..key.len()].copy_from_slice(key);
            key.len()
        }
        _ => 0,
    }
}

fn own_certificate(context: &mut SslContextBuilder, cert: &Path, key: &Path) -> io::Result<()> {
    for file in [cert, key] {
        fs::File::open(file).map_err(|e| unreadable(file, &e))?;
    }
    let bad = |file: &Path, why: &str| invalid(format!("{}: {why}", file.display()));
    context.set_certificate_chain_file(cert).map_err(|e| bad(cert, &reason::bad_file(&e, "certificate")))?;
    let pem = fs::read(key).map_err(|e| unreadable(key, &e))?;
    // With no password to try, a key that has one is an error, and not a question on the terminal.
    let private = PKey::private_key_from_pem_callback(&pem, |_| Ok(0));
    let private = private.map_err(|e| bad(key, &reason::bad_file(&e, "private key without a password")))?;
    context
        .set_private_key(&private)
        .and_then(|()| context.check_private_key())
        .map_err(|_| bad(key, &format!("is not the key of the certificate {}", cert.display())))
}

fn trust(context: &mut SslContextBuilder, authority: &Path, revoked: &Path) -> io::Result<()> {
    let mut store = X509StoreBuilder::new().map_err(|e| other(&e))?;
    for certificate in certificates(authority)? {
        store.add_cert(certificate).map_err(|e| other(&e))?;
    }
    if revoked.exists() {
        let mut load = || -> Result<i32, ErrorStack> {
            let lookup = store.add_lookup(X509Lookup::file())?;
            let count = lookup.load_crl_file(revoked, SslFiletype::PEM)?;
            store.set_flags(X509VerifyFlags::CRL_CHECK)?;
            Ok(count)
        };
        let bad = |e: ErrorStack| {
            invalid(format!(
                "{}: {}",
                revoked.display(),
                reason::bad_file(&e, "list of revoked certificates")
            ))
        };
        load().map_err(bad)?;
    }
    context.set_cert_store(store.build());
    Ok(())
}

/// The authorities of this system, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
#[cfg(not(feature = "vendored-tls"))]
fn trust_the_system(context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    context.set_default_verify_paths()
}

/// The same, for an OpenSSL that does not know where this system has them.
#[cfg(feature = "vendored-tls")]
fn trust_the_system(context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    let found = openssl_probe::probe();
    // Directories are searched by a certificate's name when one is needed; the file, where all stand together, is read now.
    for dir in &found.cert_dir {
        context.load_verify_locations(None, Some(dir))?;
    }
    match &found.cert_file {
        Some(file) => context.load_verify_locations(Some(file), None),
        None => Ok(()),
    }
}

fn certificates(file: &Path) -> io::Result<Vec<X509>> {
    let pem = fs::read(file).map_err(|e| unreadable(file, &e))?;
    let found = X509::stack_from_pem(&pem).unwrap_or_default();
    if found.is_empty() {
        return Err(invalid(format!("{}: is no certificate in PEM form", file.display())));
    }
    Ok(found)
}

fn shake_hands(kind: &Kind, mut ssl: Ssl, notes: Notes, peer: &'static str) -> io::Result<Session> {
    ssl.set_ex_data(Notes::index()?, notes.clone());
    let mut stream = SslStream::new(ssl, Pipe::new()?).map_err(|e| other(&e))?;
    let cut_short = || {
        let why = format!("{peer} closed the connection in the middle of the TLS handshake");
        io::Error::new(io::ErrorKind::UnexpectedEof, why)
    };
    while let Err(e) = stream.do_handshake() {
        if e.code() == ErrorCode::WANT_READ {
            match stream.get_mut().exchange(kind) {
                Ok(0) => return Err(cut_short()),
                Ok(_) => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let why = format!("{peer} did not answer in the TLS handshake");
                    return Err(io::Error::new(io::ErrorKind::TimedOut, why));
                }
                Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
                    return Err(cut_short());
                }
                Err(e) => return Err(e),
            }
        }
        let _ = stream.get_mut().flush_to(kind); // the reason is told there, too, if anybody listens
        let why = notes.with(|noted| noted.why.take());
        let why = why.or_else(|| e.ssl_error().map(|e| reason::sentence(e, peer)));
        return Err(io::Error::other(why.unwrap_or_else(|| format!("TLS with {peer} failed"))));
    }
    stream.get_mut().flush_to(kind)?;
    let ssl = stream.ssl();
    let certificate = ssl.peer_certificate();
    let facts = TlsFacts {
        version: ssl.version_str(),
        cipher: ssl.current_cipher().map_or("none", |cipher| cipher.standard_name().unwrap_or(cipher.name())),
        peer: notes
            .with(|noted| noted.user.take())
            .or_else(|| certificate.as_ref().map(|certificate| subject(certificate.subject_name()))),
        issuer: certificate.as_ref().map(|certificate| subject(certificate.issuer_name())),
    };
    Session::new(stream, facts, peer)
}

/// Why a certificate of the peer is refused.
fn distrust(chain: &X509StoreContextRef, peer: &str, authority: &Path, host: Option<&str>) -> String {
    let error = chain.error();
    let certificate = chain.current_cert();
    let whose = certificate.map_or("?".to_owned(), |certificate| subject(certificate.subject_name()));
    let authority = authority.display();
    let of = |why: &str| format!("the certificate of {peer} ({whose}) {why}");
    match error.as_raw() {
        openssl_sys::X509_V_ERR_HOSTNAME_MISMATCH | openssl_sys::X509_V_ERR_IP_ADDRESS_MISMATCH => {
            let names = certificate.map(names).unwrap_or_default();
            let names = if names.is_empty() { "nobody in particular".to_owned() } else { names.join(", ") };
            let host = host.unwrap_or_default();
            format!(
                "the certificate of {peer} is for {names}, and not for {host} (tls-hostname names another)"
            )
        }
        openssl_sys::X509_V_ERR_CERT_HAS_EXPIRED => {
            let until = certificate.map(|certificate| format!(" on {}", certificate.not_after()));
            of(&format!("has expired{}", until.unwrap_or_default()))
        }
        openssl_sys::X509_V_ERR_CERT_NOT_YET_VALID => of("is not valid yet"),
        openssl_sys::X509_V_ERR_CERT_REVOKED => of("was revoked"),
        openssl_sys::X509_V_ERR_CRL_HAS_EXPIRED => {
            format!("the list of revoked certificates beside {authority} has expired")
        }
        openssl_sys::X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT
        | openssl_sys::X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN
        | openssl_sys::X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT
        | openssl_sys::X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
        | openssl_sys::X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE
        | openssl_sys::X509_V_ERR_CERT_SIGNATURE_FAILURE => {
            of(&format!("was signed by none of the authorities in {authority}"))
        }
        _ => of(&format!("is not accepted: {}", X509VerifyResult::error_string(&error))),
    }
}

/// As in `CN=alice,O=example`.
fn subject(name: &X509NameRef) -> String {
    let entries = name.entries().map(|entry| {
        let key = entry.object().nid().short_name().unwrap_or("?");
        let value = entry.data().to_string().unwrap_or_default();
        format!("{key}={value}")
    });
    let entries: Vec<String> = entries.collect();
    if entries.is_empty() { "without a name".to_owned() } else { entries.join(",") }
}

/// Whom a server's certificate is for.
fn names(certificate: &X509Ref) -> Vec<String> {
    let mut found = Vec::new();
    for name in certificate.subject_alt_names().into_iter().flatten() {
        let address = |bytes: &[u8]| match *bytes {
            [a, b, c, d] => Some(IpAddr::from([a, b, c, d])),
            _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        };
        let text = name.dnsname().map(str::to_owned);
        found.extend(text.or_else(|| name.ipaddress().and_then(address).map(|address| address.to_string())));
    }
    if found.is_empty() {
        let common = certificate.subject_name().entries_by_nid(openssl::nid::Nid::COMMONNAME);
        found.extend(common.filter_map(|entry| entry.data().to_string().ok()));
    }
    found
}
