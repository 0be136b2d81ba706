//! From the words of `disk` to those of `proto`: flags, errors, extents, read data.

use crate::output::Output;
use disk::{Data, Error, Extents, Facts, Piece, Result, Status};
use proto::{
    BlockSizes, Command, CommandFlags, Errno, Extent, ReplyTo, Request, TransmissionFlags,
    handshake::ExportInfo,
};

/// The context that every export has.
pub(crate) const BASE: &str = proto::meta_context::BASE_ALLOCATION;
/// So many extents are put into one reply at most (128 KiB of them).
pub(crate) const EXTENTS_MAX: usize = 16 << 10;

/// What a client is told of a disk. `name`: the export's canonical name, if it differs from the one asked for.
pub(crate) fn export_info(facts: &Facts, resizable: bool, name: Option<String>) -> ExportInfo {
    use TransmissionFlags as F;
    let flags = F::HAS_FLAGS
        .with_if(!facts.write, F::READ_ONLY)
        .with_if(facts.flush, F::SEND_FLUSH)
        .with_if(facts.fua, F::SEND_FUA)
        .with_if(facts.rotational, F::ROTATIONAL)
        .with_if(facts.trim, F::SEND_TRIM)
        .with_if(facts.zero, F::SEND_WRITE_ZEROES)
        .with_if(facts.fast_zero, F::SEND_FAST_ZERO)
        .with_if(facts.cache, F::SEND_CACHE)
        .with_if(facts.multi_conn, F::CAN_MULTI_CONN)
        .with_if(resizable, F::SEND_RESIZE)
        .with_if(true, F::SEND_DF)
        .with_if(true, F::BLOCK_STATUS_PAYLOAD);
    let blocks = facts.told_blocks.unwrap_or(facts.blocks);
    ExportInfo {
        size: facts.size,
        flags,
        block_sizes: Some(BlockSizes {
            minimum: blocks.minimum,
            preferred: blocks.preferred,
            // What the protocol's limit leaves of it.
            maximum: blocks.maximum.min(proto::limits::PAYLOAD_MAX) / blocks.minimum * blocks.minimum,
        }),
        name: facts.name.as_deref().map(str::to_owned).or(name),
        description: facts.description.as_deref().map(str::to_owned),
    }
}

/// Answers with an error of a disk.
pub(crate) fn error(out: &mut Output, to: ReplyTo, request: &Request, error: &Error) {
    let errno = Errno::from_host(error.errno().get(), request.command, request.flags, request.length);
    to.error(out.header(), errno, &error.to_string());
}

/// Answers a read.
#[inline]
pub(crate) fn data(out: &mut Output, to: ReplyTo, request: &Request, data: Data) {
    if let Some(bytes) = data.as_bytes() {
        to.data(out.header(), true, request.offset, bytes.len() as u32);
        out.payload(data);
    } else if !to.style.has_chunks() || (request.flags.has(CommandFlags::DF) && !data.says_zeroes()) {
        to.data(out.header(), true, request.offset, data.len() as u32);
        out.payload(data);
    } else {
        in_chunks(out, to, request.offset, &data);
    }
}

/// A read as chunks: one for each hole and each run of data.
fn in_chunks(out: &mut Output, to: ReplyTo, offset: u64, data: &Data) {
    let (mut done, len) = (0, data.len());
    for piece in data.pieces() {
        let here = piece.len();
        let last = done + here == len;
        match piece {
            Piece::Zeroes(_) => to.hole(out.header(), last, offset + done, here as u32),
            _ => {
                to.data(out.header(), last, offset + done, here as u32);
                out.piece(&piece, || data.slice(done, here));
            }
        }
        done += here;
    }
}

/// Extents of `base:allocation`.
pub(crate) fn allocation(extents: &Extents) -> Vec<Extent> {
    use proto::meta_context::{STATE_HOLE, STATE_ZERO};
    let status =
        |hole: bool, zero: bool| (if hole { STATE_HOLE } else { 0 }) | (if zero { STATE_ZERO } else { 0 });
    extents
        .iter()
        .take(EXTENTS_MAX)
        .map(|e| Extent { length: e.len, status: status(e.kind.hole, e.kind.zero) })
        .collect()
}

/// Extents of any other context.
pub(crate) fn statuses(list: Vec<Status>) -> Result<Vec<Extent>> {
    if list.is_empty() {
        return Err(Error::io("the disk gave no status for a metadata context"));
    }
    Ok(list.into_iter().take(EXTENTS_MAX).map(|s| Extent { length: s.len, status: s.value }).collect())
}

/// Why a request cannot be carried out on a disk of these facts and this size, before it is asked.
// Always: a request that was just decoded is looked at in registers. From memory, a look at two fields at once waits
// until all stores before it are done, and those are the payload of the last write.
#[inline(always)]
pub(crate) fn refusal(
    request: &Request,
    facts: &Facts,
    size: u64,
    has_contexts: bool,
) -> Option<(Errno, &'static str)> {
    let wrong = |why| Some((Errno::EINVAL, why));
    let valid = CommandFlags(request.command.valid_flags().0 | CommandFlags::PAYLOAD_LEN.0);
    if request.flags.without(valid) != CommandFlags::NONE {
        return wrong("the request has flags that make no sense with it");
    }
    let outside = || {
        let fits = request.offset.checked_add(request.length).is_some_and(|end| end <= size);
        request.length == 0 || !fits
    };
    let changes = matches!(request.command, Command::Write | Command::WriteZeroes | Command::Trim);
    if changes && !facts.write {
        return Some((Errno::EPERM, "the export is read-only"));
    }
    if changes && request.flags.has(CommandFlags::FUA) && !facts.fua {
        return wrong("FUA is not supported");
    }
    match request.command {
        Command::Flush => {
            if !facts.flush {
                return wrong("flush is not supported");
            }
            if request.offset != 0 || request.length != 0 {
                return wrong("a flush has neither offset nor length");
            }
            return None;
        }
        Command::Trim if !facts.trim => return wrong("trim is not supported"),
        Command::Cache if !facts.cache => return wrong("cache is not supported"),
        Command::WriteZeroes if !facts.zero => return wrong("write zeroes is not supported"),
        Command::WriteZeroes if request.flags.has(CommandFlags::FAST_ZERO) && !facts.fast_zero => {
            return wrong("fast zero is not supported");
        }
        Command::BlockStatus if !has_contexts => return wrong("no metadata context was negotiated"),
        Command::Unknown(_) | Command::Disc | Command::Resize => return wrong("there is no such command"),
        _ => {}
    }
    if outside() {
        if request.length == 0 {
            return wrong("the request is of length 0");
        }
        let why = "the request goes beyond the end of the export";
        return match request.command {
            Command::Write | Command::WriteZeroes => Some((Errno::ENOSPC, why)),
            _ => wrong(why),
        };
    }
    let minimum = u64::from(facts.blocks.minimum);
    if minimum > 1 && (request.offset | request.length) & (minimum - 1) != 0 {
        return wrong("the request is not aligned to the minimum block size");
    }
    let most = u64::from(facts.blocks.maximum.min(proto::limits::PAYLOAD_MAX));
    if matches!(request.command, Command::Read | Command::Write) && request.length > most {
        return wrong("the request is larger than the maximum block size");
    }
    None
}
