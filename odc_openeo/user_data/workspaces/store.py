"""Workspaces and their files. Users see only their own workspaces."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Any, Final
from uuid import UUID

from sqlalchemy import delete as delete_
from sqlalchemy import func, select
from sqlalchemy import update as update_
from sqlalchemy.dialects.postgresql import insert

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.db.paging import read_page
from odc_openeo.errors import FileNotFound, RequestInvalid, WorkspaceNotFound, WorkspaceUnavailable
from odc_openeo.jobs import Page
from odc_openeo.storage import Storage
from odc_openeo.user_data.workspaces.providers import find_provider, find_storage, load_providers

WORKSPACES: Final = "workspaces"
MAX_ID_LENGTH: Final = 60


@dataclass(frozen=True)
class WorkspaceDraft:
    """The properties of a new workspace; without ``provider`` it is the first one; ``quota`` is in bytes."""

    title: str | None = None
    description: str | None = None
    provider: str | None = None
    quota: int | None = None


@dataclass(frozen=True)
class Workspace:
    """A workspace; ``key`` names its folder and is never reused."""

    id: str
    key: UUID
    user: UUID
    provider: str
    title: str | None
    description: str | None
    quota: int | None
    created: datetime

    @property
    def folder(self) -> str:
        """The folder of its files in the storage of its provider."""
        return f"{WORKSPACES}/{self.user}/{self.key}"


def create_workspace(config: Config, user: UUID, draft: WorkspaceDraft) -> Workspace:
    """Create a workspace, ready at once; its id is made from the title.

    Raises:
        RequestInvalid: there is no such provider.
    """
    provider = find_provider(config, draft.provider)
    if provider is None:
        provider_names = ", ".join(load_providers(config))
        raise RequestInvalid(
            reason=f"there is no workspace provider '{draft.provider}'. Available: {provider_names}."
        )
    values = {
        "user_id": user,
        "provider": provider,
        "title": draft.title,
        "description": draft.description,
        "quota": draft.quota,
    }
    for id_ in _propose_ids(draft.title):
        statement = insert(db.WorkspaceRow).values(id=id_, **values)
        statement = statement.on_conflict_do_nothing(index_elements=["user_id", "id"])
        with db.session(config) as session:
            row = session.scalar(statement.returning(db.WorkspaceRow))
        if row is not None:
            return _make_workspace(row)
    raise RequestInvalid(reason="no unused id was found for the workspace. Give it another title.")


def _propose_ids(title: str | None) -> list[str]:
    name = re.sub(r"[^a-z0-9]+", "-", (title or "").lower()).strip("-")[:MAX_ID_LENGTH] or "workspace"
    return [name, *(f"{name}-{secrets.token_hex(4)}" for _ in range(3))]


def get_workspace(config: Config, user: UUID, id_: str) -> Workspace:
    """Get a workspace of a user; WorkspaceNotFound if there is none with this id."""
    with db.session(config) as session:
        row = session.scalar(select(db.WorkspaceRow).where(*_key_conditions(user, id_)))
        if row is None:
            raise WorkspaceNotFound(identifier=id_)
        return _make_workspace(row)


def list_workspaces(config: Config, user: UUID, limit: int | None, after: str | None) -> Page[Workspace]:
    """Read a page of the workspaces of a user, by id."""
    query = select(db.WorkspaceRow).where(db.WorkspaceRow.user_id == user).order_by(db.WorkspaceRow.id)
    if after is not None:
        query = query.where(db.WorkspaceRow.id > after)
    return read_page(config, query, limit, _make_workspace, lambda workspace: workspace.id)


def update_workspace(config: Config, user: UUID, id_: str, changes: Mapping[str, Any]) -> None:
    """Change title or description; WorkspaceNotFound if there is none with this id."""
    statement = (
        update_(db.WorkspaceRow).where(*_key_conditions(user, id_)).values(**changes, updated=func.now())
    )
    with db.session(config) as session:
        if session.scalar(statement.returning(db.WorkspaceRow.key)) is None:
            raise WorkspaceNotFound(identifier=id_)


def delete_workspace(config: Config, user: UUID, id_: str) -> None:
    """Delete a workspace with all its files; WorkspaceNotFound if there is none with this id."""
    workspace = get_workspace(config, user, id_)
    with db.session(config) as session:
        session.execute(delete_(db.WorkspaceRow).where(db.WorkspaceRow.key == workspace.key))
        # Files last: if they can't be removed, the workspace stays.
        store = find_storage(config, workspace.provider)
        if store is not None:
            store.delete(workspace.folder)


def _key_conditions(user: UUID, id_: str) -> tuple[Any, ...]:
    return db.WorkspaceRow.user_id == user, db.WorkspaceRow.id == id_


def _make_workspace(row: db.WorkspaceRow) -> Workspace:
    fields = (row.provider, row.title, row.description, row.quota, row.created)
    return Workspace(row.id, row.key, row.user_id, *fields)


# --- Files ---------------------------------------------------------------------------------------


def get_storage(config: Config, workspace: Workspace) -> Storage:
    """Get the storage of a workspace; WorkspaceUnavailable if its provider is gone."""
    store = find_storage(config, workspace.provider)
    if store is None:
        raise WorkspaceUnavailable(identifier=workspace.id, provider=workspace.provider)
    return store


def list_files(config: Config, workspace: Workspace) -> list[tuple[str, int]]:
    """List paths and sizes of all files of a workspace."""
    top = f"{workspace.folder}/"
    file_sizes = get_storage(config, workspace).sizes(workspace.folder)
    return [(key.removeprefix(top), size) for key, size in file_sizes.items()]


def count_used_bytes(config: Config, workspace: Workspace) -> int:
    """Count the bytes of all files of a workspace."""
    return sum(size for _, size in list_files(config, workspace))


def open_file(config: Config, workspace: Workspace, path: str) -> tuple[IO[bytes], int]:
    """Open a file to read it, and return it with its size; FileNotFound if there is none."""
    store, key = get_storage(config, workspace), f"{workspace.folder}/{path}"
    try:
        size = store.size(key)
        if size is None:
            raise FileNotFound(file=path)
        return store.open(key), size
    except (FileNotFoundError, ValueError) as error:
        raise FileNotFound(file=path) from error
