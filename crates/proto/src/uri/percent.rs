//! Percent-encoding (RFC 3986, section 2), of text and of paths.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Appends `bytes`, leaving as they are only the unreserved characters and those in `also`.
pub(super) fn encode_into(out: &mut String, bytes: &[u8], also: &str) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || also.as_bytes().contains(&byte) {
            out.push(byte as char);
        } else {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            out.push('%');
            out.push(HEX[usize::from(byte >> 4)] as char);
            out.push(HEX[usize::from(byte & 15)] as char);
        }
    }
}

fn decode(text: &str, what: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|digit| (digit as char).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) => out.push((high * 16 + low) as u8),
            _ => {
                return Err(format!("the {what} has a “%” without two hexadecimal digits; write “%” as %25"));
            }
        }
    }
    Ok(out)
}

/// Decodes to text, which must be UTF-8 without NUL.
pub(super) fn decode_text(text: &str, what: &str) -> Result<String, String> {
    let text = String::from_utf8(decode(text, what)?).map_err(|_| format!("the {what} is not UTF-8"))?;
    match text.contains('\0') {
        true => Err(format!("the {what} contains a NUL character")),
        false => Ok(text),
    }
}

/// Decodes to a path, which may be any bytes where the platform has such paths.
pub(super) fn decode_path(text: &str, what: &str) -> Result<PathBuf, String> {
    let bytes = decode(text, what)?;
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStringExt;
        Ok(std::ffi::OsString::from_vec(bytes).into())
    }
    #[cfg(not(unix))]
    {
        String::from_utf8(bytes).map(Into::into).map_err(|_| format!("the {what} is not UTF-8"))
    }
}

/// The bytes of a path.
pub(super) fn path_bytes(path: &Path) -> Cow<'_, [u8]> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        Cow::Borrowed(path.as_os_str().as_bytes())
    }
    #[cfg(not(unix))]
    {
        Cow::Owned(path.to_string_lossy().into_owned().into_bytes())
    }
}
