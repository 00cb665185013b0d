"""Maintenance that any worker does for all: queue lost jobs and parts again, remove old files."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from odc_openeo.config import Config
from odc_openeo.errors import OpenEOError
from odc_openeo.jobs import parts, queue
from odc_openeo.storage import get_storage
from odc_openeo.worker.cleaning import remove_old_files

log = logging.getLogger(__name__)


@dataclass
class Upkeep:
    """The times at which a worker has done each of the tasks."""

    config: Config
    recovered: float = 0.0
    cleaned: float = 0.0

    def do_due_tasks(self) -> None:
        """Do the tasks that are due now."""
        now = time.monotonic()
        if now - self.recovered > min(5.0, self.config.job_lost_after_s / 3):
            self.recovered = now
            self._recover_lost_runs()
        if not self.cleaned or now - self.cleaned > get_storage(self.config).sweep_seconds:
            self.cleaned = now
            try:
                remove_old_files(self.config)
            except (OpenEOError, OSError) as error:
                log.warning("old files could not be removed: %s", error)

    def _recover_lost_runs(self) -> None:
        again, failed = queue.recover_lost_jobs(self.config)
        if again or failed:
            log.warning("lost workers: %d jobs queued again, %d failed", again, failed)
        again, failed = parts.recover_lost_parts(self.config)
        if again or failed:
            log.warning("lost workers: %d parts queued again, %d given up", again, failed)
