"""Extents of the products, kept in our own table and brought up to date from what changed in the index.

Datasets of an unchanged product are not read; of a changed product, only the changed datasets are, unless
one of them was changed in place or may have shrunk the extent by its removal.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from sqlalchemy import Connection, Row, RowMapping, delete, func, literal_column, not_, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import InterfaceError, OperationalError

from odc_openeo import db
from odc_openeo.catalog.eo_documents import as_eo3
from odc_openeo.catalog.footprints import find_outline
from odc_openeo.catalog.index_driver import Fields, IndexDriver
from odc_openeo.catalog.misplaced import FIRST_TIME, HAS_OFFSET, LAST_TIME, is_misplaced, may_be_misplaced
from odc_openeo.catalog.odc_index import IndexConnection, Marker
from odc_openeo.config import Config
from odc_openeo.db import CollectionSummary
from odc_openeo.spatial.globe import Span, wrap_longitude

INDEX_STATE = ""
"""Name of the row that says up to which state of the index all other rows are complete. No product can
have this name."""

FAILED = "failed"
"""The state of a product whose summary could not be made; the next change makes it anew."""

SUMMARIES_LOCK = 0x6F646373
"""Advisory lock that lets one process at a time bring the summaries up to date; migrations have another."""

OVERLAP = timedelta(minutes=10)
"""How far to look back before the last update: times in the index are those of the start of a transaction,
which may commit later than others that started after it."""

FORM = 3
"""Changes whenever summaries are made in another way: those that are stored are then made anew."""

MOST_OUTLINES = 1000
"""Different outlines of one product that are put together one by one."""

WORLD = Span(-180.0, -90.0, 180.0, 90.0)

Interval = tuple[Any, Any]

_log = logging.getLogger(__name__)

# The corners of the grid in the dataset's own reference system, as Open Data Cube adds them to EO3 documents.
CORNER = "(metadata #>> '{{grid_spatial,projection,geo_ref_points,{}}}')::float"
NATIVE = {
    "x_min": f"min({CORNER.format('ll,x')})",
    "x_max": f"max({CORNER.format('ur,x')})",
    "y_min": f"min({CORNER.format('ll,y')})",
    "y_max": f"max({CORNER.format('ur,y')})",
}
VALUES = {
    "crs": "coalesce(metadata ->> 'crs', metadata #>> '{grid_spatial,projection,spatial_reference}')",
    "platforms": "coalesce(metadata #>> '{properties,eo:platform}', metadata #>> '{properties,platform}', "
    "metadata #>> '{platform,code}')",
    "instruments": "coalesce(metadata #>> '{properties,eo:instrument}', metadata #>> '{instrument,name}')",
}


@dataclass(frozen=True)
class Summary:
    """The extent of all active datasets of a product; intervals are (None, None) while there are none.

    ``lon``/``lat`` are degrees (``lon`` may go beyond 180 east of the antimeridian), ``time`` UTC;
    ``x``/``y`` are in units of the only reference system in ``crs``. ``grids`` holds the pixel size (x, y)
    by band and ``properties`` the names of metadata properties with a JSON type, both as in one of the
    datasets. ``misplaced`` and ``has_offsets`` say whether the index has any of the datasets in a wrong place
    or at a wrong time (see `misplaced`).
    """

    product: str
    lon: Interval = (None, None)
    lat: Interval = (None, None)
    time: Interval = (None, None)
    x: Interval = (None, None)
    y: Interval = (None, None)
    crs: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    instruments: tuple[str, ...] = ()
    grids: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)
    misplaced: bool = False
    has_offsets: bool = False
    count: int = 0
    last_change: str | None = None

    @property
    def bbox(self) -> tuple[float, float, float, float] | None:
        """West, south, east, north in degrees; west > east crosses the antimeridian."""
        if self.lon[0] is None or self.lat[0] is None:
            return None
        west, east = self.lon
        if east - west >= 360:
            return -180.0, self.lat[0], 180.0, self.lat[1]
        return wrap_longitude(west), self.lat[0], wrap_longitude(east), self.lat[1]

    def unite_with(self, other: Summary) -> Summary:
        """Return the extent of both together."""
        intervals = {name: _enclose_both(getattr(self, name), getattr(other, name)) for name in INTERVALS}
        values = {name: _unite_values(getattr(self, name), getattr(other, name)) for name in SETS}
        flags = {name: getattr(self, name) or getattr(other, name) for name in FLAGS}
        return replace(self, **cast(Any, intervals | values | flags))

    def touches_edge_of(self, whole: Summary) -> bool:
        """Return whether ``whole`` may shrink without this part of it."""
        return not all(
            _strictly_inside(getattr(self, name), getattr(whole, name)) for name in ("lon", "lat", "time")
        )


INTERVALS = ("lon", "lat", "time", "x", "y")
SETS = tuple(VALUES)
FLAGS = ("misplaced", "has_offsets")
DETAILS = ("lon", "x", "y", *SETS, "grids", "properties", *FLAGS)


class Summaries:
    """The summaries of all products, up to date with the index."""

    def __init__(self, config: Config, index: IndexConnection) -> None:
        self._config = config
        self._index = index
        self._lock = threading.Lock()
        self._seen: Marker | None = None
        self._current: dict[str, Summary] = {}

    def get_current(self) -> dict[str, Summary]:
        """Return the summaries by product name, updated if the index has changed since the last call."""
        marker, clock = self._index.read_marker()
        with self._lock:
            if marker != self._seen:
                self._current = self._refresh_stored(marker, clock)
                self._seen = marker
            return self._current

    def _refresh_stored(self, marker: Marker, clock: datetime) -> dict[str, Summary]:
        with db.session(self._config) as session:
            # One process updates the table; the others wait and read what it wrote.
            session.execute(select(func.pg_advisory_xact_lock(SUMMARIES_LOCK)))
            rows = {row.product: row for row in session.scalars(select(CollectionSummary))}
            state = rows.pop(INDEX_STATE, None)
            if state is not None and state.details.get("form") != FORM:
                state, rows = None, {}
            stored = {name: _from_row(row) for name, row in rows.items()}
            if state is not None and state.last_change == str(marker):
                return stored
            with self._index.connect() as connection:
                update = _Update(
                    connection,
                    self._index.driver,
                    self._list_products(),
                    stored,
                    _State.from_row(state, marker),
                )
                changed = update.list_changed()
            if changed:
                _upsert_rows(session, [_to_row(s) for s in changed.values()])
            gone = stored.keys() - update.products.keys()
            if gone:
                session.execute(delete(CollectionSummary).where(CollectionSummary.product.in_(gone)))
            _upsert_rows(session, [_state_row(marker, clock)])
            return {name: s for name, s in (stored | changed).items() if name not in gone}

    def _list_products(self) -> dict[str, Any]:
        return {product.name: product for product in self._index.datacube.index.products.get_all()}


@dataclass(frozen=True)
class _State:
    """Up to when the stored summaries are complete, and whether datasets were deleted since."""

    since: datetime
    deleted: bool

    @staticmethod
    def from_row(row: CollectionSummary | None, marker: Marker) -> _State:
        if row is None:
            return _State(datetime(1900, 1, 1, tzinfo=UTC), True)
        clock = datetime.fromisoformat(row.details["clock"])
        return _State(clock - OVERLAP, row.details["deleted"] != marker.deleted)


class _Update:
    """One pass over the changes since the stored state."""

    def __init__(
        self,
        connection: Connection,
        driver: IndexDriver,
        products: Mapping[str, Any],
        stored: Mapping[str, Summary],
        state: _State,
    ) -> None:
        self.connection = connection
        self.driver = driver
        self.products = products
        self.stored = stored
        self.state = state
        self.since = state.since

    def list_changed(self) -> dict[str, Summary]:
        """Return the new summaries of the products that need one."""
        windows = {
            row.product: row for row in self.connection.execute(self.driver.changes, {"since": self.since})
        }
        # If no changed row explains the new state, something was deleted, or committed very late.
        everything = self.state.deleted or not windows
        suspects = {
            product.id: product
            for product in self.products.values()
            if everything or product.id in windows or product.name not in self.stored
        }
        counts = dict.fromkeys(suspects, 0)
        numbers = self.connection.execute(self.driver.counts, {"products": list(suspects)})
        counts.update({row.product: row.number for row in numbers})
        summaries = (self._try_update(p, windows.get(id_), counts[id_]) for id_, p in suspects.items())
        return {s.product: s for s in summaries if s is not self.stored.get(s.product)}

    def _try_update(self, product: Any, window: Row[Any] | None, count: int) -> Summary:
        """Update the summary of a product; without extents if that fails, so that others are not affected."""
        before = self.stored.get(product.name)
        added, updated = (window.added, window.updated) if window is not None else (None, None)
        change = f"{added} {updated} {count}"
        if before is not None and (
            before.last_change == change or (window is None and before.count == count)
        ):
            return before
        try:
            with self.connection.begin_nested():
                return replace(
                    self._update_summary(product, window, before, count), count=count, last_change=change
                )
        except (OperationalError, InterfaceError):
            raise
        except Exception:  # documents are those of others, and may be damaged in any way
            _log.exception("the extents of product %s cannot be found", product.name)
            return Summary(product.name, count=count, last_change=f"{FAILED} {change}")

    def _update_summary(
        self, product: Any, window: Row[Any] | None, before: Summary | None, count: int
    ) -> Summary:
        if before is not None and window is not None and not self._needs_all(product, window, before, count):
            new = self._aggregate_datasets(product, "archived IS NULL AND added >= :since")
            sampled = before if before.grids else self._add_sample(product, before)
            return sampled.unite_with(new)
        whole = self._aggregate_datasets(product, "archived IS NULL") if count else Summary(product.name)
        return self._add_sample(product, whole)

    def _needs_all(self, product: Any, window: Row[Any], before: Summary, count: int) -> bool:
        if window.changed_in_place or not before.count or str(before.last_change).startswith(FAILED):
            return True
        if not window.archived:
            return count < before.count
        taken = self._aggregate_datasets(product, "archived IS NOT NULL AND updated >= :since")
        return taken.touches_edge_of(before) or not self._still_there(product, taken)

    def _still_there(self, product: Any, taken: Summary) -> bool:
        """Return whether other datasets share the reference systems, platforms … of the archived ones."""
        return all(
            self.connection.execute(
                select(literal_column("1"))
                .select_from(self.driver.dataset)
                .where(self.driver.is_of_product(product.id), text("archived IS NULL"))
                .where(literal_column(VALUES[name]) == value)
                .limit(1)
            ).first()
            for name in SETS
            for value in getattr(taken, name)
        )

    def _aggregate_datasets(self, product: Any, condition: str) -> Summary:
        fields = product.metadata_type.dataset_fields
        columns: list[Any] = [
            column.label(label)
            for name in ("lon", "lat", "time")
            if name in fields
            for label, column in self._list_edges(name, fields)
        ]
        columns += [literal_column(sql).label(name) for name, sql in NATIVE.items()]
        columns += [literal_column(f"array_agg(DISTINCT {sql})").label(name) for name, sql in VALUES.items()]
        columns.append(literal_column(f"bool_or({HAS_OFFSET})").label("has_offsets"))
        row = self._select_one(product, condition, columns)
        intervals = {name: (row.get(f"{name}_min"), row.get(f"{name}_max")) for name in INTERVALS}
        values = {name: tuple(sorted(v for v in row[name] or () if v)) for name in SETS}
        summary = Summary(product.name, has_offsets=bool(row["has_offsets"]), **cast(Any, intervals | values))
        if summary.has_offsets and not self.driver.has_exact_times:
            summary = replace(summary, time=self._read_instants(product, condition))
        return self._place(product, condition, summary)

    def _select_one(self, product: Any, condition: str, columns: Iterable[Any]) -> RowMapping:
        rows = self.connection.execute(
            select(*columns)
            .select_from(self.driver.rows)
            .where(self.driver.is_of_product(product.id), text(condition)),
            {"since": self.since},
        )
        return rows.mappings().one()

    def _list_edges(self, name: str, fields: Fields) -> list[tuple[str, Any]]:
        low, high = self.driver.get_times(fields) if name == "time" else self.driver.get_edges(name, fields)
        return [(f"{name}_min", func.min(low)), (f"{name}_max", func.max(high))]

    def _read_instants(self, product: Any, condition: str) -> Interval:
        columns: Any = (literal_column(f"min({FIRST_TIME})"), literal_column(f"max({LAST_TIME})"))
        row = self._select_one(product, condition, [c.label(n) for c, n in zip(columns, "ab", strict=True)])
        return row["a"], row["b"]

    def _place(self, product: Any, condition: str, summary: Summary) -> Summary:
        """The summary with the place of datasets whose longitudes and latitudes in the index are wrong."""
        is_finite = all(math.isfinite(edge) for edge in (*summary.lon, *summary.lat) if edge is not None)
        if is_finite and None not in summary.lon and not any(map(may_be_misplaced, summary.crs)):
            return summary
        wrong = is_misplaced(summary.crs)
        fields = product.metadata_type.dataset_fields
        columns: list[Any] = [
            column.filter(not_(wrong)).label(column_name)
            for name in ("lon", "lat")
            if name in fields
            for column_name, column in self._list_edges(name, fields)
        ]
        columns.append(func.count().filter(wrong).label("misplaced"))
        row = self._select_one(product, condition, columns)
        placed = replace(
            summary,
            lon=(row.get("lon_min"), row.get("lon_max")),
            lat=(row.get("lat_min"), row.get("lat_max")),
            misplaced=bool(row["misplaced"]),
        )
        return (
            placed.unite_with(self._locate_misplaced(product, condition, wrong))
            if placed.misplaced
            else placed
        )

    def _locate_misplaced(self, product: Any, condition: str, wrong: Any) -> Summary:
        """The place of these datasets by their outlines; the world if they have none, or too many."""
        parts: list[Any] = [
            literal_column(f"metadata -> '{name}'").label(name) for name in ("geometry", "grids", "crs")
        ]
        rows = self.connection.execute(
            select(*parts)
            .select_from(self.driver.dataset)
            .where(self.driver.is_of_product(product.id), text(condition), wrong)
            .distinct()
            .limit(MOST_OUTLINES + 1),
            {"since": self.since},
        ).mappings()
        documents = [dict(row) for row in rows]
        outlines = [outline for d in documents if (outline := find_outline(d)) is not None]
        span = Span.around(outlines) if len(outlines) == len(documents) <= MOST_OUTLINES else WORLD
        span = span or WORLD
        return Summary(product.name, lon=(span.west, span.east), lat=(span.south, span.north), misplaced=True)

    def _add_sample(self, product: Any, summary: Summary) -> Summary:
        document = self.connection.execute(self.driver.sample, {"product": product.id}).scalar_one_or_none()
        if document is None:
            return summary
        document = as_eo3(document, product.definition)
        return replace(summary, grids=_pixel_sizes(document), properties=_property_types(document))


def _pixel_sizes(document: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    grids = document.get("grids") or {}
    sizes = {name: (abs(g["transform"][0]), abs(g["transform"][4])) for name, g in grids.items()}
    bands = document.get("measurements") or {}
    return {band: sizes[grid] for band, m in bands.items() if (grid := m.get("grid", "default")) in sizes}


def _property_types(document: Mapping[str, Any]) -> dict[str, str]:
    types = {bool: "boolean", int: "number", float: "number", str: "string"}
    properties = document.get("properties") or {}
    return {key: types[type(value)] for key, value in properties.items() if type(value) in types}


def _enclose_both(one: Interval, other: Interval) -> Interval:
    lows = [v for v in (one[0], other[0]) if v is not None]
    highs = [v for v in (one[1], other[1]) if v is not None]
    return (min(lows, default=None), max(highs, default=None))


def _unite_values(one: Iterable[str], other: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({*one, *other}))


def _strictly_inside(part: Interval, whole: Interval) -> bool:
    if part[0] is None or whole[0] is None:
        return part[0] is None
    return bool(whole[0] < part[0] and part[1] < whole[1])


def _from_row(row: CollectionSummary) -> Summary:
    details: dict[str, Any] = {
        key: value if isinstance(value, dict | bool) else tuple(value)
        for key, value in row.details.items()
        if key in DETAILS
    }
    grids = {band: tuple(size) for band, size in details.pop("grids", {}).items()}
    return Summary(
        row.product,
        **details,
        grids=grids,
        lat=(row.south, row.north),
        time=(row.start, row.end),
        count=row.count,
        last_change=row.last_change,
    )


def _to_row(summary: Summary) -> dict[str, Any]:
    summary = _drop_infinite(summary)
    west, _, east, _ = summary.bbox or (None, None, None, None)
    return {
        "product": summary.product,
        "west": west,
        "south": summary.lat[0],
        "east": east,
        "north": summary.lat[1],
        "start": summary.time[0],
        "end": summary.time[1],
        "count": summary.count,
        "last_change": summary.last_change,
        "details": {name: getattr(summary, name) for name in DETAILS},
        "updated": db.now(),
    }


def _drop_infinite(summary: Summary) -> Summary:
    """The summary without intervals that are not finite."""

    def is_finite(values: Iterable[Any]) -> bool:
        return all(math.isfinite(v) for v in values if isinstance(v, float))

    unknown = {n: (None, None) for n in INTERVALS if not is_finite(getattr(summary, n))}
    grids = {band: sizes for band, sizes in summary.grids.items() if is_finite(sizes)}
    return replace(summary, grids=grids, **cast(Any, unknown))


def _state_row(marker: Marker, clock: datetime) -> dict[str, Any]:
    empty = _to_row(Summary(INDEX_STATE, last_change=str(marker)))
    return {**empty, "details": {"clock": clock.isoformat(), "deleted": marker.deleted, "form": FORM}}


def _upsert_rows(session: Any, rows: list[dict[str, Any]]) -> None:
    statement = insert(CollectionSummary)
    changes = {key: statement.excluded[key] for key in rows[0] if key != "product"}
    session.execute(statement.on_conflict_do_update(index_elements=["product"], set_=changes), rows)
