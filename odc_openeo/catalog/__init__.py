"""The Open Data Cube index as a catalogue: products ↔ STAC Collections, datasets ↔ Items and scenes, search.

The only package that knows `datacube`. Everything is read from the index itself, so that what its command
line adds, changes, archives or restores shows at once; only extents are kept in a table of ours (see
`summaries`).
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from cachetools import LRUCache

from odc_openeo.catalog import item_search
from odc_openeo.catalog.access import ANYBODY, OPERATOR, Reader, list_claim_rules
from odc_openeo.catalog.bands import Band, ExtraDimension, map_aliases, resolve_bands
from odc_openeo.catalog.cql2 import parse_bbox, parse_filter, parse_geometry
from odc_openeo.catalog.item_search import ItemQuery, SortKey
from odc_openeo.catalog.items import AssetFile, Place, Places, find_media_type, get_asset_files, make_item
from odc_openeo.catalog.load_hints import LoadHint
from odc_openeo.catalog.monthly_counts import count_by_month
from odc_openeo.catalog.odc_index import IndexConnection
from odc_openeo.catalog.overrides import OverridesError, get_change_time, read_overrides
from odc_openeo.catalog.preview_scene import find_preview_scene
from odc_openeo.catalog.product_list import PinnedProducts, ProductCache
from odc_openeo.catalog.product_summary import Summary
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
from odc_openeo.catalog.times import parse_interval
from odc_openeo.config import Config
from odc_openeo.errors import CollectionNotFound, NotFound, OpenEOError
from odc_openeo.storage.buckets import read_bucket_rules
from odc_openeo.telemetry.log_records import record_event
from odc_openeo.users.claim_rules import ClaimRule

__all__ = [
    "ANYBODY",
    "OPERATOR",
    "Reader",
    "Band",
    "Catalog",
    "Condition",
    "File",
    "ItemQuery",
    "Items",
    "LoadHint",
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
MOST_BASE_URLS: Final = 4


@dataclass(frozen=True)
class Items:
    """A page of STAC Items. ``token`` requests the next one; ``matched`` is None if not counted."""

    items: Sequence[dict[str, Any]]
    token: str | None
    matched: int | None


class Catalog:
    """The collections of one Open Data Cube environment, by id or by an alias of the operator.

    Safe to share between threads, and to carry over a fork: connections are opened when first needed, in each
    process. Every method first checks, with one cheap statement, whether the index has changed; the view of a
    run does so once. Collections that the operator hides, or that the reader may not read, do not exist; by
    default nothing is restricted.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._reader = OPERATOR
        self._index = IndexConnection(config)
        self._product_cache = ProductCache(config, self._index)
        self._products: ProductCache | PinnedProducts = self._product_cache
        self._preview_scenes: LRUCache[tuple[str, str | None], Scene | None] = LRUCache(MOST_PREVIEW_SCENES)
        self._lock = threading.Lock()
        self._documents: LRUCache[str, tuple[object, dict[str, dict[str, Any]]]] = LRUCache(MOST_BASE_URLS)

    def for_reader(self, reader: Reader) -> Self:
        """Return this catalogue as a reader sees it; connections and caches are shared."""
        view = copy.copy(self)
        view._reader = reader
        return view

    def for_run(self, reader: Reader) -> Self:
        """Return this catalogue as the graph of a reader sees it: in one state, which is read once."""
        view = self.for_reader(reader)
        view._products = PinnedProducts(self._product_cache)
        return view

    def list_claim_rules(self) -> frozenset[ClaimRule]:
        """List the rules about claims that open collections; reads nothing but the operator's overrides."""
        overrides = read_overrides(self.config.collection_overrides)
        return list_claim_rules(override.access for override in overrides.values())

    def has_restricted_collections(self) -> bool:
        """Whether some collections are not open to everybody; reads nothing but the operator's overrides."""
        overrides = read_overrides(self.config.collection_overrides)
        return any(not ANYBODY.may_read(override.access) for override in overrides.values())

    def list_collections(self, base_url: str = "") -> list[dict[str, Any]]:
        """Return all products as STAC Collections, by name; links start with ``base_url``.

        They are cached until the index changes: do not modify them.
        """
        products = self._products.get_current()
        with self._lock:
            cached = self._documents.get(base_url)
        if cached is None or cached[0] is not products:
            documents = {name: _make_document(source, base_url) for name, source in products.sources.items()}
            cached = products, documents
            with self._lock:
                self._documents[base_url] = cached
        return [cached[1][name] for name in self._select_readable(products.sources)]

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
        scenes = search_scenes(self._index.connect_once, source, property_names, query, limit)
        rules = read_bucket_rules(self.config.buckets)
        return [scene.use_bucket_rules(rules) for scene in scenes]

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
        """Return a string that changes whenever the index or the operator's overrides do."""
        return f"{self._index.read_marker()[0]} {get_change_time(self.config.collection_overrides)}"

    def get_summary(self, id_: str) -> Summary:
        """Return the extent of all datasets of a collection; CollectionNotFound if there is none."""
        return self._get_source(id_).summary

    def count_by_month(self, id_: str) -> Mapping[str, int]:
        """Count the datasets of a collection by month (``2022-06``); cached until the collection changes."""
        return count_by_month(self.config, self._index.connect, self._get_source(id_))

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

    def refresh_summaries(
        self, report: Callable[[Summary], None] = lambda summary: None, *, anew: bool = False
    ) -> None:
        """Bring extents and counts of all collections up to date, however long it takes.

        Each summary that is made is reported; with ``anew``, all are.
        """
        self._products.refresh_summaries(report, anew=anew)

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
        source = self._products.get_current().find_source(id_)
        if source is None or not self._reader.may_read(source.product.operator.access):
            if source is not None:
                record_event("access_refused", collection=source.product.name)
            raise CollectionNotFound(identifier=id_)
        return source

    def _list_sources(self) -> dict[str, Source]:
        """List the products that the reader may read, by name."""
        return self._select_readable(self._products.get_current().sources)

    def _select_readable(self, sources: dict[str, Source]) -> dict[str, Source]:
        if self._reader.reads_all:
            return sources
        return {n: s for n, s in sources.items() if self._reader.may_read(s.product.operator.access)}

    def count_restricted(self) -> int:
        """Count the collections that not everybody may read."""
        sources = self._products.get_current().sources.values()
        return sum(not ANYBODY.may_read(source.product.operator.access) for source in sources)

    def list_override_problems(self) -> list[str]:
        """List the operator's overrides that have no effect, and why."""
        return self._products.get_current().problems


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
