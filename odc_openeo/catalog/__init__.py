"""The Open Data Cube index as a catalogue: products ↔ STAC Collections, datasets ↔ Items and scenes, search.

The only package that knows `datacube`. Everything is read from the index itself, so that what its command
line adds, changes, archives or restores shows at once; only extents are kept in a table of ours (see
`summaries`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cachetools import LRUCache

from odc_openeo.catalog import item_search
from odc_openeo.catalog.bands import Band, read_bands, resolve
from odc_openeo.catalog.columns import Source
from odc_openeo.catalog.cql2 import box, geometry, parse
from odc_openeo.catalog.density import months
from odc_openeo.catalog.index import IndexConnection
from odc_openeo.catalog.item_search import ItemQuery, SortKey
from odc_openeo.catalog.items import AssetFile, Place, Places, files, item, media_type
from odc_openeo.catalog.overrides import NOTHING, Override, OverridesError, read_overrides
from odc_openeo.catalog.scenes import File, Scene, nominal_time
from odc_openeo.catalog.search import Condition, Query, matching, search
from odc_openeo.catalog.specimen import specimen
from odc_openeo.catalog.stac import Product, collection, item_queryables, property_schemas, queryables
from odc_openeo.catalog.summaries import Summaries, Summary
from odc_openeo.catalog.times import parse_interval
from odc_openeo.config import Config
from odc_openeo.db import reachable
from odc_openeo.errors import CollectionNotFound, NotFound

__all__ = [
    "Band",
    "Catalog",
    "Condition",
    "File",
    "ItemQuery",
    "Items",
    "OverridesError",
    "Place",
    "Product",
    "Query",
    "Scene",
    "SortKey",
    "Summary",
    "box",
    "geometry",
    "matching",
    "media_type",
    "nominal_time",
    "parse",
    "parse_interval",
    "resolve",
]

MOST_SCENES = 10_000
MOST_SPECIMENS: Final = 1000


@dataclass(frozen=True)
class Items:
    """A page of STAC Items. ``token`` asks for the next page; ``matched`` is None where it is not known."""

    items: Sequence[dict[str, Any]]
    token: str | None
    matched: int | None


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
        self._read: tuple[object, object, dict[str, Source]] | None = None
        self._documents: tuple[object, str, list[dict[str, Any]]] | None = None

    def collections(self, base_url: str = "") -> list[dict[str, Any]]:
        """All products as STAC Collections, by name; links start with ``base_url``.

        They are kept until the index changes: leave them as they are.
        """
        sources = self._sources()
        with self._lock:
            known = self._documents
        if known is not None and known[0] is sources and known[1] == base_url:
            return known[2]
        made = [collection(s.product, s.summary, base_url, has_items=True) for s in sources.values()]
        with self._lock:
            self._documents = sources, base_url, made
        return made

    def collection(self, id_: str, base_url: str = "") -> dict[str, Any]:
        """One product as STAC Collection; CollectionNotFound if there is none of that name."""
        source = self._source(id_)
        return collection(source.product, source.summary, base_url, has_items=True)

    def queryables(self, id_: str, base_url: str = "") -> dict[str, Any]:
        """The JSON Schema of the properties that the collection can be filtered by."""
        source = self._source(id_)
        return queryables(source.product, source.summary, base_url, has_items=True)

    def item_queryables(self, base_url: str = "") -> dict[str, Any]:
        """The JSON Schema of the properties that items of any collection can be filtered by."""
        return item_queryables(((s.product, s.summary) for s in self._sources().values()), base_url)

    def product(self, id_: str) -> Product:
        """A product by name; CollectionNotFound if there is none, or the operator hides it."""
        return self._source(id_).product

    def search(self, id_: str, query: Query, limit: int = MOST_SCENES) -> list[Scene]:
        """The scenes of a collection that match, in order of time.

        Raises:
            CollectionNotFound: there is no such collection.
            PropertiesUnsupported: a condition on a property that the collection does not have.
            ProcessGraphComplexity: more than ``limit`` datasets.
        """
        source = self._source(id_)
        known = frozenset(property_schemas(source.product, source.summary))
        return search(self._index.datacube.index, source.product, known, query, limit)

    def items(self, query: ItemQuery, base_url: str, places: Places) -> Items:
        """A page of STAC Items; links start with ``base_url``, ``places`` says where clients read the files.

        Raises:
            CollectionNotFound: one of the collections does not exist.
            RequestInvalid: the filter, the order or the token can't be used.
            RequestTimeout: it takes longer than the operator allows.
        """
        page = self._page(query)
        return Items([item(found, base_url, places) for found in page.found], page.token, page.matched)

    def item(self, collection_id: str, item_id: str, base_url: str, places: Places) -> dict[str, Any]:
        """One STAC Item; NotFound or CollectionNotFound if there is none."""
        return item(self._found(collection_id, item_id), base_url, places)

    def files(self, collection_id: str, item_id: str) -> dict[str, AssetFile]:
        """The files of an item by the key of their asset; NotFound or CollectionNotFound if there is none."""
        return files(self._found(collection_id, item_id))

    def state(self) -> str:
        """A text that changes whenever the index does."""
        return str(self._index.marker()[0])

    def summary(self, id_: str) -> Summary:
        """What all datasets of a collection span together; CollectionNotFound if there is no such one."""
        return self._source(id_).summary

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

    def _found(self, collection_id: str, item_id: str) -> item_search.Found:
        page = self._page(ItemQuery(limit=1, collections=(collection_id,), ids=(item_id,)))
        if not page.found:
            raise NotFound(f"Collection '{collection_id}' has no item '{item_id}'.")
        return page.found[0]

    def _page(self, query: ItemQuery) -> item_search.ItemPage:
        sources = self._sources()
        for name in query.collections or ():
            if name not in sources:
                raise CollectionNotFound(identifier=name)
        asked = [s for name, s in sources.items() if query.collections is None or name in query.collections]
        with self._index.connect() as connection:
            return item_search.search_items(connection, asked, query, self.config.search_timeout_s)

    def _source(self, id_: str) -> Source:
        source = self._sources().get(id_)
        if source is None:
            raise CollectionNotFound(identifier=id_)
        return source

    def _sources(self) -> dict[str, Source]:
        """The products that the operator does not hide, by name; read anew when the index has changed."""
        summaries, overrides = self._summaries.current(), read_overrides(self.config.collection_overrides)
        with self._lock:
            known = self._read
        if known is not None and known[0] is summaries and known[1] is overrides:
            return known[2]
        with reachable():
            # All of them: Open Data Cube's own lookup by name is cached for ever.
            found = sorted(self._index.datacube.index.products.get_all(), key=lambda p: p.name)
        sources = {p.name: _source(p, overrides.get(p.name, NOTHING), summaries) for p in found}
        shown = {name: source for name, source in sources.items() if not source.product.operator.hidden}
        with self._lock:
            self._read = summaries, overrides, shown
        return shown


def _source(found: Any, operator: Override, summaries: Mapping[str, Summary]) -> Source:
    product = Product(
        name=found.name,
        definition=found.definition,
        bands=read_bands(found.definition, operator.common_names),
        operator=operator,
        search_fields=found.metadata_type.definition["dataset"].get("search_fields") or {},
    )
    fields = found.metadata_type.dataset_fields
    return Source(product, summaries.get(found.name, Summary(found.name)), found.id, fields)
