"""Conversion of Python log records to openEO log entries."""

from __future__ import annotations

import logging
from typing import Final

from odc_openeo import db
from odc_openeo.db.logs import LEVELS, Entry
from odc_openeo.registry.environment import NODES

LONGEST_MESSAGE: Final = 10_000
LONGEST_DATA: Final = 100_000
"""Maximum number of characters of the data of an entry."""


def make_entry(record: logging.LogRecord) -> Entry:
    """Return the entry for a record, with its nodes of the process graph, by default those evaluated now."""
    more = {name: value for name in ("code", "data") if (value := getattr(record, name, None)) is not None}
    if len(repr(more.get("data"))) > LONGEST_DATA:
        more["data"] = f"{repr(more['data'])[:1000]} … (shortened: too long for the log)"
    nodes = getattr(record, "path", None) or NODES.get()
    path = [{"node_id": node, "process_id": process} for node, process in nodes]
    level = next((name for name, value in reversed(LEVELS.items()) if record.levelno >= value), "debug")
    return Entry(
        level, record.getMessage()[:LONGEST_MESSAGE], db.now(), {**more, **({"path": path} if path else {})}
    )
