//! The flag fields of the handshake, and the transmission flags with which a server says what an export can do.

use crate::bits::bits;

bits! {
    /// Sent by a newstyle server in its greeting, 16 bits.
    pub struct HandshakeFlags: u16 {
        /// The server speaks fixed newstyle: it answers options that it does not know.
        FIXED_NEWSTYLE = 0;
        /// The server can leave out the 124 zero bytes after `NBD_OPT_EXPORT_NAME`.
        NO_ZEROES = 1;
    }
}

bits! {
    /// The client's answer to the greeting, 32 bits. A server must disconnect if it does not know one.
    pub struct ClientFlags: u32 {
        /// The client speaks fixed newstyle.
        FIXED_NEWSTYLE = 0;
        /// The client does not want the 124 zero bytes; only if the server offered it.
        NO_ZEROES = 1;
    }
}

bits! {
    /// What an export can do, 16 bits, sent with its size.
    pub struct TransmissionFlags: u16 {
        /// Always set.
        HAS_FLAGS = 0;
        /// Writing requests fail with EPERM.
        READ_ONLY = 1;
        /// FLUSH is served.
        SEND_FLUSH = 2;
        /// The command flag FUA is honoured.
        SEND_FUA = 3;
        /// The store behaves like a rotating disk.
        ROTATIONAL = 4;
        /// TRIM is served.
        SEND_TRIM = 5;
        /// WRITE_ZEROES is served.
        SEND_WRITE_ZEROES = 6;
        /// The command flag DF is honoured; only with structured replies or extended headers.
        SEND_DF = 7;
        /// Flushes and FUA reach across connections, so that a client may use several.
        CAN_MULTI_CONN = 8;
        /// RESIZE is served, a proposed extension; only with structured replies or extended headers.
        SEND_RESIZE = crate::resize::SEND_RESIZE_BIT;
        /// CACHE is served.
        SEND_CACHE = 10;
        /// The command flag FAST_ZERO is honoured.
        SEND_FAST_ZERO = 11;
        /// BLOCK_STATUS accepts a payload that names contexts; only with extended headers.
        BLOCK_STATUS_PAYLOAD = 12;
    }
}
