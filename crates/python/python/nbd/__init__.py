"""Clients of the Network Block Device protocol: libnbd's calls, and some that are at home in Python.

    import nbd

    with nbd.NBD() as h:
        h.connect_uri("nbd://localhost")
        print(h.get_size(), h.pread(512, 0))

Every call of libnbd is a method of NBD, with the same name, order of arguments and errors; help(nbd.NBD) lists them.
"""

from . import _nbd
from ._aio import AsyncCalls as _AsyncCalls
from ._buffer import Buffer
from ._error import Error
from ._nbd import *  # noqa: F401,F403  the constants
from ._nbd import __version__, package_name


class NBD(_AsyncCalls, _nbd.NBD):
    __doc__ = _nbd.NBD.__doc__

    def __init__(self):
        """A handle that is connected to nothing yet."""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        """End the connection in order; if an exception passes by, or it has failed already, without a word."""
        if exception[0] is None and (self.aio_is_ready() or self.aio_is_processing()):
            self.shutdown()

    def __repr__(self):
        return f"<nbd.NBD {self.get_handle_name()}: {self.connection_state()}>"


del is_zero  # noqa: F821  of Buffer


__all__ = sorted({name for name in dir(_nbd) if name in globals() and not name.startswith("_")} | {"Buffer", "Error"})
