"""Makes pending summaries anew, outside of requests: by a thread of any process, or by a command.

One process of all does it at a time. Each summary is stored as soon as it is made.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from typing import Any, Final

from sqlalchemy import Connection, func, select

from odc_openeo import db
from odc_openeo.catalog.odc_index import IndexConnection
from odc_openeo.catalog.product_summary import Summary
from odc_openeo.catalog.summary_computation import compute_summaries
from odc_openeo.catalog.summary_rows import IndexState, lock_summaries, make_row, make_state_row, upsert_rows
from odc_openeo.config import Config

BACKGROUND_LOCK: Final = 0x6F646362
"""Advisory lock of the process that makes pending summaries."""

RESTART_SECONDS: Final = 10.0
"""How long to wait before the thread is started again, after an error or while another process works."""

REST: Final = 4
"""A product that changes all the time is made anew no sooner than after this many times the duration."""

MOST_TOGETHER: Final = 50
"""Products whose summaries are made together."""

_log = logging.getLogger(__name__)


class BackgroundRefresh:
    """Makes pending summaries in a thread of this process, started when there are any."""

    def __init__(self, config: Config, index: IndexConnection) -> None:
        self._config = config
        self._index = index
        self._lock = threading.Lock()
        self._thread: tuple[int, float, threading.Thread] | None = None

    def ensure_running(self) -> None:
        """Start the thread unless it runs, or ended a moment ago."""
        with self._lock:
            if self._thread is not None:
                pid, started, thread = self._thread
                # Threads do not survive a fork.
                is_recent = time.monotonic() - started < RESTART_SECONDS
                if pid == os.getpid() and (thread.is_alive() or is_recent):
                    return
            thread = threading.Thread(target=self._refresh_quietly, name="collection summaries", daemon=True)
            self._thread = os.getpid(), time.monotonic(), thread
            thread.start()

    def _refresh_quietly(self) -> None:
        try:
            self.refresh_pending()
        except Exception as error:  # requests start another one, after a moment
            _log.warning("the summaries of collections could not be made: %s", error)

    def refresh_pending(self, report: Callable[[Summary], None] = lambda summary: None) -> bool:
        """Make all pending summaries, and report each; return False if another process does it now."""
        with self._hold_lock() as is_mine:
            if not is_mine:
                return False
            rest_until: dict[str, float] = {}
            while True:
                stored, state = self._read_stored()
                # Summaries of products that were deleted meanwhile are forgotten by the next look.
                products = {product.name: product for product in self._list_products()}
                pending = [s for name, s in sorted(stored.items()) if s.pending and name in products]
                if state.behind:
                    self._mark_changed(state)
                elif state.recount:
                    self._mark_miscounted()
                elif not pending:
                    return True
                else:
                    self._make_pending(pending, products, rest_until, report)

    def mark_all(self) -> None:
        """Mark all summaries as pending."""
        with db.session(self._config) as session:
            stored, _ = lock_summaries(session)
            upsert_rows(session, [make_row(replace(s, pending=True)) for s in stored.values()])

    @contextmanager
    def _hold_lock(self) -> Iterator[bool]:
        with db.get_engine(self._config).connect() as connection:
            alone = connection.execution_options(isolation_level="AUTOCOMMIT")
            is_mine = bool(alone.execute(select(func.pg_try_advisory_lock(BACKGROUND_LOCK))).scalar())
            try:
                yield is_mine
            finally:
                if is_mine:
                    alone.execute(select(func.pg_advisory_unlock(BACKGROUND_LOCK)))

    def _read_stored(self) -> tuple[dict[str, Summary], IndexState]:
        with db.session(self._config) as session:
            return lock_summaries(session)

    @contextmanager
    def _open_snapshot(self) -> Iterator[tuple[Connection, datetime]]:
        """Open a connection whose statements all see the index at one moment."""
        with self._index.engine.connect() as plain:
            connection = plain.execution_options(isolation_level="REPEATABLE READ")
            yield connection, connection.execute(select(func.clock_timestamp())).scalar_one()

    def _mark_changed(self, state: IndexState) -> None:
        """Mark what changed since the last look: more than a request may read."""
        with self._open_snapshot() as (connection, clock):
            parameters = {"since": state.since, "most": None}
            numbers = {row.product for row in connection.execute(self._index.driver.changes, parameters)}
        names = {product.name for product in self._list_products() if product.id in numbers}
        with db.session(self._config) as session:
            stored, state = lock_summaries(session)
            upsert_rows(
                session, [make_row(replace(s, pending=True)) for n, s in stored.items() if n in names]
            )
            upsert_rows(session, [make_state_row(replace(state, marker=None, clock=clock, behind=False))])

    def _mark_miscounted(self) -> None:
        """Mark the products whose count is not that of their summary: some of their datasets were deleted."""
        with self._open_snapshot() as (connection, clock):
            rows = connection.execute(self._index.driver.all_counts, {"products": None, "since": clock})
            numbers = {row.product: row.number for row in rows}
        counts = {product.name: numbers.get(product.id, 0) for product in self._list_products()}
        with db.session(self._config) as session:
            stored, state = lock_summaries(session)
            wrong = [s for name, s in stored.items() if name in counts and s.count != counts[name]]
            upsert_rows(session, [make_row(replace(s, pending=True)) for s in wrong])
            upsert_rows(session, [make_state_row(replace(state, recount=False))])

    def _make_pending(
        self,
        pending: list[Summary],
        products: dict[str, Any],
        rest_until: dict[str, float],
        report: Callable[[Summary], None],
    ) -> None:
        due = [s for s in pending if rest_until.get(s.product, 0.0) <= time.monotonic()]
        if not due:
            time.sleep(1.0)
        for group in self._group_products(due, products):
            start = time.monotonic()
            summaries = self._make_summaries([products[s.product] for s in group])
            duration = time.monotonic() - start
            for summary in summaries:
                rest_until[summary.product] = time.monotonic() + REST * duration
                report(summary)

    def _group_products(self, pending: list[Summary], products: dict[str, Any]) -> Iterator[list[Summary]]:
        """Group small products of one metadata type; large ones are alone."""

        def get_kind(summary: Summary) -> str:
            return str(products[summary.product].metadata_type.name)

        for _, members in groupby(sorted(pending, key=get_kind), get_kind):
            group: list[Summary] = []
            for summary in members:
                if summary.count > self._config.summary_datasets:
                    yield [summary]
                    continue
                group.append(summary)
                if len(group) == MOST_TOGETHER or sum(s.count for s in group) > self._config.summary_datasets:
                    yield group
                    group = []
            if group:
                yield group

    def _make_summaries(self, products: list[Any]) -> list[Summary]:
        with self._open_snapshot() as (connection, clock):
            summaries = compute_summaries(connection, self._index.driver, products, clock)
        with db.session(self._config) as session:
            stored, state = lock_summaries(session)
            upsert_rows(session, [make_row(s) for s in summaries if s.product in stored])
            if state.clock is not None and state.clock > clock:
                # What a request has seen since the snapshot is seen once more.
                upsert_rows(session, [make_state_row(replace(state, marker=None, clock=clock))])
        return summaries

    def _list_products(self) -> list[Any]:
        return list(self._index.datacube.index.products.get_all())
