//! What is known of the server and of the export.

use crate::arguments::Text;
use crate::handle::{Nbd, calls};
use client::{
    handle::SizeType,
    proto::{ReplyStyle, TransmissionFlags as Flags},
};
use pyo3::prelude::*;

#[pymethods]
impl Nbd {
    /// The state that the handle is in, in words.
    fn connection_state(&self) -> String {
        let (name, words) = self.state().describe();
        format!("{name}: {words}")
    }
}

calls! {
    /// The size of the export in bytes.
    fn get_size(h) -> u64 { h.size() }

    /// A block size: SIZE_MINIMUM, SIZE_PREFERRED or SIZE_MAXIMUM as the server told, 0 if it did not; SIZE_PAYLOAD is the
    /// most that one request carries here.
    fn get_block_size(h, size_type: i32) -> u32 {
        const PAYLOAD: i32 = 3;
        const MOST: u32 = client::proto::limits::PAYLOAD_MAX;
        match size_type {
            PAYLOAD => h.block_size(SizeType::Maximum).map(|size| if size == 0 { MOST } else { size.min(MOST) }),
            _ => {
                h.size()?; // it is not asked too early
                SizeType::of(size_type).and_then(|which| h.block_size(which))
            }
        }
    }

    /// Whether the export can only be read.
    fn is_read_only(h) -> bool { h.offers(Flags::READ_ONLY) }

    /// Whether the export behaves like a rotating disk.
    fn is_rotational(h) -> bool { h.offers(Flags::ROTATIONAL) }

    /// Whether the server has flush().
    fn can_flush(h) -> bool { h.offers(Flags::SEND_FLUSH) }

    /// Whether the server honours CMD_FLAG_FUA.
    fn can_fua(h) -> bool { h.offers(Flags::SEND_FUA) }

    /// Whether the server has trim().
    fn can_trim(h) -> bool { h.offers(Flags::SEND_TRIM) }

    /// Whether the server has zero().
    fn can_zero(h) -> bool { h.offers(Flags::SEND_WRITE_ZEROES) }

    /// Whether the server honours CMD_FLAG_FAST_ZERO.
    fn can_fast_zero(h) -> bool { h.offers(Flags::SEND_FAST_ZERO) }

    /// Whether the server honours CMD_FLAG_DF.
    fn can_df(h) -> bool { h.offers(Flags::SEND_DF) }

    /// Whether the server has cache().
    fn can_cache(h) -> bool { h.offers(Flags::SEND_CACHE) }

    /// Whether several connections see each other's writes, so that a client may use them at once.
    fn can_multi_conn(h) -> bool { h.offers(Flags::CAN_MULTI_CONN) }

    /// Whether the server has resize(), which is a proposed extension.
    fn can_resize(h) -> bool { h.offers(Flags::SEND_RESIZE) }

    /// Whether the server has block_status_filter().
    fn can_block_status_payload(h) -> bool { h.offers(Flags::BLOCK_STATUS_PAYLOAD) }

    /// Whether a metadata context was agreed on.
    fn can_meta_context(h, metacontext: Text) -> bool { h.has_context(&metacontext) }

    /// What the server calls the export; needs set_full_info().
    fn get_canonical_export_name(h) -> String { h.canonical_name().map(str::to_owned) }

    /// What the server says about the export; needs set_full_info().
    fn get_export_description(h) -> String { h.description().map(str::to_owned) }

    /// The dialect of the server: oldstyle, newstyle or newstyle-fixed.
    fn get_protocol(h) -> &'static str { h.protocol().map(|protocol| protocol.name()) }

    /// Whether the connection is encrypted.
    fn get_tls_negotiated(h) -> bool { h.is_encrypted() }

    /// Whether replies are structured.
    fn get_structured_replies_negotiated(h) -> bool {
        h.negotiated_replies().map(|style| style.has_chunks())
    }

    /// Whether headers are extended.
    fn get_extended_headers_negotiated(h) -> bool {
        h.negotiated_replies().map(|style| style == ReplyStyle::Extended)
    }

    /// The URI of the connection.
    fn get_uri(h) -> String { h.uri() }

    /// How many bytes were sent, of the protocol and of the disk.
    fn stats_bytes_sent(h) -> u64 { Ok(h.stats().bytes_sent) }

    /// How many options and requests were sent.
    fn stats_chunks_sent(h) -> u64 { Ok(h.stats().chunks_sent) }

    /// How many bytes were received, of the protocol and of the disk.
    fn stats_bytes_received(h) -> u64 { Ok(h.stats().bytes_received) }

    /// How many replies and parts of replies were received.
    fn stats_chunks_received(h) -> u64 { Ok(h.stats().chunks_received) }
}
