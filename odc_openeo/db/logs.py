"""Log entries of jobs and services in the database."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, select

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.db.paging import Page, read_page
from odc_openeo.errors import RequestInvalid

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
"""Levels of log entries, from low to high severity."""


@dataclass(frozen=True)
class Entry:
    """A log entry; ``more`` has the other properties that the API shows: code, data, path, usage."""

    level: str
    message: str
    time: datetime
    more: Mapping[str, Any] = field(default_factory=dict)
    id: int = 0


def read_logs(
    config: Config,
    table: type[db.JobLog] | type[db.ServiceLog],
    where: ColumnElement[bool],
    level: str,
    limit: int | None,
    after: str | None,
) -> Page[Entry]:
    """Read a page of entries from a table of logs, in order of time."""
    query = select(table).where(where, table.level >= LEVELS[level])
    if after:
        if not (after.isascii() and after.isdecimal() and len(after) < 19):
            raise RequestInvalid(reason=f"offset '{after}' is not the id of a log entry.")
        query = query.where(table.id > int(after))
    query = query.order_by(table.id)
    return read_page(config, query, limit, make_entry, lambda entry: str(entry.id))


def make_log_columns(entry: Entry) -> dict[str, Any]:
    """Return the columns for an entry in any table of logs."""
    return {
        "level": LEVELS[entry.level],
        "time": entry.time,
        "message": entry.message.replace("\0", ""),
        "entry": json.dumps(entry.more),
    }


def make_entry(row: db.JobLog | db.ServiceLog) -> Entry:
    level = next(name for name, value in LEVELS.items() if value == row.level)
    return Entry(level, row.message, row.time, json.loads(row.entry), row.id)
