"""The products of the index with the operator's overrides, kept until one of them changes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from odc_openeo.catalog.aliases import find_override_problems, map_collection_aliases
from odc_openeo.catalog.bands import read_bands
from odc_openeo.catalog.load_hints import find_load_hint
from odc_openeo.catalog.odc_index import IndexConnection
from odc_openeo.catalog.overrides import NOTHING, Override, read_overrides
from odc_openeo.catalog.product_summary import Summary
from odc_openeo.catalog.search_columns import Source
from odc_openeo.catalog.stac_documents import Product
from odc_openeo.catalog.summaries import Summaries
from odc_openeo.config import Config
from odc_openeo.db import as_infrastructure_busy

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProductList:
    """The products that are not hidden, by name; overrides without effect are ``problems``."""

    sources: dict[str, Source]
    aliases: Mapping[str, str]
    problems: list[str]

    def find_source(self, id_: str) -> Source | None:
        """Find a product by its name or an alias, None if there is none."""
        return self.sources.get(id_) or self.sources.get(self.aliases.get(id_, id_))


class ProductCache:
    """Reads the products again when the index or the file of overrides has changed; thread-safe."""

    def __init__(self, config: Config, index: IndexConnection) -> None:
        self._config = config
        self._index = index
        self._summaries = Summaries(config, index)
        self._lock = threading.Lock()
        self._read: tuple[object, object, object, ProductList] | None = None

    def get_current(self) -> ProductList:
        """Return the products as they are now; the same object as long as nothing has changed."""
        summaries, overrides = (
            self._summaries.get_current(),
            read_overrides(self._config.collection_overrides),
        )
        state = summaries, overrides, self._index.driver
        with self._lock:
            cached = self._read
        if cached is not None and all(old is new for old, new in zip(cached, state, strict=False)):
            return cached[3]
        products = self._read_products(summaries, overrides)
        with self._lock:
            previous, self._read = self._read, (*state, products)
        for problem in sorted({*products.problems} - {*(previous[3].problems if previous else ())}):
            log.warning("collection overrides: %s", problem)
        return products

    def refresh_summaries(self, report: Callable[[Summary], None], *, anew: bool) -> None:
        """Make all summaries that are pending, with ``anew`` all; report each. Waits for other processes."""
        self._summaries.finish(report, anew=anew)

    def _read_products(
        self, summaries: Mapping[str, Summary], overrides: Mapping[str, Override]
    ) -> ProductList:
        with as_infrastructure_busy():
            # Get all: Open Data Cube caches its own lookup by name forever.
            products = sorted(self._index.datacube.index.products.get_all(), key=lambda p: p.name)
        sources = {p.name: self._make_source(p, overrides.get(p.name, NOTHING), summaries) for p in products}
        visible = {name: source for name, source in sources.items() if not source.product.operator.hidden}
        return ProductList(
            visible,
            map_collection_aliases(source.product for source in visible.values()),
            find_override_problems([source.product for source in sources.values()], overrides),
        )

    def _make_source(self, odc_product: Any, operator: Override, summaries: Mapping[str, Summary]) -> Source:
        metadata_type = odc_product.metadata_type
        product = Product(
            name=odc_product.name,
            definition=odc_product.definition,
            bands=read_bands(odc_product.definition, operator.common_names, operator.band_aliases),
            operator=operator,
            search_fields=metadata_type.definition["dataset"].get("search_fields") or {},
            load_hint=find_load_hint(odc_product.definition) if self._config.load_hints else None,
        )
        summary = summaries.get(odc_product.name, Summary(odc_product.name))
        return Source(product, summary, odc_product.id, metadata_type.dataset_fields, self._index.driver)


class PinnedProducts:
    """The products as they are when they are first needed, whatever changes afterwards."""

    def __init__(self, cache: ProductCache) -> None:
        self._cache = cache

    @cached_property
    def _current(self) -> ProductList:
        return self._cache.get_current()

    def get_current(self) -> ProductList:
        """Return the products as they were at the first call."""
        return self._current

    def refresh_summaries(self, report: Callable[[Summary], None], *, anew: bool) -> None:
        """Make all summaries that are pending, as `ProductCache` does."""
        self._cache.refresh_summaries(report, anew=anew)
