"""Test from inside whether a layer of the sandbox holds."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import struct
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import landlock, seccomp
from .sandbox import CAPABILITY_VERSION_3

PR_GET_PDEATHSIG, PR_GET_NO_NEW_PRIVS = 2, 39
OWN_DESCRIPTORS = 5
"""Input, output, errors, the connection, and the arena that mmap keeps open."""

_libc = ctypes.CDLL(None, use_errno=True)


def dispatch(code: str, header: Mapping[str, Any], arrays: Sequence[Any]) -> tuple[dict[str, Any], list[Any]]:
    """Test the layers that the header names.

    Returns:
        ``failures``: what does not hold, in words, by layer; ``version``: of the interpreter.
    """
    tests = {"process": find_process_failures, "landlock": find_file_failures, "seccomp": find_call_failures}
    failures = {name: list(tests[name](header)) for name in header["layers"]}
    return {"failures": failures, "version": sys.version.split()[0], "landlock": landlock.find_version()}, []


def find_process_failures(header: Mapping[str, Any]) -> Iterator[str]:
    """Find what is wrong with privileges, limits, descriptors and variables."""
    if _libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1:
        yield "programs may still gain privileges"
    if not _ends_with_parent():
        yield "it does not end with its parent"
    if _has_capabilities():
        yield "it has capabilities"
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != 0:
        yield "it may write core files"
    names = (resource.RLIMIT_DATA, resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_CPU)
    if any(resource.getrlimit(name)[1] == resource.RLIM_INFINITY for name in (*names, resource.RLIMIT_NPROC)):
        yield "a limit is not set"
    if surplus := sorted(set(os.environ) - set(header["variables"])):
        yield f"it has variables of its parent ({', '.join(surplus)})"
    if len(list_descriptors()) > OWN_DESCRIPTORS:
        yield "it has descriptors of its parent"
    if os.getsid(0) != os.getpid() and not header["namespaces"]:
        yield "it is not in a session of its own"


def _ends_with_parent() -> bool:
    number = ctypes.c_int()
    return _libc.prctl(PR_GET_PDEATHSIG, ctypes.byref(number), 0, 0, 0) == 0 and number.value == 9


def _has_capabilities() -> bool:
    header = ctypes.create_string_buffer(struct.pack("=Ii", CAPABILITY_VERSION_3, 0))
    sets = ctypes.create_string_buffer(24)
    return _libc.capget(header, sets) != 0 or any(sets.raw)


def list_descriptors() -> list[int]:
    """List the descriptors that are open."""
    descriptors = []
    for number in range(1024):
        with contextlib.suppress(OSError):
            os.fstat(number)
            descriptors.append(number)
    return descriptors


def find_file_failures(header: Mapping[str, Any]) -> Iterator[str]:
    """Find files that can be reached though they should not, or the other way round."""
    for path in ("/etc/passwd", "/proc/self/environ", "/proc/1/cmdline", *header["hidden"]):
        if _can_do(os.open, path, os.O_RDONLY):
            yield f"{path} can be read"
    for folder in ("/tmp", "/var/tmp", "/dev/shm", sys.prefix, os.path.dirname(os.getcwd())):
        if _can_do(os.open, f"{folder}/.odc-openeo-udf-probe", os.O_WRONLY | os.O_CREAT, 0o600):
            yield f"{folder} can be written to"
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"probe")
    except OSError as error:
        yield f"the working folder cannot be written to ({error})"


def find_call_failures(header: Mapping[str, Any]) -> Iterator[str]:
    """Find system calls that work though they should not, or the other way round."""
    column = seccomp.ARCHITECTURES[os.uname().machine].column
    denied = {**seccomp.DENIED, **seccomp.CLIENTS, "socket": seccomp.SOCKET}
    for name in ("socket", "ptrace", "unshare", "mount", "io_uring_setup", "bpf", "keyctl", "userfaultfd"):
        number = denied[name][column] or -1
        # Nothing but -1 as arguments: harmless where the filter does not hold.
        if _libc.syscall(ctypes.c_long(number), *[ctypes.c_long(-1)] * 5) != -1 or (
            ctypes.get_errno() != errno.EPERM
        ):
            yield f"{name} is not denied"
    # In a namespace of its own, it does not see its parent.
    if _can_do(os.kill, os.getppid() or -1, 0):
        yield "other processes can be signalled"
    if not _can_do(os.kill, os.getpid(), 0):
        yield "it cannot signal itself"
    if not header["programs"] and _can_fork():
        yield "processes can be started"
    try:
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
    except RuntimeError:
        yield "threads cannot be started"


def _can_fork() -> bool:
    try:
        process = os.fork()
    except OSError:
        return False
    if process == 0:
        os._exit(0)
    os.waitpid(process, 0)
    return True


def _can_do(function: Any, *arguments: Any) -> bool:
    try:
        result = function(*arguments)
    except OSError:
        return False
    if function is os.open:
        os.close(result)
    return True
