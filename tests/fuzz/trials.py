"""Run fuzz cases in child processes, each with a deadline, and count what goes wrong."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Any

from odc_openeo.config import Config
from odc_openeo.errors import FeatureUnsupported, OpenEOError, RequestTimeout
from odc_openeo.evaluation.lanes import prepare_runner
from odc_openeo.runners import Lane, RunnerPool
from odc_openeo.runners.memory import read_status_bytes

MOST_FAILURES = 50
"""Failures that are kept in full; all are counted."""


@dataclass
class Report:
    """What a run of fuzz cases came to."""

    kind: str
    seed: int
    cases: int = 0
    refused: int = 0
    server_errors: int = 0
    hangs: int = 0
    peak_memory_mb: float = 0.0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether no case ended in a server error or a hang."""
        return not self.server_errors and not self.hangs

    def add_failure(self, case: Any, text: str) -> None:
        """Keep a case with what happened, to be reproduced."""
        if len(self.failures) < MOST_FAILURES:
            self.failures.append(f"{text}\n    case: {case!r}"[:4000])

    def __str__(self) -> str:
        lines = [
            f"{self.kind}: {self.cases} cases (seed {self.seed}) in {self.seconds:.0f} s, "
            f"{self.refused} refused, 5xx: {self.server_errors}, hangs: {self.hangs}, "
            f"largest memory: {self.peak_memory_mb:.0f} MB",
            *self.failures,
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Outcome:
    """How one case ended: ``fault`` describes a server error, ``refused`` an error for the user."""

    refused: bool = False
    fault: str | None = None


Attempt = Callable[[Any], Outcome]


def run_trials(
    report: Report,
    cases: Iterable[Any],
    attempt: Attempt,
    *,
    deadline_s: float,
    preload: tuple[str, ...] = (),
    has_children: bool = False,
) -> Report:
    """Try each case in a warm child process, which is replaced when it hangs or dies.

    ``cases`` and ``attempt`` (a module-level function) travel by pickle. A child that dies counts as a server
    error, one that does not answer within ``deadline_s`` as a hang. ``has_children``: it starts some itself.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([attempt.__module__, *preload])
    start = time.monotonic()
    child = _Child(context, attempt, has_children)
    try:
        for case in cases:
            report.cases += 1
            child = child if child.process.is_alive() else _Child(context, attempt, has_children)
            _try_case(report, child, case, deadline_s)
    finally:
        child.kill()
        report.seconds += time.monotonic() - start
    return report


def _try_case(report: Report, child: _Child, case: Any, deadline_s: float) -> None:
    try:
        child.pipe.send(case)
        if not child.pipe.poll(deadline_s):
            report.hangs += 1
            report.add_failure(case, f"no answer within {deadline_s:g} s")
            child.kill()
            return
        outcome: Outcome = child.pipe.recv()
    except (EOFError, OSError):
        child.kill()
        outcome = Outcome(fault=f"the process died with status {child.process.exitcode}")
    report.refused += outcome.refused
    if outcome.fault is not None:
        report.server_errors += 1
        report.add_failure(case, outcome.fault)
    report.peak_memory_mb = max(report.peak_memory_mb, child.read_peak_memory_mb())


def run_in_runners(
    report: Report,
    cases: Iterable[Any],
    task: Callable[..., Any],
    *,
    config: Config,
    deadline_s: float,
    preload: tuple[str, ...] = (),
    has_children: bool = False,
) -> Report:
    """Let a runner of the service carry out ``task(config, case)`` for each case, with all its limits.

    An error with a status below 500 counts as refused, a run beyond its deadline as a hang.
    """
    start = time.monotonic()
    modules = (task.__module__, *preload)
    pool = RunnerPool(config, Lane("fuzz", 1, 1, 1, 1, preload=modules, prepare=prepare_runner))
    for case in cases:
        report.cases += 1
        try:
            pool.run(task, case, user="fuzz", seconds=deadline_s)
        except RequestTimeout:
            report.hangs += 1
            report.add_failure(case, f"no answer within {deadline_s:g} s")
        except OpenEOError as error:
            report.refused += 1
            if error.status >= 500 and not isinstance(error, FeatureUnsupported):
                report.server_errors += 1
                report.add_failure(case, f"{error.code}: {error}")
        report.peak_memory_mb = max(report.peak_memory_mb, pool.read_peak_memory() / 1e6)
    pool.stop()
    report.seconds += time.monotonic() - start
    return report


class _Child:
    def __init__(self, context: ForkServerContext, attempt: Attempt, has_children: bool) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, attempt), daemon=not has_children)
        self.process.start()
        theirs.close()

    def read_peak_memory_mb(self) -> float:
        return read_status_bytes(self.process.pid or 0, "VmHWM") / 1e6

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


def _serve(pipe: Connection, attempt: Attempt) -> None:
    while True:
        pipe.send(attempt(pipe.recv()))
