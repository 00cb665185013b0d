"""Operators' aliases of collections: what they stand for, and where they are in conflict with real names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from odc_openeo.catalog.overrides import Override
from odc_openeo.catalog.stac_documents import Product


def map_collection_aliases(products: Iterable[Product]) -> dict[str, str]:
    """Map aliases to the ids of their collections; an id of a collection is never an alias."""
    listed = list(products)
    names = {product.name for product in listed}
    return {
        alias: product.name for product in listed for alias in product.operator.aliases if alias not in names
    }


def find_override_problems(products: Iterable[Product], overrides: Mapping[str, Override]) -> list[str]:
    """Describe overrides without effect: of products and bands that do not exist, aliases that are names."""
    by_name = {product.name: product for product in products}
    problems = []
    for name, override in overrides.items():
        product = by_name.get(name)
        if product is None:
            problems.append(f"there is no product '{name}'")
            continue
        visible = {n for n, p in by_name.items() if not p.operator.hidden and n != name}
        problems += [
            f"alias '{alias}' of collection '{name}' is the id of another collection, which it stays"
            for alias in override.aliases
            if alias in visible
        ]
        problems += [f"{name}: {problem}" for problem in _find_band_problems(product, override)]
    return problems


def _find_band_problems(product: Product, override: Override) -> Iterator[str]:
    names = [band.name for band in product.bands]
    for name in override.bands:
        if name not in names:
            yield f"there is no band '{name}'. The bands are: {', '.join(names)}"
    for name, aliases in override.band_aliases.items():
        for band in product.bands:
            for alias in aliases:
                if band.name != name and alias in (band.name, band.common_name):
                    yield f"alias '{alias}' of band '{name}' is a name of band '{band.name}', which it stays"
