"""The inside of `diskpipe shell`, given to Python with its work as pairs of words. Works with any module `nbd`."""

import os
import sys

BANNER = """
Welcome to {name}, Python at the door of disks on the network (NBD).

The module ‘nbd’ is imported{handle}.

h.connect_uri("nbd://localhost")   # to a server; also connect_tcp, connect_unix, connect_command
h.get_size()                       # how large its disk is, in bytes
h.pread(512, 0)                    # the first sector
help(nbd.NBD)                      # everything else
exit() or Ctrl-D                   # and out
"""


def main(name, *words):
    work = list(zip(words[0::2], words[1::2]))
    options = {key for key, _ in work}
    sys.path[0:0] = [value for key, value in work if key == "path"]
    try:
        import nbd
    except ImportError as error:
        if error.name not in ("nbd", None):
            raise
        return elsewhere(name, work)
    names = {"__name__": "nbdsh", "__doc__": None, "nbd": nbd, "os": os, "sys": sys}
    h = None
    if "no-handle" not in options:
        h = nbd.NBD()
        names["h"] = h
        if "verbose" in options:
            h.set_debug(True)
        h.set_handle_name("nbdsh")
        if "base-allocation" in options:
            h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        if "opt-mode" in options:
            h.set_opt_mode(True)
    sys.argv = [name]
    try:
        for key, value in work:
            if key == "uri":
                if h.aio_is_created():
                    h.set_uri_allow_local_file(True)  # who typed it may read it
                h.connect_uri(value)
            elif key == "command":
                text = sys.stdin.read() if value == "-" else value
                exec(compile(text, "-c", "exec"), names, names)
    except nbd.Error as error:
        if nbd.NBD().get_debug() or h is not None and h.get_debug():
            raise
        sys.stdout.flush()
        sys.exit(f"{name}: command line script failed: {error.string}")
    if "command" not in options:
        interact(name, names)
    return 0


def elsewhere(name, work):
    """This Python has no such module; another one may."""
    others = [value for key, value in work if key == "python"]
    if others:
        left = [word for key, value in work if (key, value) != ("python", others[0]) for word in (key, value)]
        os.execv(others[0], [others[0], *sys.orig_argv[1:3], name, *left])
    sys.exit(
        f"{name}: {sys.executable} has no module nbd; this installs it: "
        "apt-get install python3-libnbd (or, for diskpipe's own, pip install crates/python in its sources)"
    )


def interact(name, names):
    import code

    try:
        import readline
        import rlcompleter

        readline.set_completer(rlcompleter.Completer(names).complete)
        readline.parse_and_bind("tab: complete")
    except ImportError:
        pass  # a Python without line editing
    handle = ""
    if "h" in names:
        state = names["h"].connection_state().split(":")[0]
        handle = f", and ‘h’ is a handle in the state {state}"
    sys.ps1 = "nbd> "
    sys.ps2 = "...  "
    code.interact(BANNER.format(name=name, handle=handle), local=names, exitmsg="")


sys.exit(main(*sys.argv[1:]))
