//! An export of a server, as a [`Disk`].

use crate::{
    connect::Connector,
    connection::{Answer, Ask, Connection, SizeWatch, Ticket},
};
use disk::{
    Blocks, Data, Disk, Errno, Error, Extents, Facts, Io, Kind, Range, Result, Status, WriteFlags, ZeroFlags,
};
use net::Child;
use proto::{
    Command, CommandFlags, Context, Extent, TransmissionFlags,
    handshake::Negotiated,
    limits::PAYLOAD_PORTABLE,
    meta_context::{BASE_ALLOCATION, STATE_HOLE, STATE_ZERO},
    reply::ReplyStyle,
};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{self, Poll},
};

/// With compact headers: how far one zero, trim or cache request reaches. Some servers refuse more.
const EFFECT_COMPACT: u64 = 1 << 30;
/// With compact headers: how far one status request reaches; aligned for every block size.
const STATUS_COMPACT: u64 = (1 << 32) - (64 << 10);
/// How many parts of one split request are in flight.
const PARTS: usize = 8;

/// An export of an NBD server.
///
/// Requests are passed on as they are; what is larger than the server takes is split. Over several connections
/// they are spread: to one that is idle, or else in turn. That only happens when the server promises that a flush reaches all of them.
pub struct RemoteDisk {
    links: Box<[Link]>,
    next: AtomicUsize,
    facts: Facts,
    /// The present size, as far as it is known here.
    size: AtomicU64,
    negotiated: Negotiated,
    /// The longest read or write.
    payload: u64,
    /// The longest zero, trim or cache.
    effect: u64,
    /// The longest status request.
    status: u64,
    /// Ends after the connections are closed.
    _child: Option<Arc<Child>>,
}

/// The request of a [`RemoteDisk`] to be told of changes of its size.
pub struct SizeNews(u64);

/// One connection, with the metadata contexts as the server numbered them on it.
struct Link {
    connection: Connection,
    contexts: Vec<Context>,
}

impl Link {
    fn new((connection, negotiated): (Connection, Negotiated)) -> Link {
        Link { connection, contexts: negotiated.contexts }
    }
}

impl RemoteDisk {
    pub(crate) fn open(connector: &Connector) -> Result<RemoteDisk> {
        let (connection, negotiated) = connector.open_one()?.into_connection()?;
        let mut links = vec![Link { connection, contexts: negotiated.contexts.clone() }];
        if negotiated.info.flags.has(TransmissionFlags::CAN_MULTI_CONN) {
            for _ in 1..connector.options.connections {
                let (connection, again) = connector.open_one()?.into_connection()?;
                let (one, other) = (&negotiated, &again);
                if one.info.size != other.info.size
                    || one.info.flags != other.info.flags
                    || one.replies != other.replies
                {
                    return Err(Error::io("the server opened another disk on its second connection"));
                }
                links.push(Link::new((connection, again)));
            }
        }
        Ok(RemoteDisk::new(links.into(), negotiated, connector.child()))
    }

    /// A disk over one connection, whose handshake is over.
    pub fn from_connection(connection: Connection, negotiated: Negotiated) -> RemoteDisk {
        let contexts = negotiated.contexts.clone();
        RemoteDisk::new([Link { connection, contexts }].into(), negotiated, None)
    }

    fn new(links: Box<[Link]>, negotiated: Negotiated, child: Option<Arc<Child>>) -> RemoteDisk {
        let facts = facts(&negotiated);
        let extended = negotiated.replies == ReplyStyle::Extended;
        let largest = facts.blocks.maximum.min(PAYLOAD_PORTABLE);
        RemoteDisk {
            links,
            next: AtomicUsize::new(0),
            payload: u64::from((largest - largest % facts.blocks.minimum).max(facts.blocks.minimum)),
            effect: if extended { u64::MAX } else { EFFECT_COMPACT },
            status: if extended { u64::MAX } else { STATUS_COMPACT },
            size: AtomicU64::new(facts.size),
            facts,
            negotiated,
            _child: child,
        }
    }

    /// The size of the export in bytes: as it was in the handshake, or as [`RemoteDisk::resize`] left it, or as
    /// [`RemoteDisk::watch_size`] last told it.
    pub fn size(&self) -> u64 {
        self.size.load(Relaxed)
    }

    /// Change the size of the export (the proposed RESIZE), and learn what it is then. Nothing of this disk may be
    /// under way between the old size and the new one. With several connections it cannot shrink: each of them
    /// counts as a client that uses it.
    ///
    /// # Errors
    /// `ENOTSUP` where the server does not offer it; `EPERM` when the export would shrink while others use it;
    /// `ENOSPC` when it cannot have that size; or the server failed.
    pub async fn resize(&self, size: u64) -> Result<u64> {
        self.must_offer_resize()?;
        let ask = Ask { command: Command::Resize, flags: CommandFlags::NONE, offset: size, length: 0 };
        match self.links[0].connection.submit(ask, None)?.await? {
            Answer::Size(size) => {
                self.size.store(size, Relaxed);
                Ok(size)
            }
            _ => Err(Error::io("the server answered RESIZE without a size")),
        }
    }

    /// Hear of every change of the size, whoever makes it. This can be asked for once.
    ///
    /// # Errors
    /// `ENOTSUP` where the server does not offer it; or the connection has ended.
    pub fn watch_size(&self) -> Result<SizeWatch<'_>> {
        self.must_offer_resize()?;
        Ok(self.links[0].connection.watch_size()?.keeping(&self.size))
    }

    /// As [`RemoteDisk::watch_size`], for one who keeps the disk and listens with [`RemoteDisk::poll_size`].
    ///
    /// # Errors
    /// As there.
    pub fn listen_to_size(&self) -> Result<SizeNews> {
        self.must_offer_resize()?;
        Ok(SizeNews(self.links[0].connection.watch_size()?.into_cookie()))
    }

    /// The next size that the server told, as [`SizeWatch::next`] has it. Of several who poll, the last one's waker
    /// counts.
    pub fn poll_size(&self, news: &SizeNews, cx: &mut task::Context<'_>) -> Poll<Result<u64>> {
        let told = self.links[0].connection.poll_size(news.0, cx);
        if let Poll::Ready(Ok(size)) = told {
            self.size.store(size, Relaxed);
        }
        told
    }

    /// Whether the server lets this client change the size of the export, and tells of changes (the proposed RESIZE).
    pub fn offers_resize(&self) -> bool {
        self.negotiated.info.flags.has(TransmissionFlags::SEND_RESIZE)
    }

    fn must_offer_resize(&self) -> Result<()> {
        match self.offers_resize() {
            true => Ok(()),
            false => Err(Error::new(Errno::NOTSUP, "the server does not offer to resize this export")),
        }
    }

    /// What was agreed on in the (first) handshake.
    pub fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// What the disk says of itself, to be narrowed before it is shared: a part that is taken away here is not
    /// offered to those above.
    pub fn facts_mut(&mut self) -> &mut Facts {
        &mut self.facts
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.links.len()
    }

    /// How many bytes of requests wait to be sent, over all connections.
    pub fn unsent(&self) -> usize {
        self.links.iter().map(|link| link.connection.unsent()).sum()
    }

    /// Why a connection ended, if one did.
    pub fn error(&self) -> Option<Error> {
        self.links.iter().find_map(|link| link.connection.error())
    }

    /// Wait until everything in flight is answered, then close the connections in an orderly way. Later
    /// requests fail. (Dropping the disk closes them, too, without waiting.)
    ///
    /// # Errors
    /// A connection broke before all was answered.
    pub async fn disconnect(&self) -> Result<()> {
        let mut outcome = Ok(());
        for link in &self.links {
            outcome = outcome.and(link.connection.disconnect().await);
        }
        outcome
    }

    fn link(&self) -> &Link {
        match &*self.links {
            [only] => only,
            several => {
                // One that is idle, and always the same one: its memory is in the processor's cache, here and at the
                // server. Only where all are busy does it go round.
                let idle = several.iter().find(|link| link.connection.in_flight() == 0);
                idle.unwrap_or_else(|| &several[self.next.fetch_add(1, Relaxed) % several.len()])
            }
        }
    }

    /// What `then` answers, which is asked when all writes are over whose requests were dropped.
    fn settled<'a>(&'a self, then: impl FnOnce() -> Io<'a, ()> + Send + 'a) -> Io<'a, ()> {
        let unsettled: Vec<_> = self.links.iter().filter_map(|link| link.connection.settled()).collect();
        if unsettled.is_empty() {
            return then();
        }
        Io::later(async move {
            for settled in unsettled {
                settled.await;
            }
            then().await
        })
    }

    /// Queue a request that needs no split.
    pub(crate) fn submit(&self, ask: Ask, payload: Option<&Data>) -> Result<Ticket<'_>> {
        self.link().connection.submit(ask, payload)
    }

    /// The longest read or write that goes in one request, in bytes.
    pub(crate) fn longest(&self) -> u64 {
        self.payload
    }

    /// One request if it is short enough, else several, some at a time.
    fn command(&self, ask: Ask, longest: u64, payload: Option<Data>) -> Io<'_, ()> {
        if ask.length > longest {
            return Io::later(async move {
                self.in_parts(ask, longest, payload, |_| Ok(())).await //
            });
        }
        match self.submit(ask, payload.as_ref()) {
            Ok(ticket) => Io::later(async move { ticket.await.map(drop) }),
            Err(e) => e.into(),
        }
    }

    async fn in_parts(
        &self,
        ask: Ask,
        longest: u64,
        payload: Option<Data>,
        mut take: impl FnMut(Answer) -> Result<()>,
    ) -> Result<()> {
        let mut parts = Range::new(ask.offset, ask.length).split_at_multiples(longest);
        let mut flying: VecDeque<Ticket<'_>> = VecDeque::new();
        let mut outcome = Ok(());
        loop {
            while outcome.is_ok()
                && flying.len() < PARTS
                && let Some(part) = parts.next()
            {
                let data = payload.as_ref().map(|data| data.slice(part.start - ask.offset, part.len));
                let ask = Ask { offset: part.start, length: part.len, ..ask };
                match self.submit(ask, data.as_ref()) {
                    Ok(ticket) => flying.push_back(ticket),
                    Err(e) => outcome = Err(e),
                }
            }
            // Also after a failure all are awaited: what was answered is over, and somebody may write there again.
            let Some(ticket) = flying.pop_front() else { return outcome };
            let answer = ticket.await;
            outcome = outcome.and_then(|()| take(answer?));
        }
    }

    /// Ask for one context, from the start of the range on.
    fn block_status<'a, T: Send + 'a>(
        &'a self,
        name: &str,
        range: Range,
        limit: usize,
        convert: impl FnOnce(Vec<Extent>) -> T + Send + 'a,
    ) -> Io<'a, T> {
        let link = self.link();
        let Some(context) = link.contexts.iter().find(|c| c.name == name) else {
            return Error::new(Errno::NOTSUP, format!("the server has no metadata context {name}")).into();
        };
        let ask = Ask {
            command: Command::BlockStatus,
            flags: CommandFlags::NONE.with_if(limit == 1, CommandFlags::REQ_ONE),
            offset: range.start,
            length: range.len.min(self.status),
        };
        let id = context.id;
        let flags = self.negotiated.info.flags;
        // With several contexts the server would describe all of them each time.
        let ticket = if link.contexts.len() > 1 && flags.has(TransmissionFlags::BLOCK_STATUS_PAYLOAD) {
            link.connection.submit_status(ask, &[id])
        } else {
            link.connection.submit(ask, None)
        };
        let ticket = match ticket {
            Ok(ticket) => ticket,
            Err(e) => return e.into(),
        };
        Io::later(async move {
            let Answer::Status(contexts) = ticket.await? else {
                return Err(Error::io("the server did not describe the range"));
            };
            let found = contexts.into_iter().find(|c| c.context == id);
            let found = found.ok_or_else(|| Error::io("the server left out a metadata context"))?;
            Ok(convert(found.extents))
        })
    }
}

fn facts(negotiated: &Negotiated) -> Facts {
    let info = &negotiated.info;
    let has = |flag| info.flags.has(flag);
    let named = |name| negotiated.contexts.iter().any(|c| c.name == name);
    let others = negotiated.contexts.iter().filter(|c| c.name != BASE_ALLOCATION);
    let facts = Facts {
        size: info.size,
        told_blocks: None,
        blocks: info.block_sizes.map_or_else(Blocks::default, |b| Blocks {
            minimum: b.minimum,
            preferred: b.preferred,
            maximum: b.maximum,
        }),
        write: true,
        flush: has(TransmissionFlags::SEND_FLUSH),
        fua: has(TransmissionFlags::SEND_FUA),
        trim: has(TransmissionFlags::SEND_TRIM),
        zero: has(TransmissionFlags::SEND_WRITE_ZEROES),
        fast_zero: has(TransmissionFlags::SEND_WRITE_ZEROES | TransmissionFlags::SEND_FAST_ZERO),
        cache: has(TransmissionFlags::SEND_CACHE),
        extents: named(BASE_ALLOCATION),
        multi_conn: has(TransmissionFlags::CAN_MULTI_CONN),
        rotational: has(TransmissionFlags::ROTATIONAL),
        contexts: others.map(|c| c.name.as_str().into()).collect(),
        identity: None,
        description: info.description.as_deref().map(Into::into),
        name: info.name.as_deref().filter(|name| *name != negotiated.export).map(Into::into),
    };
    if has(TransmissionFlags::READ_ONLY) { facts.without_write() } else { facts }
}

fn fua(fua: bool) -> CommandFlags {
    CommandFlags::NONE.with_if(fua, CommandFlags::FUA)
}

fn ask(command: Command, flags: CommandFlags, range: Range) -> Ask {
    Ask { command, flags, offset: range.start, length: range.len }
}

impl Answer {
    /// What was read.
    ///
    /// # Errors
    /// It answers another request than a read.
    pub fn into_data(self) -> Result<Data> {
        match self {
            Answer::Data(data) => Ok(data),
            _ => Err(Error::io("the server answered a read without data")),
        }
    }
}

impl Disk for RemoteDisk {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn read(&self, range: Range) -> Io<'_, Data> {
        let ask = ask(Command::Read, CommandFlags::NONE, range);
        if range.len > self.payload {
            return Io::later(async move {
                let mut parts = Vec::new();
                let take = |answer: Answer| {
                    parts.push(answer.into_data()?);
                    Ok(())
                };
                self.in_parts(ask, self.payload, None, take).await?;
                Ok(Data::join(parts))
            });
        }
        match self.submit(ask, None) {
            Ok(ticket) => Io::later(async move { ticket.await?.into_data() }),
            Err(e) => e.into(),
        }
    }

    fn write(&self, at: u64, data: Data, flags: WriteFlags) -> Io<'_, ()> {
        let range = Range::new(at, data.len());
        self.command(ask(Command::Write, fua(flags.fua), range), self.payload, Some(data))
    }

    fn zero(&self, range: Range, flags: ZeroFlags) -> Io<'_, ()> {
        let flags = fua(flags.fua)
            .with_if(!flags.may_trim, CommandFlags::NO_HOLE)
            .with_if(flags.fast, CommandFlags::FAST_ZERO);
        self.command(ask(Command::WriteZeroes, flags, range), self.effect, None)
    }

    fn trim(&self, range: Range, flags: WriteFlags) -> Io<'_, ()> {
        self.command(ask(Command::Trim, fua(flags.fua), range), self.effect, None)
    }

    fn flush(&self) -> Io<'_, ()> {
        let ask = ask(Command::Flush, CommandFlags::NONE, Range::new(0, 0));
        self.settled(move || self.command(ask, self.effect, None))
    }

    /// The connections stay open: others may use them, and dropping the disk closes them.
    fn close(&self) -> Io<'_, ()> {
        self.settled(|| Io::ok(()))
    }

    fn cache(&self, range: Range) -> Io<'_, ()> {
        self.command(ask(Command::Cache, CommandFlags::NONE, range), self.effect, None)
    }

    fn extents(&self, range: Range, limit: usize) -> Io<'_, Extents> {
        self.block_status(BASE_ALLOCATION, range, limit, move |list| {
            let mut extents = Extents::new();
            for Extent { length, status } in list {
                let kind = Kind { hole: status & STATE_HOLE != 0, zero: status & STATE_ZERO != 0 };
                // The last one may go beyond what was asked for, in 64 bits even beyond every disk.
                extents.push(length.min(range.len - extents.covered()), kind);
            }
            extents
        })
    }

    fn status(&self, context: usize, range: Range, limit: usize) -> Io<'_, Vec<Status>> {
        let Some(name) = self.facts.contexts.get(context) else {
            return Error::new(Errno::INVAL, "there is no such metadata context").into();
        };
        self.block_status(name, range, limit, |list| {
            list.into_iter().map(|e| Status { len: e.length, value: e.status }).collect()
        })
    }
}
