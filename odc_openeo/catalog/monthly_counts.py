"""The number of datasets of a product in each month, counted once per state of the product."""

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
from odc_openeo.db import SCHEMA, as_infrastructure_busy

SELECT_MONTHS = text(
    f"SELECT details -> 'months' FROM {SCHEMA}.collection_summaries "
    "WHERE product = :product AND last_change = :change"
)
# A new summary of the product replaces all details, and with them the previous counts.
STORE_MONTHS = text(
    f"UPDATE {SCHEMA}.collection_summaries "
    "SET details = jsonb_set(details, '{months}', CAST(:months AS jsonb)) "
    "WHERE product = :product AND last_change = :change"
)
LAST_YEAR: Final = 9998
NOON: Final = timedelta(hours=12)


def count_by_month(config: Config, index: Any, summary: Summary) -> Mapping[str, int]:
    """Count datasets by month (``2022-06``), without gaps from the first month to the last one.

    A dataset that spans several months counts in each.
    """
    start, end = summary.time
    if start is None or end is None:
        return {}
    parameters = {"product": summary.product, "change": summary.last_change}
    with db.session(config) as session:
        stored = session.execute(SELECT_MONTHS, parameters).scalar()
    if stored is not None:
        return dict(sorted(stored.items()))
    counted = _count_months(index, summary.product, start, end)
    with db.session(config) as session:
        session.execute(STORE_MONTHS, {**parameters, "months": json.dumps(counted)})
    return counted


def _count_months(index: Any, product: str, start: datetime, end: datetime) -> dict[str, int]:
    first, last = start.astimezone(UTC), end.astimezone(UTC)
    low = datetime(first.year, first.month, 1, tzinfo=UTC)
    years = min(last.year, LAST_YEAR) + last.month // 12
    high = datetime(years, last.month % 12 + 1, 1, tzinfo=UTC)
    with as_infrastructure_busy():
        counts = index.datasets.count_product_through_time("1 month", product=product, time=Range(low, high))
        # Where the database has another time zone, months may begin an hour early.
        return {f"{(period.begin + NOON).astimezone(UTC):%Y-%m}": count for period, count in counts}
