"""Close the sandbox around this process, layer by layer, before it sees any code or data of a user.

The layers: ``process`` (no privileges, limits, death with the parent), ``landlock``, ``seccomp``. Each raises
OSError if it cannot be closed; then this process must not go on.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import site
import struct
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from typing import Any

from . import landlock, seccomp

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP, PR_CAP_AMBIENT = 1, 38, 24, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
SIGKILL = 9
CAPABILITY_VERSION_3 = 0x20080522

MOST_FILES = 256
"""Descriptors that may be open at once."""

CODE_BYTES = 2**30
"""Address space for the code of libraries and for what they reserve."""
SLACK = 1024
"""Processes that the same user may start elsewhere meanwhile, as the kernel counts them together."""

SYSTEM_FOLDERS = (
    *("/usr/lib", "/usr/lib64", "/usr/lib32", "/usr/local/lib", "/lib", "/lib64"),
    *("/usr/share/zoneinfo", "/usr/share/proj", "/usr/share/gdal", "/sys/devices/system/cpu"),
)
SYSTEM_FILES = (
    *("/etc/ld.so.cache", "/etc/localtime", "/etc/ssl/openssl.cnf", "/proc/cpuinfo", "/proc/meminfo"),
    *("/dev/urandom", "/dev/random", "/dev/zero", "/etc/mime.types"),
)
NETWORK_FILES = ("/etc/ssl", "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services")
NULL = "/dev/null"
SHARED_PREFIXES = ("/", "/usr", "/usr/local")
"""Prefixes of interpreters that hold more than an interpreter and its libraries."""

_libc = ctypes.CDLL(None, use_errno=True)


def close_sandbox(rules: Mapping[str, Any]) -> None:
    """Close the layers that ``rules["layers"]`` names; the rules are those of `SandboxRules` of the caller.

    Call it before threads start: the kernel restricts the calling thread and its descendants.
    """
    layers = rules["layers"]
    if "process" in layers:
        _restrict_process(rules)
    elif "seccomp" in layers:
        _call_prctl(PR_SET_NO_NEW_PRIVS, 1)
    if "landlock" in layers:
        _call_prctl(PR_SET_NO_NEW_PRIVS, 1)
        readable = [*list_readable(rules["network"]), *rules["readable"]]
        writable = [NULL, *rules["writable"]]
        landlock.restrict_files(readable, writable, network=rules["network"], execute=rules["programs"])
    if "seccomp" in layers:
        seccomp.restrict_calls(network=rules["network"], processes=rules["programs"])


def list_readable(network: bool = False) -> list[str]:
    """List the files and folders that an interpreter needs to run and import its libraries."""
    prefixes = {
        os.path.realpath(p) for p in (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix)
    }
    private = sorted(prefixes - set(SHARED_PREFIXES))
    places = {
        os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")
    }
    packages = [os.path.realpath(path) for path in site.getsitepackages()]
    code_folder = os.path.dirname(os.path.abspath(__file__))
    more = NETWORK_FILES if network else ()
    return [*private, *sorted(places), *packages, code_folder, *SYSTEM_FOLDERS, *SYSTEM_FILES, *more]


# --- The process itself ----------------------------------------------------------------------------


def _restrict_process(rules: Mapping[str, Any]) -> None:
    parent = rules["parent"]
    # Measured before files of the kernel are out of reach.
    address_space, data = _measure_memory()
    tasks = _count_tasks()
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")

    _drop_capabilities()
    _call_prctl(PR_SET_NO_NEW_PRIVS, 1)
    _call_prctl(PR_SET_PDEATHSIG, SIGKILL)
    # In a namespace of its own, this process has a parent that it does not see.
    if parent is not None and os.getppid() != parent:
        raise OSError("the parent process has ended")
    _limit_resources(rules, address_space, data, tasks)


def _limit_resources(rules: Mapping[str, Any], address_space: int, data: int, tasks: int) -> None:
    memory, arena = rules["memory_bytes"], rules["arena_bytes"]
    limits = {
        # What it allocates counts exactly; files and shared memory are in the address space only.
        resource.RLIMIT_DATA: data + memory,
        # An arena may be replaced by a larger one while the first is still mapped.
        resource.RLIMIT_AS: address_space + CODE_BYTES + 2 * memory + 2 * arena,
        resource.RLIMIT_CPU: rules["cpu_seconds"],
        resource.RLIMIT_FSIZE: rules["file_bytes"],
        resource.RLIMIT_NPROC: tasks + rules["processes"] + SLACK,
        resource.RLIMIT_NOFILE: MOST_FILES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_RTPRIO: 0,
    }
    for name, value in limits.items():
        hard = resource.getrlimit(name)[1]
        value = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)
        resource.setrlimit(name, (value, value))


def _drop_capabilities() -> None:
    _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for capability in range(64):
        # Fails without CAP_SETPCAP, when there is mostly nothing to drop, and after the last one.
        if _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) != 0:
            break
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, bytes(24)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"capabilities cannot be dropped: {os.strerror(error)}")


def _measure_memory() -> tuple[int, int]:
    """Return the sizes in bytes of this process's address space and of its private writable memory."""
    page = os.sysconf("SC_PAGE_SIZE")
    try:
        with open("/proc/self/statm") as file:
            sizes = [int(word) * page for word in file.read().split()]
    except OSError:
        # In a sandbox without /proc: more than an interpreter that has just started takes.
        return 256 * 2**20, 64 * 2**20
    return sizes[0], sizes[5]


def _count_tasks() -> int:
    """Count the processes and threads of this process's user."""
    return sum(_count_threads(entry) for entry in _iterate_processes())


def _iterate_processes() -> Iterator[str]:
    with contextlib.suppress(OSError), os.scandir("/proc") as entries:
        yield from (entry.path for entry in entries if entry.name.isdigit() and _is_of_this_user(entry))


def _is_of_this_user(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.stat().st_uid == os.getuid()
    except OSError:
        return False


def _count_threads(process: str) -> int:
    try:
        return len(os.listdir(f"{process}/task"))
    except OSError:
        return 1


def _call_prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl {option} fails: {os.strerror(error)}")
