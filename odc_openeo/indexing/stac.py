"""STAC Items into the Open Data Cube index.

`datacube` itself turns an Item into an EO3 document; here its bands are named as the product names them, and
the result is checked and written through the index like any other dataset. (The ODC tool for this,
`fs-to-dc`, brings 20 packages for object stores and metrics with it, and ends without an error when files
fail.)
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
    """What `index_stac` did: ids of datasets added, updated, and found unchanged."""

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
    its aliases. An Item whose dataset is there already updates it. `index` defaults to the one `ODC_*`
    variables name.

    Raises IndexingError, naming the Item, for an unknown product, missing assets, or an Item that `datacube`
    refuses; the Items before it stay indexed.
    """
    if index is None:
        with Datacube(app="odc-openeo-index-stac") as cube:
            return index_stac(paths, product, cube.index)
    to_dataset = Doc2Dataset(index, eo3=True)
    done = Indexed()
    for item in read_items(paths):
        dataset = _dataset(item, _product(index, item, product), to_dataset)
        _store(index, dataset, done)
    return done


def read_items(paths: Iterable[Path | str]) -> Iterator[pystac.Item]:
    """The Items of JSON files and folders, asset addresses made absolute; IndexingError for other files."""
    for path in _files(paths):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise IndexingError(f"{path}: not a readable JSON file ({error})") from error
        features = document.get("features", [document]) if isinstance(document, dict) else [document]
        for feature in features:
            if not isinstance(feature, dict) or feature.get("type") != "Feature" or "assets" not in feature:
                raise IndexingError(f"{path}: neither a STAC Item nor a collection of Items")
            yield _item(feature, path)


def _files(paths: Iterable[Path | str]) -> Iterator[Path]:
    for path in map(Path, paths):
        if path.is_dir():
            yield from sorted(path.rglob("*.json"))
        else:
            yield path


def _item(feature: dict[str, Any], path: Path) -> pystac.Item:
    try:
        item = pystac.Item.from_dict(feature, href=path.resolve().as_uri(), migrate=True)
    except Exception as error:
        raise IndexingError(f"{path}: STAC Item {feature.get('id')} is not valid ({error})") from error
    item.make_asset_hrefs_absolute()
    return item


def _product(index: Index, item: pystac.Item, name: str | None) -> Product:
    wanted = name or item.collection_id
    if wanted is None:
        raise IndexingError(f"STAC Item {item.id} has no collection: name the product to put it into")
    product = index.products.get_by_name(wanted)
    if product is None:
        raise IndexingError(
            f"STAC Item {item.id}: there is no product '{wanted}'; add one with `datacube product add`, "
            "or name another product"
        )
    return product


def _dataset(item: pystac.Item, product: Product, to_dataset: Doc2Dataset) -> Dataset:
    uri = item.get_self_href()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (converted,) = stac2ds([item], cfg={"*": {"warnings": "ignore"}})
    except Exception as error:
        raise IndexingError(f"STAC Item {item.id} cannot be turned into a dataset ({error})") from error
    document = dict(converted.metadata_doc)
    document["product"] = {"name": product.name}
    document["measurements"] = _measurements(document["measurements"], product, item)
    document["properties"] = {**product.metadata_doc.get("properties", {}), **document["properties"]}
    dataset, problem = to_dataset(json.loads(json.dumps(document, default=str)), uri)
    if dataset is None:
        raise IndexingError(f"STAC Item {item.id} does not fit product '{product.name}': {problem}")
    return dataset


def _measurements(assets: dict[str, Any], product: Product, item: pystac.Item) -> dict[str, Any]:
    """The assets that are measurements of the product, under the product's names."""
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


def _store(index: Index, dataset: Dataset, done: Indexed) -> None:
    known = index.datasets.get(dataset.id)
    if known is None:
        index.datasets.add(dataset, with_lineage=False)
        done.added.append(dataset.id)
    elif known.metadata_doc == dataset.metadata_doc and known.uri == dataset.uri:
        done.unchanged.append(dataset.id)
    else:
        index.datasets.update(dataset, updates_allowed={(): changes.allow_any})
        done.updated.append(dataset.id)
