//! Every limit of this implementation, with its reason. Sizes are in bytes.

/// The port that IANA assigned to NBD.
pub const PORT: u16 = 10809;

/// The longest string (export name, description, context name, error message): a MUST of the specification.
pub const STRING_MAX: usize = 4096;

/// The most data a server reads with one option. Enough for an export name and fifteen queries of 4096 bytes each;
/// the specification lets a server refuse more with `NBD_REP_ERR_TOO_BIG`.
pub const OPTION_DATA_MAX: u32 = 64 * 1024;

/// Up to this size an oversized option is read away and answered; above it the server disconnects, because nobody sends
/// this much in good faith and draining it would keep the connection busy for nothing.
pub const OPTION_DRAIN_MAX: u32 = 1024 * 1024;

/// How many options a client may send in one handshake. A client that lists a large server sends a few per export; one
/// that sends thousands is only keeping the server busy.
pub const OPTIONS_MAX: u32 = 4096;

/// The largest single option reply that a client accepts. The longest legal one is a name with its description.
pub const OPTION_REPLY_MAX: u32 = 64 * 1024;

/// How much a client collects from the many replies to one option (a list of exports), so that a server cannot fill its
/// memory: 64 MiB are about a million exports.
pub const OPTION_REPLIES_MAX: u64 = 64 * 1024 * 1024;

/// The payload size that every peer accepts, and what a server without block size information must be assumed to take:
/// 32 MiB, the specification's portable maximum.
pub const PAYLOAD_PORTABLE: u32 = 32 * 1024 * 1024;

/// The largest payload (read or write) that is accepted here: nbdkit and libnbd stop at 64 MiB as well.
pub const PAYLOAD_MAX: u32 = 64 * 1024 * 1024;

/// The largest payload of a BLOCK_STATUS chunk that a client accepts: a million 64-bit extents and their header.
pub const BLOCK_STATUS_MAX: u64 = 8 + 16 * 1024 * 1024;

/// The largest payload of an error chunk: the fixed fields and one string.
pub const ERROR_CHUNK_MAX: u64 = 6 + STRING_MAX as u64 + 8;

/// How many context ids the payload of a BLOCK_STATUS request may name. A server of ours never hands out more contexts.
pub const CONTEXTS_MAX: usize = 256;

/// The largest extent that a 32-bit descriptor carries here: the largest multiple of 4096 that fits, so that the next
/// request starts aligned.
pub const EXTENT_32_MAX: u32 = 0xffff_f000;

/// The largest export size: offsets are signed in most systems' files.
pub const SIZE_MAX: u64 = i64::MAX as u64;
