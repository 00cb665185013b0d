"""Batch jobs: rows in PostgreSQL, which also serves as the queue.

`store` has the operations of users, `queue` those of workers; `records` makes log entries, `results` reads
published results and `result_stac` describes them. Every change of state is one SQL statement whose condition
is the state that the change starts from.
"""

from odc_openeo.db.logs import LEVELS, Entry
from odc_openeo.db.paging import Page
from odc_openeo.jobs.model import Job, JobDraft, JobSummary
from odc_openeo.jobs.store import (
    cancel_job,
    create_job,
    delete_job,
    get_job,
    get_last_error,
    list_jobs,
    list_logs,
    start_job,
    update_job,
)

__all__ = [
    "LEVELS",
    "Entry",
    "Job",
    "JobDraft",
    "JobSummary",
    "Page",
    "cancel_job",
    "create_job",
    "delete_job",
    "get_job",
    "get_last_error",
    "list_jobs",
    "list_logs",
    "start_job",
    "update_job",
]
