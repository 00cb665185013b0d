"""Actions on jobs that affect the stored result files as well."""

from __future__ import annotations

from uuid import UUID

from odc_openeo import jobs
from odc_openeo.config import Config
from odc_openeo.jobs.queue import get_result_folder
from odc_openeo.storage import get_storage


def start_job(config: Config, user: UUID, job: str) -> None:
    """Queue a job; the results of an earlier run are discarded."""
    previous_run = jobs.start_job(config, user, job)
    if previous_run is not None:
        get_storage(config).delete(f"results/{job}/{previous_run}")


def delete_job(config: Config, user: UUID, job: str) -> None:
    """Delete a job with its logs and results; a running job is canceled first."""
    id_ = jobs.delete_job(config, user, job)
    get_storage(config).delete(get_result_folder(id_))
