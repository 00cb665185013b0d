"""Processes that users have stored, and those at addresses on the web. Others' private ones do not exist."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Final
from uuid import UUID

from sqlalchemy import delete as delete_
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from odc_openeo import db, outgoing
from odc_openeo.config import Config
from odc_openeo.errors import OpenEOError, ProcessGraphNotFound, ProcessNamespaceInvalid
from odc_openeo.jobs import Page
from odc_openeo.jobs.store import read_page

SHARED: Final = "/shared/processes"
"""Path below the root of the service at which public processes are, without signing in."""


@dataclass(frozen=True)
class Stored:
    """A user-defined process; ``process`` is as it was sent."""

    id: str
    process: Mapping[str, Any]
    public: bool
    share: UUID
    updated: datetime


def save(config: Config, user: UUID, id_: str, process: Mapping[str, Any], *, public: bool) -> None:
    """Store a process, or replace the one of this id; its address for others stays the same."""
    values = {"process": json.dumps(process), "public": public}
    statement = insert(db.StoredProcess).values(user_id=user, id=id_, **values)
    changed = {**values, "updated": func.now()}
    with db.session(config) as session:
        session.execute(statement.on_conflict_do_update(index_elements=["user_id", "id"], set_=changed))


def find(config: Config, user: UUID, id_: str) -> Stored | None:
    """A process of a user, None if they have none of this id."""
    with db.session(config) as session:
        row = session.get(db.StoredProcess, (user, id_))
        return None if row is None else _stored(row)


def ids(config: Config, user: UUID) -> frozenset[str]:
    """The ids of all processes of a user."""
    query = select(db.StoredProcess.id).where(db.StoredProcess.user_id == user)
    with db.reading(config) as session:
        return frozenset(session.scalars(query))


def get(config: Config, user: UUID, id_: str) -> Stored:
    """A process of a user; ProcessGraphNotFound if they have none of this id."""
    found = find(config, user, id_)
    if found is None:
        raise ProcessGraphNotFound(identifier=id_)
    return found


def list_stored(config: Config, user: UUID, limit: int | None, after: str | None) -> Page[Stored]:
    """The processes of a user by id, a part of them."""
    query = select(db.StoredProcess).where(db.StoredProcess.user_id == user).order_by(db.StoredProcess.id)
    if after is not None:
        query = query.where(db.StoredProcess.id > after)
    return read_page(config, query, limit, _stored, lambda each: each.id)


def delete(config: Config, user: UUID, id_: str) -> None:
    """Remove a process; ProcessGraphNotFound if there is none of this id."""
    own = (db.StoredProcess.user_id == user, db.StoredProcess.id == id_)
    with db.session(config) as session:
        gone = session.scalar(delete_(db.StoredProcess).where(*own).returning(db.StoredProcess.id))
    if gone is None:
        raise ProcessGraphNotFound(identifier=id_)


def shared(config: Config, share: str) -> Stored:
    """A public process by its share; ProcessGraphNotFound if there is none."""
    with db.session(config) as session:
        row = session.scalar(
            select(db.StoredProcess).where(
                db.StoredProcess.share == UUID(share), db.StoredProcess.public.is_(True)
            )
        )
        if row is None:
            raise ProcessGraphNotFound(identifier=share)
        return _stored(row)


def _stored(row: db.StoredProcess) -> Stored:
    return Stored(row.id, json.loads(row.process), row.public, row.share, row.updated)


# --- Use in process graphs -----------------------------------------------------------------------


@dataclass
class Library:
    """What process graphs of a user may call beside the predefined processes; for one graph.

    ``user`` is None for those who have not signed in: they have only processes on the web.
    """

    config: Config
    user: UUID | None
    known: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def _own(self) -> frozenset[str]:
        """What the user has: asked once, as a graph may have thousands of nodes."""
        return ids(self.config, self.user) if self.user else frozenset()

    def __call__(self, id_: str, namespace: str | None) -> Mapping[str, Any] | None:
        """The definition of a process, None if the namespace does not have it.

        Raises:
            ProcessNamespaceInvalid: the namespace is an address, but not that of this process.
            UrlForbidden, UrlUnreachable, UrlTooLarge: it is an address that can't be read.
        """
        if namespace in (None, "user"):
            found = find(self.config, self.user, id_) if self.user and id_ in self._own else None
            return None if found is None else found.process
        if not re.match(r"https?://", str(namespace)):
            return None
        return self._remote(id_, str(namespace))

    def _remote(self, id_: str, address: str) -> Mapping[str, Any]:
        if address not in self.known:
            self.known[address] = self._document(id_, address)
        document = self.known[address]
        listed = document.get("processes") if isinstance(document, Mapping) else None
        offered = listed if isinstance(listed, list) else [document]
        found = [each for each in offered if isinstance(each, Mapping) and each.get("id") == id_]
        if not found:
            reason = "there is no process of that id at the address."
            raise ProcessNamespaceInvalid(namespace=address, process=id_, reason=reason)
        if not isinstance(found[0].get("process_graph"), Mapping):
            reason = "the process there has no process graph."
            raise ProcessNamespaceInvalid(namespace=address, process=id_, reason=reason)
        return dict(found[0])

    def _document(self, id_: str, address: str) -> Any:
        own = re.fullmatch(SHARED + r"/([0-9a-f-]{36})", self.config.own_path(address) or "")
        if own is None:
            return outgoing.fetch_json(outgoing.Policy.of(self.config), address)
        try:
            found = shared(self.config, own[1])
        except (OpenEOError, ValueError) as error:
            reason = "there is no public process at the address."
            raise ProcessNamespaceInvalid(namespace=address, process=id_, reason=reason) from error
        return {**found.process, "id": found.id}
