//! What a connection waits for: its client, or requests that could not be answered at once.

use super::{Broken, Transmission};
use crate::{output::Output, stack};
use net::{Stream, Wait};
use reactor::{Interest, Readiness};
use std::{
    future::{Future, poll_fn},
    io,
    ops::ControlFlow,
    pin::pin,
    sync::Arc,
    task::Poll,
};

impl Transmission<'_> {
    #[inline]
    fn waits_for_client_only(&self) -> bool {
        self.pending.is_empty() && !self.resize.is_watched()
    }

    /// May the thread sleep in a socket call? Only while no request waits for anything else.
    #[inline]
    pub(super) fn wait(&self) -> Wait {
        if self.waits_for_client_only() { Wait::Block } else { Wait::DontWait }
    }

    fn readiness(&mut self) -> &Readiness<Arc<Stream>> {
        self.readiness.get_or_insert_with(|| Readiness::new(self.stream.clone()))
    }

    /// Receives something; 0 is the end of the stream.
    pub(super) async fn receive(&mut self) -> std::result::Result<usize, Broken> {
        loop {
            let wait = self.wait();
            match self.input.receive(self.stream, wait) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.wait_for_input(wait).await?,
                done => {
                    self.patience.heard();
                    return Ok(done?);
                }
            }
        }
    }

    /// Receives what has come already; whether there was something.
    pub(super) fn receive_now(&mut self) -> std::result::Result<bool, Broken> {
        match self.input.receive(self.stream, Wait::DontWait) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            received => Ok(received? > 0),
        }
    }

    /// Nothing could be received in the middle of a request: waits for the socket, or, where the call has waited already,
    /// loses some patience. The client may want its answers before it goes on. (To send them before the first wait made
    /// writes of 64 KiB over TCP a quarter slower, since client and server then took turns for every few of them.)
    pub(super) async fn wait_for_input(&mut self, waited: Wait) -> std::result::Result<(), Broken> {
        if !self.output.is_empty() {
            // Seldom, so not in the frame of the whole connection.
            Box::pin(self.send()).await?;
        }
        match waited {
            Wait::Block => return self.patience.silence(),
            Wait::DontWait => self.readiness().wait(Interest { read: true, write: false }).await,
        }
        Ok(())
    }

    /// Sends all replies. Requests that finish meanwhile are answered too.
    pub(super) async fn send(&mut self) -> std::result::Result<(), Broken> {
        let _turn = if self.output.is_empty() { None } else { Some(self.helper.turn()?) };
        while !self.output.is_empty() {
            let wait = self.wait();
            match self.output.send(self.stream, wait) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && wait == Wait::DontWait => {
                    self.progress(Interest { read: false, write: true }).await;
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Waits until there is something to do: input, or requests that have finished. `Break`: the stream has ended.
    pub(super) async fn wait_for_more(&mut self) -> std::result::Result<ControlFlow<()>, Broken> {
        let ended = |n| if n == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        if self.waits_for_client_only() {
            let received = match self.input.receive(self.stream, Wait::Block) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && self.helper.is_busy() => {
                    self.patience.heard();
                    return Ok(ControlFlow::Continue(()));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    // The client rests, so what it needs no longer is given back meanwhile.
                    self.input.rest();
                    self.output = Output::new(self.stream);
                    self.stream.rest();
                    disk::release_idle_buffers();
                    stack::release();
                    self.patience.silence()?;
                    self.patience.while_resting(self.stream, || self.input.receive(self.stream, Wait::Block))
                }
                received => received,
            };
            self.patience.heard();
            return Ok(ended(received?));
        }
        let full = self.pending.len() >= self.in_flight;
        if !full {
            match self.input.receive(self.stream, Wait::DontWait) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return Ok(ended(done?)),
            }
        }
        // Nothing but the client's next request is waited for, though not in the socket call that counts its silence.
        let limit = self.patience.limit().filter(|_| self.pending.is_empty() && !self.resize.tells_client());
        let progress = self.progress(Interest { read: !full, write: false });
        match limit {
            None => progress.await,
            Some(limit) => {
                let (mut progress, mut silence) = (pin!(progress), pin!(reactor::sleep(limit)));
                let in_time = poll_fn(|cx| match progress.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(true),
                    Poll::Pending => silence.as_mut().poll(cx).map(|()| false),
                });
                if !in_time.await {
                    return Err(Broken::Idle);
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Waits until a request has finished (and answers all that have), the disk has another size of which the client
    /// wants to hear, or the socket may be ready.
    async fn progress(&mut self, interest: Interest) {
        self.readiness();
        let Transmission { readiness: Some(readiness), pending, resize, .. } = self else { return };
        let mut change = None;
        let mut finished = Vec::new();
        {
            // Taken apart, so that the set and the socket can be awaited together.
            let mut socket = pin!(readiness.wait(interest));
            poll_fn(|cx| {
                while let Poll::Ready(Some(done)) = pending.poll_next(cx) {
                    finished.push(done);
                }
                // A client that does not take its replies gets no more of them.
                if interest.read
                    && let Poll::Ready(changed) = resize.poll_change(cx)
                {
                    change = Some(changed);
                }
                if !finished.is_empty() || change.is_some() {
                    return Poll::Ready(());
                }
                if interest == Interest::default() { Poll::Pending } else { socket.as_mut().poll(cx) }
            })
            .await;
        }
        for (request, outcome) in finished {
            self.reply(&request, outcome);
        }
        if let Some(change) = change {
            self.resize.tell(change, &mut self.output);
        }
    }
}
