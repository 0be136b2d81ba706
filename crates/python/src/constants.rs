//! The constants of the module, with libnbd's names and numbers.

use client::handle::{chunk_status, strict, transport};
use pyo3::prelude::*;

/// libnbd's release whose calls these are.
pub(crate) const VERSION: &str = "1.24.0";

const NUMBERS: [(&str, u32); 44] = [
    ("AIO_DIRECTION_READ", 1),
    ("AIO_DIRECTION_WRITE", 2),
    ("AIO_DIRECTION_BOTH", 3),
    ("ALLOW_TRANSPORT_TCP", transport::TCP),
    ("ALLOW_TRANSPORT_UNIX", transport::UNIX),
    ("ALLOW_TRANSPORT_VSOCK", transport::VSOCK),
    ("ALLOW_TRANSPORT_SSH", transport::SSH),
    ("ALLOW_TRANSPORT_MASK", transport::MASK),
    ("CMD_FLAG_FUA", 1),
    ("CMD_FLAG_NO_HOLE", 2),
    ("CMD_FLAG_DF", 4),
    ("CMD_FLAG_REQ_ONE", 8),
    ("CMD_FLAG_FAST_ZERO", 16),
    ("CMD_FLAG_PAYLOAD_LEN", 32),
    ("CMD_FLAG_MASK", 63),
    ("HANDSHAKE_FLAG_FIXED_NEWSTYLE", 1),
    ("HANDSHAKE_FLAG_NO_ZEROES", 2),
    ("HANDSHAKE_FLAG_MASK", 3),
    ("READ_DATA", chunk_status::DATA),
    ("READ_HOLE", chunk_status::HOLE),
    ("READ_ERROR", chunk_status::ERROR),
    ("SHUTDOWN_ABANDON_PENDING", 1 << 16),
    ("SHUTDOWN_MASK", 1 << 16),
    ("SIZE_MINIMUM", 0),
    ("SIZE_PREFERRED", 1),
    ("SIZE_MAXIMUM", 2),
    ("SIZE_PAYLOAD", 3),
    ("STATE_HOLE", 1),
    ("STATE_ZERO", 2),
    ("STATE_DIRTY", 1),
    ("STRICT_COMMANDS", strict::COMMANDS),
    ("STRICT_FLAGS", strict::FLAGS),
    ("STRICT_BOUNDS", strict::BOUNDS),
    ("STRICT_ZERO_SIZE", strict::ZERO_SIZE),
    ("STRICT_ALIGN", strict::ALIGN),
    ("STRICT_PAYLOAD", strict::PAYLOAD),
    ("STRICT_AUTO_FLAG", strict::AUTO_FLAG),
    ("STRICT_MASK", strict::MASK),
    ("TLS_DISABLE", 0),
    ("TLS_ALLOW", 1),
    ("TLS_REQUIRE", 2),
    // Beyond libnbd: the bits of the proposed extension RESIZE.
    ("FLAG_SEND_RESIZE", 1 << 9),
    ("CMD_RESIZE", 8),
    ("REPLY_TYPE_RESIZE", 7),
];

const TEXTS: [(&str, &str); 7] = [
    ("__version__", VERSION),
    ("package_name", "libnbd"),
    ("NAMESPACE_BASE", "base:"),
    ("CONTEXT_BASE_ALLOCATION", "base:allocation"),
    ("NAMESPACE_QEMU", "qemu:"),
    ("CONTEXT_QEMU_DIRTY_BITMAP", "qemu:dirty-bitmap:"),
    ("CONTEXT_QEMU_ALLOCATION_DEPTH", "qemu:allocation-depth"),
];

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    for (name, number) in NUMBERS {
        module.add(name, number)?;
    }
    for (name, text) in TEXTS {
        module.add(name, text)?;
    }
    Ok(())
}
