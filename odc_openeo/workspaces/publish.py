"""Puts exports into workspaces: files first, then Items, the Collection last. Nothing is overwritten.

What counts is what a Collection links to. An export that ends early leaves files that nothing links to; the
next one of the same run replaces them.
"""

from __future__ import annotations

import io
import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select

from odc_openeo import db, exports, files
from odc_openeo.config import Config
from odc_openeo.errors import (
    FilePathInvalid,
    ProcessParameterInvalid,
    StorageQuotaExceeded,
    WorkspaceNotFound,
)
from odc_openeo.exports import Package, moved
from odc_openeo.results import COLLECTION
from odc_openeo.storage import Storage
from odc_openeo.workspaces.providers import BUILT_IN
from odc_openeo.workspaces.store import WORKSPACES, Workspace, get, storage_of

RUN: Final = "odc:run"
"""Member of Collections that says which run has made them."""


def clean_place(merge: str | None, id_: str | None) -> str | None:
    """The path of the Collection in the workspace; None if that is known only when the job has run.

    Raises:
        ProcessParameterInvalid: the path, or the id that becomes one, is not allowed.
    """
    name = merge if merge is not None else id_
    if name is None:
        return None
    try:
        path = files.clean(name.removesuffix("/"))
    except FilePathInvalid as error:
        what = "path" if merge is not None else "id of the STAC resource as a path"
        raise _refused(f"the {what} '{name}' can't be used: {error.message}") from error
    return path if path.endswith(".json") else f"{path}/{COLLECTION}"


@dataclass(frozen=True)
class Place:
    """A Collection in a workspace, there or to be: ``path`` in the workspace, ``merge`` if it is added to."""

    workspace: Workspace
    store: Storage
    path: str
    merge: bool

    @property
    def key(self) -> str:
        """Where it is in the storage."""
        return f"{self.workspace.folder}/{self.path}"

    def read(self, run: str) -> Mapping[str, Any] | None:
        """The Collection that is there, None if there is none.

        Raises:
            ProcessParameterInvalid: it is none, or one of another run that is not to be added to.
        """
        there = _read(self.store, self.key)
        if there is None:
            return None
        if not isinstance(there, Mapping) or there.get("type") != "Collection":
            raise _refused(f"what is at '{self.path}' in the workspace is no STAC Collection.")
        if not self.merge and there.get(RUN) != run:
            raise _refused(
                f"there is a Collection at '{self.path}' in the workspace. Give this one another id with "
                "stac_modify, or name that one in 'merge' to add to it."
            )
        return there


def publish(config: Config, user: UUID, id_: str, content: Package, merge: str | None) -> str:
    """Export into a workspace; the path of the Collection there.

    Without ``merge`` a Collection of its own is made in a folder named by its id. Else the Collection at
    ``merge`` is added to, or made if it is not there. Files and Items go into a folder beside the Collection
    that is named by the run.

    Raises:
        WorkspaceNotFound, WorkspaceUnavailable: there is no such workspace, or it can't be reached.
        ProcessParameterInvalid: something else is at that place.
        StorageQuotaExceeded: the files are too many.
    """
    workspace = get(config, user, id_)
    path = clean_place(merge, str(content.collection["id"])) or COLLECTION
    place = Place(workspace, storage_of(config, workspace), path, merge is not None)
    place.read(content.run)
    _check_room(config, place, sum(exports.sizes(config, content).values()))
    folder = f"{posixpath.dirname(place.key)}/{content.run}"
    exports.copy_files(config, content, place.store, folder)
    for item_id, item in content.items.items():
        links = [{**link, "href": f"../{posixpath.basename(path)}"} for link in item["links"]]
        _write(place.store, f"{folder}/{item_id}.json", {**item, "links": links})
    _link(config, place, content)
    return path


def _link(config: Config, place: Place, content: Package) -> None:
    """Write the Collection: exports into one workspace take turns."""
    statement = select(db.Workspace).where(db.Workspace.key == place.workspace.key).with_for_update()
    with db.session(config) as session:
        if session.scalar(statement) is None:
            # Deleted in the meantime.
            place.store.delete(place.workspace.folder)
            raise WorkspaceNotFound(identifier=place.workspace.id)
        there = place.read(content.run)
        made = moved(content.collection, content.run)
        document = merged(there, made, content.run) if place.merge else {**made, RUN: content.run}
        _write(place.store, place.key, document)


def merged(there: Mapping[str, Any] | None, made: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """A Collection with another one's Items and files added; what it says of itself stays as it was.

    What an earlier export into ``folder`` had added is replaced.
    """
    if there is None:
        return dict(made)
    prefix = f"./{folder}/"
    links = [link for link in there.get("links") or () if not str(link.get("href")).startswith(prefix)]
    known = {(link.get("rel"), link.get("href")) for link in links}
    links += [link for link in made["links"] if (link["rel"], link["href"]) not in known]
    assets = {
        name: asset
        for name, asset in (there.get("assets") or {}).items()
        if not str(asset.get("href")).startswith(prefix)
    }
    for name, asset in made["assets"].items():
        assets[f"{folder}/{name}" if name in assets else name] = asset
    extent = united(there.get("extent") or made["extent"], made["extent"])
    return {**made, **there, "links": links, "assets": assets, "extent": extent}


def united(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The extent of two STAC Collections together."""
    boxes = [extent["spatial"]["bbox"][0] for extent in (one, other)]
    spans = [extent["temporal"]["interval"][0] for extent in (one, other)]
    half = len(boxes[0]) // 2
    low = [min(edges) for edges in zip(*(box[:half] for box in boxes), strict=True)]
    high = [max(edges) for edges in zip(*(box[half:] for box in boxes), strict=True)]
    start = None if None in (starts := [s[0] for s in spans]) else min(starts)
    end = None if None in (ends := [s[1] for s in spans]) else max(ends)
    return {"spatial": {"bbox": [[*low, *high]]}, "temporal": {"interval": [[start, end]]}}


def _read(store: Storage, key: str) -> Any:
    try:
        with store.open(key) as stream:
            return json.load(stream)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _refused("a file is at that place that is no STAC.") from error


def _write(store: Storage, key: str, document: Mapping[str, Any]) -> None:
    text = json.dumps(document, ensure_ascii=False, indent=1)
    store.write(key, io.BytesIO(text.encode()))


def _check_room(config: Config, place: Place, size: int) -> None:
    workspace, limits = place.workspace, []
    if workspace.quota is not None:
        limits.append(workspace.quota - _taken(place.store, workspace.folder))
    if workspace.provider == BUILT_IN and config.user_storage_bytes is not None:
        limits.append(config.user_storage_bytes - _taken(place.store, f"{WORKSPACES}/{workspace.user}"))
    room = min(limits, default=size)
    if size > room:
        raise StorageQuotaExceeded(free=max(room, 0))


def _taken(store: Storage, folder: str) -> int:
    return sum(store.sizes(folder).values())


def _refused(reason: str) -> ProcessParameterInvalid:
    return ProcessParameterInvalid(process="export_workspace", parameter="merge", reason=reason)
