"""The interface to an index driver of Open Data Cube for SQL: its tables and expressions.

Products and metadata types are read through the API of the index, which is the same for all drivers. Datasets
are searched with SQL: pages, counts and extents need more than the API offers. `postgres_driver` and
`postgis_driver` are the two implementations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Final

from sqlalchemy import ColumnElement, FromClause, TextClause, cast, func, null, text
from sqlalchemy.dialects.postgresql import TIMESTAMP, TSTZRANGE

from odc_openeo.catalog import search_index

TIME: Final = TIMESTAMP(timezone=True)

Fields = Mapping[str, Any]
"""Search fields of a metadata type by name, as Open Data Cube has them."""

LOOSE: Final = 1e-9
"""Degrees by which boxes in the index are widened, as they are rounded there."""


@dataclass(frozen=True)
class SearchBox:
    """Longitudes and latitudes in degrees; longitudes are counted as the index counts them."""

    west: float
    south: float
    east: float
    north: float

    @property
    def lon(self) -> tuple[float, float]:
        """First and last longitude, with a margin."""
        return self.west - LOOSE, self.east + LOOSE

    @property
    def lat(self) -> tuple[float, float]:
        """First and last latitude, with a margin."""
        return self.south - LOOSE, self.north + LOOSE


class IndexDriver(ABC):
    """Tables and expressions of one driver.

    Statements select from ``rows``: the table of datasets, joined with what the expressions refer to.
    """

    name: ClassVar[str]
    schema: ClassVar[str]
    dataset: ClassVar[Any]
    product_table: ClassVar[str]
    product_column: ClassVar[str]
    """The column of the datasets that has the number of their product."""
    has_exact_times: ClassVar[bool]
    """Whether the times in the index take account of the offset from UTC in the documents."""
    location: ClassVar[ColumnElement[Any]]
    """The URL that relative paths of a dataset's files start from, null if it has none."""

    @property
    @abstractmethod
    def rows(self) -> FromClause:
        """The table of datasets with all that the expressions of this driver refer to."""

    @abstractmethod
    def get_times(self, fields: Fields) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
        """Return first and last moment of a dataset, as the index has them; nulls if it has none."""

    @abstractmethod
    def get_edges(self, name: str, fields: Fields) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
        """Return lowest and highest value of the field ``lon`` or ``lat`` of a dataset."""

    @abstractmethod
    def overlaps_times(
        self, fields: Fields, start: datetime | None, end: datetime | None
    ) -> ColumnElement[bool]:
        """Return the condition that the interval of a dataset overlaps this one, ends included."""

    @abstractmethod
    def overlaps_boxes(self, fields: Fields, boxes: Sequence[SearchBox]) -> ColumnElement[bool]:
        """Return the condition that the bounding box of a dataset shares a point with one of these."""

    @abstractmethod
    def equals_string(self, field: Any, value: str) -> ColumnElement[bool]:
        """Return the condition that a search field of type ``string`` has a value."""

    @abstractmethod
    def is_between(self, field: Any, low: float | None, high: float | None) -> ColumnElement[bool]:
        """Return the condition that a numeric search field is at least ``low`` and at most ``high``."""

    @property
    def table(self) -> str:
        """The table of datasets, as SQL refers to it."""
        return f"{self.schema}.dataset"

    def is_of_product(self, number: int) -> TextClause:
        """Return the condition that a dataset is of a product."""
        # A literal number, because the partial indexes of the product have it in their condition.
        return text(f"{self.table}.{self.product_column} = {int(number)}")

    @property
    def marker(self) -> TextClause:
        """The statement that reads the state of the index.

        Triggers set ``updated`` when a row is changed (archived and restored as well). The counters of the
        statistics reveal forced deletions, and late commits of transactions older than others already seen.
        """
        state = "(SELECT (count(*), max(added), max(updated))::text FROM"
        counters = f"FROM pg_stat_all_tables WHERE relid = '{self.table}'::regclass)"
        return text(
            f"""
            SELECT clock_timestamp() AS clock,
              {state} {self.schema}.{self.product_table}) || {state} {self.schema}.metadata_type) AS products,
              (SELECT max(added) FROM {self.table})::text AS added,
              (SELECT max(updated) FROM {self.table})::text AS updated,
              (SELECT indisvalid FROM pg_index
                WHERE indexrelid = to_regclass('{self.schema}.{search_index.NAME}')) AS has_search_index,
              (SELECT n_tup_ins + n_tup_upd {counters} AS written,
              (SELECT n_tup_del {counters} AS deleted
            """
        )

    @property
    def changes(self) -> TextClause:
        """The statement that reads what changed in each product since the moment ``since``.

        It reads at most ``most`` datasets: as many mean that there may be more.
        """
        # Where the driver sets `updated` at once, a new row has the moment of its transaction twice.
        later = "updated >= :since AND updated > added"
        return text(
            f"""
            SELECT product, max(added)::text AS added, max(updated)::text AS updated, count(*) AS number,
              bool_or({later} AND archived IS NULL) AS changed_in_place,
              bool_or({later} AND archived IS NOT NULL) AS archived
            FROM (SELECT {self.product_column} AS product, added, updated, archived FROM {self.table}
              WHERE added >= :since OR updated >= :since LIMIT :most) AS changed
            GROUP BY product
            """
        )

    @property
    def counts(self) -> TextClause:
        """The statement that counts the active datasets of ``products``, each up to ``most``."""
        return text(
            f"""
            SELECT product, (SELECT count(*) FROM (SELECT 1 FROM {self.table}
              WHERE archived IS NULL AND {self.product_column} = product LIMIT :most) AS active) AS number
            FROM unnest(CAST(:products AS smallint[])) AS product
            """
        )

    @property
    def all_counts(self) -> TextClause:
        """The statement that counts the active datasets of ``products`` (null: of all), and those of
        them that were added before the moment ``since``."""
        return text(
            f"""
            SELECT {self.product_column} AS product, count(*) AS number,
              count(*) FILTER (WHERE added < :since) AS settled FROM {self.table}
            WHERE archived IS NULL
              AND (CAST(:products AS smallint[]) IS NULL OR {self.product_column} = ANY(:products))
            GROUP BY {self.product_column}
            """
        )

    @property
    def recent_counts(self) -> TextClause:
        """The statement that counts the active datasets of ``product`` that were added from ``horizon`` on,
        and those of them that were added before ``since``."""
        return text(
            f"""
            SELECT count(*) AS number, count(*) FILTER (WHERE added < :since) AS settled FROM {self.table}
            WHERE archived IS NULL AND {self.product_column} = :product AND added >= :horizon
            """
        )

    @property
    def samples(self) -> TextClause:
        """The statement that reads the document of an active dataset of each of ``products``."""
        return text(
            f"""
            SELECT product, (SELECT metadata FROM {self.table}
              WHERE archived IS NULL AND {self.product_column} = product LIMIT 1) AS metadata
            FROM unnest(CAST(:products AS smallint[])) AS product
            """
        )


def make_time_range(start: datetime | None, end: datetime | None) -> ColumnElement[Any]:
    """Make a range of times with both ends; None is open."""
    return func.tstzrange(cast(start, TIME), cast(end, TIME), "[]", type_=TSTZRANGE)


def no_times() -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """Return the times of datasets that the index has none of."""
    return cast(null(), TIME), cast(null(), TIME)
