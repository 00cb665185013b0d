"""The pages that explain the processes of the user's jobs and services: plan, diagram, program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flask import Blueprint, Response

from odc_openeo import jobs
from odc_openeo.api.backend import backend
from odc_openeo.api.pages.forms import for_users, get_visitor, render_private_page
from odc_openeo.api.pages.html import make_page_path, with_error_pages
from odc_openeo.api.runner_calls import run_for_view
from odc_openeo.evaluation import explanations
from odc_openeo.explain import draw_plan
from odc_openeo.services import store as services

blueprint = with_error_pages(Blueprint("my_explanations", __name__, url_prefix="/my"))

PYTHON: Final = "text/x-python; charset=utf-8"


@blueprint.get("/jobs/<job_id>/explanation")
@for_users
def explain_job(job_id: str) -> Response:
    """The explanation of a job's process."""
    job = jobs.get_job(backend().config, get_visitor().id, job_id)
    paths = {
        "back": make_page_path("my_jobs.job", job_id=job_id),
        "program": make_page_path("my_explanations.download_job_program", job_id=job_id),
    }
    return _render_explanation(job.draft.process, job.draft.title or f"Job {job_id[:8]}", paths)


@blueprint.get("/jobs/<job_id>/program.py")
@for_users
def download_job_program(job_id: str) -> Response:
    """The program of a job's process as a file."""
    return _send_program(jobs.get_job(backend().config, get_visitor().id, job_id).draft.process)


@blueprint.get("/services/<service_id>/explanation")
@for_users
def explain_service(service_id: str) -> Response:
    """The explanation of a service's process."""
    service = services.get_service(backend().config, get_visitor().id, service_id)
    paths = {
        "back": make_page_path("my_services.service", service_id=service_id),
        "program": make_page_path("my_explanations.download_service_program", service_id=service_id),
    }
    title = service.draft.title or f"Service {service_id[:8]}"
    return _render_explanation(service.draft.process, title, paths)


@blueprint.get("/services/<service_id>/program.py")
@for_users
def download_service_program(service_id: str) -> Response:
    """The program of a service's process as a file."""
    service = services.get_service(backend().config, get_visitor().id, service_id)
    return _send_program(service.draft.process)


def _explain(process: Mapping[str, Any]) -> dict[str, Any]:
    user = str(get_visitor().id)
    explanation: dict[str, Any] = run_for_view(explanations.explain_process, process, user, user=user)
    return explanation


def _render_explanation(process: Mapping[str, Any], title: str, paths: Mapping[str, str]) -> Response:
    explanation = _explain(process)
    drawing = draw_plan(explanation["plan"])
    return render_private_page(
        "explanation.html", explanation=explanation, drawing=drawing, name=title, paths=paths
    )


def _send_program(process: Mapping[str, Any]) -> Response:
    response = Response(_explain(process)["program"], content_type=PYTHON)
    response.headers["Content-Disposition"] = "attachment; filename=program.py"
    response.headers["Cache-Control"] = "no-store"
    return response
