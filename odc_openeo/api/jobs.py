"""Tag Batch Jobs: create, list, change, delete, start, cancel jobs; their logs and estimates."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request

from odc_openeo import jobs
from odc_openeo.api import job_actions
from odc_openeo.api.auth import current_user, signed_in
from odc_openeo.api.backend import api_url, backend
from odc_openeo.api.body import json_object
from odc_openeo.api.job_documents import (
    changes,
    draft,
    full_job,
    level_argument,
    limit_argument,
    log_page,
    page_links,
    short_job,
)
from odc_openeo.api.parameters import takes
from odc_openeo.api.runs import run_for_view
from odc_openeo.evaluation import estimates

blueprint = Blueprint("jobs", __name__)


@blueprint.get("/jobs")
@takes("limit", "after")
@signed_in
def list_jobs() -> dict[str, Any]:
    """``GET /jobs``: the user's jobs, the newest first."""
    limit, after = limit_argument(), request.args.get("after") or None
    page = jobs.list_jobs(backend().config, current_user().id, limit, after)
    links = page_links("/jobs", page.next, limit=limit)
    return {"jobs": [short_job(job) for job in page.items], "links": links}


@blueprint.post("/jobs")
@signed_in
def create_job() -> Response:
    """``POST /jobs``: store a new job."""
    id_ = jobs.create(backend().config, current_user().id, draft(json_object()))
    response = Response(status=201)
    response.headers["Location"] = api_url(f"/jobs/{id_}")
    response.headers["OpenEO-Identifier"] = str(id_)
    return response


@blueprint.get("/jobs/<job_id>")
@signed_in
def describe_job(job_id: str) -> dict[str, Any]:
    """``GET /jobs/{job_id}``: all that is known of a job."""
    return full_job(jobs.get(backend().config, current_user().id, job_id))


@blueprint.patch("/jobs/<job_id>")
@signed_in
def update_job(job_id: str) -> Response:
    """``PATCH /jobs/{job_id}``: change what the user says of a job."""
    jobs.update(backend().config, current_user().id, job_id, changes(json_object()))
    return Response(status=204)


@blueprint.delete("/jobs/<job_id>")
@signed_in
def delete_job(job_id: str) -> Response:
    """``DELETE /jobs/{job_id}``: remove a job with logs and results, stopping it first."""
    job_actions.delete(backend().config, current_user().id, job_id)
    return Response(status=204)


@blueprint.get("/jobs/<job_id>/estimate")
@signed_in
def estimate_job(job_id: str) -> Any:
    """``GET /jobs/{job_id}/estimate``: how large the results will be."""
    user = current_user().id
    return run_for_view(estimates.estimate_job, jobs.get(backend().config, user, job_id), user=str(user))


@blueprint.get("/jobs/<job_id>/logs")
@takes("offset", "level", "limit")
@signed_in
def debug_job(job_id: str) -> dict[str, Any]:
    """``GET /jobs/{job_id}/logs``: what was logged, in order of time."""
    config, limit, level = backend().config, limit_argument(), level_argument()
    job = jobs.get(config, current_user().id, job_id)
    page = jobs.list_logs(config, job, level, limit, request.args.get("offset"))
    return log_page(f"/jobs/{job.id}/logs", job.draft.log_level, page, level, limit)


@blueprint.post("/jobs/<job_id>/results")
@signed_in
def start_job(job_id: str) -> Response:
    """``POST /jobs/{job_id}/results``: queue a job; results of an earlier run are discarded."""
    job_actions.start(backend().config, current_user().id, job_id)
    return Response(status=202)


@blueprint.delete("/jobs/<job_id>/results")
@signed_in
def stop_job(job_id: str) -> Response:
    """``DELETE /jobs/{job_id}/results``: stop a job."""
    jobs.cancel(backend().config, current_user().id, job_id)
    return Response(status=204)
