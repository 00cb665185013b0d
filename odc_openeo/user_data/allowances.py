"""The rest of the quotas of users, and whether the estimate of a job fits into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from odc_openeo.config import Config
from odc_openeo.errors import OpenEOError, PaymentRequired, StorageQuotaExceeded
from odc_openeo.jobs.quotas import count_free_cpu_hours, get_quota_of
from odc_openeo.user_data.files import count_free_storage

CLEARLY: Final = 3
"""An estimate more than so many times larger than what is left refuses a job: compression and the work that
follows reading make estimates wrong, mostly by less."""


@dataclass(frozen=True)
class Allowance:
    """The rest that a user may use: CPU hours this month, bytes of storage, jobs at the same time.

    None is no limit.
    """

    cpu_hours: float | None
    storage: int | None
    jobs: int | None

    def to_dict(self) -> dict[str, float]:
        """Return the limits that there are, as the API shows them."""
        limits = {"cpu_hours": self.cpu_hours, "storage": self.storage, "jobs": self.jobs}
        return {name: round(left, 4) for name, left in limits.items() if left is not None}

    def list_excesses(self, estimate: Mapping[str, Any]) -> list[Excess]:
        """List what an estimate takes more of than is left."""
        excesses = []
        if self.cpu_hours is not None and estimate["cpu_hours"] > self.cpu_hours:
            message = (
                f"The job may take {estimate['cpu_hours']:.3g} CPU hours, and you have "
                f"{self.cpu_hours:.3g} left this month. Choose a smaller extent, fewer bands or a coarser "
                "resolution, wait for the next month, or ask the operator."
            )
            factor = estimate["cpu_hours"] / max(self.cpu_hours, 1e-9)
            excesses.append(Excess(PaymentRequired(message), factor))
        if self.storage is not None and estimate["size"] > self.storage:
            message = (
                f"The results may have up to {estimate['size']} bytes before compression, and "
                f"{self.storage} bytes of your storage are free. Choose a smaller extent or a coarser "
                "resolution, or delete files or jobs."
            )
            excesses.append(Excess(StorageQuotaExceeded(message), estimate["size"] / max(self.storage, 1)))
        return excesses


@dataclass(frozen=True)
class Excess:
    """An error that says what a job takes too much of, and how many times more than is left."""

    error: OpenEOError
    factor: float

    @property
    def is_clear(self) -> bool:
        """Whether it is larger than an estimate may be wrong."""
        return self.factor > CLEARLY


def read_allowance(config: Config, user: UUID) -> Allowance | None:
    """Return what a user has left; None where there are no quotas by role."""
    quota = get_quota_of(config, user)
    if quota is None:
        return None
    return Allowance(count_free_cpu_hours(config, user), count_free_storage(config, str(user)), quota.jobs)
