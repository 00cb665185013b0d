"""Ids of request, job and user in log records, and the events of the audit log."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Final

IDS: Final = ("request", "job", "user")

_ids: ContextVar[Mapping[str, str]] = ContextVar("ids of log records")
_process_ids: Final[dict[str, str]] = {}
_audit = logging.getLogger("odc_openeo.audit")
# Events count whatever the level of other messages.
_audit.setLevel(logging.INFO)


def set_log_ids(**ids: object) -> None:
    """Set ids of the records of this context (thread): only those that are named stay."""
    _ids.set(_as_strings(ids))


def add_log_ids(**ids: object) -> None:
    """Add ids to those of this context."""
    _ids.set({**_ids.get({}), **_as_strings(ids)})


@contextlib.contextmanager
def log_ids(**ids: object) -> Iterator[None]:
    """Add ids to the records of a block."""
    token = _ids.set({**_ids.get({}), **_as_strings(ids)})
    try:
        yield
    finally:
        _ids.reset(token)


def set_process_log_ids(**ids: object) -> None:
    """Set ids of the records of all threads of this process."""
    _process_ids.update(_as_strings(ids))


def get_log_ids() -> dict[str, str]:
    """Return the ids of a record that is made here."""
    return {**_process_ids, **_ids.get({})}


def record_event(event: str, **fields: Any) -> None:
    """Record an event in the audit log, with fields that are not None: ids, names, numbers, never secrets."""
    kept = {name: value for name, value in fields.items() if value is not None}
    text = " ".join([event, *(f"{name}={value}" for name, value in kept.items())])
    _audit.info("%s", text, extra={"fields": {"event": event, **kept}})


def _as_strings(ids: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in ids.items() if value is not None}
