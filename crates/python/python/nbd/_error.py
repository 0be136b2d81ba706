"""The exception that every failed call raises."""

import errno as _numbers


class Error(Exception):
    """A call that failed. `string` says why, `errnum` is the system's error number or 0, `errno` its name or None."""

    @property
    def string(self):
        """What happened, beginning with the call."""
        return self.args[0] if self.args else ""

    @property
    def errnum(self):
        """The system's number of the error; 0 where there is none."""
        return self.args[1] if len(self.args) > 1 else 0

    @property
    def errno(self):
        """The name of the number, such as "ENOTCONN"; None where there is no number."""
        return _numbers.errorcode.get(self.errnum)

    def __str__(self):
        return f"{self.string} ({self.errno})" if self.errno else str(self.string)


Error.__module__ = "nbd"
