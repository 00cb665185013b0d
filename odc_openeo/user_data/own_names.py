"""The ids of the processes and collections of a user, which a graph may use by name: one query for both."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from uuid import UUID

from sqlalchemy import literal, select

from odc_openeo import db
from odc_openeo.config import Config


@dataclass
class OwnNames:
    """The ids of what a user has, as they are when they are first needed; one per graph."""

    config: Config
    user: UUID

    def list_processes(self) -> frozenset[str]:
        """List the ids of the user's processes."""
        return self._ids["process"]

    def list_collections(self) -> frozenset[str]:
        """List the ids of the collections that the user has exported to."""
        return self._ids["collection"]

    @cached_property
    def _ids(self) -> dict[str, frozenset[str]]:
        processes, collections = (
            select(literal(kind).label("kind"), table.id).where(table.user_id == self.user)
            for kind, table in (("process", db.StoredProcess), ("collection", db.UserCollection))
        )
        with db.connect_once(self.config) as connection:
            rows = connection.execute(processes.union_all(collections)).all()
        return {
            kind: frozenset(row.id for row in rows if row.kind == kind) for kind in ("process", "collection")
        }
