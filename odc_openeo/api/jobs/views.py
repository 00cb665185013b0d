"""Tag Batch Jobs: create, list, update, delete, start and cancel jobs; logs and estimates."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request

from odc_openeo import jobs
from odc_openeo.api.auth import current_user, signed_in
from odc_openeo.api.backend import api_url, backend
from odc_openeo.api.jobs import actions
from odc_openeo.api.jobs.documents import (
    job_to_dict,
    make_log_page,
    parse_job,
    parse_job_changes,
    summary_to_dict,
)
from odc_openeo.api.json_body import read_json_object
from odc_openeo.api.paging import make_page_links, read_level, read_limit
from odc_openeo.api.query_parameters import takes
from odc_openeo.api.view_bodies import accepts, answers
from odc_openeo.jobs.part_progress import find_parts_progress

blueprint = Blueprint("jobs", __name__)


@blueprint.get("/jobs")
@takes("limit", "after")
@signed_in
def list_jobs() -> dict[str, Any]:
    """``GET /jobs``: the user's jobs, newest first."""
    limit, after = read_limit(), request.args.get("after") or None
    page = jobs.list_jobs(backend().config, current_user().id, limit, after)
    links = make_page_links("/jobs", page.next, limit=limit)
    return {"jobs": [summary_to_dict(job) for job in page.items], "links": links}


@blueprint.post("/jobs")
@answers(201)
@signed_in
def create_job() -> Response:
    """``POST /jobs``: create a job."""
    user, draft = current_user().id, parse_job(read_json_object())
    entries = actions.find_warnings(user, draft.process, draft.extras)
    id_ = jobs.create_job(backend().config, user, draft, entries)
    response = Response(status=201)
    response.headers["Location"] = api_url(f"/jobs/{id_}")
    response.headers["OpenEO-Identifier"] = str(id_)
    return response


@blueprint.get("/jobs/<job_id>")
@signed_in
def describe_job(job_id: str) -> dict[str, Any]:
    """``GET /jobs/{job_id}``: the full metadata of a job."""
    config = backend().config
    job = jobs.get_job(config, current_user().id, job_id)
    return job_to_dict(job, None if job.status == "created" else find_parts_progress(config, job.id))


@blueprint.patch("/jobs/<job_id>")
@answers(204)
@signed_in
def update_job(job_id: str) -> Response:
    """``PATCH /jobs/{job_id}``: update the metadata or process of a job."""
    user, changes = current_user().id, parse_job_changes(read_json_object())
    entries = actions.find_warnings(user, changes.get("process"), changes.get("extras", {}))
    jobs.update_job(backend().config, user, job_id, changes, entries)
    return Response(status=204)


@blueprint.delete("/jobs/<job_id>")
@answers(204)
@signed_in
def delete_job(job_id: str) -> Response:
    """``DELETE /jobs/{job_id}``: delete a job with its logs and results; a running job is canceled first."""
    actions.delete_job(backend().config, current_user().id, job_id)
    return Response(status=204)


@blueprint.get("/jobs/<job_id>/estimate")
@signed_in
def estimate_job(job_id: str) -> Any:
    """``GET /jobs/{job_id}/estimate``: what a job takes, and what of the quotas is left.

    Results may be downloaded as often as one likes until they are deleted.
    """
    config, user = backend().config, current_user().id
    return actions.describe_estimate(config, user, jobs.get_job(config, user, job_id))


@blueprint.get("/jobs/<job_id>/logs")
@takes("offset", "level", "limit")
@signed_in
def debug_job(job_id: str) -> dict[str, Any]:
    """``GET /jobs/{job_id}/logs``: the log entries of a job in chronological order."""
    config, limit, level = backend().config, read_limit(), read_level()
    job = jobs.get_job(config, current_user().id, job_id)
    page = jobs.list_logs(config, job, level, limit, request.args.get("offset"))
    return make_log_page(f"/jobs/{job.id}/logs", job.draft.log_level, page, level, limit)


@blueprint.post("/jobs/<job_id>/results")
@accepts(None)
@answers(202)
@signed_in
def start_job(job_id: str) -> Response:
    """``POST /jobs/{job_id}/results``: check and queue a job; results of an earlier run are discarded."""
    actions.start_job(backend().config, current_user().id, job_id)
    return Response(status=202)


@blueprint.delete("/jobs/<job_id>/results")
@answers(204)
@signed_in
def stop_job(job_id: str) -> Response:
    """``DELETE /jobs/{job_id}/results``: cancel a job."""
    jobs.cancel_job(backend().config, current_user().id, job_id)
    return Response(status=204)
