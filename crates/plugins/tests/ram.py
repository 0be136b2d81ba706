#!/usr/bin/env python3
"""A persistent script for the plugin sh: a disk in memory that can do everything."""

import sys
from urllib.parse import unquote

requests, answers = sys.stdin.buffer, sys.stdout.buffer
disk = bytearray(1 << 20)
PAGE = 4096
YES = {"can_write", "can_flush", "can_trim", "can_zero", "can_fast_zero", "can_extents", "can_multi_conn"}


def extents(offset, count):
    lines = []
    while count:
        step = min(count, PAGE - offset % PAGE)
        kind = "" if any(disk[offset : offset + step]) else "hole,zero"
        lines.append(f"{offset} {step} {kind}")
        offset, count = offset + step, count - step
    return "\n".join(lines).encode()


for line in iter(requests.readline, b""):
    method, *words = ["" if word == "-" else unquote(word) for word in line.decode().split()]
    code, result = 0, b""
    if method in ("pread", "pwrite", "trim", "zero", "cache", "extents"):
        count, offset = int(words[1]), int(words[2])
    if method == "get_size":
        result = b"%d" % len(disk)
    elif method in ("can_fua", "can_cache"):
        result = b"native"
    elif method == "pread":
        result = disk[offset : offset + count]
    elif method == "pwrite":
        disk[offset : offset + count] = requests.read(count)
    elif method in ("trim", "zero"):
        disk[offset : offset + count] = bytes(count)
    elif method == "extents":
        result = extents(offset, count)
    elif method not in YES | {"cache", "flush", "config"}:
        code = 2
    answers.write(b"%d %d\n" % (code, len(result)) + result)
    answers.flush()
