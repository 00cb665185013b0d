"""Quotas of users by their roles, from a YAML file: CPU hours per month, storage, jobs at the same time."""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Final
from uuid import UUID

import yaml
from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationError
from sqlalchemy import func, select

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.errors import PaymentRequired, StorageQuotaExceeded
from odc_openeo.jobs.usage import count_cpu_seconds
from odc_openeo.storage.settings_files import read_if_changed
from odc_openeo.users.roles import check_role

UNLIMITED: Final = 2**31 - 1
"""Jobs at the same time of somebody without a limit."""


class QuotasError(ValueError):
    """The file of quotas cannot be used; the message says where and why."""


class Quota(BaseModel):
    """The limits of a user; None: no limit. ``storage`` is that of files and results together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpu_hours_per_month: float | None = Field(None, ge=0, allow_inf_nan=False)
    storage: ByteSize | None = Field(None, ge=0)
    jobs: int | None = Field(None, ge=1, le=UNLIMITED)


class _Quotas(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    default: Quota = Quota()
    roles: dict[str, Quota] = {}


def read_quotas(path: Path | None) -> _Quotas | None:
    """Read the quotas; read again when the file has changed. None without a file.

    Raises:
        QuotasError: the file is missing, or not valid.
    """
    if path is None:
        return None
    return read_if_changed(path, "quotas", QuotasError, _read_cached)


@lru_cache(maxsize=4)
def _read_cached(path: Path, _changed: int) -> _Quotas:
    try:
        quotas = _Quotas.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
        for role in quotas.roles:
            check_role(role)
    except yaml.YAMLError as error:
        raise QuotasError(f"the quotas {path} are not valid YAML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors()[:10])
        raise QuotasError(f"the quotas {path} are invalid: {problems}") from error
    except ValueError as error:
        raise QuotasError(f"the quotas {path} are invalid: {error}") from error
    return quotas


def get_quota(config: Config, roles: Collection[str]) -> Quota | None:
    """Return the quota of somebody with these roles: of each limit the most generous; None without a file.

    Without such a role, it is the default.
    """
    quotas = read_quotas(config.quotas)
    if quotas is None:
        return None
    matching = [quotas.roles[role] for role in roles if role in quotas.roles] or [quotas.default]
    best = {name: _find_most(getattr(quota, name) for quota in matching) for name in Quota.model_fields}
    return Quota.model_validate(best)


def _find_most(limits: object) -> float | None:
    numbers = list(limits)  # type: ignore[call-overload]
    return None if None in numbers else max(numbers)


def get_quota_of(config: Config, user: UUID) -> Quota | None:
    """Return the quota of a user, None without a file."""
    if config.quotas is None:
        return None
    with db.autocommit_session(config) as session:
        row = session.get(db.User, user)
    return get_quota(config, [] if row is None else [*row.roles, *row.grants])


def describe_job_limits(config: Config) -> str:
    """Return the numbers of jobs at the same time by role, as JSON."""
    quotas = read_quotas(config.quotas)
    roles = {} if quotas is None else quotas.roles
    return json.dumps({role: UNLIMITED if q.jobs is None else q.jobs for role, q in roles.items()})


def get_default_job_limit(config: Config) -> int:
    """Return the number of jobs at the same time of users without a role that has one."""
    quotas = read_quotas(config.quotas)
    return config.jobs_per_user if quotas is None else quotas.default.jobs or config.jobs_per_user


def count_result_bytes(config: Config, user: UUID) -> int:
    """Count the bytes of the results of a user's jobs."""
    query = select(func.coalesce(func.sum(db.JobResult.nbytes), 0)).join(db.JobRow)
    with db.autocommit_session(config) as session:
        return int(session.scalar(query.where(db.JobRow.user_id == user)) or 0)


def count_free_cpu_hours(config: Config, user: UUID) -> float | None:
    """Count the CPU hours that a user may still use this month; None without a limit."""
    quota = get_quota_of(config, user)
    if quota is None or quota.cpu_hours_per_month is None:
        return None
    return max(quota.cpu_hours_per_month - count_cpu_seconds(config, user) / 3600, 0.0)


def check_cpu_budget(config: Config, user: UUID) -> None:
    """Raise PaymentRequired if a user has no CPU hours left this month."""
    if count_free_cpu_hours(config, user) == 0:
        quota = get_quota_of(config, user)
        raise PaymentRequired(hours=0 if quota is None else quota.cpu_hours_per_month)


def check_storage(free_bytes: int | None, size: int = 1) -> None:
    """Raise StorageQuotaExceeded if a size is larger than what is free; None: no limit."""
    if free_bytes is not None and size > free_bytes:
        raise StorageQuotaExceeded(free=max(free_bytes, 0))
