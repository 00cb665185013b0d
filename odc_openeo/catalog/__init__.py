"""The Open Data Cube index as a catalogue: products ↔ STAC Collections, datasets ↔ Items and scenes, search.

The only package that knows `datacube`. Everything is read from the index itself, so that what its command
line adds, changes, archives or restores shows at once; only extents are kept in a table of ours (see
`summaries`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cachetools import LRUCache

from odc_openeo.catalog import item_search
from odc_openeo.catalog.aliases import find_override_problems, map_collection_aliases
from odc_openeo.catalog.bands import Band, ExtraDimension, map_aliases, read_bands, resolve_bands
from odc_openeo.catalog.cql2 import parse_bbox, parse_filter, parse_geometry
from odc_openeo.catalog.item_search import ItemQuery, SortKey
from odc_openeo.catalog.items import AssetFile, Place, Places, find_media_type, get_asset_files, make_item
from odc_openeo.catalog.monthly_counts import count_by_month
from odc_openeo.catalog.odc_index import IndexConnection
from odc_openeo.catalog.overrides import NOTHING, Override, OverridesError, read_overrides
from odc_openeo.catalog.preview_scene import find_preview_scene
from odc_openeo.catalog.scene_search import Condition, Query, filter_scenes, search_scenes
from odc_openeo.catalog.scenes import File, Scene, find_interval, get_nominal_time
from odc_openeo.catalog.search_columns import Source
from odc_openeo.catalog.stac_documents import (
    Product,
    make_collection,
    make_item_queryables,
    make_property_schemas,
    make_queryables,
)
from odc_openeo.catalog.summaries import Summaries, Summary
from odc_openeo.catalog.times import parse_interval
from odc_openeo.config import Config
from odc_openeo.db import as_infrastructure_busy
from odc_openeo.errors import CollectionNotFound, NotFound, OpenEOError

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
    "filter_scenes",
    "find_interval",
    "find_media_type",
    "get_nominal_time",
    "map_aliases",
    "parse_bbox",
    "parse_filter",
    "parse_geometry",
    "parse_interval",
    "read_overrides",
    "ExtraDimension",
    "resolve_bands",
]

log = logging.getLogger(__name__)

MOST_SCENES = 10_000
MOST_PREVIEW_SCENES: Final = 1000


@dataclass(frozen=True)
class Items:
    """A page of STAC Items. ``token`` requests the next one; ``matched`` is None if not counted."""

    items: Sequence[dict[str, Any]]
    token: str | None
    matched: int | None


class Catalog:
    """The collections of one Open Data Cube environment, by id or by an alias of the operator.

    Safe to share between threads, and to carry over a fork: connections are opened when first needed, in each
    process. Every method first checks, with one cheap statement, whether the index has changed.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._index = IndexConnection(config)
        self._summaries = Summaries(config, self._index)
        self._preview_scenes: LRUCache[tuple[str, str | None], Scene | None] = LRUCache(MOST_PREVIEW_SCENES)
        self._lock = threading.Lock()
        self._read: tuple[object, object, dict[str, Source]] | None = None
        self._problems: list[str] = []
        self._aliases: dict[str, str] = {}
        self._documents: tuple[object, str, list[dict[str, Any]]] | None = None

    def list_collections(self, base_url: str = "") -> list[dict[str, Any]]:
        """Return all products as STAC Collections, by name; links start with ``base_url``.

        They are cached until the index changes: do not modify them.
        """
        sources = self._list_sources()
        with self._lock:
            cached = self._documents
        if cached is not None and cached[0] is sources and cached[1] == base_url:
            return cached[2]
        documents = [_make_document(source, base_url) for source in sources.values()]
        with self._lock:
            self._documents = sources, base_url, documents
        return documents

    def get_collection(self, id_: str, base_url: str = "") -> dict[str, Any]:
        """Return a product as STAC Collection; CollectionNotFound if there is none of that name."""
        return _make_document(self._get_source(id_), base_url)

    def get_queryables(self, id_: str, base_url: str = "") -> dict[str, Any]:
        """Return the JSON Schema of the properties that the collection can be filtered by."""
        source = self._get_source(id_)
        return make_queryables(source.product, source.summary, base_url, has_items=True)

    def get_item_queryables(self, base_url: str = "") -> dict[str, Any]:
        """Return the JSON Schema of the properties that items of any collection can be filtered by."""
        return make_item_queryables(((s.product, s.summary) for s in self._list_sources().values()), base_url)

    def get_product(self, id_: str) -> Product:
        """Return a product by name; CollectionNotFound if there is none, or if the operator hides it."""
        return self._get_source(id_).product

    def search_scenes(self, id_: str, query: Query, limit: int = MOST_SCENES) -> list[Scene]:
        """Search the scenes of a collection, in order of time.

        Raises:
            CollectionNotFound: there is no such collection.
            PropertiesUnsupported: a condition on a property that the collection does not have.
            ProcessGraphComplexity: more than ``limit`` datasets.
        """
        source = self._get_source(id_)
        property_names = frozenset(make_property_schemas(source.product, source.summary))
        index = self._index
        return search_scenes(index.datacube.index, index.connect, source, property_names, query, limit)

    def search_items(self, query: ItemQuery, base_url: str, places: Places) -> Items:
        """Search a page of STAC Items; links start with ``base_url``, ``places`` locates files for clients.

        Raises:
            CollectionNotFound: one of the collections does not exist.
            RequestInvalid: the filter, the order or the token is not valid.
            RequestTimeout: the search takes longer than the operator allows.
        """
        page = self._search_page(query)
        items = [_try_make_item(hit, base_url, places) for hit in page.hits]
        return Items([item for item in items if item is not None], page.token, page.matched)

    def get_item(self, collection_id: str, item_id: str, base_url: str, places: Places) -> dict[str, Any]:
        """Return a STAC Item; NotFound or CollectionNotFound if there is none."""
        return make_item(self._get_hit(collection_id, item_id), base_url, places)

    def get_item_files(self, collection_id: str, item_id: str) -> dict[str, AssetFile]:
        """Return the files of an item by asset key; NotFound or CollectionNotFound if there is none."""
        return get_asset_files(self._get_hit(collection_id, item_id))

    def get_state(self) -> str:
        """Return a string that changes whenever the index does."""
        return str(self._index.read_marker()[0])

    def get_summary(self, id_: str) -> Summary:
        """Return the extent of all datasets of a collection; CollectionNotFound if there is none."""
        return self._get_source(id_).summary

    def count_by_month(self, id_: str) -> Mapping[str, int]:
        """Count the datasets of a collection by month (``2022-06``); cached until the collection changes."""
        return count_by_month(self.config, self._index.datacube.index, self.get_summary(id_))

    def find_preview_scene(self, id_: str) -> Scene | None:
        """Find a recent, clear scene to show as a preview of the collection; None if it has no scenes."""
        summary = self.get_summary(id_)
        key = (id_, summary.last_change)
        with self._lock:
            if key in self._preview_scenes:
                return self._preview_scenes[key]
        scene = find_preview_scene(
            lambda query, limit: self.search_scenes(id_, query, limit), summary.time[1]
        )
        with self._lock:
            self._preview_scenes[key] = scene
        return scene

    def close(self) -> None:
        """Close the connections of this process."""
        self._index.close()

    def _get_hit(self, collection_id: str, item_id: str) -> item_search.SearchHit:
        page = self._search_page(ItemQuery(limit=1, collections=(collection_id,), ids=(item_id,)))
        if not page.hits:
            raise NotFound(f"Collection '{collection_id}' has no item '{item_id}'.")
        return page.hits[0]

    def _search_page(self, query: ItemQuery) -> item_search.ItemPage:
        sources = self._list_sources()
        ids = sources if query.collections is None else query.collections
        names = {self._get_source(id_).product.name for id_ in ids}
        requested = [source for name, source in sources.items() if name in names]
        with self._index.connect() as connection:
            return item_search.search_items(connection, requested, query, self.config.search_timeout_s)

    def _get_source(self, id_: str) -> Source:
        sources = self._list_sources()
        source = sources.get(id_) or sources.get(self._aliases.get(id_, id_))
        if source is None:
            raise CollectionNotFound(identifier=id_)
        return source

    def _list_sources(self) -> dict[str, Source]:
        """Return the products that are not hidden, by name; read again when the index has changed."""
        summaries, overrides = self._summaries.get_current(), read_overrides(self.config.collection_overrides)
        with self._lock:
            cached = self._read
        if cached is not None and cached[0] is summaries and cached[1] is overrides:
            return cached[2]
        with as_infrastructure_busy():
            # Get all: Open Data Cube caches its own lookup by name forever.
            products = sorted(self._index.datacube.index.products.get_all(), key=lambda p: p.name)
        sources = {p.name: _make_source(p, overrides.get(p.name, NOTHING), summaries) for p in products}
        visible = {name: source for name, source in sources.items() if not source.product.operator.hidden}
        problems = find_override_problems([s.product for s in sources.values()], overrides)
        with self._lock:
            self._read = summaries, overrides, visible
            self._aliases = map_collection_aliases(s.product for s in visible.values())
            new_problems, self._problems = set(problems) - set(self._problems), problems
        for problem in sorted(new_problems):
            log.warning("collection overrides: %s", problem)
        return visible

    def list_override_problems(self) -> list[str]:
        """List the operator's overrides that have no effect, and why."""
        self._list_sources()
        return self._problems


def _make_document(source: Source, base_url: str) -> dict[str, Any]:
    """Make a STAC Collection, without its extents if these cannot be described."""
    product, summary = source.product, source.summary
    try:
        return make_collection(product, summary, base_url, has_items=True)
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError):
        log.exception("the extents of collection %s cannot be described", product.name)
        return make_collection(product, Summary(product.name), base_url, has_items=True)


def _try_make_item(hit: item_search.SearchHit, base_url: str, places: Places) -> dict[str, Any] | None:
    """Make the STAC Item of a dataset; None if its document is damaged: a search has the others."""
    try:
        return make_item(hit, base_url, places)
    except (OpenEOError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError):
        log.exception("dataset %s cannot be described as STAC Item", hit.row.id)
        return None


def _make_source(odc_product: Any, operator: Override, summaries: Mapping[str, Summary]) -> Source:
    product = Product(
        name=odc_product.name,
        definition=odc_product.definition,
        bands=read_bands(odc_product.definition, operator.common_names, operator.band_aliases),
        operator=operator,
        search_fields=odc_product.metadata_type.definition["dataset"].get("search_fields") or {},
    )
    fields = odc_product.metadata_type.dataset_fields
    return Source(product, summaries.get(odc_product.name, Summary(odc_product.name)), odc_product.id, fields)
