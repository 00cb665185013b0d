"""One look at what changed in the index: the summaries that follow from it at once, and what is left.

A look reads no more datasets than its allowance. Where more would have to be read, the summary of the product
is marked as pending, and made anew in the background. A product with more datasets than a look may read is
kept up to date from those that are added; its count is that of the settled datasets (registered before a
moment some minutes ago) and of the ones since, so that only these are counted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row
from sqlalchemy.exc import InterfaceError, OperationalError

from odc_openeo.catalog.index_driver import IndexDriver
from odc_openeo.catalog.product_extents import ExtentReader
from odc_openeo.catalog.product_summary import Summary
from odc_openeo.catalog.summary_rows import IndexState

FAILED: Final = "failed"
"""The state of a product whose summary could not be made; the next change makes it anew."""

MOST_COUNTED_AT_ONCE: Final = 50
"""Products whose datasets are counted by one statement."""

LOOK_SECONDS: Final = 3.0
"""After this, the rest is left to the background: with thousands of indexes, statements take long to plan."""

MOST_UNEXPLAINED: Final = 1000
"""Rows that PostgreSQL may have written for no change that is seen: by transactions that were rolled back."""

UNSETTLED: Final[dict[str, Any]] = {"settled": None, "horizon": None, "looked": None}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Change:
    """The findings of a look: summaries that are new, and whether it could not see all (see `IndexState`)."""

    summaries: Mapping[str, Summary] = field(default_factory=dict)
    recount: bool = False
    behind: bool = False


class SummaryUpdate:
    """A look at the changes since the stored state, at the moment ``clock``.

    ``allowance`` is the number of datasets that may be read; ``deleted`` tells that some were deleted since,
    ``written`` how many rows were written.
    """

    def __init__(
        self,
        connection: Connection,
        driver: IndexDriver,
        products: Mapping[str, Any],
        stored: Mapping[str, Summary],
        state: IndexState,
        *,
        clock: datetime,
        deleted: bool,
        written: int,
        allowance: int,
    ) -> None:
        self.connection = connection
        self.driver = driver
        self.products = products
        self.stored = stored
        self.since = state.since
        self.is_first = state.clock is None
        self.clock = clock
        self.deleted = deleted or self.is_first
        self.written = written
        self.allowance = self.left = allowance
        self.deadline = time.monotonic() + LOOK_SECONDS
        self.extents = ExtentReader(connection, driver, self.since)

    def find_changes(self) -> Change:
        """Find the new summaries of the products that need one."""
        windows = self._read_windows()
        if sum(row.number for row in windows.values()) > self.allowance:
            if not self.is_first:
                return Change(behind=True)
            windows = {}
        # If no changed row explains the new state, something was deleted, or committed very late, or
        # copied from elsewhere with the times that it had there.
        is_copied = self.written > 2 * sum(row.number for row in windows.values()) + MOST_UNEXPLAINED
        everything = self.deleted or not windows or is_copied
        is_large = sum(summary.count for summary in self.stored.values()) > self.allowance
        recount = everything and not self.is_first and is_large
        suspects = [
            product
            for product in self.products.values()
            if (everything and not recount) or product.id in windows or product.name not in self.stored
        ]
        suspects.sort(key=lambda product: product.id not in windows)
        counts = self._count_datasets([p for p in suspects if not self._is_large(p)])
        summaries = [self._try_update(p, windows.get(p.id), counts.get(p.id)) for p in suspects]
        return Change({s.product: s for s in summaries if s is not self.stored.get(s.product)}, recount)

    def _read_windows(self) -> dict[int, Row[Any]]:
        parameters = {"since": self.since, "most": self.allowance + 1}
        return {row.product: row for row in self.connection.execute(self.driver.changes, parameters)}

    def _is_large(self, product: Any) -> bool:
        before = self.stored.get(product.name)
        return before is not None and (before.pending or before.count > self.allowance)

    def _count_datasets(self, products: Sequence[Any]) -> dict[int, int]:
        """Count the datasets of products up to one more than allowed; of some, if there are too many."""
        counts: dict[int, int] = {}
        for first in range(0, len(products), MOST_COUNTED_AT_ONCE):
            if sum(counts.values()) > 4 * self.allowance:
                break
            part = products[first : first + MOST_COUNTED_AT_ONCE]
            numbers = {"products": [product.id for product in part], "most": self.allowance + 1}
            rows = self.connection.execute(self.driver.counts, numbers)
            counts.update({row.product: row.number for row in rows})
        return counts

    def _try_update(self, product: Any, window: Row[Any] | None, count: int | None) -> Summary:
        """Update the summary of a product; without extents if that fails, so that others are not affected."""
        before = self.stored.get(product.name)
        if before is not None and self._is_unchanged(before, window, count):
            return before
        if time.monotonic() > self.deadline:
            return replace(before or Summary(product.name, count=count or 0), pending=True)
        try:
            with self.connection.begin_nested():
                if window is not None and self._is_large(product):
                    return self._update_large(product, window, self.stored[product.name])
                return self._update_small(product, window, count)
        except (OperationalError, InterfaceError):
            raise
        except Exception:  # documents are those of others, and may be damaged in any way
            _log.exception("the extents of product %s cannot be found", product.name)
            change = f"{FAILED} {describe_change(window, count or 0)}"
            return Summary(product.name, count=count or 0, last_change=change)

    def _is_unchanged(self, before: Summary, window: Row[Any] | None, count: int | None) -> bool:
        if before.pending:
            return True
        if window is None:
            return count is None or before.count == count
        # Where some were deleted, as many others may have been added.
        return not self.deleted and count is not None and before.last_change == describe_change(window, count)

    # --- Products whose datasets may all be read -----------------------------------------------------

    def _update_small(self, product: Any, window: Row[Any] | None, count: int | None) -> Summary:
        before = self.stored.get(product.name)
        if count is None or count > self.allowance:
            return self._postpone(product, before, count)
        change = describe_change(window, count)
        summary = self._compute_small(product, window, before, count)
        if summary is None:
            return self._postpone(product, before, count)
        return replace(summary, count=count, last_change=change, months={}, **UNSETTLED)

    def _compute_small(
        self, product: Any, window: Row[Any] | None, before: Summary | None, count: int
    ) -> Summary | None:
        """Compute new extents; None if too many datasets would be read."""
        if before is not None and window is not None and not self._needs_all(product, window, before, count):
            return self._unite_with_added(product, before)
        if not count:
            return Summary(product.name)
        if count > self.left:
            return None
        self.left -= count
        return self.extents.compute_whole(product)

    def _unite_with_added(self, product: Any, before: Summary) -> Summary:
        added = self.extents.aggregate_datasets(product, "archived IS NULL AND added >= :since")
        sampled = before if before.grids else self.extents.add_sample(product, before)
        return sampled.unite_with(added)

    def _needs_all(self, product: Any, window: Row[Any], before: Summary, count: int) -> bool:
        if self.deleted or window.changed_in_place or not before.count or _has_failed(before):
            return True
        if not window.archived:
            return count < before.count
        taken = self.extents.aggregate_datasets(product, "archived IS NOT NULL AND updated >= :since")
        return taken.touches_edge_of(before) or not self.extents.shares_values(product, taken)

    # --- Products with more --------------------------------------------------------------------------

    def _postpone(self, product: Any, before: Summary | None, count: int | None) -> Summary:
        """Leave the summary to the background; a sample tells bands and properties meanwhile."""
        if before is not None:
            return replace(before, pending=True)
        return self.extents.add_sample(product, Summary(product.name, pending=True, count=count or 0))

    def _update_large(self, product: Any, window: Row[Any], before: Summary) -> Summary:
        counted = self._count_increment(product, before)
        change = describe_change(window, counted.count)
        if before.last_change == change and not self.deleted:
            return before
        is_increment = not (self.deleted or window.changed_in_place or window.archived or _has_failed(before))
        if before.settled is None or not is_increment or counted.count < before.count:
            return replace(before, pending=True)
        return replace(self._unite_with_added(product, counted), last_change=change)

    def _count_increment(self, product: Any, before: Summary) -> Summary:
        """Return the summary with the count of the settled datasets and of those since."""
        settled, horizon = before.settled or 0, before.horizon or self.since
        if before.looked is None or before.looked < self.since:
            # All that it had then was registered before the moment from which on changes are read.
            settled, horizon = before.count, self.since
        parameters = {"product": product.id, "horizon": horizon, "since": self.since}
        row = self.connection.execute(self.driver.recent_counts, parameters).one()
        return replace(
            before,
            count=settled + row.number,
            settled=settled + row.settled,
            horizon=max(horizon, self.since),
            looked=self.clock,
        )


def describe_change(window: Row[Any] | None, count: int) -> str:
    """Describe a state of a product: it differs whenever datasets have changed, but also when time passes."""
    if window is None:
        return f"None None 0 {count}"
    return f"{window.added} {window.updated} {window.number} {count}"


def _has_failed(summary: Summary) -> bool:
    return str(summary.last_change).startswith(FAILED)
