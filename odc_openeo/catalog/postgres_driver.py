"""The index driver ``postgres``: search fields are expressions over the documents, each with an index."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar, Final

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Function,
    and_,
    false,
    func,
    literal_column,
    or_,
    select,
    true,
)
from sqlalchemy.dialects import postgresql

from odc_openeo.catalog.index_driver import Fields, IndexDriver, SearchBox, make_time_range, no_times
from odc_openeo.catalog.odc_internals import DATASET, DATASET_LOCATION

MOST_FIELDS: Final = 10_000


class PostgresDriver(IndexDriver):
    """The schema ``agdc``, with a table of its own for locations, the newest of which counts."""

    name = "postgres"
    schema = "agdc"
    dataset = DATASET
    product_table = "dataset_type"
    product_column = "dataset_type_ref"
    has_exact_times = False
    location: ClassVar[ColumnElement[Any]] = (
        select(func.concat(DATASET_LOCATION.c.uri_scheme, ":", DATASET_LOCATION.c.uri_body))
        .where(DATASET_LOCATION.c.dataset_ref == DATASET.c.id, DATASET_LOCATION.c.archived.is_(None))
        .order_by(DATASET_LOCATION.c.added.desc(), DATASET_LOCATION.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )

    @property
    def rows(self) -> FromClause:
        """The table of datasets."""
        return DATASET

    def get_times(self, fields: Fields) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
        """Return first and last moment of a dataset, without the offset from UTC that its document has."""
        field = fields.get("time")
        if field is None:
            return no_times()
        return field.lower.alchemy_expression.element, field.greater.alchemy_expression.element

    def get_edges(self, name: str, fields: Fields) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
        """Return lowest and highest longitude or latitude of a dataset."""
        return fields[name].lower.alchemy_expression, fields[name].greater.alchemy_expression

    def overlaps_times(
        self, fields: Fields, start: datetime | None, end: datetime | None
    ) -> ColumnElement[bool]:
        """Return the condition that the interval of a dataset overlaps this one, ends included."""
        if "time" not in fields:
            return false()
        interval: Any = _EXPRESSIONS.write(fields["time"])
        overlaps: ColumnElement[bool] = interval.op("&&")(make_time_range(start, end))
        return overlaps

    def overlaps_boxes(self, fields: Fields, boxes: Sequence[SearchBox]) -> ColumnElement[bool]:
        """Return the condition that the bounding box of a dataset shares a point with one of these."""
        lon, lat = fields["lon"], fields["lat"]
        return or_(
            false(),
            *[and_(_overlaps_range(lat, *box.lat), _overlaps_range(lon, *box.lon)) for box in boxes],
        )

    def equals_string(self, field: Any, value: str) -> ColumnElement[bool]:
        """Return the condition that a search field has a value."""
        column: ColumnElement[Any] = field.alchemy_expression.element
        return column == value

    def is_between(self, field: Any, low: float | None, high: float | None) -> ColumnElement[bool]:
        """Return the condition that a search field is within bounds, both included."""
        column = field.alchemy_expression.element
        return and_(
            true(),
            *([] if low is None else [column >= math.nextafter(low, -math.inf)]),
            *([] if high is None else [column <= math.nextafter(high, math.inf)]),
        )


def _overlaps_range(field: Any, low: float, high: float) -> ColumnElement[bool]:
    limits: Any = Function("float8range", low, high, "[]", packagenames=("agdc",))
    overlaps: ColumnElement[bool] = _EXPRESSIONS.write(field).op("&&")(limits)
    return overlaps


class _FieldExpressions:
    """The expressions of search fields, written as SQL once.

    Open Data Cube makes an expression anew each time, of parts that keep SQLAlchemy from caching statements.
    """

    def __init__(self) -> None:
        # By identity, as Open Data Cube's fields have no hash; they are kept with their expressions.
        self._written: dict[int, tuple[Any, ColumnElement[Any]]] = {}

    def write(self, field: Any) -> ColumnElement[Any]:
        """Return the expression of a field."""
        known = self._written.get(id(field))
        if known is not None and known[0] is field:
            return known[1]
        element: Any = field.alchemy_expression.element
        dialect = postgresql.dialect(paramstyle="named")
        text = element.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
        expression: ColumnElement[Any] = literal_column(f"({text})", element.type)
        if len(self._written) >= MOST_FIELDS:
            self._written.clear()
        self._written[id(field)] = field, expression
        return expression


_EXPRESSIONS: Final = _FieldExpressions()
