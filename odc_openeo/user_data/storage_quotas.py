"""How much of the storage users may take: the setting for all, or the quota of their role."""

from __future__ import annotations

from uuid import UUID

from odc_openeo.config import Config
from odc_openeo.jobs.quotas import count_result_bytes, get_quota_of


def get_storage_quota(config: Config, user: str) -> int | None:
    """Return the bytes that a user may store; None without a limit."""
    quota = get_quota_of(config, UUID(user)) if config.quotas is not None else None
    return config.user_storage_bytes if quota is None else quota.storage


def count_results(config: Config, user: str) -> int:
    """Count the bytes of results of jobs, which count for the quotas of roles only."""
    return 0 if config.quotas is None else count_result_bytes(config, UUID(user))
