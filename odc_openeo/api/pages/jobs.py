"""The jobs of the user who is signed in: a list, and a page for each with logs and results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from flask import Blueprint, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from odc_openeo import jobs, results
from odc_openeo.api import job_actions
from odc_openeo.api.backend import backend
from odc_openeo.api.job_documents import full_job, level_argument, log_entry, short_job
from odc_openeo.api.job_results import link_of
from odc_openeo.api.pages.forms import for_users, private_page, user
from odc_openeo.api.pages.html import address, markdown, shows_errors
from odc_openeo.errors import NotFound
from odc_openeo.jobs.model import BUSY
from odc_openeo.results import Results

blueprint = shows_errors(Blueprint("my_jobs", __name__, url_prefix="/my"))

PAGE: Final = 25
LOGS: Final = 200
RELOAD_SECONDS: Final = 5
PICTURES: Final = ("image/png", "image/jpeg")
LARGEST_THUMBNAIL: Final = 2 * 2**20
ACTIONS: Final = {"start": job_actions.start, "cancel": jobs.cancel, "delete": job_actions.delete}


@blueprint.get("/jobs")
@for_users
def job_list() -> Response:
    """All jobs of the user, the newest first."""
    found = jobs.list_jobs(backend().config, user().id, PAGE, request.args.get("after") or None)
    rows = [{**short_job(job), "picture": _thumbnail(job)} for job in found.items]
    busy = any(job.status in BUSY for job in found.items)
    return private_page("jobs.html", jobs=rows, next=found.next, reload=RELOAD_SECONDS if busy else None)


@blueprint.get("/jobs/<job_id>")
@for_users
def job(job_id: str) -> Response:
    """One job: what it is, where it stands, what it logged and made."""
    config, level = backend().config, level_argument()
    found = jobs.get(config, user().id, job_id)
    logs = jobs.list_logs(config, found, level, LOGS, request.args.get("offset"))
    published = results.find(config, found)
    return private_page(
        "job.html",
        job=full_job(found),
        description=markdown(found.draft.description or ""),
        process=json.dumps(found.draft.process, indent=2, ensure_ascii=False),
        files=_files(published) if published else [],
        complete=published is not None and published.complete,
        logs=[log_entry(entry) for entry in logs.items],
        next=logs.next,
        level=level,
        busy=found.status in BUSY,
        reload=RELOAD_SECONDS if found.status in BUSY else None,
    )


@blueprint.post("/jobs/<job_id>/<action>")
@for_users
def act(job_id: str, action: str) -> AnyResponse:
    """Start, cancel or delete a job."""
    if action not in ACTIONS:
        raise NotFound
    ACTIONS[action](backend().config, user().id, job_id)
    gone = action == "delete"
    return redirect(address("my_jobs.job_list") if gone else address("my_jobs.job", job_id=job_id), 303)


def _thumbnail(job: jobs.Summary) -> str | None:
    """The thumbnail of a finished job, else its first picture if that is small."""
    if job.status != "finished":
        return None
    config = backend().config
    published = results.find(config, jobs.get(config, user().id, str(job.id)))
    pictures = [file for file in _files(published) if file["picture"]] if published else []
    pictures.sort(key=lambda file: not file["thumbnail"])
    return str(pictures[0]["path"]) if pictures else None


def _files(published: Results) -> list[dict[str, Any]]:
    """The files of results, with links for a while."""
    link = link_of(published)
    return [{**_file(asset), "path": link(asset["name"])} for asset in published.assets]


def _file(asset: Mapping[str, Any]) -> dict[str, Any]:
    size = asset.get("file:size", 0)
    return {
        "name": asset["name"],
        "type": asset["type"],
        "size": size,
        "time": asset.get("datetime"),
        "checksum": asset.get("file:checksum"),
        "thumbnail": "thumbnail" in asset.get("roles", ()),
        "picture": asset["type"] in PICTURES and size <= LARGEST_THUMBNAIL,
    }
