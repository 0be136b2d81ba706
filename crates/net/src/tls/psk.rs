//! Files of pre-shared keys, as `psktool` of GnuTLS makes them: lines `user:hexadecimal key`.

use super::unreadable;
use std::{fs, io, path::Path};

/// OpenSSL takes no longer ones.
const KEY_MAX: usize = 256;

/// All users of a file, with their keys.
///
/// # Errors
/// A sentence that names the file and the line.
pub(super) fn read(file: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let text = fs::read(file).map_err(|e| unreadable(file, &e))?;
    let mut users = Vec::new();
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        users.push(entry(line).ok_or_else(|| {
            let why = format!("{}:{}: not a user and a key, as in user:0123abcd", file.display(), number + 1);
            io::Error::new(io::ErrorKind::InvalidData, why)
        })?);
    }
    if users.is_empty() {
        let why = format!("{}: there are no keys in this file", file.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(users)
}

/// The users in a file of pre-shared keys, in its order.
///
/// # Errors
/// A sentence that names the file, and the line if one is wrong.
pub fn users(file: &Path) -> io::Result<Vec<String>> {
    Ok(read(file)?.into_iter().map(|(user, _)| String::from_utf8_lossy(&user).into_owned()).collect())
}

fn entry(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let colon = line.iter().rposition(|byte| *byte == b':')?;
    let (user, key) = (&line[..colon], hex(&line[colon + 1..])?);
    // A name that is no plain text is written `#` and its bytes in hexadecimal.
    let user = match user {
        [b'#', digits @ ..] => hex(digits)?,
        user => user.to_vec(),
    };
    let sound = !user.is_empty() && !user.contains(&0) && !key.is_empty() && key.len() <= KEY_MAX;
    sound.then_some((user, key))
}

fn hex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let pairs = digits.chunks(2);
    pairs
        .map(|pair| if let [high, low] = pair { Some(digit(*high)? << 4 | digit(*low)?) } else { None })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys.psk");
        fs::write(&file, text).unwrap();
        read(&file)
    }

    #[test]
    fn users_and_keys_are_read() {
        let users = of("alice:00ff10\n\n#626f62:ABCDEF\r\na:b:01").unwrap();
        let expected: [(&[u8], &[u8]); 3] =
            [(b"alice", &[0, 255, 16]), (b"bob", &[0xab, 0xcd, 0xef]), (b"a:b", &[1])];
        assert!(users.iter().zip(expected).all(|((u, k), (eu, ek))| u == eu && k == ek), "{users:?}");
        assert_eq!(users.len(), 3);
    }

    #[test]
    fn bad_lines_and_empty_files_are_told() {
        for bad in ["alice", "alice:", ":00", "alice:0", "alice:0g", "#0:00", "alice:00\nbob"] {
            let error = of(bad).unwrap_err().to_string();
            assert!(error.ends_with("not a user and a key, as in user:0123abcd"), "{bad}: {error}");
        }
        assert!(of("alice:00\nbob:x").unwrap_err().to_string().contains("keys.psk:2: "));
        assert!(of("\n").unwrap_err().to_string().ends_with("there are no keys in this file"));
        let error = read(Path::new("/nonexistent/keys.psk")).unwrap_err();
        assert_eq!(error.to_string(), "/nonexistent/keys.psk: No such file or directory");
    }
}
