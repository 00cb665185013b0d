"""A pool of runners: lends them out one task at a time, watches them, kills and replaces them."""

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
from odc_openeo.runners.runner import OUT_OF_MEMORY, Ready, Reply, RunnerSettings, Task, serve_tasks
from odc_openeo.runners.slots import hold_slot

TICK_S: Final = 0.1
"""How often a run is looked at: its memory, its deadline, whether anybody still waits for it."""

RETRY_S: Final = 2
"""When clients that were refused for being too many should come back, in seconds."""

IDLE_S: Final = 60.0
"""Seconds after which idle runners end, but for those that are kept warm."""

log = logging.getLogger(__name__)


class RunAbandoned(Exception):
    """Nobody waits for the result of a run any more; it was ended."""


@dataclass(frozen=True)
class Lane:
    """What a pool is for: how many runners, how they start, how many runs one user has at once.

    ``waiting`` is how many requests of all users may run or wait in this process, ``waiting_per_user`` how
    many of one user; all beyond are refused at once, so that threads are left for other requests.
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
    """For runs whose client cannot leave."""
    return True


class RunnerPool:
    """Runners of one lane of this process; safe for threads. Processes start with the first use."""

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
        """Return what ``function(config, *arguments)`` returns in a runner, which has ``seconds`` for it.

        ``user`` is whom the run counts for; ``is_wanted`` is asked now and then: the run ends when it is
        false.

        Raises:
            OpenEOError: what the function raised; Internal for all other exceptions, which are in the log.
            ProcessGraphComplexity: it needed more memory than a runner may have.
            RequestTimeout: it took longer.
            TooManyRequests: the user has too many runs already.
            InfrastructureBusy: all runners are busy with runs of others.
            RunAbandoned: nobody wants the result any more.
        """
        with self._admit(user, is_wanted), self._borrow(is_wanted) as runner:
            return runner.carry_out(Task(function, arguments, label), seconds, is_wanted)

    # --- Admission ---

    @contextlib.contextmanager
    def _admit(self, user: str, is_wanted: Callable[[], bool]) -> Iterator[None]:
        """Let a user's request in once the user has a free slot."""
        self._queue(user)
        try:
            folder = self.config.data_dir / "slots" / self.lane.name
            wait_s = self.config.run_wait_s
            with hold_slot(folder, user, self.lane.per_user, wait_s, is_wanted) as is_held:
                if not is_held:
                    raise self._refuse(is_wanted)
                yield
        finally:
            with self._condition:
                self._pending[user] -= 1
                if not self._pending[user]:
                    del self._pending[user]

    def _queue(self, user: str) -> None:
        with self._condition:
            requests = self._pending.get(user, 0)
            if requests >= self.lane.waiting_per_user:
                raise self._too_many()
            if sum(self._pending.values()) >= self.lane.waiting:
                raise InfrastructureBusy
            self._pending[user] = requests + 1

    def _refuse(self, is_wanted: Callable[[], bool]) -> Exception:
        return self._too_many() if is_wanted() else RunAbandoned()

    def _too_many(self) -> TooManyRequests:
        return TooManyRequests(
            f"You have {self.lane.per_user} computations running already and others waiting. Wait for them "
            "to finish, or use batch jobs.",
            seconds=RETRY_S,
        )

    # --- Runners ---

    @contextlib.contextmanager
    def _borrow(self, is_wanted: Callable[[], bool]) -> Iterator[_Runner]:
        runner = self._check_out(is_wanted)
        try:
            yield runner
        finally:
            if runner.is_good:
                self._give_back(runner)
            else:
                self._replace(runner)

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
        """Start a runner that was counted as busy already."""
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
                self._trimming = threading.Timer(IDLE_S, _trim, [weakref.ref(self)])
                self._trimming.daemon = True
                self._trimming.start()
            self._condition.notify()

    def end_idle_runners(self) -> None:
        """End runners that have had nothing to do for a while, but for those that are kept warm."""
        with self._condition:
            self._trimming = None
            # The last ones are used first.
            superfluous = self._idle[: max(len(self._idle) + self._busy - self.lane.warm, 0)]
            del self._idle[: len(superfluous)]
        _kill_all(superfluous, os.getpid())

    def _replace(self, runner: _Runner) -> None:
        """Kill a runner; start another one at once where fewer than the warm ones would be left."""
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
        """The most bytes that a runner which is idle now has held."""
        with self._condition:
            pids = [runner.process.pid or 0 for runner in self._idle]
        return max((read_status_bytes(pid, "VmHWM") for pid in pids), default=0)

    def stop(self) -> None:
        """Kill the runners that are idle; those at work end with this process."""
        with self._condition:
            idle, self._idle[:] = list(self._idle), []
        _kill_all(idle, os.getpid())


def _trim(pool: weakref.ref[RunnerPool]) -> None:
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
    """A runner process, seen from outside."""

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
        """Fork a runner from the server that has everything imported."""
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
        """Whether the process has not ended in the meantime."""
        return self.process.is_alive()

    def carry_out(self, task: Task, seconds: float, is_wanted: Callable[[], bool]) -> Any:
        """Return the value of a task or raise its error; the errors of `RunnerPool.run`."""
        self.is_good = False
        deadline = time.monotonic() + seconds
        try:
            # A task may be larger than the pipe holds: it must not be sent before somebody reads there.
            while not self.is_ready:
                self._receive(deadline, seconds, is_wanted)
            self.pipe.send(task)
            reply = self._wait_for_reply(deadline, seconds, is_wanted)
        except (EOFError, ConnectionError) as error:
            raise self._explain_end(task) from error
        self.is_good = not reply.is_spent
        if reply.error is not None:
            raise reply.error
        return reply.value

    def _wait_for_reply(self, deadline: float, seconds: float, is_wanted: Callable[[], bool]) -> Reply:
        self.files, self.opened_by = "", None
        while True:
            reply = self._receive(deadline, seconds, is_wanted)
            if reply is not None:
                return reply

    def _receive(self, deadline: float, seconds: float, is_wanted: Callable[[], bool]) -> Reply | None:
        """The reply to the task, or None after taking in something else that the runner says."""
        while not self.pipe.poll(TICK_S):
            self._check(deadline, seconds, is_wanted)
        message: Reply | Notice | Ready = self.pipe.recv()
        if isinstance(message, Reply):
            return message
        if isinstance(message, Ready):
            self.is_ready = True
        else:
            self.files = message.files
            self.opened_by = None if message.seconds is None else time.monotonic() + message.seconds
        return None

    def _check(self, deadline: float, seconds: float, is_wanted: Callable[[], bool]) -> None:
        if time.monotonic() > deadline:
            raise RequestTimeout(seconds=seconds)
        if self.opened_by is not None and time.monotonic() > self.opened_by:
            raise FileContentInvalid(file=self.files, reason="opening it takes too long: it is damaged.")
        if not is_wanted():
            raise RunAbandoned
        if self.memory.is_exceeded():
            raise memory_exceeded(self.memory_bytes)

    def _explain_end(self, task: Task) -> Exception:
        self.process.join(1)
        log.error("[%s] a runner ended with status %s", task.label, self.process.exitcode)
        # The kernel kills who takes the last memory of the machine.
        if self.process.exitcode in (-signal.SIGKILL, OUT_OF_MEMORY):
            return memory_exceeded(self.memory_bytes)
        if self.files:
            reason = "reading it ended the process that did so: it is damaged."
            return FileContentInvalid(file=self.files, reason=reason)
        return Internal()

    def kill(self) -> None:
        """End the process, whatever it does."""
        self.is_good = False
        if self.process.is_alive() and self.process.pid is not None:
            # It leads a group of its own, so whatever it has started ends as well.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.kill()
        self.process.join()
        self.process.close()
        self.pipe.close()
