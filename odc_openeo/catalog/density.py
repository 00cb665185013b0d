"""How many datasets of a product there are in each month, counted once for each state of the product."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from datacube.model import Range
from sqlalchemy import text

from odc_openeo import db
from odc_openeo.catalog.summaries import Summary
from odc_openeo.config import Config
from odc_openeo.db import SCHEMA, reachable

KNOWN = text(
    f"SELECT details -> 'months' FROM {SCHEMA}.collection_summaries "
    "WHERE product = :product AND last_change = :change"
)
# A new summary of the product replaces all details: what was counted before is forgotten then.
KEEP = text(
    f"UPDATE {SCHEMA}.collection_summaries "
    "SET details = jsonb_set(details, '{months}', CAST(:months AS jsonb)) "
    "WHERE product = :product AND last_change = :change"
)
LAST_YEAR: Final = 9998
NOON: Final = timedelta(hours=12)


def months(config: Config, index: Any, summary: Summary) -> Mapping[str, int]:
    """Datasets by month (``2022-06``), without gaps from the first month to the last one.

    A dataset that spans several months counts in each.
    """
    start, end = summary.time
    if start is None or end is None:
        return {}
    wanted = {"product": summary.product, "change": summary.last_change}
    with db.session(config) as session:
        known = session.execute(KNOWN, wanted).scalar()
    if known is not None:
        return dict(sorted(known.items()))
    counted = _count(index, summary.product, start, end)
    with db.session(config) as session:
        session.execute(KEEP, {**wanted, "months": json.dumps(counted)})
    return counted


def _count(index: Any, product: str, start: datetime, end: datetime) -> dict[str, int]:
    first, last = start.astimezone(UTC), end.astimezone(UTC)
    low = datetime(first.year, first.month, 1, tzinfo=UTC)
    years = min(last.year, LAST_YEAR) + last.month // 12
    high = datetime(years, last.month % 12 + 1, 1, tzinfo=UTC)
    with reachable():
        found = index.datasets.count_product_through_time("1 month", product=product, time=Range(low, high))
        # Where the database has another time zone, months may begin an hour early.
        return {f"{(period.begin + NOON).astimezone(UTC):%Y-%m}": count for period, count in found}
