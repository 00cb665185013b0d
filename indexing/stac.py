"""Index STAC Items in the Open Data Cube.

`datacube` itself converts an Item to an EO3 document; here its bands are renamed as in the product, and the
result is validated and added to the index like any other dataset. (The ODC tool for this, `fs-to-dc`,
depends on 20 packages for object stores and metrics, and exits without an error when files fail.)
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pystac
from datacube import Datacube
from datacube.index import Index
from datacube.index.hl import Doc2Dataset
from datacube.metadata import stac2ds
from datacube.model import Dataset, Product
from datacube.utils import changes

from odc_openeo.indexing.index import IndexingError


@dataclass
class Indexed:
    """The result of `index_stac`: ids of the datasets that were added, updated, and unchanged."""

    added: list[UUID] = field(default_factory=list)
    updated: list[UUID] = field(default_factory=list)
    unchanged: list[UUID] = field(default_factory=list)


def index_stac(
    paths: Iterable[Path | str], product: str | None = None, index: Index | None = None
) -> Indexed:
    """Index the STAC Items in `paths`: JSON files of one Item or of an ItemCollection, or folders of such
    files.

    `product` names the ODC product; by default it is each Item's `collection`. The product must be in the
    index, and each of its measurements must be an asset of the Item, under the measurement's name or one of
    its aliases. An Item whose dataset is already indexed updates it. `index` defaults to the one named by
    `ODC_*` variables.

    Raises IndexingError, naming the Item, for an unknown product, missing assets, or an Item that `datacube`
    refuses; the Items before it stay indexed.
    """
    if index is None:
        with Datacube(app="odc-openeo-index-stac") as cube:
            return index_stac(paths, product, cube.index)
    to_dataset = Doc2Dataset(index, eo3=True)
    done = Indexed()
    for item in read_items(paths):
        dataset = make_dataset(item, _get_product(index, item, product), to_dataset)
        _store_dataset(index, dataset, done)
    return done


def read_items(paths: Iterable[Path | str]) -> Iterator[pystac.Item]:
    """Read the Items of JSON files and folders, with absolute asset URLs; IndexingError for other files."""
    for path in _list_files(paths):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise IndexingError(f"{path}: not a readable JSON file ({error})") from error
        features = document.get("features", [document]) if isinstance(document, dict) else [document]
        for feature in features:
            if not isinstance(feature, dict) or feature.get("type") != "Feature" or "assets" not in feature:
                raise IndexingError(f"{path}: neither a STAC Item nor a collection of Items")
            yield _read_item(feature, path)


def _list_files(paths: Iterable[Path | str]) -> Iterator[Path]:
    for path in map(Path, paths):
        if path.is_dir():
            yield from sorted(path.rglob("*.json"))
        else:
            yield path


def _read_item(feature: dict[str, Any], path: Path) -> pystac.Item:
    try:
        item = pystac.Item.from_dict(feature, href=path.resolve().as_uri(), migrate=True)
    except Exception as error:
        raise IndexingError(f"{path}: STAC Item {feature.get('id')} is not valid ({error})") from error
    item.make_asset_hrefs_absolute()
    return item


def _get_product(index: Index, item: pystac.Item, name: str | None) -> Product:
    return get_product(index, item.id, name or item.collection_id)


def get_product(index: Index, item_id: str, product_name: str | None) -> Product:
    """Return the product that an Item is added to; IndexingError if there is none."""
    if product_name is None:
        raise IndexingError(f"STAC Item {item_id} has no collection: name the product to add it to")
    product = index.products.get_by_name(product_name)
    if product is None:
        raise IndexingError(
            f"STAC Item {item_id}: there is no product '{product_name}'; add it with "
            "`datacube product add`, or name another product"
        )
    return product


def make_dataset(item: pystac.Item, product: Product, to_dataset: Doc2Dataset) -> Dataset:
    """Make the dataset of an Item; IndexingError for an Item that does not fit the product."""
    uri = item.get_self_href()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (converted,) = stac2ds([item], cfg={"*": {"warnings": "ignore"}})
    except Exception as error:
        raise IndexingError(f"STAC Item {item.id} cannot be converted to a dataset ({error})") from error
    document = dict(converted.metadata_doc)
    document["product"] = {"name": product.name}
    document["measurements"] = _select_measurements(document["measurements"], product, item)
    document["properties"] = {**product.metadata_doc.get("properties", {}), **document["properties"]}
    dataset, problem = to_dataset(json.loads(json.dumps(document, default=str)), uri)
    if dataset is None:
        raise IndexingError(f"STAC Item {item.id} does not fit product '{product.name}': {problem}")
    return dataset


def _select_measurements(assets: dict[str, Any], product: Product, item: pystac.Item) -> dict[str, Any]:
    """Select the assets that are measurements of the product, under the product's names."""
    chosen = {}
    for name, asset in assets.items():
        try:
            chosen[product.canonical_measurement(name)] = asset
        except ValueError:
            continue
    missing = sorted(set(product.measurements) - set(chosen))
    if missing:
        raise IndexingError(
            f"STAC Item {item.id} has no asset for {', '.join(missing)} of product '{product.name}'; "
            f"its raster assets are {', '.join(sorted(assets)) or 'none'}"
        )
    return chosen


def _store_dataset(index: Index, dataset: Dataset, done: Indexed) -> None:
    indexed = index.datasets.get(dataset.id)
    if indexed is None:
        index.datasets.add(dataset, with_lineage=False)
        done.added.append(dataset.id)
    elif indexed.metadata_doc == dataset.metadata_doc and indexed.uri == dataset.uri:
        done.unchanged.append(dataset.id)
    else:
        index.datasets.update(dataset, updates_allowed={(): changes.allow_any})
        done.updated.append(dataset.id)
