"""Writes exports to workspaces: files first, then Items, the Collection last. Nothing is overwritten.

Only files that a Collection links to count. An export that is interrupted leaves files that nothing links to;
the next one of the same run replaces them.
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

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.errors import (
    FilePathInvalid,
    ProcessParameterInvalid,
    StorageQuotaExceeded,
    WorkspaceNotFound,
)
from odc_openeo.jobs.result_stac import COLLECTION
from odc_openeo.storage import Storage
from odc_openeo.user_data import files, stac_export
from odc_openeo.user_data.stac_export import Package, move_into_folder
from odc_openeo.user_data.workspaces.cubes import append_cube
from odc_openeo.user_data.workspaces.providers import BUILT_IN
from odc_openeo.user_data.workspaces.store import WORKSPACES, Workspace, get_storage, get_workspace

RUN: Final = "odc:run"
"""Member of Collections that names the run that created them."""


def clean_collection_path(merge: str | None, id_: str | None) -> str | None:
    """Normalize the path of the Collection in the workspace; None if it is not known before the job has run.

    Raises:
        ProcessParameterInvalid: the path, or the id that becomes one, is not allowed.
    """
    name = merge if merge is not None else id_
    if name is None:
        return None
    try:
        path = files.clean_path(name.removesuffix("/"))
    except FilePathInvalid as error:
        what = "path" if merge is not None else "id of the STAC resource as a path"
        raise _invalid_merge(f"the {what} '{name}' can't be used: {error.message}") from error
    return path if path.endswith(".json") else f"{path}/{COLLECTION}"


@dataclass(frozen=True)
class CollectionTarget:
    """An existing or new Collection in a workspace; ``merge`` allows adding to an existing one."""

    workspace: Workspace
    store: Storage
    path: str
    merge: bool

    @property
    def key(self) -> str:
        """The key of the Collection in the storage."""
        return f"{self.workspace.folder}/{self.path}"

    def read(self, run: str) -> Mapping[str, Any] | None:
        """Read the existing Collection; None if there is none.

        Raises:
            ProcessParameterInvalid: it is not a Collection, or one of another run and ``merge`` is not set.
        """
        existing = _read_json(self.store, self.key)
        if existing is None:
            return None
        if not isinstance(existing, Mapping) or existing.get("type") != "Collection":
            raise _invalid_merge(f"the file at '{self.path}' in the workspace is not a STAC Collection.")
        if not self.merge and existing.get(RUN) != run:
            raise _invalid_merge(
                f"there is already a Collection at '{self.path}' in the workspace. Give this one another id "
                "with stac_modify, or name that one in 'merge' to add to it."
            )
        return existing


def publish_package(config: Config, user: UUID, id_: str, package: Package, merge: str | None) -> str:
    """Export to a workspace, and return the path of the Collection there.

    Without ``merge`` a new Collection is created in a folder named after its id. Else the export is added to
    the Collection at ``merge``, which is created if it does not exist. Files and Items go into a folder next
    to the Collection that is named after the run. With ``merge``, dates of cubes of Icechunk are appended to
    those next to the Collection instead.

    Raises:
        WorkspaceNotFound, WorkspaceUnavailable: there is no such workspace, or it can't be reached.
        ProcessParameterInvalid: there is something else at this path.
        StorageQuotaExceeded: the files are too large.
    """
    workspace = get_workspace(config, user, id_)
    path = clean_collection_path(merge, str(package.collection["id"])) or COLLECTION
    target = CollectionTarget(workspace, get_storage(config, workspace), path, merge is not None)
    target.read(package.run)
    _check_room(config, target, sum(stac_export.get_sizes(config, package).values()))
    top = posixpath.dirname(target.key)
    folder = f"{top}/{package.run}"
    if merge is not None:
        for name in package.cubes:
            source = f"{package.source}/{name}"
            append_cube(
                config, workspace, source, f"{top}/{name}", package.run, replaces=package.replaces_dates
            )
        package = stac_export.place_cubes_above(package)
    stac_export.copy_files(config, package, target.store, folder)
    for item_id, item in package.items.items():
        links = [{**link, "href": f"../{posixpath.basename(path)}"} for link in item["links"]]
        _write_json(target.store, f"{folder}/{item_id}.json", {**item, "links": links})
    _write_collection(config, target, package)
    return path


def _write_collection(config: Config, target: CollectionTarget, package: Package) -> None:
    """Write the Collection; exports to the same workspace take turns."""
    statement = select(db.WorkspaceRow).where(db.WorkspaceRow.key == target.workspace.key).with_for_update()
    with db.session(config) as session:
        if session.scalar(statement) is None:
            # Deleted in the meantime.
            target.store.delete(target.workspace.folder)
            raise WorkspaceNotFound(identifier=target.workspace.id)
        existing = target.read(package.run)
        collection = move_into_folder(package.collection, package.run)
        document = (
            merge_collections(existing, collection, package.run)
            if target.merge
            else {**collection, RUN: package.run}
        )
        _write_json(target.store, target.key, document)


def merge_collections(
    existing: Mapping[str, Any] | None, collection: Mapping[str, Any], folder: str
) -> dict[str, Any]:
    """Add the Items and files of a Collection to an existing one, whose own metadata stay the same.

    Items and files of an earlier export into ``folder`` are replaced.
    """
    if existing is None:
        return dict(collection)
    prefix = f"./{folder}/"
    links = [link for link in existing.get("links") or () if not str(link.get("href")).startswith(prefix)]
    link_keys = {(link.get("rel"), link.get("href")) for link in links}
    links += [link for link in collection["links"] if (link["rel"], link["href"]) not in link_keys]
    assets = {
        name: asset
        for name, asset in (existing.get("assets") or {}).items()
        if not str(asset.get("href")).startswith(prefix)
    }
    for name, asset in collection["assets"].items():
        assets[f"{folder}/{name}" if name in assets else name] = asset
    extent = unite_extents(existing.get("extent") or collection["extent"], collection["extent"])
    return {**collection, **existing, "links": links, "assets": assets, "extent": extent}


def unite_extents(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Unite the extents of two STAC Collections."""
    boxes = [extent["spatial"]["bbox"][0] for extent in (one, other)]
    spans = [extent["temporal"]["interval"][0] for extent in (one, other)]
    half = len(boxes[0]) // 2
    low = [min(edges) for edges in zip(*(box[:half] for box in boxes), strict=True)]
    high = [max(edges) for edges in zip(*(box[half:] for box in boxes), strict=True)]
    start = None if None in (starts := [s[0] for s in spans]) else min(starts)
    end = None if None in (ends := [s[1] for s in spans]) else max(ends)
    return {"spatial": {"bbox": [[*low, *high]]}, "temporal": {"interval": [[start, end]]}}


def _read_json(store: Storage, key: str) -> Any:
    try:
        with store.open(key) as stream:
            return json.load(stream)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _invalid_merge("the file at this path is not a STAC document.") from error


def _write_json(store: Storage, key: str, document: Mapping[str, Any]) -> None:
    text = json.dumps(document, ensure_ascii=False, indent=1)
    store.write(key, io.BytesIO(text.encode()))


def _check_room(config: Config, target: CollectionTarget, size: int) -> None:
    workspace, limits = target.workspace, []
    if workspace.quota is not None:
        limits.append(workspace.quota - _count_bytes(target.store, workspace.folder))
    if workspace.provider == BUILT_IN and config.user_storage_bytes is not None:
        limits.append(
            config.user_storage_bytes - _count_bytes(target.store, f"{WORKSPACES}/{workspace.user}")
        )
    free_bytes = min(limits, default=size)
    if size > free_bytes:
        raise StorageQuotaExceeded(free=max(free_bytes, 0))


def _count_bytes(store: Storage, folder: str) -> int:
    return sum(store.sizes(folder).values())


def _invalid_merge(reason: str) -> ProcessParameterInvalid:
    return ProcessParameterInvalid(process="export_workspace", parameter="merge", reason=reason)
