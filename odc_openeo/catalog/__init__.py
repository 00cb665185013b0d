"""The Open Data Cube index as a catalogue: products ↔ STAC Collections, datasets ↔ scenes, search.

The only package that knows `datacube`. Everything is read from the index itself, so that what its command
line adds, changes, archives or restores shows at once; only extents are kept in a table of ours (see
`summaries`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Final

from cachetools import LRUCache

from odc_openeo.catalog.bands import Band, read_bands, resolve
from odc_openeo.catalog.density import months
from odc_openeo.catalog.index import IndexConnection
from odc_openeo.catalog.overrides import NOTHING, Override, OverridesError, read_overrides
from odc_openeo.catalog.scenes import File, Scene, nominal_time
from odc_openeo.catalog.search import Condition, Query, matching, search
from odc_openeo.catalog.specimen import specimen
from odc_openeo.catalog.stac import Product, collection, property_schemas, queryables
from odc_openeo.catalog.summaries import Summaries, Summary
from odc_openeo.config import Config
from odc_openeo.db import reachable
from odc_openeo.errors import CollectionNotFound

__all__ = [
    "Band",
    "Catalog",
    "Condition",
    "File",
    "OverridesError",
    "Product",
    "Query",
    "Scene",
    "Summary",
    "matching",
    "nominal_time",
    "resolve",
]

MOST_SCENES = 10_000
MOST_SPECIMENS: Final = 1000


class Catalog:
    """The collections of one Open Data Cube environment.

    Safe to share between threads, and to carry over a fork: connections are opened when first needed, in each
    process. Every question first asks the index, in one cheap statement, whether it has changed.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._index = IndexConnection(config)
        self._summaries = Summaries(config, self._index)
        self._specimens: LRUCache[tuple[str, str | None], Scene | None] = LRUCache(MOST_SPECIMENS)
        self._lock = threading.Lock()

    def collections(self, base_url: str = "") -> list[dict[str, Any]]:
        """All products as STAC Collections, by name; links start with ``base_url``."""
        summaries = self._summaries.current()
        with reachable():
            found = sorted(self._index.datacube.index.products.get_all(), key=lambda p: p.name)
        products = self._products(found)
        return [
            collection(product, summaries.get(product.name, Summary(product.name)), base_url)
            for product in products
        ]

    def collection(self, id_: str, base_url: str = "") -> dict[str, Any]:
        """One product as STAC Collection; CollectionNotFound if there is none of that name."""
        return collection(*self._described(id_), base_url)

    def queryables(self, id_: str, base_url: str = "") -> dict[str, Any]:
        """The JSON Schema of the properties that the collection can be filtered by."""
        return queryables(*self._described(id_), base_url)

    def product(self, id_: str) -> Product:
        """A product by name; CollectionNotFound if there is none, or the operator hides it."""
        with reachable():
            # By name among all: Open Data Cube's own lookup by name is cached for ever.
            found = [p for p in self._index.datacube.index.products.get_all() if p.name == id_]
        products = self._products(found)
        if not products:
            raise CollectionNotFound(identifier=id_)
        return products[0]

    def search(self, id_: str, query: Query, limit: int = MOST_SCENES) -> list[Scene]:
        """The scenes of a collection that match, in order of time.

        Raises:
            CollectionNotFound: there is no such collection.
            PropertiesUnsupported: a condition on a property that the collection does not have.
            ProcessGraphComplexity: more than ``limit`` datasets.
        """
        product, summary = self._described(id_)
        known = frozenset(property_schemas(product, summary))
        return search(self._index.datacube.index, product, known, query, limit)

    def summary(self, id_: str) -> Summary:
        """What all datasets of a collection span together; CollectionNotFound if there is no such one."""
        return self._described(id_)[1]

    def months(self, id_: str) -> Mapping[str, int]:
        """Datasets of a collection by month (``2022-06``), counted anew only when the collection changes."""
        return months(self.config, self._index.datacube.index, self.summary(id_))

    def specimen(self, id_: str) -> Scene | None:
        """A recent, clear scene that shows what the collection looks like; None if it has none."""
        summary = self.summary(id_)
        key = (id_, summary.last_change)
        with self._lock:
            if key in self._specimens:
                return self._specimens[key]
        found = specimen(lambda query, limit: self.search(id_, query, limit), summary.time[1])
        with self._lock:
            self._specimens[key] = found
        return found

    def close(self) -> None:
        """Close the connections of this process."""
        self._index.close()

    def _described(self, id_: str) -> tuple[Product, Summary]:
        summaries = self._summaries.current()
        return self.product(id_), summaries.get(id_, Summary(id_))

    def _products(self, found: list[Any]) -> list[Product]:
        overrides = read_overrides(self.config.collection_overrides)
        products = [_product(p, overrides) for p in found]
        return [p for p in products if not p.operator.hidden]


def _product(found: Any, overrides: Mapping[str, Override]) -> Product:
    definition = found.definition
    operator = overrides.get(found.name, NOTHING)
    return Product(
        name=found.name,
        definition=definition,
        bands=read_bands(definition, operator.common_names),
        operator=operator,
        search_fields=found.metadata_type.definition["dataset"].get("search_fields") or {},
    )
