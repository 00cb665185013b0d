"""What users do with their services, and what serving tiles writes down. Others' services do not exist."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, func, insert, select, tuple_
from sqlalchemy import delete as delete_
from sqlalchemy import update as update_

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.errors import ServiceNotFound
from odc_openeo.jobs import Entry, Page
from odc_openeo.jobs.store import log_columns, place, read_logs, read_page
from odc_openeo.services.model import Ranges, Service, ServiceDraft

MOST_ENTRIES: Final = 10_000
"""Log entries kept of a service; the oldest make room."""

AS_JSON: Final = ("process", "configuration", "extras")
SHOWN: Final = ("process", "configuration")
"""What changes the tiles."""


def create(config: Config, user: UUID, draft: ServiceDraft) -> UUID:
    """Store a new service of a user; its id."""
    row = db.Service(user_id=user, **_columns(asdict(draft)))
    with db.session(config) as session:
        session.add(row)
        session.flush()
        return row.id


def _columns(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: json.dumps(v) if name in AS_JSON else v for name, v in values.items()}


def get(config: Config, user: UUID, id_: str) -> Service:
    """A service of a user; ServiceNotFound if they have none of this id."""
    return _one(config, id_, *_own(user, id_))


def find(config: Config, id_: UUID) -> Service:
    """A service of anybody, for those who may see its tiles.

    Raises:
        ServiceNotFound: there is none, or its owner may not sign in any more.
    """
    active = select(db.User.id).where(db.User.id == db.Service.user_id, db.User.disabled.is_(False)).exists()
    return _one(config, str(id_), db.Service.id == id_, active)


def _one(config: Config, id_: str, *where: ColumnElement[bool]) -> Service:
    with db.session(config) as session:
        row = session.scalar(select(db.Service).where(*where))
    if row is None:
        raise ServiceNotFound(identifier=id_)
    return _service(row)


def _service(row: db.Service) -> Service:
    draft = ServiceDraft(
        type=row.type,
        process=json.loads(row.process),
        title=row.title,
        description=row.description,
        enabled=row.enabled,
        configuration=json.loads(row.configuration),
        plan=row.plan,
        budget=row.budget,
        log_level=row.log_level,
        extras=json.loads(row.extras),
    )
    ranges = None if row.look is None else _ranges(row.look)
    usage = (row.tiles, row.nbytes, row.cpu_s)
    return Service(row.id, row.user_id, draft, row.version, ranges, *usage, row.created)


def list_services(
    config: Config, user: UUID, limit: int | None = None, after: str | None = None
) -> Page[Service]:
    """A user's services, the newest first: ``limit`` of them (None: all) from the place ``after``."""
    order = (db.Service.created, db.Service.id)
    query = select(db.Service).where(db.Service.user_id == user).order_by(*(c.desc() for c in order))
    if after is not None:
        query = query.where(tuple_(*order) < tuple_(*place(after)))
    return read_page(config, query, limit, _service, lambda each: f"{each.created.isoformat()}_{each.id}")


def update(config: Config, user: UUID, id_: str, changes: Mapping[str, Any]) -> None:
    """Change what the user says of a service: fields of `ServiceDraft`; ``extras`` are added.

    Raises:
        ServiceNotFound: the user has no such service.
    """
    with db.session(config) as session:
        row = session.scalar(select(db.Service).where(*_own(user, id_)).with_for_update())
        if row is None:
            raise ServiceNotFound(identifier=id_)
        values = dict(changes)
        if "extras" in values:
            values["extras"] = {**json.loads(row.extras), **values["extras"]}
        for name, value in _columns(values).items():
            setattr(row, name, value)
        if changes.keys() & set(SHOWN):
            row.version, row.look = row.version + 1, None
        row.updated = db.now()


def delete(config: Config, user: UUID, id_: str) -> None:
    """Delete a service with its logs; ServiceNotFound if the user has none of this id."""
    with db.session(config) as session:
        found = session.scalar(delete_(db.Service).where(*_own(user, id_)).returning(db.Service.id))
    if found is None:
        raise ServiceNotFound(identifier=id_)


def _own(user: UUID, id_: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    try:
        return db.Service.id == UUID(id_), db.Service.user_id == user
    except ValueError as error:
        raise ServiceNotFound(identifier=id_) from error


# --- What serving writes down --------------------------------------------------------------------


def remember_ranges(config: Config, service: Service, ranges: Ranges) -> Ranges:
    """Keep what was measured unless somebody was quicker; what is kept now."""
    row = db.Service
    kept = func.coalesce(row.look, json.dumps(list(ranges)))
    query = update_(row).where(row.id == service.id, row.version == service.version).values(look=kept)
    with db.session(config) as session:
        found = session.scalar(query.returning(row.look))
    return ranges if found is None else _ranges(found)


def _ranges(look: str) -> Ranges:
    return [(low, high) for low, high in json.loads(look)]


def count(config: Config, id_: UUID, tiles: int, nbytes: int, cpu_s: float) -> None:
    """Add to the usage of a service."""
    row = db.Service
    added = {"tiles": row.tiles + tiles, "nbytes": row.nbytes + nbytes, "cpu_s": row.cpu_s + cpu_s}
    with db.session(config) as session:
        session.execute(update_(row).where(row.id == id_).values(**added))


def log(config: Config, id_: UUID, entries: Sequence[Entry]) -> None:
    """Add entries to the logs of a service, if it still exists; the oldest of too many go."""
    rows = [{"service_id": id_, **log_columns(entry)} for entry in entries]
    table = db.ServiceLog
    with db.session(config) as session:
        if not rows or session.scalar(select(db.Service.id).where(db.Service.id == id_)) is None:
            return
        session.execute(insert(table), rows)
        own = select(table.id).where(table.service_id == id_).order_by(table.id.desc())
        oldest = own.offset(MOST_ENTRIES).limit(1).scalar_subquery()
        session.execute(delete_(table).where(table.service_id == id_, table.id <= oldest))


def list_logs(
    config: Config, service: Service, level: str, limit: int | None, after: str | None
) -> Page[Entry]:
    """Log entries of a service in order of time: ``limit`` of them (None: all) after the entry ``after``."""
    where = db.ServiceLog.service_id == service.id
    return read_logs(config, db.ServiceLog, where, level, limit, after)
