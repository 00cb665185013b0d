"""A pool of runners: lends them out for one task at a time, watches, kills and replaces them."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any, Final

from odc_openeo.config import Config, child_environment
from odc_openeo.errors import (
    FileContentInvalid,
    InfrastructureBusy,
    Internal,
    RequestTimeout,
    TooManyRequests,
)
from odc_openeo.runners.memory import MemoryWatch, memory_exceeded, read_status_bytes
from odc_openeo.runners.notices import Notice
from odc_openeo.runners.run_counts import RunAbandoned, count_run
from odc_openeo.runners.runner import OUT_OF_MEMORY, Ready, Reply, RunnerSettings, Task, serve_tasks
from odc_openeo.runners.slots import hold_slot
from odc_openeo.telemetry.counts import pass_on
from odc_openeo.telemetry.log_records import get_log_ids

TICK_S: Final = 0.1
"""Seconds between checks of a run: its memory, its deadline, whether a client still waits for it."""

RETRY_S: Final = 2
"""Seconds after which clients with too many requests should retry."""

IDLE_S: Final = 60.0
"""Seconds after which idle runners are ended, except those that are kept warm."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lane:
    """The purpose of a pool: how many runners it has, how they start, how many runs a user may have at once.

    ``waiting`` is how many requests of all users may run or wait in this process, ``waiting_per_user`` how
    many of one user; further ones are refused at once, so that threads remain for other requests.
    """

    name: str
    runners: int
    per_user: int
    waiting: int
    waiting_per_user: int
    niceness: int = 0
    warm: int = 1
    preload: tuple[str, ...] = ()
    prepare: Callable[[Config], None] | None = None


def is_always_wanted() -> bool:
    """Answer yes, for runs whose client cannot disconnect."""
    return True


class RunnerPool:
    """The runners of one lane in this process; thread-safe. Processes start with the first use."""

    def __init__(self, config: Config, lane: Lane) -> None:
        self.config = config
        self.lane = lane
        self._condition = threading.Condition()
        self._idle: list[_Runner] = []
        self._busy = 0
        self._pending: dict[str, int] = {}
        self._trimming: threading.Timer | None = None
        self._owner = os.getpid()
        weakref.finalize(self, _kill_all, self._idle, self._owner)

    def start(self) -> None:
        """Start the runners that are kept warm."""
        while True:
            with self._condition:
                self._forget_after_fork()
                if len(self._idle) + self._busy >= self.lane.warm:
                    return
                self._busy += 1
            self._give_back(self._new_runner())

    def run(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        user: str,
        seconds: float,
        is_wanted: Callable[[], bool] = is_always_wanted,
        label: str = "",
    ) -> Any:
        """Run ``function(config, *arguments)`` in a runner, for at most ``seconds``, and return its value.

        The run counts for ``user``. ``is_wanted`` is called regularly: the run is ended when it returns
        false.

        Raises:
            OpenEOError: what the function raised; Internal for all other exceptions, which are in the log.
            ProcessGraphComplexity: it needed more memory than a runner may have.
            RequestTimeout: it took longer.
            TooManyRequests: the user has too many runs already.
            InfrastructureBusy: all runners are busy with other runs.
            RunAbandoned: no client waits for the result any more.
        """
        with (
            count_run(self.lane.name) as run,
            self._admit_user(user, is_wanted),
            self._borrow_runner(is_wanted) as runner,
        ):
            run.begin()
            return runner.carry_out(Task(function, arguments, label, get_log_ids()), seconds, is_wanted)

    # --- Admission ---

    @contextlib.contextmanager
    def _admit_user(self, user: str, is_wanted: Callable[[], bool]) -> Iterator[None]:
        """Admit a request once its user has a free slot."""
        self._count_request(user)
        try:
            folder = self.config.data_dir / "slots" / self.lane.name
            wait_s = self.config.run_wait_s
            with hold_slot(folder, user, self.lane.per_user, wait_s, is_wanted) as is_held:
                if not is_held:
                    raise self._make_refusal(is_wanted)
                yield
        finally:
            with self._condition:
                self._pending[user] -= 1
                if not self._pending[user]:
                    del self._pending[user]

    def _count_request(self, user: str) -> None:
        with self._condition:
            requests = self._pending.get(user, 0)
            if requests >= self.lane.waiting_per_user:
                raise self._too_many()
            if sum(self._pending.values()) >= self.lane.waiting:
                raise InfrastructureBusy
            self._pending[user] = requests + 1

    def _make_refusal(self, is_wanted: Callable[[], bool]) -> Exception:
        return self._too_many() if is_wanted() else RunAbandoned()

    def _too_many(self) -> TooManyRequests:
        return TooManyRequests(
            f"You already have {self.lane.per_user} computations running and others waiting. Wait for them "
            "to finish, or use batch jobs.",
            seconds=RETRY_S,
        )

    # --- Runners ---

    @contextlib.contextmanager
    def _borrow_runner(self, is_wanted: Callable[[], bool]) -> Iterator[_Runner]:
        runner = self._check_out(is_wanted)
        try:
            yield runner
        finally:
            if runner.is_good:
                self._give_back(runner)
            else:
                self._replace_runner(runner)

    def _check_out(self, is_wanted: Callable[[], bool]) -> _Runner:
        deadline = time.monotonic() + self.config.run_wait_s
        with self._condition:
            self._forget_after_fork()
            while True:
                while self._idle:
                    runner = self._idle.pop()
                    if runner.is_alive():
                        self._busy += 1
                        return runner
                if self._busy < self.lane.runners:
                    self._busy += 1
                    break
                if not is_wanted():
                    raise RunAbandoned
                if time.monotonic() > deadline:
                    raise InfrastructureBusy
                self._condition.wait(TICK_S)
        return self._new_runner()

    def _new_runner(self) -> _Runner:
        """Start a runner that is already counted as busy."""
        try:
            return _Runner.start(self.config, self.lane)
        except BaseException:
            with self._condition:
                self._busy -= 1
                self._condition.notify()
            raise

    def _give_back(self, runner: _Runner) -> None:
        with self._condition:
            self._busy -= 1
            self._idle.append(runner)
            if len(self._idle) > self.lane.warm and self._trimming is None:
                self._trimming = threading.Timer(IDLE_S, _trim_pool, [weakref.ref(self)])
                self._trimming.daemon = True
                self._trimming.start()
            self._condition.notify()

    def end_idle_runners(self) -> None:
        """End runners that have been idle for a while, except those that are kept warm."""
        with self._condition:
            self._trimming = None
            # The last ones are used first.
            superfluous = self._idle[: max(len(self._idle) + self._busy - self.lane.warm, 0)]
            del self._idle[: len(superfluous)]
        _kill_all(superfluous, os.getpid())

    def _replace_runner(self, runner: _Runner) -> None:
        """Kill a runner; start another one at once if fewer would remain than are kept warm."""
        runner.kill()
        with self._condition:
            is_needed = len(self._idle) + self._busy <= self.lane.warm
            if not is_needed:
                self._busy -= 1
                self._condition.notify()
        if is_needed:
            with contextlib.suppress(OSError):
                self._give_back(self._new_runner())

    def _forget_after_fork(self) -> None:
        if self._owner != os.getpid():
            self._idle.clear()
            self._busy, self._pending, self._owner = 0, {}, os.getpid()

    def read_peak_memory(self) -> int:
        """Return the peak memory in bytes of the runners that are idle now."""
        with self._condition:
            pids = [runner.process.pid or 0 for runner in self._idle]
        return max((read_status_bytes(pid, "VmHWM") for pid in pids), default=0)

    def stop(self) -> None:
        """Kill the idle runners; busy ones end with this process."""
        with self._condition:
            idle, self._idle[:] = list(self._idle), []
        _kill_all(idle, os.getpid())


def _trim_pool(pool: weakref.ref[RunnerPool]) -> None:
    alive = pool()
    if alive is not None:
        alive.end_idle_runners()


def _kill_all(runners: list[_Runner], owner: int) -> None:
    # A fork of the owner has the list, too, but not the processes.
    if owner == os.getpid():
        for runner in runners:
            runner.kill()


@dataclass
class _Runner:
    """A runner process, as seen by its pool."""

    process: ForkServerProcess
    pipe: Connection
    memory_bytes: int
    memory: MemoryWatch = field(init=False)
    is_good: bool = True
    is_ready: bool = False
    files: str = ""
    opened_by: float | None = None

    def __post_init__(self) -> None:
        self.memory = MemoryWatch(self.process.pid or 0, self.memory_bytes)

    @classmethod
    def start(cls, config: Config, lane: Lane) -> _Runner:
        """Fork a runner from the fork server, which has all modules imported."""
        context: ForkServerContext = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([serve_tasks.__module__, *lane.preload])
        ours, theirs = context.Pipe()
        memory = int(config.runner_memory)
        settings = RunnerSettings(config, child_environment(), memory, lane.niceness, lane.prepare)
        process = context.Process(
            target=serve_tasks, args=(settings, theirs), name=f"{lane.name} runner", daemon=True
        )
        process.start()
        theirs.close()
        return cls(process, ours, memory)

    def is_alive(self) -> bool:
        """Whether the process is still running."""
        return self.process.is_alive()

    def carry_out(self, task: Task, seconds: float, is_wanted: Callable[[], bool]) -> Any:
        """Return the value of a task or raise its error, as `RunnerPool.run` does."""
        self.is_good = False
        deadline = time.monotonic() + seconds
        try:
            # A task may be larger than the buffer of the pipe: it must not be sent before the runner reads.
            while not self.is_ready:
                self._receive_message(deadline, seconds, is_wanted)
            self.pipe.send(task)
            reply = self._wait_for_reply(deadline, seconds, is_wanted)
        except (EOFError, ConnectionError) as error:
            raise self._explain_end(task) from error
        self.is_good = not reply.is_spent
        pass_on(reply.counts)
        if reply.error is not None:
            raise reply.error
        return reply.value

    def _wait_for_reply(self, deadline: float, seconds: float, is_wanted: Callable[[], bool]) -> Reply:
        self.files, self.opened_by = "", None
        while True:
            reply = self._receive_message(deadline, seconds, is_wanted)
            if reply is not None:
                return reply

    def _receive_message(
        self, deadline: float, seconds: float, is_wanted: Callable[[], bool]
    ) -> Reply | None:
        """Receive a message: return the reply to the task, or None after handling another message."""
        while not self.pipe.poll(TICK_S):
            self._check_limits(deadline, seconds, is_wanted)
        message: Reply | Notice | Ready = self.pipe.recv()
        if isinstance(message, Reply):
            return message
        if isinstance(message, Ready):
            self.is_ready = True
        else:
            self.files = message.files
            self.opened_by = None if message.seconds is None else time.monotonic() + message.seconds
        return None

    def _check_limits(self, deadline: float, seconds: float, is_wanted: Callable[[], bool]) -> None:
        if time.monotonic() > deadline:
            raise RequestTimeout(seconds=seconds)
        if self.opened_by is not None and time.monotonic() > self.opened_by:
            raise FileContentInvalid(
                file=self.files, reason="opening it takes too long; it is probably damaged."
            )
        if not is_wanted():
            raise RunAbandoned
        if self.memory.is_exceeded():
            raise memory_exceeded(self.memory_bytes)

    def _explain_end(self, task: Task) -> Exception:
        self.process.join(1)
        log.error("[%s] a runner ended with status %s", task.label, self.process.exitcode)
        # The kernel kills processes when the machine runs out of memory.
        if self.process.exitcode in (-signal.SIGKILL, OUT_OF_MEMORY):
            return memory_exceeded(self.memory_bytes)
        if self.files:
            reason = "reading it crashed the process; it is probably damaged."
            return FileContentInvalid(file=self.files, reason=reason)
        return Internal()

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        self.is_good = False
        if self.process.is_alive() and self.process.pid is not None:
            # It leads its own process group, so that the processes it has started end, too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.kill()
        self.process.join()
        self.process.close()
        self.pipe.close()
