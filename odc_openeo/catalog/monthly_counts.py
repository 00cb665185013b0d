"""The number of datasets of a product in each month, counted once per state of the product."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, func, literal_column, select, text

from odc_openeo import db
from odc_openeo.catalog.index_driver import TIME, Fields, IndexDriver
from odc_openeo.catalog.misplaced import FIRST_TIME, LAST_TIME
from odc_openeo.catalog.search_columns import Source
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

    A dataset that spans several months counts in each. Datasets of products that are too large for requests
    were counted in the background, when their summary was made.
    """
    summary = source.summary
    if summary.pending or summary.count > config.summary_datasets:
        return dict(sorted(summary.months.items()))
    if summary.time[0] is None or summary.time[1] is None:
        return {}
    parameters = {"product": summary.product, "change": summary.last_change}
    with db.session(config) as session:
        stored = session.execute(SELECT_MONTHS, parameters).scalar()
    if stored:
        return dict(sorted(stored.items()))
    with connect() as connection:
        counted = read_months(
            connection, source.driver, source.number, source.fields, in_documents=source.has_wrong_times
        )
    with db.session(config) as session:
        session.execute(STORE_MONTHS, {**parameters, "months": json.dumps(counted)})
    return counted


def read_months(
    connection: Connection, driver: IndexDriver, product: int, fields: Fields, *, in_documents: bool
) -> dict[str, int]:
    """Count how many datasets of a product are valid in each month, in one pass over all of them.

    ``in_documents`` tells that the times in the index are wrong, and those in the documents count.
    """
    times = (
        (literal_column(FIRST_TIME, TIME), literal_column(LAST_TIME, TIME))
        if in_documents
        else driver.get_times(fields)
    )
    bounds = [
        func.date_trunc("month", func.timezone("UTC", func.least(moment, LAST_MOMENT, type_=TIME)))
        for moment in times
    ]
    months = func.to_char(func.generate_series(*bounds, ONE_MONTH), "YYYY-MM").label("month")
    every = (
        select(months)
        .select_from(driver.rows)
        .where(driver.is_of_product(product), driver.dataset.c.archived.is_(None))
        .subquery()
    )
    rows = connection.execute(select(every.c.month, func.count().label("number")).group_by(every.c.month))
    return _fill_gaps({row.month: row.number for row in rows})


def _fill_gaps(counts: Mapping[str, int]) -> dict[str, int]:
    if not counts:
        return {}
    first, last = (12 * int(month[:4]) + int(month[5:]) - 1 for month in (min(counts), max(counts)))
    months = (f"{number // 12:04}-{number % 12 + 1:02}" for number in range(first, last + 1))
    return {month: counts.get(month, 0) for month in months}
