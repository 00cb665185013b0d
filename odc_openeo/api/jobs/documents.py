"""Jobs and logs as JSON: models of request bodies, and documents of responses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from odc_openeo.api.backend import api_url, make_link
from odc_openeo.api.json_body import TitledModel, check_numbers, validate_body
from odc_openeo.api.paging import make_page_links
from odc_openeo.api.processes.schemas import parse_process
from odc_openeo.errors import BillingPlanInvalid, BudgetInvalid, ProcessInvalid, PropertyNotEditable
from odc_openeo.jobs import LEVELS, Entry, Job, JobDraft, JobSummary, Page
from odc_openeo.jobs.options import parse_archives, parse_resources, parse_soft_errors
from odc_openeo.jobs.part_progress import PartsProgress
from odc_openeo.timestamps import format_rfc3339

READ_ONLY: Final = frozenset(
    {"id", "status", "progress", "created", "updated", "queued", "started", "unpublished", "costs", "usage"}
    | {"links", "odc:parts"}
)
"""Properties of a job that only the service sets."""


# --- Requests ------------------------------------------------------------------------------------


def _check_level(level: str) -> str:
    if level not in LEVELS:
        raise ValueError(f"must be one of {', '.join(LEVELS)}")
    return level


def _make_process_error() -> ProcessInvalid:
    return ProcessInvalid(
        reason="the body must have a member 'process', an object that contains 'process_graph'."
    )


class JobChangesModel(TitledModel):
    """The members of a job that users may change."""

    process: dict[str, Any] = {}
    plan: None = None
    budget: Annotated[int | float, Field(gt=0)] | None = None
    log_level: Annotated[str, AfterValidator(_check_level)] = "info"

    member_errors = {"process": _make_process_error, "plan": BillingPlanInvalid, "budget": BudgetInvalid}


class JobModel(JobChangesModel):
    """The members of a new job that users may set."""

    process: dict[str, Any]


def parse_job(body: Mapping[str, Any]) -> JobDraft:
    """Parse the body of ``POST /jobs``; raises the errors of `parse_fields`."""
    # Read-only members are ignored, as clients send back what they have received.
    return JobDraft(**parse_fields(JobModel, {k: v for k, v in body.items() if k not in READ_ONLY}))


def parse_job_changes(body: Mapping[str, Any]) -> dict[str, Any]:
    """Parse the body of ``PATCH /jobs/{job_id}``; raises the errors of `parse_fields`."""
    return parse_fields(JobChangesModel, body)


def parse_fields(model: type[JobChangesModel], body: Mapping[str, Any]) -> dict[str, Any]:
    """Parse the fields of a `JobDraft`, or of a draft with more fields, that a body sets.

    Raises:
        PropertyNotEditable: it sets a read-only member.
        RequestInvalid, ProcessInvalid, ProcessGraphMissing, BudgetInvalid, BillingPlanInvalid: a bad value.
    """
    for name in sorted(body.keys() & READ_ONLY):
        raise PropertyNotEditable(property=name)
    check_numbers(body)
    members = validate_body(model, body)
    set_names = members.model_fields_set & (model.model_fields.keys() - {"plan"})
    fields = {name: getattr(members, name) for name in sorted(set_names)}
    if "process" in fields:
        fields["process"] = parse_process(fields["process"])
    extras = {name: value for name, value in body.items() if name not in model.model_fields}
    parse_resources(extras)
    parse_archives(extras)
    parse_soft_errors(extras)
    return {**fields, "extras": extras} if extras else fields


# --- Jobs ----------------------------------------------------------------------------------------


def summary_to_dict(job: JobSummary) -> dict[str, Any]:
    """Describe a job in a listing."""
    document: dict[str, Any] = {
        "id": str(job.id),
        "title": job.title,
        "status": job.status,
        "progress": _get_percent_done(job),
        "created": format_rfc3339(job.created),
        "updated": format_rfc3339(job.updated),
    }
    return {name: value for name, value in document.items() if value is not None}


def _get_percent_done(job: JobSummary) -> float | None:
    fixed_progress = {"created": None, "queued": 0, "finished": 100}
    return fixed_progress.get(job.status, round(job.progress, 1))


def job_to_dict(job: Job, progress: PartsProgress | None = None) -> dict[str, Any]:
    """Describe a job in full, ``progress`` is that of its parts; unknown members are omitted."""
    times = {"queued": job.queued, "started": job.started, "unpublished": job.unpublished}
    document = {
        **job.draft.extras,
        **summary_to_dict(job),
        "description": job.draft.description,
        "process": job.draft.process,
        "budget": job.draft.budget,
        "log_level": job.draft.log_level,
        "usage": job.usage,
        "odc:parts": None if progress is None else progress.to_dict(),
        **{name: format_rfc3339(time) for name, time in times.items() if time is not None},
        "links": _make_job_links(job),
    }
    return {name: value for name, value in document.items() if value is not None}


def _make_job_links(job: Job) -> list[dict[str, Any]]:
    base = f"/jobs/{job.id}"
    monitor = [make_link("monitor", api_url(f"{base}/logs"), "Logs")]
    result = [make_link("result", api_url(f"{base}/results"), "Results")] if job.unpublished else []
    return [make_link("self", api_url(base), "This job"), *monitor, *result]


# --- Logs ----------------------------------------------------------------------------------------


def make_log_page(
    path: str, stored_level: str, page: Page[Entry], level: str, limit: int | None
) -> dict[str, Any]:
    """Make the response with a page of logs; entries below ``stored_level`` were not stored."""
    lowest = max(level, stored_level, key=LEVELS.__getitem__)
    links = make_page_links(path, page.next, "offset", limit=limit, level=level)
    return {"level": lowest, "logs": [log_entry_to_dict(entry) for entry in page.items], "links": links}


def log_entry_to_dict(entry: Entry) -> dict[str, Any]:
    """Describe a log entry."""
    document = {
        "id": str(entry.id),
        "level": entry.level,
        "message": entry.message,
        "time": format_rfc3339(entry.time),
    }
    return {**document, **_stringify_non_finite(entry.more)}


def _stringify_non_finite(value: Any) -> Any:
    """Convert NaN and infinity in logged data to strings, as JSON has no numbers for them."""
    if isinstance(value, Mapping):
        return {name: _stringify_non_finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_stringify_non_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
