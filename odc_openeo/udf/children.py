"""A process of user code as its caller sees it: started, called, watched, killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import psutil

from odc_openeo.compute.cluster import leave_cancelled_task
from odc_openeo.errors import OpenEOError, UdfFailed, UdfLimitExceeded, UdfUnavailable
from odc_openeo.runners.memory import WATCH_MARGIN, read_status_bytes
from odc_openeo.telemetry.counts import add_count
from odc_openeo.udf import child as child_package
from odc_openeo.udf.arenas import SMALLEST, Arena, ReplyInvalid, measure_arrays
from odc_openeo.udf.child.main import LONGEST_TEXT
from odc_openeo.udf.commands import ChildPlan, list_command, make_variables
from odc_openeo.udf.connections import MOST_MESSAGE_BYTES, Connection
from odc_openeo.udf.folders import make_work_folder, measure_files, remove_folder
from odc_openeo.udf.relays import Relay
from odc_openeo.udf.settings import UdfLimits

T = TypeVar("T")

START_S: Final = 60.0
"""Seconds that an interpreter may take to start on a busy machine."""
MOST_LOGS: Final = 2000
"""Log entries of one call."""
TICK_S: Final = 0.1
"""Seconds between checks of what a process takes."""


OUTSIDE: Final = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP, -signal.SIGINT)
"""Exit statuses of processes that were killed from outside."""


class ChildLost(Exception):
    """A process was killed from outside, not for what user code did."""


START_TRIES: Final = 10
"""Times at least that processes are started that are killed before they see any user code."""
LOSSES_S: Final = 60.0
"""Seconds at least until it is given up to start processes that are killed when they start."""
PAUSE_S: Final = 0.1
"""Seconds before the second start; twice as many before each later one, up to `LONGEST_PAUSE_S`."""
LONGEST_PAUSE_S: Final = 5.0


def retry_lost(start: Callable[[], T], tries: int = START_TRIES, patience_s: float | None = None) -> T:
    """Call ``start``, again whenever its process is killed from outside; what kills processes may pass.

    ``tries``: how often at least; ``patience_s``: and for how many seconds at least, by default `LOSSES_S`.

    Raises:
        ChildLost: the process was killed each time.
    """
    deadline = time.monotonic() + (LOSSES_S if patience_s is None else patience_s)
    count = 0
    while True:
        try:
            return start()
        except ChildLost:
            count += 1
            if count >= tries and time.monotonic() >= deadline:
                raise ChildLost(count) from None
        leave_cancelled_task()
        time.sleep(min(PAUSE_S * 2 ** (count - 1), LONGEST_PAUSE_S))


class _Spawner:
    """Starts processes in a thread that lives as long as this process.

    Linux kills a child when the thread ends that started it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None

    def start(self, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(1, thread_name_prefix="udf-spawner")
            future = self._executor.submit(lambda: subprocess.Popen(command, **options))
        return future.result()

    def forget(self) -> None:
        self.__init__()  # type: ignore[misc]


_spawner = _Spawner()
os.register_at_fork(after_in_child=_spawner.forget)


@dataclass(frozen=True)
class CallReply:
    """The header, arrays and log entries of a call."""

    header: dict[str, Any]
    arrays: list[np.ndarray]
    logs: list[dict[str, Any]]


@dataclass
class Child:
    """A process of user code; it carries out one call at a time and is killed after any fault."""

    process: subprocess.Popen[bytes]
    connection: Connection
    folder: Path
    plan: ChildPlan
    pid: int = 0
    relay: Relay | None = None
    arena: Arena | None = None
    is_good: bool = True
    is_paused: bool = False
    busy_s: float = 0.0
    checked: float = 0.0
    started: float = field(default_factory=time.monotonic)
    logs: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def start(cls, plan: ChildPlan) -> Child:
        """Start a process and wait until its sandbox is closed.

        Raises:
            UdfUnavailable: it cannot be started, or a layer of the sandbox cannot be closed.
            ChildLost: it was killed from outside.
        """
        try:
            folder = make_work_folder(plan.user, dict(plan.links))
        except OSError as error:
            raise UdfUnavailable(reason=f"no working folder can be made ({error.strerror}).") from error
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        relay = None
        with theirs:
            try:
                relay = None if plan.relay is None else Relay(plan.relay)
                process = _start_process(plan, folder, [theirs, *([relay.end] if relay else [])])
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                ours.close()
                if relay is not None:
                    relay.close()
                remove_folder(folder)
                raise UdfUnavailable(reason=f"the interpreter cannot be started ({error}).") from error
        child = cls(process, Connection(ours), folder, plan, process.pid, relay)
        try:
            child._greet()
        except BaseException:
            child.kill()
            raise
        add_count("udf_processes_started")
        return child

    def _greet(self) -> None:
        deadline = time.monotonic() + START_S

        def check() -> None:
            if time.monotonic() > deadline:
                raise UdfUnavailable(reason=f"its process did not start within {START_S:g} s.")

        start = {
            "rules": self.plan.make_rules(self.folder),
            "dispatcher": self.plan.dispatcher,
            "packages": list(self.plan.packages),
            "relay": None if self.relay is None else self.relay.end.fileno(),
        }
        try:
            self.connection.send(start, check)
            answer = self.connection.receive(check)
        except (EOFError, ConnectionError, ReplyInvalid) as error:
            status = self._wait_for_status()
            if status in OUTSIDE:
                raise ChildLost from error
            raise UdfUnavailable(reason=f"its process ended at its start (status {status}).") from error
        if answer.get("kind") != "ready":
            raise UdfUnavailable(reason=f"its process did not start: {answer.get('reason')}.")
        if self.relay is not None:
            self.relay.end.close()
        self.pid = self._find_process()

    def _find_process(self) -> int:
        """Return the id of the process that runs the interpreter, which bubblewrap is around."""
        if not self.plan.namespaces:
            return self.process.pid
        inner = self.process.pid
        with contextlib.suppress(psutil.Error):
            inner = max(p.pid for p in psutil.Process(inner).children(recursive=True))
        return inner

    def is_alive(self) -> bool:
        """Whether the process is still running."""
        return self.process.poll() is None

    def pause(self) -> None:
        """Stop the process: threads of user code do not run between calls."""
        if not self.is_paused:
            self.is_paused = True
            self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the process run again."""
        if self.is_paused:
            self.is_paused = False
            self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        # Not an id that the system may have given to another process meanwhile.
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)

    # --- Calls ---

    def carry_out(self, code: str, header: Mapping[str, Any], arrays: Sequence[np.ndarray]) -> CallReply:
        """Carry out a call.

        Raises:
            UdfFailed: user code raised an error, ended its process, or returned what is not valid.
            UdfLimitExceeded: it was stopped at a limit.
            ChildLost: the process was killed from outside.
        """
        self.is_good = False
        self.logs = []
        begin = time.monotonic()
        watch = _Watch(self, begin + self.plan.limits.seconds)
        try:
            reserved, descriptor = self._make_room(arrays)
            assert self.arena is not None
            descriptions = self.arena.write(arrays)
            room = min(self.arena.size - reserved, self.plan.limits.output_bytes)
            message = {"code": code, "header": dict(header), "arrays": descriptions, "size": self.arena.size}
            self.connection.send({**message, "reserved": reserved, "room": room}, watch.check, descriptor)
            reply = self._read_reply(self._receive_reply(watch), reserved, room)
            watch.finish()
            self.is_good = True
        except ReplyInvalid as error:
            raise UdfFailed(reason=f"the answer of its process is not valid: {error}.") from error
        except (EOFError, ConnectionError) as error:
            raise self._explain_end() from error
        finally:
            self.busy_s += time.monotonic() - begin
        return reply

    def _make_room(self, arrays: Sequence[np.ndarray]) -> tuple[int, int | None]:
        """Have an arena that is large enough; return the bytes of the arrays, and its descriptor if new."""
        reserved = measure_arrays(arrays)
        if reserved > self.plan.limits.memory_bytes:
            allowed = _describe_bytes(self.plan.limits.memory_bytes)
            reason = f"its input has {_describe_bytes(reserved)}, more than {allowed}. Use smaller chunks."
            raise UdfLimitExceeded(reason=reason)
        needed = reserved + self.plan.limits.output_bytes
        if self.arena is not None and self.arena.size >= needed:
            return reserved, None
        if self.arena is not None:
            self.arena.close()
        # Chunks differ in size: an arena is larger than the first one needs.
        spare = max(1 << (reserved - 1).bit_length(), SMALLEST) + self.plan.limits.output_bytes
        self.arena = Arena(max(needed, min(spare, self.plan.arena_bytes)))
        return reserved, self.arena.descriptor

    def _receive_reply(self, watch: _Watch) -> dict[str, Any]:
        size = 0
        while True:
            message = self.connection.receive(watch.check)
            if message.get("kind") == "reply":
                return message
            entry = message.get("entry")
            if message.get("kind") != "log" or not isinstance(entry, dict):
                raise ReplyInvalid("it is neither a reply nor a log entry")
            size += len(str(entry))
            if len(self.logs) < MOST_LOGS and size < MOST_MESSAGE_BYTES:
                self.logs.append(entry)

    def _read_reply(self, reply: Mapping[str, Any], reserved: int, room: int) -> CallReply:
        if "too_large" in reply:
            size, most = reply["too_large"], _describe_bytes(self.plan.limits.output_bytes)
            text = _describe_bytes(size) if isinstance(size, int) else "more"
            reason = f"its result has {text}; a call may return {most}. Use smaller chunks."
            raise UdfLimitExceeded(reason=reason)
        if "error" in reply:
            self.is_good = True
            raise self._make_user_error(reply["error"])
        header = reply.get("header")
        if not isinstance(header, dict):
            raise ReplyInvalid("it has no header")
        assert self.arena is not None
        return CallReply(header, self.arena.read(reply.get("arrays"), reserved, room), self.logs)

    def _make_user_error(self, error: Any) -> OpenEOError:
        if not isinstance(error, dict):
            raise ReplyInvalid("its error is not an object")
        kind, text, lines = (str(error.get(k) or "")[:LONGEST_TEXT] for k in ("type", "message", "traceback"))
        if error.get("memory") is True:
            self.is_good = False
            return self.exceeded_memory()
        if lines:
            whole = f"Traceback of the user-defined function:\n{lines}{kind}: {text}"
            self.logs.append({"level": "error", "message": whole})
        where = f" (line {error['line']} of the code)" if isinstance(error.get("line"), int) else ""
        return UdfFailed(reason=f"{kind}: {text}{where}")

    def exceeded_memory(self) -> UdfLimitExceeded:
        """Return the error for too much memory."""
        most = _describe_bytes(self.plan.limits.memory_bytes)
        return UdfLimitExceeded(reason=f"it needed more than {most} of memory. Use smaller chunks.")

    # --- The end ---

    def _explain_end(self) -> Exception:
        status = self._wait_for_status()
        if status is None:
            return UdfFailed(reason="it closed the connection of its process.")
        if status in OUTSIDE:
            return ChildLost()
        if status == -signal.SIGXCPU:
            return UdfLimitExceeded(reason="it took too much time of the processors.")
        if status == -signal.SIGSYS:
            return UdfFailed(reason="its process was ended for a system call that no program here may make.")
        if status < 0:
            name = signal.Signals(-status).name
            return UdfFailed(reason=f"its process crashed ({name}), probably in a library that it uses.")
        return UdfFailed(reason=f"it ended its process with exit status {status}.")

    def _wait_for_status(self) -> int | None:
        try:
            status = self.process.wait(2)
        except subprocess.TimeoutExpired:
            return None
        # bubblewrap passes on signals as shells do.
        return 128 - status if self.plan.namespaces and status > 128 else status

    def kill(self) -> None:
        """End the process, whatever it is doing, and remove all that it had."""
        self.is_good = False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            self.process.kill()
        self.process.wait()
        if self.relay is not None:
            # Its threads close its descriptors.
            self.relay.close()
            self.relay = None
        self.forget()
        remove_folder(self.folder)

    def forget(self) -> None:
        """Close the descriptors of this side."""
        self.connection.close()
        if self.relay is not None:
            self.relay.close_descriptors()
            self.relay = None
        if self.arena is not None:
            self.arena.close()
            self.arena = None


@dataclass
class _Watch:
    """Watches the limits of a process during a call."""

    child: Child
    deadline: float

    def check(self) -> None:
        """Raise UdfLimitExceeded if the process exceeds a limit; costs little until a tick has passed.

        A call whose task was cancelled ends, and so does the process.
        """
        now = time.monotonic()
        limits = self.child.plan.limits
        if now > self.deadline:
            raise UdfLimitExceeded(
                reason=f"a call took longer than {limits.seconds:g} s. Use smaller chunks."
            )
        if now < self.child.checked + TICK_S:
            return
        self.child.checked = now
        leave_cancelled_task()
        self._check_memory(limits)
        if _count_threads(self.child.pid) > limits.processes:
            raise UdfLimitExceeded(reason=f"it started more than {limits.processes} threads.")
        self.check_files()

    def _check_memory(self, limits: UdfLimits) -> None:
        child = self.child
        arena = child.arena.size if child.arena is not None else 0
        private = read_status_bytes(child.pid, "RssAnon")
        shared = max(read_status_bytes(child.pid, "RssShmem") - arena, 0)
        if private + shared > limits.memory_bytes * WATCH_MARGIN + BASE_BYTES:
            raise child.exceeded_memory()

    def finish(self) -> None:
        """Check the process after a call, whose deadline does not count any more."""
        self.deadline = float("inf")
        self.check()

    def check_files(self) -> None:
        """Raise UdfLimitExceeded if the files of the process are too many or too large."""
        child, most = self.child, self.child.plan.limits.file_bytes
        inode = os.fstat(child.arena.descriptor).st_ino if child.arena is not None else 0
        size = measure_files(child.folder, child.pid, inode, child.plan.user)
        if size is None or size > most:
            reason = f"its files take more than {_describe_bytes(most)}, or there are too many of them."
            raise UdfLimitExceeded(reason=reason)


BASE_BYTES: Final = 256 * 2**20
"""Memory that an interpreter and its libraries may take for themselves."""


def _count_threads(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


def _start_process(plan: ChildPlan, folder: Path, ends: Sequence[socket.socket]) -> subprocess.Popen[bytes]:
    """Start a process that inherits ends of sockets: of the connection, then of the relay if there is one."""
    descriptors = [end.fileno() for end in ends]
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    identity: dict[str, Any] = {}
    if plan.user is not None:
        identity = {"user": plan.user, "group": plan.user, "extra_groups": []}
    return _spawner.start(
        list_command(plan, folder, Path(child_package.__file__).parent, descriptors[0]),
        env=make_variables(folder),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        close_fds=True,
        pass_fds=descriptors,
        start_new_session=True,
        **identity,
    )


def _describe_bytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
