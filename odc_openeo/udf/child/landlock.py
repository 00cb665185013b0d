"""Landlock: the kernel denies this process all files except those that are named, and more where it can.

Three system calls, the same on all architectures; see landlock(7) and ``linux/landlock.h``.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION_FLAG = 1
PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = (1 << bit for bit in range(6, 13))
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
BIND_TCP, CONNECT_TCP = 1, 2
SCOPE_ABSTRACT_UNIX_SOCKET, SCOPE_SIGNAL = 1, 2

READ = READ_FILE | READ_DIR
WRITE = (
    READ
    | WRITE_FILE
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_DIR
    | MAKE_REG
    | MAKE_FIFO
    | MAKE_SYM
    | REFER
    | TRUNCATE
)
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""The rights that a rule may grant on what is not a folder."""

_libc = ctypes.CDLL(None, use_errno=True)


def find_version() -> int:
    """Return the version of Landlock in this kernel; 0 if there is none, or it is turned off."""
    version: int = _libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(VERSION_FLAG))
    return max(version, 0)


def restrict_files(
    readable: Iterable[str],
    writable: Iterable[str],
    *,
    network: bool = False,
    execute: bool = False,
) -> int:
    """Deny this thread and its descendants all files but these and those beneath; return the version.

    Paths that do not exist are left out. From version 4 TCP is denied unless ``network``, from version 6
    signals to and abstract sockets of processes outside. Files that are open already stay so.

    Raises:
        OSError: this kernel cannot do it.
    """
    version = find_version()
    if not version:
        raise OSError("this kernel has no Landlock, or it is turned off")
    handled = _list_file_rights(version)
    ruleset = _create_ruleset(version, handled, network)
    try:
        for path in readable:
            _add_rule(ruleset, path, handled & (READ | (EXECUTE if execute else 0)))
        for path in writable:
            _add_rule(ruleset, path, handled & WRITE)
        _call(RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)
    return version


def _list_file_rights(version: int) -> int:
    rights = (1 << 13) - 1
    for since, right in ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)):
        if version >= since:
            rights |= right
    return rights


def _create_ruleset(version: int, files: int, network: bool) -> int:
    values = [files]
    if version >= 4:
        values.append(0 if network else BIND_TCP | CONNECT_TCP)
    if version >= 6:
        values.append(SCOPE_SIGNAL | (0 if network else SCOPE_ABSTRACT_UNIX_SOCKET))
    attributes = struct.pack(f"={len(values)}Q", *values)
    return _call(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))


def _add_rule(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= FILE_RIGHTS
        rule = struct.pack("=Qi", rights, descriptor)
        _call(ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(PATH_BENEATH), rule, ctypes.c_uint32(0))
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"Landlock refuses system call {number}: {os.strerror(error)}")
    return result
