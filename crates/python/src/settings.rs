//! What is chosen before connecting.

use crate::{
    arguments::{Number, Path, Text, Truth, bits},
    callback::Callback,
    constants::VERSION,
    handle::{Nbd, calls},
};
use client::handle::When;
use pyo3::prelude::*;

#[pymethods]
impl Nbd {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn create(_args: &Bound<'_, PyAny>, _kwargs: Option<&Bound<'_, PyAny>>) -> Nbd {
        Nbd::new()
    }

    /// Keep a number with the handle, for whatever use; returns the one from before.
    fn set_private_data(&self, private_data: Number) -> u64 {
        self.swap_private_data(private_data.0)
    }

    /// The number that set_private_data() kept; 0 at first.
    fn get_private_data(&self) -> u64 {
        self.private_data()
    }

    /// "libnbd", whose calls these are.
    fn get_package_name(&self) -> &'static str {
        "libnbd"
    }

    /// The release of libnbd whose calls these are.
    fn get_version(&self) -> &'static str {
        VERSION
    }

    /// What this really is, and its own version.
    fn get_version_extra(&self) -> &'static str {
        concat!("diskpipe ", env!("CARGO_PKG_VERSION"))
    }

    /// Whether the module was built with TLS.
    fn supports_tls(&self) -> bool {
        net::tls::BUILT
    }

    /// Whether there are URIs: yes.
    fn supports_uri(&self) -> bool {
        true
    }

    /// Whether there are sockets between virtual machines and their hosts: yes.
    fn supports_vsock(&self) -> bool {
        true
    }

    /// Whether a text begins like an NBD URI.
    fn is_uri(&self, uri: &str) -> bool {
        client::proto::Uri::is_meant(uri)
    }
}

calls! {
    /// Turn messages about every call on or off. They go to standard error, or to set_debug_callback()'s function.
    fn set_debug(h, debug: Truth) -> () {
        h.set_debug(debug.0);
        Ok(())
    }

    /// Whether messages are made.
    fn get_debug(h) -> bool { Ok(h.debugs()) }

    /// Have messages told to debug(context, message), where set_debug() turned them on.
    fn set_debug_callback(h, debug: Callback) -> () {
        h.set_debugger(Some(debug.debug()));
        Ok(())
    }

    /// Have messages go to standard error again.
    fn clear_debug_callback(h) -> () {
        h.set_debugger(None);
        Ok(())
    }

    /// Call the handle something, for messages.
    fn set_handle_name(h, handle_name: Text) -> () {
        h.set_name(handle_name.0);
        Ok(())
    }

    /// What the handle is called: nbd1 and so on, unless set_handle_name() said otherwise.
    fn get_handle_name(h) -> String { Ok(h.name().to_owned()) }

    /// Choose the export, before connecting or before opt_go(). The default one is "".
    fn set_export_name(h, export_name: Text) -> () { h.set_export(&export_name) }

    /// The export that is chosen.
    fn get_export_name(h) -> String { Ok(h.settings().export.clone()) }

    /// Whether to ask for block sizes, which is also the promise to keep to them. On by default.
    fn set_request_block_size(h, request: Truth) -> () {
        h.change(When::CreatedOrNegotiating)?.request_block_size = request.0;
        Ok(())
    }

    /// Whether block sizes are asked for.
    fn get_request_block_size(h) -> bool { Ok(h.settings().request_block_size) }

    /// Whether to ask for the export's canonical name and description. Off by default.
    fn set_full_info(h, request: Truth) -> () {
        h.change(When::CreatedOrNegotiating)?.full_info = request.0;
        Ok(())
    }

    /// Whether names and descriptions are asked for.
    fn get_full_info(h) -> bool { Ok(h.settings().full_info) }

    /// TLS: TLS_DISABLE (the default), TLS_ALLOW if the server has it, or TLS_REQUIRE.
    fn set_tls(h, tls: i32) -> () { h.set_tls(tls) }

    /// What set_tls() chose.
    fn get_tls(h) -> i32 { Ok(h.tls_setting()) }

    /// The directory with ca-cert.pem and perhaps client-cert.pem and client-key.pem.
    fn set_tls_certificates(h, dir: Path) -> () { h.set_tls_certificates(dir.0) }

    /// Whether to check the server's certificate. On by default; without, anybody may be the server.
    fn set_tls_verify_peer(h, verify: Truth) -> () {
        h.change(When::Created)?.tls_settings.verify_peer = verify.0;
        Ok(())
    }

    /// Whether the server's certificate is checked.
    fn get_tls_verify_peer(h) -> bool { Ok(h.settings().tls_settings.verify_peer) }

    /// The user to be, with pre-shared keys.
    fn set_tls_username(h, username: Text) -> () {
        h.change(When::Created)?.tls_settings.user = Some(username.0);
        Ok(())
    }

    /// The user to be: what set_tls_username() said, else who is logged in.
    fn get_tls_username(h) -> String {
        Ok(h.settings().tls_settings.user.clone().unwrap_or_else(net::tls::default_user))
    }

    /// The name that the server's certificate must have, where that is not the host's.
    fn set_tls_hostname(h, hostname: Text) -> () {
        h.change(When::Created)?.tls_settings.hostname = Some(hostname.0);
        Ok(())
    }

    /// What set_tls_hostname() said; "" if nothing.
    fn get_tls_hostname(h) -> String { Ok(h.settings().tls_settings.hostname.clone().unwrap_or_default()) }

    /// The file with a line user:key for every user.
    fn set_tls_psk_file(h, filename: Path) -> () {
        h.change(When::Created)?.tls_settings.psk_file = Some(filename.0);
        Ok(())
    }

    /// Versions and ciphers of TLS, as a priority string of GnuTLS such as NORMAL:-VERS-TLS1.2.
    fn set_tls_priority(h, priority: Text) -> () {
        h.change(When::Created)?.tls_settings.priority = Some(priority.0);
        Ok(())
    }

    /// What set_tls_priority() said; NORMAL if nothing.
    fn get_tls_priority(h) -> String {
        Ok(h.settings().tls_settings.priority.clone().unwrap_or_else(|| "NORMAL".into()))
    }

    /// Whether to ask for extended headers, which carry 64-bit lengths. On by default.
    fn set_request_extended_headers(h, request: Truth) -> () {
        h.change(When::Created)?.request_extended = request.0;
        Ok(())
    }

    /// Whether extended headers are asked for.
    fn get_request_extended_headers(h) -> bool { Ok(h.settings().request_extended) }

    /// Whether to ask for structured replies. On by default; off, extended headers are not asked for either.
    fn set_request_structured_replies(h, request: Truth) -> () {
        h.change(When::Created)?.request_structured = request.0;
        Ok(())
    }

    /// Whether structured replies are asked for.
    fn get_request_structured_replies(h) -> bool { Ok(h.settings().request_structured) }

    /// Whether opt_go() and opt_info() choose the metadata contexts of add_meta_context() by themselves. On by default.
    fn set_request_meta_context(h, request: Truth) -> () {
        h.change(When::CreatedOrNegotiating)?.request_contexts = request.0;
        Ok(())
    }

    /// Whether metadata contexts are chosen without being asked.
    fn get_request_meta_context(h) -> bool { Ok(h.settings().request_contexts) }

    /// Which flags of the server's greeting to take up: HANDSHAKE_FLAG_....
    fn set_handshake_flags(h, #[pyo3(from_py_with = bits)] flags: u32) -> () { h.set_handshake_flags(flags) }

    /// The flags of the greeting that are taken up.
    fn get_handshake_flags(h) -> u32 { Ok(h.settings().handshake_flags) }

    /// Whether buffers are zeroed before they are read into. On by default.
    fn set_pread_initialize(h, request: Truth) -> () {
        h.change(When::Any)?.initialize = request.0;
        Ok(())
    }

    /// Whether buffers are zeroed before they are read into.
    fn get_pread_initialize(h) -> bool { Ok(h.settings().initialize) }

    /// What to refuse before the server sees it: STRICT_..., all by default. Without, servers can be tested.
    fn set_strict_mode(h, #[pyo3(from_py_with = bits)] flags: u32) -> () { h.set_strict(flags) }

    /// What is refused before the server sees it.
    fn get_strict_mode(h) -> u32 { Ok(h.settings().strict) }

    /// Whether to stop in the handshake, for the calls that begin with opt_.
    fn set_opt_mode(h, enable: Truth) -> () {
        h.change(When::Created)?.opt_mode = enable.0;
        Ok(())
    }

    /// Whether connecting stops in the handshake.
    fn get_opt_mode(h) -> bool { Ok(h.settings().opt_mode) }

    /// Ask for a metadata context, such as base:allocation, when the export is opened.
    fn add_meta_context(h, name: Text) -> () { h.add_context(&name) }

    /// How many metadata contexts are to be asked for.
    fn get_nr_meta_contexts(h) -> usize { Ok(h.settings().contexts.len()) }

    /// One of the metadata contexts that are to be asked for, counted from 0.
    fn get_meta_context(h, i: isize) -> String {
        h.context(usize::try_from(i).unwrap_or(usize::MAX)).map(str::to_owned)
    }

    /// Ask for no metadata contexts.
    fn clear_meta_contexts(h) -> () {
        h.change(When::CreatedOrNegotiating)?.contexts.clear();
        Ok(())
    }

    /// What URIs may use: ALLOW_TRANSPORT_..., all by default.
    fn set_uri_allow_transports(h, #[pyo3(from_py_with = bits)] mask: u32) -> () { h.set_allow_transports(mask) }

    /// Whether URIs may (TLS_ALLOW, the default), must or must not ask for TLS.
    fn set_uri_allow_tls(h, tls: i32) -> () { h.set_allow_tls(tls) }

    /// Whether URIs may name local files: keys and certificates. Off by default.
    fn set_uri_allow_local_file(h, allow: Truth) -> () {
        h.change(When::Created)?.allow_local_file = allow.0;
        Ok(())
    }

    /// Whether URIs may choose versions and ciphers of TLS. Off by default.
    fn set_uri_allow_tls_priority(h, allow: Truth) -> () {
        h.change(When::Created)?.allow_tls_priority = allow.0;
        Ok(())
    }

    /// What connect_systemd_socket_activation() tells the server of its socket: LISTEN_FDNAMES. "" tells nothing.
    fn set_socket_activation_name(h, socket_name: Text) -> () { h.set_activation_name(&socket_name) }

    /// What set_socket_activation_name() said.
    fn get_socket_activation_name(h) -> String { Ok(h.settings().activation_name.clone()) }

    /// Send a signal to the server that the handle started; 0 stands for SIGTERM.
    fn kill_subprocess(h, signum: i32) -> () { h.kill_subprocess(signum) }

    /// The process id of the server that the handle started.
    fn get_subprocess_pid(h) -> i32 { h.subprocess() }
}
