"""Batch jobs: rows of PostgreSQL, which is the queue too.

`store` is what users do with their jobs, `queue` what workers do with them, `logs` what both read and write.
Every change of state is one SQL statement whose condition is the state it may start from.
"""

from odc_openeo.jobs.model import LEVELS, Entry, Job, JobDraft, Page, Summary
from odc_openeo.jobs.store import cancel, create, delete, get, last_error, list_jobs, list_logs, start, update

__all__ = [
    "LEVELS",
    "Entry",
    "Job",
    "JobDraft",
    "Page",
    "Summary",
    "cancel",
    "create",
    "delete",
    "get",
    "last_error",
    "list_jobs",
    "list_logs",
    "start",
    "update",
]
