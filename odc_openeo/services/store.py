"""Store and change services, their usage and logs. Users cannot see services of other users."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, insert, select, tuple_, update

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.db.logs import make_log_columns, read_logs
from odc_openeo.db.paging import parse_place, read_page
from odc_openeo.errors import ServiceNotFound
from odc_openeo.jobs import Entry, Page
from odc_openeo.jobs.usage import Amounts, find_collections
from odc_openeo.jobs.usage import add_usage as record_usage
from odc_openeo.services.model import Ranges, Service, ServiceDraft
from odc_openeo.telemetry.log_records import record_event

MOST_ENTRIES: Final = 10_000
"""Log entries kept per service; beyond that the oldest are deleted."""

JSON_COLUMNS: Final = ("process", "configuration", "extras")
TILE_COLUMNS: Final = ("process", "configuration")
"""Columns whose change changes the tiles."""


def create_service(config: Config, user: UUID, draft: ServiceDraft) -> UUID:
    """Store a new service of a user and return its id."""
    row = db.ServiceRow(user_id=user, **_make_columns(asdict(draft)))
    with db.session(config) as session:
        session.add(row)
        session.flush()
    record_event("service_created", service=row.id, owner=user)
    return row.id


def _make_columns(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: json.dumps(v) if name in JSON_COLUMNS else v for name, v in values.items()}


def get_service(config: Config, user: UUID, id_: str) -> Service:
    """Return a service of a user; ServiceNotFound if they have none with this id."""
    return _get_row(config, id_, *_match_owner(user, id_))


def get_active_service(config: Config, id_: UUID) -> Service:
    """Return a service of any user whose account is not disabled; access to its tiles is checked elsewhere.

    Raises:
        ServiceNotFound: there is none, or the account of its owner is disabled.
    """
    active = (
        select(db.User.id).where(db.User.id == db.ServiceRow.user_id, db.User.disabled.is_(False)).exists()
    )
    return _get_row(config, str(id_), db.ServiceRow.id == id_, active)


def _get_row(config: Config, id_: str, *where: ColumnElement[bool]) -> Service:
    with db.autocommit_session(config) as session:
        row = session.scalar(select(db.ServiceRow).where(*where))
    if row is None:
        raise ServiceNotFound(identifier=id_)
    return _make_service(row)


def _make_service(row: db.ServiceRow) -> Service:
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
    ranges = None if row.look is None else _parse_ranges(row.look)
    usage = (row.tiles, row.nbytes, row.cpu_s)
    return Service(row.id, row.user_id, draft, row.version, ranges, *usage, row.created)


def list_services(
    config: Config, user: UUID, limit: int | None = None, after: str | None = None
) -> Page[Service]:
    """List the services of a user, newest first: ``limit`` of them (None: all) from the place ``after``."""
    order = (db.ServiceRow.created, db.ServiceRow.id)
    query = select(db.ServiceRow).where(db.ServiceRow.user_id == user).order_by(*(c.desc() for c in order))
    if after is not None:
        query = query.where(tuple_(*order) < tuple_(*parse_place(after)))
    return read_page(
        config, query, limit, _make_service, lambda service: f"{service.created.isoformat()}_{service.id}"
    )


def update_service(config: Config, user: UUID, id_: str, changes: Mapping[str, Any]) -> None:
    """Change fields of the `ServiceDraft` of a service; ``extras`` are added to the stored ones.

    Raises:
        ServiceNotFound: the user has no such service.
    """
    with db.session(config) as session:
        row = session.scalar(select(db.ServiceRow).where(*_match_owner(user, id_)).with_for_update())
        if row is None:
            raise ServiceNotFound(identifier=id_)
        values = dict(changes)
        if "extras" in values:
            values["extras"] = {**json.loads(row.extras), **values["extras"]}
        for name, value in _make_columns(values).items():
            setattr(row, name, value)
        if changes.keys() & set(TILE_COLUMNS):
            row.version, row.look = row.version + 1, None
        row.updated = db.now()


def delete_service(config: Config, user: UUID, id_: str) -> None:
    """Delete a service with its logs; ServiceNotFound if the user has none with this id."""
    with db.session(config) as session:
        deleted_id = session.scalar(
            delete(db.ServiceRow).where(*_match_owner(user, id_)).returning(db.ServiceRow.id)
        )
    if deleted_id is None:
        raise ServiceNotFound(identifier=id_)
    record_event("service_deleted", service=deleted_id, owner=user)


def _match_owner(user: UUID, id_: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    try:
        return db.ServiceRow.id == UUID(id_), db.ServiceRow.user_id == user
    except ValueError as error:
        raise ServiceNotFound(identifier=id_) from error


# --- Usage and logs ------------------------------------------------------------------------------


def remember_ranges(config: Config, service: Service, ranges: Ranges) -> Ranges:
    """Store measured ranges unless another process was faster; return the stored ones."""
    row = db.ServiceRow
    kept_ranges = func.coalesce(row.look, json.dumps(list(ranges)))
    query = update(row).where(row.id == service.id, row.version == service.version).values(look=kept_ranges)
    with db.session(config) as session:
        stored = session.scalar(query.returning(row.look))
    return ranges if stored is None else _parse_ranges(stored)


def _parse_ranges(look: str) -> Ranges:
    return [(low, high) for low, high in json.loads(look)]


def add_usage(config: Config, id_: UUID, tiles: int, nbytes: int, cpu_s: float) -> None:
    """Add to the usage counts of a service."""
    row = db.ServiceRow
    usage = {"tiles": row.tiles + tiles, "nbytes": row.nbytes + nbytes, "cpu_s": row.cpu_s + cpu_s}
    with db.session(config) as session:
        changed = update(row).where(row.id == id_).values(**usage).returning(row.user_id, row.process)
        owner = session.execute(changed).first()
    if owner is not None:
        amounts = Amounts(runs=tiles, cpu_s=cpu_s, nbytes=nbytes)
        record_usage(config, owner[0], "service", find_collections(json.loads(owner[1])), amounts)


def add_log_entries(config: Config, id_: UUID, entries: Sequence[Entry]) -> None:
    """Add entries to the logs of a service, if it still exists; delete the oldest if there are too many."""
    rows = [{"service_id": id_, **make_log_columns(entry)} for entry in entries]
    table = db.ServiceLog
    with db.session(config) as session:
        if not rows or session.scalar(select(db.ServiceRow.id).where(db.ServiceRow.id == id_)) is None:
            return
        session.execute(insert(table), rows)
        newest_first = select(table.id).where(table.service_id == id_).order_by(table.id.desc())
        oldest = newest_first.offset(MOST_ENTRIES).limit(1).scalar_subquery()
        session.execute(delete(table).where(table.service_id == id_, table.id <= oldest))


def list_logs(
    config: Config, service: Service, level: str, limit: int | None, after: str | None
) -> Page[Entry]:
    """List log entries of a service by time: ``limit`` of them (None: all) after the entry ``after``."""
    where = db.ServiceLog.service_id == service.id
    return read_logs(config, db.ServiceLog, where, level, limit, after)
