"""Actions on jobs that also check their process, or affect the stored result files."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from odc_openeo import db, jobs
from odc_openeo.api.graph_checks import CHECK_SECONDS, find_errors_if_free
from odc_openeo.api.runner_calls import run_for_view
from odc_openeo.config import Config
from odc_openeo.errors import OpenEOError, StorageFailure
from odc_openeo.evaluation import estimates
from odc_openeo.jobs import Entry, Job, quotas
from odc_openeo.jobs.model import BUSY
from odc_openeo.jobs.options import parse_resources
from odc_openeo.jobs.queue import get_result_folder
from odc_openeo.storage import get_storage
from odc_openeo.user_data.allowances import read_allowance
from odc_openeo.user_data.files import count_free_storage

log = logging.getLogger(__name__)


def find_warnings(user: UUID, process: Mapping[str, Any] | None, extras: Mapping[str, Any]) -> list[Entry]:
    """Make log entries of what would end a job early, and of options that have no effect."""
    errors = [] if process is None else find_errors_if_free(process, user)
    texts = parse_resources(extras).warnings
    return [*map(_make_warning, errors), *(Entry("warning", text, db.now()) for text in texts)]


def _make_warning(error: OpenEOError) -> Entry:
    body = error.to_dict()
    path = {"path": [{"node_id": error.node}]} if error.node else {}
    message = f"The job can't run as it is. {body['message']}"
    return Entry("warning", message, db.now(), {"code": error.code, **path})


def start_job(config: Config, user: UUID, job: str) -> None:
    """Check and queue a job; the results of an earlier run are discarded.

    An estimate above what the user has left is a warning in the log.

    Raises:
        PaymentRequired: the user has no CPU hours left, or the job clearly takes more.
        StorageQuotaExceeded: the same of storage.
        OpenEOError: the first error of its process.
    """
    stored = jobs.get_job(config, user, job)
    if stored.status not in BUSY:
        check_quotas(config, user)
    for error in () if stored.status in BUSY else find_errors_if_free(stored.draft.process, user):
        # The request is wrong, whatever the error would be called elsewhere: the job itself was found.
        error.status = 400
        raise error
    entries = [] if stored.status in BUSY else _check_estimate(config, user, stored)
    previous_run = jobs.start_job(config, user, job, entries)
    if previous_run is not None:
        _delete_files(config, f"results/{job}/{previous_run}")


def check_quotas(config: Config, user: UUID) -> None:
    """Check that a user has CPU hours and storage left.

    Raises:
        PaymentRequired, StorageQuotaExceeded: that is not the case.
    """
    if config.quotas is not None:
        quotas.check_cpu_budget(config, user)
        quotas.check_storage(count_free_storage(config, str(user)))


def describe_estimate(config: Config, user: UUID, job: Job) -> dict[str, Any]:
    """Return the estimate of a job, with what the user has left and, in ``warnings``, what is too little."""
    estimate: dict[str, Any] = run_for_view(estimates.estimate_job, job, user=str(user))
    allowance = read_allowance(config, user)
    if allowance is None:
        return estimate
    warnings = [excess.error.message for excess in allowance.list_excesses(estimate)]
    return estimate | {"left": allowance.to_dict(), "warnings": warnings}


def _check_estimate(config: Config, user: UUID, job: Job) -> list[Entry]:
    """Compare a job with what its user has left; return what to log, raise the error of a clear excess.

    A job of which there is no estimate now is not refused: workers look at what is left once more.
    """
    allowance = read_allowance(config, user)
    if allowance is None or (allowance.cpu_hours is None and allowance.storage is None):
        return []
    seconds = min(CHECK_SECONDS, config.tile_timeout_s)
    try:
        estimate = run_for_view(estimates.estimate_job, job, user=str(user), seconds=seconds)
    except OpenEOError as error:
        log.info("job %s starts without an estimate: %s", job.id, error)
        return []
    excesses = allowance.list_excesses(estimate)
    for excess in excesses:
        if excess.is_clear:
            raise excess.error
    return [Entry("warning", e.error.message, db.now(), {"code": e.error.code}) for e in excesses]


def delete_job(config: Config, user: UUID, job: str) -> None:
    """Delete a job with its logs and results; a running job is canceled first."""
    id_ = jobs.delete_job(config, user, job)
    _delete_files(config, get_result_folder(id_))


def _delete_files(config: Config, folder: str) -> None:
    try:
        get_storage(config).delete(folder)
    except StorageFailure as error:
        # Nothing refers to them any more: workers remove such files from time to time.
        log.warning("files could not be removed yet: %s", error.__cause__ or error)
