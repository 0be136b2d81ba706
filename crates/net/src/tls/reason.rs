//! What OpenSSL says, in words for people.

use openssl::error::ErrorStack;

/// Beginnings of OpenSSL's words for what the other end has said before it hung up.
const ALERTS: [&str; 4] = ["tlsv13 alert ", "tlsv1 alert ", "sslv3 alert ", "ssl/tls alert "];

/// What helps, beside the words of an alert.
const HINTS: [(&str, &str); 10] = [
    ("handshake failure", "nothing in common: it may want a certificate, or a user and key that it knows"),
    ("unknown ca", "it does not know the authority that signed our certificate"),
    ("bad certificate", "it does not accept our certificate"),
    ("certificate required", "it wants a client's certificate"),
    ("certificate expired", "our certificate has expired"),
    ("certificate revoked", "our certificate was revoked"),
    ("certificate unknown", "it does not accept our certificate"),
    ("decrypt error", "the key may be another one there"),
    ("unknown psk identity", "it does not know this user"),
    ("protocol version", "it speaks no version of TLS that is allowed here"),
];

/// The sentence for what went wrong; `peer` is `the client` or `the server`.
pub(super) fn sentence(errors: &ErrorStack, peer: &str) -> String {
    let Some(reason) = errors.errors().iter().find_map(|e| e.reason()) else {
        return format!("TLS with {peer} failed");
    };
    if let Some(alert) = ALERTS.iter().find_map(|begin| reason.strip_prefix(begin)) {
        return match HINTS.iter().find(|(known, _)| *known == alert) {
            Some((_, hint)) => format!("{peer} ended TLS with “{alert}” ({hint})"),
            None => format!("{peer} ended TLS with “{alert}”"),
        };
    }
    match reason {
        "wrong version number"
        | "packet length too long"
        | "http request"
        | "https proxy request"
        | "unexpected message"
        | "bad record type"
        | "record too small"
        | "bad length"
        | "length mismatch"
        | "length too short"
        | "length too long"
        | "excessive message size"
        | "not on record boundary" => {
            format!("what {peer} sent is no TLS ({reason})")
        }
        "no shared cipher" | "no suitable signature algorithm" | "no suitable key share" => {
            format!("{peer} and this end have no way of TLS in common ({reason})")
        }
        "unsupported protocol" => format!("{peer} speaks no version of TLS that is allowed here"),
        "peer did not return a certificate" => format!("{peer} has sent no certificate, and one is demanded"),
        "certificate verify failed" => format!("the certificate of {peer} is not to be trusted"),
        "binder does not verify" | "digest check failed" => {
            format!("the key of {peer} is another one than ours")
        }
        "decryption failed or bad record mac" => format!("what {peer} sent does not decrypt"),
        "psk identity not found" => format!("{peer} used a user without a key here"),
        reason => format!("TLS with {peer} failed: {reason}"),
    }
}

/// What went wrong before any connection.
pub(super) fn setup(errors: &ErrorStack) -> String {
    let reason = errors.errors().iter().find_map(|e| e.reason());
    format!("TLS cannot be set up: {}", reason.unwrap_or("OpenSSL does not say why"))
}

/// A file that should hold something in PEM form.
pub(super) fn bad_file(errors: &ErrorStack, what: &str) -> String {
    match errors.errors().iter().find_map(|e| e.reason()) {
        None
        | Some(
            "no start line" | "unsupported" | "bad base64 decode" | "bad end line" | "bad password read",
        ) => {
            format!("is no {what} in PEM form")
        }
        Some(reason) => format!("is no usable {what}: {reason}"),
    }
}
