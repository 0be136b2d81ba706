"""Memory for requests that do not wait."""

import operator

from . import _nbd


class Buffer:
    """Memory that aio_pread() fills and aio_pwrite() sends. It cannot change its size while a request uses it."""

    def __init__(self, len):
        """A buffer of that many bytes, all zero."""
        len = operator.index(len)
        if len < -1 << 63:
            raise OverflowError("a buffer cannot have a negative size")
        if len < 0:
            raise SystemError("a buffer cannot have a negative size")  # as the peer's
        self._o = bytearray(len)

    @classmethod
    def _around(cls, memory):
        self = cls.__new__(cls)
        self._o = memory
        return self

    @classmethod
    def from_bytearray(cls, ba):
        """A buffer with a copy of what bytearray() takes: bytes, a list of numbers, a size."""
        return cls._around(bytearray(ba))

    def to_bytearray(self):
        """A copy of the bytes."""
        return bytearray(self._o)

    @classmethod
    def from_buffer(cls, buf):
        """A buffer that shares the memory of a bytes-like object, without a copy."""
        memoryview(buf).release()  # whatever has none is refused here
        return cls._around(buf)

    def to_buffer(self):
        """The object whose memory this is: the one given to from_buffer(), else a bytearray. Not a copy."""
        return self._o

    def size(self):
        """How many bytes it has."""
        return len(self)

    def __len__(self):
        """How many bytes there are."""
        with memoryview(self._o) as view:
            return view.nbytes

    def __repr__(self):
        return f"nbd.Buffer({bytes(self._o)!r})" if len(self) < 65 else f"<nbd.Buffer of {len(self)} bytes>"

    def is_zero(self, offset=0, size=-1):
        """Whether size bytes from offset on, or all if size is -1, are zero."""
        return _nbd.is_zero(self._o, offset, size)


Buffer.__module__ = "nbd"
