"""The extents of a product's datasets, computed from their rows and documents in the index."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import Connection, RowMapping, func, literal_column, not_, select, text

from odc_openeo.catalog.eo_documents import as_eo3
from odc_openeo.catalog.footprints import find_outline
from odc_openeo.catalog.index_driver import Fields, IndexDriver
from odc_openeo.catalog.misplaced import FIRST_TIME, HAS_OFFSET, LAST_TIME, is_misplaced, may_be_misplaced
from odc_openeo.catalog.product_summary import INTERVALS, SETS, Interval, Summary
from odc_openeo.spatial.globe import Span

MOST_OUTLINES: Final = 1000
"""Different outlines of one product that are put together one by one."""

WORLD: Final = Span(-180.0, -90.0, 180.0, 90.0)

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


class ExtentReader:
    """Computes extents with one connection; ``since`` is what conditions refer to by that name."""

    def __init__(self, connection: Connection, driver: IndexDriver, since: datetime) -> None:
        self.connection = connection
        self.driver = driver
        self.since = since

    def compute_whole(self, product: Any) -> Summary:
        """Compute the extents of all active datasets of a product, with a sample."""
        return self.add_sample(product, self.aggregate_datasets(product, "archived IS NULL"))

    def shares_values(self, product: Any, taken: Summary) -> bool:
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

    def aggregate_datasets(self, product: Any, condition: str) -> Summary:
        """Compute the extents of the datasets of a product that meet a condition; `:since` in it is ours."""
        row = self._select_one(product, condition, self._list_columns(product.metadata_type.dataset_fields))
        return self._make_summary(product, condition, row)

    def aggregate_products(self, products: Sequence[Any]) -> dict[str, Summary]:
        """Compute the extents of all active datasets of products of one metadata type, with one statement."""
        number = self.driver.dataset.c[self.driver.product_column]
        condition = "archived IS NULL"
        rows = self.connection.execute(
            select(number.label("product"), *self._list_columns(products[0].metadata_type.dataset_fields))
            .select_from(self.driver.rows)
            .where(number.in_([product.id for product in products]), text(condition))
            .group_by(number)
        ).mappings()
        by_number = {row["product"]: row for row in rows}
        return {
            p.name: self._make_summary(p, condition, by_number[p.id]) for p in products if p.id in by_number
        }

    def _list_columns(self, fields: Fields) -> list[Any]:
        columns: list[Any] = [
            column.label(label)
            for name in ("lon", "lat", "time")
            if name in fields
            for label, column in self._list_edges(name, fields)
        ]
        columns += [literal_column(sql).label(name) for name, sql in NATIVE.items()]
        columns += [literal_column(f"array_agg(DISTINCT {sql})").label(name) for name, sql in VALUES.items()]
        return [*columns, literal_column(f"bool_or({HAS_OFFSET})").label("has_offsets")]

    def _make_summary(self, product: Any, condition: str, row: RowMapping) -> Summary:
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

    def add_sample(self, product: Any, summary: Summary) -> Summary:
        """Add pixel sizes and properties of one of the datasets."""
        return self.add_samples([product], {product.name: summary})[product.name]

    def add_samples(self, products: Sequence[Any], summaries: Mapping[str, Summary]) -> dict[str, Summary]:
        """Add pixel sizes and properties of one of its datasets to the summary of each product."""
        numbers = {"products": [product.id for product in products]}
        rows = self.connection.execute(self.driver.samples, numbers)
        documents = {row.product: row.metadata for row in rows if row.metadata is not None}
        sampled = dict(summaries)
        for product in products:
            if product.id in documents and product.name in sampled:
                document = as_eo3(documents[product.id], product.definition)
                sampled[product.name] = replace(
                    sampled[product.name], grids=_pixel_sizes(document), properties=_property_types(document)
                )
        return sampled


def _pixel_sizes(document: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    grids = document.get("grids") or {}
    sizes = {name: (abs(g["transform"][0]), abs(g["transform"][4])) for name, g in grids.items()}
    bands = document.get("measurements") or {}
    return {band: sizes[grid] for band, m in bands.items() if (grid := m.get("grid", "default")) in sizes}


def _property_types(document: Mapping[str, Any]) -> dict[str, str]:
    types = {bool: "boolean", int: "number", float: "number", str: "string"}
    properties = document.get("properties") or {}
    return {key: types[type(value)] for key, value in properties.items() if type(value) in types}
