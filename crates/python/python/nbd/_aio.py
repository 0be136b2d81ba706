"""`await` for handles: every request as a coroutine, driven by the event loop that runs."""

import asyncio

from . import _nbd
from ._error import Error

READ, WRITE = 1, 2


class AsyncCalls:
    """What NBD has for asyncio. All these may be used at once, by any number of tasks of one event loop."""

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exception):
        if exception[0] is None and (self.aio_is_ready() or self.aio_is_processing()):
            await self.async_shutdown()

    async def _until(self, done):
        """Pump the handle from the event loop until done() is true."""
        loop = asyncio.get_running_loop()
        while not done():
            waiters = self.__dict__.setdefault("_waiters", set())
            turn = loop.create_future()
            waiters.add(turn)
            try:
                # One of the tasks watches the descriptor; it wakes all others.
                if not self.__dict__.get("_watched"):
                    await self._watch(loop, turn)
                else:
                    await turn
            finally:
                waiters.discard(turn)

    async def _watch(self, loop, turn):
        fd, direction = self.aio_get_fd(), self.aio_get_direction()
        failure = []

        def wake():
            for waiter in list(self._waiters):
                if not waiter.done():
                    waiter.set_result(None)

        def notify(call):
            try:
                call()
            except Error as error:
                failure.append(error)
            wake()

        self._watched = True
        try:
            if direction & READ:
                loop.add_reader(fd, notify, self.aio_notify_read)
            if direction & WRITE:
                loop.add_writer(fd, notify, self.aio_notify_write)
            await turn
        finally:
            self._watched = False
            loop.remove_reader(fd)
            loop.remove_writer(fd)
            wake()  # somebody else watches now
        if failure and not self.aio_is_dead():
            raise failure[0]
        if failure:
            self._death = failure[0]

    async def _connected(self):
        await self._until(lambda: not self.aio_is_connecting())
        if self.aio_is_dead() or self.aio_is_created():
            raise self.__dict__.get("_death") or Error("connect: the connection failed", 0)

    async def _request(self, begin, *arguments, flags=0):
        outcome = []
        cookie = begin(*arguments, completion=lambda error: outcome.append(error.value) and None, flags=flags)
        await self._until(lambda: outcome)
        self.aio_command_completed(cookie)  # raises what went wrong

    async def async_connect_uri(self, uri):
        """Connect as connect_uri()."""
        self.aio_connect_uri(uri)
        await self._connected()

    async def async_connect_unix(self, unixsocket):
        """Connect as connect_unix()."""
        self.aio_connect_unix(unixsocket)
        await self._connected()

    async def async_connect_tcp(self, hostname, port):
        """Connect as connect_tcp()."""
        self.aio_connect_tcp(hostname, port)
        await self._connected()

    async def async_pread(self, count, offset, flags=0):
        """Read as pread()."""
        buffer = bytearray(count)
        await self._request(self.aio_pread, buffer, offset, flags=flags)
        return buffer

    async def async_pread_into(self, buf, offset, flags=0):
        """Read into a writable buffer, such as a memoryview, without a copy."""
        await self._request(self.aio_pread, buf, offset, flags=flags)

    async def async_pwrite(self, buf, offset, flags=0):
        """Write as pwrite()."""
        await self._request(self.aio_pwrite, buf, offset, flags=flags)

    async def async_flush(self, flags=0):
        """As flush()."""
        await self._request(self.aio_flush, flags=flags)

    async def async_trim(self, count, offset, flags=0):
        """As trim()."""
        await self._request(self.aio_trim, count, offset, flags=flags)

    async def async_zero(self, count, offset, flags=0):
        """As zero()."""
        await self._request(self.aio_zero, count, offset, flags=flags)

    async def async_cache(self, count, offset, flags=0):
        """As cache()."""
        await self._request(self.aio_cache, count, offset, flags=flags)

    async def async_block_status(self, count, offset, flags=0):
        """The extents of a range: a list of (metacontext, offset, [(length, status), ...])."""
        told = []
        hear = lambda context, start, extents, error: told.append((context, start, extents))  # noqa: E731
        await self._request(self.aio_block_status_64, count, offset, hear, flags=flags)
        return told

    async def async_shutdown(self):
        """End the connection in order."""
        await self._until(lambda: not (self.aio_is_ready() or self.aio_is_processing()) or not self.aio_in_flight())
        self.aio_disconnect()
        await self._until(lambda: self.aio_is_closed() or self.aio_is_dead())
