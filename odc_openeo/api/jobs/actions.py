"""Actions on jobs that also check their process, or affect the stored result files."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from odc_openeo import db, jobs
from odc_openeo.api.graph_checks import find_errors_if_free
from odc_openeo.config import Config
from odc_openeo.errors import OpenEOError, StorageFailure
from odc_openeo.jobs import Entry, quotas
from odc_openeo.jobs.model import BUSY
from odc_openeo.jobs.options import parse_resources
from odc_openeo.jobs.queue import get_result_folder
from odc_openeo.storage import get_storage
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

    Raises:
        PaymentRequired: the user has no CPU hours left.
        StorageQuotaExceeded: or no storage.
        OpenEOError: the first error of its process.
    """
    stored = jobs.get_job(config, user, job)
    if stored.status not in BUSY:
        check_quotas(config, user)
    for error in () if stored.status in BUSY else find_errors_if_free(stored.draft.process, user):
        # The request is wrong, whatever the error would be called elsewhere: the job itself was found.
        error.status = 400
        raise error
    previous_run = jobs.start_job(config, user, job)
    if previous_run is not None:
        _delete_files(config, f"results/{job}/{previous_run}")


def check_quotas(config: Config, user: UUID, size: int = 1) -> None:
    """Check that a user has CPU hours left, and storage for results of that size in bytes.

    Raises:
        PaymentRequired, StorageQuotaExceeded: that is not the case.
    """
    if config.quotas is not None:
        quotas.check_cpu_budget(config, user)
        quotas.check_storage(count_free_storage(config, str(user)), size)


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
