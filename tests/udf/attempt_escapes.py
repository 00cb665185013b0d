"""Let hostile code try to escape, as the user that this program runs as; prints what became of it as JSON.

Arguments: the level of the sandbox, the interpreter of user code, a folder of packages or nothing, a folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from odc_openeo.errors import OpenEOError
from odc_openeo.udf import layers
from odc_openeo.udf.calls import UdfCode, UdfLimits, UdfSettings, call_udf, make_plan
from odc_openeo.udf.children import Child
from odc_openeo.udf.commands import ChildPlan
from odc_openeo.udf.pool import pool
from tests.udf.escapes import ATTEMPTS, HEAD, LAX

LIMITS = UdfLimits(memory_bytes=2**28, seconds=4, output_bytes=2**24, file_bytes=2**24, processes=64)
SECRET = "the-secret-of-the-service"
OTHER = "def call(header, arrays):\n    open('mine', 'w').write('x')\n    return {}, []\n"
GOOD = "def call(header, arrays):\n    return header, [array + 1 for array in arrays]\n"


def limit_level(level: str) -> None:
    """Make the sandbox of this program reach one level only."""
    if level == "filters":
        layers.find_bubblewrap = lambda: None  # type: ignore[assignment]


def make_targets(folder: Path) -> dict[str, Any]:
    """Make what attempts are after."""
    secrets = folder / "data"
    secrets.mkdir()
    files = [secrets / "secret_key", folder / "config.yml"]
    for path in files:
        path.write_text(SECRET)
        path.chmod(0o600)
    listener = socket.create_server(("127.0.0.1", 0))
    sockets = [socket.socket(socket.AF_UNIX, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
    names = [str(folder / "unix"), f"\0udf-test-{os.getpid()}"]
    for end, name in zip(sockets, names, strict=True):
        end.bind(name)
    sockets[0].listen()
    keep.extend([listener, *sockets])
    # As shared memory of other processes looks, which is open to all of the same user.
    shared = tempfile.NamedTemporaryFile(dir="/dev/shm", prefix="udf-test-")  # noqa: SIM115
    shared.write(SECRET.encode())
    shared.flush()
    keep.append(shared)
    return {
        "secret": SECRET,
        "secret_files": [str(path) for path in files],
        "secret_folders": [str(secrets), str(folder)],
        "port": listener.getsockname()[1],
        "ports": [listener.getsockname()[1]],
        "shared": shared.name,
        "path": names[0],
        "abstract": names[1],
        "parent": os.getpid(),
        # In a container, the first process has no parent.
        "processes": [psutil.Process().ppid()] if psutil.Process().ppid() else [],
    }


keep: list[Any] = []


def try_escape(
    settings: UdfSettings, header: dict[str, Any], code: str, packages: tuple[str, ...]
) -> dict[str, Any]:
    """Let code try to escape; return what it got or the error it ended with, and whether all is well then."""
    udf = UdfCode(HEAD + code, packages=packages, style="plain")
    try:
        reply = call_udf(settings, "mallory", udf, header, [np.zeros(8)], LIMITS)
        outcome = {"got": reply.header.get("got", ["a reply"]), "error": None, "message": ""}
    except OpenEOError as error:
        outcome = {"got": [], "error": error.code, "message": error.message}
    good = UdfCode(GOOD, packages=packages, style="plain")
    after = call_udf(settings, "alice", good, {"a": 1}, [np.arange(3.0)], LIMITS)
    outcome["well"] = after.header == {"a": 1} and after.arrays[0].tolist() == [1, 2, 3]
    return outcome


def read_state(header: dict[str, Any]) -> list[Any]:
    """Read what no attempt may change."""
    paths = [*header["secret_files"], *header["secret_folders"], np.__file__]
    states = [os.stat(path) for path in paths]
    return [
        [s.st_mode, s.st_uid, s.st_mtime_ns * (p not in header["secret_folders"])]
        for p, s in zip(paths, states, strict=True)
    ]


def run_attempts(level: str, python: str, packages: str, folder: Path) -> dict[str, Any]:
    """Run all attempts; return their outcomes and the sandbox."""
    limit_level(level)
    os.environ["ODC_OPENEO_DATABASE_URL"] = f"postgresql://user:{SECRET}@host/db"
    header = make_targets(folder)
    settings = UdfSettings(pythons=(python,), hidden=(header["secret_folders"][0],))
    sandbox = layers.find_sandbox(settings, python)
    if sandbox.level != level:
        return {"level": sandbox.level, "reason": sandbox.describe()}
    more = (packages,) if packages else ()
    # Another user's process, with a folder of its own, is there meanwhile.
    other = UdfCode(OTHER, packages=more, style="plain")
    bob = pool.take(("bob", "", make_plan(settings, other, LIMITS)))
    bob.carry_out(other.source, {}, [])
    header["secret_files"].append(str(bob.folder / "mine"))
    header["secret_folders"].append(str(bob.folder))
    header["processes"].append(bob.pid)
    before = read_state(header)
    with ThreadPoolExecutor(6) as executor:
        tries = {n: executor.submit(try_escape, settings, header, a.code, more) for n, a in ATTEMPTS.items()}
        outcomes = {name: future.result() for name, future in tries.items()}
    unchanged = read_state(header) == before
    lax = run_without_sandbox(settings, header, python, more)
    pool.stop()
    return {
        "level": sandbox.level,
        "user": sandbox.user,
        "outcomes": outcomes,
        "unchanged": unchanged,
        "lax": lax,
        "left": describe_left(),
    }


def run_without_sandbox(
    settings: UdfSettings, header: dict[str, Any], python: str, packages: tuple[str, ...]
) -> dict[str, int]:
    """Run attempts in a process whose sandbox is open; return how much each one got."""
    plan = ChildPlan(python, replace(LIMITS, seconds=30), dispatcher="plain", layers=(), packages=packages)
    count = {}
    for name in LAX:
        child = Child.start(plan)
        try:
            count[name] = len(child.carry_out(HEAD + ATTEMPTS[name].code, header, []).header["got"])
        finally:
            child.kill()
    return count


def describe_left() -> dict[str, Any]:
    """Describe processes and folders that are left."""
    top = Path(tempfile.gettempdir()) / f"odc-openeo-udf-{os.geteuid()}"
    mine = f"-{os.getpid()}-"
    return {
        "processes": [" ".join(process.cmdline()) for process in psutil.Process().children(recursive=True)],
        "folders": [path.name for path in top.iterdir() if mine in path.name],
    }


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        result = run_attempts(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    print(json.dumps(result))
    assert threading.active_count() < 10
