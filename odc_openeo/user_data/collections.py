"""Collections that users have exported to: STAC Items in our tables, files in the storage.

They look and load like the collections of the index, and are visible to their owner only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from odc.geo.geom import unary_union
from pydantic import ValidationError
from sqlalchemy import delete as delete_
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from odc_openeo import db
from odc_openeo.catalog import Band, Product, Scene, Summary
from odc_openeo.catalog.overrides import Override
from odc_openeo.catalog.stac_documents import make_collection, make_queryables
from odc_openeo.config import Config
from odc_openeo.errors import (
    CollectionNotFound,
    FeatureUnsupported,
    ProcessParameterInvalid,
    StorageQuotaExceeded,
)
from odc_openeo.load.stac_scenes import read_items
from odc_openeo.spatial.globe import Span, locate
from odc_openeo.storage import get_storage
from odc_openeo.untrusted.model_messages import describe_model_faults
from odc_openeo.untrusted.rasters import LocalFolder
from odc_openeo.user_data import stac_export
from odc_openeo.user_data.object_copies import ObjectFolder, find_raster_folder
from odc_openeo.user_data.stac_export import Package

RasterFolder = LocalFolder | ObjectFolder

COLLECTIONS: Final = "collections"
DESCRIPTION_MEMBERS: Final = ("title", "description", "license", "keywords", "providers")
"""Descriptive members of a Collection; the others follow from its Items."""
TYPES: Final = {str: "string", bool: "boolean", int: "integer", float: "number"}


@dataclass(frozen=True)
class OwnCollection:
    """A collection of a user, described like the products of the index."""

    product: Product
    summary: Summary

    def describe(self, base_url: str) -> dict[str, Any]:
        """Make the STAC Collection; links start with ``base_url``."""
        return make_collection(self.product, self.summary, base_url)

    def queryables(self, base_url: str) -> dict[str, Any]:
        """Make the JSON Schema of the properties that it can be filtered by."""
        return make_queryables(self.product, self.summary, base_url)


def check_id(id_: str) -> None:
    """Raise ProcessParameterInvalid if a collection of a user can't have this id."""
    if not re.fullmatch(r"[A-Za-z0-9_~-][A-Za-z0-9_.~-]{0,99}", id_):
        raise _invalid_collection(
            "ids of your collections have up to 100 letters, digits and _ . ~ -, and no dot at the beginning."
        )


def check_description(document: Mapping[str, Any]) -> None:
    """Raise ValueError if a descriptive member of a Collection, such as title or keywords, is invalid."""
    try:
        _parse_override(document)
    except ValidationError as error:
        raise ValueError(f"{describe_model_faults(error, document)}.") from error


def _parse_override(document: Mapping[str, Any]) -> Override:
    return Override(
        **{name: document[name] for name in DESCRIPTION_MEMBERS if document.get(name) is not None}
    )


# --- Reading -------------------------------------------------------------------------------------


def find_collection(config: Config, user: UUID, id_: str) -> OwnCollection | None:
    """Find a collection of a user; None if they have none with this id."""
    with db.session(config) as session:
        row = session.get(db.UserCollection, (user, id_))
        return None if row is None else _make_collection(row)


def list_collections(config: Config, user: UUID) -> list[OwnCollection]:
    """List the collections of a user, by id."""
    query = select(db.UserCollection).where(db.UserCollection.user_id == user).order_by(db.UserCollection.id)
    with db.session(config) as session:
        return [_make_collection(row) for row in session.scalars(query)]


def list_ids(config: Config, user: UUID) -> frozenset[str]:
    """List the ids of the collections of a user."""
    with db.session(config) as session:
        collection_ids = session.scalars(
            select(db.UserCollection.id).where(db.UserCollection.user_id == user)
        )
        return frozenset(collection_ids)


def find_items(config: Config, user: UUID, id_: str) -> tuple[list[dict[str, Any]], RasterFolder] | None:
    """Find the STAC Items of a collection with paths to their files, and the folder of these, or None."""
    with db.autocommit_session(config) as session:
        if session.get(db.UserCollection, (user, id_)) is None:
            return None
    with db.session(config) as session:
        folder = _find_raster_folder(config, user, id_)
        return _read_items(session, user, id_, folder), folder


def _find_raster_folder(config: Config, user: UUID, id_: str) -> RasterFolder:
    folder = find_raster_folder(config, get_storage(config), _make_folder_path(user, id_))
    if folder is None:
        raise FeatureUnsupported(feature="collections of users in this kind of storage")
    return folder


def _read_items(session: Session, user: UUID, id_: str, folder: RasterFolder) -> list[dict[str, Any]]:
    query = select(db.UserItem).where(db.UserItem.user_id == user, db.UserItem.collection == id_)
    rows = session.scalars(query.order_by(db.UserItem.id))
    return [_place_assets(json.loads(row.item), folder.root / row.run) for row in rows]


def _place_assets(item: dict[str, Any], folder: Path) -> dict[str, Any]:
    assets = {
        name: {**asset, "href": str(folder / asset["href"].removeprefix("./"))}
        for name, asset in item["assets"].items()
    }
    return {**item, "assets": assets}


def _make_collection(row: db.UserCollection) -> OwnCollection:
    description, details = json.loads(row.stac), json.loads(row.details)
    bands = tuple(Band(**{**band, "aliases": tuple(band["aliases"])}) for band in details["bands"])
    summary_fields: dict[str, Any] = details["summary"]
    summary_fields |= {name: tuple(summary_fields[name]) for name in ("lon", "lat", "x", "y", "crs")}
    summary_fields["time"] = tuple(datetime.fromisoformat(time) for time in summary_fields["time"])
    summary_fields["grids"] = {name: tuple(sizes) for name, sizes in summary_fields["grids"].items()}
    summary = Summary(row.id, **summary_fields)
    return OwnCollection(Product(row.id, {}, bands, _parse_override(description), {}), summary)


# --- Changing ------------------------------------------------------------------------------------


def export_package(config: Config, user: UUID, id_: str, content: Package) -> None:
    """Add Items and files to a collection, creating it if needed; the same run replaces its earlier export.

    Raises:
        ProcessParameterInvalid: none of the data can be loaded.
        StorageQuotaExceeded: the files are too large.
    """
    check_id(id_)
    if not content.items:
        raise _invalid_collection("none of the data is georeferenced. Save raster cubes as GTiff.")
    _copy_files(config, user, id_, content)
    description = json.dumps({name: content.collection.get(name) for name in DESCRIPTION_MEMBERS})
    new = insert(db.UserCollection).values(user_id=user, id=id_, stac=description, details="{}")
    key_conditions = (db.UserCollection.user_id == user, db.UserCollection.id == id_)
    with db.session(config) as session:
        session.execute(new.on_conflict_do_nothing())
        row = session.scalars(select(db.UserCollection).where(*key_conditions).with_for_update()).one()
        _replace_items(session, user, id_, content)
        folder = _find_raster_folder(config, user, id_)
        row.details = json.dumps(_derive_details(_read_items(session, user, id_, folder), folder))
        row.updated = db.now()


def _copy_files(config: Config, user: UUID, id_: str, content: Package) -> None:
    store = get_storage(config)
    size = sum(stac_export.get_sizes(config, content).values())
    taken = sum(store.sizes(f"{COLLECTIONS}/{user}").values())
    if config.user_storage_bytes is not None and taken + size > config.user_storage_bytes:
        raise StorageQuotaExceeded(free=max(config.user_storage_bytes - taken, 0))
    stac_export.copy_files(config, content, store, _make_folder_path(user, id_, content.run))


def _replace_items(session: Session, user: UUID, id_: str, content: Package) -> None:
    collection_items = (db.UserItem.user_id == user, db.UserItem.collection == id_)
    session.execute(delete_(db.UserItem).where(*collection_items, db.UserItem.run == content.run))
    taken = set(session.scalars(select(db.UserItem.id).where(*collection_items)))
    for name, item in content.items.items():
        item_id = f"{name}-{content.run}" if name in taken else name
        text = json.dumps({**item, "id": item_id, "collection": id_})
        session.add(db.UserItem(user_id=user, collection=id_, id=item_id, run=content.run, item=text))
    session.flush()


def delete_collection(config: Config, user: UUID, id_: str) -> None:
    """Delete a collection with its files; CollectionNotFound if the user has none with this id."""
    key_conditions = (db.UserCollection.user_id == user, db.UserCollection.id == id_)
    with db.session(config) as session:
        gone = session.scalar(
            delete_(db.UserCollection).where(*key_conditions).returning(db.UserCollection.id)
        )
        if gone is None:
            raise CollectionNotFound(identifier=id_)
        # Files last: if they can't be removed, the collection stays.
        get_storage(config).delete(_make_folder_path(user, id_))


def _make_folder_path(user: UUID, id_: str, *parts: str) -> str:
    """Make the folder of a collection, hashed as ids may differ in casing only, but not all file names."""
    return "/".join([COLLECTIONS, str(user), sha256(id_.encode()).hexdigest()[:32], *parts])


# --- Metadata derived from the Items -----------------------------------------------------------------


def _derive_details(items: Sequence[Mapping[str, Any]], folder: RasterFolder) -> dict[str, Any]:
    bands, scenes = read_items(items, folder)
    return {"bands": [asdict(band) for band in bands], "summary": _derive_summary(items, scenes)}


def _derive_summary(items: Sequence[Mapping[str, Any]], scenes: Sequence[Scene]) -> dict[str, Any]:
    systems = sorted({str(scene.crs) for scene in scenes})
    span = Span.around(locate(s.footprint) for s in scenes) or Span(-180.0, -90.0, 180.0, 90.0)
    native = unary_union(s.outline for s in scenes).boundingbox if len(systems) == 1 else None
    times = [scene.time for scene in scenes]
    grids = {
        band: [abs(step) for step in (grid.resolution.x, grid.resolution.y)]
        for scene in scenes
        for band in scene.files
        if (grid := scene.find_grid(band)) is not None
    }
    return {
        "lon": (span.west, span.east),
        "lat": (span.south, span.north),
        "x": (None, None) if native is None else native.range_x,
        "y": (None, None) if native is None else native.range_y,
        "time": [time.isoformat() for time in (min(times), max(times))],
        "crs": systems,
        "grids": grids,
        "properties": _property_types(items),
        "count": len(items),
    }


def _property_types(items: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    values = {name: value for item in items for name, value in item["properties"].items()}
    return {name: TYPES[type(value)] for name, value in values.items() if type(value) in TYPES}


def _invalid_collection(reason: str) -> ProcessParameterInvalid:
    return ProcessParameterInvalid(process="export_collection", parameter="collection", reason=reason)
