"""Published results of batch jobs, and signed links to them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.errors import ResultLinkExpired
from odc_openeo.jobs import Job
from odc_openeo.jobs.part_progress import list_part_assets
from odc_openeo.jobs.result_stac import Results
from odc_openeo.jobs.store import make_job
from odc_openeo.storage.signed_links import is_valid_signature, sign_link

PURPOSE: Final = "results"


def find_results(config: Config, job: Job) -> Results | None:
    """Return the published results of a job, None if there are none."""
    with db.session(config) as session:
        row = session.get(db.JobResult, job.id)
    return None if row is None else _make_results(config, row, job)


def _make_results(config: Config, row: db.JobResult, job: Job) -> Results:
    assets, details = json.loads(row.assets), json.loads(row.details)
    if not row.complete and not assets:
        assets = list_unique_assets(list_part_assets(config, job.id))
    return Results(job, row.attempt, row.complete, assets, details, row.created, row.expires)


def list_unique_assets(assets: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """List assets of parts by name; a folder that several parts write to is as large as all they have."""
    unique: dict[str, dict[str, Any]] = {}
    for asset in assets:
        first = unique.setdefault(asset["name"], {**asset, "file:size": 0})
        first["file:size"] += asset.get("file:size", 0)
    return list(unique.values())


def make_empty_results(job: Job) -> Results:
    """Return the results of a job that has not written any file yet."""
    return Results(job, job.attempt or job.id, False, (), {}, job.updated, None)


# --- Signed links --------------------------------------------------------------------------------


def sign_results(config: Config, job: UUID, attempt: UUID, expires: int) -> str:
    """Sign links to the results of one attempt: they become invalid with it, and with the signing key."""
    return sign_link(config, PURPOSE, (job, attempt), expires)


def open_link(config: Config, job: UUID, expires: int, signature: str) -> Results:
    """Return the results that a signed link leads to.

    Raises:
        ResultLinkExpired: it has expired, its results were replaced or deleted, or it was never valid.
    """
    if expires < time.time():
        raise ResultLinkExpired
    with db.session(config) as session:
        rows = session.execute(
            select(db.JobResult, db.JobRow)
            .join(db.JobRow, db.JobRow.id == db.JobResult.job_id)
            .where(db.JobRow.id == job)
        ).one_or_none()
    if rows is None:
        raise ResultLinkExpired
    result_row, job_row = rows
    if not is_valid_signature(config, PURPOSE, (job, result_row.attempt), expires, signature):
        raise ResultLinkExpired
    return _make_results(config, result_row, make_job(job_row, result_row.expires))
