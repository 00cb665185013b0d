"""Extents of the products, kept in our own table and brought up to date from what changed in the index.

Datasets of an unchanged product are not read; of a changed product, only the changed datasets are, unless
one of them was changed in place or may have shrunk the extent by its removal. What would take long is left to
the background (see `summary_background`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import delete

from odc_openeo import db
from odc_openeo.catalog.odc_index import IndexConnection, Marker
from odc_openeo.catalog.product_summary import Summary
from odc_openeo.catalog.summary_background import BackgroundRefresh
from odc_openeo.catalog.summary_rows import IndexState, lock_summaries, make_row, make_state_row, upsert_rows
from odc_openeo.catalog.summary_update import SummaryUpdate
from odc_openeo.config import Config
from odc_openeo.db import CollectionSummary

REREAD_SECONDS: Final = 1.0
"""How often stored summaries are read again while the background has not finished."""


class Summaries:
    """The summaries of all products, up to date with the index as far as that takes a moment only."""

    def __init__(self, config: Config, index: IndexConnection) -> None:
        self._config = config
        self._index = index
        self._lock = threading.Lock()
        self._seen: Marker | None = None
        self._current: dict[str, Summary] = {}
        self._is_unfinished = False
        self._read_at = 0.0
        self.background = BackgroundRefresh(config, index)

    def get_current(self) -> dict[str, Summary]:
        """Return the summaries by product name, updated if the index has changed since the last call.

        The same object as long as nothing has changed.
        """
        marker, clock = self._index.read_marker()
        with self._lock:
            if marker != self._seen or self._is_reread_due():
                self._look_again(marker, clock)
            if self._is_unfinished:
                self.background.ensure_running()
            return self._current

    def _look_again(self, marker: Marker, clock: datetime) -> None:
        summaries, state = self._refresh_stored(marker, clock)
        if marker != self._seen or summaries != self._current:
            self._current = summaries
        self._is_unfinished = state.is_unfinished or any(s.pending for s in summaries.values())
        self._seen, self._read_at = marker, time.monotonic()

    def finish(self, report: Callable[[Summary], None], *, anew: bool) -> None:
        """Make all summaries that are pending, with ``anew`` all; report each. Waits for other processes."""
        with self._lock:
            self._look_again(*self._index.read_marker())
            if anew:
                self.background.mark_all()
                self._is_unfinished = True
            while self._is_unfinished:
                if not self.background.refresh_pending(report):
                    time.sleep(REREAD_SECONDS)
                self._look_again(*self._index.read_marker())

    def _is_reread_due(self) -> bool:
        return self._is_unfinished and time.monotonic() - self._read_at > REREAD_SECONDS

    def _refresh_stored(self, marker: Marker, clock: datetime) -> tuple[dict[str, Summary], IndexState]:
        with db.session(self._config) as session:
            # One process updates the table; the others wait and read what it wrote.
            stored, state = lock_summaries(session)
            if state.marker == str(marker) or state.behind:
                return stored, state
            products = {product.name: product for product in self._index.datacube.index.products.get_all()}
            change = self._find_changes(products, stored, state, marker, clock)
            upsert_rows(session, [make_row(s) for s in change.summaries.values()])
            gone = stored.keys() - products.keys()
            if gone:
                session.execute(delete(CollectionSummary).where(CollectionSummary.product.in_(gone)))
            if change.behind:
                state = replace(state, marker=str(marker), behind=True)
            else:
                recount = state.recount or change.recount
                state = IndexState(str(marker), clock, marker.deleted, marker.written, recount)
            upsert_rows(session, [make_state_row(state)])
            current = {**stored, **change.summaries}
            return {name: s for name, s in current.items() if name not in gone}, state

    def _find_changes(
        self,
        products: Mapping[str, Any],
        stored: Mapping[str, Summary],
        state: IndexState,
        marker: Marker,
        clock: datetime,
    ) -> Any:
        with self._index.connect() as connection:
            update = SummaryUpdate(
                connection,
                self._index.driver,
                products,
                stored,
                state,
                clock=clock,
                deleted=state.deleted != marker.deleted,
                written=0 if state.written is None else marker.written - state.written,
                allowance=self._config.summary_datasets,
            )
            return update.find_changes()
