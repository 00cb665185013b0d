"""An index of the database for searches, which operators may add where the index driver is ``postgis``.

Open Data Cube keeps the search fields of all products in one table for each type, without the product: to
find those of one product at a place or time, PostgreSQL reads what all products have there. This index has
product, interval and box of each active dataset, read from its document. With the driver ``postgres`` each
product has such indexes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from odc_openeo.catalog.times import shift_moment

NAME: Final = "odc_openeo_search"
INTERVAL: Final = "odc.odc_openeo_interval(odc.dataset.metadata)"
BOX: Final = "odc.odc_openeo_box(odc.dataset.metadata)"
PRODUCT: Final = "int4range(odc.dataset.product_ref, odc.dataset.product_ref, '[]')"
"""A range has an operator class of its own for such an index, a number has it only by an extension."""

SLACK: Final = timedelta(seconds=1)
"""PostgreSQL rounds times with more digits than microseconds, Python cuts them."""

MANY: Final = 100_000
"""Datasets from which on searches without the index are noticeably slower."""

STANDARD_OFFSETS: Final = {
    "lat": (["extent", "lat", "begin"], ["extent", "lat", "end"]),
    "lon": (["extent", "lon", "begin"], ["extent", "lon", "end"]),
    "time": (["properties", "dtr:start_datetime"], ["properties", "dtr:end_datetime"]),
}
"""Where the documents have lowest and highest value of the search fields, first of all places."""

_MOMENT: Final = (
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\\.[0-9]+)?)?(Z|[+-][0-9:]{2,6})?)?$"
)


def _read_moment(name: str, unknown: str) -> str:
    value = f"($1 #>> '{{properties,{name}}}')"
    return (
        f"CASE WHEN {value} ~ '{_MOMENT}' THEN {value}::timestamptz WHEN {value} <> '' THEN '{unknown}' END"
    )


def _read_number(axis: str, end: str) -> str:
    path, unknown = f"'{{extent,{axis},{end}}}'", "-infinity" if end == "begin" else "infinity"
    is_number = f"jsonb_typeof($1 #> {path}) = 'number'"
    return f"CASE WHEN {is_number} THEN ($1 #>> {path})::float8 WHEN $1 #>> {path} <> '' THEN '{unknown}' END"


def _make_function(name: str, type_: str, body: str) -> str:
    # The time zone makes them immutable: times without an offset are UTC. What is no time or number as
    # expected has no limit, so that the dataset is neither refused nor missed.
    return (
        f"CREATE OR REPLACE FUNCTION odc.{name}(jsonb) RETURNS {type_} LANGUAGE sql IMMUTABLE PARALLEL SAFE "
        f"SET timezone = 'UTC' AS $body$ SELECT {body} $body$; GRANT EXECUTE ON FUNCTION odc.{name} TO PUBLIC"
    )


FUNCTIONS: Final = (
    _make_function(
        "odc_openeo_interval",
        "tstzrange",
        f"tstzrange(least({_read_moment('dtr:start_datetime', '-infinity')}, "
        f"{_read_moment('datetime', '-infinity')}), "
        f"greatest({_read_moment('dtr:end_datetime', 'infinity')}, "
        f"{_read_moment('datetime', 'infinity')}), '[]')",
    ),
    _make_function(
        "odc_openeo_box",
        "box",
        f"box(point({_read_number('lon', 'end')}, {_read_number('lat', 'end')}), "
        f"point({_read_number('lon', 'begin')}, {_read_number('lat', 'begin')}))",
    ),
)
CREATE: Final = (
    f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {NAME} ON odc.dataset USING gist "
    "(int4range(product_ref, product_ref, '[]'), odc.odc_openeo_interval(metadata), "
    "odc.odc_openeo_box(metadata)) WHERE archived IS NULL"
)


def is_of_product(number: int) -> str:
    """Write the condition that a dataset is of a product, as the index has it."""
    return f"{PRODUCT} && int4range({int(number)}, {int(number)}, '[]')"


def overlaps_interval(start: datetime | None, end: datetime | None) -> str:
    """Write a condition that holds for all datasets whose interval overlaps this one, ends included."""
    bounds = [
        "NULL" if moment is None else f"'{moment.isoformat()}'::timestamptz"
        for moment in (start and shift_moment(start, -SLACK), end and shift_moment(end, SLACK))
    ]
    return f"{INTERVAL} && tstzrange({bounds[0]}, {bounds[1]}, '[]')"


def overlaps_box(longitudes: Sequence[float], latitudes: Sequence[float]) -> str:
    """Write a condition that holds for all datasets whose box shares a point with this one."""
    (west, east), (south, north) = longitudes, latitudes
    corners = [f"point('{x!r}'::float8, '{y!r}'::float8)" for x, y in ((east, north), (west, south))]
    return f"{BOX} && box({', '.join(corners)})"


class TuningError(RuntimeError):
    """The index cannot be made; the message is one line that says why and what to do."""


def create_index(engine: Engine) -> None:
    """Create the index and its functions while others use the database; replace one that is unusable.

    Raises:
        TuningError: it cannot be made.
    """
    with _open_alone(engine) as connection:
        for statement in FUNCTIONS:
            connection.execute(text(statement))
        if has_index(connection) is False:
            connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS odc.{NAME}"))
        connection.execute(text(CREATE))
        connection.execute(text("ANALYZE odc.dataset"))


def drop_index(engine: Engine) -> None:
    """Drop the index and its functions; TuningError if that is not possible."""
    with _open_alone(engine) as connection:
        connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS odc.{NAME}"))
        for name in ("interval", "box"):
            connection.execute(text(f"DROP FUNCTION IF EXISTS odc.odc_openeo_{name}(jsonb)"))


@contextmanager
def _open_alone(engine: Engine) -> Iterator[Connection]:
    """Open a connection without transactions, as PostgreSQL demands for what others do not wait for."""
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            yield connection
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise TuningError(
            f"PostgreSQL refuses: {reason}. Run the command as the owner of the index of Open Data Cube, for "
            "example with ODC_DEFAULT_DB_URL"
        ) from error


def has_index(connection: Connection) -> bool | None:
    """Return whether the index is there and usable; None: it is not there."""
    query = f"SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('odc.{NAME}')"
    found: bool | None = connection.execute(text(query)).scalar()
    return found


def count_roughly(connection: Connection) -> int:
    """Return about how many datasets the index of Open Data Cube has, from the statistics of PostgreSQL."""
    query = "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass('odc.dataset')"
    return max(int(connection.execute(text(query)).scalar() or 0), 0)
