"""One running stack per test run, shared by the processes of pytest-xdist.

The first process that needs the stack starts it, the last one that uses it stops it: both under a lock.
Users hold a shared `flock`, which the kernel releases also when a process dies.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from tests.support.waiting import PATIENCE

KEEP_STATUS = '"$@" & echo $! > "$0.pid"; wait $!; echo $? > "$0.status"'
"""Shell script that runs a command and writes its process id and its exit status to files."""


def keep_status(command: list[str], status: Path) -> list[str]:
    """Wrap a command so that any process, not only its parent, can learn its exit status."""
    return ["sh", "-c", KEEP_STATUS, str(status), *command]


def stop_process(status: Path, seconds: float = PATIENCE) -> int:
    """Terminate a command that runs under `keep_status` and return its exit status."""
    os.kill(int(Path(f"{status}.pid").read_text()), signal.SIGTERM)
    written = Path(f"{status}.status")
    deadline = time.monotonic() + seconds
    while not (written.exists() and written.read_text().strip()):
        assert time.monotonic() < deadline, f"still running {seconds} s after SIGTERM"
        time.sleep(0.05)
    return int(written.read_text())


@contextmanager
def share(folder: Path, start: Callable[[], str], stop: Callable[[], None]) -> Iterator[str]:
    """Share what `start` starts and describes in a string; the last user stops it."""
    lock, description = FileLock(folder / "stack.lock"), folder / "stack.json"
    with (folder / "stack.users").open("a") as users:
        with lock:
            if not description.exists():
                description.write_text(start())
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield description.read_text()
        finally:
            with lock:
                if _is_last_user(users.fileno()):
                    description.unlink()
                    stop()


def _is_last_user(users: int) -> bool:
    """Give up the shared lock; nobody else holds it if the exclusive one is free."""
    fcntl.flock(users, fcntl.LOCK_UN)
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
