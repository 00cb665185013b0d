"""Cubes in workspaces, as Icechunk repositories: jobs append dates to them, each in one commit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.db.locks import lock_for_transaction
from odc_openeo.errors import FeatureUnsupported, ProcessParameterInvalid, StorageFailure
from odc_openeo.formats.icechunk_appending import CubeAppend
from odc_openeo.formats.icechunk_documents import CubesDiffer
from odc_openeo.formats.repositories import CommitConflict, open_repository
from odc_openeo.storage import Storage, get_storage
from odc_openeo.storage.repository_places import keeps_repositories, open_repository_place
from odc_openeo.user_data.workspaces import store as workspace_store
from odc_openeo.user_data.workspaces.store import Workspace

MOST_TRIES: Final = 10
"""Tries of an append while others commit to the same cube."""


def check_place_of_cubes(config: Config, workspace: Workspace) -> None:
    """Check that dates can be appended to cubes in a workspace.

    Raises:
        FeatureUnsupported: Icechunk does not reach the storage of the workspace, or of results.
    """
    places = (
        (get_storage(config), "results"),
        (
            workspace_store.get_storage(config, workspace),
            workspace.folder,
        ),
    )
    if not all(keeps_repositories(store, key) for store, key in places):
        feature = "appending to cubes that are neither in a folder nor in a bucket of S3"
        raise FeatureUnsupported(feature=feature)


def append_cube(
    config: Config, workspace: Workspace, source: str, key: str, run: str, *, replaces: bool
) -> None:
    """Append the dates of the cube at ``source`` in the service's storage to that at ``key`` of a workspace.

    It is created if it does not exist. Readers see all dates or none.

    Raises:
        ProcessParameterInvalid: the cubes don't fit together; the message says what differs.
        StorageFailure: others commit all the time.
    """
    store = workspace_store.get_storage(config, workspace)
    _refuse_links(store, workspace.folder, key)
    place, name = open_repository_place(store, key), f"repository {key}"
    origin = open_repository(open_repository_place(get_storage(config), source))
    with db.session(config) as session:
        lock_for_transaction(session, name)
        open_repository(place, may_create=True)
    for _ in range(MOST_TRIES):
        append = CubeAppend(origin, open_repository(place), run, replaces)
        prepared = _prepare_commit(append, key.removeprefix(f"{workspace.folder}/"))
        with db.session(config) as session:
            lock_for_transaction(session, name)
            try:
                append.commit_dates(prepared)
            except CommitConflict:
                continue
        return
    raise StorageFailure


def _prepare_commit(append: CubeAppend, path: str) -> Any:
    try:
        return append.prepare_commit()
    except CubesDiffer as difference:
        reason = f"dates can't be appended to the cube at '{path}' in the workspace: {difference}"
        raise ProcessParameterInvalid(
            process="export_workspace", parameter="merge", reason=reason
        ) from difference


def _refuse_links(store: Storage, folder: str, key: str) -> None:
    """Refuse repositories in folders with links, which may lead to files of others."""
    path, top = store.find_local_path(key), store.find_local_path(folder)
    if path is None or top is None:
        return
    parents = [parent for parent in (path, *path.parents) if parent.is_relative_to(top)]
    if any(parent.is_symlink() for parent in parents) or _has_links(path):
        reason = "the cube at this path has links to other files, which are not followed."
        raise ProcessParameterInvalid(process="export_workspace", parameter="merge", reason=reason)


def _has_links(folder: Path) -> bool:
    return any(
        os.path.islink(os.path.join(place, name))
        for place, folders, files in os.walk(folder)
        for name in (*folders, *files)
    )
