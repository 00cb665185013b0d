"""The number of datasets of a product in each month, counted once per state of the product."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, func, literal_column, select, text

from odc_openeo import db
from odc_openeo.catalog.index_driver import TIME
from odc_openeo.catalog.search_columns import Source, SourceColumns
from odc_openeo.config import Config
from odc_openeo.db import SCHEMA

Connect = Callable[[], AbstractContextManager[Connection]]

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
LAST_MOMENT: Final = datetime(9998, 12, 31, tzinfo=UTC)
ONE_MONTH: Final[ColumnElement[Any]] = literal_column("interval '1 month'")


def count_by_month(config: Config, connect: Connect, source: Source) -> Mapping[str, int]:
    """Count datasets by month (``2022-06``), without gaps from the first month to the last one.

    A dataset that spans several months counts in each.
    """
    summary = source.summary
    if summary.time[0] is None or summary.time[1] is None:
        return {}
    parameters = {"product": summary.product, "change": summary.last_change}
    with db.session(config) as session:
        stored = session.execute(SELECT_MONTHS, parameters).scalar()
    if stored is not None:
        return dict(sorted(stored.items()))
    with connect() as connection:
        counted = _fill_gaps({row.month: row.number for row in connection.execute(_select_months(source))})
    with db.session(config) as session:
        session.execute(STORE_MONTHS, {**parameters, "months": json.dumps(counted)})
    return counted


def _select_months(source: Source) -> Select[Any]:
    """Select how many datasets are valid in each month, in one pass over the datasets."""
    columns = SourceColumns(source)
    bounds = [
        func.date_trunc("month", func.timezone("UTC", func.least(moment, LAST_MOMENT, type_=TIME)))
        for moment in columns.interval_columns()
    ]
    months = func.to_char(func.generate_series(*bounds, ONE_MONTH), "YYYY-MM").label("month")
    every = columns.select_documents().with_only_columns(months, maintain_column_froms=True).subquery()
    return select(every.c.month, func.count().label("number")).group_by(every.c.month)


def _fill_gaps(counts: Mapping[str, int]) -> dict[str, int]:
    if not counts:
        return {}
    first, last = (12 * int(month[:4]) + int(month[5:]) - 1 for month in (min(counts), max(counts)))
    months = (f"{number // 12:04}-{number % 12 + 1:02}" for number in range(first, last + 1))
    return {month: counts.get(month, 0) for month in months}
