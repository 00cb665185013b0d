"""Processes that users have stored, and processes at URLs. Private ones are invisible to other users."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Final
from uuid import UUID

from sqlalchemy import delete as delete_
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.db.paging import read_page
from odc_openeo.errors import OpenEOError, ProcessGraphNotFound, ProcessNamespaceInvalid
from odc_openeo.jobs import Page
from odc_openeo.untrusted import safe_http

SHARED: Final = "/shared/processes"
"""Path of public processes below the root URL of the service; they need no sign-in."""


@dataclass(frozen=True)
class UserDefinedProcess:
    """A user-defined process; ``process`` is the document as the user sent it."""

    id: str
    process: Mapping[str, Any]
    public: bool
    share: UUID
    updated: datetime


def save_process(config: Config, user: UUID, id_: str, process: Mapping[str, Any], *, public: bool) -> None:
    """Store a process, or replace the one with this id; its public URL stays the same."""
    values = {"process": json.dumps(process), "public": public}
    statement = insert(db.StoredProcess).values(user_id=user, id=id_, **values)
    changed = {**values, "updated": func.now()}
    with db.session(config) as session:
        session.execute(statement.on_conflict_do_update(index_elements=["user_id", "id"], set_=changed))


def find_process(config: Config, user: UUID, id_: str) -> UserDefinedProcess | None:
    """Find a process of a user; None if they have none with this id."""
    with db.session(config) as session:
        row = session.get(db.StoredProcess, (user, id_))
        return None if row is None else _make_process(row)


def list_ids(config: Config, user: UUID) -> frozenset[str]:
    """List the ids of all processes of a user."""
    query = select(db.StoredProcess.id).where(db.StoredProcess.user_id == user)
    with db.autocommit_session(config) as session:
        return frozenset(session.scalars(query))


def get_process(config: Config, user: UUID, id_: str) -> UserDefinedProcess:
    """Get a process of a user; ProcessGraphNotFound if they have none with this id."""
    process = find_process(config, user, id_)
    if process is None:
        raise ProcessGraphNotFound(identifier=id_)
    return process


def list_processes(
    config: Config, user: UUID, limit: int | None, after: str | None
) -> Page[UserDefinedProcess]:
    """Read a page of the processes of a user, by id."""
    query = select(db.StoredProcess).where(db.StoredProcess.user_id == user).order_by(db.StoredProcess.id)
    if after is not None:
        query = query.where(db.StoredProcess.id > after)
    return read_page(config, query, limit, _make_process, lambda process: process.id)


def delete_process(config: Config, user: UUID, id_: str) -> None:
    """Delete a process; ProcessGraphNotFound if there is none with this id."""
    key_conditions = (db.StoredProcess.user_id == user, db.StoredProcess.id == id_)
    with db.session(config) as session:
        gone = session.scalar(delete_(db.StoredProcess).where(*key_conditions).returning(db.StoredProcess.id))
    if gone is None:
        raise ProcessGraphNotFound(identifier=id_)


def get_shared_process(config: Config, share: str) -> UserDefinedProcess:
    """Get a public process by its share; ProcessGraphNotFound if there is none."""
    with db.session(config) as session:
        row = session.scalar(
            select(db.StoredProcess).where(
                db.StoredProcess.share == UUID(share), db.StoredProcess.public.is_(True)
            )
        )
        if row is None:
            raise ProcessGraphNotFound(identifier=share)
        return _make_process(row)


def _make_process(row: db.StoredProcess) -> UserDefinedProcess:
    return UserDefinedProcess(row.id, json.loads(row.process), row.public, row.share, row.updated)


# --- Use in process graphs -----------------------------------------------------------------------


@dataclass
class Library:
    """Looks up the processes that a process graph calls besides the predefined ones; one per graph.

    ``user`` is None for anonymous requests, which can only call processes at URLs. ``list_own_ids`` lists the
    ids of the user's processes, by default from the database.
    """

    config: Config
    user: UUID | None
    documents: dict[str, Any] = field(default_factory=dict)
    list_own_ids: Callable[[], frozenset[str]] | None = None

    @cached_property
    def _process_ids(self) -> frozenset[str]:
        """The ids of the user's processes, queried once as a graph may have thousands of nodes."""
        if self.list_own_ids is not None:
            return self.list_own_ids()
        return list_ids(self.config, self.user) if self.user else frozenset()

    def __call__(self, id_: str, namespace: str | None) -> Mapping[str, Any] | None:
        """Look up the definition of a process; None if the namespace does not have it.

        Raises:
            ProcessNamespaceInvalid: the namespace is a URL, but not of this process.
            UrlForbidden, UrlUnreachable, UrlTooLarge: it is a URL that can't be read.
        """
        if namespace in (None, "user"):
            process = (
                find_process(self.config, self.user, id_) if self.user and id_ in self._process_ids else None
            )
            return None if process is None else process.process
        if not re.match(r"https?://", str(namespace)):
            return None
        return self._get_remote(id_, str(namespace))

    def _get_remote(self, id_: str, address: str) -> Mapping[str, Any]:
        if address not in self.documents:
            self.documents[address] = self._fetch_document(id_, address)
        document = self.documents[address]
        processes = document.get("processes") if isinstance(document, Mapping) else None
        candidates = processes if isinstance(processes, list) else [document]
        matches = [
            process for process in candidates if isinstance(process, Mapping) and process.get("id") == id_
        ]
        if not matches:
            reason = "there is no process with this id at the URL."
            raise ProcessNamespaceInvalid(namespace=address, process=id_, reason=reason)
        if not isinstance(matches[0].get("process_graph"), Mapping):
            reason = "the process at the URL has no process graph."
            raise ProcessNamespaceInvalid(namespace=address, process=id_, reason=reason)
        return dict(matches[0])

    def _fetch_document(self, id_: str, address: str) -> Any:
        shared_path = re.fullmatch(SHARED + r"/([0-9a-f-]{36})", self.config.own_path(address) or "")
        if shared_path is None:
            return safe_http.fetch_json(safe_http.Policy.from_config(self.config), address)
        try:
            process = get_shared_process(self.config, shared_path[1])
        except (OpenEOError, ValueError) as error:
            reason = "there is no public process at the URL."
            raise ProcessNamespaceInvalid(namespace=address, process=id_, reason=reason) from error
        return {**process.process, "id": process.id}
