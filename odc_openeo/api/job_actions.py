"""What users do to their jobs that concerns the files of results as well."""

from __future__ import annotations

from uuid import UUID

from odc_openeo import jobs
from odc_openeo.config import Config
from odc_openeo.jobs.queue import folder
from odc_openeo.storage import storage


def start(config: Config, user: UUID, job: str) -> None:
    """Queue a job; results of an earlier run are discarded."""
    old = jobs.start(config, user, job)
    if old is not None:
        storage(config).delete(f"results/{job}/{old}")


def delete(config: Config, user: UUID, job: str) -> None:
    """Remove a job with logs and results, stopping it first."""
    id_ = jobs.delete(config, user, job)
    storage(config).delete(folder(id_))
