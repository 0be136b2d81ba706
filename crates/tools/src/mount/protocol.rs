//! FUSE as bytes: what the kernel asks, and how it is answered.
//!
//! The kernel and this program run on one machine: numbers are in its own byte order, as in linux/fuse.h.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Before every request.
pub(crate) const HEADER: usize = 40;
/// Before the payload of a write.
pub(crate) const HEAD: usize = HEADER + 40;
/// Before every answer.
pub(crate) const ANSWER: usize = 16;

/// A request of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    /// What the answer repeats.
    pub(crate) unique: u64,
    /// The file that it is about.
    pub(crate) node: u64,
    /// Who asks.
    pub(crate) user: u32,
    pub(crate) what: What<'a>,
}

/// What is asked. Offsets and lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What<'a> {
    Lookup {
        name: &'a [u8],
    },
    Attributes,
    SetAttributes {
        size: Option<u64>,
    },
    Open {
        flags: u32,
    },
    Read {
        offset: u64,
        length: u32,
        flags: u32,
    },
    /// The payload comes behind the first [`HEAD`] bytes.
    Write {
        offset: u64,
        length: u32,
    },
    Flush,
    Allocate {
        offset: u64,
        length: u64,
        mode: i32,
    },
    Seek {
        offset: u64,
        whence: u32,
    },
    List {
        offset: u64,
        room: u32,
    },
    Size,
    /// It needs no more than a yes.
    Fine,
    /// It is not answered.
    Forget,
    /// The file system goes away.
    Destroy,
    Unknown,
}

fn four(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn eight(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

impl<'a> Request<'a> {
    /// Reads a request (of a write, the head is enough); `None` where it is cut short.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Request<'a>> {
        let [code, user] = [four(bytes, 4)?, four(bytes, 24)?];
        let [unique, node] = [eight(bytes, 8)?, eight(bytes, 16)?];
        let body = bytes.get(HEADER..)?;
        let what = match code {
            1 => What::Lookup { name: body.split(|b| *b == 0).next()? },
            2 | 42 => What::Forget,
            3 => What::Attributes,
            4 => What::SetAttributes { size: (four(body, 0)? & 1 << 3 != 0).then_some(eight(body, 16)?) },
            14 => What::Open { flags: four(body, 0)? },
            15 => What::Read { offset: eight(body, 8)?, length: four(body, 16)?, flags: four(body, 32)? },
            16 => What::Write { offset: eight(body, 8)?, length: four(body, 16)? },
            17 => What::Size,
            // Closing files and directories, synchronizing directories, and whether access is granted.
            18 | 29 | 30 | 34 => What::Fine,
            20 => What::Flush,
            27 => What::Open { flags: 0 },
            28 => What::List { offset: eight(body, 8)?, room: four(body, 16)? },
            38 => What::Destroy,
            43 => What::Allocate {
                offset: eight(body, 8)?,
                length: eight(body, 16)?,
                mode: four(body, 24)?.cast_signed(),
            },
            46 => What::Seek { offset: eight(body, 8)?, whence: four(body, 16)? },
            _ => What::Unknown,
        };
        Some(Request { unique, node, user, what })
    }
}

/// The header of an answer with so many bytes behind it. `error` is an error number, or zero.
pub(crate) fn answer(unique: u64, error: i32, body: usize) -> [u8; ANSWER] {
    let mut header = [0; ANSWER];
    header[..4].copy_from_slice(&((ANSWER + body) as u32).to_ne_bytes());
    header[4..8].copy_from_slice(&(-error).to_ne_bytes());
    header[8..].copy_from_slice(&unique.to_ne_bytes());
    header
}

/// The body of an answer.
#[derive(Default)]
pub(crate) struct Body(pub(crate) Vec<u8>);

impl Body {
    fn four(mut self, number: u32) -> Body {
        self.0.extend(number.to_ne_bytes());
        self
    }

    fn eight(mut self, number: u64) -> Body {
        self.0.extend(number.to_ne_bytes());
        self
    }

    /// How many bytes were written.
    pub(crate) fn written(length: u32) -> Body {
        Body::default().four(length).four(0)
    }

    /// An open file.
    pub(crate) fn opened(flags: u32) -> Body {
        Body::default().eight(0).four(flags).four(0)
    }

    /// Where data or a hole begins.
    pub(crate) fn offset(offset: u64) -> Body {
        Body::default().eight(offset)
    }

    /// What a file is, to be believed for so long.
    pub(crate) fn attributes(believe: Duration, file: &Attributes) -> Body {
        Body::default().eight(believe.as_secs()).four(believe.subsec_nanos()).four(0).file(file)
    }

    /// A name in a directory.
    pub(crate) fn entry(believe: Duration, file: &Attributes) -> Body {
        let (seconds, nanos) = (believe.as_secs(), believe.subsec_nanos());
        Body::default()
            .eight(file.node)
            .eight(0)
            .eight(seconds)
            .eight(seconds)
            .four(nanos)
            .four(nanos)
            .file(file)
    }

    fn file(mut self, file: &Attributes) -> Body {
        let since = file.since.duration_since(UNIX_EPOCH).unwrap_or_default();
        for number in [file.node, file.size, file.size.div_ceil(512)].into_iter().chain([since.as_secs(); 3])
        {
            self = self.eight(number);
        }
        for number in [since.subsec_nanos(); 3] {
            self = self.four(number);
        }
        let links = if file.directory { 2 } else { 1 };
        for number in [file.kind() | file.mode, links, file.user, file.group, 0, file.block, 0] {
            self = self.four(number);
        }
        self
    }

    /// The size of a file system, in blocks of 4096 bytes.
    pub(crate) fn size(blocks: u64) -> Body {
        let mut body = Body::default();
        for number in [blocks, 0, 0, 1, 0] {
            body = body.eight(number);
        }
        for number in [4096, 255, 4096, 0, 0, 0, 0, 0, 0, 0] {
            body = body.four(number);
        }
        body
    }

    /// Adds an entry to the list of a directory; `next` is where the list goes on after it.
    pub(crate) fn listed(self, node: u64, next: u64, directory: bool, name: &[u8]) -> Body {
        let kind = if directory { S_IFDIR } else { S_IFREG } >> 12;
        let mut body = self.eight(node).eight(next).four(name.len() as u32).four(kind);
        body.0.extend(name);
        body.0.resize(body.0.len().next_multiple_of(8), 0);
        body
    }
}

const S_IFDIR: u32 = 0o04_0000;
const S_IFREG: u32 = 0o10_0000;

/// What a file is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes {
    pub(crate) node: u64,
    pub(crate) directory: bool,
    /// In bytes.
    pub(crate) size: u64,
    /// The size of blocks that it prefers, in bytes.
    pub(crate) block: u32,
    /// Permissions.
    pub(crate) mode: u32,
    pub(crate) user: u32,
    pub(crate) group: u32,
    pub(crate) since: SystemTime,
}

impl Attributes {
    fn kind(&self) -> u32 {
        if self.directory { S_IFDIR } else { S_IFREG }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(code: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(code.to_ne_bytes());
        for number in [7u64, 2] {
            bytes.extend(number.to_ne_bytes());
        }
        for number in [1000u32, 0, 0, 0] {
            bytes.extend(number.to_ne_bytes());
        }
        bytes.extend(body);
        bytes
    }

    #[test]
    fn reads_and_writes_say_where() {
        let mut body = Vec::new();
        for number in [0u64, 4096] {
            body.extend(number.to_ne_bytes());
        }
        for number in [3u32, 0, 0, 0, 0o4_0000, 0] {
            body.extend(number.to_ne_bytes());
        }
        let bytes = request(15, &body);
        let found = Request::decode(&bytes).unwrap();
        let what = What::Read { offset: 4096, length: 3, flags: 0o4_0000 };
        assert_eq!(found, Request { unique: 7, node: 2, user: 1000, what });
        let bytes = request(16, &body);
        assert_eq!(bytes.len(), HEAD);
        assert_eq!(Request::decode(&bytes).unwrap().what, What::Write { offset: 4096, length: 3 });
    }

    #[test]
    fn answers_have_the_sizes_that_the_kernel_expects() {
        let since = SystemTime::now();
        let file =
            Attributes { node: 1, directory: true, size: 0, block: 512, mode: 0, user: 0, group: 0, since };
        let believe = Duration::from_secs(1);
        for (body, expected) in [
            (Body::attributes(believe, &file), 104),
            (Body::entry(believe, &file), 128),
            (Body::size(1), 80),
            (Body::opened(1), 16),
            (Body::written(1), 8),
            (Body::default().listed(1, 1, true, b"name"), 32),
        ] {
            assert_eq!(body.0.len(), expected);
        }
        assert_eq!(answer(1, 5, 0)[4..8], (-5i32).to_ne_bytes());
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(code in 0u32..60, body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let bytes = request(code, &body);
            Request::decode(&bytes);
            for end in 0..HEADER {
                prop_assert!(Request::decode(&bytes[..end]).is_none());
            }
        }
    }
}
