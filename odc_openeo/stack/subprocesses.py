"""Child processes that never outlive their parent; this file is also their wrapper script."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
TAIL_BYTES = 4000


@dataclass(frozen=True)
class Child:
    """A running part of the service, in a session of its own, with its output in ``log``."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    stop_signal: signal.Signals

    def exit_status(self) -> int | None:
        """The exit status, None while it runs."""
        return self.process.poll()

    def ask_to_stop(self) -> None:
        """Send the signal for a graceful shutdown."""
        if self.exit_status() is None:
            self.process.send_signal(self.stop_signal)

    def kill(self) -> None:
        """Kill the process and its whole session at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def last_output(self) -> str:
        """The end of its log."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
                return file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""


def start_child(
    name: str,
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
    stop_signal: signal.Signals = signal.SIGTERM,
    user: int | None = None,
) -> Child:
    """Start ``command``, so that it gets ``stop_signal`` when the calling thread ends.

    ``user`` is the number of the user who runs it, None for this one. Call it from the main thread: Linux
    ties a child to the thread that created it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    wrapper = [sys.executable, "-S", "-E", __file__, str(int(stop_signal)), str(os.getpid()), str(user or "")]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*wrapper, *command],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Child(name, process, log, stop_signal)


def stop_children(children: Sequence[Child], seconds: float) -> None:
    """Ask all to stop, wait up to ``seconds``, then kill the rest, including grandchildren."""
    deadline = time.monotonic() + seconds
    for child in children:
        child.ask_to_stop()
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(max(0.0, deadline - time.monotonic()))
        child.kill()


def _switch_user(user: int) -> None:
    # The user needs no account, so the group has the same number.
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


def _tie_to(parent: int, stop_signal: int) -> None:
    # A Linux feature without a Python API; a change of user clears it, exec keeps it. On other systems
    # children are stopped only by a graceful shutdown.
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, stop_signal)
    if os.getppid() != parent:
        sys.exit(f"the parent process {parent} has ended")


def _run_child(stop_signal: str, parent: str, user: str, *command: str) -> None:
    if user:
        _switch_user(int(user))
    _tie_to(int(parent), int(stop_signal))
    os.execvp(command[0], command)


if __name__ == "__main__":
    _run_child(*sys.argv[1:])
