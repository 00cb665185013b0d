"""How processes of user code are started: their command, variables and the rules of their sandbox."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from odc_openeo.udf.settings import LAYERS, RelayRules, UdfLimits

BUBBLEWRAP: Final = "bwrap"
CPU_SHARE: Final = 20
"""CPU seconds of a process for each second that one of its calls may take, on each processor."""

CERTIFICATES: Final = ("/etc/ssl/certs", "/etc/pki/ca-trust/extracted", "/usr/share/ca-certificates")
"""Where the certificates of authorities are that Python trusts."""

BOOTSTRAP: Final = """\
import importlib.util, sys
name, folder, descriptor = "odc_openeo_udf", sys.argv[1], int(sys.argv[2])
spec = importlib.util.spec_from_file_location
package = spec(name, folder + "/__init__.py", submodule_search_locations=[folder])
sys.modules[name] = importlib.util.module_from_spec(package)
import odc_openeo_udf.main
odc_openeo_udf.main.serve(descriptor)
"""
"""Imports the files of the child as a package of its own: the interpreter may not have this one."""


@dataclass(frozen=True)
class ChildPlan:
    """How a process of user code is started.

    ``dispatcher``: the module of `odc_openeo.udf.child` that carries out calls; ``layers``: of the sandbox;
    ``user``: the id of the user it runs as, None for this one; ``packages``: folders on its module path;
    ``links``: folders that it may read, by their names in its working folder; ``files``: what else it may
    read; ``relay``: where it may connect to, None for nowhere.
    """

    python: str
    limits: UdfLimits
    dispatcher: str = "dispatch"
    layers: tuple[str, ...] = LAYERS
    namespaces: bool = False
    user: int | None = None
    packages: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    files: tuple[str, ...] = ()
    relay: RelayRules | None = None

    @property
    def readable(self) -> list[str]:
        """The folders that the process may read besides its interpreter and the system's libraries."""
        certificates = CERTIFICATES if self.relay is not None else ()
        return [*self.packages, *(target for _, target in self.links), *self.files, *certificates]

    def make_rules(self, folder: Path) -> dict[str, Any]:
        """Make the rules that `odc_openeo.udf.child.sandbox.close_sandbox` takes."""
        limits = self.limits
        return {
            "layers": list(self.layers),
            "parent": None if self.namespaces else os.getpid(),
            "network": False,
            "programs": False,
            "readable": self.readable,
            "writable": [str(folder)],
            "memory_bytes": limits.memory_bytes,
            "arena_bytes": self.arena_bytes,
            "file_bytes": limits.file_bytes,
            "processes": limits.processes,
            "cpu_seconds": self.cpu_seconds,
        }

    @property
    def arena_bytes(self) -> int:
        """The largest arena: the input may have as much as the process may allocate."""
        return self.limits.memory_bytes + self.limits.output_bytes

    @property
    def cpu_seconds(self) -> int:
        """The time of the processors that the process may take in its life."""
        return max(int(CPU_SHARE * self.limits.seconds * (os.cpu_count() or 1)), 60)


def list_command(plan: ChildPlan, folder: Path, child: Path, descriptor: int) -> list[str]:
    """List the words of the command: the interpreter, in bubblewrap if the plan says so."""
    # -I: no variables, no user's packages; -B: no compiled files; -u: nothing is buffered.
    interpreter = [plan.python, "-I", "-B", "-u", "-X", "utf8", "-c", BOOTSTRAP, str(child), str(descriptor)]
    if not plan.namespaces:
        return interpreter
    places = [*find_interpreter_folders(plan.python), str(child), *plan.readable]
    binds = [word for place in places if os.path.exists(place) for word in ("--ro-bind", place, place)]
    return [
        find_bubblewrap() or BUBBLEWRAP,
        *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"),
        *("--unshare-cgroup-try", "--die-with-parent", "--as-pid-1", "--cap-drop", "ALL"),
        *("--uid", "65534", "--gid", "65534", "--hostname", "udf"),
        *binds,
        *("--dev", "/dev", "--bind", str(folder), str(folder), "--chdir", str(folder), "--"),
        *interpreter,
    ]


@cache
def find_bubblewrap() -> str | None:
    """Find bubblewrap on this machine."""
    return shutil.which(BUBBLEWRAP)


@cache
def find_interpreter_folders(python: str) -> tuple[str, ...]:
    """Find the folders that an interpreter and the system's libraries are in."""
    import subprocess  # noqa: PLC0415

    code = "import sys; print(sys.prefix, sys.base_prefix, sys.exec_prefix, sep='\\n')"
    done = subprocess.run(
        [python, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=True, env={}
    )
    prefixes = {*done.stdout.split("\n"), str(Path(python).resolve().parents[1])} - {""}
    private = sorted(prefixes - {"/", "/usr", "/usr/local"}, key=len)
    system = (
        "/usr",
        "/lib",
        "/lib64",
        "/etc/ld.so.cache",
        "/etc/localtime",
        "/etc/ssl/openssl.cnf",
        "/etc/mime.types",
    )
    return (*system, "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu", *private)


def make_variables(folder: Path) -> Mapping[str, str]:
    """Make the environment variables of a process: nothing of this one's."""
    path = str(folder)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    caches = dict.fromkeys(("XDG_CACHE_HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR"), path)
    return {
        "HOME": path,
        "TMPDIR": path,
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        **threads,
        **caches,
        # Otherwise each thread of user code reserves address space for a heap of its own.
        "MALLOC_ARENA_MAX": "2",
        # Large arrays of one call reuse the pages of the last: new ones cost more than most calculations.
        "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
        "MALLOC_TRIM_THRESHOLD_": str(128 * 2**20),
    }
