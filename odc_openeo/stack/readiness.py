"""Readiness of this process for requests: a quick look at each part that it needs, by name only."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final

from odc_openeo import db
from odc_openeo.catalog import Catalog
from odc_openeo.compute import cluster
from odc_openeo.config import Config
from odc_openeo.storage import check_storage

OK: Final = "ok"
NOT_CONFIGURED: Final = "not configured"
NO_ANSWER: Final = "no answer"
UNUSABLE: Final = "unusable"

OPTIONAL: Final = frozenset({"dask"})
"""Parts without which metadata and small requests are still served."""

ANSWER_SECONDS: Final = 3.0
FRESH_SECONDS: Final = 2.0
"""How long an answer counts: anyone may ask, as often as they like."""

log = logging.getLogger(__name__)


class Readiness:
    """The state of the parts, looked at once for all that ask within two seconds."""

    def __init__(self, config: Config, catalog: Catalog) -> None:
        self._checks: Mapping[str, Callable[[], str]] = {
            "database": lambda: _describe(db.check_database(config)),
            "index": lambda: _describe(catalog.get_state()),
            "storage": lambda: _describe(check_storage(config, writes=False)),
            "dask": lambda: check_scheduler(config),
        }
        self._lock = threading.Lock()
        self._states: dict[str, str] = {}
        self._time = -FRESH_SECONDS
        self._running: dict[str, Future[str]] = {}

    def read_states(self) -> dict[str, str]:
        """Return the state of each part by name."""
        with self._lock:
            if time.monotonic() - self._time >= FRESH_SECONDS:
                self._states = self._look()
                self._time = time.monotonic()
            return dict(self._states)

    def _look(self) -> dict[str, str]:
        # A check that still waits for an answer is not begun again.
        fresh = {name: check for name, check in self._checks.items() if not self._is_running(name)}
        pool = ThreadPoolExecutor(len(fresh) or 1, thread_name_prefix="readiness")
        self._running |= {name: pool.submit(check) for name, check in fresh.items()}
        pool.shutdown(wait=False)
        wait(self._running.values(), ANSWER_SECONDS)
        return {name: self._get_state(name) for name in self._checks}

    def _is_running(self, name: str) -> bool:
        return name in self._running and not self._running[name].done()

    def _get_state(self, name: str) -> str:
        task = self._running[name]
        if not task.done():
            return NO_ANSWER
        error = task.exception()
        if error is None:
            return task.result()
        log.warning("not ready: %s: %s", name, error)
        return UNUSABLE


def is_ready(states: Mapping[str, str]) -> bool:
    """Return whether all parts work that requests need."""
    return all(state in (OK, NOT_CONFIGURED) or name in OPTIONAL for name, state in states.items())


def check_scheduler(config: Config) -> str:
    """Check that the scheduler of the cluster answers."""
    if config.dask_scheduler is None:
        return NOT_CONFIGURED
    return OK if cluster.answers(config.dask_scheduler, ANSWER_SECONDS / 2) else NO_ANSWER


def _describe(_: str) -> str:
    return OK
