//! What can be chosen before connecting, some of it also between options.

use super::{Fault, Handle, Outcome, State, When, fault::errno};
use net::tls::ClientSettings;
use proto::{ClientFlags, handshake::Tls, limits::STRING_MAX};
use std::path::PathBuf;

/// Bits of [`Settings::strict`]: what is refused here before the server sees it.
pub mod strict {
    /// What the server says that it cannot.
    pub const COMMANDS: u32 = 1;
    /// Flags that do not go with the command.
    pub const FLAGS: u32 = 2;
    /// Ranges beyond the end of the export.
    pub const BOUNDS: u32 = 4;
    /// Requests for no bytes.
    pub const ZERO_SIZE: u32 = 8;
    /// What is not aligned to the minimum block size.
    pub const ALIGN: u32 = 16;
    /// Payloads larger than the server says that it takes.
    pub const PAYLOAD: u32 = 32;
    /// The flag PAYLOAD_LEN is set as the connection needs it, whatever the caller says.
    pub const AUTO_FLAG: u32 = 64;
    /// All of them.
    pub const MASK: u32 = 127;
}

/// Bits of [`Settings::allow_transports`].
pub mod transport {
    /// TCP.
    pub const TCP: u32 = 1;
    /// Unix domain sockets.
    pub const UNIX: u32 = 2;
    /// Between a virtual machine and its host.
    pub const VSOCK: u32 = 4;
    /// Through ssh.
    pub const SSH: u32 = 8;
    /// All of them.
    pub const MASK: u32 = 15;
}

/// Everything that can be chosen. Change it through [`Handle::change`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// The export.
    pub export: String,
    /// TLS or not.
    pub tls: Tls,
    /// Whom to trust, and who to be.
    pub tls_settings: ClientSettings,
    /// Metadata contexts to ask for.
    pub contexts: Vec<String>,
    /// Ask for [`Settings::contexts`] by itself, before an export is opened or asked about.
    pub request_contexts: bool,
    /// Ask for structured replies by itself; without them no extended headers either.
    pub request_structured: bool,
    /// Ask for extended headers by itself.
    pub request_extended: bool,
    /// Ask for block sizes.
    pub request_block_size: bool,
    /// Ask for the canonical name and the description.
    pub full_info: bool,
    /// Fill buffers with zeroes before they are read into.
    pub initialize: bool,
    /// What to accept of the server's greeting.
    pub handshake_flags: u32,
    /// Stop where options can be asked.
    pub opt_mode: bool,
    /// Of [`strict`].
    pub strict: u32,
    /// What URIs may use, of [`transport`].
    pub allow_transports: u32,
    /// Whether URIs may, or must, ask for TLS.
    pub allow_tls: Tls,
    /// Whether URIs may name local files.
    pub allow_local_file: bool,
    /// Whether URIs may choose TLS versions and ciphers.
    pub allow_tls_priority: bool,
    /// What a server that is started by socket activation is told of the socket; empty: nothing.
    pub activation_name: String,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            export: String::new(),
            tls: Tls::Off,
            tls_settings: ClientSettings::default(),
            contexts: Vec::new(),
            request_contexts: true,
            request_structured: true,
            request_extended: true,
            request_block_size: true,
            full_info: false,
            initialize: true,
            handshake_flags: ClientFlags::ALL.0,
            opt_mode: false,
            strict: strict::MASK,
            allow_transports: transport::MASK,
            allow_tls: Tls::Allow,
            allow_local_file: false,
            allow_tls_priority: false,
            activation_name: String::new(),
        }
    }
}

fn not_too_long(text: &str, what: &str) -> Outcome<()> {
    if text.len() > STRING_MAX {
        let words = format!("{what} of {} bytes: the protocol has room for {STRING_MAX}", text.len());
        return Err(Fault::new(errno::ENAMETOOLONG, words));
    }
    if text.contains('\0') {
        return Err(Fault::invalid(format!("{what} with a NUL character")));
    }
    Ok(())
}

/// A value with only bits of `mask`.
pub(super) fn bits(flags: u32, mask: u32) -> Outcome<u32> {
    match flags & !mask {
        0 => Ok(flags),
        _ => Err(Fault::invalid(format!("flags={flags:#x}: only bits of {mask:#x} have a meaning here"))),
    }
}

/// A number for TLS: 0 off, 1 allow, 2 require.
pub(super) fn tls(number: i32) -> Outcome<Tls> {
    match number {
        0 => Ok(Tls::Off),
        1 => Ok(Tls::Allow),
        2 => Ok(Tls::Require),
        _ => Err(Fault::invalid(format!("tls={number}: not 0, 1 or 2"))),
    }
}

/// The number of [`tls`].
pub(super) const fn tls_number(tls: Tls) -> i32 {
    match tls {
        Tls::Off => 0,
        Tls::Allow => 1,
        Tls::Require => 2,
    }
}

impl Handle {
    /// What is chosen now.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The settings, to be changed.
    ///
    /// # Errors
    /// It is too late, or too early.
    pub fn change(&mut self, when: When) -> Outcome<&mut Settings> {
        // A setting is never too early for want of a connection.
        match (self.need(when), self.state()) {
            (Ok(()), _) | (_, State::Created) => Ok(&mut self.settings),
            (Err(fault), _) => Err(fault),
        }
    }

    /// Choose an export.
    ///
    /// # Errors
    /// ENAMETOOLONG, or it is too late.
    pub fn set_export(&mut self, name: &str) -> Outcome<()> {
        not_too_long(name, "a name")?;
        self.change(When::CreatedOrNegotiating)?.export = name.to_owned();
        Ok(())
    }

    /// Add a metadata context to ask for.
    ///
    /// # Errors
    /// As [`Handle::set_export`].
    pub fn add_context(&mut self, name: &str) -> Outcome<()> {
        not_too_long(name, "the name of a context")?;
        self.change(When::CreatedOrNegotiating)?.contexts.push(name.to_owned());
        Ok(())
    }

    /// The metadata context to ask for at a place.
    ///
    /// # Errors
    /// EINVAL: there are not that many.
    pub fn context(&self, at: usize) -> Outcome<&str> {
        let contexts = &self.settings.contexts;
        contexts.get(at).map(String::as_str).ok_or_else(|| {
            Fault::invalid(format!("i={at}: there are {} contexts, counted from 0", contexts.len()))
        })
    }

    /// Bits of [`strict`].
    ///
    /// # Errors
    /// EINVAL for other bits.
    pub fn set_strict(&mut self, flags: u32) -> Outcome<()> {
        self.settings.strict = bits(flags, strict::MASK)?;
        Ok(())
    }

    /// What to accept of the greeting: 1 fixed newstyle, 2 no zeroes.
    ///
    /// # Errors
    /// EINVAL for other bits, or it is too late.
    pub fn set_handshake_flags(&mut self, flags: u32) -> Outcome<()> {
        let flags = bits(flags, ClientFlags::ALL.0)?;
        self.change(When::Created)?.handshake_flags = flags;
        Ok(())
    }

    /// TLS: 0 off, 1 allow, 2 require.
    ///
    /// # Errors
    /// EINVAL for other numbers, or it is too late.
    pub fn set_tls(&mut self, number: i32) -> Outcome<()> {
        let tls = tls(number)?;
        self.change(When::Created)?.tls = tls;
        Ok(())
    }

    /// The number of the setting for TLS.
    pub fn tls_setting(&self) -> i32 {
        tls_number(self.settings.tls)
    }

    /// What URIs may use.
    ///
    /// # Errors
    /// EINVAL for bits without a meaning, or it is too late.
    pub fn set_allow_transports(&mut self, mask: u32) -> Outcome<()> {
        let mask = bits(mask, transport::MASK)?;
        self.change(When::Created)?.allow_transports = mask;
        Ok(())
    }

    /// Whether URIs may (1), must (2) or must not (0) ask for TLS.
    ///
    /// # Errors
    /// EINVAL for other numbers, or it is too late.
    pub fn set_allow_tls(&mut self, number: i32) -> Outcome<()> {
        let tls = tls(number)?;
        self.change(When::Created)?.allow_tls = tls;
        Ok(())
    }

    /// What a server started by socket activation is told of its socket.
    ///
    /// # Errors
    /// EINVAL: longer than 32 bytes, or with characters beyond printable ASCII or a colon; or it is too late.
    pub fn set_activation_name(&mut self, name: &str) -> Outcome<()> {
        if name.len() > 32 {
            return Err(Fault::new(
                errno::ENAMETOOLONG,
                format!("a name of {} bytes is longer than 32", name.len()),
            ));
        }
        if let Some(c) = name.chars().find(|c| !c.is_ascii_graphic() || *c == ':') {
            return Err(Fault::invalid(format!("a name with {c:?}: neither colons nor spaces stand in it")));
        }
        self.change(When::Created)?.activation_name = name.to_owned();
        Ok(())
    }

    /// The directory of certificates.
    ///
    /// # Errors
    /// It is too late.
    pub fn set_tls_certificates(&mut self, directory: PathBuf) -> Outcome<()> {
        self.change(When::Created)?.tls_settings.certificates = Some(directory);
        Ok(())
    }
}
