"""Summaries computed from all datasets of their products: a few statements for many small products."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import InterfaceError, OperationalError

from odc_openeo.catalog import summary_rows
from odc_openeo.catalog.index_driver import IndexDriver
from odc_openeo.catalog.monthly_counts import read_months
from odc_openeo.catalog.product_extents import ExtentReader
from odc_openeo.catalog.product_summary import Summary
from odc_openeo.catalog.summary_update import FAILED, describe_change

_log = logging.getLogger(__name__)


def compute_summaries(
    connection: Connection, driver: IndexDriver, products: Sequence[Any], clock: datetime
) -> list[Summary]:
    """Compute the summaries of products of one metadata type; ``clock`` is the moment of the snapshot.

    Where documents are damaged, the summary of that product has no extents.
    """
    try:
        with connection.begin_nested():
            return _compute_together(connection, driver, products, clock)
    except (OperationalError, InterfaceError):
        raise
    except Exception:  # documents are those of others, and may be damaged in any way
        if len(products) > 1:
            return [s for p in products for s in compute_summaries(connection, driver, [p], clock)]
        _log.exception("the extents of product %s cannot be found", products[0].name)
        (counted,) = _count_products(connection, driver, products, clock)
        return [replace(counted, last_change=f"{FAILED} {counted.last_change}")]


def _compute_together(
    connection: Connection, driver: IndexDriver, products: Sequence[Any], clock: datetime
) -> list[Summary]:
    counted = _count_products(connection, driver, products, clock)
    extents = ExtentReader(connection, driver, clock)
    filled = [p for p, summary in zip(products, counted, strict=True) if summary.count]
    whole = extents.add_samples(filled, extents.aggregate_products(filled)) if filled else {}
    months = _count_months(connection, driver, filled, whole)
    return [
        replace(
            whole.get(summary.product, summary),
            months=months.get(summary.product, {}),
            count=summary.count,
            settled=summary.settled,
            horizon=summary.horizon,
            looked=summary.looked,
            last_change=summary.last_change,
        )
        for summary in counted
    ]


def _count_products(
    connection: Connection, driver: IndexDriver, products: Sequence[Any], clock: datetime
) -> list[Summary]:
    """Make summaries with counts only."""
    horizon = clock - summary_rows.OVERLAP
    changes = connection.execute(driver.changes, {"since": horizon, "most": None})
    windows = {row.product: row for row in changes}
    numbers = {"products": [product.id for product in products], "since": horizon}
    counts = {row.product: row for row in connection.execute(driver.all_counts, numbers)}
    summaries = []
    for product in products:
        count, settled = (
            (counts[product.id].number, counts[product.id].settled) if product.id in counts else (0, 0)
        )
        change = describe_change(windows.get(product.id), count)
        summaries.append(
            Summary(
                product.name, count=count, settled=settled, horizon=horizon, looked=clock, last_change=change
            )
        )
    return summaries


def _count_months(
    connection: Connection, driver: IndexDriver, products: Sequence[Any], summaries: dict[str, Summary]
) -> dict[str, dict[str, int]]:
    """Count datasets by month of a product that is too large for requests, which count those of others."""
    if len(products) != 1:
        return {}
    (product,) = products
    is_wrong = summaries[product.name].has_offsets and not driver.has_exact_times
    fields = product.metadata_type.dataset_fields
    return {product.name: read_months(connection, driver, product.id, fields, in_documents=is_wrong)}
