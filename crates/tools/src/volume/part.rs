//! How a partition is named, and where that begins in `DISK:PART`.

use inspect::{FileSystem, partitions::Partition};
use std::{
    ffi::{OsStr, OsString},
    fmt,
    os::unix::ffi::OsStrExt,
    str::FromStr,
};

/// What names a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// 0 stands for the whole disk.
    Number(u32),
    /// `LABEL=`, of the file system.
    Label(String),
    /// `UUID=`, of the file system.
    Uuid(String),
    /// `PARTLABEL=`.
    NameInTable(String),
    /// `PARTUUID=`.
    IdInTable(String),
}

impl Part {
    /// Whether it names this one, by what the table says.
    pub(crate) fn is(&self, partition: &Partition) -> bool {
        match self {
            Part::Number(number) => partition.number == *number,
            Part::NameInTable(name) => partition.name == *name,
            Part::IdInTable(id) => partition.id.eq_ignore_ascii_case(id),
            Part::Label(_) | Part::Uuid(_) => false,
        }
    }

    /// Whether it names this one, by what the file system says.
    pub(crate) fn is_of(&self, file_system: &dyn FileSystem) -> bool {
        let about = file_system.about();
        match self {
            Part::Label(label) => about.label == *label,
            Part::Uuid(uuid) => about.uuid.eq_ignore_ascii_case(uuid),
            _ => false,
        }
    }
}

impl FromStr for Part {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Part, Self::Err> {
        if let Some((key, value)) = text.split_once('=') {
            let value = value.to_string();
            return match key {
                _ if value.is_empty() => Err("nothing stands behind the equals sign"),
                "LABEL" => Ok(Part::Label(value)),
                "UUID" => Ok(Part::Uuid(value)),
                "PARTLABEL" => Ok(Part::NameInTable(value)),
                "PARTUUID" => Ok(Part::IdInTable(value)),
                _ => Err("only LABEL, UUID, PARTLABEL and PARTUUID stand before an equals sign"),
            };
        }
        let digits = text.strip_prefix('p').unwrap_or(text);
        match digits.bytes().all(|b| b.is_ascii_digit()) {
            true => digits.parse().map(Part::Number).map_err(|_| "not a number of a partition"),
            false => {
                Err("not a number such as 2 or p2, nor LABEL=, UUID=, PARTLABEL= or PARTUUID= and what it is")
            }
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Number(number) => write!(f, "{number}"),
            Part::Label(value) => write!(f, "LABEL={value}"),
            Part::Uuid(value) => write!(f, "UUID={value}"),
            Part::NameInTable(value) => write!(f, "PARTLABEL={value}"),
            Part::IdInTable(value) => write!(f, "PARTUUID={value}"),
        }
    }
}

/// Takes `DISK:PART` apart. What stands behind the last colon is a partition if it has the form of one, and if
///
/// - in a URI the colon comes after the host and its port. In an export's name or a socket's that ends like this the
///   colon is to be written `%3A`;
/// - there is no file with the whole name.
pub(crate) fn split(text: &OsStr, is_uri: bool, exists: impl Fn(&OsStr) -> bool) -> (OsString, Option<Part>) {
    let bytes = text.as_bytes();
    let whole = (text.to_os_string(), None);
    let Some(colon) = bytes.iter().rposition(|b| *b == b':') else { return whole };
    let Some(part) = std::str::from_utf8(&bytes[colon + 1..]).ok().and_then(|part| part.parse().ok()) else {
        return whole;
    };
    let may_be = match is_uri {
        true => colon >= end_of_host(bytes),
        false => !exists(text),
    };
    if may_be { (OsStr::from_bytes(&bytes[..colon]).to_os_string(), Some(part)) } else { whole }
}

/// Where the host and port of a URI end.
fn end_of_host(uri: &[u8]) -> usize {
    let Some(start) = uri.windows(3).position(|three| three == b"://").map(|at| at + 3) else {
        return uri.len();
    };
    uri[start..].iter().position(|b| matches!(b, b'/' | b'?')).map_or(uri.len(), |len| start + len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn apart(text: &str, is_uri: bool, existing: &[&str]) -> (String, Option<Part>) {
        let (disk, part) = split(text.as_ref(), is_uri, |file| existing.iter().any(|e| file == *e));
        (disk.into_string().unwrap(), part)
    }

    #[test]
    fn a_colon_in_a_uri_is_a_port_until_the_host_has_ended() {
        let two = Some(Part::Number(2));
        for (uri, disk, part) in [
            ("nbd://localhost:2", "nbd://localhost:2", None),
            ("nbd://[::1]:10809", "nbd://[::1]:10809", None),
            ("nbd://localhost:10809/:2", "nbd://localhost:10809/", two.clone()),
            ("nbds://alice@h/disk:p2", "nbds://alice@h/disk", two.clone()),
            ("nbd://h/a%3A2", "nbd://h/a%3A2", None),
            ("nbd://h/a:b", "nbd://h/a:b", None),
            ("nbd+unix:///?socket=/tmp/s:2", "nbd+unix:///?socket=/tmp/s", two.clone()),
            ("nbd+vsock://2:10809/:LABEL=a b", "nbd+vsock://2:10809/", Some(Part::Label("a b".into()))),
            ("nbd:unix:/tmp/s", "nbd:unix:/tmp/s", None),
        ] {
            assert_eq!(apart(uri, true, &[]), (disk.to_string(), part), "{uri}");
        }
    }

    #[test]
    fn a_file_with_a_colon_in_its_name_is_itself() {
        let two = Some(Part::Number(2));
        assert_eq!(apart("disk:2", false, &["disk"]), ("disk".into(), two.clone()));
        assert_eq!(apart("disk:2", false, &["disk", "disk:2"]), ("disk:2".into(), None));
        assert_eq!(apart("disk:2:p2", false, &["disk:2"]), ("disk:2".into(), two));
        assert_eq!(apart("disk:two", false, &["disk"]), ("disk:two".into(), None));
        assert_eq!(apart("disk:", false, &["disk"]), ("disk:".into(), None));
    }

    proptest! {
        #[test]
        fn what_is_put_together_comes_apart_again(name in "[a-z:/]{1,8}", number in 0u32..200, label in "[a-z ]{1,5}") {
            for part in [Part::Number(number), Part::Label(label.clone()), Part::IdInTable(label.clone())] {
                prop_assert_eq!(part.to_string().parse::<Part>(), Ok(part.clone()));
                prop_assert_eq!(apart(&format!("{name}:{part}"), false, &[&name]), (name.clone(), Some(part)));
            }
        }
    }
}
