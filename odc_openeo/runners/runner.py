"""The code inside a runner: a process that carries out one task after the other."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, Final

from odc_openeo.config import Config, replace_environment
from odc_openeo.errors import Internal, OpenEOError, ProcessGraphComplexity
from odc_openeo.runners.hidden_memory import hide_memory
from odc_openeo.runners.json_pickling import decode_json, encode_json
from odc_openeo.runners.memory import (
    lift_memory_limit,
    limit_memory,
    memory_exceeded,
    read_status_bytes,
)
from odc_openeo.runners.memory_failures import is_memory_failure
from odc_openeo.runners.notices import set_receiver
from odc_openeo.runners.server_log import log_to_stderr
from odc_openeo.telemetry.counts import Count, drain_counts
from odc_openeo.telemetry.log_records import set_log_ids

RECYCLE_TASKS: Final = 1000
"""Tasks after which a runner is replaced, in case its libraries leak memory."""

MOST_REPLY_BYTES: Final = 64 * 2**20
"""Large enough for pictures, which have some hundred kilobytes; results are passed as files."""

OUT_OF_MEMORY: Final = 79
"""Exit status of a runner that has too little memory left to send an error."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """A module-level function and its arguments; ``label`` and ``ids`` identify it in the log."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    label: str = ""
    ids: Mapping[str, str] = field(default_factory=dict)

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = tuple(map(encode_json, self.arguments))
        return _restore_task, (self.function, arguments, self.label, dict(self.ids))


def _restore_task(
    function: Callable[..., Any], arguments: tuple[Any, ...], label: str, ids: Mapping[str, str]
) -> Task:
    return Task(function, tuple(map(decode_json, arguments)), label, ids)


@dataclass(frozen=True)
class Reply:
    """The value or the error of a task, and what it counted. ``is_spent``: the runner must be replaced."""

    value: Any = None
    error: OpenEOError | None = None
    is_spent: bool = False
    counts: tuple[Count, ...] = ()


@dataclass(frozen=True)
class Ready:
    """A message: the runner has started and waits for tasks."""


@dataclass(frozen=True)
class RunnerSettings:
    """The settings of a runner: configuration, environment variables, memory in bytes, niceness.

    ``prepare`` is called with the configuration before the first task; if it fails, the runner ends.
    """

    config: Config
    environment: Mapping[str, str]
    memory_bytes: int
    niceness: int
    prepare: Callable[[Config], None] | None = None


def serve_tasks(settings: RunnerSettings, pipe: Connection) -> None:
    """Carry out the tasks that come through ``pipe``; never returns."""
    hide_memory()
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # The process that this one was forked from may have a different environment.
    replace_environment(settings.environment)
    log_to_stderr(settings.config)
    os.nice(settings.niceness)
    baseline = read_status_bytes("self", "RssAnon")
    limit_memory(settings.memory_bytes)
    set_receiver(pipe.send)
    if settings.prepare is not None:
        settings.prepare(settings.config)
    pipe.send(Ready())
    tasks = 0
    try:
        while True:
            reply = _carry_out_task(pipe.recv(), settings)
            tasks += 1
            grown = read_status_bytes("self", "RssAnon") - baseline
            spent = reply.is_spent or tasks >= RECYCLE_TASKS or grown > settings.memory_bytes / 2
            _send_reply(pipe, Reply(reply.value, reply.error, spent, tuple(drain_counts())))
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except (EOFError, OSError):
        # The pool has released this runner. Threads of the dask client would only delay the exit.
        os._exit(0)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _carry_out_task(task: Task, settings: RunnerSettings) -> Reply:
    set_log_ids(**task.ids)
    try:
        return Reply(task.function(settings.config, *task.arguments))
    except Exception as error:
        if isinstance(error, RecursionError):
            reason = "its arrays, objects or child processes are nested too deeply. Flatten them."
            return Reply(error=ProcessGraphComplexity(reason=reason))
        if is_memory_failure(error):
            lift_memory_limit()
            log.info("[%s] a run needed more memory than it may have", task.label)
            return Reply(error=memory_exceeded(settings.memory_bytes), is_spent=True)
        if isinstance(error, OpenEOError):
            if error.status >= 500:
                log.error("[%s] %s", task.label, error, exc_info=error)
            return Reply(error=error.detach())
        log.exception("[%s] a run failed", task.label)
        return Reply(error=Internal())


def _send_reply(pipe: Connection, reply: Reply) -> None:
    """Send a reply, or an error if it cannot be pickled or is too large."""
    try:
        content = bytes(ForkingPickler.dumps(reply))
    except Exception:
        log.exception("the value of a task cannot be sent")
        content = bytes(ForkingPickler.dumps(Reply(error=Internal(), is_spent=True)))
    if len(content) > MOST_REPLY_BYTES:
        reason = f"its result is larger than {MOST_REPLY_BYTES // 2**20} MiB. Reduce its size."
        refusal = Reply(error=ProcessGraphComplexity(reason=reason), is_spent=True)
        content = bytes(ForkingPickler.dumps(refusal))
    pipe.send_bytes(content)
