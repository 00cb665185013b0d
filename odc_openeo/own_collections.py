"""Collections that users have exported to: STAC Items in our tables, files in the storage; for owners only.

They look and load like the collections of the index; those of others do not exist.
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

from odc_openeo import db, exports
from odc_openeo.catalog import Band, Product, Scene, Summary
from odc_openeo.catalog.overrides import Override
from odc_openeo.catalog.stac import collection, queryables
from odc_openeo.config import Config
from odc_openeo.errors import (
    CollectionNotFound,
    FeatureUnsupported,
    ProcessParameterInvalid,
    StorageQuotaExceeded,
)
from odc_openeo.exports import Package
from odc_openeo.foreign_rasters import LocalFolder
from odc_openeo.load.items import read_items
from odc_openeo.storage import storage

COLLECTIONS: Final = "collections"
SAID: Final = ("title", "description", "license", "keywords", "providers")
"""What a Collection says of itself; the rest follows from its Items."""
TYPES: Final = {str: "string", bool: "boolean", int: "integer", float: "number"}
DEGREES: Final = "EPSG:4326"


@dataclass(frozen=True)
class OwnCollection:
    """A collection of a user, as `catalog.stac` describes the products of the index."""

    product: Product
    summary: Summary

    def describe(self, base_url: str) -> dict[str, Any]:
        """The STAC Collection; links start with ``base_url``."""
        return collection(self.product, self.summary, base_url)

    def queryables(self, base_url: str) -> dict[str, Any]:
        """The JSON Schema of the properties that it can be filtered by."""
        return queryables(self.product, self.summary, base_url)


def check_id(id_: str) -> None:
    """ProcessParameterInvalid if a collection of a user can't have this id."""
    if not re.fullmatch(r"[A-Za-z0-9_~-][A-Za-z0-9_.~-]{0,99}", id_):
        raise _refused(
            "ids of your collections have up to 100 letters, digits and _ . ~ - and do not begin with a dot."
        )


def check_said(document: Mapping[str, Any]) -> None:
    """ValueError if what a Collection says of itself is of the wrong kind, title or keywords for instance."""
    try:
        _said(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"'{'.'.join(map(str, first['loc']))}': {first['msg'].lower()}.") from error


def _said(document: Mapping[str, Any]) -> Override:
    return Override(**{name: document[name] for name in SAID if document.get(name) is not None})


# --- Reading -------------------------------------------------------------------------------------


def find(config: Config, user: UUID, id_: str) -> OwnCollection | None:
    """A collection of a user, None if they have none of this id."""
    with db.session(config) as session:
        row = session.get(db.UserCollection, (user, id_))
        return None if row is None else _collection(row)


def list_collections(config: Config, user: UUID) -> list[OwnCollection]:
    """The collections of a user, by id."""
    query = select(db.UserCollection).where(db.UserCollection.user_id == user).order_by(db.UserCollection.id)
    with db.session(config) as session:
        return [_collection(row) for row in session.scalars(query)]


def ids(config: Config, user: UUID) -> frozenset[str]:
    """The ids of the collections of a user."""
    with db.session(config) as session:
        found = session.scalars(select(db.UserCollection.id).where(db.UserCollection.user_id == user))
        return frozenset(found)


def items(config: Config, user: UUID, id_: str) -> tuple[list[dict[str, Any]], LocalFolder] | None:
    """The STAC Items of a collection with paths to their files, and the folder of these; None if none."""
    with db.session(config) as session:
        if session.get(db.UserCollection, (user, id_)) is None:
            return None
        place = _local_folder(config, user, id_)
        return _items(session, user, id_, place), place


def _local_folder(config: Config, user: UUID, id_: str) -> LocalFolder:
    folder = storage(config).local(_folder(user, id_))
    if folder is None:
        raise FeatureUnsupported(feature="collections of users, as its storage is no folder")
    return LocalFolder(folder)


def _items(session: Session, user: UUID, id_: str, place: LocalFolder) -> list[dict[str, Any]]:
    query = select(db.UserItem).where(db.UserItem.user_id == user, db.UserItem.collection == id_)
    rows = session.scalars(query.order_by(db.UserItem.id))
    return [_place_assets(json.loads(row.item), place.root / row.run) for row in rows]


def _place_assets(item: dict[str, Any], folder: Path) -> dict[str, Any]:
    assets = {
        name: {**asset, "href": str(folder / asset["href"].removeprefix("./"))}
        for name, asset in item["assets"].items()
    }
    return {**item, "assets": assets}


def _collection(row: db.UserCollection) -> OwnCollection:
    said, details = json.loads(row.stac), json.loads(row.details)
    bands = tuple(Band(**{**band, "aliases": tuple(band["aliases"])}) for band in details["bands"])
    told: dict[str, Any] = details["summary"]
    told |= {name: tuple(told[name]) for name in ("lon", "lat", "x", "y", "crs")}
    told["time"] = tuple(datetime.fromisoformat(time) for time in told["time"])
    told["grids"] = {name: tuple(sizes) for name, sizes in told["grids"].items()}
    summary = Summary(row.id, **told)
    return OwnCollection(Product(row.id, {}, bands, _said(said), {}), summary)


# --- Changing ------------------------------------------------------------------------------------


def export(config: Config, user: UUID, id_: str, content: Package) -> None:
    """Add Items and files to a collection, which is made if it is not there; again replaces that of the run.

    Raises:
        ProcessParameterInvalid: nothing of it can be loaded.
        StorageQuotaExceeded: the files are too many.
    """
    check_id(id_)
    if not content.items:
        raise _refused("nothing of the data has a place on Earth. Save raster cubes as GTiff.")
    _copy(config, user, id_, content)
    said = json.dumps({name: content.collection.get(name) for name in SAID})
    new = insert(db.UserCollection).values(user_id=user, id=id_, stac=said, details="{}")
    own = (db.UserCollection.user_id == user, db.UserCollection.id == id_)
    with db.session(config) as session:
        session.execute(new.on_conflict_do_nothing())
        row = session.scalars(select(db.UserCollection).where(*own).with_for_update()).one()
        _replace_items(session, user, id_, content)
        place = _local_folder(config, user, id_)
        row.details = json.dumps(_details(_items(session, user, id_, place), place))
        row.updated = db.now()


def _copy(config: Config, user: UUID, id_: str, content: Package) -> None:
    store = storage(config)
    size = sum(exports.sizes(config, content).values())
    taken = sum(store.sizes(f"{COLLECTIONS}/{user}").values())
    if config.user_storage_bytes is not None and taken + size > config.user_storage_bytes:
        raise StorageQuotaExceeded(free=max(config.user_storage_bytes - taken, 0))
    exports.copy_files(config, content, store, _folder(user, id_, content.run))


def _replace_items(session: Session, user: UUID, id_: str, content: Package) -> None:
    ours = (db.UserItem.user_id == user, db.UserItem.collection == id_)
    session.execute(delete_(db.UserItem).where(*ours, db.UserItem.run == content.run))
    taken = set(session.scalars(select(db.UserItem.id).where(*ours)))
    for name, item in content.items.items():
        own = f"{name}-{content.run}" if name in taken else name
        text = json.dumps({**item, "id": own, "collection": id_})
        session.add(db.UserItem(user_id=user, collection=id_, id=own, run=content.run, item=text))
    session.flush()


def delete(config: Config, user: UUID, id_: str) -> None:
    """Remove a collection with its files; CollectionNotFound if the user has none of this id."""
    own = (db.UserCollection.user_id == user, db.UserCollection.id == id_)
    with db.session(config) as session:
        gone = session.scalar(delete_(db.UserCollection).where(*own).returning(db.UserCollection.id))
        if gone is None:
            raise CollectionNotFound(identifier=id_)
        # Files last: if they can't be removed, the collection stays.
        storage(config).delete(_folder(user, id_))


def _folder(user: UUID, id_: str, *parts: str) -> str:
    """The folder of a collection: ids may differ in casing only, names of files on some disks not."""
    return "/".join([COLLECTIONS, str(user), sha256(id_.encode()).hexdigest()[:32], *parts])


# --- What follows from the Items -----------------------------------------------------------------


def _details(found: Sequence[Mapping[str, Any]], place: LocalFolder) -> dict[str, Any]:
    bands, scenes = read_items(found, place)
    return {"bands": [asdict(band) for band in bands], "summary": _summary(found, scenes)}


def _summary(found: Sequence[Mapping[str, Any]], scenes: Sequence[Scene]) -> dict[str, Any]:
    systems = sorted({str(scene.crs) for scene in scenes})
    degrees = unary_union(s.footprint.to_crs(DEGREES, resolution="auto") for s in scenes).boundingbox
    native = unary_union(s.outline for s in scenes).boundingbox if len(systems) == 1 else None
    times = [scene.time for scene in scenes]
    grids = {
        band: [abs(step) for step in (grid.resolution.x, grid.resolution.y)]
        for scene in scenes
        for band in scene.files
        if (grid := scene.grid(band)) is not None
    }
    return {
        "lon": degrees.range_x,
        "lat": degrees.range_y,
        "x": (None, None) if native is None else native.range_x,
        "y": (None, None) if native is None else native.range_y,
        "time": [time.isoformat() for time in (min(times), max(times))],
        "crs": systems,
        "grids": grids,
        "properties": _property_types(found),
        "count": len(found),
    }


def _property_types(found: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    values = {name: value for item in found for name, value in item["properties"].items()}
    return {name: TYPES[type(value)] for name, value in values.items() if type(value) in TYPES}


def _refused(reason: str) -> ProcessParameterInvalid:
    return ProcessParameterInvalid(process="export_collection", parameter="collection", reason=reason)
