"""Log records of Python as log entries of openEO."""

from __future__ import annotations

import logging

from odc_openeo import db
from odc_openeo.jobs.model import LEVELS, Entry
from odc_openeo.process import NODES


def entry_of(record: logging.LogRecord) -> Entry:
    """The entry for a record, with the nodes of the process graph that are being evaluated."""
    more = {name: value for name in ("code", "data") if (value := getattr(record, name, None)) is not None}
    path = [{"node_id": node, "process_id": process} for node, process in NODES.get()]
    level = next((name for name, value in reversed(LEVELS.items()) if record.levelno >= value), "debug")
    return Entry(level, record.getMessage(), db.now(), {**more, **({"path": path} if path else {})})
