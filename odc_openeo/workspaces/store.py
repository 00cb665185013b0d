"""Which workspaces there are, and the files in them. Workspaces of others do not exist."""

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
from odc_openeo.errors import FileNotFound, RequestInvalid, WorkspaceNotFound, WorkspaceUnavailable
from odc_openeo.jobs import Page
from odc_openeo.jobs.store import read_page
from odc_openeo.storage import Storage
from odc_openeo.workspaces.providers import find_provider, place, providers

WORKSPACES: Final = "workspaces"
LONGEST_ID: Final = 60


@dataclass(frozen=True)
class Draft:
    """What a user says of a new workspace; ``provider`` None is the first one, ``quota`` in bytes."""

    title: str | None = None
    description: str | None = None
    provider: str | None = None
    quota: int | None = None


@dataclass(frozen=True)
class Workspace:
    """A workspace; ``key`` names its folder and is never used again."""

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
        """Where its files are in the storage of its provider."""
        return f"{WORKSPACES}/{self.user}/{self.key}"


def create(config: Config, user: UUID, draft: Draft) -> Workspace:
    """A new workspace, ready at once; its id is made of the title.

    Raises:
        RequestInvalid: there is no such provider.
    """
    provider = find_provider(config, draft.provider)
    if provider is None:
        known = ", ".join(providers(config))
        raise RequestInvalid(reason=f"there is no workspace provider '{draft.provider}'. There are: {known}.")
    values = {
        "user_id": user,
        "provider": provider,
        "title": draft.title,
        "description": draft.description,
        "quota": draft.quota,
    }
    for id_ in _ids(draft.title):
        statement = insert(db.Workspace).values(id=id_, **values)
        statement = statement.on_conflict_do_nothing(index_elements=["user_id", "id"])
        with db.session(config) as session:
            row = session.scalar(statement.returning(db.Workspace))
        if row is not None:
            return _workspace(row)
    raise RequestInvalid(reason="no id could be found for the workspace. Give it another title.")


def _ids(title: str | None) -> list[str]:
    name = re.sub(r"[^a-z0-9]+", "-", (title or "").lower()).strip("-")[:LONGEST_ID] or "workspace"
    return [name, *(f"{name}-{secrets.token_hex(4)}" for _ in range(3))]


def get(config: Config, user: UUID, id_: str) -> Workspace:
    """A workspace of a user; WorkspaceNotFound if there is none of this id."""
    with db.session(config) as session:
        row = session.scalar(select(db.Workspace).where(*_own(user, id_)))
        if row is None:
            raise WorkspaceNotFound(identifier=id_)
        return _workspace(row)


def list_workspaces(config: Config, user: UUID, limit: int | None, after: str | None) -> Page[Workspace]:
    """The workspaces of a user by id, a part of them."""
    query = select(db.Workspace).where(db.Workspace.user_id == user).order_by(db.Workspace.id)
    if after is not None:
        query = query.where(db.Workspace.id > after)
    return read_page(config, query, limit, _workspace, lambda each: each.id)


def update(config: Config, user: UUID, id_: str, changes: Mapping[str, Any]) -> None:
    """Change title or description; WorkspaceNotFound if there is none of this id."""
    statement = update_(db.Workspace).where(*_own(user, id_)).values(**changes, updated=func.now())
    with db.session(config) as session:
        if session.scalar(statement.returning(db.Workspace.key)) is None:
            raise WorkspaceNotFound(identifier=id_)


def delete(config: Config, user: UUID, id_: str) -> None:
    """Remove a workspace with all its files; WorkspaceNotFound if there is none of this id."""
    found = get(config, user, id_)
    with db.session(config) as session:
        session.execute(delete_(db.Workspace).where(db.Workspace.key == found.key))
        # Files last: if they can't be removed, the workspace stays.
        store = place(config, found.provider)
        if store is not None:
            store.delete(found.folder)


def _own(user: UUID, id_: str) -> tuple[Any, ...]:
    return db.Workspace.user_id == user, db.Workspace.id == id_


def _workspace(row: db.Workspace) -> Workspace:
    told = (row.provider, row.title, row.description, row.quota, row.created)
    return Workspace(row.id, row.key, row.user_id, *told)


# --- Files ---------------------------------------------------------------------------------------


def storage_of(config: Config, workspace: Workspace) -> Storage:
    """Where the files of a workspace are; WorkspaceUnavailable if its provider is gone."""
    store = place(config, workspace.provider)
    if store is None:
        raise WorkspaceUnavailable(identifier=workspace.id, provider=workspace.provider)
    return store


def list_files(config: Config, workspace: Workspace) -> list[tuple[str, int]]:
    """Paths and sizes of all files of a workspace."""
    top = f"{workspace.folder}/"
    found = storage_of(config, workspace).sizes(workspace.folder)
    return [(key.removeprefix(top), size) for key, size in found.items()]


def used(config: Config, workspace: Workspace) -> int:
    """Bytes that the files of a workspace take."""
    return sum(size for _, size in list_files(config, workspace))


def find_file(config: Config, workspace: Workspace, path: str) -> tuple[IO[bytes], int]:
    """A file to read, and its size; FileNotFound if there is none."""
    store, key = storage_of(config, workspace), f"{workspace.folder}/{path}"
    try:
        size = store.size(key)
        if size is None:
            raise FileNotFound(file=path)
        return store.open(key), size
    except (FileNotFoundError, ValueError) as error:
        raise FileNotFound(file=path) from error
