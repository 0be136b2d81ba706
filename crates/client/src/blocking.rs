//! The client without futures: each call returns when the server has answered.

use crate::{
    connect::Connector,
    connection::{Ask, SizeWatch},
    remote_disk::RemoteDisk,
};
use disk::{Data, Disk, Errno, Error, Extents, Facts, Range, Result, WriteFlags, ZeroFlags};
use proto::{Command, CommandFlags};

/// An export of a server. Many threads may use it at once.
pub struct Client {
    disk: RemoteDisk,
}

impl Client {
    /// Open the export that a URI names, such as `nbd://host/export` or `nbd+unix:///?socket=/path`.
    ///
    /// # Errors
    /// The URI is none, there is no connection, or the server refuses the export.
    pub fn connect(uri: &str) -> Result<Client> {
        Ok(Client { disk: Connector::uri(uri)?.open()? })
    }

    /// Open what a connector describes.
    ///
    /// # Errors
    /// There is no connection, or the server refuses the export.
    pub fn open(connector: &Connector) -> Result<Client> {
        Ok(Client { disk: connector.open()? })
    }

    /// Size of the export, in bytes; where it changes, the last one that was heard of here.
    pub fn size(&self) -> u64 {
        self.disk.size()
    }

    /// What the export is and can do.
    pub fn facts(&self) -> &Facts {
        self.disk.facts()
    }

    /// The asynchronous face of the same connections.
    pub fn disk(&self) -> &RemoteDisk {
        &self.disk
    }

    fn check(&self, at: u64, len: u64) -> Result<Range> {
        let range = Range::new(at, len);
        if range.lies_within(self.size()) {
            return Ok(range);
        }
        let text = format!("{len} bytes at {at} lie outside of the disk, which has {} bytes", self.size());
        Err(Error::new(Errno::INVAL, text))
    }

    fn check_write(&self, at: u64, len: u64) -> Result<Range> {
        if !self.facts().write {
            return Err(Error::new(Errno::ROFS, "the export can only be read"));
        }
        self.check(at, len)
    }

    fn offered(&self, what: &str, offered: bool) -> Result<()> {
        match offered {
            true => Ok(()),
            false => Err(Error::new(Errno::NOTSUP, format!("the server does not offer {what}"))),
        }
    }

    /// Fill `into` from byte `at` on.
    ///
    /// # Errors
    /// The range lies outside, or the server failed.
    pub fn read(&self, into: &mut [u8], at: u64) -> Result<()> {
        self.read_data(at, into.len() as u64)?.copy_to(into);
        Ok(())
    }

    /// As [`Client::read`], as the bytes were received: without a copy.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub fn read_data(&self, at: u64, len: u64) -> Result<Data> {
        let range = self.check(at, len)?;
        if range.is_empty() {
            return Ok(Data::zeroes(0));
        }
        if range.len > self.disk.longest() {
            return self.disk.read(range).wait();
        }
        let (command, flags) = (Command::Read, CommandFlags::NONE);
        let ask = Ask { command, flags, offset: at, length: range.len };
        self.disk.submit(ask, None)?.wait()?.into_data()
    }

    /// Write `from` from byte `at` on. It is stable after a [`Client::flush`].
    ///
    /// # Errors
    /// The export is read-only, the range lies outside, or the server failed.
    pub fn write(&self, from: &[u8], at: u64) -> Result<()> {
        self.write_with(from, at, WriteFlags::default())
    }

    /// As [`Client::write`], stable on return when `flags` say so.
    ///
    /// # Errors
    /// As [`Client::write`]; or the server does not offer FUA.
    pub fn write_with(&self, from: &[u8], at: u64, flags: WriteFlags) -> Result<()> {
        let range = self.check_write(at, from.len() as u64)?;
        if flags.fua {
            self.offered("FUA", self.facts().fua)?;
        }
        if range.is_empty() {
            return Ok(());
        }
        // In pieces, so that a huge slice is not copied at once.
        for part in range.split_at_multiples(self.disk.longest()) {
            let data = Data::copy_from(&from[(part.start - at) as usize..][..part.len as usize]);
            self.write_part(part.start, &data, flags)?;
        }
        Ok(())
    }

    /// As [`Client::write_with`], without a copy.
    ///
    /// # Errors
    /// As [`Client::write_with`].
    pub fn write_data(&self, from: &Data, at: u64, flags: WriteFlags) -> Result<()> {
        let range = self.check_write(at, from.len())?;
        if flags.fua {
            self.offered("FUA", self.facts().fua)?;
        }
        if range.is_empty() {
            return Ok(());
        }
        if range.len > self.disk.longest() {
            return self.disk.write(at, from.clone(), flags).wait();
        }
        self.write_part(at, from, flags)
    }

    /// What goes in one request.
    fn write_part(&self, at: u64, data: &Data, flags: WriteFlags) -> Result<()> {
        let flags = CommandFlags::NONE.with_if(flags.fua, CommandFlags::FUA);
        let ask = Ask { command: Command::Write, flags, offset: at, length: data.len() };
        self.disk.submit(ask, Some(data))?.wait().map(drop)
    }

    /// Make a range read as zeroes.
    ///
    /// # Errors
    /// The export is read-only, the range lies outside, the server does not offer it or failed.
    pub fn zero(&self, at: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        let range = self.check_write(at, len)?;
        self.offered("zeroing", self.facts().zero)?;
        self.offered("FUA", self.facts().fua || !flags.fua)?;
        self.offered("fast zeroing", self.facts().fast_zero || !flags.fast)?;
        if range.is_empty() { Ok(()) } else { self.disk.zero(range, flags).wait() }
    }

    /// Say that a range is no longer needed.
    ///
    /// # Errors
    /// The export is read-only, the range lies outside, the server does not offer it or failed.
    pub fn trim(&self, at: u64, len: u64) -> Result<()> {
        let range = self.check_write(at, len)?;
        self.offered("trimming", self.facts().trim)?;
        if range.is_empty() { Ok(()) } else { self.disk.trim(range, WriteFlags::default()).wait() }
    }

    /// Make everything stable that was written.
    ///
    /// # Errors
    /// The server does not offer it, or failed.
    pub fn flush(&self) -> Result<()> {
        self.offered("flushing", self.facts().flush)?;
        self.disk.flush().wait()
    }

    /// What a range holds, from its start on; it may stop short of the end.
    ///
    /// # Errors
    /// The range lies outside, the server does not offer it or failed.
    pub fn extents(&self, at: u64, len: u64) -> Result<Extents> {
        let range = self.check(at, len)?;
        self.offered("extents", self.facts().extents)?;
        if range.is_empty() { Ok(Extents::new()) } else { self.disk.extents(range, usize::MAX).wait() }
    }

    /// Change the size of the export (the proposed RESIZE), and learn what it is then. No other thread may have
    /// requests under way between the old size and the new one.
    ///
    /// # Errors
    /// As [`RemoteDisk::resize`].
    pub fn resize(&self, size: u64) -> Result<u64> {
        reactor::block_on(self.disk.resize(size))
    }

    /// Hear of every change of the size: [`SizeWatch::wait`] returns them one by one. This can be asked for once.
    ///
    /// # Errors
    /// As [`RemoteDisk::watch_size`].
    pub fn watch_size(&self) -> Result<SizeWatch<'_>> {
        self.disk.watch_size()
    }

    /// Close the connection in an orderly way, after everything was answered.
    ///
    /// # Errors
    /// The connection broke before.
    pub fn close(self) -> Result<()> {
        reactor::block_on(self.disk.disconnect())
    }
}
