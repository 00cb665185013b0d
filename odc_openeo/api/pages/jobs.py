"""The pages of the signed-in user's jobs: a list, and one page per job with logs and results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from flask import Blueprint, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from odc_openeo import jobs
from odc_openeo.api.backend import backend
from odc_openeo.api.jobs import actions
from odc_openeo.api.jobs.documents import job_to_dict, log_entry_to_dict, summary_to_dict
from odc_openeo.api.jobs.results import make_signed_paths
from odc_openeo.api.pages.forms import for_users, get_visitor, render_private_page
from odc_openeo.api.pages.html import format_size, make_page_path, render_markdown, with_error_pages
from odc_openeo.api.paging import read_level
from odc_openeo.errors import NotFound
from odc_openeo.jobs import results
from odc_openeo.jobs.model import BUSY
from odc_openeo.jobs.result_stac import Results

blueprint = with_error_pages(Blueprint("my_jobs", __name__, url_prefix="/my"))

PAGE_SIZE: Final = 25
LOG_PAGE_SIZE: Final = 200
RELOAD_SECONDS: Final = 5
PICTURE_TYPES: Final = ("image/png", "image/jpeg")
MAX_THUMBNAIL_BYTES: Final = 2 * 2**20
ACTIONS: Final = {"start": actions.start_job, "cancel": jobs.cancel_job, "delete": actions.delete_job}


@blueprint.get("/jobs")
@for_users
def job_list() -> Response:
    """The list of the user's jobs, newest first."""
    job_page = jobs.list_jobs(
        backend().config, get_visitor().id, PAGE_SIZE, request.args.get("after") or None
    )
    rows = [{**summary_to_dict(job), "picture": _find_thumbnail(job)} for job in job_page.items]
    busy = any(job.status in BUSY for job in job_page.items)
    return render_private_page(
        "jobs.html", jobs=rows, next=job_page.next, reload=RELOAD_SECONDS if busy else None
    )


@blueprint.get("/jobs/<job_id>")
@for_users
def job(job_id: str) -> Response:
    """The page of a job: process, status, logs and results."""
    config, level = backend().config, read_level()
    batch_job = jobs.get_job(config, get_visitor().id, job_id)
    logs = jobs.list_logs(config, batch_job, level, LOG_PAGE_SIZE, request.args.get("offset"))
    published = results.find_results(config, batch_job)
    return render_private_page(
        "job.html",
        job=job_to_dict(batch_job),
        usage=describe_usage(batch_job.usage or {}),
        description=render_markdown(batch_job.draft.description or ""),
        process=json.dumps(batch_job.draft.process, indent=2, ensure_ascii=False),
        files=_list_result_files(published) if published else [],
        complete=published is not None and published.complete,
        logs=[log_entry_to_dict(entry) for entry in logs.items],
        next=logs.next,
        level=level,
        busy=batch_job.status in BUSY,
        reload=RELOAD_SECONDS if batch_job.status in BUSY else None,
    )


@blueprint.post("/jobs/<job_id>/<action>")
@for_users
def act(job_id: str, action: str) -> AnyResponse:
    """Start, cancel or delete a job."""
    if action not in ACTIONS:
        raise NotFound
    ACTIONS[action](backend().config, get_visitor().id, job_id)
    is_deleted = action == "delete"
    return redirect(
        make_page_path("my_jobs.job_list") if is_deleted else make_page_path("my_jobs.job", job_id=job_id),
        303,
    )


def describe_usage(usage: Mapping[str, Any]) -> dict[str, str]:
    """Describe measured usage in words, by label."""
    seconds = usage.get("duration", {}).get("value")
    described = {}
    for metric, measured in usage.items():
        label = {"cpu": "Processor", "gpu": "Graphics processor"}.get(
            metric, metric.replace("_", " ").capitalize()
        )
        described[label] = _describe_amount(measured["value"], measured["unit"], seconds)
    return described


def _describe_amount(value: Any, unit: str, seconds: float | None) -> str:
    if not isinstance(value, int | float):
        return f"{value} {unit}"
    if unit == "b":
        return format_size(value)
    if unit == "mb-seconds":
        return f"{format_size(value * 1e6 / seconds)} on average" if seconds else f"{value / 1e3:,.1f} GB·s"
    return f"{value:,.6g} {'seconds' if unit in ('seconds', 'cpu-seconds') else unit}"


def _find_thumbnail(job: jobs.JobSummary) -> str | None:
    """Find the thumbnail of a finished job, else its first picture if that is small."""
    if job.status != "finished":
        return None
    config = backend().config
    published = results.find_results(config, jobs.get_job(config, get_visitor().id, str(job.id)))
    pictures = [file for file in _list_result_files(published) if file["picture"]] if published else []
    pictures.sort(key=lambda file: not file["thumbnail"])
    return str(pictures[0]["path"]) if pictures else None


def _list_result_files(published: Results) -> list[dict[str, Any]]:
    """List the result files with signed links, which expire."""
    make_path = make_signed_paths(published)
    return [{**_describe_result_file(asset), "path": make_path(asset["name"])} for asset in published.assets]


def _describe_result_file(asset: Mapping[str, Any]) -> dict[str, Any]:
    size = asset.get("file:size", 0)
    return {
        "name": asset["name"],
        "type": asset["type"],
        "size": size,
        "time": asset.get("datetime"),
        "checksum": asset.get("file:checksum"),
        "thumbnail": "thumbnail" in asset.get("roles", ()),
        "picture": asset["type"] in PICTURE_TYPES and size <= MAX_THUMBNAIL_BYTES,
    }
