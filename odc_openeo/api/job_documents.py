"""Jobs and logs as JSON: what requests hold, what answers show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from flask import request

from odc_openeo.api.backend import api_url, link
from odc_openeo.api.body import TEXTS, check_numbers, text_or_null
from odc_openeo.api.process_documents import check_process
from odc_openeo.errors import (
    BillingPlanInvalid,
    BudgetInvalid,
    ProcessInvalid,
    PropertyNotEditable,
    RequestInvalid,
)
from odc_openeo.jobs import LEVELS, Entry, Job, JobDraft, Page, Summary
from odc_openeo.jobs.options import resources
from odc_openeo.results import rfc3339

FIXED: Final = frozenset(
    {"id", "status", "progress", "created", "updated", "queued", "started", "unpublished", "costs", "usage"}
    | {"links"}
)
"""Properties of a job that only the service sets."""

KNOWN: Final = frozenset({*TEXTS, "process", "plan", "budget", "log_level"})


def draft(body: Mapping[str, Any]) -> JobDraft:
    """The job that the body of ``POST /jobs`` asks for."""
    if "process" not in body:
        raise ProcessInvalid(
            reason="the body needs a member 'process', an object that holds 'process_graph'."
        )
    # What only the service sets is ignored here, as clients send back what they were given.
    return JobDraft(**changes({k: v for k, v in body.items() if k not in FIXED}))


def changes(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `JobDraft` that a body sets.

    Raises:
        PropertyNotEditable: it sets what only the service sets.
        RequestInvalid, ProcessInvalid, ProcessGraphMissing, BudgetInvalid, BillingPlanInvalid: a bad value.
    """
    for name in sorted(body.keys() & FIXED):
        raise PropertyNotEditable(property=name)
    check_numbers(body)
    found: dict[str, Any] = {name: text_or_null(body, name) for name in TEXTS if name in body}
    if "process" in body:
        found["process"] = _process(body["process"])
    if body.get("plan") is not None:
        raise BillingPlanInvalid
    if "budget" in body:
        found["budget"] = _budget(body["budget"])
    if "log_level" in body:
        found["log_level"] = _level(body["log_level"] or "info", "log_level")
    extras = {name: value for name, value in body.items() if name not in KNOWN}
    resources(extras)
    return {**found, "extras": extras} if extras else found


def _process(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ProcessInvalid(reason="'process' must be an object that holds 'process_graph'.")
    check_process(value)
    return value


def _budget(value: Any) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value <= 0):
        raise BudgetInvalid
    return value


def _level(value: Any, name: str) -> str:
    if not isinstance(value, str) or value not in LEVELS:
        raise RequestInvalid(reason=f"'{name}' must be one of {', '.join(LEVELS)}.")
    return str(value)


# --- Parameters of lists -------------------------------------------------------------------------


def limit_argument() -> int | None:
    """The parameter ``limit``: how many elements a list may have, None for all."""
    given = request.args.get("limit") or None
    if given is None:
        return None
    if not (given.isascii() and given.isdecimal() and int(given[:9]) > 0 and len(given) < 10):
        raise RequestInvalid(reason="'limit' must be a whole number, 1 or more.")
    return int(given)


def flag_argument(name: str) -> bool:
    """A parameter that is ``true`` or ``false``, which is what it is when it is not there."""
    given = request.args.get(name, "false").lower()
    if given not in ("true", "false"):
        raise RequestInvalid(reason=f"'{name}' must be true or false.")
    return given == "true"


def level_argument() -> str:
    """The parameter ``level`` of logs."""
    return _level(request.args.get("level") or "debug", "level")


def page_links(path: str, after: str | None, name: str = "after", **same: Any) -> list[dict[str, Any]]:
    """The links of a page of a list: to the following one, if there is one."""
    if after is None:
        return []
    query = urlencode({key: value for key, value in {**same, name: after}.items() if value is not None})
    return [link("next", f"{api_url(path)}?{query}", "Next page")]


# --- Jobs ----------------------------------------------------------------------------------------


def short_job(job: Summary) -> dict[str, Any]:
    """A job in a listing."""
    shown: dict[str, Any] = {
        "id": str(job.id),
        "title": job.title,
        "status": job.status,
        "progress": _progress(job),
        "created": rfc3339(job.created),
        "updated": rfc3339(job.updated),
    }
    return {name: value for name, value in shown.items() if value is not None}


def _progress(job: Summary) -> float | None:
    known = {"created": None, "queued": 0, "finished": 100}
    return known.get(job.status, round(job.progress, 1))


def full_job(job: Job) -> dict[str, Any]:
    """All of a job; what is not known is left out."""
    times = {"queued": job.queued, "started": job.started, "unpublished": job.unpublished}
    shown = {
        **job.draft.extras,
        **short_job(job),
        "description": job.draft.description,
        "process": job.draft.process,
        "budget": job.draft.budget,
        "log_level": job.draft.log_level,
        "usage": job.usage,
        **{name: rfc3339(time) for name, time in times.items() if time is not None},
        "links": _links(job),
    }
    return {name: value for name, value in shown.items() if value is not None}


def _links(job: Job) -> list[dict[str, Any]]:
    base = f"/jobs/{job.id}"
    monitor = [link("monitor", api_url(f"{base}/logs"), "Logs")]
    result = [link("result", api_url(f"{base}/results"), "Results")] if job.unpublished else []
    return [link("self", api_url(base), "This job"), *monitor, *result]


# --- Logs ----------------------------------------------------------------------------------------


def log_page(path: str, kept: str, page: Page[Entry], level: str, limit: int | None) -> dict[str, Any]:
    """The answer with logs at a path; those below the level ``kept`` were never written."""
    lowest = max(level, kept, key=LEVELS.__getitem__)
    links = page_links(path, page.next, "offset", limit=limit, level=level)
    return {"level": lowest, "logs": [log_entry(entry) for entry in page.items], "links": links}


def log_entry(entry: Entry) -> dict[str, Any]:
    """A log entry."""
    shown = {"id": str(entry.id), "level": entry.level, "message": entry.message, "time": rfc3339(entry.time)}
    return {**shown, **_finite(entry.more)}


def _finite(value: Any) -> Any:
    """Logged data with NaN and infinity as texts, which JSON has no numbers for."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
